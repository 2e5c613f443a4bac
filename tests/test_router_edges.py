"""More of test_router.py: what mutation showed to be untested. One rule a test."""

from typing import List, Sequence, Set

import pytest
from meshsim import BOOT_SEQ, mac_of
from test_router import FAR, ME, Desk, Peer, Sent, asked, lo_peers, of_type, route, told

from constants import (
    FLAG_BYE,
    FLAG_FULL,
    FLAG_REPLY,
    METRIC_UNREACHABLE,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_STREAM,
)
from node import Echoed, NodeLost
from protocol import Handshake, Heard, encode_handshake


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
    answer = encode_handshake(Handshake(FLAG_REPLY, 32, 5.0, 1500, 9, BOOT_SEQ, token))
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(8), ME, answer, ttl=31))
    assert desk.events(Echoed) == []
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, answer, ttl=31))
    assert [event.address for event in desk.events(Echoed)] == [mac_of(9)]


def test_node_that_has_to_make_room_in_a_full_table_is_told_as_lost() -> None:
    desk = Desk(loopback=True, mtu=65536)
    peers = lo_peers(desk, 2, 3, 4)
    for first, peer in zip((1000, 3000, 5000), peers):
        desk.hear(peer, routes=[route(n) for n in range(first, first + 2000)])
    desk.events()
    desk.hear(peers[2], routes=[route(9999)])
    (lost,) = desk.events(NodeLost)
    assert lost.reason == "unreachable"
    assert desk.hop(lost.address) is None
    assert desk.hop(mac_of(9999)) == peers[2].address


def test_newcomer_is_told_the_whole_table_by_a_full_handshake() -> None:
    """One frame greets it, lists it and says that there are no other routes."""
    desk = Desk(2)
    (two,) = desk.up(2)
    desk.hear(two, routes=(route(99),))
    desk.up(3, interface=1)
    desk.run(1.0)
    newcomer = Peer(4, 1)
    desk.hear(newcomer, heard=desk.lists_me(newcomer))
    frames = [s for s in desk.run(0.05) if FAR in [r.dest for r in told([s], 1)]]
    assert [(s.frame.ttl, s.handshake.flags & FLAG_FULL) for s in frames if s.handshake] == [(TTL_V1, FLAG_FULL)]


@pytest.mark.parametrize(("ttl", "hops"), [(33, 1), (32, 1), (31, 2), (22, 11)])
def test_echo_counts_hops_by_the_ttl_that_is_left(ttl: int, hops: int) -> None:
    desk = Desk()
    token = desk.router.echo(mac_of(9), now=desk.now)
    answer = encode_handshake(Handshake(FLAG_REPLY, 32, 5.0, 1500, 9, BOOT_SEQ, token))
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, answer, ttl=ttl))
    assert [event.hops for event in desk.events(Echoed)] == [hops]


@pytest.mark.parametrize("crowd", [0, 1])
def test_one_neighbour_that_hears_another_node_with_our_mac_is_enough(crowd: int) -> None:
    """Then what is for others may be for that node: it is neither flooded nor refused."""
    desk = Desk()
    peers = desk.up(2, 3)
    twin = Heard(desk.macs[0], 12345)
    desk.hear(peers[crowd], heard=(*desk.lists_me(peers[crowd], peers[1 - crowd]), twin))
    desk.run(0.1)
    assert desk.put(0, desk.macs[0], peers[0].mac, desk.frame(TYPE_STREAM, peers[0].address, FAR)) == []
    assert desk.router.drops["bystander"] == 1


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
    payload = encode_handshake(Handshake(0, 32, 5.0, 1500, 9, BOOT_SEQ, 5))
    assert desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, payload, ttl=31)) == []


def test_router_that_left_has_nothing_to_do() -> None:
    desk = Desk()
    desk.up(2)
    desk.router.leave(now=desk.now)
    desk.take()
    desk.router.tick(now=desk.now + 100)
    assert desk.router.next_deadline() is None
    assert desk.take() == []
