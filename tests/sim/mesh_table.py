#!/usr/bin/env python3
"""A thousand simulated nodes: routes, load, and what the death of the busiest relay costs.

    python tests/sim/mesh_table.py random 1000     also: grid, campus (buses of 25); minutes, and 2 GB

Its bounds: at most 303 bytes a second and interface; 161 update frames a node in the 8.5 s
after the death (here the requests, probes and replies are listed beside).
"""

import argparse
import os
import random
import sys
from collections import Counter
from typing import Counter as CounterType, List

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import paths  # noqa: F401  # the folders of the tests
from meshsim import HANDSHAKE, TYPE_OFFSET, Network, Port, Segment, SimNode

from protocol import decode_handshake

BUS = 25  # nodes on each segment of the campus
WATCH = 8.5  # seconds after the death
SAMPLE = 60  # nodes between which ways are looked at


def build_random(net: Network, count: int) -> List[SimNode]:
    """A connected random graph of mean degree 4."""
    rng = random.Random(5)
    pairs = [(i, rng.randrange(i)) for i in range(1, count)]
    while len(pairs) < 2 * count:
        a, b = rng.sample(range(count), 2)
        pairs.append((a, b))
    return net.graph(count, pairs)


def build_grid(net: Network, count: int) -> List[SimNode]:
    side = int(count**0.5)
    return net.grid(side, count // side)


def build_campus(net: Network, count: int) -> List[SimNode]:
    """A tree of buses, each joined to its parent by two nodes of that."""
    rng = random.Random(5)
    buses = [net.segment() for _ in range(count // BUS)]
    wires: List[List[Segment]] = [[buses[i // BUS]] for i in range(len(buses) * BUS)]
    for number, bus in enumerate(buses[1:], 1):
        first = rng.randrange(number) * BUS
        for member in (first, first + 1):
            wires[member].append(bus)
    return [net.node(*own) for own in wires]


SHAPES = {"random": build_random, "grid": build_grid, "campus": build_campus}


def busiest(net: Network, sample: List[SimNode]) -> SimNode:
    """Return the relay that most of the ways between the sample lead through."""
    use: CounterType[SimNode] = Counter()
    for a in sample:
        for b in sample:
            use.update((net.walk(a, b) or [])[1:-1])
    return use.most_common(1)[0][0]


def count_control(counts: CounterType[str], port: Port, frame: bytes) -> None:
    """Count a HANDSHAKE that is not a periodic one, by what it is for."""
    h = decode_handshake(frame[37:]) if frame[TYPE_OFFSET] == HANDSHAKE else None
    if h is not None and h.ttl0 == 0:
        counts["probes and replies" if h.flags else "updates" if h.routes or not h.requests else "requests"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("count", type=int, nargs="?", default=1000)
    options = parser.parse_args()
    net = Network(1)
    nodes = SHAPES[options.shape](net, options.count)
    count, ports = len(nodes), sum(len(node.ports) for node in nodes)
    while min(len(node.router.nodes()) for node in nodes) < count - 1:
        net.run(0.05)
    print(f"{options.shape}, {count} nodes: everybody has all routes after {net.now:.2f} s", flush=True)
    net.run(20 - net.now)
    net.frames.clear()
    net.bytes.clear()
    net.run(10)
    size = sum(net.bytes.values()) / 10 / ports
    print(f"at rest: {net.sent() / 10 / ports:.2f} frames and {size:.0f} bytes a second and interface", flush=True)

    sample = random.Random(1).sample(nodes, min(SAMPLE, count))
    dead = busiest(net, sample)
    counts: CounterType[str] = Counter()
    net.tap = lambda port, frame: count_control(counts, port, frame)
    for a in sample[: SAMPLE // 3]:
        for b in sample[SAMPLE // 3 :]:
            if dead in (net.walk(a, b) or [])[1:-1]:
                net.flow(a, b, interval=0.1, until=net.now + 2)
    dead.crash()
    net.run(WATCH)
    shown = ", ".join(f"{number / count:.1f} {what}" for what, number in counts.most_common())
    print(f"the busiest relay dies ({len(dead.ports)} interfaces): in {WATCH} s {shown} a node")
    live = [node for node in sample if node.up]
    unreached = sum(net.walk(a, b) is None for a in live for b in live if a is not b)
    print(f"pairs of the sample without a way then: {unreached}")
    return 1 if unreached else 0


if __name__ == "__main__":
    sys.exit(main())
