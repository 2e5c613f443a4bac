"""One Router by itself: exact frames in, exact frames out, at exact times. Meshes of them are in test_mesh.py."""

import random
from typing import Any, List, NamedTuple, Optional, Sequence, Set, Tuple

import pytest
from hypothesis import given, strategies as st
from meshsim import BOOT_SEQ, mac_of

from constants import (
    ADVERT_SECONDS,
    BROADCAST_ADDRESS,
    DESTINATIONS_MAX,
    ETHERTYPE,
    EVERYONE,
    FLAG_BYE,
    FLAG_FULL,
    FLAG_PROBE,
    FLAG_REPLY,
    FLOODS_PER_SECOND,
    LOST_FLOODS_PER_SECOND,
    METRIC_UNREACHABLE,
    NAKS_PER_SECOND,
    NEIGHBOURS_MAX,
    NO_SLOT,
    REPLIES_PER_SECOND,
    SEQ_JUMP_MAX,
    SEQ_MAX,
    SOURCE_GC_SECONDS,
    SWEEP_SECONDS,
    TTL_ROUTED,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
    TYPE_STREAM,
    V1_SEQ_SECONDS,
)
from protocol import (
    LINK_MOVES,
    Delivered,
    DuplicateAddress,
    Echoed,
    Frame,
    Handshake,
    Heard,
    InterfaceConfig,
    LinkState,
    MessageReceived,
    Neighbour,
    NodeFound,
    NodeLost,
    PathChanged,
    Request,
    Route,
    RouteChanged,
    Router,
    StrangeNode,
    Undelivered,
    decode_ethernet,
    decode_frame,
    decode_handshake,
    encode_ethernet,
    encode_frame,
    encode_handshake,
    status_payload,
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


# --- Greeting --------------------------------------------------------------------------------------------------------


def test_start_sends_a_handshake_within_30_ms(desk: Desk) -> None:
    (first,) = desk.run(0.031)
    assert 0.003 <= first.time - 100 <= 0.03
    h = first.handshake
    assert h is not None
    assert (first.destination, first.frame.dest, first.frame.ttl, h.ttl0) == (BROADCAST_ADDRESS, EVERYONE, 5, 5)
    assert (h.flags, h.interval, h.mtu, h.seq, h.heard, h.routes) == (FLAG_FULL, 5.0, 1500, BOOT_SEQ, (), ())
    assert (h.name, h.ports) == ("me", (1, 2))


def test_idle_greets_every_5_s_and_says_whom_it_hears_three_times_then_every_fifth(desk: Desk) -> None:
    sent = desk.run(100)
    gaps = [b.time - a.time for a, b in zip(sent, sent[1:])]
    assert all(4.5 <= gap <= 5.0 for gap in gaps)
    lists = [s.handshake is not None and s.handshake.heard is not None for s in sent]
    assert lists[:3] == [True] * 3
    assert [index for index, has_list in enumerate(lists[3:], 4) if has_list] == [5, 10, 15, 20]


def test_newcomer_is_greeted_within_30_ms_and_ten_newcomers_with_one_frame(desk: Desk) -> None:
    desk.run(1)
    for number in range(2, 12):
        desk.hear(Peer(number))
    sent = desk.run(0.031)
    assert len(sent) == 1
    assert sent[0].handshake is not None
    assert sent[0].handshake.heard == tuple(Heard(mac_of(n), n) for n in range(2, 12))


def test_greetings_are_30_ms_apart(desk: Desk) -> None:
    times = []
    for number in range(2, 100):
        desk.hear(Peer(number))
        times += [s.time for s in desk.run(0.003) if s.destination == BROADCAST_ADDRESS]
    assert min(b - a for a, b in zip(times, times[1:])) >= 0.03 - 1e-9


@pytest.mark.parametrize(("mtu", "crowd", "parts"), [(606, 54, [54]), (606, 55, [55, 0]), (1500, 200, [145, 55])])
@pytest.mark.usefixtures("everybody_may_come")
def test_more_neighbours_than_a_frame_holds_are_listed_in_several(mtu: int, crowd: int, parts: List[int]) -> None:
    """Beside the name and two ports the last one has room for 54 at such an MTU."""
    desk = Desk(mtu=mtu)
    for number in range(2, 2 + crowd):
        desk.hear(Peer(number))
    sent = [s for s in desk.run(0.05) if s.destination == BROADCAST_ADDRESS]
    assert [len(s.handshake.heard or ()) for s in sent if s.handshake] == parts
    assert [s.handshake.flags for s in sent if s.handshake] == [*[0] * (len(parts) - 1), FLAG_FULL]
    assert max(len(encode_frame(s.frame)) for s in sent) <= mtu


def test_list_in_two_frames_is_one_list(desk: Desk) -> None:
    peer = Peer(2)
    desk.hear(peer, heard=desk.lists_me(peer))
    desk.hear(peer, heard=(Heard(FAR, 1),))
    assert desk.state(peer) is UP


def test_set_ports_are_told_with_the_next_greetings(desk: Desk) -> None:
    desk.run(60)
    desk.router.set_ports([7])
    assert [s.handshake.ports for s in desk.run(20) if s.handshake is not None][:4] == [(7,)] * 3 + [None]


def test_announce_asks_everybody_at_once(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear_v1(3)
    desk.run(0.1)
    desk.router.announce(now=desk.now)
    to_all, to_v1 = desk.take()
    assert to_all.handshake is not None
    assert to_all.handshake.flags & FLAG_PROBE
    assert to_all.destination == BROADCAST_ADDRESS
    assert to_v1.destination == mac_of(3)
    desk.now += 0.004
    desk.hear(peer, FLAG_REPLY, ttl0=0, token=to_all.handshake.token, name="ann", ports=(5,))
    (info,) = [info for info in desk.router.nodes() if info.address == peer.address]
    assert info.rtt == pytest.approx(0.004)
    assert (info.name, info.ports, info.hops, info.last_heard) == ("ann", (5,), 1, desk.now)


def test_leave_says_bye_and_then_nothing_but_still_forwards(two: Desk) -> None:
    two.up(2)
    two.up(3, interface=1)
    msg_id = two.router.send_message(FAR, b"x", now=two.now, timeout=9)
    two.take()
    two.router.leave(now=two.now)
    sent = two.take()
    said = [(s.interface, s.handshake.flags, s.handshake.token, s.frame.ttl) for s in sent if s.handshake]
    assert said == [(0, FLAG_BYE, 0, 0), (1, FLAG_BYE, 0, 0)]
    assert two.events(Undelivered) == [Undelivered(msg_id, FAR)]
    assert two.hear(Peer(2), FLAG_PROBE, token=9) == []
    forwarded = two.put(0, two.macs[0], mac_of(2), two.frame(TYPE_MESSAGE, mac_of(2), mac_of(3), b"x"))
    assert [s.destination for s in forwarded] == [mac_of(3, 1)]
    assert two.run(60) == []


# --- The state of a link ---------------------------------------------------------------------------------------------


def test_unknown_handshake_makes_a_neighbour_that_is_only_heard(desk: Desk) -> None:
    peer = Peer(2)
    desk.hear(peer)
    assert desk.state(peer) is HEARD
    assert desk.events() == []
    assert desk.router.nodes() == []


def test_heard_listed_goes_up(desk: Desk) -> None:
    peer = Peer(2)
    desk.hear(peer, heard=desk.lists_me(peer))
    assert desk.state(peer) is UP
    assert desk.events() == [NodeFound(peer.address, 1, 1500, "")]


@pytest.mark.parametrize("tag", [(ME, 12345), (mac_of(1, 1), None), (mac_of(3), None)])
def test_heard_listed_as_another_incarnation_or_mac_stays_heard(desk: Desk, tag: Tuple[bytes, Optional[int]]) -> None:
    peer = Peer(2)
    desk.hear(peer, heard=(Heard(tag[0], tag[1] or desk.router.local.nonce),))
    assert desk.state(peer) is HEARD


def test_heard_silence_is_asked_with_growing_pauses(desk: Desk) -> None:
    peer = Peer(2)
    desk.run(1)
    start = desk.now
    desk.hear(peer)
    times = [round(s.time - start, 3) for s in probes(desk.run(4))]
    assert times == [0.1, 0.3, 0.7, 1.5, 3.1]


def test_up_not_listed_any_more_goes_back_to_heard(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, heard=())
    assert desk.state(peer) is HEARD
    assert desk.hop(peer.address) is None


def test_up_directed_list_without_us_is_only_a_part(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, ttl0=0, heard=(Heard(FAR, 1),))
    assert desk.state(peer) is UP


def test_up_no_list_at_all_changes_nothing(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer)
    assert desk.state(peer) is UP


def test_up_data_unanswered_for_75_ms_is_probed(desk: Desk) -> None:
    (peer,) = desk.up(2)
    start = desk.now
    desk.stream(peer.address)
    (probe,) = probes(desk.run(0.1))
    assert probe.time - start == pytest.approx(0.075)
    assert (probe.destination, probe.frame.dest, probe.frame.ttl) == (peer.mac, peer.address, 0)
    assert probe.handshake is not None
    assert probe.handshake.token != 0
    assert probe.handshake.heard == (Heard(peer.mac, peer.nonce),)
    assert desk.state(peer) is PROBING


def test_up_data_answered_is_probed_once_a_second(desk: Desk) -> None:
    (peer,) = desk.up(2)
    start = desk.now
    found = []
    for _ in range(70):
        desk.stream(peer.address)
        desk.router.receive(0, stream_to_me(desk, peer), now=desk.now)
        for probe in probes(desk.run(0.05)):
            assert probe.handshake is not None
            found.append(round(probe.time - start, 2))
            desk.hear(peer, FLAG_REPLY, ttl0=0, token=probe.handshake.token)
    assert found == [0.8, 1.85, 2.9]


def stream_to_me(desk: Desk, peer: Peer, payload: bytes = b"back") -> bytes:
    return encode_ethernet(ME, peer.mac, encode_frame(desk.frame(TYPE_STREAM, peer.address, ME, payload)))


def test_up_overdue_is_probed_after_6_to_7_s(desk: Desk) -> None:
    (_peer,) = desk.up(2)
    start = desk.now - 0.2
    (probe, *_) = probes(desk.run(8))
    assert 6 <= probe.time - start <= 7


def test_up_silent_death_when_idle_is_noticed_within_7_3_s_and_told_after_another(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.events()
    start = desk.now - 0.2
    while desk.state(peer) is not DEAD:
        desk.run(0.01)
    assert desk.now - start < 7.2
    desk.run(0.98)
    assert desk.events() == []
    desk.run(0.03)
    assert desk.events() == [NodeLost(peer.address, "unreachable")]


def test_up_hint_probes_at_once(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.router.hint(peer.address, now=desk.now)
    desk.router.hint(FAR, now=desk.now)
    assert len(probes(desk.take())) == 1
    desk.router.hint(peer.address, now=desk.now)
    assert probes(desk.take()) == []


def test_probing_reply_goes_up_and_measures(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.router.hint(peer.address, now=desk.now)
    (probe,) = desk.take()
    assert probe.handshake is not None
    desk.now += 0.03
    desk.hear(peer, FLAG_REPLY, ttl0=0, token=probe.handshake.token)
    assert desk.state(peer) is UP
    assert desk.router.nodes()[0].rtt == pytest.approx(0.03)
    desk.router.hint(peer.address, now=desk.now)  # the next probe gets four round trips
    desk.run(0.119)
    assert desk.state(peer) is PROBING
    desk.run(0.002)
    assert desk.state(peer) is SUSPECT


def test_probing_other_frames_and_wrong_tokens_do_not_clear_the_probe(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.router.hint(peer.address, now=desk.now)
    desk.hear(peer, FLAG_REPLY, ttl0=0, token=77)
    desk.hear(peer, FLAG_REPLY, ttl0=0, token=0)
    desk.router.receive(0, stream_to_me(desk, peer), now=desk.now)
    assert desk.state(peer) is PROBING


def test_probing_three_misses_kill(desk: Desk) -> None:
    (peer,) = desk.up(2)
    start = desk.now
    desk.router.hint(peer.address, now=desk.now)
    desk.run(0.049)
    assert desk.state(peer) is PROBING
    desk.run(0.002)
    assert desk.state(peer) is SUSPECT
    assert desk.hop(peer.address) == peer.address  # better than none
    desk.run(0.098)
    assert desk.state(peer) is SUSPECT
    desk.run(0.002)
    assert desk.state(peer) is DEAD
    assert desk.hop(peer.address) is None
    times = [round(s.time - start, 2) for s in probes(desk.run(2.9))]
    assert times == [0.25, 0.45, 0.85, 1.65]


def test_probing_late_timer_gives_the_answer_another_50_ms(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.router.hint(peer.address, now=desk.now)
    desk.take()
    desk.now += 1.0  # the process was stopped
    desk.take()
    assert desk.state(peer) is PROBING
    desk.run(0.051)
    assert desk.state(peer) is SUSPECT


def kill(desk: Desk, peer: Peer) -> Sent:
    """Let the peer miss its probes; return the last one."""
    desk.router.hint(peer.address, now=desk.now)
    sent = desk.run(0.2)
    assert desk.state(peer) is DEAD
    return probes(sent)[-1]


def test_suspect_late_reply_goes_up(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.router.hint(peer.address, now=desk.now)
    (probe,) = desk.take()
    desk.run(0.06)
    assert probe.handshake is not None
    desk.hear(peer, FLAG_REPLY, ttl0=0, token=probe.handshake.token)
    assert desk.state(peer) is UP


def test_dead_handshake_that_lists_us_is_asked_at_once_but_stays_dead(desk: Desk) -> None:
    (peer,) = desk.up(2)
    kill(desk, peer)
    desk.run(1.0)
    sent = desk.hear(peer, heard=desk.lists_me(peer))
    (probe,) = probes(sent)
    assert probe.handshake is not None
    assert probe.handshake.heard is None  # it may be deaf: then it must not use us
    assert desk.state(peer) is DEAD
    desk.hear(peer, FLAG_REPLY, ttl0=0, token=probe.handshake.token)
    assert desk.state(peer) is UP
    assert desk.hop(peer.address) == peer.address


def test_dead_is_not_listed_any_more(desk: Desk) -> None:
    peer, other = desk.up(2, 3)
    desk.router.hint(peer.address, now=desk.now)
    sent = [s for s in desk.run(0.2) if s.destination == BROADCAST_ADDRESS]
    assert sent[0].handshake is not None
    assert sent[0].handshake.heard == (Heard(other.mac, other.nonce),)


def test_dead_is_forgotten_after_its_hold(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.run(17)
    assert peer.address in desk.router.local.interfaces[0].neighbours
    desk.run(0.6)
    assert desk.router.neighbours.all() == []


@pytest.mark.parametrize("state", LinkState)
def test_any_state_new_nonce_forgets_all_the_node_said_on_every_interface(two: Desk, state: LinkState) -> None:
    (peer,) = two.up(2)
    (twin,) = two.up(2, interface=1)
    two.hear(peer, routes=[route(9)])
    two.hear(twin, routes=[route(9)])
    reach(two, peer, state)
    peer.nonce += 1000
    two.hear(peer)
    assert two.state(peer) is HEARD
    assert two.state(twin) is HEARD
    assert two.router.routes.table[mac_of(9)].adverts == {}


def reach(desk: Desk, peer: Peer, state: LinkState) -> None:
    """Bring a neighbour that is up into another state."""
    if state is HEARD:
        desk.hear(peer, heard=())
    elif state in (PROBING, SUSPECT, DEAD):
        desk.router.hint(peer.address, now=desk.now)
        desk.run({PROBING: 0.0, SUSPECT: 0.06, DEAD: 0.16}[state])
    assert desk.state(peer) is state


@pytest.mark.parametrize("state", LinkState)
def test_any_state_bye_makes_it_the_last_choice_and_then_forgets_it(desk: Desk, state: LinkState) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9)])
    reach(desk, peer, state)
    usable = state in (UP, PROBING, SUSPECT)
    desk.events()
    desk.hear(peer, FLAG_BYE, ttl0=0)
    desk.run(0.01)
    lost = [NodeLost(peer.address, "left")] if usable else []
    assert desk.events(NodeLost) == lost
    assert desk.hop(mac_of(9)) == (peer.address if usable else None)  # it forwards for a moment
    desk.hear(peer)
    desk.run(0.5)
    assert desk.router.neighbours.all() == []


def test_bye_then_new_nonce_comes_back(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, FLAG_BYE, ttl0=0)
    peer.nonce += 1
    desk.hear(peer, heard=desk.lists_me(peer))
    assert desk.state(peer) is UP
    desk.run(1)
    assert desk.hop(peer.address) == peer.address


def test_no_other_moves_than_those_of_the_table(desk: Desk) -> None:
    (peer,) = desk.up(2)
    neighbour = desk.neighbour(peer)
    for before in LinkState:
        for after in set(LinkState) - LINK_MOVES[before]:
            neighbour.state = before
            with pytest.raises(RuntimeError):
                desk.router.neighbours._move(neighbour, after, desk.now)


def test_neighbour_with_a_second_mac_is_listed_with_both_and_sent_to_the_first(desk: Desk) -> None:
    (peer,) = desk.up(2)
    second = Peer(2)
    second.mac = mac_of(2, 7)
    sent = []
    for _ in range(6):
        desk.alive(peer, second)
        sent += desk.run(4.9)
    assert desk.neighbour(peer).mac == peer.mac
    listed = [s.handshake.heard for s in sent if s.handshake and s.handshake.heard]
    assert listed[0] == (Heard(peer.mac, 2), Heard(second.mac, 2))


def test_neighbour_with_another_mac_is_the_same_neighbour(desk: Desk) -> None:
    """Row 9."""
    (peer,) = desk.up(2)
    old, peer.mac = peer.mac, mac_of(2, 7)
    for _ in range(3):
        desk.alive(peer)
        desk.run(4.9)
    sent = desk.stream(peer.address)
    assert sent is not None
    assert sent.destination == peer.mac
    assert desk.state(peer) is UP
    assert old not in desk.router.local.interfaces[0].senders


def test_neighbour_with_another_mac_every_time_is_bounded(desk: Desk) -> None:
    """Row 9."""
    (peer,) = desk.up(2)
    for port in range(3, 100):
        peer.mac = mac_of(2, port)
        desk.hear(peer)
    assert len(desk.neighbour(peer).sources) == 4
    assert len(desk.router.local.interfaces[0].senders) == 4


def test_probe_is_answered_with_the_token_name_and_ports_at_most_20_times_a_second(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.run(2)
    replies = []
    for token in range(1, 101):
        replies += desk.hear(peer, FLAG_PROBE, ttl0=0, token=token)
        desk.now += 0.001
    assert len(replies) == REPLIES_PER_SECOND + 1
    h = replies[0].handshake
    assert h is not None
    assert (h.flags, h.token, h.ttl0, h.name, h.ports) == (FLAG_REPLY, 1, 0, "me", (1, 2))
    assert h.heard == (Heard(peer.mac, peer.nonce),)
    assert (replies[0].destination, replies[0].frame.dest) == (peer.mac, peer.address)


def test_reply_is_never_answered(desk: Desk) -> None:
    (peer,) = desk.up(2)
    assert desk.hear(peer, FLAG_REPLY | FLAG_PROBE, ttl0=0, token=5) == []


def test_missed_handshakes_make_a_link_cost_twice(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.run(4.8)
    desk.alive(peer)
    for pause in (9.8, 9.8):
        for _ in range(int(pause / 4.9) - 1):
            desk.run(4.9)
            desk.hear(peer, ttl0=0)  # what is directed does not count
        desk.run(4.9)
        desk.alive(peer)
    path = desk.router.path_to(peer.address)
    assert path is not None
    assert path.metric == 20
    for _ in range(8):
        desk.run(4.9)
        desk.alive(peer)
    path = desk.router.path_to(peer.address)
    assert path is not None
    assert path.metric == 10


# --- MTU -------------------------------------------------------------------------------------------------------------


def test_big_mtu_is_used_once_a_padded_probe_was_answered() -> None:
    desk = Desk(mtu=9000)
    peer = Peer(2, mtu=8000)
    sent = desk.hear(peer, heard=desk.lists_me(peer))
    assert [s for s in sent if s.handshake and s.handshake.pad] == []  # it could be anybody
    (probe,) = [s for s in desk.answer(peer, sent) if s.handshake and s.handshake.pad]
    assert len(encode_frame(probe.frame)) == 8000
    assert desk.router.mtu_to(peer.address) == 1500
    assert probe.handshake is not None
    desk.hear(peer, FLAG_REPLY, ttl0=0, token=probe.handshake.token)
    assert desk.router.mtu_to(peer.address) == 8000
    peer.mtu = 1200
    desk.hear(peer)
    assert desk.router.mtu_to(peer.address) == 1200


def test_big_mtu_unanswered_three_times_stays_1500() -> None:
    desk = Desk(mtu=9000)
    peer = Peer(2, mtu=9000)
    sent = desk.answer(peer, desk.hear(peer, heard=desk.lists_me(peer))) + desk.run(2)
    assert len([s for s in sent if s.handshake and s.handshake.pad]) == 3
    assert desk.state(peer) is UP
    assert desk.router.mtu_to(peer.address) == 1500


def test_mtu_that_changes_all_the_time_costs_no_storm_of_padding() -> None:
    desk = Desk(mtu=9000)
    peer = Peer(2, mtu=9000)
    sent = desk.answer(peer, desk.hear(peer, heard=desk.lists_me(peer)))
    for mtu in range(2000, 2100):
        peer.mtu = mtu
        sent += desk.hear(peer)
    assert len([s for s in sent if s.handshake and s.handshake.pad]) == 1


def test_interface_mtu_change_is_obeyed_at_once(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.stream(peer.address)
    desk.events()
    desk.router.interface_changed(0, mtu=900, now=desk.now)
    assert desk.router.mtu_to(peer.address) == 900
    assert desk.router.mtu_to(FAR) == 900
    assert desk.events() == [PathChanged(peer.address, 900)]


def test_interface_with_another_address_sends_from_it_at_once(desk: Desk) -> None:
    (peer,) = desk.up(2)
    assert desk.stream(peer.address)
    desk.macs[0] = mac_of(0x77)
    desk.router.interface_changed(0, mac=desk.macs[0], slot=2, now=desk.now)
    desk.stream(peer.address)  # or flooded, until the peer lists the new address
    sent = desk.run(0.1)  # in which the Ethernet source of each frame is compared
    assert BROADCAST_ADDRESS in [each.destination for each in sent if each.frame.type == TYPE_HANDSHAKE]
    desk.hear(peer, heard=desk.lists_me(peer))
    assert desk.stream(peer.address)


def test_path_mtu_beyond_1500_is_found_out_anew_when_frames_no_longer_get_through() -> None:
    desk = Desk(mtu=9000)
    peer = Peer(2, mtu=9000)
    sent = desk.answer(peer, desk.hear(peer, heard=desk.lists_me(peer)))
    for big in [s for s in sent if s.handshake and s.handshake.pad]:
        assert big.handshake is not None
        desk.hear(peer, FLAG_REPLY, ttl0=0, token=big.handshake.token)
    assert desk.router.mtu_to(peer.address) == 9000
    desk.router.interface_changed(0, mtu=9000, now=desk.now)
    assert desk.router.mtu_to(peer.address) == 1500
    assert len([s for s in desk.run(2) if s.handshake and s.handshake.pad]) == 3


def test_path_mtu_is_the_least_on_the_way(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9, mtu=1280), route(8, mtu=9000)])
    assert desk.router.mtu_to(mac_of(9)) == 1280
    assert desk.router.mtu_to(mac_of(8)) == 1500


def test_interface_down_loses_its_routes_at_once_and_greets_when_up_again(two: Desk) -> None:
    (peer,) = two.up(2)
    (_other,) = two.up(2, interface=1)
    first = two.hop(peer.address)
    assert first == peer.address
    two.router.interface_changed(0, up=False, now=two.now)
    path = two.router.path_to(peer.address)
    assert path is not None
    assert path.neighbour.interface.index == 1
    assert {s.interface for s in two.run(6)} == {1}
    two.router.interface_changed(0, up=True, now=two.now)
    assert [s for s in two.run(0.031) if s.interface == 0]


# --- Routes in -------------------------------------------------------------------------------------------------------


def test_route_of_a_neighbour_is_used(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.events()
    desk.hear(peer, routes=[route(9, metric=20)])
    assert desk.hop(mac_of(9)) == peer.address
    assert desk.events() == [NodeFound(mac_of(9), 3, 1500, "")]
    (info,) = [info for info in desk.router.nodes() if info.address == mac_of(9)]
    assert (info.hops, info.next_hop, info.interface, info.rtt) == (3, peer.address, 0, None)


def test_route_of_a_neighbour_that_is_only_heard_waits_until_it_is_up(desk: Desk) -> None:
    peer = Peer(2)
    desk.hear(peer, routes=[route(9)])
    assert desk.hop(mac_of(9)) is None
    desk.hear(peer, heard=desk.lists_me(peer))
    assert desk.hop(mac_of(9)) == peer.address


def test_lower_metric_wins_and_equal_metric_does_not_move(desk: Desk) -> None:
    a, b, c = desk.up(2, 3, 4)
    desk.hear(b, routes=[route(9, 20)])
    desk.hear(a, routes=[route(9, 20)])
    assert desk.hop(mac_of(9)) == b.address
    desk.hear(c, routes=[route(9, 10)])
    assert desk.hop(mac_of(9)) == c.address


def test_equal_metric_with_greater_mtu_wins() -> None:
    desk = Desk()
    a, b = desk.up(2, 3)
    desk.hear(a, routes=[route(9, 20, mtu=1000)])
    desk.hear(b, routes=[route(9, 20, mtu=1400)])
    assert desk.hop(mac_of(9)) == b.address


@pytest.mark.parametrize("metric", [METRIC_UNREACHABLE - 10, METRIC_UNREACHABLE - 1])
def test_metric_that_the_hop_takes_beyond_the_range_is_no_route(desk: Desk, metric: int) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9, metric)])
    assert desk.hop(mac_of(9)) is None


def test_retraction_and_full_table_without_it_end_a_route(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(8), route(9)])
    desk.hear(peer, routes=[route(9, METRIC_UNREACHABLE)])
    assert (desk.hop(mac_of(8)), desk.hop(mac_of(9))) == (peer.address, None)
    desk.hear(peer, FLAG_FULL)
    assert desk.hop(mac_of(8)) is None
    assert desk.hop(peer.address) == peer.address


def test_directed_retraction_ends_a_route(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9)])
    desk.hear(peer, ttl0=0, routes=[route(9, METRIC_UNREACHABLE)])
    assert desk.hop(mac_of(9)) is None


def test_route_that_is_not_repeated_ends_after_180_s(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9)])
    for _ in range(int(ADVERT_SECONDS / 4.5)):
        desk.run(4.5)
        desk.alive(peer)
    assert desk.hop(mac_of(9)) == peer.address
    for _ in range(int(SWEEP_SECONDS / 4.5) + 1):
        desk.run(4.5)
        desk.alive(peer)
    assert desk.hop(mac_of(9)) is None


