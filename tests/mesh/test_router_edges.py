"""More of test_router.py: what mutation showed to be untested. One rule a test."""

import random
from typing import Any, List, Optional, Sequence, Set

import pytest
from meshsim import BOOT_SEQ, mac_of
from test_router import FAR, ME, Desk, Peer, Sent, asked, lo_peers, near, of_type, probes, route, told

from constants import (
    BROADCAST_ADDRESS,
    CONFIRM_SECONDS,
    EVERYONE,
    FLAG_BYE,
    FLAG_FULL,
    FLAG_PROBE,
    FLAG_REPLY,
    METRIC_UNREACHABLE,
    SEQ_JUMP_MAX,
    SEQ_MAX,
    SWEEP_SECONDS,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STREAM,
)
from protocol import (
    PAYLOAD_OFFSET,
    Echoed,
    Handshake,
    Heard,
    InterfaceConfig,
    LinkState,
    MessageReceived,
    NodeLost,
    Request,
    Route,
    RouteChanged,
    Router,
    decode_handshake,
    encode_ethernet,
    encode_frame,
    encode_handshake,
)


def test_interface_that_is_up_already_and_says_so_again_floods_once() -> None:
    desk = Desk()
    desk.up(2)
    desk.router.interface_changed(0, up=True, now=desk.now)
    desk.router.broadcast(b"text", now=desk.now)
    assert len(of_type(desk.take(), TYPE_BROADCAST)) == 1


def test_route_that_only_a_leaver_needed_is_retracted_when_it_is_gone() -> None:
    """3 did not hear 2, the way to FAR; after its BYE and half a second of grace nobody here needs that route of us."""
    desk = Desk()
    two, three = desk.up(2)[0], desk.up(3)[0]
    desk.hear(two, heard=desk.lists_me(two), routes=(route(99),))
    desk.hear(three, heard=desk.lists_me(three))
    assert [r.metric for r in told(desk.run(0.3)) if r.dest == FAR] == [20]
    desk.hear(three, flags=FLAG_BYE)
    sent = desk.run(0.6)
    assert route(99, metric=METRIC_UNREACHABLE, mtu=0) in told(sent)


def test_routes_and_requests_leave_in_one_frame() -> None:
    """What 2 now says of FAR is worse than was told, so a newer number is asked for; 3 does not hear 2, and is told."""
    desk = Desk()
    two, three = desk.up(2)[0], desk.up(3)[0]
    desk.hear(two, heard=desk.lists_me(two), routes=(route(99), route(98)))
    desk.hear(three, heard=desk.lists_me(three))
    desk.run(0.3)
    desk.hear(two, routes=(route(99, metric=50), route(97)))
    (frame,) = [s for s in desk.run(0.05) if asked([s])]
    assert [r.dest for r in asked([frame])] == [FAR]
    assert sorted((r.dest, r.metric) for r in told([frame])) == [(mac_of(97), 20), (FAR, METRIC_UNREACHABLE)]


def test_echo_is_not_answered_by_another_node() -> None:
    """It may have seen the token on its way."""
    desk = Desk()
    token = desk.router.echo(mac_of(9), now=desk.now)
    answer = encode_handshake(Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, token))
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(8), ME, answer, ttl=30))
    assert desk.events(Echoed) == []
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, answer, ttl=30))
    assert [event.address for event in desk.events(Echoed)] == [mac_of(9)]


@pytest.mark.parametrize("is_greeted", [False, True])
def test_newcomer_is_told_the_whole_table_by_a_full_handshake(is_greeted: bool) -> None:
    """One frame greets it, lists it and says that there are no other routes; also if it was greeted before."""
    desk = Desk(2)
    (two,) = desk.up(2)
    desk.hear(two, routes=(route(99),))
    desk.up(3, interface=1)
    desk.run(1.0)
    newcomer = Peer(4, 1)
    if is_greeted:
        desk.hear(newcomer)
        desk.run(0.05)
    desk.hear(newcomer, heard=desk.lists_me(newcomer))
    frames = [s for s in desk.run(0.05) if FAR in [r.dest for r in told([s], 1)]]
    assert [(s.frame.ttl, s.handshake.flags & FLAG_FULL) for s in frames if s.handshake] == [(TTL_V1, FLAG_FULL)]


@pytest.mark.parametrize(("ttl", "hops"), [(31, 1), (30, 2), (21, 11)])
def test_echo_counts_hops_by_the_ttl_that_is_left(ttl: int, hops: int) -> None:
    desk = Desk()
    token = desk.router.echo(mac_of(9), now=desk.now)
    answer = encode_handshake(Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, token))
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, answer, ttl=ttl))
    assert [(event.hops, event.name, event.ports) for event in desk.events(Echoed)] == [(hops, "", ())]


def test_who_said_bye_is_listed_no_more() -> None:
    desk = Desk()
    two, three = desk.up(2, 3)
    desk.hear(two, flags=FLAG_BYE)
    newcomer = Peer(4)
    desk.hear(newcomer)
    lists = listed(desk.run(0.1))
    assert {three.mac, newcomer.mac} in lists
    assert not any(two.mac in macs for macs in lists)


def listed(sent: Sequence[Sent]) -> List[Set[bytes]]:
    """Whom each HANDSHAKE to everyone lists as heard, where it says so."""
    greetings = [s.handshake for s in sent if s.handshake and s.frame.ttl == TTL_V1]
    return [{tag.mac for tag in h.heard} for h in greetings if h.heard]


def test_neighbour_that_restarted_is_greeted_at_once() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.run(1.0)
    two.nonce = 77
    desk.hear(two)
    greetings = [s.handshake for s in desk.run(0.04) if s.handshake and s.frame.ttl == TTL_V1]
    assert [h.heard for h in greetings] == [(Heard(two.mac, 77),)]


def test_echo_that_asks_nothing_is_not_answered() -> None:
    desk = Desk()
    desk.run(1.0)
    payload = encode_handshake(Handshake(0, 31, 5.0, 1500, 9, BOOT_SEQ, 5))
    assert desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, payload, ttl=30)) == []


def test_router_that_left_has_nothing_to_do() -> None:
    desk = Desk()
    desk.up(2)
    desk.router.leave(now=desk.now)
    desk.take()
    desk.router.tick(now=desk.now + 100)
    assert desk.router.next_deadline() is None
    assert desk.take() == []


def test_v1_newcomer_is_greeted_at_once_and_listed() -> None:
    desk = Desk()
    desk.up(2)
    desk.run(1.0)
    desk.hear_v1(7)
    assert [mac_of(7) in macs for macs in listed(desk.run(0.04))] == [True]


