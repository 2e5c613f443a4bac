#!/usr/bin/env python3
"""What strangers cost a node: bytes out for bytes in by kind of frame, microseconds a frame, a flush among 512 others.

    python tests/bench/bench_strangers.py            the tables, and 60 000 invented newcomers in 10 s (half a minute)

Everything is of a `Router` alone, in virtual time but for what is measured in microseconds.
"""

import itertools
import os
import random
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import paths  # noqa: F401  # the folders of the tests
from meshsim import BOOT_SEQ, Network, mac_of

from constants import (
    BROADCAST_ADDRESS,
    EVERYONE,
    FLAG_PROBE,
    NEIGHBOURS_MAX,
    TTL_ROUTED,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
    TYPE_STREAM,
)
from protocol import (
    Delivered,
    Echoed,
    Frame,
    Handshake,
    Heard,
    InterfaceConfig,
    Router,
    encode_ethernet,
    encode_frame,
    encode_handshake,
)

ME = mac_of(1)
VICTIM = mac_of(77)  # the Ethernet source that strangers pretend to have
NEAR, FAR = 2, 3  # numbers of the neighbours on the first and the last interface
AFTER = 25.0  # seconds in which what frames cause is counted


def stranger(number: int) -> bytes:
    return bytes((0x6A, 9, 9, number >> 16 & 255, number >> 8 & 255, number & 255))