def test_routes_relayed_by_a_v1_node_are_ignored_but_the_node_is_known(desk: Desk) -> None:
    peer = Peer(2)
    desk.hear(peer, ttl=TTL_V1 - 1, routes=[route(9)], heard=desk.lists_me(peer))
    assert desk.router.neighbours.all() == []
    assert [(i.address, i.hops, i.mtu) for i in desk.router.nodes()] == [(peer.address, 2, 1500)]
    desk.run(17.5 + SWEEP_SECONDS)
    assert desk.router.nodes() == []


def test_route_to_this_node_with_a_newer_seq_makes_it_newer_still_but_rarely(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[Route(ME, BOOT_SEQ, 20, 1500)])
    assert desk.run(0.02) == []
    sent = desk.hear(peer, routes=[Route(ME, BOOT_SEQ + 1000, 20, 1500)]) + desk.run(0.02)
    assert [s.handshake.seq for s in sent if s.handshake] == [BOOT_SEQ + 1001]
    assert len(encode_frame(sent[0].frame)) == 23 + 20
    sent = desk.hear(peer, routes=[Route(ME, BOOT_SEQ + 2000, 20, 1500)]) + desk.run(0.02)
    assert sent == []  # two nodes with one address must not chase each other


def test_seq_far_ahead_is_believed_only_when_there_is_nothing_else(two: Desk) -> None:
    a, b = two.up(2, 3)
    two.up(4, interface=1)
    two.hear(a, routes=[route(9, 30)])
    two.run(0.05)  # it was told on
    two.hear(b, routes=[route(9, 10, BOOT_SEQ + SEQ_JUMP_MAX + 1)])
    assert two.hop(mac_of(9)) == a.address
    two.hear(a, routes=[route(9, METRIC_UNREACHABLE)])
    assert two.hop(mac_of(9)) == b.address