def test_large_frames_go_as_far_as_both_cards_take_them() -> None:
    """The neighbour's takes 9000 bytes, ours 4000: so large is the padded question, and so large the frames then."""
    desk = Desk(mtu=4000)
    two = Peer(2, mtu=9000)
    sent = desk.answer(two, desk.hear(two, heard=desk.lists_me(two)))
    (question,) = [s for s in sent if s.handshake and s.handshake.pad]
    assert question.handshake is not None
    assert 23 + len(question.frame.payload) == 4000
    assert desk.router.mtu_to(two.address) == 1500
    desk.hear(two, FLAG_REPLY, ttl0=0, token=question.handshake.token)
    assert desk.router.mtu_to(two.address) == 4000


def test_flooded_stream_frame_is_taken_once() -> None:
    desk = Desk(2)
    frame = encode_frame(desk.frame(TYPE_STREAM, mac_of(9), ME, b"segment"))
    heard = [
        desk.router.receive(interface, encode_ethernet(BROADCAST_ADDRESS, mac_of(4), frame), now=desk.now)
        for interface in (0, 1, 0)
    ]
    assert [incoming and incoming.payload for incoming in heard] == [b"segment", None, None]


def test_echo_repeated_the_straight_way_is_answered_again() -> None:
    """Only of a flood there may be copies."""
    desk = Desk()
    desk.run(1.0)
    payload = encode_handshake(Handshake(FLAG_PROBE, 31, 5.0, 1500, 9, BOOT_SEQ, 5))
    frame = desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, payload, ttl=30)
    assert [len(desk.put(0, ME, mac_of(4), frame)) for _ in range(2)] == [1, 1]


def test_restarted_neighbour_has_missed_nothing_yet() -> None:
    """Two HANDSHAKEs missed make a hop cost 20; its next life begins with 10, and goes on so."""
    desk = Desk()
    (two,) = desk.up(2)
    for pause in (4.9, 9.8, 9.8):
        for _ in range(int(pause / 4.9) - 1):
            desk.run(4.9)
            desk.hear(two, ttl0=0)  # what is directed does not count
        desk.run(4.9)
        desk.alive(two)
    assert cost(desk, two) == 20
    two.nonce = 77
    for _ in range(3):
        desk.hear(two, heard=desk.lists_me(two))
        assert cost(desk, two) == 10
        desk.run(5.0)


@pytest.mark.parametrize("payload", [b"", b"text"])
def test_own_broadcast_that_comes_back_is_no_other_node(payload: bytes) -> None:
    desk = Desk()
    desk.put(0, BROADCAST_ADDRESS, mac_of(4), desk.frame(TYPE_BROADCAST, ME, EVERYONE, payload, ttl=TTL_V1))
    assert desk.events() == []
    assert desk.router.drops == {"own": 1}


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


def test_name_that_is_no_unicode_is_told_as_well_as_may_be() -> None:
    router = Router(
        ME, [InterfaceConfig("e0", mac_of(1), 1500, False)], rng=random.Random(1), now=0.0, seq=1, name="x\udcff"
    )
    router.announce(now=1.0)
    names = [decode_handshake(data[37:]) for _, data in router.frames_to_send(now=1.0)]
    assert [h.name for h in names if h] == ["x?"]


def test_stream_frames_in_transit_take_the_fast_path_from_the_second_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """All other kinds go the long way each time."""
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    slow: List[int] = []
    receive = desk.router._receive

    def receive_slowly(*arguments: Any) -> Any:
        slow.append(1)
        return receive(*arguments)

    monkeypatch.setattr(desk.router, "_receive", receive_slowly)
    for kind, most in ((TYPE_STREAM, 1), (TYPE_MESSAGE, 3)):
        slow.clear()
        for _ in range(3):
            assert len(desk.put(0, desk.macs[0], two.mac, desk.frame(kind, two.address, FAR, b"data"))) == 1
        assert len(slow) == most


def test_request_is_answered_for_a_v1_neighbour_and_kept_to() -> None:
    """Who asks gets the number that it asked for; the next HANDSHAKE of the v1.0 node does not take it back."""
    desk = Desk(2)
    (two,) = desk.up(2, interface=1)
    desk.hear_v1(7)
    desk.run(0.1)
    high = (BOOT_SEQ >> 6) + 1000
    desk.hear(two, requests=(Request(mac_of(7), SEQ_MAX, 5),))
    assert told(desk.run(0.1), 1) == []  # nobody moves a number so far
    sent = desk.hear(two, requests=(Request(mac_of(7), high, 5),)) + desk.run(0.1)
    assert [r.seq for r in told(sent, 1) if r.dest == mac_of(7)] == [high]
    desk.hear_v1(7)
    assert {r.seq for r in told(desk.run(6.0), 1) if r.dest == mac_of(7)} <= {high}
    assert desk.hop(mac_of(7)) == mac_of(7)


def test_neighbour_that_lists_thousands_is_believed_some() -> None:
    """The lists of one moment are one list, up to a bound."""
    desk = Desk()
    (two,) = desk.up(2)
    desk.run(1.0)
    for first in range(1000, 5000, 100):
        desk.hear(two, heard=tuple(Heard(mac_of(n), n) for n in range(first, first + 100)))
    assert len(desk.neighbour(two).heard) <= 700


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


def test_mtu_to_nobody_known_is_that_of_the_narrowest_card() -> None:
    wires = [InterfaceConfig("e0", mac_of(1, 0), 1500, False), InterfaceConfig("e1", mac_of(1, 1), 9000, False)]
    assert Router(ME, wires, rng=random.Random(1), now=0.0, seq=1).mtu_to(FAR) == 1500


def test_request_with_number_0_is_harmless() -> None:
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    desk.hear(two, requests=(Request(FAR, 0, 5),))
    assert desk.hop(FAR) == three.address
    assert asked(desk.run(0.1)) == []


def test_router_that_left_says_nothing_whatever_happens() -> None:
    desk = Desk(2)
    desk.up(2)
    (three,) = desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    desk.router.leave(now=desk.now)
    desk.take()
    desk.router.interface_changed(0, mtu=1400, up=True, now=desk.now)
    desk.router.interface_changed(1, up=False, now=desk.now)
    assert desk.run(30.0) == []


def test_neighbour_that_is_not_up_is_answered_where_it_sends_from_now() -> None:
    desk = Desk()
    two = Peer(2)
    desk.hear(two)
    two.mac = mac_of(222)
    (answer,) = [s for s in desk.hear(two, FLAG_PROBE, ttl0=0, token=5) if s.handshake and s.handshake.token == 5]
    assert answer.destination == two.mac


def cost(desk: Desk, peer: Peer) -> int:
    path = desk.router.path_to(peer.address)
    assert path is not None
    return path.metric


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


def rtt_of(desk: Desk) -> Optional[float]:
    (info,) = desk.router.nodes()
    return info.rtt


def test_retraction_of_a_route_to_us_does_not_make_us_newer() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, routes=(Route(ME, BOOT_SEQ + 5, METRIC_UNREACHABLE, 0),))
    desk.run(6.0)
    assert {s.handshake.seq for s in desk.hear(two, FLAG_PROBE, ttl0=0) if s.handshake} == {BOOT_SEQ}


