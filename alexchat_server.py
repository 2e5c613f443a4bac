"""AlexChat: opens a room, which lives as long as anybody is in it; `alexchat_client.py` joins one."""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

from alexchat_client import HELP, TYPING, chat_parser, check_folders, open_console, open_room
from alexstream_client import use_secret
from node import INFINITY, open_node, run

EXAMPLES = f"""\
{TYPING}\
At the end of stdin this program stays in the room, unless --linger says how long.
examples:
  sudo python3 alexchat_server.py eth0
  sudo python3 alexchat_server.py eth0 --name kitchen < /dev/null > log
"""


def main() -> int:
    """Open a room."""
    parser = chat_parser("alexchat_server.py", "Open a room where all talk to all.", EXAMPLES, linger=INFINITY)
    arguments = parser.parse_args()
    check_folders(arguments)
    with open_node(arguments, client="alexchat_client.py") as node:
        use_secret(node, arguments.secret, is_quiet=arguments.quiet)
        with open_console(arguments) as console:
            if console.is_interactive:
                console.note("the room is open" + HELP)
            return open_room(node, console, arguments, is_opener=True).run()


if __name__ == "__main__":
    sys.exit(run(main))
