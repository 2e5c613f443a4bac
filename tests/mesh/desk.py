"""One router at a desk: the frames that it gets are written by hand, those that it sends are read."""

import random
from typing import Any, List, NamedTuple, Optional, Sequence, Set, Tuple

import pytest
from meshsim import BOOT_SEQ, mac_of

from constants import (
    BROADCAST_ADDRESS,
    EVERYONE,
    FLAG_PROBE,
    FLAG_REPLY,
    METRIC_UNREACHABLE,
    NO_SLOT,
    TTL_ROUTED,
    TTL_V1,
    TYPE_HANDSHAKE,
    TYPE_STREAM,
)
from protocol import (
    Frame,
    Handshake,
    Heard,
    InterfaceConfig,
    LinkState,
    Neighbour,
    Request,
    Route,
    Router,
    decode_ethernet,
    decode_frame,
    decode_handshake,
    encode_ethernet,
    encode_frame,
    encode_handshake,
)

ME = mac_of(1)


FAR = mac_of(99)


HEARD, UP, PROBING, SUSPECT, DEAD = LinkState


class Sent(NamedTuple):
    """A frame that the router sent."""

    time: float
    interface: int
    destination: bytes
    frame: Frame
    handshake: Optional[Handshake]


class Peer:
    """Another node, as far as its HANDSHAKEs go."""

    def __init__(self, number: int, interface: int = 0, seq: int = BOOT_SEQ, mtu: int = 1500) -> None:
        self.address = mac_of(number)
        self.mac = mac_of(number, interface)
        self.interface = interface
        self.nonce = number
        self.seq = seq
        self.mtu = mtu
        self.slot = 0


class Desk:
    """A router on a desk, with its cables in the tester's hands."""

    def __init__(
        self,
        interfaces: int = 1,
        mtu: int = 1500,
        loopback: bool = False,
        seed: int = 1,
        slot: Optional[int] = 0,
        boot_seq: int = BOOT_SEQ,
    ) -> None:
        self.now = 100.0
        self.macs = [bytes(6) if loopback else mac_of(1, index) for index in range(interfaces)]
        wires = [InterfaceConfig(f"e{index}", mac, mtu, loopback, slot) for index, mac in enumerate(self.macs)]
        rng = random.Random(seed)
        self.router = Router(ME, wires, rng=rng, now=self.now, seq=boot_seq, name="me", ports=(1, 2))
        self.msg_id = 1000

    # Time

    def take(self) -> List[Sent]:
        """Return what the router sends now."""
        return [self.read(*transmit) for transmit in self.router.frames_to_send(now=self.now)]

    def read(self, interface: int, data: bytes) -> Sent:
        ethernet = decode_ethernet(data)
        assert ethernet.source == self.macs[interface]
        frame = decode_frame(ethernet.payload)
        handshake = decode_handshake(frame.payload) if frame.type == TYPE_HANDSHAKE else None
        return Sent(self.now, interface, ethernet.destination, frame, handshake)

    def run(self, seconds: float) -> List[Sent]:
        """Return what the router sends within that time, each at its deadline."""
        until = self.now + seconds
        sent = self.take()
        deadline = self.router.next_deadline()
        while deadline is not None and deadline <= until:
            self.now = max(self.now, deadline)
            sent += self.take()
            deadline = self.router.next_deadline()
        self.now = until
        return sent

    def events(self, kind: Any = object) -> List[Any]:
        found = []
        event = self.router.next_event()
        while event is not None:
            found.append(event)
            event = self.router.next_event()
        return [event for event in found if isinstance(event, kind)]

    # Frames

    def put(self, interface: int, destination: bytes, source: bytes, frame: Frame) -> List[Sent]:
        """Let a frame arrive; return what the router sends at once."""
        data = encode_ethernet(destination, source, encode_frame(frame))
        assert self.router.receive(interface, data, now=self.now) is None
        return self.take()

    def frame(
        self, kind: int, origin: bytes, dest: bytes, payload: bytes = b"", ttl: int = TTL_ROUTED, slot: int = 0
    ) -> Frame:
        self.msg_id += 1
        return Frame(kind, origin, dest, ttl, self.msg_id, payload, slot)

    def hear(
        self, peer: Peer, flags: int = 0, ttl0: int = TTL_V1, ttl: Optional[int] = None, **tlvs: Any
    ) -> List[Sent]:
        """Let a HANDSHAKE of the peer arrive: to everyone, or to this node if ttl0 is 0."""
        handshake = Handshake(flags, ttl0, 5.0, peer.mtu, peer.nonce, peer.seq, slot=peer.slot)._replace(**tlvs)
        directed = ttl0 == 0
        frame = self.frame(TYPE_HANDSHAKE, peer.address, ME if directed else EVERYONE, encode_handshake(handshake))
        destination = self.macs[peer.interface] if directed else BROADCAST_ADDRESS
        return self.put(peer.interface, destination, peer.mac, frame._replace(ttl=ttl0 if ttl is None else ttl))

    def hear_v1(self, number: int, interface: int = 0, dest: bytes = EVERYONE, ttl: int = TTL_V1) -> List[Sent]:
        """Let an empty HANDSHAKE arrive, padded as from a real card."""
        frame = self.frame(TYPE_HANDSHAKE, mac_of(number), dest, bytes(23), ttl)
        destination = BROADCAST_ADDRESS if dest == EVERYONE else self.macs[interface]
        return self.put(interface, destination, mac_of(number, interface), frame)

    def me(self, interface: int = 0) -> Heard:
        return Heard(self.macs[interface], self.router.local.nonce)

    def lists_me(self, peer: Peer, *others: Peer) -> Tuple[Heard, ...]:
        return (self.me(peer.interface), *(Heard(other.mac, other.nonce) for other in others))

    def up(self, *numbers: int, interface: int = 0, **options: Any) -> List[Peer]:
        """Return neighbours that are up and hear each other; what was said meanwhile is thrown away."""
        peers = [Peer(number, interface, **options) for number in numbers]
        for peer in peers:
            self.hear(peer, heard=self.lists_me(peer, *(other for other in peers if other is not peer)))
            assert self.state(peer) is UP
        self.run(0.2)
        return peers

    def answer(self, peer: Peer, sent: Sequence[Sent]) -> List[Sent]:
        """Let the peer answer the small PROBEs among these frames; return what the router sends then."""
        asked = [s.handshake for s in sent if s.handshake and s.handshake.flags & FLAG_PROBE and not s.handshake.pad]
        self.now += 0.001
        return [s for h in asked for s in self.hear(peer, FLAG_REPLY, ttl0=0, token=h.token)]

    def alive(self, *peers: Peer) -> None:
        """Let the peers send their periodic HANDSHAKE."""
        for peer in peers:
            self.hear(peer)

    # Looking

    def neighbour(self, peer: Peer) -> Neighbour:
        return self.router.local.interfaces[peer.interface].neighbours[peer.address]

    def state(self, peer: Peer) -> LinkState:
        return self.neighbour(peer).state

    def hop(self, dest: bytes) -> Optional[bytes]:
        path = self.router.path_to(dest)
        return path.neighbour.address if path is not None else None

    def stream(self, dest: bytes) -> Optional[Sent]:
        transmit = self.router.send_stream(dest, b"data", now=self.now)
        return self.read(*transmit) if transmit is not None else None


