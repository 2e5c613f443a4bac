"""Send one datagram of text, repeated until the other node acknowledges it."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import sys

from constants import BROADCAST_ADDRESS
from node import SetupError, argument_parser, open_node, peer_address, run
from utils import format_address

EVERYBODY = format_address(BROADCAST_ADDRESS)
EXAMPLES = f"""\
The text has to fit one frame (1477 bytes of UTF-8 on ordinary Ethernet); longer ones: alexstream_client.py.
examples:
  sudo python3 send_message.py eth0 6a:00:00:00:00:01 "supper is ready"
  sudo python3 send_message.py eth0 {EVERYBODY} "to everybody"
exits with 1 if the text was not delivered.
"""


def main() -> int:
    """Send it, and say whether it was delivered."""
    parser = argument_parser("send_message.py", "Send a text to a node, and say whether it was delivered.", EXAMPLES)
    parser.add_argument("mac", metavar="MAC", help=f"the other node's address; {EVERYBODY}: everybody, unacknowledged")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS", help="when to give up (%(default)g)")
    arguments = parser.parse_args()
    to_everybody = arguments.mac.lower() == EVERYBODY
    if not to_everybody:
        peer_address(arguments.mac)
    with open_node(arguments) as node:
        try:
            if to_everybody:
                node.broadcast(arguments.text)
                print("sent to everybody who listens")
            else:
                peer = peer_address(arguments.mac, node)
                seconds = node.send_message(peer, arguments.text, timeout=arguments.timeout)
                print(f"delivered to {format_address(peer)} in {1000 * seconds:.2f} ms")
        except ValueError as error:  # too long, or no text
            raise SetupError(str(error)) from None
        except TimeoutError as error:
            print(f"not delivered: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
