"""Ask the whole mesh who is there, or one node whether it answers, like ping."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse
import sys
from typing import List, Optional

from node import Echoed, Node, NodeInfo, argument_parser, json_line, open_node, peer_address, run
from utils import format_address, printable_name

EXAMPLES = """\
Without MAC: a line for every node of the mesh that answers, the nearest first:
  ADDRESS  HOPS by NEXT-HOP  MTU OF THE PATH  ROUND-TRIP ms  PORTS  NAME
With MAC: a line for every answer of that node as it comes, then loss and round trips; Ctrl-C ends it early.
examples:
  sudo python3 send_handshake.py eth0
  sudo python3 send_handshake.py eth0,eth1 --wait 5 --json
  sudo python3 send_handshake.py eth0 6a:00:00:00:00:01 --count 0 --interval 0.2
exits with 1 if nobody answered.
"""


def show_nodes(node: Node, found: List[NodeInfo], as_json: bool) -> None:
    """Print all nodes, the nearest first, in columns of equal width."""
    found = sorted(found, key=lambda one: (one.hops, one.address))
    if as_json:
        for one in found:
            print(json_line(node, "node", one._asdict()))
        return
    rows = [
        (
            format_address(one.address),
            f"{one.hops} hop{'s' * (one.hops != 1)}",
            f"by {format_address(one.next_hop)}" if one.next_hop != one.address else "direct",
            f"MTU {one.mtu}",
            f"{1000 * (one.rtt or 0):.2f} ms",
            f"ports {' '.join(map(str, one.ports)) or '-'}",
            printable_name(one.name),
        )
        for one in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


class Ping:
    """One node is asked again and again; what it answered, and what it did not."""

    def __init__(self, node: Node, peer: bytes, as_json: bool) -> None:
        self._node = node
        self._peer = peer
        self._as_json = as_json
        self._sent = 0
        self._times: List[float] = []  # round trips in milliseconds

    def run(self, count: int, interval: float, wait: float) -> int:
        """Ask, print answers and at the end the statistics; return the exit status."""
        try:
            for number, answer in self._node.ping(self._peer, count=count, interval=interval, wait=wait):
                self._sent = max(self._sent, number)
                if answer is not None:
                    self._show(number, answer)
        except KeyboardInterrupt:  # the usual way to stop it
            pass
        self._show_statistics()
        if not self._times and not self._node.knows(self._peer):
            print(f"no such node {format_address(self._peer)}: nobody in the mesh knows it", file=sys.stderr)
        return 0 if self._times else 1

    def _show(self, number: int, answer: Echoed) -> None:
        self._times.append(1000 * answer.rtt)
        if self._as_json:
            fields = {"address": answer.address, "seq": number, "hops": answer.hops, "rtt": answer.rtt}
            print(json_line(self._node, "reply", fields), flush=True)
            return
        address = format_address(answer.address)
        print(f"reply from {address}: seq={number} hops={answer.hops} time={self._times[-1]:.3f} ms", flush=True)

    def _show_statistics(self) -> None:
        received = len(self._times)
        lost = 100 * (self._sent - received) / self._sent if self._sent else 0.0
        times: Optional[List[float]] = None
        if received:
            times = [min(self._times), sum(self._times) / received, max(self._times)]
        if self._as_json:
            fields = {"address": self._peer, "sent": self._sent, "received": received, "loss": lost / 100}
            names = ("rtt_min", "rtt_avg", "rtt_max")
            trips = {name: time / 1000 for name, time in zip(names, times or ())}
            print(json_line(self._node, "statistics", {**fields, **trips}))
            return
        print(f"--- {format_address(self._peer)} ping statistics ---")
        print(f"{self._sent} sent, {received} received, {lost:.3g}% lost")
        if times:
            print("round trip min/avg/max = {:.3f}/{:.3f}/{:.3f} ms".format(*times))


def count_argument(text: str) -> int:
    """Return a number that is not negative; raise ValueError."""
    if int(text) < 0:
        raise ValueError(text)
    return int(text)


def seconds_argument(text: str) -> float:
    """Return a positive number; raise ValueError."""
    if not 0 < float(text) < 1e6:
        raise ValueError(text)
    return float(text)


def parse_arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argument_parser("send_handshake.py", "List the nodes of the mesh, or ping one of them.", EXAMPLES)
    parser.add_argument("mac", metavar="MAC", nargs="?", help="the node to be pinged; without it: who is there?")
    parser.add_argument(
        "--count", type=count_argument, default=4, metavar="N", help="pings; 0: until Ctrl-C (%(default)s)"
    )
    parser.add_argument(
        "--interval", type=seconds_argument, default=1.0, metavar="SECONDS", help="between two pings (%(default)g)"
    )
    parser.add_argument(
        "--wait",
        type=seconds_argument,
        default=1.0,
        metavar="SECONDS",
        help="how long to gather answers; for a ping, to the last one (%(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args()


def main() -> int:
    """Ask, and print the answers."""
    arguments = parse_arguments()
    if arguments.mac:
        peer_address(arguments.mac)
    with open_node(arguments) as node:
        if arguments.mac:
            ping = Ping(node, peer_address(arguments.mac, node), arguments.json)
            return ping.run(arguments.count, arguments.interval, arguments.wait)
        found = node.discover(arguments.wait)
        show_nodes(node, found, arguments.json)
    if not found:
        print(f"nobody answered within {arguments.wait:g} s", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(run(main))
