"""The loop fuzzer: random meshes under loss, crashes, silent cuts and restarts, and three invariants.

1. At no instant is there a cycle over all usable next hops of any destination, alternates included.
2. 15 s after the losses end every live pair that wires connect has a working route both ways.
3. By then nobody has a route to a dead node.

    python tests/fuzz_mesh.py --seeds 1000              every seed is one run; each failure is printed
    python tests/fuzz_mesh.py --without feasibility     the same with one rule taken out: it must fail
"""

import argparse
import random
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Type

from meshsim import BOOT_SEQ, FAR_AHEAD, Network, Port, Segment, SimNode

from constants import FLAG_FULL
from node import Destination, Neighbour, Router, Wire

CHECK_EVERY = 0.004
CHURN = 25.0
SETTLE = 15.0


# --- Routers that lack a rule ----------------------------------------------------------------------------------------


class WithoutTransitRule(Router):
    """Forwards for whoever sends."""

    def _may_transit(self, wire: Wire, source: bytes) -> bool:
        return True


class WithoutFlushByNode(Router):
    """Forgets what a restarted neighbour said only on the interface where it noticed, and echoes the nonce on all."""

    _hearing: Optional[Wire] = None

    def _hear(self, wire: Wire, *arguments: Any) -> None:
        self._hearing = wire
        super()._hear(wire, *arguments)

    def _flush_node(self, address: bytes, nonce: int, now: float) -> None:
        for wire in self._wires:
            n = wire.neighbours.get(address)
            if n is not None and n.nonce != nonce and wire is self._hearing:
                self._reset(n, nonce, now)
            elif n is not None:
                n.nonce = nonce
                n.tags = tuple(tag._replace(nonce=nonce) for tag in n.tags)


class WithoutToldDiff(Router):
    """Keeps no record of what it told: nothing is retracted, and no table can be called FULL."""

    def _changes(self, wire: Wire, *arguments: Any) -> List[Any]:
        wire.told.clear()
        wire.review = True
        return super()._changes(wire, *arguments)

    def _send_handshake(self, wire: Wire, mac: bytes, dest: bytes, handshake: Any) -> None:
        super()._send_handshake(wire, mac, dest, handshake._replace(flags=handshake.flags & ~FLAG_FULL))


class WithoutFeasibility(Router):
    """Believes every advertisement."""

    def _feasible(self, d: Destination, n: Neighbour) -> bool:
        return True


KINDS: Dict[Optional[str], Type[Router]] = {
    None: Router,
    "transit": WithoutTransitRule,
    "flush": WithoutFlushByNode,
    "told": WithoutToldDiff,
    "feasibility": WithoutFeasibility,
}


# --- The invariants --------------------------------------------------------------------------------------------------


class InvariantError(AssertionError):
    """An invariant does not hold."""


class Hop(NamedTuple):
    """`node` might forward what is for `dest` to `next`, which would forward it."""

    dest: bytes
    node: SimNode
    next: SimNode


def next_hops(net: Network) -> Iterator[Hop]:
    """Yield every hop over every neighbour that a node might use.

    Its end forwards only if it considers the node up: the transit rule, as the router itself has it.
    """
    ports = {(port.segment, port.mac): port for node in net.alive() for port in node.ports}
    for node in net.alive():
        router = node.router
        for d in router._routes.values():
            for n in d.adverts:
                if not n.usable or not router._feasible(d, n):
                    continue
                port = node.ports[n.wire.index]
                there = ports.get((port.segment, n.mac))
                if there is None or there.node.address == d.address:
                    continue
                router_there = there.node.router
                if router_there._may_transit(router_there._wires[there.index], port.mac):
                    yield Hop(d.address, node, there.node)


def check_no_cycle(net: Network) -> None:
    """Raise InvariantError if forwarding might go in a circle."""
    graphs: Dict[bytes, Dict[SimNode, Set[SimNode]]] = {}
    for hop in next_hops(net):
        graphs.setdefault(hop.dest, {}).setdefault(hop.node, set()).add(hop.next)
    for dest, graph in graphs.items():
        done: Set[SimNode] = set()
        for start in graph:
            visit(graph, start, [], done, f"{dest[-1]} at {net.now:.3f}")


def visit(
    graph: Dict[SimNode, Set[SimNode]], node: SimNode, way: List[SimNode], done: Set[SimNode], label: str
) -> None:
    if node in way:
        names = " -> ".join(str(n.number) for n in [*way[way.index(node) :], node])
        raise InvariantError(f"cycle for {label}: {names}")
    if node not in done:
        way.append(node)
        for hop in graph.get(node, ()):
            visit(graph, hop, way, done, label)
        way.pop()
        done.add(node)


def check_settled(net: Network) -> None:
    """Raise InvariantError if a live pair that wires connect has no route, or somebody has a route to a dead node."""
    parts = components(net)
    for a in net.alive():
        for b in net.nodes:
            if not b.up and a.router.path_to(b.address) is not None:
                raise InvariantError(f"ghost: {a.number} has a route to dead {b.number}")
            if b.up and a is not b and parts[a] == parts[b] and net.walk(a, b) is None:
                raise InvariantError(f"no way from {a.number} to {b.number}")


