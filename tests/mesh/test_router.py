"""The whole router: bad input, full tables, timers; one node at a desk."""

from typing import Any, List

import pytest
from desk import (
    FAR,
    ME,
    UP,
    Desk,
    Peer,
    asked,
    forwarding,
    lo_peers,
    near,
    of_type,
    offer,
    probes,
    route,
    rtt_of,
    told,
    whole,
)
from hypothesis import given, strategies as st
from meshsim import BOOT_SEQ, mac_of

from constants import (
    BROADCAST_ADDRESS,
    DESTINATIONS_MAX,
    ETHERTYPE,
    EVERYONE,
    FLAG_BYE,
    FLAG_FULL,
    FLAG_PROBE,
    FLAG_REPLY,
    METRIC_UNREACHABLE,
    NEIGHBOURS_MAX,
    SEQ_MAX,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STREAM,
)
from protocol import (
    Frame,
    Handshake,
    Heard,
    LinkState,
    MessageReceived,
    NodeLost,
    Request,
    Route,
    encode_ethernet,
    encode_frame,
    encode_handshake,
)

# --- Bad input --------------------------------------------------------------------------------------------------------


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
    desk.run(1)
    assert desk.router.receive(0, whole(desk, TYPE_MESSAGE, mac_of(2), ME)[:size], now=desk.now) is None
    assert sum(desk.router.drops.values()) == 1
    assert desk.run(0.1) == []


def test_group_source_is_dropped(desk: Desk) -> None:
    desk.put(0, ME, b"\x01" + bytes(5), desk.frame(TYPE_MESSAGE, FAR, ME, b"x"))
    assert desk.router.drops == {"origin": 1}


@pytest.mark.parametrize("version", [0, 2, 3, 255])
def test_other_versions_are_dropped(desk: Desk, version: int) -> None:
    data = bytearray(whole(desk, TYPE_MESSAGE, mac_of(2), ME))
    data[14] = version
    desk.router.receive(0, bytes(data), now=desk.now)
    assert desk.router.drops == {"version": 1}


def test_node_id_is_accepted_as_mac_on_other_interfaces(two: Desk) -> None:
    two.put(1, ME, mac_of(4), two.frame(TYPE_MESSAGE, FAR, ME, b"x"))
    assert len(two.events(MessageReceived)) == 1


def test_every_truncation_is_survived(two: Desk) -> None:
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


def test_node_known_by_hearsay_has_no_name() -> None:
    desk = Desk()
    desk.hear_v1(7, ttl=3)
    (info,) = desk.router.nodes()
    assert (info.address, info.hops, info.name, info.ports, info.rtt) == (mac_of(7), 3, "", (), None)


def test_card_that_takes_less_than_it_did_is_sent_no_more_than_that() -> None:
    """Even where the fast path is open, and what the neighbour takes is less still."""
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1, mtu=400)
    desk.hear(three, routes=(route(99, mtu=400),))
    desk.run(0.1)
    frame = desk.frame(TYPE_STREAM, two.address, FAR, bytes(1000))
    assert [len(desk.put(0, desk.macs[0], two.mac, frame)) for _ in range(2)] == [1, 1]
    desk.router.interface_changed(1, mtu=500, now=desk.now)
    assert desk.put(0, desk.macs[0], two.mac, frame) == []
    assert desk.router.drops["mtu"] == 1


def test_node_that_left_and_came_back_may_be_lost_like_any_other() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, flags=FLAG_BYE)
    desk.run(0.6)
    two.nonce = 77
    desk.hear(two, heard=desk.lists_me(two))
    desk.events()
    desk.router.interface_changed(0, up=False, now=desk.now)
    desk.run(0.9)
    assert desk.events(NodeLost) == []
    desk.run(0.2)
    assert desk.events(NodeLost) == [NodeLost(two.address, "unreachable")]


def test_round_trip_is_none_until_measured_then_smoothed_by_an_eighth() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    rtts = [rtt_of(desk)]
    for seconds in (0.008, 0.016):
        desk.router.hint(two.address, now=desk.now)
        (question,) = probes(desk.take())
        assert question.handshake is not None
        desk.now += seconds
        desk.hear(two, FLAG_REPLY, ttl0=0, token=question.handshake.token)
        rtts.append(rtt_of(desk))
    assert rtts == [None, near(0.008), near(0.009)]