def test_frame_that_a_neighbour_passes_on_shows_that_it_lives() -> None:
    """Data went to it, and something came from it, though not its own: no probe after 75 ms."""
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, routes=(route(99),))
    desk.run(0.1)
    desk.router.send_stream(FAR, b"data", now=desk.now)
    desk.router.receive(
        0, encode_ethernet(desk.macs[0], two.mac, encode_frame(desk.frame(TYPE_STREAM, FAR, ME, b"data"))), now=desk.now
    )
    assert probes(desk.run(0.2)) == []


def test_interface_that_is_down_stays_down_when_its_mtu_changes() -> None:
    desk = Desk(2)
    desk.router.interface_changed(1, up=False, now=desk.now)
    desk.router.interface_changed(1, mtu=1400, now=desk.now)
    desk.router.broadcast(b"text", now=desk.now)
    assert [s.interface for s in of_type(desk.take(), TYPE_BROADCAST)] == [0]


@pytest.mark.parametrize("use", [None, TYPE_STREAM, TYPE_MESSAGE, TYPE_HANDSHAKE])
def test_route_in_use_is_retracted_at_once(use: Optional[int]) -> None:
    """Others may hold it for ten milliseconds in which more may change; this one would swallow data meanwhile.

    In use is what we forward, the second STREAM frame by the fast path, and what we send ourselves: here an echo.
    """
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(2.0)  # the next HANDSHAKEs are more than 2 s away
    for wait in (1.5, 0.5):
        if use == TYPE_HANDSHAKE:
            desk.router.echo(FAR, now=desk.now)
        elif use is not None:
            desk.put(0, desk.macs[0], two.mac, desk.frame(use, two.address, FAR, b"data"))
        desk.hear(three, ttl0=0)
        desk.now += wait
    at_once = desk.hear(three, routes=(route(99, metric=METRIC_UNREACHABLE),))
    assert (FAR in [r.dest for r in told(at_once)]) == (use is not None)
    assert (FAR in [r.dest for r in told(desk.run(0.02))]) == (use is None)


def test_route_in_use_that_grows_longer_is_told_with_others() -> None:
    desk = Desk(2)
    desk.up(2)
    (three,) = desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(3.0)
    desk.router.send_stream(FAR, b"data", now=desk.now)
    at_once = desk.hear(three, routes=(route(99, metric=20, seq=BOOT_SEQ + 1),))
    assert told(at_once) == []
    assert [r.metric for r in told(desk.run(0.02)) if r.dest == FAR] == [30]


def test_neighbour_whose_card_now_takes_more_is_asked_with_padding() -> None:
    desk = Desk(mtu=9000)
    (two,) = desk.up(2)
    two.mtu = 4000
    sent = desk.answer(two, desk.hear(two))
    assert [23 + len(s.frame.payload) for s in sent if s.handshake and s.handshake.pad] == [4000]


def test_who_was_forgotten_is_missing_from_the_next_list() -> None:
    """Though nobody new is there: the list is told again."""
    desk = Desk()
    two, three = desk.up(2, 3)
    for _ in range(8):
        desk.run(4.5)
        desk.alive(two, three)
    desk.hear(three, flags=FLAG_BYE)
    lists = listed(desk.run(5.6))
    assert lists[:1] == [{two.mac}]


def test_greeting_has_no_token() -> None:
    desk = Desk()
    desk.up(2)
    assert {s.handshake.token for s in desk.run(6.0) if s.handshake and s.frame.ttl == TTL_V1} == {0}


def test_neighbour_that_does_not_hear_us_is_told_no_routes() -> None:
    """What it would make of them is not known, and what it was told would have to be taken back."""
    desk = Desk(2)
    (three,) = desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.hear(Peer(2))
    assert told(desk.run(1.0), 0) == []


def test_bye_on_the_second_interface_is_a_bye() -> None:
    desk = Desk(2)
    (two,) = desk.up(2, interface=1)
    desk.events()
    desk.hear(two, flags=FLAG_BYE)
    desk.run(0.01)
    assert desk.events(NodeLost) == [NodeLost(two.address, "left")]


def test_node_lost_twice_in_a_second_is_told_once() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    lost = route(99, metric=METRIC_UNREACHABLE)
    desk.hear(two, routes=(route(99),))
    desk.events()
    for seq in (1, 2):
        desk.hear(two, routes=(lost,))
        desk.run(0.3)
        if seq == 1:
            desk.hear(two, routes=(route(99, seq=BOOT_SEQ + 1),))
            desk.run(0.3)
    desk.run(2.0)
    assert desk.events(NodeLost) == [NodeLost(FAR, "unreachable")]


def test_one_missed_handshake_costs_nothing() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    for pause in (4.9, 9.8):
        for _ in range(int(pause / 4.9) - 1):
            desk.run(4.9)
            desk.hear(two, ttl0=0)
        desk.run(4.9)
        desk.alive(two)
        assert cost(desk, two) == 10


def test_routes_are_told_to_who_asked_for_them_when_they_change() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.router.routes.tells_changes = True
    seen = []
    gone = route(99, metric=METRIC_UNREACHABLE)
    for item in (route(99), route(99, seq=BOOT_SEQ + 1), route(99, metric=20, seq=BOOT_SEQ + 2), gone):
        desk.hear(two, routes=(item,))
        seen.append([(event.hops, event.next_hop) for event in desk.events(RouteChanged)])
    assert seen == [[(2, two.address)], [], [(3, two.address)], []]


def test_update_asks_nothing() -> None:
    """Else every one of a segment would answer it."""
    desk = Desk(2)
    desk.up(2)
    (three,) = desk.up(3, interface=1)
    desk.run(1.0)
    desk.hear(three, routes=(route(99),))
    sent = [(s.frame, s.handshake) for s in desk.run(0.05) if s.handshake and told([s])]
    assert {(h.flags, h.token, h.ttl0, frame.ttl) for frame, h in sent} == {(0, 0, 0, 0)}


@pytest.mark.parametrize(
    ("metrics", "seqs", "taken"),
    [((20, 30), (0, 1), 0), ((30, 20), (1, 0), 1), ((20, 20), (0, 1), 1), ((20, 20), (1, 0), 0)],
)
def test_when_the_best_way_is_gone_the_better_of_the_others_is_taken(
    metrics: Sequence[int], seqs: Sequence[int], taken: int
) -> None:
    """The newer, if they are equally long."""
    desk = Desk()
    first, *others = desk.up(2, 3, 4)
    desk.hear(first, routes=(route(99, metric=10),))
    for other, metric, seq in zip(others, metrics, seqs):
        desk.hear(other, routes=(route(99, metric=metric, seq=BOOT_SEQ + seq),))
    assert desk.hop(FAR) == first.address
    desk.hear(first, routes=(route(99, metric=METRIC_UNREACHABLE),))
    assert desk.hop(FAR) == others[taken].address