def test_route_changes_are_told_to_who_wants_them(desk: Desk) -> None:
    desk.router.routes.tells_changes = True
    a, b = desk.up(2, 3)
    desk.hear(a, routes=[route(9, 20)])
    desk.hear(b, routes=[route(9, 10, BOOT_SEQ + 1)])
    desk.hear(b, routes=[route(9, 10, BOOT_SEQ + 2)])
    assert [event for event in desk.events(RouteChanged) if event.address == mac_of(9)] == [
        RouteChanged(mac_of(9), 0, a.address, 3, 1500),
        RouteChanged(mac_of(9), 0, b.address, 2, 1500),
    ]


def test_known_is_who_was_spoken_of(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear_v1(7, ttl=4)
    assert [desk.router.knows(address) for address in (peer.address, mac_of(7), FAR)] == [True, True, False]


# --- Feasibility and requests ----------------------------------------------------------------------------------------


def told_on(desk: Desk, peer: Peer, offered: Route) -> None:
    """Let a route be learned from `peer`, and told to a listener on the other interface."""
    desk.hear(peer, routes=[offered])
    sent = desk.run(0.02)
    assert told(sent, 1) == [offered._replace(metric=offered.metric + 10)]


def test_route_not_below_what_was_told_is_not_used_but_asked_for(two: Desk) -> None:
    """Row 13."""
    a, b = two.up(2, 3)
    two.up(4, interface=1)
    told_on(two, a, route(9, 10))
    two.hear(b, routes=[route(9, 20)])
    assert two.run(0.1) == []
    two.hear(a, routes=[route(9, METRIC_UNREACHABLE)])
    assert two.hop(mac_of(9)) is None
    sent = two.run(0.02)
    assert asked(sent) == [Request(mac_of(9), BOOT_SEQ + 1, 64)]
    assert [s.interface for s in sent if asked([s])] == [0]
    two.hear(b, routes=[route(9, 20, BOOT_SEQ + 1)])
    assert two.hop(mac_of(9)) == b.address


def test_forged_nearness_takes_no_neighbour_and_lasts_no_longer_than_the_liar(desk: Desk) -> None:
    """Row 13: without keys a liar may swallow what goes to far nodes, until he leaves or takes it back."""
    peer, liar = desk.up(2, 3)
    desk.hear(peer, routes=[route(9)])
    desk.stream(mac_of(9))
    desk.hear(liar, routes=[route(2, 1), route(9, 1)])
    assert desk.hop(peer.address) == peer.address
    assert desk.hop(mac_of(9)) == liar.address
    desk.hear(liar, routes=[route(9, METRIC_UNREACHABLE)])
    assert desk.hop(mac_of(9)) in (None, peer.address)
    desk.run(0.1)
    desk.hear(peer, routes=[route(9, 10, BOOT_SEQ + 1)])
    assert desk.hop(mac_of(9)) == peer.address


def test_starving_asks_four_times_then_once_a_second_when_a_route_is_heard(two: Desk) -> None:
    a, b = two.up(2, 3)
    two.up(4, interface=1)
    told_on(two, a, route(9, 10))
    two.hear(b, routes=[route(9, 20)])
    start = two.now
    sent = two.hear(a, routes=[route(9, METRIC_UNREACHABLE)]) + two.run(2)
    assert [round(4 * (s.time - start)) for s in sent if asked([s])] == [0, 1, 2, 3]
    sent = []
    for _ in range(20):
        sent += two.hear(b, routes=[route(9, 20)]) + two.run(0.1)
    assert len(asked(sent)) == 2


def test_starving_in_use_asks_without_delay(two: Desk) -> None:
    a, b = two.up(2, 3)
    two.up(4, interface=1)
    told_on(two, a, route(9, 10))
    two.hear(b, routes=[route(9, 20)])
    two.stream(mac_of(9))
    assert len(asked(two.hear(a, routes=[route(9, METRIC_UNREACHABLE)]))) == 1


def test_suspect_hop_moves_to_a_feasible_alternate_at_once(desk: Desk) -> None:
    a, b = desk.up(2, 3)
    desk.hear(a, routes=[route(9, 10)])
    desk.hear(b, routes=[route(9, 20)])
    desk.stream(mac_of(9))
    desk.events()
    desk.run(0.126)
    assert desk.state(a) is SUSPECT
    assert desk.hop(mac_of(9)) == b.address
    assert desk.events(PathChanged) == [PathChanged(mac_of(9), 1500)]


def test_suspect_hop_without_alternate_asks_for_what_is_in_use(two: Desk) -> None:
    a, b = two.up(2, 3)
    two.up(4, interface=1)
    told_on(two, a, route(9, 10))
    told_on(two, a, route(8, 10))
    two.hear(b, routes=[route(9, 20), route(8, 20)])
    two.run(0.05)
    two.stream(mac_of(9))
    sent = two.run(0.14)
    assert two.state(a) is SUSPECT
    assert [r.dest for r in asked(sent)] == [mac_of(9)]


def test_neighbour_that_restarted_without_a_clock_is_asked_for_a_newer_seq(two: Desk) -> None:
    (peer,) = two.up(2)
    two.up(3, interface=1)
    peer.nonce, peer.seq = 50, 1
    two.hear(peer, heard=two.lists_me(peer))
    assert two.hop(peer.address) is None
    assert asked(two.run(0.02)) == [Request(peer.address, BOOT_SEQ + 1, 64)]
    peer.seq = BOOT_SEQ + 1
    two.hear(peer)
    assert two.hop(peer.address) == peer.address


def test_request_for_this_node_is_answered_on_all_interfaces_at_once(two: Desk) -> None:
    (peer,) = two.up(2)
    two.run(0.1)
    sent = two.hear(peer, ttl0=0, requests=[Request(ME, BOOT_SEQ + 7, 64)])
    assert sorted((s.interface, s.handshake.seq) for s in sent if s.handshake) == [
        (0, BOOT_SEQ + 7),
        (1, BOOT_SEQ + 7),
    ]
    sent = two.hear(peer, ttl0=0, requests=[Request(ME, BOOT_SEQ, 64)]) + two.run(0.01)
    assert {s.handshake.seq for s in sent if s.handshake} == {BOOT_SEQ + 7}


def test_request_is_answered_from_a_newer_route_of_another_neighbour(two: Desk) -> None:
    (a,) = two.up(2)
    (b,) = two.up(3, interface=1)
    told_on(two, a, route(9, 10, BOOT_SEQ + 5))
    two.run(0.1)
    sent = two.hear(b, ttl0=0, requests=[Request(mac_of(9), BOOT_SEQ + 5, 64)])
    assert told(sent, 1) == [route(9, 20, BOOT_SEQ + 5)]
    assert asked(sent) == []


def test_request_is_passed_to_the_next_hop_once_a_second(two: Desk) -> None:
    (a,) = two.up(2)
    (b,) = two.up(3, interface=1)
    told_on(two, a, route(9, 10))
    request = Request(mac_of(9), BOOT_SEQ + 1, 64)
    sent = []
    start = two.now
    for _ in range(25):
        sent += two.hear(b, ttl0=0, requests=[request]) + two.run(0.1001)
    passed = [s for s in sent if asked([s])]
    assert [round(s.time - start, 1) for s in passed] == [0.0, 1.0, 2.0]
    assert passed[0].destination == a.mac
    assert asked(passed[:1]) == [request._replace(hops=63)]


@pytest.mark.parametrize("state", [UP, HEARD])
def test_request_of_the_next_hop_goes_to_another_holder_that_is_up(desk: Desk, state: LinkState) -> None:
    a, b = desk.up(2, 3)
    desk.hear(a, routes=[route(9, 10)])
    desk.hear(b, routes=[route(9, 20)])
    reach(desk, b, state)
    sent = desk.hear(a, ttl0=0, requests=[Request(mac_of(9), BOOT_SEQ + 1, 64)])
    assert [(s.destination, len(asked([s]))) for s in sent if asked([s])] == [(b.mac, 1)] * (state is UP)


@pytest.mark.parametrize("request_", [Request(mac_of(9), BOOT_SEQ + 1, 0), Request(FAR, BOOT_SEQ, 64)])
def test_request_without_hops_left_or_for_the_unknown_ends(two: Desk, request_: Request) -> None:
    (a,) = two.up(2)
    (b,) = two.up(3, interface=1)
    told_on(two, a, route(9, 10))
    assert asked(two.hear(b, ttl0=0, requests=[request_]) + two.run(0.1)) == []


def test_newer_seq_that_a_request_waits_for_is_told_at_once_and_others_with_the_next_handshake(two: Desk) -> None:
    (a,) = two.up(2)
    (b,) = two.up(3, interface=1)
    told_on(two, a, route(9, 10))
    told_on(two, a, route(8, 10))
    two.hear(b, ttl0=0, requests=[Request(mac_of(9), BOOT_SEQ + 1, 64)])
    two.run(0.1)
    sent = two.hear(a, routes=[route(8, 10, BOOT_SEQ + 1), route(9, 10, BOOT_SEQ + 1)])
    assert told(sent, 1) == [route(9, 20, BOOT_SEQ + 1)]
    assert told(two.run(0.1), 1) == []
    two.alive(a, b)
    assert route(8, 20, BOOT_SEQ + 1) in told(two.run(5), 1)


@pytest.mark.parametrize(("told", "wanted"), [(SEQ_MAX - 1, {SEQ_MAX}), (SEQ_MAX, set())])
def test_seq_at_its_end_is_not_asked_beyond(two: Desk, told: int, wanted: Set[int]) -> None:
    a, b = two.up(2, 3)
    two.up(4, interface=1)
    told_on(two, a, route(9, 10, told))
    two.hear(b, routes=[route(9, 20, told)])
    sent = two.hear(a, routes=[route(9, METRIC_UNREACHABLE)]) + two.run(3)
    assert {request.seq for request in asked(sent)} == wanted


# --- Routes out ------------------------------------------------------------------------------------------------------


def test_bus_where_everybody_hears_everybody_is_told_nothing(desk: Desk) -> None:
    desk.up(2, 3, 4, 5)
    sent = desk.run(5)
    assert told(sent) == []
    assert all(s.handshake.flags == FLAG_FULL for s in sent if s.handshake and s.destination == BROADCAST_ADDRESS)


def test_bus_where_two_do_not_hear_each_other_is_told_of_both(desk: Desk) -> None:
    a, b, c = Peer(2), Peer(3), Peer(4)
    desk.hear(a, heard=desk.lists_me(a, c))
    desk.hear(b, heard=desk.lists_me(b, c))
    desk.hear(c, heard=desk.lists_me(c, a, b))
    assert {r.dest for r in told(desk.run(0.15))} == {a.address, b.address}


def test_one_way_hearing_does_not_count(desk: Desk) -> None:
    a, b = desk.up(2, 3)
    desk.hear(a, heard=desk.lists_me(a))  # b still lists a
    assert {r.dest for r in told(desk.run(0.05))} == {a.address, b.address}


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_newcomers_get_100_ms_to_say_whom_they_hear(desk: Desk, pause: float) -> None:
    a, b = Peer(2), Peer(3)
    desk.hear(a, heard=desk.lists_me(a))
    desk.run(pause)
    desk.hear(b, heard=desk.lists_me(b))
    assert told(desk.run(0.09)) == []
    desk.hear(a, heard=desk.lists_me(a, b))
    desk.hear(b, heard=desk.lists_me(b, a))
    assert told(desk.run(1)) == []


def test_change_is_told_after_2_to_10_ms_and_nothing_twice(two: Desk) -> None:
    (a,) = two.up(2)
    two.up(3, interface=1)
    two.hear(a, routes=[route(9), route(8)])
    two.hear(a, routes=[route(7)])
    start = two.now
    sent = two.run(0.02)
    assert len(sent) == 1
    assert 0.002 <= sent[0].time - start <= 0.01
    assert {r.dest for r in told(sent, 1)} == {mac_of(7), mac_of(8), mac_of(9)}
    two.hear(a, routes=[route(9)])
    assert two.run(0.1) == []


def test_loss_is_told_once_and_only_where_the_route_was_told(two: Desk) -> None:
    a, _b = two.up(2, 3)
    two.up(4, interface=1)
    told_on(two, a, route(9))
    two.hear(a, routes=[route(9, METRIC_UNREACHABLE)])
    sent = two.run(0.1)
    assert [(s.interface, [r.metric for r in told([s], s.interface)]) for s in sent] == [(1, [METRIC_UNREACHABLE])]
    assert two.run(0.5) == []


def test_new_listener_is_told_everything(two: Desk) -> None:
    (a,) = two.up(2)
    two.hear(a, routes=[route(9)])
    two.run(0.1)
    b = Peer(3, 1)
    two.hear(b, heard=two.lists_me(b))
    full = [s for s in two.run(0.02) if s.interface == 1 and s.handshake and s.handshake.flags & FLAG_FULL]
    assert {r.dest for r in told(full[-1:], 1)} == {a.address, mac_of(9)}


def test_new_listener_does_not_make_retractions_forgotten(two: Desk) -> None:
    (a,) = two.up(2)
    two.up(3, interface=1)
    told_on(two, a, route(9))
    two.hear(a, routes=[route(9, METRIC_UNREACHABLE)])
    c = Peer(4, 1)
    two.hear(c, heard=two.lists_me(c, Peer(3, 1)))
    sent = [s for s in two.run(0.02) if s.interface == 1 and s.handshake]
    gone = [r for r in told(sent, 1) if r.dest == mac_of(9) and r.metric == METRIC_UNREACHABLE]
    full = [s for s in sent if s.handshake and s.handshake.flags & FLAG_FULL and route(9, 20) not in s.handshake.routes]
    assert gone or full


def test_destination_is_not_told_to_itself(two: Desk) -> None:
    (_a,) = two.up(2)
    (_twin,) = two.up(2, interface=1)
    assert told(two.run(6), 0) == []
    assert told(two.run(6), 1) == []


def test_table_of_more_than_one_frame_goes_round(two: Desk) -> None:
    (a,) = two.up(2)
    (b,) = two.up(3, interface=1)
    two.hear(a, routes=[route(n) for n in range(100, 190)])
    two.hear(a, routes=[route(n) for n in range(200, 290)])
    sent = two.run(0.05)
    assert len(told(sent, 1)) == 180
    assert all(len(encode_frame(s.frame)) <= 1500 for s in sent)
    seen = set()
    for _ in range(2):
        two.alive(a, b)
        greetings = [s for s in two.run(4.9) if s.interface == 1 and s.destination == BROADCAST_ADDRESS]
        for greeting in greetings:
            assert greeting.handshake is not None
            assert not greeting.handshake.flags & FLAG_FULL
            assert len(encode_frame(greeting.frame)) <= 1500
            seen |= {r.dest for r in greeting.handshake.routes}
    assert len(seen) == 181  # and the neighbour


def test_telling_a_route_is_the_only_thing_that_lowers_fd(two: Desk) -> None:
    (a,) = two.up(2)
    two.hear(a, routes=[route(9, 50)])
    assert two.router.routes.table[mac_of(9)].feasibility_distance is None
    two.up(3, interface=1)
    assert two.router.routes.table[mac_of(9)].feasibility_distance == (-BOOT_SEQ, 60)
    two.hear(a, routes=[route(9, 20)])
    two.run(0.02)
    assert two.router.routes.table[mac_of(9)].feasibility_distance == (-BOOT_SEQ, 30)


def test_fd_outlives_its_route_by_ten_minutes(two: Desk) -> None:
    (a,) = two.up(2)
    (b,) = two.up(3, interface=1)
    told_on(two, a, route(9))
    two.hear(a, routes=[route(9, METRIC_UNREACHABLE)])
    for _ in range(int(SOURCE_GC_SECONDS / 4)):
        two.run(4)
        two.alive(a, b)
    assert mac_of(9) in two.router.routes.table
    for _ in range(int(2 * SWEEP_SECONDS / 4) + 1):
        two.run(4)
        two.alive(a, b)
    assert mac_of(9) not in two.router.routes.table


# --- Data ------------------------------------------------------------------------------------------------------------


def test_message_to_a_neighbour_is_unicast_with_ttl_32(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.router.send_message(peer.address, b"hello", now=desk.now, timeout=3)
    (sent,) = desk.take()
    assert (sent.destination, sent.frame[:4]) == (peer.mac, (TYPE_MESSAGE, ME, peer.address, TTL_ROUTED))
    assert sent.frame.payload == b"hello"


def test_message_is_repeated_with_its_id_until_the_status_comes(desk: Desk) -> None:
    (peer,) = desk.up(2)
    start = desk.now
    msg_id = desk.router.send_message(peer.address, b"hello", now=desk.now, timeout=9)
    sent = of_type(desk.run(2.0), TYPE_MESSAGE)
    assert [round(s.time - start, 2) for s in sent] == [0.0, 0.1, 0.3, 0.7, 1.5]
    assert {s.frame.msg_id for s in sent} == {msg_id}
    status = desk.frame(TYPE_STATUS, peer.address, ME, status_payload(msg_id) + bytes(20))
    desk.put(0, ME, peer.mac, status)
    assert desk.events(Delivered) == [Delivered(msg_id, peer.address, near(2.0))]
    assert of_type(desk.run(5), TYPE_MESSAGE) == []


def test_message_goes_out_again_the_moment_a_route_is_there(desk: Desk) -> None:
    desk.router.send_message(mac_of(9), b"hello", now=desk.now, timeout=9)
    desk.router.send_message(FAR, b"other", now=desk.now, timeout=9)
    assert [s.destination for s in desk.take()] == [BROADCAST_ADDRESS] * 2
    peer = Peer(2)
    sent = desk.hear(peer, heard=desk.lists_me(peer), routes=[route(9)])
    assert [(s.destination, s.frame.payload) for s in of_type(sent, TYPE_MESSAGE)] == [(peer.mac, b"hello")]
    assert [s.time - 100 for s in of_type(desk.run(0.11), TYPE_MESSAGE)] == [near(0.1)] * 2


def test_message_without_status_is_undelivered_at_its_timeout(desk: Desk) -> None:
    start = desk.now
    msg_id = desk.router.send_message(FAR, b"hello", now=desk.now, timeout=3)
    sent = of_type(desk.run(2.99), TYPE_MESSAGE)
    assert [round(s.time - start, 1) for s in sent] == [0.0, 0.1, 0.3, 0.7, 1.5, 2.5]
    assert {(s.destination, s.frame.ttl) for s in sent} == {(BROADCAST_ADDRESS, TTL_ROUTED)}
    assert desk.events(Undelivered) == []
    desk.run(0.02)
    assert desk.events(Undelivered) == [Undelivered(msg_id, FAR)]


def test_status_is_taken_whatever_its_ethernet_source(desk: Desk) -> None:
    """v1.0 answers from the address that it was asked at: that of everybody where the MESSAGE was flooded."""
    msg_id = desk.router.send_message(FAR, b"hello", now=desk.now, timeout=9)
    desk.put(0, ME, BROADCAST_ADDRESS, desk.frame(TYPE_STATUS, FAR, ME, status_payload(msg_id)))
    assert [event.msg_id for event in desk.events(Delivered)] == [msg_id]


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_message_to_a_v1_node_is_repeated_under_other_ids_and_any_of_them_counts(desk: Desk, answered: int) -> None:
    """It answers no id twice, and bridges drop its answer to the first, which was flooded."""
    msg_id = desk.router.send_message(mac_of(7), b"hello", now=desk.now, timeout=9)
    sent = of_type(desk.take() + desk.hear_v1(7) + desk.run(0.15), TYPE_MESSAGE)
    assert [s.destination for s in sent] == [BROADCAST_ADDRESS, mac_of(7), mac_of(7)]
    assert len({s.frame.msg_id for s in sent}) == 3
    status = desk.frame(TYPE_STATUS, mac_of(7), ME, status_payload(sent[answered].frame.msg_id))
    desk.put(0, ME, mac_of(7), status)
    assert [event.msg_id for event in desk.events(Delivered)] == [msg_id]
    assert of_type(desk.run(3), TYPE_MESSAGE) == []
    assert desk.router.messages.renamed == {}


def test_message_to_a_v1_node_behind_a_relay_is_repeated_under_other_ids_too(desk: Desk) -> None:
    """Its sequence number tells it: a STATUS that was lost is not sent again to the same id."""
    (peer,) = desk.up(2)
    msg_id = desk.router.send_message(FAR, b"hello", now=desk.now, timeout=9)
    offered = Route(FAR, BOOT_SEQ // V1_SEQ_SECONDS, 10, 1500)
    sent = of_type(desk.take() + desk.hear(peer, routes=[offered]) + desk.run(0.15), TYPE_MESSAGE)
    assert [s.destination for s in sent] == [BROADCAST_ADDRESS, peer.mac, peer.mac]
    assert len({s.frame.msg_id for s in sent}) == 3
    desk.put(0, ME, peer.mac, desk.frame(TYPE_STATUS, FAR, ME, status_payload(sent[-1].frame.msg_id)))
    assert [event.msg_id for event in desk.events(Delivered)] == [msg_id]


def test_v1_neighbour_is_known_as_one_without_a_clock() -> None:
    desk = Desk(boot_seq=1)
    desk.hear_v1(7)
    desk.router.send_message(mac_of(7), b"hello", now=desk.now, timeout=9)
    sent = of_type(desk.take() + desk.run(0.15), TYPE_MESSAGE)
    assert len(sent) == 2
    assert len({s.frame.msg_id for s in sent}) == 2


@pytest.mark.parametrize("seq", [BOOT_SEQ, 1, 1000])
def test_message_to_one_of_ours_behind_a_relay_keeps_its_id(desk: Desk, seq: int) -> None:
    """It would be shown twice; also where its clock is not set."""
    (peer,) = desk.up(2)
    desk.router.send_message(FAR, b"hello", now=desk.now, timeout=9)
    offered = Route(FAR, seq, 10, 1500)
    sent = of_type(desk.take() + desk.hear(peer, routes=[offered]) + desk.run(0.15), TYPE_MESSAGE)
    assert len(sent) == 3
    assert len({s.frame.msg_id for s in sent}) == 1


@pytest.mark.parametrize("payload", [b"\0\0\0\x07", b"a\0b", b"\xc3(", b"\xed\xa0\x80"])
@pytest.mark.parametrize("kind", [TYPE_MESSAGE, TYPE_BROADCAST])
def test_message_that_is_no_text_is_told_once_and_not_acknowledged(desk: Desk, payload: bytes, kind: int) -> None:
    """A segment of v1.0's streams: an answer would be taken for another one, and so for ever."""
    desk.run(1)
    for _ in range(3):
        assert desk.put(0, ME, mac_of(7), desk.frame(kind, mac_of(7), ME, payload)) == []
    assert desk.events() == [StrangeNode(mac_of(7), "streams")]
    assert desk.router.drops["text"] == 3


def test_no_more_strange_nodes_are_told_of_than_anybody_would_read(desk: Desk) -> None:
    for number in range(1000, 2000):
        desk.put(0, ME, mac_of(7), desk.frame(TYPE_MESSAGE, mac_of(number), ME, b"\0\1"))
    assert len(desk.events(StrangeNode)) == 64


def test_v1_node_with_the_address_of_a_group_is_told_once_and_ignored(desk: Desk) -> None:
    """As uuid.getnode() makes it up on a machine without an IP address."""
    group = b"\x83\1\2\3\4\5"
    for _ in range(3):
        frame = desk.frame(TYPE_HANDSHAKE, group, EVERYONE, bytes(23), TTL_V1)
        desk.put(0, BROADCAST_ADDRESS, mac_of(7), frame)
    assert desk.events() == [StrangeNode(group, "group")]
    assert desk.router.neighbours.all() == []


@pytest.mark.parametrize("source", [ME, mac_of(66)])
@pytest.mark.parametrize("size", [0, 1, 10, 19])
def test_own_handshake_that_comes_back_without_its_end_raises_no_alarm(desk: Desk, size: int, source: bytes) -> None:
    (sent, *_) = of_type(desk.run(6), TYPE_HANDSHAKE)
    assert sent.frame.dest == EVERYONE
    assert sent.frame.ttl == TTL_V1
    payload = sent.frame.payload[:size].ljust(23, b"\0")
    desk.put(0, BROADCAST_ADDRESS, source, sent.frame._replace(payload=payload))
    assert sum(desk.router.drops.values()) == 1
    assert desk.events() == []


def test_v1_program_on_this_very_card_raises_an_alarm(desk: Desk) -> None:
    """It takes the card's MAC as its id, as this node does."""
    desk.run(6)
    desk.put(0, BROADCAST_ADDRESS, ME, desk.frame(TYPE_HANDSHAKE, ME, EVERYONE, bytes(23), TTL_V1))
    assert desk.events() == [DuplicateAddress(ME)]


def test_origin_of_zeros_is_not_told_as_a_group(desk: Desk) -> None:
    desk.put(0, BROADCAST_ADDRESS, mac_of(7), desk.frame(TYPE_HANDSHAKE, EVERYONE, EVERYONE, bytes(23), TTL_V1))
    assert desk.router.drops["origin"] == 1
    assert desk.events() == []


@pytest.mark.parametrize("year", [2106, 2120, 9999])
def test_clock_of_the_next_century_is_none(year: int) -> None:
    desk = Desk(boot_seq=(year - 1970) * 31556952)
    assert desk.router.local.seq == 1


@pytest.mark.parametrize("payload", [b"ACK:1", b"ACK:x", b"NAK", b""])
def test_status_that_says_something_else_is_dropped(desk: Desk, payload: bytes) -> None:
    (peer,) = desk.up(2)
    desk.router.send_message(peer.address, b"hello", now=desk.now, timeout=9)
    desk.put(0, ME, peer.mac, desk.frame(TYPE_STATUS, peer.address, ME, payload))
    assert desk.router.drops["status"] == 1


def test_status_of_somebody_else_is_dropped(desk: Desk) -> None:
    a, b = desk.up(2, 3)
    msg_id = desk.router.send_message(a.address, b"hello", now=desk.now, timeout=9)
    desk.put(0, ME, b.mac, desk.frame(TYPE_STATUS, b.address, ME, status_payload(msg_id)))
    assert desk.events(Delivered) == []


def test_message_for_us_is_reported_once_and_every_copy_acknowledged(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.events()
    frame = desk.frame(TYPE_MESSAGE, peer.address, ME, b"hello\0\0\0")
    sent = desk.put(0, ME, peer.mac, frame) + desk.put(0, BROADCAST_ADDRESS, peer.mac, frame)
    sent += desk.put(0, BROADCAST_ADDRESS, peer.mac, frame)
    assert desk.events() == [MessageReceived(peer.address, ME, frame.msg_id, b"hello")]
    assert [(s.destination, s.frame.type, s.frame.payload) for s in sent] == [
        (peer.mac, TYPE_STATUS, status_payload(frame.msg_id))
    ] * 3
    assert len({s.frame.msg_id for s in sent}) == 3


def test_texts_without_room_are_relayed_and_not_acknowledged(two: Desk) -> None:
    """But another copy of one that was delivered is acknowledged: the sender may not have heard so."""
    (peer,) = two.up(2)
    two.up(3, interface=1)
    before = two.frame(TYPE_MESSAGE, peer.address, ME, b"before")
    two.put(0, ME, peer.mac, before)
    two.events()
    two.router.messages.takes_texts = False
    late = two.frame(TYPE_MESSAGE, peer.address, ME, b"late")
    assert two.put(0, ME, peer.mac, late) == []
    assert two.router.drops["inbox full"] == 1
    assert [s.frame.payload for s in two.put(0, ME, peer.mac, before)] == [status_payload(before.msg_id)]
    sent = two.put(0, BROADCAST_ADDRESS, peer.mac, two.frame(TYPE_BROADCAST, peer.address, EVERYONE, b"all"))
    sent += two.run(0.1)
    assert [(s.interface, s.frame.payload) for s in sent if s.frame.type == TYPE_BROADCAST] == [(1, b"all")]
    assert two.events() == []
    two.router.messages.takes_texts = True
    assert [s.frame.payload for s in two.put(0, ME, peer.mac, late)] == [status_payload(late.msg_id)]
    assert [event.data for event in two.events(MessageReceived)] == [b"late"]


def test_message_of_an_unknown_node_is_acknowledged_where_it_came_from(desk: Desk) -> None:
    sent = desk.put(0, BROADCAST_ADDRESS, mac_of(5), desk.frame(TYPE_MESSAGE, FAR, ME, b"hello", ttl=3))
    assert [(s.destination, s.frame.type, s.frame.dest) for s in sent] == [(mac_of(5), TYPE_STATUS, FAR)]


def test_too_many_messages_give_up_the_oldest(desk: Desk) -> None:
    first = desk.router.send_message(FAR, b"x", now=desk.now, timeout=9)
    for _ in range(1024):
        desk.router.send_message(FAR, b"x", now=desk.now, timeout=9)
    assert desk.events(Undelivered) == [Undelivered(first, FAR)]


@pytest.mark.parametrize("address", [ME, EVERYONE, BROADCAST_ADDRESS, b"\x01" + bytes(5)])
def test_texts_and_echoes_to_no_other_node_are_refused(desk: Desk, address: bytes) -> None:
    with pytest.raises(ValueError, match="not the address of another node"):
        desk.router.send_message(address, b"x", now=desk.now, timeout=1)
    with pytest.raises(ValueError, match="not the address of another node"):
        desk.router.echo(address, now=desk.now)
    assert desk.router.send_stream(address, b"x", now=desk.now) is None
    assert desk.take() == []
    assert desk.router.drops["dest"] == 1


def test_broadcast_goes_to_all_interfaces_and_comes_in_once(two: Desk) -> None:
    (peer,) = two.up(2)
    two.events()
    two.router.broadcast(b"all", now=two.now)
    assert [(s.interface, s.destination, s.frame.dest, s.frame.ttl) for s in two.take()] == [
        (0, BROADCAST_ADDRESS, EVERYONE, 31),
        (1, BROADCAST_ADDRESS, EVERYONE, 31),
    ]
    frame = two.frame(TYPE_BROADCAST, peer.address, EVERYONE, b"hi\0")
    two.put(0, BROADCAST_ADDRESS, peer.mac, frame)
    two.put(1, BROADCAST_ADDRESS, peer.mac, frame)
    assert two.events() == [MessageReceived(peer.address, EVERYONE, frame.msg_id, b"hi")]
    two.hear_v1(7)
    two.router.broadcast(b"all", now=two.now)
    assert {s.frame.ttl for s in of_type(two.take(), TYPE_BROADCAST)} == {TTL_V1}


def test_message_to_everyone_is_reported_and_not_acknowledged(desk: Desk) -> None:
    sent = desk.put(0, BROADCAST_ADDRESS, mac_of(5), desk.frame(TYPE_MESSAGE, FAR, EVERYONE, b"hi"))
    assert [event.data for event in desk.events(MessageReceived)] == [b"hi"]
    assert of_type(sent + desk.run(0.1), TYPE_STATUS) == []


def test_stream_in_is_handed_up_and_the_fast_path_is_equal(desk: Desk) -> None:
    (peer,) = desk.up(2)
    first, second = stream_to_me(desk, peer, b"one"), stream_to_me(desk, peer, b"two" + bytes(20))
    assert desk.router.receive(0, first, now=desk.now) == (peer.address, b"one")
    desk.stream(peer.address)
    assert desk.router.receive(0, second, now=desk.now) == (peer.address, b"two" + bytes(20))
    assert probes(desk.run(0.2)) == []  # it was heard
    assert desk.router.receive(0, first[:36], now=desk.now) is None
    assert desk.router.receive(0, first[:37], now=desk.now) == (peer.address, b"")
    assert desk.router.drops["short"] == 1


def test_stream_out_fast_path_is_equal_and_has_fresh_ids(desk: Desk) -> None:
    (peer,) = desk.up(2)
    one, two = desk.stream(peer.address), desk.stream(peer.address)
    assert one is not None
    assert two is not None
    assert one._replace(frame=one.frame._replace(msg_id=0)) == two._replace(frame=two.frame._replace(msg_id=0))
    assert two.frame.msg_id == one.frame.msg_id + 1
    assert (one.destination, one.frame[:4]) == (peer.mac, (TYPE_STREAM, ME, peer.address, TTL_ROUTED))


def test_stream_to_the_unknown_is_flooded_and_limited(desk: Desk) -> None:
    desk.run(1)
    assert desk.stream(FAR) is None
    (sent,) = desk.take()
    assert (sent.destination, sent.frame.dest, sent.frame.payload) == (BROADCAST_ADDRESS, FAR, b"data")
    for _ in range(1000):
        desk.stream(FAR)
    assert len(desk.take()) == FLOODS_PER_SECOND - 1


def test_stream_whose_route_was_lost_is_flooded_rarely(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9)])
    desk.stream(mac_of(9))
    desk.hear(peer, routes=[route(9, METRIC_UNREACHABLE)])
    for _ in range(1000):
        desk.stream(mac_of(9))
    assert len(of_type(desk.take(), TYPE_STREAM)) == LOST_FLOODS_PER_SECOND


def forwarding(desk: Desk) -> Tuple[Peer, Peer]:
    """Return two neighbours between which the router stands."""
    (a,) = desk.up(2)
    (b,) = desk.up(3, interface=1)
    return a, b


@pytest.mark.parametrize("kind", [TYPE_MESSAGE, TYPE_STATUS, TYPE_STREAM, TYPE_HANDSHAKE])
def test_routed_frame_goes_on_with_ttl_less_one(two: Desk, kind: int) -> None:
    a, b = forwarding(two)
    for _ in range(2):  # the second takes the fast path
        frame = two.frame(kind, a.address, b.address, bytes(9), ttl=7)
        (sent,) = two.put(0, two.macs[0], a.mac, frame)
        assert (sent.interface, sent.destination, sent.frame) == (1, b.mac, frame._replace(ttl=6, slot=NO_SLOT))


@pytest.mark.parametrize(("ttl", "onward"), [(0, []), (1, [0]), (5, [4]), (31, [30])])
def test_routed_frame_ttl(two: Desk, ttl: int, onward: List[int]) -> None:
    """Rows 6 and 15."""
    a, b = forwarding(two)
    for _ in range(2):
        sent = two.put(0, two.macs[0], a.mac, two.frame(TYPE_STREAM, a.address, b.address, b"x", ttl=ttl))
        assert [s.frame.ttl for s in sent] == onward


def test_routed_frame_longer_than_the_next_mtu_is_dropped(two: Desk) -> None:
    a, b = forwarding(two)
    two.router.interface_changed(1, mtu=600, now=two.now)
    two.take()
    for size in (577, 578, 578, 577):
        sent = two.put(0, two.macs[0], a.mac, two.frame(TYPE_STREAM, a.address, b.address, bytes(size)))
        assert len(sent) == (size == 577)
    assert two.router.drops["mtu"] == 2


def test_routed_frame_never_goes_back(two: Desk) -> None:
    """Row 15: nor between two relays that point at each other."""
    a, _b = forwarding(two)
    two.put(0, two.macs[0], a.mac, two.frame(TYPE_MESSAGE, FAR, a.address, b"x"))
    assert two.router.drops["back"] == 1


def test_routed_frame_of_a_stranger_is_flooded_and_the_stranger_greeted(two: Desk) -> None:
    forwarding(two)
    frame = two.frame(TYPE_MESSAGE, FAR, mac_of(3), b"x", ttl=9)
    sent = two.put(0, two.macs[0], mac_of(50), frame)
    assert [(s.interface, s.destination, s.frame.ttl) for s in sent] == [
        (0, BROADCAST_ADDRESS, 8),
        (1, BROADCAST_ADDRESS, 8),
    ]
    assert [s for s in two.run(0.031) if s.interface == 0 and s.handshake]


@pytest.mark.parametrize("state", [HEARD, DEAD])
def test_routed_frame_of_a_neighbour_that_is_not_up_is_flooded(two: Desk, state: LinkState) -> None:
    a, b = forwarding(two)
    two.put(0, two.macs[0], a.mac, two.frame(TYPE_STREAM, a.address, b.address, b"x"))
    reach(two, a, state)
    sent = of_type(two.put(0, two.macs[0], a.mac, two.frame(TYPE_STREAM, a.address, b.address, b"x")), TYPE_STREAM)
    assert {s.destination for s in sent} == {BROADCAST_ADDRESS}


def test_routed_frame_without_a_route_is_flooded_and_retracted_at_most_ten_times_a_second(two: Desk) -> None:
    a, b = forwarding(two)
    two.hear(b, routes=[route(9)])
    two.run(0.1)
    two.hear(b, routes=[route(9, METRIC_UNREACHABLE)])
    two.run(0.1)
    sent = []
    for _ in range(100):
        sent += two.put(0, two.macs[0], a.mac, two.frame(TYPE_STREAM, a.address, mac_of(9), b"x"))
    naks = [s for s in sent if s.handshake]
    assert len(naks) == NAKS_PER_SECOND
    assert told(naks) == [Route(mac_of(9), BOOT_SEQ, METRIC_UNREACHABLE, 0)] * NAKS_PER_SECOND
    assert {(s.destination, s.frame.dest) for s in naks} == {(a.mac, a.address)}
    assert len(of_type(sent, TYPE_STREAM)) == 2 * LOST_FLOODS_PER_SECOND


def test_nak_makes_a_route_be_told_again_when_it_is_back(two: Desk) -> None:
    a, b = forwarding(two)
    told_on_reverse(two, b)
    two.hear(b, routes=[route(9, METRIC_UNREACHABLE)])
    two.put(0, two.macs[0], a.mac, two.frame(TYPE_STREAM, a.address, mac_of(9), b"x"))
    two.hear(b, routes=[route(9, 10)])  # before the retraction was told to all
    assert route(9, 20) in told(two.run(0.02), 0)


def told_on_reverse(desk: Desk, peer: Peer) -> None:
    desk.hear(peer, routes=[route(9, 10)])
    assert told(desk.run(0.02), 0) == [route(9, 20)]


def test_flood_is_relayed_once_within_4_ms_on_other_interfaces(two: Desk) -> None:
    a, _b = forwarding(two)
    frame = two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x", ttl=3)
    start = two.now
    assert two.put(0, BROADCAST_ADDRESS, a.mac, frame) == []
    (sent,) = two.run(0.005)
    assert sent.time - start <= 0.004
    assert (sent.interface, sent.destination, sent.frame) == (1, BROADCAST_ADDRESS, frame._replace(ttl=2))
    two.put(0, BROADCAST_ADDRESS, a.mac, frame)
    assert two.run(0.01) == []


def test_flood_with_ttl_0_is_taken_but_not_relayed(two: Desk) -> None:
    a, _b = forwarding(two)
    two.events()
    two.put(0, BROADCAST_ADDRESS, a.mac, two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x", ttl=0))
    assert two.run(0.01) == []
    assert len(two.events(MessageReceived)) == 1


def test_flood_is_not_relayed_where_nobody_is(two: Desk) -> None:
    (a,) = two.up(2)
    two.put(0, BROADCAST_ADDRESS, a.mac, two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x"))
    assert two.run(0.01) == []


def test_flood_is_relayed_where_it_came_from_only_if_somebody_there_missed_it(desk: Desk) -> None:
    a, b = desk.up(2, 3)
    desk.put(0, BROADCAST_ADDRESS, a.mac, desk.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x"))
    assert desk.run(0.005) == []
    desk.hear(b, heard=desk.lists_me(b))
    desk.run(0.5)
    desk.put(0, BROADCAST_ADDRESS, a.mac, desk.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x"))
    assert [s.interface for s in desk.run(0.005)] == [0]


def test_flood_relayed_by_another_is_cancelled_if_all_hear_that_one(two: Desk) -> None:
    (a,) = two.up(2)
    b, c, d = two.up(3, 4, 5, interface=1)
    frame = two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x")
    two.put(0, BROADCAST_ADDRESS, a.mac, frame)
    two.put(1, BROADCAST_ADDRESS, b.mac, frame)
    assert two.run(0.01) == []
    two.hear(d, heard=two.lists_me(d, c))  # d does not hear b any more
    two.run(0.5)
    frame = two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x")
    two.put(0, BROADCAST_ADDRESS, a.mac, frame)
    two.put(1, BROADCAST_ADDRESS, b.mac, frame)
    assert len(two.run(0.01)) == 1


def test_flood_storm_is_limited_to_200_a_second(two: Desk) -> None:
    """Row 16."""
    a, _b = forwarding(two)
    for _ in range(1000):
        two.put(0, BROADCAST_ADDRESS, a.mac, two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x"))
    assert len(two.run(0.01)) == FLOODS_PER_SECOND
    assert two.router.drops["limit"] == 1000 - FLOODS_PER_SECOND
    assert two.router.forwarder.relays == {}


def test_flood_for_a_node_with_a_route_goes_the_straight_way(two: Desk) -> None:
    a, b = forwarding(two)
    frame = two.frame(TYPE_MESSAGE, a.address, b.address, b"x", ttl=4)
    (sent,) = two.put(0, BROADCAST_ADDRESS, a.mac, frame)
    assert (sent.interface, sent.destination, sent.frame) == (1, b.mac, frame._replace(ttl=3, slot=NO_SLOT))


def test_flood_for_a_node_that_heard_it_is_dropped(desk: Desk) -> None:
    a, b = desk.up(2, 3)
    assert desk.put(0, BROADCAST_ADDRESS, a.mac, desk.frame(TYPE_MESSAGE, a.address, b.address, b"x")) == []
    assert desk.router.drops["heard"] == 1
    desk.hear(b, heard=desk.lists_me(b))
    (sent,) = of_type(
        desk.put(0, BROADCAST_ADDRESS, a.mac, desk.frame(TYPE_MESSAGE, a.address, b.address, b"x")), TYPE_MESSAGE
    )
    assert sent.destination == b.mac


# --- Echo ------------------------------------------------------------------------------------------------------------


def test_echo_is_routed_with_31_hops_and_its_answer_says_who_and_how_far(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9)])
    desk.events()
    token = desk.router.echo(mac_of(9), now=desk.now)
    (sent,) = desk.take()
    h = sent.handshake
    assert h is not None
    assert (sent.destination, sent.frame.dest, sent.frame.ttl, h.ttl0, h.flags) == (peer.mac, mac_of(9), 31, 31, 1)
    assert (h.token, h.heard, h.routes, h.requests, h.name, h.ports) == (token, None, (), (), None, None)
    desk.now += 0.02
    answer = Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, token, name="nine", ports=(1,))
    reply = desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, encode_handshake(answer), ttl=30)
    desk.put(0, ME, peer.mac, reply)
    desk.put(0, ME, peer.mac, reply)
    assert desk.events() == [Echoed(token, mac_of(9), 2, near(0.02), "nine", (1,))]
    (info,) = [info for info in desk.router.nodes() if info.address == mac_of(9)]
    assert (info.name, info.ports, info.rtt) == ("nine", (1,), near(0.02))
    assert len(desk.router.neighbours.all()) == 1


def echo_to_me(desk: Desk, origin: bytes, ttl: int) -> Frame:
    echo = Handshake(FLAG_PROBE, 31, 5.0, 1500, 9, BOOT_SEQ, 5, heard=(desk.me(),), routes=(route(9),))
    return desk.frame(TYPE_HANDSHAKE, origin, ME, encode_handshake(echo), ttl=ttl)


@pytest.mark.parametrize("ttl", [31, 30, 1])
def test_echo_for_us_is_answered_and_makes_no_neighbour(desk: Desk, ttl: int) -> None:
    desk.run(1)
    (sent,) = desk.put(0, ME, mac_of(4), echo_to_me(desk, mac_of(8), ttl))
    h = sent.handshake
    assert h is not None
    assert (sent.destination, sent.frame.dest, sent.frame.ttl, h.ttl0) == (mac_of(4), mac_of(8), 31, 31)
    assert (h.flags, h.token, h.name, h.ports) == (FLAG_REPLY, 5, "me", (1, 2))
    assert desk.router.neighbours.all() == []
    assert desk.hop(mac_of(9)) is None


def test_echo_whose_hops_are_used_up_is_answered_in_place_of_the_node_it_is_for(two: Desk) -> None:
    a, b = forwarding(two)
    two.run(1)
    echo = echo_to_me(two, a.address, 0)._replace(dest=b.address)
    (sent,) = two.put(0, two.macs[0], a.mac, echo)
    h = sent.handshake
    assert h is not None
    assert (sent.destination, sent.frame.dest, sent.frame.ttl, sent.frame.slot) == (a.mac, a.address, 31, NO_SLOT)
    assert (h.flags, h.token, h.ttl0, h.name, h.ports) == (FLAG_REPLY, 5, 31, "me", (1, 2))
    assert two.router.drops["ttl"] == 1
    for kind, payload in ((TYPE_HANDSHAKE, b""), (TYPE_MESSAGE, echo.payload), (TYPE_HANDSHAKE, b"\xa2")):
        assert two.put(0, two.macs[0], a.mac, two.frame(kind, a.address, b.address, payload, ttl=0)) == []
    answer = Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, 7)
    reply = two.frame(TYPE_HANDSHAKE, a.address, b.address, encode_handshake(answer), ttl=0)
    assert two.put(0, two.macs[0], a.mac, reply) == []
    assert sum(len(two.put(0, two.macs[0], a.mac, echo)) for _ in range(500)) < 110


def test_echo_of_few_hops_takes_the_answer_of_a_relay(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9)])
    desk.events()
    token = desk.router.echo(mac_of(9), now=desk.now, ttl=0)
    (sent,) = desk.take()
    assert (sent.frame.dest, sent.frame.ttl) == (mac_of(9), 0)
    assert sent.handshake is not None
    assert sent.handshake.ttl0 == 31
    desk.now += 0.01
    answer = encode_handshake(Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, token, name="two", ports=()))
    desk.put(0, ME, peer.mac, desk.frame(TYPE_HANDSHAKE, peer.address, ME, answer))
    assert desk.events() == [Echoed(token, peer.address, 1, near(0.01), "two", ())]