def test_reply_to_no_question_of_ours_revives_nobody() -> None:
    """Also while all are asked at once."""
    desk = Desk()
    (two,) = desk.up(2)
    desk.run(8.0)
    assert desk.state(two) is LinkState.DEAD
    desk.router.announce(now=desk.now)
    (question,) = [s.handshake for s in desk.take() if s.handshake and s.frame.ttl == TTL_V1]
    desk.hear(two, FLAG_REPLY, ttl0=0, token=question.token ^ 1)
    assert desk.state(two) is LinkState.DEAD
    desk.hear(two, FLAG_REPLY, ttl0=0, token=question.token)
    assert desk.state(two) is LinkState.UP


# --- Full tables ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_node_that_has_to_make_room_in_a_full_table_is_told_as_lost() -> None:
    """To the application once, though its route was gone a moment before; to others by a retraction."""
    desk = Desk(2)
    two, three = desk.up(2, 3)
    desk.up(4, interface=1)
    silent = Peer(5)  # that does not hear us
    desk.hear(silent)
    offer(desk, two, 1000)
    offer(desk, three, 2000)
    desk.run(0.1)
    desk.hear(two, routes=(route(1000, metric=METRIC_UNREACHABLE),))
    desk.stream(mac_of(1001))
    desk.run(0.1)
    desk.now += 0.95
    desk.events()
    desk.hear(silent, routes=[route(number) for number in (3000, 3001, 3002)])
    desk.run(0.0)
    assert desk.events(NodeLost) == [NodeLost(mac_of(number), "unreachable") for number in (1000, 1001)]
    assert told(desk.run(0.011), 1) == [route(1001, METRIC_UNREACHABLE, 0, 0)]
    assert desk.stream(mac_of(1001)) is None
    desk.run(2.0)
    assert {mac_of(1000), mac_of(1001)}.isdisjoint(event.address for event in desk.events(NodeLost))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("how", ["retracted", "in want of room"])
def test_half_of_a_full_table_is_a_neighbours_share_of_what_it_offers_now(how: str) -> None:
    """Not of what it ever did."""
    desk = Desk()
    two, three, four = desk.up(2, 3, 4)
    offer(desk, two, 1000)
    offer(desk, three, 2000)
    assert len(offer(desk, four, 3000)) == 19
    if how == "retracted":
        desk.hear(four, routes=[route(number, metric=METRIC_UNREACHABLE) for number in range(3000, 3018)])
        two = four
    assert len(offer(desk, two, 4000, 40)) == 20


@pytest.mark.usefixtures("small")
def test_neighbours_forgotten_before_their_time_are_forgotten_once() -> None:
    """Their timers are still set: by its carrier's loss, or for want of room."""
    desk = Desk(2)
    desk.up(2, interface=1)
    desk.hear(Peer(3, 1))
    desk.router.interface_changed(1, up=False, now=desk.now)
    for number in range(10, 19):
        desk.hear_v1(number)
        desk.now += 1
    desk.run(40.0)
    assert desk.router.neighbours.all() == []


@pytest.mark.usefixtures("small")
def test_room_for_a_neighbour_is_made_by_who_is_not_up_then_by_v1_nodes_the_longest_silent_first() -> None:
    desk = Desk()
    peers = [Peer(number) for number in range(2, 6)]
    for peer in peers:
        desk.hear(peer, heard=desk.lists_me(peer))
    for number in (10, 11):
        desk.now += 0.01
        desk.hear_v1(number)
    for number in (12, 13):
        desk.now += 0.01
        desk.hear(Peer(number))
    left = []
    for number in range(20, 25):
        before = {n.address for n in desk.router.neighbours.all()}
        desk.now += 0.01
        peer = Peer(number)
        desk.hear(peer, heard=desk.lists_me(peer))
        left.append(before - {n.address for n in desk.router.neighbours.all()})
    assert left == [{mac_of(12)}, {mac_of(13)}, {mac_of(10)}, {mac_of(11)}, set()]
    assert desk.router.drops["neighbours"] == 1


