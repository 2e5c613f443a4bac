"""Send one datagram of text, repeated until the other node acknowledges it."""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse

import constants as c
from node import (
    Node,
    SetupError,
    argument_parser,
    check_peer,
    json_line,
    open_node,
    peer_address,
    run,
    seconds_argument,
    tell_on_stderr,
    who_is_there,
)
from utils import format_address

EVERYBODY = format_address(c.BROADCAST_ADDRESS)
EXAMPLES = f"""\
The text has to fit one frame (1477 bytes of UTF-8 on ordinary Ethernet); longer ones: alexstream_client.py.
-q: the exit status alone is the answer.
examples:
  sudo python3 send_message.py eth0 6a:00:00:00:00:01 "supper is ready"
  sudo python3 send_message.py eth0 dora "supper is ready" --timeout 30
  sudo python3 send_message.py eth0 {EVERYBODY} "to everybody"
exits with 1 if the text was not delivered.
"""


def send(node: Node, arguments: argparse.Namespace) -> int:
    """Send the text, and say whether it was delivered; return the exit status."""
    if arguments.node.lower() == EVERYBODY:
        node.broadcast(arguments.text)
        tell(node, arguments, "sent", c.BROADCAST_ADDRESS, "sent to everybody who listens")
        return 0
    peer = peer_address(arguments.node, node)
    try:
        seconds = node.send_message(peer, arguments.text, timeout=arguments.timeout)
    except TimeoutError as error:
        if arguments.json:
            tell(node, arguments, "not delivered", peer, "", reason=str(error))
        print(f"not delivered: {error}", file=sys.stderr)
        return 1
    text = f"delivered to {format_address(peer)} in {1000 * seconds:.2f} ms"
    tell(node, arguments, "delivered", peer, text, rtt=seconds)
    return 0


def tell(node: Node, arguments: argparse.Namespace, kind: str, peer: bytes, text: str, **fields: object) -> None:
    """Say what became of it, in words or as an object."""
    if arguments.json:
        print(json_line(node, kind, {"address": peer, **fields}))
    elif not arguments.quiet:
        print(text)


def main() -> int:
    """Send a text, and say whether it was delivered."""
    parser = argument_parser("send_message.py", "Send a text to a node, and say whether it was delivered.", EXAMPLES)
    parser.add_argument(
        "node", metavar="NODE", help=f"the other node's address or name; {EVERYBODY}: everybody, unacknowledged"
    )
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument(
        "--timeout", type=seconds_argument, default=3.0, metavar="SECONDS", help="when to give up (%(default)g)"
    )
    arguments = parser.parse_args()
    if arguments.node.lower() != EVERYBODY:
        check_peer(arguments.node)
    with open_node(arguments, tell=tell_on_stderr) as node:
        try:
            return send(node, arguments)
        except ValueError as error:  # too long, or no text
            raise SetupError(str(error)) from None
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {who_is_there(node)}") from None


if __name__ == "__main__":
    sys.exit(run(main))
