"""Nodes of AlexMesh v1.0 as neighbours and destinations; one node at a desk."""

import pytest
from desk import FAR, HEARD, ME, PROBING, UP, Desk, Peer, listed, of_type, probes, told
from meshsim import BOOT_SEQ, mac_of

from constants import (
    BROADCAST_ADDRESS,
    EVERYONE,
    SEQ_MAX,
    TTL_V1,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
    V1_SEQ_SECONDS,
)
from protocol import (
    Delivered,
    DuplicateAddress,
    Echoed,
    NodeFound,
    NodeLost,
    Request,
    Route,
    StrangeNode,
    status_payload,
)

# --- Data -------------------------------------------------------------------------------------------------------------


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


def test_v1_node_with_the_address_of_a_group_is_told_once_and_ignored(desk: Desk) -> None:
    """As uuid.getnode() makes it up on a machine without an IP address."""
    group = b"\x83\1\2\3\4\5"
    for _ in range(3):
        frame = desk.frame(TYPE_HANDSHAKE, group, EVERYONE, bytes(23), TTL_V1)
        desk.put(0, BROADCAST_ADDRESS, mac_of(7), frame)
    assert desk.events() == [StrangeNode(group, "group")]
    assert desk.router.neighbours.all() == []


def test_v1_program_on_this_very_card_raises_an_alarm(desk: Desk) -> None:
    """It takes the card's MAC as its id, as this node does."""
    desk.run(6)
    desk.put(0, BROADCAST_ADDRESS, ME, desk.frame(TYPE_HANDSHAKE, ME, EVERYONE, bytes(23), TTL_V1))
    assert desk.events() == [DuplicateAddress(ME)]


# --- v1.0 -------------------------------------------------------------------------------------------------------------


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


def test_v1_newcomer_is_greeted_at_once_and_listed() -> None:
    desk = Desk()
    desk.up(2)
    desk.run(1.0)
    desk.hear_v1(7)
    assert [mac_of(7) in macs for macs in listed(desk.run(0.04))] == [True]


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