def near(seconds: float) -> Any:
    return pytest.approx(seconds)


def probes(sent: Sequence[Sent]) -> List[Sent]:
    return [s for s in sent if s.handshake is not None and s.handshake.flags & FLAG_PROBE]


def told(sent: Sequence[Sent], interface: int = 0) -> List[Route]:
    return [r for s in sent if s.handshake is not None and s.interface == interface for r in s.handshake.routes]


def asked(sent: Sequence[Sent]) -> List[Request]:
    return [r for s in sent if s.handshake is not None for r in s.handshake.requests]


def of_type(sent: Sequence[Sent], kind: int) -> List[Sent]:
    return [s for s in sent if s.frame.type == kind]


def route(number: int, metric: int = 10, seq: int = BOOT_SEQ, mtu: int = 1500) -> Route:
    return Route(mac_of(number), seq, metric, mtu)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def two() -> Desk:
    """A router with two interfaces."""
    return Desk(2)


@pytest.fixture
def everybody_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let in as many newcomers as there are."""
    monkeypatch.setattr("constants.NEWCOMERS_AT_ONCE", 10000)
    monkeypatch.setattr("constants.CREDIT_BYTES", 1 << 20)


def stream_to_me(desk: Desk, peer: Peer, payload: bytes = b"back") -> bytes:
    return encode_ethernet(ME, peer.mac, encode_frame(desk.frame(TYPE_STREAM, peer.address, ME, payload)))


def kill(desk: Desk, peer: Peer) -> Sent:
    """Let the peer miss its probes; return the last one."""
    desk.router.hint(peer.address, now=desk.now)
    sent = desk.run(0.2)
    assert desk.state(peer) is DEAD
    return probes(sent)[-1]


def reach(desk: Desk, peer: Peer, state: LinkState) -> None:
    """Bring a neighbour that is up into another state."""
    if state is HEARD:
        desk.hear(peer, heard=())
    elif state in (PROBING, SUSPECT, DEAD):
        desk.router.hint(peer.address, now=desk.now)
        desk.run({PROBING: 0.0, SUSPECT: 0.06, DEAD: 0.16}[state])
    assert desk.state(peer) is state


def told_on(desk: Desk, peer: Peer, offered: Route) -> None:
    """Let a route be learned from `peer`, and told to a listener on the other interface."""
    desk.hear(peer, routes=[offered])
    sent = desk.run(0.02)
    assert told(sent, 1) == [offered._replace(metric=offered.metric + 10)]


def forwarding(desk: Desk) -> Tuple[Peer, Peer]:
    """Return two neighbours between which the router stands."""
    (a,) = desk.up(2)
    (b,) = desk.up(3, interface=1)
    return a, b


def told_on_reverse(desk: Desk, peer: Peer) -> None:
    desk.hear(peer, routes=[route(9, 10)])
    assert told(desk.run(0.02), 0) == [route(9, 20)]


def echo_to_me(desk: Desk, origin: bytes, ttl: int) -> Frame:
    echo = Handshake(FLAG_PROBE, 31, 5.0, 1500, 9, BOOT_SEQ, 5, heard=(desk.me(),), routes=(route(9),))
    return desk.frame(TYPE_HANDSHAKE, origin, ME, encode_handshake(echo), ttl=ttl)


def own_hello(desk: Desk, interface: int) -> bytes:
    """Return the next HANDSHAKE that the router sends on an interface, as bytes."""
    desk.router.announce(now=desk.now)
    return next(t.frame for t in desk.router.frames_to_send(now=desk.now) if t.interface == interface)


def lo_peers(desk: Desk, *numbers: int) -> List[Peer]:
    peers = [Peer(number) for number in numbers]
    for peer in peers:
        peer.mac, peer.slot = bytes(6), NO_SLOT
    for peer in peers:
        desk.hear(peer, heard=desk.lists_me(peer, *peers))
    desk.run(0.2)
    return peers


def whole(desk: Desk, kind: int, origin: bytes, dest: bytes, destination: bytes = ME, **options: Any) -> bytes:
    return encode_ethernet(destination, mac_of(2), encode_frame(desk.frame(kind, origin, dest, b"data", **options)))


def on_our_card(desk: Desk, *slots: int) -> List[Peer]:
    """Other programs on our card, with these slots, older than we are."""
    peers = [Peer(number, seq=BOOT_SEQ - number) for number in range(2, 2 + len(slots))]
    for peer, slot in zip(peers, slots):
        peer.mac, peer.slot = ME, slot
        desk.hear(peer)
    return peers


def said_slot(sent: Sequence[Sent]) -> int:
    return [s.handshake.slot for s in sent if s.handshake and s.frame.ttl == TTL_V1][-1]


def listed(sent: Sequence[Sent]) -> List[Set[bytes]]:
    """Whom each HANDSHAKE to everyone lists as heard, where it says so."""
    hellos = [s.handshake for s in sent if s.handshake and s.frame.ttl == TTL_V1]
    return [{tag.mac for tag in h.heard} for h in hellos if h.heard]


def cost(desk: Desk, peer: Peer) -> int:
    path = desk.router.path_to(peer.address)
    assert path is not None
    return path.metric


def rtt_of(desk: Desk) -> Optional[float]:
    (info,) = desk.router.nodes()
    return info.rtt


def starving(desk: Desk, before: float) -> Peer:
    """Return a neighbour whose route to FAR is no better than what was told `before` another retracted its own."""
    two, three = desk.up(2, 3)
    (four,) = desk.up(4, interface=1)
    desk.hear(two, routes=(route(99),))
    desk.run(0.1)
    live(desk, before, two, three, four, routes=(route(99),))
    desk.hear(two, routes=(route(99, metric=METRIC_UNREACHABLE),))
    desk.hear(three, routes=(route(99, metric=30),))
    desk.run(0.1)
    assert desk.hop(FAR) is None
    return three


def live(desk: Desk, seconds: float, first: Peer, *others: Peer, **tlvs: Any) -> None:
    """Let neighbours send their HANDSHAKEs; the first with `tlvs`."""
    for _ in range(int(seconds / 4)):
        desk.run(4.0)
        desk.hear(first, **tlvs)
        desk.alive(*others)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are full with 40 destinations, 8 neighbours."""
    monkeypatch.setattr("constants.DESTINATIONS_MAX", 40)
    monkeypatch.setattr("constants.NEIGHBOURS_MAX", 8)


def offer(desk: Desk, peer: Peer, first: int, count: int = 18) -> List[bytes]:
    """Let a neighbour tell of so many nodes; return those that are then reached through it."""
    desk.hear(peer, routes=[route(number) for number in range(first, first + count)])
    return [info.address for info in desk.router.nodes() if info.next_hop == peer.address]