@pytest.mark.parametrize("routed", [True, False])
def test_on_lo_no_flood_is_passed_on_whoever_sent_it(routed: bool) -> None:
    """Another program may send with its node id there: nobody lists that, yet everybody hears it."""
    desk = Desk(loopback=True)
    _two, three = lo_peers(desk, 2, 3)
    kind, dest = (TYPE_MESSAGE, three.address) if routed else (TYPE_BROADCAST, EVERYONE)
    assert desk.put(0, BROADCAST_ADDRESS, FAR, desk.frame(kind, FAR, dest, b"x")) == []
    assert of_type(desk.run(0.05), kind) == []


def test_neighbour_that_comes_back_with_another_card_owes_no_answer_to_what_was_sent_before() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.stream(two.address)
    question = probes(desk.run(0.3))[-1].handshake
    assert question is not None
    assert desk.state(two) is LinkState.DEAD
    two.mac = mac_of(77)
    desk.hear(two, FLAG_REPLY, ttl0=0, token=question.token, heard=desk.lists_me(two))
    assert desk.state(two) is LinkState.UP
    assert probes(desk.run(1.0)) == []


def test_bye_that_comes_again_on_another_interface_does_not_make_the_grace_longer() -> None:
    desk = Desk(2)
    (two,) = desk.up(2)
    desk.hear(two, routes=(route(99),))
    desk.hear(two, flags=FLAG_BYE)
    desk.run(0.4)
    desk.hear(Peer(2, interface=1), flags=FLAG_BYE)
    assert desk.hop(FAR) == two.address
    desk.run(0.2)
    assert desk.hop(FAR) is None


def test_way_that_is_suspect_for_long_is_asked_for_again_when_another_is_heard() -> None:
    """A slow link's probes take seconds; the first four REQUESTs were lost."""
    desk = Desk(2)
    two, three = desk.up(2, 3)
    desk.up(4, interface=1)
    desk.hear(two, routes=(route(99),))
    desk.run(0.1)  # told with metric 20
    desk.hear(three, routes=(route(99, metric=30),))
    desk.router.announce(now=desk.now)
    question = next(s.handshake for s in desk.take() if s.handshake and s.handshake.flags & FLAG_PROBE)
    desk.run(1.0)
    desk.hear(two, FLAG_REPLY, ttl0=0, token=question.token)
    desk.router.hint(two.address, now=desk.now)
    desk.run(3.9)
    desk.alive(three)
    desk.stream(FAR)
    sent = []
    for _ in range(4):  # suspect for 8 s
        sent += desk.run(0.5)
        desk.stream(FAR)
    assert desk.state(two) is LinkState.SUSPECT
    assert [r.dest for r in asked(sent)] == [FAR] * 4
    assert [r.dest for r in asked(desk.hear(three, routes=(route(99, metric=30),)) + desk.run(0.02))] == [FAR]


def test_v1_neighbour_is_asked_by_the_fixed_part_alone() -> None:
    """It hears no incarnation of anybody, so a list of whom we hear means nothing to it."""
    desk = Desk()
    desk.hear_v1(7)
    desk.run(1.0)
    desk.router.hint(mac_of(7), now=desk.now)
    (probe,) = probes(desk.take())
    assert probe.handshake is not None
    assert probe.handshake.heard is None


def test_nodes_that_are_back_at_once_when_this_one_was_stopped_for_long_are_not_told_as_lost() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    for _ in range(7):
        desk.hear(two, routes=(route(99),))
        desk.run(5.0)
    desk.events()
    desk.now += 700.0  # SIGSTOP
    desk.take()
    desk.hear(two, heard=desk.lists_me(two), routes=(route(99),))
    desk.run(3.0)
    assert desk.hop(FAR) == two.address
    assert desk.events(NodeLost) == []


def test_what_was_told_after_a_long_stop_forbids_what_might_loop() -> None:
    """The first HANDSHAKE then still offers the old way: who hears it, and not the retraction, relies on us."""
    desk = Desk(2)
    (two,), (four,) = desk.up(2), desk.up(4, interface=1)
    for _ in range(8):
        desk.run(5.0)
        desk.hear(two, interval=25.0, routes=(route(99),))
        desk.hear(four, interval=25.0)
    desk.now += 700.0  # SIGSTOP
    assert route(99, metric=20) in told(desk.take(), 1)
    for _ in range(8):
        desk.run(5.0)
        desk.hear(four, heard=desk.lists_me(four), routes=(route(99, metric=40),))
    assert desk.hop(FAR) is None