def test_echo_flood_is_limited_and_copies_are_answered_once(desk: Desk) -> None:
    desk.run(1)
    frame = echo_to_me(desk, mac_of(8), 30)
    assert len(desk.put(0, BROADCAST_ADDRESS, mac_of(4), frame)) == 1
    assert len(desk.put(0, BROADCAST_ADDRESS, mac_of(5), frame)) == 0
    sent = [s for _ in range(500) for s in desk.put(0, ME, mac_of(4), echo_to_me(desk, mac_of(8), 30))]
    assert len(sent) < 110


def test_echo_answers_nobody_asked_for_are_dropped(desk: Desk) -> None:
    answer = Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, 7)
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(8), ME, encode_handshake(answer)))
    assert desk.router.drops["echo"] == 1


def test_echoes_that_wait_are_bounded_and_forgotten(desk: Desk) -> None:
    for _ in range(2000):
        desk.router.echo(FAR, now=desk.now)
    assert len(desk.router.messages.echoes) == 1024
    desk.run(60 + SWEEP_SECONDS)
    assert desk.router.messages.echoes == {}


# --- v1.0 ------------------------------------------------------------------------------------------------------------


def test_v1_handshake_makes_a_neighbour_that_is_up(desk: Desk) -> None:
    desk.hear_v1(7)
    assert desk.events() == [NodeFound(mac_of(7), 1, 1500, "")]
    sent = desk.stream(mac_of(7))
    assert sent is not None
    assert sent.destination == mac_of(7)