def test_next_hop_of_forwarded_frames_is_probed_when_it_falls_silent() -> None:
    """Also where they take the fast path: 75 ms after the first of them that nothing came back for."""
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    for _ in range(2):
        assert len(desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, FAR, b"data"))) == 1
        desk.hear(three)
    desk.run(0.02)
    began = desk.now
    desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, FAR, b"data"))
    (question,) = probes(desk.run(0.1))
    assert question.destination == three.mac
    assert question.time - began == near(0.075)


def test_neighbour_with_two_ports_is_sent_to_the_first_until_that_is_silent_for_seven_seconds() -> None:
    """1.4 of its intervals of 5 s."""
    desk = Desk()
    (two,) = desk.up(2)
    first, second = two.mac, mac_of(222)
    both = (Heard(first, two.nonce), Heard(second, two.nonce))
    used, lists = [], []
    for mac in (first, second, second, second):
        two.mac = mac
        desk.run(2.9)
        (answer,) = [s for s in desk.hear(two, FLAG_PROBE, ttl0=0, token=5) if s.handshake and s.handshake.token == 5]
        data = desk.stream(two.address)
        desk.hear(two, ttl0=0)
        assert data is not None
        assert data.destination == answer.destination
        used.append(answer.destination)
        lists.append(answer.handshake and answer.handshake.heard)
    assert used == [first, first, first, second]
    assert lists == [both[:1], both, both, both[1:]]


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


def test_request_passed_on_and_refusal_ask_for_no_reply() -> None:
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    sent = desk.hear(two, requests=(Request(FAR, BOOT_SEQ + 1, 5),))
    sent += desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, mac_of(98)))
    said = [s.handshake for s in sent if s.handshake]
    assert [(h.flags, h.token, len(h.requests), len(h.routes)) for h in said] == [(0, 0, 1, 0), (0, 0, 0, 1)]


@pytest.mark.parametrize(("interfaces", "newcomer"), [(2, 1), (3, 2)])
def test_frame_that_lost_its_way_is_flooded_to_whoever_is_up(interfaces: int, newcomer: int) -> None:
    """Though another on that segment does not hear us yet; and not where nobody is up."""
    desk = Desk(interfaces)
    (two,) = desk.up(2)
    desk.up(3, interface=1)
    desk.hear(Peer(4, newcomer))
    desk.run(0.1)
    sent = desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_MESSAGE, two.address, FAR, b"text"))
    assert [s.interface for s in of_type(sent, TYPE_MESSAGE)] == [0, 1]


def test_flooded_frame_without_ttl_goes_nowhere() -> None:
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    frame = desk.frame(TYPE_MESSAGE, mac_of(8), FAR, b"text", ttl=0)
    assert desk.put(0, BROADCAST_ADDRESS, two.mac, frame) == []
    assert desk.router.drops["ttl"] == 1


def test_neighbour_whose_card_now_takes_less_is_sent_less() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    two.mtu = 1000
    desk.hear(two)
    assert desk.router.mtu_to(two.address) == 1000


@pytest.mark.parametrize(("count", "crowd"), [(90, 3), (95, 3), (100, 3), (105, 3), (100, 132), (100, 139)])
def test_handshakes_fit_a_frame_whatever_is_in_them(count: int, crowd: int) -> None:
    desk = Desk(2)
    (two,) = desk.up(2)
    desk.router.set_ports(range(1, 60))
    desk.hear(two, routes=[route(n) for n in range(1000, 1000 + count)])
    for number in range(3, 3 + crowd):
        peer = Peer(number, 1)
        desk.hear(peer, heard=desk.lists_me(peer))
    desk.router.announce(now=desk.now)
    sizes = [23 + len(s.frame.payload) for s in desk.run(6.0)]
    assert 1000 < max(sizes) <= 1500


def test_more_requests_than_a_frame_holds_are_each_sent_once() -> None:
    desk = Desk(2)
    two, three = desk.up(2, 3)
    desk.up(4, interface=1)
    numbers = range(1000, 1150)
    for peer, metric in ((two, 10), (three, 50), (two, METRIC_UNREACHABLE)):
        for part in (numbers[:75], numbers[75:]):
            desk.hear(peer, routes=[route(n, metric) for n in part])
        desk.run(0.1 if metric != METRIC_UNREACHABLE else 0.0)
    assert sorted(r.dest for r in asked(desk.run(0.1))) == [mac_of(n) for n in numbers]


def test_interface_that_was_down_greets_again_whatever_was_heard_meanwhile() -> None:
    desk = Desk()
    desk.up(2)
    desk.router.interface_changed(0, up=False, now=desk.now)
    desk.hear(Peer(3))  # what was under way
    desk.run(1.0)
    desk.router.interface_changed(0, up=True, now=desk.now)
    assert [s for s in desk.run(0.031) if s.frame.ttl == TTL_V1]


def test_broadcast_sent_to_us_alone_is_not_acknowledged() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    assert desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_BROADCAST, two.address, ME, b"text")) == []
    assert [event.data for event in desk.events(MessageReceived)] == [b"text"]


# --- Frames in a row ------------------------------------------------------------------------------------------------


def test_batch_is_taken_as_its_frames_are_one_by_one() -> None:
    """Runs of one origin, another in between, and a frame that is cut within its header."""
    desk = Desk()
    two, three = desk.up(2, 3)

    def packed(peer: Peer, payload: bytes) -> bytes:
        frame = encode_frame(desk.frame(TYPE_STREAM, peer.address, ME, payload))
        return encode_ethernet(desk.macs[0], peer.mac, frame)

    batch = [packed(two, b"a"), packed(two, b"b"), packed(two, b"c"), packed(three, b"d"), packed(two, b"e")]
    batch += [batch[1][:30], packed(two, b"f"), packed(two, b"")]
    runs = desk.router.receive_all(0, batch, now=desk.now)
    together = [(origin, frame[PAYLOAD_OFFSET:]) for origin, frames in runs for frame in frames]
    single = [desk.router.receive(0, frame, now=desk.now) for frame in batch]
    assert together == [(incoming.origin, incoming.payload) for incoming in single if incoming is not None]
    assert [payload for _, payload in together if payload] == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_stream_without_ttl_ends_here_also_on_its_usual_way() -> None:
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    for ttl in (5, 4, 3):
        (sent,) = desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, FAR, b"x", ttl=ttl))
        assert sent.frame.ttl == ttl - 1
    assert desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, FAR, b"x", ttl=0)) == []
    assert desk.router.drops["ttl"] == 1


