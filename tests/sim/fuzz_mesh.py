"""The loop fuzzer: random meshes under loss, crashes, silent cuts and restarts, and four invariants.

1. At no instant is there a cycle over all usable next hops of any destination, alternates included. Every program that
   would forward a frame counts, those that share the next hop's card too.
2. 15 s after the losses end every live pair that is connected has a working route.
3. By then nobody has a route to a dead node.
4. No route changes from 5 s after the last event on: a loss, a cut, a start, a link found lossy or dead, a neighbour
   that hears others than before, a number that jumps because a node without a clock was asked for it.

In half of the seeds several programs share the cards of a machine, and some of them its `lo`.

    python tests/sim/fuzz_mesh.py --seeds 1000              every seed is one run; each failure is printed
    python tests/sim/fuzz_mesh.py --without feasibility     the same with one rule taken out: it must fail
    python tests/sim/fuzz_mesh.py --shared                  only seeds with shared cards
"""

import argparse
import os
import random
import sys
from collections import Counter, defaultdict
from typing import Any, DefaultDict, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Type

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import paths  # noqa: F401  # the folders of the tests
from meshsim import BOOT_SEQ, FAR_AHEAD, Network, Port, Segment, SimNode, mac_of

from constants import FLAG_FULL, LOST_GRACE, TTL_ROUTED, TYPE_STREAM
from protocol import (
    Destination,
    Forwarder,
    Frame,
    Handshake,
    Interface,
    Local,
    Neighbour,
    Neighbours,
    NodeFound,
    NodeLost,
    Route,
    RouteChanged,
    Router,
    Routes,
)

CHECK_EVERY = 0.004
CHURN = 25.0
SETTLE = 15.0
QUIET = 5.0


# --- Routers that lack a rule ----------------------------------------------------------------------------------------


class WithoutTransitRule(Forwarder):
    """Forwards for whoever sends."""

    def may_forward_from(self, interface: Interface, source: bytes) -> bool:
        return True


class WithoutFlushByNode(Neighbours):
    """Forgets what a restarted neighbour said only on the interface where it noticed, and echoes the nonce on all."""

    _hearing: Optional[Interface] = None

    def process_hello(self, interface: Interface, *arguments: Any) -> None:
        self._hearing = interface
        super().process_hello(interface, *arguments)

    def flush_node(self, address: bytes, nonce: int, now: float) -> None:
        for interface in self.local.interfaces:
            n = interface.neighbours.get(address)
            if n is not None and n.nonce != nonce and interface is self._hearing:
                self.reset(n, nonce, now)
            elif n is not None:
                n.nonce = nonce
                n.heard_entries = tuple(entry._replace(nonce=nonce) for entry in n.heard_entries)


class WithoutAdvertisedDiff(Routes):
    """Keeps no record of what it advertised: nothing is retracted."""

    def commit_updates(self, interface: Interface, *arguments: Any) -> List[Route]:
        interface.advertised.clear()
        interface.recompute_all = True
        return super().commit_updates(interface, *arguments)


class WithoutFull(Local):
    """Calls no table FULL."""

    def send_handshake(self, interface: Interface, mac: bytes, dest: bytes, handshake: Handshake) -> None:
        super().send_handshake(interface, mac, dest, handshake._replace(flags=handshake.flags & ~FLAG_FULL))


class WithoutFeasibility(Routes):
    """Believes every advertisement."""

    def is_feasible(self, d: Destination, n: Neighbour) -> bool:
        return True


class WithoutSlots(Forwarder):
    """Forwards what any program with its MAC is to forward."""

    def is_next_hop(self, interface: Interface, frame: Frame) -> bool:
        return True


class CommonVetoRoutes(Routes):
    """A next hop must be feasible by what everybody with its MAC advertises, as it was before there were slots."""

    def is_feasible(self, d: Destination, n: Neighbour) -> bool:
        senders = n.interface.senders[n.mac]
        return all(super(CommonVetoRoutes, self).is_feasible(d, m) for m in senders if m in d.adverts)

    def is_better(self, d: Destination, n: Neighbour, than: Neighbour) -> bool:
        return n.mac == than.mac or super().is_better(d, n, than)


class CommonVetoForwarder(Forwarder):
    """Who shares a card forwards only what it has advertised."""

    def is_next_hop(self, interface: Interface, frame: Frame) -> bool:
        others = (entry for n in interface.neighbours.values() for entry in n.heard)
        is_alone = all(entry.mac != interface.mac or entry.nonce == self.local.nonce for entry in others)
        return frame.dest in interface.advertised or is_alone


