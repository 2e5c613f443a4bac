"""Routes: what neighbours advertise, feasibility, seqno requests, updates; one node at a desk."""

import random
from typing import Optional, Sequence, Set

import pytest
from desk import FAR, HEARD, ME, SUSPECT, UP, Desk, Peer, asked, of_type, own_hello, reach, route, told, told_on
from meshsim import BOOT_SEQ, mac_of

from constants import (
    ADVERT_SECONDS,
    BROADCAST_ADDRESS,
    FLAG_BYE,
    FLAG_FULL,
    FLAG_PROBE,
    METRIC_UNREACHABLE,
    SEQ_JUMP_MAX,
    SEQ_MAX,
    SOURCE_GC_SECONDS,
    SWEEP_SECONDS,
    TTL_V1,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STREAM,
    UPDATE_GAP,
)
from protocol import (
    InterfaceConfig,
    LinkState,
    NodeFound,
    NodeLost,
    PathChanged,
    Request,
    Route,
    RouteChanged,
    Router,
    decode_handshake,
    encode_frame,
)

# --- Routes in --------------------------------------------------------------------------------------------------------


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


# --- Feasibility and requests -----------------------------------------------------------------------------------------


def test_route_not_below_what_was_told_is_not_used_but_asked_for(two: Desk) -> None:
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
    """Without keys a liar may swallow what goes to far nodes, until it leaves or takes that back."""
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


# --- Routes out -------------------------------------------------------------------------------------------------------


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


def test_bus_is_told_of_both_also_after_a_third_has_left(desk: Desk) -> None:
    """The place of the third is free: it is no sign of a newcomer, who would get the benefit of the doubt."""
    a, b, third = Peer(2), Peer(3), Peer(4)
    for peer in (a, b, third):
        desk.hear(peer, heard=desk.lists_me(peer))
    desk.run(0.05)
    desk.router.neighbours.remove(desk.neighbour(third), desk.now)
    desk.run(0.3)
    desk.hear(a, routes=[route(9)])
    assert route(9, 20) in told(desk.run(0.02))


def test_listener_on_another_card_of_the_same_lan_needs_a_route_if_it_does_not_hear_the_hop(two: Desk) -> None:
    """Though another listener does."""
    two.router.receive(1, own_hello(two, 0), now=two.now)
    hop, near, far = Peer(2), Peer(3, 1), Peer(4, 1)
    two.hear(hop, heard=two.lists_me(hop, near))
    two.hear(near, heard=two.lists_me(near, hop))
    two.hear(far, heard=two.lists_me(far))
    two.run(0.3)
    two.hear(hop, routes=[route(9)])
    assert route(9, 20) in told(two.run(0.02), 1)
    two.router.neighbours.remove(two.neighbour(far), two.now)
    assert route(9, METRIC_UNREACHABLE, mtu=0) in told(two.run(0.02), 1)


def test_changes_within_ten_milliseconds_are_told_together(desk: Desk) -> None:
    a, _ = Peer(2), desk.hear(Peer(3), heard=desk.lists_me(Peer(3)))
    desk.hear(a, heard=desk.lists_me(a))
    desk.run(0.3)
    times = []
    for number in range(10, 40):
        desk.hear(a, routes=[route(number)])
        times += [s.time for s in desk.run(0.002) if told([s])]
    assert len(times) > 3
    assert min(after - before for before, after in zip(times, times[1:])) > UPDATE_GAP - 1e-6


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
        hellos = [s for s in two.run(4.9) if s.interface == 1 and s.destination == BROADCAST_ADDRESS]
        for hello in hellos:
            assert hello.handshake is not None
            assert not hello.handshake.flags & FLAG_FULL
            assert len(encode_frame(hello.frame)) <= 1500
            seen |= {r.dest for r in hello.handshake.routes}
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


def test_router_that_left_has_nothing_to_do() -> None:
    desk = Desk()
    desk.up(2)
    desk.router.leave(now=desk.now)
    desk.take()
    desk.router.tick(now=desk.now + 100)
    assert desk.router.next_deadline() is None
    assert desk.take() == []


def test_name_that_is_no_unicode_is_told_as_well_as_may_be() -> None:
    router = Router(
        ME, [InterfaceConfig("e0", mac_of(1), 1500, False)], rng=random.Random(1), now=0.0, seq=1, name="x\udcff"
    )
    router.announce(now=1.0)
    names = [decode_handshake(data[37:]) for _, data in router.frames_to_send(now=1.0)]
    assert [h.name for h in names if h] == ["x?"]


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


def test_retraction_of_a_route_to_us_does_not_make_us_newer() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.hear(two, routes=(Route(ME, BOOT_SEQ + 5, METRIC_UNREACHABLE, 0),))
    desk.run(6.0)
    assert {s.handshake.seq for s in desk.hear(two, FLAG_PROBE, ttl0=0) if s.handshake} == {BOOT_SEQ}


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


def test_neighbour_that_does_not_hear_us_is_told_no_routes() -> None:
    """What it would make of them is not known, and what it was told would have to be taken back."""
    desk = Desk(2)
    (three,) = desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.hear(Peer(2))
    assert told(desk.run(1.0), 0) == []


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