@pytest.mark.parametrize(("ttl", "hops"), [(0, 6), (1, 5), (4, 2), (9, 1)])
def test_v1_handshake_that_was_relayed_makes_no_neighbour(desk: Desk, ttl: int, hops: int) -> None:
    desk.hear_v1(7, ttl=ttl)
    assert desk.router.neighbours.all() == []
    assert [(info.address, info.hops) for info in desk.router.nodes()] == [(mac_of(7), hops)]


def test_v1_handshake_is_relayed_to_other_interfaces(two: Desk) -> None:
    two.up(3, interface=1)
    two.hear_v1(7)
    (sent,) = [s for s in two.run(0.005) if s.frame.origin == mac_of(7)]
    assert (sent.interface, sent.frame.ttl, sent.handshake) == (1, 4, None)


def test_v1_neighbour_is_told_to_others_with_unix_time_over_64(two: Desk) -> None:
    two.up(3, interface=1)
    two.hear_v1(7)
    (offered,) = [r for r in told(two.run(0.02), 1) if r.dest == mac_of(7)]
    assert offered == Route(mac_of(7), BOOT_SEQ // V1_SEQ_SECONDS, 10, 1500)


def test_v1_neighbour_has_its_seq_raised_when_asked(two: Desk) -> None:
    (peer,) = two.up(3, interface=1)
    two.hear_v1(7)
    two.run(0.2)
    seq = BOOT_SEQ // V1_SEQ_SECONDS + 50
    sent = two.hear(peer, ttl0=0, requests=[Request(mac_of(7), seq, 64)])
    assert Route(mac_of(7), seq, 10, 1500) in told(sent, 1)


def test_v1_neighbour_is_probed_by_a_directed_handshake_and_its_empty_answer_counts(desk: Desk) -> None:
    desk.hear_v1(7)
    desk.run(0.2)
    desk.stream(mac_of(7))
    (probe,) = probes(desk.run(0.08))
    assert (probe.destination, probe.frame.dest) == (mac_of(7), mac_of(7))
    assert desk.router.neighbours.all()[0].state is PROBING
    sent = desk.hear_v1(7, dest=ME)
    assert desk.router.neighbours.all()[0].state is UP
    assert sent == []  # never within a second of our own


def test_v1_neighbour_that_died_is_found_out_like_any_other(desk: Desk) -> None:
    desk.hear_v1(7)
    desk.events()
    desk.run(9)
    assert desk.events() == [NodeLost(mac_of(7), "unreachable")]


def test_v1_directed_handshake_is_answered_once_a_second(desk: Desk) -> None:
    desk.hear_v1(7)
    desk.run(2)
    answers = []
    for _ in range(25):
        answers += desk.hear_v1(7, dest=ME)
        desk.now += 0.1001
    assert [round(s.time - 102, 1) for s in answers if s.frame.dest == mac_of(7)] == [0.0, 1.0, 2.0]
    assert {(s.destination, s.handshake and s.handshake.token) for s in answers} == {(mac_of(7), 0)}


def test_v1_node_becomes_v2_and_back(desk: Desk) -> None:
    desk.hear_v1(7)
    peer = Peer(7)
    desk.hear(peer)
    assert desk.state(peer) is HEARD
    desk.hear(peer, heard=desk.lists_me(peer))
    assert desk.state(peer) is UP
    desk.hear_v1(7)
    assert desk.state(peer) is UP
    assert desk.neighbour(peer).v1


def test_v1_echo_is_answered_by_its_empty_handshake(desk: Desk) -> None:
    desk.hear_v1(7)
    desk.hear_v1(8)
    desk.events()
    desk.run(2)
    token, other = (desk.router.echo(mac_of(number), now=desk.now) for number in (7, 8))
    desk.take()
    for number in (7, 8, 7, 8):
        assert desk.hear_v1(number, dest=ME) == []  # never within a second of our own
    assert desk.events() == [Echoed(token, mac_of(7), 1, 0.0, "", ()), Echoed(other, mac_of(8), 1, 0.0, "", ())]


def test_v1_far_echo_is_answered_by_its_relayed_empty_handshake(two: Desk) -> None:
    token = two.router.echo(mac_of(7), now=two.now)
    two.hear_v1(7, dest=ME, ttl=3)
    assert two.events() == [Echoed(token, mac_of(7), 3, 0.0, "", ())]


def test_v1_on_a_bus_may_have_missed_a_flood_so_one_repeats_it(desk: Desk) -> None:
    a, b = desk.up(2, 3)
    desk.hear_v1(7)
    desk.run(0.2)
    frame = desk.frame(TYPE_MESSAGE, a.address, mac_of(7), b"x", ttl=4)
    desk.put(0, BROADCAST_ADDRESS, a.mac, frame)
    assert [(s.destination, s.frame.ttl) for s in desk.run(0.005)] == [(BROADCAST_ADDRESS, 3)]
    frame = desk.frame(TYPE_MESSAGE, a.address, mac_of(7), b"x", ttl=4)
    desk.put(0, BROADCAST_ADDRESS, a.mac, frame)
    desk.put(0, BROADCAST_ADDRESS, b.mac, frame)  # another one did
    assert desk.run(0.005) == []


# --- Odd wiring ------------------------------------------------------------------------------------------------------


def own_greeting(desk: Desk, interface: int) -> bytes:
    """Return the next HANDSHAKE that the router sends on an interface, as bytes."""
    desk.router.announce(now=desk.now)
    return next(t.frame for t in desk.router.frames_to_send(now=desk.now) if t.interface == interface)


def test_two_interfaces_on_one_segment_flood_on_one_of_them(two: Desk) -> None:
    greeting = own_greeting(two, 0)
    two.router.receive(1, greeting, now=two.now)
    two.router.broadcast(b"x", now=two.now)
    assert [s.interface for s in two.take()] == [0]
    two.run(21)
    two.router.broadcast(b"x", now=two.now)
    assert [s.interface for s in of_type(two.take(), TYPE_BROADCAST)] == [0, 1]


def test_flood_that_arrives_on_the_shadow_is_not_repeated_on_the_same_segment(two: Desk) -> None:
    two.router.receive(1, own_greeting(two, 0), now=two.now)
    (a,) = two.up(2)
    two.up(2, interface=1)
    two.put(1, BROADCAST_ADDRESS, a.mac, two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x"))
    assert two.run(0.01) == []


def test_own_frames_that_come_back_on_the_same_interface_are_dropped() -> None:
    desk = Desk(loopback=True)
    assert desk.router.receive(0, own_greeting(desk, 0), now=desk.now) is None
    stream = encode_ethernet(bytes(6), bytes(6), encode_frame(desk.frame(TYPE_STREAM, ME, FAR, b"x")))
    for _ in range(3):
        assert desk.router.receive(0, stream, now=desk.now) is None
    assert desk.router.drops["own"] == 4
    assert desk.events() == []


def test_another_node_with_this_address_raises_an_alarm_every_ten_seconds(desk: Desk) -> None:
    """Rows 8 and 14."""
    twin = Peer(1)
    twin.mac = mac_of(66)
    for _ in range(25):
        desk.hear(twin)
        desk.run(1)
    assert desk.events() == [DuplicateAddress(mac_of(66))] * 3
    assert desk.router.neighbours.all() == []


def test_v1_node_with_this_address_raises_an_alarm(desk: Desk) -> None:
    desk.put(0, BROADCAST_ADDRESS, mac_of(66), desk.frame(TYPE_HANDSHAKE, ME, EVERYONE, bytes(23), ttl=TTL_V1))
    assert desk.events() == [DuplicateAddress(mac_of(66))]


def lo_peers(desk: Desk, *numbers: int) -> List[Peer]:
    peers = [Peer(number) for number in numbers]
    for peer in peers:
        peer.mac, peer.slot = bytes(6), NO_SLOT
    for peer in peers:
        desk.hear(peer, heard=desk.lists_me(peer, *peers))
    desk.run(0.2)
    return peers


def test_lo_nodes_share_a_mac_and_are_neighbours_each() -> None:
    desk = Desk(loopback=True, mtu=65536)
    a, b = lo_peers(desk, 2, 3)
    assert [desk.state(a), desk.state(b)] == [UP, UP]
    assert desk.router.mtu_to(a.address) == 1500  # what these say


def test_lo_frames_for_others_are_left_alone() -> None:
    desk = Desk(loopback=True)
    a, b = lo_peers(desk, 2, 3)
    for kind in (TYPE_STREAM, TYPE_MESSAGE, TYPE_STREAM):
        assert desk.put(0, bytes(6), bytes(6), desk.frame(kind, a.address, b.address, b"x")) == []
    desk.put(0, BROADCAST_ADDRESS, bytes(6), desk.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x"))
    desk.put(0, BROADCAST_ADDRESS, bytes(6), desk.frame(TYPE_MESSAGE, a.address, FAR, b"x"))
    assert desk.run(0.01) == []
    assert desk.router.drops["slot"] == 3


@pytest.mark.parametrize("known", [(2, 3), (2,)])
def test_lo_data_of_one_node_does_not_answer_for_another(known: Sequence[int]) -> None:
    desk = Desk(loopback=True)
    a, b = lo_peers(desk, *known)[0], Peer(3)
    desk.stream(a.address)
    for _ in range(2):
        data = encode_ethernet(bytes(6), bytes(6), encode_frame(desk.frame(TYPE_STREAM, b.address, ME, b"x")))
        desk.router.receive(0, data, now=desk.now)
    assert [s.frame.dest for s in probes(desk.run(0.08))] == [a.address]


@pytest.mark.parametrize("kind", [TYPE_MESSAGE, TYPE_STREAM])
@pytest.mark.parametrize("slot", range(8))
def test_routed_frame_is_forwarded_by_the_program_with_its_slot_only(kind: int, slot: int) -> None:
    """Also where a frame for this program opened the fast path."""
    two = Desk(2, slot=3)
    a, b = forwarding(two)
    b.slot = 5
    two.hear(b)
    far = mac_of(9)
    two.hear(b, routes=[route(9)])
    two.run(0.1)
    assert len(two.put(0, two.macs[0], a.mac, two.frame(kind, a.address, far, b"x", slot=3))) == 1
    for _ in range(2):
        sent = two.put(0, two.macs[0], a.mac, two.frame(kind, a.address, far, b"x", slot=slot))
        assert [(s.destination, s.frame.slot) for s in sent] == [(b.mac, 5)] * (slot == 3)
    assert two.router.drops["slot"] == (0 if slot == 3 else 2)


@pytest.mark.parametrize("slot", range(8))
def test_frame_for_this_node_is_taken_whatever_its_slot(desk: Desk, slot: int) -> None:
    (peer,) = desk.up(2)
    for _ in range(2):
        frame = encode_frame(desk.frame(TYPE_STREAM, peer.address, ME, b"data", slot=slot))
        incoming = desk.router.receive(0, encode_ethernet(ME, peer.mac, frame), now=desk.now)
        assert incoming == (peer.address, b"data")


def test_what_we_send_names_the_program_that_is_to_forward_it(desk: Desk) -> None:
    peer, other = Peer(2), Peer(3)
    peer.slot, other.slot, other.mac = 4, 6, peer.mac
    for each, metric in ((peer, 10), (other, 15)):
        desk.hear(each, heard=desk.lists_me(each), routes=[route(9, metric)])
    desk.run(0.2)
    sent = [desk.stream(mac_of(9)), desk.stream(peer.address), desk.stream(FAR)]
    assert [s.frame.slot for s in of_type(desk.take(), TYPE_STREAM)] == [0]  # the flooded one
    desk.hear(peer, routes=[route(9, METRIC_UNREACHABLE)])
    sent.append(desk.stream(mac_of(9)))
    assert [(s.destination, s.frame.slot) for s in sent if s is not None] == [
        (peer.mac, 4),
        (peer.mac, NO_SLOT),  # it is for itself
        (peer.mac, 6),
    ]


def test_neighbour_without_a_slot_is_reached_and_forwards_for_nobody(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9)])
    assert desk.hop(mac_of(9)) == peer.address
    peer.slot = NO_SLOT
    desk.hear(peer)
    assert (desk.hop(mac_of(9)), desk.hop(peer.address)) == (None, peer.address)
    peer.slot = 2
    desk.hear(peer)
    assert desk.hop(mac_of(9)) == peer.address


def test_node_without_a_slot_offers_no_route_and_forwards_nothing() -> None:
    two = Desk(2, slot=NO_SLOT)
    (a,) = two.up(2)
    (b,) = two.up(3, interface=1)
    two.hear(b, routes=[route(9)])
    assert told(two.run(6)) == []
    assert two.put(0, two.macs[0], a.mac, two.frame(TYPE_MESSAGE, a.address, mac_of(9), b"x", slot=NO_SLOT)) == []
    assert two.router.drops["slot"] == 1


def test_slot_is_said_in_every_handshake_but_echoes() -> None:
    desk = Desk(slot=5)
    (peer,) = desk.up(2)
    desk.router.echo(FAR, now=desk.now)
    sent = desk.take() + desk.hear(peer, FLAG_PROBE, ttl0=0, token=1) + desk.run(5)
    said = [(s.frame.ttl, s.frame.slot, s.handshake.slot) for s in sent if s.handshake]
    assert said == [(31, 0, 0), (0, 0, 5), (5, 0, 5)]


def test_program_that_says_the_slot_of_another_one_takes_its_place_at_once(desk: Desk) -> None:
    """The other one's lock was free: it has ended."""
    peer, other, third = Peer(2), Peer(3), Peer(4)
    other.mac = third.mac = peer.mac
    other.slot, third.slot = 1, 1
    for each in (peer, other):
        desk.hear(each, heard=desk.lists_me(each), routes=[route(each.address[-1] + 10)])
    assert desk.hop(mac_of(13)) == other.address
    desk.hear(third)
    assert [n.address for n in desk.router.neighbours.all()] == [peer.address, third.address]
    assert (desk.hop(mac_of(12)), desk.hop(mac_of(13))) == (peer.address, None)


def test_v1_program_takes_nobodys_place(desk: Desk) -> None:
    (peer,) = desk.up(2)
    v1 = Peer(3)
    frame = desk.frame(TYPE_HANDSHAKE, v1.address, EVERYONE, bytes(23), TTL_V1)
    desk.put(0, BROADCAST_ADDRESS, peer.mac, frame)
    assert {n.address for n in desk.router.neighbours.all()} == {peer.address, v1.address}
    sent = desk.stream(v1.address)
    assert sent is not None
    assert (sent.destination, sent.frame.slot) == (peer.mac, 0)


def test_without_locks_the_lowest_slot_is_taken_that_is_not_heard_on_our_card() -> None:
    desk = Desk(slot=None)
    peers = [Peer(number) for number in (2, 3)]
    for peer, slot in zip(peers, (0, 2)):
        peer.mac, peer.slot = ME, slot
        desk.hear(peer)
    first = [s.handshake for s in desk.run(0.19) if s.handshake]
    assert [h.slot for h in first] == [NO_SLOT] * len(first)
    later = [s.handshake for s in desk.run(0.3) if s.handshake]
    assert {h.slot for h in later} == {1, NO_SLOT} or {h.slot for h in later} == {1}
    assert later[-1].slot == 1
    assert later[-1].nonce != first[0].nonce  # nobody forwards for who has not heard of the slot


@pytest.mark.parametrize(("age", "slot"), [(-1, 1), (1, 0)])
def test_of_two_programs_with_one_slot_the_later_gives_way(desk: Desk, age: int, slot: int) -> None:
    desk.run(1)
    peer = Peer(2, seq=BOOT_SEQ + age)
    peer.mac = ME
    desk.hear(peer)
    greeting = desk.run(0.1)[-1].handshake
    assert greeting is not None
    assert greeting.slot == slot


def test_new_mac_is_used_at_once_and_transit_waits_until_it_is_listed(two: Desk) -> None:
    a, b = forwarding(two)
    two.macs[0] = mac_of(77)
    two.router.interface_changed(0, mac=mac_of(77), slot=2, now=two.now)
    (greeting,) = [s.handshake for s in two.run(0.031) if s.interface == 0 and s.handshake and s.frame.ttl == TTL_V1]
    assert greeting.slot == 2
    assert two.state(a) is HEARD
    frame = two.frame(TYPE_MESSAGE, a.address, b.address, b"x", slot=2)
    assert [s.destination for s in two.put(0, two.macs[0], a.mac, frame)] == [BROADCAST_ADDRESS]
    two.hear(a, heard=two.lists_me(a))
    frame = two.frame(TYPE_MESSAGE, a.address, b.address, b"x", slot=2)
    assert [s.destination for s in two.put(0, two.macs[0], a.mac, frame)] == [b.mac]


def test_neighbour_with_a_new_mac_is_reached_after_one_probe(desk: Desk) -> None:
    (peer,) = desk.up(2)
    peer.mac = mac_of(77)
    desk.hear(peer)
    desk.stream(peer.address)
    sent = probes(desk.run(0.2))
    assert [s.destination for s in sent] == [mac_of(2), mac_of(77), mac_of(77)]


def test_frame_for_another_program_of_our_card_is_not_sent_to_it_again(desk: Desk) -> None:
    (peer,) = desk.up(2)
    other = Peer(3)
    other.mac, other.slot = ME, 1
    desk.hear(other, heard=desk.lists_me(other))
    assert desk.put(0, ME, peer.mac, desk.frame(TYPE_MESSAGE, peer.address, other.address, b"x")) == []
    assert desk.router.drops["back"] == 1


@pytest.mark.parametrize("kind", [TYPE_MESSAGE, TYPE_STREAM])
def test_shared_mac_transit_only_if_all_who_use_it_are_up(two: Desk, kind: int) -> None:
    """Also on the fast path that was open before the other one came."""
    a, b = forwarding(two)
    other = Peer(5)
    other.mac, other.slot = a.mac, 1
    ways = []
    for _ in range(2):
        sent = two.put(0, two.macs[0], a.mac, two.frame(kind, FAR, b.address, b"x"))
        ways.append({s.destination for s in sent})
        two.hear(other)
    assert ways == [{b.mac}, {BROADCAST_ADDRESS}]


def test_shared_mac_one_that_leaves_keeps_the_others(desk: Desk) -> None:
    peer, other, third = Peer(2), Peer(3), Peer(4)
    other.mac = third.mac = peer.mac
    other.slot, third.slot = 1, 2
    for each in (peer, other):
        desk.hear(each, heard=desk.lists_me(each))
    desk.hear(third)
    desk.hear(third, FLAG_BYE, ttl0=0)
    assert [n.address for n in desk.router.local.interfaces[0].senders[peer.mac]] == [peer.address, other.address]
    desk.run(0.2)
    desk.stream(peer.address)
    assert [s.frame.dest for s in probes(desk.run(0.08))] == [peer.address]


# --- Bad input -------------------------------------------------------------------------------------------------------


def whole(desk: Desk, kind: int, origin: bytes, dest: bytes, destination: bytes = ME, **options: Any) -> bytes:
    return encode_ethernet(destination, mac_of(2), encode_frame(desk.frame(kind, origin, dest, b"data", **options)))


@pytest.mark.parametrize(
    ("kind", "origin", "dest", "destination", "reason"),
    [
        (TYPE_MESSAGE, mac_of(2), ME, mac_of(7), "foreign"),
        (TYPE_STREAM, mac_of(2), ME, EVERYONE, "foreign"),
        (TYPE_STREAM, mac_of(2), ME, b"\x01\x00\x5e\x00\x00\x01", "foreign"),
        (TYPE_STREAM, ME, ME, ME, "own"),
        (TYPE_MESSAGE, ME, mac_of(3), BROADCAST_ADDRESS, "own"),
        (TYPE_STREAM, EVERYONE, ME, ME, "origin"),
        (TYPE_MESSAGE, BROADCAST_ADDRESS, ME, ME, "origin"),
        (TYPE_STREAM, b"\x03" + bytes(5), ME, ME, "origin"),
        (TYPE_STREAM, mac_of(2), EVERYONE, ME, "dest"),
        (TYPE_STREAM, mac_of(2), EVERYONE, BROADCAST_ADDRESS, "dest"),
        (TYPE_STREAM, mac_of(2), BROADCAST_ADDRESS, ME, "dest"),
        (TYPE_STREAM, mac_of(2), BROADCAST_ADDRESS, BROADCAST_ADDRESS, "dest"),
        (TYPE_MESSAGE, mac_of(2), b"\x01" + bytes(5), BROADCAST_ADDRESS, "dest"),
        (0, mac_of(2), ME, ME, "type"),
        (6, mac_of(2), ME, ME, "type"),
        (255, mac_of(2), ME, ME, "type"),
    ],
)
def test_bad_addresses_are_dropped(
    desk: Desk, kind: int, origin: bytes, dest: bytes, destination: bytes, reason: str
) -> None:
    """Rows 5, 7 and 8."""
    desk.run(1)
    data = whole(desk, kind, origin, dest, destination)
    for _ in range(2):
        assert desk.router.receive(0, data, now=desk.now) is None
    assert set(desk.router.drops) <= {reason, "seen"}
    assert desk.router.drops[reason] >= 1
    assert desk.run(0.1) == []
    assert desk.events() == []


@pytest.mark.parametrize("size", [0, 1, 13, 14])
def test_frames_shorter_than_their_header_are_counted(desk: Desk, size: int) -> None:
    """Row 1."""
    desk.run(1)
    assert desk.router.receive(0, whole(desk, TYPE_MESSAGE, mac_of(2), ME)[:size], now=desk.now) is None
    assert sum(desk.router.drops.values()) == 1
    assert desk.run(0.1) == []


def test_group_source_is_dropped(desk: Desk) -> None:
    desk.put(0, ME, b"\x01" + bytes(5), desk.frame(TYPE_MESSAGE, FAR, ME, b"x"))
    assert desk.router.drops == {"origin": 1}


@pytest.mark.parametrize("version", [0, 2, 3, 255])
def test_other_versions_are_dropped(desk: Desk, version: int) -> None:
    """Row 5."""
    data = bytearray(whole(desk, TYPE_MESSAGE, mac_of(2), ME))
    data[14] = version
    desk.router.receive(0, bytes(data), now=desk.now)
    assert desk.router.drops == {"version": 1}


def test_node_id_is_accepted_as_mac_on_other_interfaces(two: Desk) -> None:
    two.put(1, ME, mac_of(4), two.frame(TYPE_MESSAGE, FAR, ME, b"x"))
    assert len(two.events(MessageReceived)) == 1


def test_every_truncation_is_survived(two: Desk) -> None:
    """Rows 1 and 2."""
    a, b = forwarding(two)
    handshake = Handshake(
        FLAG_PROBE | FLAG_FULL, 5, 5.0, 1500, 2, BOOT_SEQ, 9, two.lists_me(a), (route(9),), (Request(FAR, 1, 64),), "n"
    )
    frames = [two.frame(TYPE_HANDSHAKE, a.address, EVERYONE, encode_handshake(handshake), ttl=5)]
    frames += [
        two.frame(kind, a.address, dest, b"ACK:12") for kind in range(1, 6) for dest in (ME, b.address, EVERYONE)
    ]
    for frame in frames:
        for destination in (two.macs[0], BROADCAST_ADDRESS):
            data = encode_ethernet(destination, a.mac, encode_frame(frame))
            for size in range(len(data) + 1):
                two.router.receive(0, data[:size], now=two.now)
                two.now += 0.0001
    assert two.router.drops["short"] > 0


FIELDS = st.builds(
    Frame,
    st.integers(1, 5),
    st.sampled_from([mac_of(n) for n in range(1, 6)] + [EVERYONE, BROADCAST_ADDRESS]),
    st.sampled_from([mac_of(n) for n in range(1, 6)] + [EVERYONE, BROADCAST_ADDRESS]),
    st.sampled_from([0, 1, 4, 5, 30, 31]),
    st.integers(0, 5),
    st.binary(max_size=40),
    st.integers(0, 7),
)
ADDRESSES = st.sampled_from([mac_of(n) for n in range(1, 6)])
HANDSHAKES = st.builds(
    Handshake,
    st.integers(0, 15),
    st.sampled_from([0, 5, 31]),
    st.sampled_from([0.0, 0.1, 5.0, 25.5]),
    st.sampled_from([0, 1, 900, 1500, 9000, 65535]),
    st.integers(1, 3),
    st.sampled_from([0, 1, BOOT_SEQ, BOOT_SEQ + 1, SEQ_MAX]),
    st.integers(0, 3),
    st.one_of(st.none(), st.lists(st.builds(Heard, ADDRESSES, st.integers(0, 3)), max_size=4).map(tuple)),
    st.lists(
        st.builds(
            Route,
            ADDRESSES,
            st.sampled_from([0, 1, BOOT_SEQ, SEQ_MAX]),
            st.sampled_from([1, 10, 65534, 65535]),
            st.just(1500),
        ),
        max_size=4,
    ).map(tuple),
    st.lists(st.builds(Request, ADDRESSES, st.sampled_from([0, BOOT_SEQ, SEQ_MAX]), st.integers(0, 2)), max_size=3).map(
        tuple
    ),
    st.sampled_from([None, "", "n"]),
    st.sampled_from([None, (), (1, 2)]),
    st.sampled_from([0, 1, 30]),
    st.integers(0, 7),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.001, 0.05, 1.0, 10.0]),
            st.sampled_from([mac_of(1), mac_of(1, 1), BROADCAST_ADDRESS, mac_of(9)]),
            st.sampled_from([mac_of(2), mac_of(3), mac_of(1), mac_of(1, 1)]),
            st.one_of(FIELDS, st.tuples(FIELDS, HANDSHAKES)),
        ),
        max_size=40,
    )
)
def test_any_frames_in_any_order_never_raise_and_every_move_is_legal(story: List[Any]) -> None:
    desk = Desk(2)
    desk.router.local.nonce = 1  # within reach of the invented lists
    for pause, destination, source, what in story:
        desk.run(pause)
        frame = what
        if not isinstance(what, Frame):
            frame, handshake = what
            frame = frame._replace(type=TYPE_HANDSHAKE, payload=encode_handshake(handshake))
        data = encode_ethernet(destination, source, encode_frame(frame))
        desk.router.receive(len(story) % 2, data, now=desk.now)
    sent = desk.run(20)
    assert len(sent) < 300