def test_frame_is_forwarded_to_a_card_with_the_same_address_on_another_segment() -> None:
    """As of a machine whose two cards were given one address: only what would go back where it came from is dropped."""
    desk = Desk(2)
    twin = Peer(3, 1)
    (two,) = desk.up(2)
    twin.mac = two.mac
    desk.hear(twin, heard=desk.lists_me(twin), routes=(route(99),))
    desk.run(0.2)
    sent = desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, FAR, b"x"))
    assert [(s.interface, s.destination) for s in of_type(sent, TYPE_STREAM)] == [(1, twin.mac)]


# --- Neighbours -----------------------------------------------------------------------------------------------------


def test_neighbour_that_greets_rarely_is_not_asked_before_its_time() -> None:
    """It says so itself: every 20 seconds."""
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, interval=20.0)
    assert probes(desk.run(15.0)) == []
    assert desk.state(two) is LinkState.UP


@pytest.mark.parametrize(("which", "state"), [(-4, LinkState.DEAD), (-3, LinkState.UP), (-1, LinkState.UP)])
def test_only_the_answers_to_the_last_three_questions_count(which: int, state: LinkState) -> None:
    desk = Desk()
    (two,) = desk.up(2)
    tokens = [s.handshake.token for s in probes(desk.run(14.0)) if s.handshake]
    assert len(tokens) > 4
    assert desk.state(two) is LinkState.DEAD
    desk.hear(two, FLAG_REPLY, ttl0=0, token=tokens[which])
    assert desk.state(two) is state


def test_neighbour_itself_is_believed_however_far_its_number_has_jumped() -> None:
    """What others say of a node with such a number is believed only if there is nothing else."""
    desk = Desk(2)
    two, three = desk.up(2, 3)
    desk.up(4, interface=1)
    desk.hear(three, routes=(route(2, metric=5),))
    two.seq += SEQ_JUMP_MAX + 1
    desk.hear(two)
    assert desk.hop(two.address) == two.address
    desk.hear(three, routes=(route(2, seq=two.seq),))
    desk.run(0.3)
    assert desk.hop(two.address) == two.address


def test_number_that_was_asked_for_is_told_once() -> None:
    """After that, a change that concerns nobody here is told to nobody."""
    desk = Desk()
    (two,) = desk.up(2)
    sent = desk.hear(two, requests=(Request(ME, BOOT_SEQ + 1, 5),)) + desk.run(0.2)
    assert [s.handshake.seq for s in sent if s.handshake] == [BOOT_SEQ + 1]
    desk.hear(two, routes=(route(99),))
    assert desk.run(0.3) == []


def test_request_behind_more_routes_than_a_frame_holds_is_sent_once() -> None:
    desk = Desk()
    two, three = desk.up(2)[0], desk.up(3)[0]
    desk.hear(two, heard=desk.lists_me(two), routes=(route(99),))
    desk.hear(three, heard=desk.lists_me(three))
    desk.run(0.3)
    desk.hear(two, routes=(route(99, metric=50), *(route(n) for n in range(1000, 1060))))
    desk.hear(two, routes=[route(n) for n in range(1060, 1150)])
    sent = desk.run(0.1)
    assert len({r.dest for r in told(sent)}) > 100
    assert [r.dest for r in asked(sent)] == [FAR]
    desk.run(2.0)  # it is asked for four times
    desk.hear(two, routes=(route(97),))
    assert asked(desk.run(0.1)) == []


def test_link_that_carries_data_both_ways_is_confirmed_now_and_then() -> None:
    """Not with every frame."""
    desk = Desk()
    (two,) = desk.up(2)
    asked_at = []
    for step in range(500):
        desk.stream(two.address)
        data = encode_ethernet(ME, two.mac, encode_frame(desk.frame(TYPE_STREAM, two.address, ME, b"x")))
        assert desk.router.receive(0, data, now=desk.now) is not None
        for question in probes(desk.run(0.02)):
            asked_at.append(question.time)
            assert question.handshake is not None
            desk.hear(two, FLAG_REPLY, ttl0=0, token=question.handshake.token)
        if step % 200 == 0:
            desk.hear(two)
    assert len(asked_at) > 1
    assert min(b - a for a, b in zip(asked_at, asked_at[1:])) >= CONFIRM_SECONDS


def test_answer_that_comes_twice_counts_once() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    sent = probes(desk.run(7.5))
    while not sent:
        sent = probes(desk.run(0.1))
    first = sent[-1].handshake
    assert first is not None
    desk.hear(two, FLAG_REPLY, ttl0=0, token=first.token)
    assert desk.state(two) is LinkState.UP
    while desk.state(two) is LinkState.UP:
        desk.run(0.01)
    before = desk.state(two)
    desk.hear(two, FLAG_REPLY, ttl0=0, token=first.token)
    assert desk.state(two) is before


def test_node_behind_another_is_as_old_as_the_last_word_about_it() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, routes=(route(99),))
    then = desk.now
    desk.now += 4.0
    desk.hear(two)
    assert {info.address: info.last_heard for info in desk.router.nodes()} == {two.address: desk.now, FAR: then}


def test_word_to_us_alone_that_does_not_name_us_opens_no_link() -> None:
    desk = Desk()
    peer = Peer(2)
    desk.hear(peer, ttl0=0, heard=())
    desk.hear(peer, ttl0=0, heard=(Heard(mac_of(3), 3),))
    assert desk.state(peer) is LinkState.HEARD
    desk.hear(peer, ttl0=0, heard=desk.lists_me(peer))
    assert desk.state(peer) is LinkState.UP


def test_broadcast_to_everyone_counts_whichever_way_it_came() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_BROADCAST, two.address, EVERYONE, b"text"))
    assert [event.data for event in desk.events(MessageReceived)] == [b"text"]


def test_frame_that_lost_its_way_is_flooded_once() -> None:
    """Also if somebody floods it back."""
    desk = Desk(2)
    (two,) = desk.up(2)
    desk.up(3, interface=1)
    frame = desk.frame(TYPE_MESSAGE, two.address, FAR, b"text")
    assert [s.interface for s in of_type(desk.put(0, desk.macs[0], two.mac, frame), TYPE_MESSAGE)] == [0, 1]
    assert of_type(desk.put(0, BROADCAST_ADDRESS, two.mac, frame) + desk.run(0.01), TYPE_MESSAGE) == []


def test_program_that_was_killed_does_not_hold_up_the_other_on_its_card() -> None:
    desk = Desk(2)
    two, three = desk.up(2, 3)
    three.mac, three.slot = two.mac, 1
    desk.hear(three, heard=desk.lists_me(three, two))
    far = desk.up(4, interface=1)[0]
    while desk.state(three) is not LinkState.DEAD:
        desk.alive(two, far)
        desk.run(1.0)
    frame = desk.frame(TYPE_STREAM, two.address, far.address, b"x")
    sent = of_type(desk.put(0, desk.macs[0], two.mac, frame), TYPE_STREAM)
    assert [(s.interface, s.destination) for s in sent] == [(1, far.mac)]