class Talk:
    """A router with a neighbour on each interface, at rest; then frames come. `received` and `sent` are bytes."""

    def __init__(self, interfaces: int) -> None:
        self.macs = [mac_of(1, index) for index in range(interfaces)]
        ports = [InterfaceConfig(f"e{index}", mac, 9000, False) for index, mac in enumerate(self.macs)]
        self.router = Router(ME, ports, rng=random.Random(1), now=0.0, seq=BOOT_SEQ, name="a name of twenty cha")
        self.now = 1.0
        self.received = self.sent = 0
        self.nonce = self.router.local.nonce
        self._ids = itertools.count(1)
        for index in range(interfaces):
            self.greet(index)

    def greet(self, index: int) -> None:
        """Let the neighbour on an interface send its periodic HANDSHAKE."""
        address = mac_of(NEAR + index, index)
        heard = (Heard(self.macs[index], self.nonce),)
        h = Handshake(0, TTL_V1, 5.0, 1500, NEAR + index, BOOT_SEQ, heard=heard)
        self.put(
            index, BROADCAST_ADDRESS, address, self.frame(TYPE_HANDSHAKE, address, EVERYONE, encode_handshake(h), 5)
        )

    def frame(self, kind: int, origin: bytes, dest: bytes, payload: bytes = b"", ttl: int = TTL_ROUTED) -> bytes:
        return encode_frame(Frame(kind, origin, dest, ttl, next(self._ids), payload))

    def put(self, index: int, destination: bytes, source: bytes, payload: bytes) -> int:
        data = encode_ethernet(destination, source, payload)
        self.router.receive(index, data, now=self.now)
        return len(data)

    def pass_time(self, seconds: float) -> int:
        """Let time pass, with the neighbours' HANDSHAKEs; return how many bytes were sent."""
        until, sent = self.now + seconds, 0
        while True:
            sent += sum(len(transmit.frame) for transmit in self.router.frames_to_send(now=self.now))
            deadline = self.router.next_deadline()
            next_greeting = (self.now // 4 + 1) * 4.0
            step = min(until, next_greeting, until if deadline is None else max(deadline, self.now))
            self.now = step
            if step >= until:
                return sent + sum(len(transmit.frame) for transmit in self.router.frames_to_send(now=self.now))
            if step == next_greeting:
                for index in range(len(self.macs)):
                    self.greet(index)

    def run(self, make: "Conversation", count: int, gap: float) -> "Talk":
        """Let `count` strangers send what they send, `gap` seconds apart; count what is sent more than without them."""
        quiet = Talk(len(self.macs))
        quiet.pass_time(19)
        self.sent -= quiet.pass_time(count * gap + AFTER)
        self.pass_time(19)
        for number in range(count):
            for index, destination, source, payload in make(self, number):
                self.received += self.put(index, destination, source, payload)
            self.sent += self.pass_time(gap)
        self.sent += self.pass_time(AFTER)
        return self

    def __repr__(self) -> str:
        return f"{self.received} bytes in, {self.sent} out: {self.sent / max(self.received, 1):.2f}"


Conversation = Callable[[Talk, int], List[Tuple[int, bytes, bytes, bytes]]]
CONVERSATIONS: Dict[str, Conversation] = {}


def conversation(make: Conversation) -> Conversation:
    CONVERSATIONS[make.__name__.replace("_", " ")] = make
    return make


def ours(talk: Talk, flags: int = 0, ttl0: int = TTL_V1, **tlvs: Any) -> bytes:
    h = Handshake(flags, ttl0, 5.0, 9000, next(talk._ids), BOOT_SEQ, token=5)
    return encode_handshake(h._replace(**tlvs))


def near(talk: Talk, destination: bytes, payload: bytes) -> List[Tuple[int, bytes, bytes, bytes]]:
    """From the Ethernet address of the neighbour."""
    return [(0, destination, mac_of(NEAR, 0), payload)]


@conversation
def v1_handshake_to_all(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return [(0, BROADCAST_ADDRESS, VICTIM, talk.frame(TYPE_HANDSHAKE, stranger(number), EVERYONE, b"", 5))]


@conversation
def v1_handshake_to_us(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return [(0, talk.macs[0], VICTIM, talk.frame(TYPE_HANDSHAKE, stranger(number), ME, b"", 5))]


@conversation
def v1_handshake_to_us_relayed_by_a_neighbour(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return near(talk, talk.macs[0], talk.frame(TYPE_HANDSHAKE, stranger(number), ME, b"", 3))


@conversation
def handshake_to_all(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return [(0, BROADCAST_ADDRESS, VICTIM, talk.frame(TYPE_HANDSHAKE, stranger(number), EVERYONE, ours(talk), 5))]


@conversation
def handshake_that_lists_us(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    payload = ours(talk, heard=(Heard(talk.macs[0], talk.nonce),))
    return [(0, BROADCAST_ADDRESS, VICTIM, talk.frame(TYPE_HANDSHAKE, stranger(number), EVERYONE, payload, 5))]


@conversation
def probe(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    payload = ours(talk, FLAG_PROBE, 0)
    return [(0, talk.macs[0], VICTIM, talk.frame(TYPE_HANDSHAKE, stranger(number), ME, payload, 0))]


@conversation
def echo(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    payload = ours(talk, FLAG_PROBE, TTL_ROUTED)
    return [(0, talk.macs[0], VICTIM, talk.frame(TYPE_HANDSHAKE, stranger(number), ME, payload))]


@conversation
def echo_of_no_hops(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    payload = ours(talk, FLAG_PROBE, TTL_ROUTED)
    return near(talk, talk.macs[0], talk.frame(TYPE_HANDSHAKE, stranger(number), VICTIM, payload, 0))


@conversation
def message(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return [(0, talk.macs[0], VICTIM, talk.frame(TYPE_MESSAGE, stranger(number), ME, b"x"))]


@conversation
def message_from_behind_a_neighbour(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return near(talk, talk.macs[0], talk.frame(TYPE_MESSAGE, stranger(number), ME, b"x"))


@conversation
def message_for_nobody(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return near(talk, talk.macs[0], talk.frame(TYPE_MESSAGE, stranger(number), stranger(number + 5000), b"x"))


@conversation
def message_flooded_for_nobody(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    payload = talk.frame(TYPE_MESSAGE, stranger(number), stranger(number + 5000), b"x")
    return [(0, BROADCAST_ADDRESS, VICTIM, payload)]


@conversation
def broadcast(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return [(0, BROADCAST_ADDRESS, VICTIM, talk.frame(TYPE_BROADCAST, stranger(number), EVERYONE, b"x"))]


@conversation
def status(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return [(0, talk.macs[0], VICTIM, talk.frame(TYPE_STATUS, stranger(number), ME, b"ACK:1"))]


@conversation
def stream(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return [(0, talk.macs[0], VICTIM, talk.frame(TYPE_STREAM, stranger(number), ME, bytes(36)))]


@conversation
def stream_for_nobody(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    return near(talk, talk.macs[0], talk.frame(TYPE_STREAM, stranger(number), stranger(number + 5000), bytes(36)))


@conversation
def stream_for_nobody_from_a_stranger(talk: Talk, number: int) -> List[Tuple[int, bytes, bytes, bytes]]:
    payload = talk.frame(TYPE_STREAM, stranger(number), stranger(number + 5000), bytes(36))
    return [(0, talk.macs[0], VICTIM, payload)]


# --- Time ------------------------------------------------------------------------------------------------------------


def microseconds(make: Conversation, count: int = 3000) -> float:
    """Return what a frame of an unknown origin costs, with all that it makes the router do in the next 0.1 s."""
    talk = Talk(2)
    talk.pass_time(8)
    frames = [each for number in range(count) for each in make(talk, number)]
    began = time.process_time()
    for batch in range(0, len(frames), 64):
        for frame in frames[batch : batch + 64]:
            talk.put(*frame)
        talk.now += 64 / 6000
        talk.router.frames_to_send(now=talk.now)
    return 1e6 * (time.process_time() - began) / len(frames)


def crowd_of_512() -> Router:
    """Return a router with 512 neighbours on an interface that all hear each other, and two more on another one."""
    ports = [InterfaceConfig("e0", ME, 1500, False), InterfaceConfig("e1", mac_of(1, 1), 1500, False)]
    router = Router(ME, ports, rng=random.Random(1), now=0.0, seq=BOOT_SEQ)
    router.neighbours.newcomers[True]._tokens = router.neighbours.newcomers[True]._burst = 1000.0
    router.local.credit._left = router.local.credit._most = router.local.credit._allowance = 1 << 24
    everybody = tuple(Heard(mac_of(number), number) for number in range(2, 2 + NEIGHBOURS_MAX))
    now, ids = 1.0, itertools.count(1)
    for number in [*range(2, 2 + NEIGHBOURS_MAX), 1000, 1001]:
        index = number >= 1000
        origin = mac_of(number, index)
        for first in range(0, len(everybody), 100):
            heard = (
                Heard(ports[index].mac, router.local.nonce),
                *(everybody[first : first + 100] if not index else ()),
            )
            h = encode_handshake(Handshake(0, TTL_V1, 5.0, 1500, number, BOOT_SEQ, heard=heard))
            frame = encode_frame(Frame(TYPE_HANDSHAKE, origin, EVERYONE, TTL_V1, next(ids), h))
            router.receive(index, encode_ethernet(BROADCAST_ADDRESS, origin, frame), now=now)
            now += 1e-4
    for _ in range(100):
        now += 0.01
        router.frames_to_send(now=now)
    return router


def flush_seconds(router: Router) -> float:
    """Return how long a flush takes in which every destination is compared with what was told, the least of five."""
    times = []
    now = 100.0
    for _ in range(5):
        now += 1
        for wire in router.local.interfaces:
            wire.recompute_all = True
        router.routes.updates_at = now
        began = time.process_time()
        router.routes.send_updates(now)
        times.append(time.process_time() - began)
    return min(times)


class Storm(NamedTuple):
    """What came of it. `slowest_ping` in seconds, by the clock of this machine."""

    microseconds: float  # a frame
    neighbours: int
    destinations: int
    slowest_ping: float
    newcomers_message: float
    newcomer_is_neighbour_after: float


def storm(count: int = 60000, seconds: float = 10.0) -> Storm:
    """Send that many empty HANDSHAKEs of as many origins; two neighbours ping, and a third node comes in the middle."""
    net = Network(1)
    lan = net.segment()
    a, b, newcomer = net.node(lan), net.node(lan), net.node(lan, start=False)
    net.run(6)
    hostile = itertools.count()
    spent: List[float] = []

    def strike() -> None:
        """64 frames, as one batch of the socket."""
        began = time.process_time()
        for _ in range(64):
            number = next(hostile)
            frame = encode_frame(Frame(TYPE_HANDSHAKE, stranger(number), EVERYONE, TTL_V1, number, bytes(23)))
            a.router.receive(0, encode_ethernet(BROADCAST_ADDRESS, VICTIM, frame), now=net.now)
        net.pump(a)
        spent.append(time.process_time() - began)

    start = net.now
    for number in range(count // 64):
        net.at(start + seconds * number * 64 / count, strike)
    pings = [start + 0.1 * number for number in range(int(10 * seconds) + 20)]
    for when in pings:
        net.at(when, lambda: b.do("echo", a.address))
    net.run(seconds / 2)
    newcomer.start()
    came = net.now
    newcomer.message(a)
    while not newcomer.happened(Delivered):
        net.run(0.01)
    message = net.now - came
    while newcomer.address not in {n.address for n in a.router.neighbours.all() if n.usable}:
        net.run(0.05)
    met = net.now - came
    net.run(max(0.0, start + seconds + 3 - net.now))
    answers = b.happened(Echoed)
    assert len(answers) >= 0.95 * len(pings), (len(answers), len(pings))
    # In virtual time nothing waits for the processor: one batch is the longest that a ping waits for it here.
    slowest = max(event.rtt for event in answers) + max(spent)
    neighbours, destinations = len(a.router.neighbours.all()), len(a.router.routes.table)
    return Storm(1e6 * sum(spent) / count, neighbours, destinations, slowest, message, met)


def main() -> int:
    print("| 400 frames of as many strangers | in | out, 1 interface | out, 3 interfaces | us a frame |")
    print("| --- | --- | --- | --- | --- |")
    for name, make in sorted(CONVERSATIONS.items()):
        one, three = (Talk(interfaces).run(make, 400, 0.0) for interfaces in (1, 3))
        ratios = " | ".join(f"{talk.sent} ({talk.sent / talk.received:.2f})" for talk in (one, three))
        print(f"| {name} | {one.received} | {ratios} | {microseconds(make):.1f} |", flush=True)
    print(f"a flush with 512 neighbours on an interface: {1000 * flush_seconds(crowd_of_512()):.2f} ms", flush=True)
    result = storm()
    for field, value in result._asdict().items():
        print(f"60 000 newcomers in 10 s: {field.replace('_', ' ')} {value:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