@given(st.binary(max_size=80))
def test_any_bytes_never_raise(data: bytes) -> None:
    desk = Desk()
    desk.router.receive(0, data, now=desk.now)
    desk.router.receive(0, ME + mac_of(2) + ETHERTYPE.to_bytes(2, "big") + b"\x01" + data, now=desk.now)


def test_ten_thousand_routes_fill_a_bounded_table_and_leave_others_their_place() -> None:
    """Row 12."""
    desk = Desk(mtu=0xFFFF)
    a, b = desk.up(2, 3)
    desk.hear(b, routes=[route(9)])
    for first in (1000, 5000, 9000):
        desk.hear(a, routes=[route(n) for n in range(first, first + 4000)])
    assert len(desk.router.routes.table) <= DESTINATIONS_MAX
    assert desk.router.drops["destinations"] > 0
    assert desk.hop(mac_of(9)) == b.address
    desk.hear(b, routes=[route(n) for n in range(20000, 20100)])
    assert desk.hop(mac_of(20050)) == b.address
    assert desk.hop(a.address) == a.address
    assert len(desk.router.routes.table) <= DESTINATIONS_MAX


def test_table_full_of_what_is_in_use_takes_no_more() -> None:
    desk = Desk(mtu=0xFFFF)
    peers = desk.up(2, 3, 4)
    for first, peer in zip((1000, 3000, 5000), peers):
        desk.hear(peer, routes=[route(n) for n in range(first, first + 2000)])
    assert len(desk.router.routes.table) == DESTINATIONS_MAX
    for address in desk.router.routes.table:
        desk.router.send_stream(address, b"x", now=desk.now)
    desk.hear(peers[2], routes=[route(9999)])
    assert desk.hop(mac_of(9999)) is None
    desk.now += 10
    desk.hear(peers[2], routes=[route(9999)])
    assert desk.hop(mac_of(9999)) == peers[2].address