def router_with(*replaced: type) -> Type[Router]:
    """Return a kind of router in which some parts are of these kinds."""

    class Weakened(Router):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            for part in (self.local, self.neighbours, self.routes, self.forwarder):
                for kind in replaced:
                    if issubclass(kind, type(part)):
                        part.__class__ = kind

    return Weakened


COMMON_VETO = router_with(CommonVetoRoutes, CommonVetoForwarder)
KINDS: Dict[Optional[str], Type[Router]] = {
    None: Router,
    "transit": router_with(WithoutTransitRule),
    "flush": router_with(WithoutFlushByNode),
    "advertised": router_with(WithoutAdvertisedDiff, WithoutFull),
    "feasibility": router_with(WithoutFeasibility),
    "slots": router_with(WithoutSlots),
    "exact next hops": COMMON_VETO,
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
    """Yield every hop over every neighbour that a node might use, to each program that would forward the frame.

    A program does so if the frame names it and if it considers the node up: the transit rule, as the router has it.
    """
    cards: DefaultDict[Tuple[Segment, bytes], List[Port]] = defaultdict(list)
    for node in net.alive():
        for port in node.ports:
            cards[port.segment, port.mac].append(port)
    for node in net.alive():
        router = node.router
        for d in router.routes.table.values():
            for n in d.adverts:
                if not n.usable or not router.routes.is_feasible(d, n):
                    continue
                port = node.ports[n.interface.index]
                frame = Frame(TYPE_STREAM, node.address, d.address, TTL_ROUTED, 0, b"", n.slot_for(d.address))
                for there in cards[port.segment, n.mac]:
                    other = there.node.router
                    interface = other.local.interfaces[there.index]
                    if other.address in (node.address, d.address) or not other.forwarder.is_next_hop(interface, frame):
                        continue
                    if other.forwarder.may_forward_from(interface, port.mac):
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
    """Raise InvariantError if a live pair that is connected has no route, or somebody has a route to a dead node."""
    for a in net.alive():
        connected = reachable(net, a)
        for b in net.nodes:
            if not b.up and a.router.path_to(b.address) is not None:
                raise InvariantError(f"ghost: {a.number} has a route to dead {b.number}")
            if b in connected and net.walk(a, b) is None:
                raise InvariantError(f"no route from {a.number} to {b.number}")


def reachable(net: Network, source: SimNode) -> Set[SimNode]:
    """Return the nodes that links which work both ways connect with `source`. Nobody relays what came by `lo`."""
    found: Set[SimNode] = set()
    relays, seen = [source], {source}
    while relays:
        for port in relays.pop().ports:
            segment = port.segment
            both = [p for p in segment.ports if segment.carries(p, port) and segment.carries(port, p)]
            near = [p.node for p in both if p.node.up]
            found.update(near)
            if not segment.loopback:
                relays += [node for node in near if node not in seen]
                seen.update(near)
    return found - {source}


class Calm:
    """Watches for the fourth invariant: `broken` says which route changed long after everything else."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self._links: Counter[Tuple[Any, ...]] = Counter()
        self._since = CHURN
        self._counted: Dict[SimNode, int] = {}
        self.broken = ""

    def look(self) -> None:
        """Look at every link and every new event."""
        net = self._net
        alive = net.alive()
        links: Counter[Tuple[Any, ...]] = Counter(
            (node.number, n.address, n.interface.index, n.state, n.cost, len(n.heard))
            for node in alive
            for n in node.router.neighbours.all()
        )
        for node in alive:  # high bits of numbers: small steps are no event, or asking for one could hide unrest
            links.update(
                (node.number, d.address, a.seq >> 24)
                for d in node.router.routes.table.values()
                for a in d.adverts.values()
            )
        if links != self._links:
            self._links, self._since = links, net.now
        for node in alive:
            node.router.routes.tells_changes = True
            new = node.events[self._counted.get(node, 0) :]
            self._counted[node] = len(node.events)
            for when, event in new:
                if isinstance(event, NodeLost):
                    when -= LOST_GRACE  # since it lost the route
                if isinstance(event, (RouteChanged, NodeFound, NodeLost)) and when > self._since + QUIET:
                    self.broken = self.broken or f"not quiet: {node.number} at {when:.3f}: {event}"


# --- One run ---------------------------------------------------------------------------------------------------------


def build(seed: int, kind: Type[Router], shared: bool) -> Tuple[Network, random.Random]:
    """Return a random mesh: a tree, more cables, parallel ones, buses, isolated ports, and some loss."""
    net = Network(seed)
    rng = random.Random(seed * 7 + 1)
    count = rng.randint(2, 6) if shared else rng.randint(5, 14)
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
    for segment in rng.sample(net.segments, min(len(net.segments), rng.randint(0, 3))):
        connect([member for member in range(count) if segment in wires[member]])  # parallel to another
    for _ in range(rng.randint(0, 2)):
        connect(rng.sample(range(count), rng.randint(min(3, count), min(6, count))))
    if shared:
        net.locks = rng.random() < 0.75
        for own in wires:
            share(net, rng, own, kind)
    else:
        for own in wires:
            net.node(*own, start=False, kind=kind)
    for node in net.nodes:
        net.at(rng.uniform(0, 0.5), node.start)
    for segment in net.segments:
        if len(segment.ports) > 2 and not segment.loopback and rng.random() < 0.5:
            isolated = rng.sample(segment.ports, 2)
            segment.isolated.update(port for port in segment.ports for other in isolated if port.mac == other.mac)
    return net, rng


def share(net: Network, rng: random.Random, wires: List[Segment], kind: Type[Router]) -> None:
    """Make a machine with a card on each of `wires` and one to three programs on some of them, perhaps on `lo` too."""
    machine = len(net.nodes)
    macs = [mac_of(machine, index) for index in range(len(wires))]
    loopback = net.segment(loopback=True) if rng.random() < 0.3 else None
    for program in range(rng.choice((1, 2, 2, 3))):
        own = sorted(rng.sample(range(len(wires)), rng.randint(1, len(wires))))
        address = macs[own[0]] if program == 0 else bytes((2, 0, 0, program, machine >> 8, machine & 255))
        segments, cards = [wires[i] for i in own], [macs[i] for i in own]
        if loopback is not None and rng.random() < 0.7:
            segments, cards = [*segments, loopback], [*cards, bytes(6)]
        net.node(*segments, macs=cards, address=address, start=False, kind=kind)


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
    """Cut a pair of cards in one direction or both, or a card from all others; mostly for a while only."""
    segment = rng.choice(net.segments)
    cards = sorted({port.mac for port in segment.ports})
    if len(cards) < 2:
        return
    a, b = rng.sample(cards, 2)
    all_of_a = [(x, y) for x in cards for y in cards if x != y and a in (x, y)]
    pairs = rng.choice([[(a, b)], [(a, b), (b, a)], all_of_a])
    cut = {(p, q) for p in segment.ports for q in segment.ports if (p.mac, q.mac) in pairs}
    segment.cuts |= cut
    if rng.random() < 0.8:
        net.at(net.now + rng.choice((0.02, 0.2, 1.0, 5.0)), segment.cuts.difference_update, cut)


def end_losses(net: Network) -> None:
    for segment in net.segments:
        segment.loss = 0.0


def run(seed: int, without: Optional[str] = None, shared: Optional[bool] = None) -> int:
    """Run one seed; return the number of checks for cycles. Raise InvariantError."""
    net, rng = build(seed, KINDS[without], seed % 2 == 1 if shared is None else shared)
    net.at(1.0, disturb, net, rng)
    net.at(CHURN, end_losses, net)
    checked = [0.0]
    calm = Calm(net)

    def watch() -> None:
        if net.now - checked[-1] >= CHECK_EVERY:
            checked.append(net.now)
            check_no_cycle(net)
            if net.now > CHURN:
                calm.look()

    net.watch = watch
    net.run(CHURN + SETTLE)
    check_settled(net)
    if calm.broken:
        raise InvariantError(calm.broken)
    return len(checked)


def outcome(seed: int, without: Optional[str] = None, shared: Optional[bool] = None) -> Tuple[int, str]:
    """Return the number of checks that passed, and what was violated or an empty string."""
    try:
        return run(seed, without, shared), ""
    except InvariantError as error:
        return 0, str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--without", choices=[kind for kind in KINDS if kind], help="take one rule out")
    parser.add_argument("--shared", action="store_true", default=None, help="only meshes with shared cards")
    arguments = parser.parse_args()
    checks = failures = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        passed, violation = outcome(seed, arguments.without, arguments.shared)
        checks += passed
        if violation:
            failures += 1
            print(f"seed {seed}: {violation}", flush=True)
    print(f"{failures} of {arguments.seeds} seeds failed; {checks} checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