def test_table_of_three_frames_is_told_in_three_greetings_and_old_after_nine() -> None:
    """At 25 seconds each."""
    desk = Desk()
    (two,) = desk.up(2)
    start = desk.now
    for first in (1000, 1100, 1200):
        desk.hear(two, interval=25.0, routes=[route(n) for n in range(first, first + 80)])
    lost: List[float] = []
    while desk.now < start + 300.0:
        desk.hear(two, interval=25.0)
        for question in probes(desk.run(0.02)):
            assert question.handshake is not None
            desk.hear(two, FLAG_REPLY, ttl0=0, token=question.handshake.token, interval=25.0)
        desk.run(4.98)
        lost += [desk.now - start for _ in desk.events(NodeLost)]
    assert len(lost) == 240
    assert 225.0 <= min(lost) <= 225.0 + SWEEP_SECONDS + 5.0


def test_answer_to_no_question_is_no_proof_of_a_wide_path() -> None:
    desk = Desk(mtu=9000)
    two = desk.up(2, mtu=9000)[0]
    desk.hear(two, FLAG_REPLY, ttl0=0, token=0)
    assert desk.router.mtu_to(two.address) == 1500
    big = [s.handshake for s in desk.run(1.0) if s.handshake and len(s.frame.payload) > 8000]
    for question in big:
        desk.hear(two, FLAG_REPLY, ttl0=0, token=question.token)
    desk.hear(two, FLAG_REPLY, ttl0=0, token=0)
    assert desk.router.mtu_to(two.address) == (9000 if big else 1500)


def test_request_for_a_still_newer_number_is_passed_on_at_once() -> None:
    """The same one is not, within a second."""
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    passed = []
    for number in (1, 1, 2, 2):
        sent = desk.hear(two, requests=(Request(FAR, BOOT_SEQ + number, 5),)) + desk.run(0.1)
        passed.append([request.seq - BOOT_SEQ for request in asked(sent)])
    assert passed == [[1], [], [2], []]


# --- What restarts, moves, comes and goes ----------------------------------------------------------------------------


def test_router_that_has_only_just_started_answers_a_request_at_once() -> None:
    desk = Desk()
    sent = desk.hear(Peer(2), requests=(Request(ME, BOOT_SEQ + 1, 5),))
    assert [s.handshake.seq for s in sent if s.handshake] == [BOOT_SEQ + 1]


def test_node_without_a_name_says_that_it_has_none() -> None:
    router = Router(ME, [InterfaceConfig("e0", mac_of(1), 1500, False)], rng=random.Random(1), now=0.0, seq=1)
    router.announce(now=1.0)
    said = [decode_handshake(data[37:]) for _, data in router.frames_to_send(now=1.0)]
    assert [(h.name, h.ports) for h in said if h] == [("", ())]


def test_announce_tells_first_what_has_changed() -> None:
    desk = Desk(2)
    (two,) = desk.up(2)
    desk.up(3, interface=1)
    desk.hear(two, routes=(route(99),))
    desk.router.announce(now=desk.now)
    (question,) = [s for s in probes(desk.take()) if s.interface == 1]
    assert FAR in [r.dest for r in told([question], 1)]


def test_whoever_hears_a_v1_neighbour_is_told_nothing_of_it() -> None:
    """It lists nobody: whether it hears them cannot be known. We list it with nonce 0, as others do."""
    desk = Desk()
    desk.hear_v1(7)
    two = Peer(2)
    desk.hear(two, heard=(*desk.lists_me(two), Heard(mac_of(7), 0)))
    sent = desk.run(1.0)
    assert Heard(mac_of(7), 0) in [tag for s in sent if s.handshake for tag in s.handshake.heard or ()]
    assert told(sent) == []


def test_segment_of_v1_nodes_is_told_no_routes() -> None:
    desk = Desk(2)
    (two,) = desk.up(2, interface=1)
    desk.hear(two, routes=(route(99),))
    desk.hear_v1(7)
    assert told(desk.run(6.0), 0) == []


def test_flood_is_not_repeated_for_one_who_may_not_hear_us() -> None:
    desk = Desk()
    two, _three = desk.up(2, 3)
    desk.hear(Peer(4))
    desk.run(0.2)
    desk.put(0, BROADCAST_ADDRESS, two.mac, desk.frame(TYPE_BROADCAST, two.address, EVERYONE, b"x"))
    assert of_type(desk.run(0.01), TYPE_BROADCAST) == []


def test_on_lo_a_frame_for_another_is_left_alone_whoever_else_is_there() -> None:
    desk = Desk(loopback=True)
    (two,) = lo_peers(desk, 2)
    desk.hear(two, heard=desk.lists_me(two))  # and not itself
    assert desk.put(0, two.mac, two.mac, desk.frame(TYPE_STREAM, two.address, FAR, b"x")) == []
    assert desk.router.drops["slot"] == 1