def test_fast_paths_are_bounded(desk: Desk) -> None:
    (peer,) = desk.up(2)
    for number in range(1000, 3100):
        data = encode_ethernet(ME, peer.mac, encode_frame(desk.frame(TYPE_STREAM, mac_of(number), ME, b"x")))
        desk.router.receive(0, data, now=desk.now)
    assert len(desk.router.local.interfaces[0].flows) <= 1024


def test_nodes_known_by_hearsay_and_asked_are_bounded(desk: Desk) -> None:
    for number in range(1000, 1000 + DESTINATIONS_MAX + 100):
        desk.hear_v1(number, ttl=3)
        desk.hear_v1(number, dest=ME, ttl=3)
    assert len(desk.router.neighbours.indirect_nodes) == DESTINATIONS_MAX
    assert len(desk.router.neighbours.asked_at) <= DESTINATIONS_MAX
    desk.run(25.0)
    desk.hear_v1(1000, ttl=3)
    desk.run(6.0)  # what was not heard again is forgotten
    assert [info.address for info in desk.router.nodes()] == [mac_of(1000)]


def test_repeated_routes_cost_no_more_than_one(desk: Desk) -> None:
    """Row 12."""
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[route(9, 10 + n) for n in range(90)])
    assert len(desk.router.routes.table) == 2
    path = desk.router.path_to(mac_of(9))
    assert path is not None
    assert path.metric == 109


