"""Messages: texts until they are acknowledged, echoes until they are answered; one node at a desk."""

import pytest
from desk import FAR, ME, Desk, Peer, echo_to_me, forwarding, near, of_type, route
from meshsim import BOOT_SEQ, mac_of

from constants import (
    BROADCAST_ADDRESS,
    EVERYONE,
    FLAG_PROBE,
    FLAG_REPLY,
    NO_SLOT,
    SWEEP_SECONDS,
    TTL_ROUTED,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
)
from protocol import (
    Delivered,
    Echoed,
    Handshake,
    MessageReceived,
    Route,
    StrangeNode,
    Undelivered,
    encode_handshake,
    status_payload,
)

# --- Data -------------------------------------------------------------------------------------------------------------


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


# --- Echo -------------------------------------------------------------------------------------------------------------


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


def test_echo_is_not_answered_by_another_node() -> None:
    """It may have seen the token on its way."""
    desk = Desk()
    token = desk.router.echo(mac_of(9), now=desk.now)
    answer = encode_handshake(Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, token))
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(8), ME, answer, ttl=30))
    assert desk.events(Echoed) == []
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, answer, ttl=30))
    assert [event.address for event in desk.events(Echoed)] == [mac_of(9)]


@pytest.mark.parametrize(("ttl", "hops"), [(31, 1), (30, 2), (21, 11)])
def test_echo_counts_hops_by_the_ttl_that_is_left(ttl: int, hops: int) -> None:
    desk = Desk()
    token = desk.router.echo(mac_of(9), now=desk.now)
    answer = encode_handshake(Handshake(FLAG_REPLY, 31, 5.0, 1500, 9, BOOT_SEQ, token))
    desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, answer, ttl=ttl))
    assert [(event.hops, event.name, event.ports) for event in desk.events(Echoed)] == [(hops, "", ())]


def test_echo_that_asks_nothing_is_not_answered() -> None:
    desk = Desk()
    desk.run(1.0)
    payload = encode_handshake(Handshake(0, 31, 5.0, 1500, 9, BOOT_SEQ, 5))
    assert desk.put(0, ME, mac_of(4), desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, payload, ttl=30)) == []


def test_echo_repeated_the_straight_way_is_answered_again() -> None:
    """Only of a flood there may be copies."""
    desk = Desk()
    desk.run(1.0)
    payload = encode_handshake(Handshake(FLAG_PROBE, 31, 5.0, 1500, 9, BOOT_SEQ, 5))
    frame = desk.frame(TYPE_HANDSHAKE, mac_of(9), ME, payload, ttl=30)
    assert [len(desk.put(0, ME, mac_of(4), frame)) for _ in range(2)] == [1, 1]