@pytest.mark.parametrize("own", [False, True])
def test_stream_frames_of_others_on_lo_cost_little_and_show_that_they_live(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second on they take the fast path; so do our own, that `lo` gives back."""
    desk = Desk(loopback=True)
    two, three = lo_peers(desk, 2, 3)
    frame = desk.frame(TYPE_STREAM, ME if own else two.address, three.address, b"x")
    desk.put(0, two.mac, two.mac, frame)
    desk.stream(two.address)
    monkeypatch.setattr(desk.router, "_receive", None)
    assert desk.put(0, two.mac, two.mac, frame) == []
    monkeypatch.undo()
    assert desk.router.drops["own" if own else "slot"] == 2
    assert [s.frame.dest for s in probes(desk.run(0.08))] == [two.address] * own


def test_batch_with_copies_of_a_flooded_frame_has_it_once() -> None:
    desk = Desk()
    frames = [encode_frame(desk.frame(TYPE_STREAM, mac_of(9), ME, payload)) for payload in (b"a", b"b")]
    batch = [encode_ethernet(BROADCAST_ADDRESS, mac_of(4), frames[number]) for number in (0, 0, 1, 1)]
    runs = desk.router.receive_all(0, batch, now=desk.now)
    assert [frame[PAYLOAD_OFFSET:] for _, run in runs for frame in run] == [b"a", b"b"]


def test_every_frame_of_ours_has_an_id_of_its_own() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    ids = []
    for _ in range(3):
        desk.router.send_message(two.address, b"text", now=desk.now, timeout=9.0)
        _, frames = desk.router.send_streams(two.address, [(b"a", b""), (b"b", b"")], now=desk.now)
        ids += [s.frame.msg_id for s in [*desk.take(), *(desk.read(0, frame) for frame in frames)]]
    assert len(set(ids)) == len(ids) == 9


def test_neighbour_is_asked_with_padding_only_for_what_is_more_than_it_was_seen_to_take() -> None:
    """Also when our own card takes more than it did."""
    desk = Desk()
    (two,) = desk.up(2, mtu=9000)
    for mtu, asked_with in ((1500, []), (4000, [4000]), (9000, [9000] * 3), (8000, [8000] * 3)):
        desk.router.interface_changed(0, mtu=mtu, now=desk.now)
        sent = desk.take()
        sent += desk.answer(two, sent)
        for question in probes(sent):
            assert question.handshake is not None
            if mtu == 4000:
                desk.hear(two, FLAG_REPLY, ttl0=0, token=question.handshake.token)
        sent += desk.run(1.0)
        assert [23 + len(s.frame.payload) for s in sent if s.handshake and s.handshake.pad] == asked_with


def test_interface_that_is_down_is_sent_nothing_more() -> None:
    """Not even the padded question that was under way, and though its loss is reported twice."""
    desk = Desk(mtu=9000)
    two = Peer(2, mtu=9000)
    desk.hear(two, heard=desk.lists_me(two))
    for _ in range(2):
        desk.router.interface_changed(0, up=False, now=desk.now)
    assert desk.run(20.0) == []


def test_node_without_a_route_does_not_hide_those_behind_it() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, routes=(route(98), route(99)))
    desk.hear(two, routes=(route(98, metric=METRIC_UNREACHABLE),))
    assert [info.address for info in desk.router.nodes()] == [two.address, FAR]


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


@pytest.mark.parametrize(("before", "after"), [(700.0, 0.0), (0.0, 760.0)])
def test_what_was_told_long_ago_still_forbids_what_might_loop(before: float, after: float) -> None:
    """The ten minutes begin when nobody speaks of the node any more."""
    desk = Desk(2)
    three = starving(desk, before)
    spoken = route(99, metric=30 if after else METRIC_UNREACHABLE)
    live(desk, max(after, 2 * SWEEP_SECONDS), three, Peer(4, 1), routes=(spoken,))
    desk.hear(three, routes=(route(99, metric=30),))
    assert desk.hop(FAR) is None


def test_node_known_by_hearsay_stays_known_while_it_is_heard() -> None:
    desk = Desk()
    for _ in range(25):
        desk.hear_v1(7, ttl=3)
        desk.run(3.0)
        assert desk.router.knows(mac_of(7))


def test_echo_may_be_answered_when_old_things_have_been_thrown_away() -> None:
    desk = Desk()
    desk.run(SWEEP_SECONDS - 0.1)
    token = desk.router.echo(mac_of(9), now=desk.now)
    desk.run(0.2)
    answer = encode_handshake(Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, token))
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, answer, ttl=30))
    assert [event.token for event in desk.events(Echoed)] == [token]


def test_handshake_of_a_former_self_that_a_v1_node_relayed_is_no_alarm() -> None:
    desk = Desk()
    desk.hear(Peer(1, seq=1), ttl=TTL_V1 - 1)
    assert desk.events() == []


def test_echo_that_began_with_another_ttl_is_answered() -> None:
    """Ours begin with 31; what was forwarded is known by a ttl that is not the first."""
    desk = Desk()
    desk.run(1.0)
    payload = encode_handshake(Handshake(FLAG_PROBE, 16, 5.0, 1500, 9, BOOT_SEQ, 5))
    (answer,) = desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, payload, ttl=14))
    assert answer.handshake is not None
    assert (answer.frame.dest, answer.handshake.token) == (mac_of(9), 5)
    assert desk.router.neighbours.all() == []


@pytest.mark.parametrize("known", [False, True])
def test_refusal_of_a_route_that_was_never_told_has_number_0(known: bool) -> None:
    desk = Desk()
    (two,) = desk.up(2)
    if known:
        desk.hear(Peer(3), routes=(route(99),))  # of one that does not hear us
    sent = desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, FAR))
    assert told(sent) == [Route(FAR, 0, METRIC_UNREACHABLE, 0)]


def test_neighbour_that_does_not_answer_to_a_text_is_probed() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    began = desk.now
    desk.router.send_message(two.address, b"text", now=desk.now, timeout=9.0)
    (question,) = probes(desk.run(0.1))
    assert question.time - began == near(0.075)


def test_frame_that_lost_its_way_is_flooded_once_on_each_segment() -> None:
    """Two of our interfaces are on one."""
    desk = Desk(2)
    desk.router.announce(now=desk.now)
    greeting = next(t.frame for t in desk.router.frames_to_send(now=desk.now) if t.interface == 0)
    desk.router.receive(1, greeting, now=desk.now)
    two, _twin = desk.up(2)[0], desk.up(2, interface=1)[0]
    sent = desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_MESSAGE, two.address, FAR, b"text"))
    assert [s.interface for s in of_type(sent, TYPE_MESSAGE)] == [0]


def test_dead_neighbour_that_keeps_greeting_is_not_asked_each_time() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.router.hint(two.address, now=desk.now)
    desk.run(2.0)
    assert desk.state(two) is LinkState.DEAD
    assert len(probes([s for _ in range(100) for s in desk.hear(two)])) <= 20


def test_v1_neighbour_with_another_card_is_followed() -> None:
    desk = Desk()
    desk.hear_v1(7)
    for _ in range(3):
        desk.run(4.0)
        greeting = desk.frame(TYPE_HANDSHAKE, mac_of(7), EVERYONE, bytes(23), TTL_V1)
        desk.put(0, BROADCAST_ADDRESS, mac_of(77), greeting)
    sent = desk.stream(mac_of(7))
    assert sent is not None
    assert sent.destination == mac_of(77)


def test_second_port_of_a_neighbour_is_listed_and_counts_as_the_neighbour() -> None:
    """Also what came from there before its HANDSHAKE did."""
    desk = Desk()
    (two,) = desk.up(2)
    for _ in range(6):
        desk.run(4.0)
        desk.hear(two, heard=desk.lists_me(two))
    first, two.mac = two.mac, mac_of(222)
    data = encode_ethernet(ME, two.mac, encode_frame(desk.frame(TYPE_STREAM, FAR, ME, b"x")))
    assert desk.router.receive(0, data, now=desk.now) is not None
    desk.hear(two)
    desk.stream(two.address)
    assert desk.router.receive(0, data, now=desk.now) is not None
    sent = desk.run(5.0)
    assert probes(sent) == []
    assert {first, two.mac} in listed(sent)


def test_neighbour_that_was_away_for_long_comes_back_at_the_usual_cost() -> None:
    """What its former self missed is no fault of the link."""
    desk = Desk()
    (two,) = desk.up(2)
    desk.now += 16.0
    two.nonce = 77
    desk.hear(two, heard=())
    desk.hear(two, heard=desk.lists_me(two))
    assert cost(desk, two) == 10


def test_bye_of_one_that_does_not_hear_us_lets_others_on_its_card_go_on() -> None:
    """And it is a bye on the other interface, where it does."""
    desk = Desk(2)
    (two,) = desk.up(2)
    (four,) = desk.up(4, interface=1)
    leaver = Peer(3)
    leaver.mac, leaver.slot = two.mac, 1
    desk.hear(leaver)
    desk.up(3, interface=1)
    desk.events()
    desk.hear(leaver, flags=FLAG_BYE)
    desk.run(0.01)
    assert desk.events(NodeLost) == [NodeLost(leaver.address, "left")]
    sent = desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_STREAM, two.address, four.address, b"x"))
    assert [s.destination for s in of_type(sent, TYPE_STREAM)] == [four.mac]


def test_one_of_two_on_a_card_that_says_bye_forwards_for_a_moment() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    leaver = Peer(3)
    leaver.mac, leaver.slot = two.mac, 1
    desk.hear(leaver, heard=desk.lists_me(leaver), routes=(route(99),))
    desk.run(0.1)
    desk.hear(leaver, flags=FLAG_BYE)
    assert desk.hop(FAR) == leaver.address
    desk.run(0.6)
    assert desk.hop(FAR) is None


def test_nodes_behind_a_neighbour_are_sent_no_more_than_its_card_now_takes() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, routes=(route(99),))
    two.mtu = 1000
    desk.hear(two)
    assert desk.router.mtu_to(FAR) == 1000


@pytest.mark.parametrize(("between", "metric"), [(4, 20), (5, 10)])
def test_two_of_the_last_eight_handshakes_missed_make_a_hop_cost_twice(between: int, metric: int) -> None:
    """Heard were one after each that was missed, and those in between."""
    desk = Desk()
    (two,) = desk.up(2)
    for interval in (9.8, *[4.9] * between, 9.8):
        for _ in range(int(interval / 4.9) - 1):
            desk.run(4.9)
            desk.hear(two, ttl0=0)  # what is directed does not count
        desk.run(4.9)
        desk.alive(two)
    assert cost(desk, two) == metric


def test_link_that_carried_one_frame_which_was_answered_is_not_probed() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.run(4.0)
    desk.alive(two)
    desk.now = 105.0
    desk.stream(two.address)
    desk.alive(two)
    assert probes(desk.run(4.0)) == []


def test_fast_path_of_a_neighbour_that_does_not_hear_us_any_more_is_closed() -> None:
    """Though the way to it, over another cable, is what it was: who forwards for it might close a loop."""
    desk = Desk(3)
    desk.up(2)
    (two,), (three,) = desk.up(2, interface=1), desk.up(3, interface=2)
    ways = []
    for _ in range(3):
        sent = desk.put(1, desk.macs[1], two.mac, desk.frame(TYPE_STREAM, two.address, three.address, b"x"))
        ways.append({s.destination for s in of_type(sent, TYPE_STREAM)})
        if len(ways) == 2:
            desk.hear(two, heard=())
    assert ways == [{three.mac}, {three.mac}, {BROADCAST_ADDRESS}]


def test_node_that_said_bye_is_asked_for_after_five_seconds_if_somebody_still_speaks_of_it() -> None:
    desk = Desk(2)
    two, three = desk.up(2, 3)
    desk.up(4, interface=1)
    desk.hear(three, routes=(route(2, metric=30),))
    desk.hear(two, flags=FLAG_BYE)
    sent = [s for _ in range(5) for s in (*desk.hear(three, routes=(route(2, metric=30),)), *desk.run(0.9))]
    assert asked(sent) == []
    sent = [s for _ in range(2) for s in (*desk.hear(three, routes=(route(2, metric=30),)), *desk.run(0.5))]
    assert mac_of(2) in [r.dest for r in asked(sent)]


@pytest.mark.parametrize("pause", [0.02, 0.3])
def test_starving_again_asks_again_at_once_and_as_often(pause: float) -> None:
    desk = Desk(2)
    three = starving(desk, 0.0)
    sent = desk.hear(three, routes=(route(99, metric=30, seq=BOOT_SEQ + 1),))
    assert [r.seq for r in told(sent, 1) if r.dest == FAR] == [BOOT_SEQ + 1]  # what was asked for is told at once
    desk.run(pause)
    began = desk.now
    sent = desk.hear(three, routes=(route(99, metric=50, seq=BOOT_SEQ + 1),)) + desk.run(2.0)
    times = [s.time - began for s in sent if asked([s])]
    assert [round(4 * time) for time in times] == [0, 1, 2, 3]
    assert times[0] == 0.0


def test_way_in_use_that_changes_is_not_asked_for() -> None:
    """Nor is a suspect asked for another way than through itself."""
    desk = Desk()
    two, three = desk.up(2, 3)
    desk.hear(two, routes=(route(98), route(99)))
    desk.hear(three, routes=(route(98, metric=50),))
    for number in (98, 99):
        desk.stream(mac_of(number))
    sent = desk.hear(two, routes=(route(98, metric=20),)) + desk.run(0.05)
    assert asked(sent) == []
    desk.stream(FAR)
    sent = desk.run(0.14)
    assert desk.state(two) is LinkState.SUSPECT
    assert asked(sent) == []


def test_retraction_is_told_beside_a_table_too_long_for_one_frame() -> None:
    """When a new neighbour makes everything be told again."""
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    for first in (1000, 1075):
        desk.hear(two, routes=[route(number) for number in range(first, first + 75)])
    desk.run(0.1)
    desk.hear(two, routes=(route(1000, metric=METRIC_UNREACHABLE),))
    newcomer = Peer(4, 1)
    desk.hear(newcomer, heard=desk.lists_me(newcomer, three))
    updates = [s for s in desk.run(0.05) if s.frame.ttl == 0]
    metrics = {r.dest: r.metric for r in told(updates, 1)}
    assert len(metrics) == 151
    assert [dest for dest, metric in metrics.items() if metric == METRIC_UNREACHABLE] == [mac_of(1000)]


def test_first_route_is_told_without_a_greeting() -> None:
    """The neighbour that came up before there was any was greeted then."""
    desk = Desk(2)
    two = Peer(2)
    desk.hear(two)
    desk.run(1.0)
    desk.hear(two, heard=desk.lists_me(two))
    assert desk.run(0.05) == []
    three = Peer(3, 1)
    desk.hear(three, heard=desk.lists_me(three))
    assert [s.frame.ttl for s in desk.run(0.05) if s.interface == 0] == [0]


# --- Full tables -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are full with 40 destinations, 8 neighbours."""
    monkeypatch.setattr("constants.DESTINATIONS_MAX", 40)
    monkeypatch.setattr("constants.NEIGHBOURS_MAX", 8)


def offer(desk: Desk, peer: Peer, first: int, count: int = 18) -> List[bytes]:
    """Let a neighbour tell of so many nodes; return those that are then reached through it."""
    desk.hear(peer, routes=[route(number) for number in range(first, first + count)])
    return [info.address for info in desk.router.nodes() if info.next_hop == peer.address]


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