@pytest.mark.parametrize("bad", [route(2), Route(EVERYONE, 1, 10, 1500), Route(BROADCAST_ADDRESS, 1, 10, 1500)])
def test_routes_to_the_sender_or_to_no_node_are_dropped(desk: Desk, bad: Route) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, routes=[bad])
    assert desk.router.drops["route"] == 1
    assert len(desk.router.routes.table) == 1


@pytest.mark.usefixtures("everybody_may_come")
def test_six_hundred_forged_neighbours_do_not_displace_those_that_are_up() -> None:
    desk = Desk()
    (peer,) = desk.up(2)
    for number in range(1000, 1600):
        desk.hear(Peer(number))
        desk.hear_v1(number + 1000)
    assert len(desk.router.neighbours.all()) == NEIGHBOURS_MAX
    assert desk.state(peer) is UP


@pytest.mark.usefixtures("everybody_may_come")
def test_more_neighbours_than_fit_are_dropped() -> None:
    desk = Desk()
    for number in range(1000, 1000 + NEIGHBOURS_MAX):
        peer = Peer(number)
        desk.hear(peer, heard=desk.lists_me(peer))
    desk.hear(Peer(2))
    assert desk.router.drops["neighbours"] == 1


def test_interval_of_zero_means_the_usual_one(desk: Desk) -> None:
    (peer,) = desk.up(2)
    desk.hear(peer, interval=0.0)
    assert len(probes(desk.run(5))) == 0


def test_requests_for_us_are_answered_in_bounds(desk: Desk) -> None:
    (peer,) = desk.up(2)
    sent = []
    for n in range(1000):
        sent += desk.hear(peer, ttl0=0, requests=[Request(ME, BOOT_SEQ + n, 64)])
        desk.now += 0.0001
    assert len(sent) < 30


def test_idle_router_needs_few_words() -> None:
    """The control load, by size: at five nodes on a segment about 14 bytes a second each, Ethernet header included."""
    desk = Desk()
    peers = desk.up(2, 3, 4, 5)
    sent = []
    for _ in range(120):
        desk.run(0.0)
        sent += desk.run(4.75)
        desk.alive(*peers)
    size = sum(14 + len(encode_frame(s.frame)) for s in sent if s.destination == BROADCAST_ADDRESS)
    assert len(sent) / 570 <= 0.22
    assert size / 570 <= 14.2


# --- Slots where locks cannot be had ---------------------------------------------------------------------------------


def on_our_card(desk: Desk, *slots: int) -> List[Peer]:
    """Other programs on our card, with these slots, older than we are."""
    peers = [Peer(number, seq=BOOT_SEQ - number) for number in range(2, 2 + len(slots))]
    for peer, slot in zip(peers, slots):
        peer.mac, peer.slot = ME, slot
        desk.hear(peer)
    return peers


def said_slot(sent: Sequence[Sent]) -> int:
    return [s.handshake.slot for s in sent if s.handshake and s.frame.ttl == TTL_V1][-1]


def test_eighth_program_on_a_card_has_no_slot() -> None:
    desk = Desk(slot=None)
    nonce = desk.router.local.nonce
    on_our_card(desk, *range(7))
    assert said_slot(desk.run(0.5)) == NO_SLOT
    assert desk.router.local.nonce == nonce


def test_slot_that_is_lost_again_at_once_forwards_nothing() -> None:
    desk = Desk(slot=None)
    (wire,) = desk.router.local.interfaces
    while wire.slot == NO_SLOT:
        desk.run(0.01)
    assert (wire.slot, wire.relays) == (0, False)
    on_our_card(desk, 0)
    assert (wire.slot, wire.relays) == (1, False)
    desk.run(0.2)
    assert wire.relays
    assert said_slot(desk.run(6)) == 1


def test_new_mac_without_a_lock_takes_the_lowest_slot_that_is_not_heard_there() -> None:
    desk = Desk(slot=3)
    desk.up(5)
    desk.macs[0] = mac_of(77)
    other = Peer(2)
    other.mac = mac_of(77)
    desk.hear(other)
    nonce = desk.router.local.nonce
    desk.router.interface_changed(0, mac=mac_of(77), now=desk.now)
    assert said_slot(desk.run(0.1)) == 1
    assert desk.router.local.nonce != nonce


def test_mtu_of_lo_may_change() -> None:
    desk = Desk(loopback=True, mtu=65536)
    (peer,) = lo_peers(desk, 2)
    peer.mtu = 65535
    desk.hear(peer)
    desk.router.interface_changed(0, mtu=9000, now=desk.now)
    assert desk.router.mtu_to(peer.address) == 9000


def test_nodes_that_were_asked_are_forgotten_when_they_are_too_many(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constants.DESTINATIONS_MAX", 10)
    for number in range(100, 130):
        desk.router.echo(mac_of(number), now=desk.now)
    assert len(desk.router.neighbours.asked_at) <= 10