def components(net: Network) -> Dict[SimNode, int]:
    """Return a label for each live node: equal where links that work both ways connect them."""
    label = {node: node.number for node in net.alive()}
    links = [
        (p.node, q.node)
        for segment in net.segments
        for p in segment.ports
        for q in segment.ports
        if p.node.up and q.node.up and segment.carries(p, q) and segment.carries(q, p)
    ]
    for _ in label:
        for a, b in links:
            label[a] = label[b] = min(label[a], label[b])
    return label


# --- One run ---------------------------------------------------------------------------------------------------------


def build(seed: int, kind: Type[Router]) -> Tuple[Network, random.Random]:
    """Return a random mesh: a tree, more cables, parallel ones, buses, isolated ports, and some loss."""
    net = Network(seed)
    rng = random.Random(seed * 7 + 1)
    count = rng.randint(5, 14)
    loss = rng.choice((0.0, 0.0, 0.02, 0.05, 0.15))
    wires: List[List[Segment]] = [[] for _ in range(count)]

    def connect(members: List[int]) -> None:
        segment = net.segment(loss=loss, delay=rng.uniform(0.00005, 0.002))
        for member in members:
            wires[member].append(segment)

    for i in range(1, count):
        connect([rng.randrange(i), i])
    for _ in range(rng.randint(0, count // 2)):
        connect(rng.sample(range(count), 2))
    for segment in rng.sample(net.segments, rng.randint(0, 3)):
        connect([member for member in range(count) if segment in wires[member]])  # parallel to another
    for _ in range(rng.randint(0, 2)):
        connect(rng.sample(range(count), rng.randint(3, min(6, count))))
    for own in wires:
        node = net.node(*own, start=False, kind=kind)
        net.at(rng.uniform(0, 0.5), node.start)
    for segment in net.segments:
        if len(segment.ports) > 2 and rng.random() < 0.5:
            segment.isolated.update(rng.sample(segment.ports, 2))
    return net, rng


def disturb(net: Network, rng: random.Random) -> None:
    """Do something to the mesh, and plan the next."""
    if net.now > CHURN:
        return
    node, other = rng.sample(net.nodes, 2)
    what = rng.random()
    if what < 0.1:
        restart(node, rng)
    elif what < 0.4:
        node.crash()
        if rng.random() < 0.85:
            net.at(net.now + rng.choice((0.0, 0.0, 0.005, 0.05, 0.5, 3.0)), restart, node, rng)
    elif what < 0.7:
        cut_something(net, rng)
    elif what < 0.9:
        net.flow(node, other, until=net.now + rng.uniform(0.1, 2.0))
    elif node.up:
        node.do("leave")
        node.crash()
        net.at(net.now + 0.7, restart, node, rng)
    net.at(net.now + rng.expovariate(4.0), disturb, net, rng)


def restart(node: SimNode, rng: random.Random) -> None:
    """Start a node that is down: without a clock, with one, or with one that is ahead."""
    if not node.up:
        clock = int(BOOT_SEQ + node.net.now)
        node.start(seq=rng.choice((0, clock, clock + FAR_AHEAD)))


def cut_something(net: Network, rng: random.Random) -> None:
    """Cut a pair of ports in one direction or both, or a port from all others; mostly for a while only."""
    segment = rng.choice(net.segments)
    a, b = rng.sample(segment.ports, 2)
    kinds: List[Set[Tuple[Optional[Port], Optional[Port]]]] = [{(a, b)}, {(a, b), (b, a)}, {(a, None), (None, a)}]
    cut = rng.choice(kinds)
    segment.cuts |= cut
    if rng.random() < 0.8:
        net.at(net.now + rng.choice((0.02, 0.2, 1.0, 5.0)), segment.cuts.difference_update, cut)


def end_losses(net: Network) -> None:
    for segment in net.segments:
        segment.loss = 0.0


def run(seed: int, without: Optional[str] = None) -> int:
    """Run one seed; return the number of checks for cycles. Raise InvariantError."""
    net, rng = build(seed, KINDS[without])
    net.at(1.0, disturb, net, rng)
    net.at(CHURN, end_losses, net)
    checked = [0.0]

    def watch() -> None:
        if net.now - checked[-1] >= CHECK_EVERY:
            checked.append(net.now)
            check_no_cycle(net)

    net.watch = watch
    net.run(CHURN + SETTLE)
    check_settled(net)
    return len(checked)


def outcome(seed: int, without: Optional[str] = None) -> Tuple[int, str]:
    """Return the number of checks that passed, and what was violated or an empty string."""
    try:
        return run(seed, without), ""
    except InvariantError as error:
        return 0, str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--without", choices=[kind for kind in KINDS if kind], help="take one rule out")
    arguments = parser.parse_args()
    checks = failures = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        passed, violation = outcome(seed, arguments.without)
        checks += passed
        if violation:
            failures += 1
            print(f"seed {seed}: {violation}", flush=True)
    print(f"{failures} of {arguments.seeds} seeds failed; {checks} checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
