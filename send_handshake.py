"""Ask the whole mesh who is there, or one node whether it answers, like ping, or each relay on the path to it."""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse
from typing import List, Optional

import constants as c
from node import (
    Echoed,
    Node,
    NodeInfo,
    argument_parser,
    check_peer,
    count_argument,
    emphasis,
    format_hop,
    format_ports,
    json_line,
    no_such_node,
    open_node,
    peer_address,
    run,
    seconds_argument,
    tell_on_stderr,
    who_is_there,
)
from utils import format_address, format_table, label_names

EXAMPLES = """\
Without NODE: a line for every node of the mesh that answers, the nearest first:
  ADDRESS  HOPS by NEXT-HOP  MTU OF THE PATH  ROUND-TRIP ms  PORTS  NAME
With NODE: a line for every answer of that node as it comes, then loss and round trips; Ctrl-C ends it early.
With --trace: a line for every relay on the path to NODE, and for itself:  NUMBER  ADDRESS  NAME  ROUND-TRIP ms
  An older program on the path stays silent: *
-q: of the answers of a node only loss and round trips are printed.
examples:
  sudo python3 send_handshake.py eth0
  sudo python3 send_handshake.py eth0,eth1 --wait 5 --json
  sudo python3 send_handshake.py eth0 6a:00:00:00:00:01 --count 0 --interval 0.2
  sudo python3 send_handshake.py eth0 dora --count 1 -q
  sudo python3 send_handshake.py eth0 dora --trace
exits with 1 if nobody answered.
"""


def show_nodes(node: Node, found: List[NodeInfo], arguments: argparse.Namespace) -> None:
    """Print all nodes, the nearest first, in columns of equal width."""
    found = sorted(found, key=lambda one: (one.hops, one.address))
    if arguments.json:
        for one in found:
            print(json_line(node, "node", one._asdict()))
        return
    labels = label_names({one.address: one.name for one in found}, node.names)
    bold = emphasis(arguments, sys.stdout)
    rows = [
        (
            bold(format_address(one.address)),
            f"{one.hops} hop{'s' * (one.hops != 1)}",
            f"by {format_hop(one.next_hop)}" if one.next_hop != one.address else "direct",
            f"MTU {one.mtu}",
            f"{1000 * (one.rtt or 0):.2f} ms",
            f"ports {format_ports(one.ports)}",
            labels[one.address],
        )
        for one in found
    ]
    for line in format_table(rows):
        print(line)


class Ping:
    """One node is asked again and again; what it answered, and what it did not."""

    def __init__(self, node: Node, peer: bytes, arguments: argparse.Namespace) -> None:
        self._node = node
        self._peer = peer
        self._arguments = arguments
        self._emphasis = emphasis(arguments, sys.stdout)
        self._sent = 0
        self._times: List[float] = []  # round trips in milliseconds

    def run(self) -> int:
        """Ask, print answers and at the end the statistics; return the exit status."""
        given = self._arguments
        try:
            for number, answer in self._node.ping(
                self._peer, count=given.count, interval=given.interval, wait=given.wait
            ):
                self._sent = max(self._sent, number)
                if answer is not None:
                    self._show(number, answer)
        except KeyboardInterrupt:  # the usual way to stop it
            pass
        self._show_statistics()
        if not self._times and not self._node.knows(self._peer):
            print(f"{no_such_node(self._peer)}; {who_is_there(self._node)}", file=sys.stderr)
        return 0 if self._times else 1

    def _show(self, number: int, answer: Echoed) -> None:
        self._times.append(1000 * answer.rtt)
        if self._arguments.quiet:
            return
        if self._arguments.json:
            fields = {"address": answer.address, "seq": number, "hops": answer.hops, "rtt": answer.rtt}
            print(json_line(self._node, "reply", fields), flush=True)
            return
        address = self._emphasis(format_address(answer.address))
        print(f"reply from {address}: seq={number} hops={answer.hops} time={self._times[-1]:.3f} ms", flush=True)

    def _show_statistics(self) -> None:
        received = len(self._times)
        lost = 100 * (self._sent - received) / self._sent if self._sent else 0.0
        times: Optional[List[float]] = None
        if received:
            times = [min(self._times), sum(self._times) / received, max(self._times)]
        if self._arguments.json:
            fields = {"address": self._peer, "sent": self._sent, "received": received, "loss": lost / 100}
            names = ("rtt_min", "rtt_avg", "rtt_max")
            trips = {name: time / 1000 for name, time in zip(names, times or ())}
            print(json_line(self._node, "statistics", {**fields, **trips}))
            return
        print(f"--- {format_address(self._peer)} ping statistics ---")
        print(f"{self._sent} sent, {received} received, {lost:.3g}% lost")
        if times:
            print("round trip min/avg/max = {:.3f}/{:.3f}/{:.3f} ms".format(*times))


def trace(node: Node, peer: bytes, arguments: argparse.Namespace) -> int:
    """Print each hop on the path to a node as it answers; return the exit status."""
    bold = emphasis(arguments, sys.stdout)
    silent = 0
    for number, answer in node.trace(peer, wait=arguments.wait):
        if arguments.json:
            said = (answer.address, answer.name, answer.rtt) if answer is not None else (None, None, None)
            print(json_line(node, "hop", dict(zip(("number", "address", "name", "rtt"), (number, *said)))), flush=True)
        elif answer is None:
            print(f"{number:2}  *", flush=True)
        else:
            label = label_names({answer.address: answer.name}, node.names)[answer.address]
            cells = (f"{number:2}", bold(format_address(answer.address)), label or "-", f"{1000 * answer.rtt:.3f} ms")
            print("  ".join(cells), flush=True)
        if answer is not None and answer.address == peer:
            return 0
        silent = silent + 1 if answer is None else 0
        if silent == c.TRACE_SILENT_MAX:
            break
    print(f"{format_address(peer)} does not answer", file=sys.stderr)
    return 1


def parse_arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argument_parser("send_handshake.py", "List the nodes of the mesh, or ping one of them.", EXAMPLES)
    parser.add_argument(
        "node", metavar="NODE", nargs="?", help="address or name of the node to be pinged; without it: who is there?"
    )
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
        help="how long to gather answers; for a ping, to the last one; for a hop, three times that (%(default)g)",
    )
    parser.add_argument("--trace", action="store_true", help="ask each relay on the path to NODE")
    arguments = parser.parse_args()
    if arguments.trace and not arguments.node:
        parser.error("--trace needs a NODE")
    return arguments


def main() -> int:
    """Ask, and print the answers."""
    arguments = parse_arguments()
    if arguments.node:
        check_peer(arguments.node)
    with open_node(arguments, tell=tell_on_stderr) as node:
        if arguments.node:
            peer = peer_address(arguments.node, node)
            return trace(node, peer, arguments) if arguments.trace else Ping(node, peer, arguments).run()
        found = node.discover(arguments.wait)
        show_nodes(node, found, arguments)
    if not found:
        hint = "start node.py at the other end, or wait longer: --wait 5"
        print(f"nobody answered within {arguments.wait:g} s: {hint}", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(run(main))
