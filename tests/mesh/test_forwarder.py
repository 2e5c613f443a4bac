"""Forwarder: routed frames, floods, the fast path, odd wiring; one node at a desk."""

from typing import Any, List, Sequence

import pytest
from desk import (
    DEAD,
    FAR,
    HEARD,
    ME,
    UP,
    Desk,
    Peer,
    forwarding,
    lo_peers,
    near,
    of_type,
    own_hello,
    probes,
    reach,
    route,
    stream_to_me,
    told,
    told_on_reverse,
)
from meshsim import BOOT_SEQ, mac_of

from constants import (
    BROADCAST_ADDRESS,
    EVERYONE,
    FLAG_BYE,
    FLAG_PROBE,
    FLAG_REPLY,
    FLOODS_PER_SECOND,
    LOST_FLOODS_PER_SECOND,
    MESH_HEADER_BYTES,
    METRIC_UNREACHABLE,
    NAKS_PER_SECOND,
    NO_SLOT,
    TTL_ROUTED,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
    TYPE_STREAM,
)
from protocol import (
    PAYLOAD_OFFSET,
    DuplicateAddress,
    LinkState,
    MessageReceived,
    Route,
    StrangeNode,
    encode_ethernet,
    encode_frame,
)

# --- Data -------------------------------------------------------------------------------------------------------------


def test_no_more_strange_nodes_are_told_of_than_anybody_would_read(desk: Desk) -> None:
    for number in range(1000, 2000):
        desk.put(0, ME, mac_of(7), desk.frame(TYPE_MESSAGE, mac_of(number), ME, b"\0\1"))
    assert len(desk.events(StrangeNode)) == 64


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


def test_origin_of_zeros_is_not_told_as_a_group(desk: Desk) -> None:
    desk.put(0, BROADCAST_ADDRESS, mac_of(7), desk.frame(TYPE_HANDSHAKE, EVERYONE, EVERYONE, bytes(23), TTL_V1))
    assert desk.router.drops["origin"] == 1
    assert desk.events() == []


@pytest.mark.parametrize("year", [2106, 2120, 9999])
def test_clock_of_the_next_century_is_none(year: int) -> None:
    desk = Desk(boot_seq=(year - 1970) * 31556952)
    assert desk.router.local.seq == 1


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


@pytest.mark.parametrize("kind", [TYPE_MESSAGE, TYPE_STATUS, TYPE_STREAM, TYPE_HANDSHAKE])
def test_routed_frame_goes_on_with_ttl_less_one(two: Desk, kind: int) -> None:
    a, b = forwarding(two)
    for _ in range(2):  # the second takes the fast path
        frame = two.frame(kind, a.address, b.address, bytes(9), ttl=7)
        (sent,) = two.put(0, two.macs[0], a.mac, frame)
        assert (sent.interface, sent.destination, sent.frame) == (1, b.mac, frame._replace(ttl=6, slot=NO_SLOT))


@pytest.mark.parametrize(("ttl", "onward"), [(0, []), (1, [0]), (5, [4]), (31, [30])])
def test_routed_frame_ttl(two: Desk, ttl: int, onward: List[int]) -> None:
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
    """Nor between two relays that point at each other."""
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


def test_cached_flow_ends_when_a_dead_program_on_the_same_card_starts_again(two: Desk) -> None:
    """The new one may rely on what was advertised before this node knew of it: nothing of that card is forwarded."""
    a, b = forwarding(two)
    twin = Peer(4)
    twin.mac, twin.slot = a.mac, 1
    two.hear(twin, heard=two.lists_me(twin))
    reach(two, twin, DEAD)
    two.alive(a)
    for is_restarted in False, True:
        if is_restarted:
            twin.nonce += 1
            two.hear(twin, heard=())
        sent = two.put(0, two.macs[0], a.mac, two.frame(TYPE_STREAM, a.address, b.address, b"x"))
        to = {s.destination for s in of_type(sent, TYPE_STREAM)}
        assert to == {BROADCAST_ADDRESS if is_restarted else b.mac}


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


# --- Odd wiring -------------------------------------------------------------------------------------------------------


def test_two_interfaces_on_one_segment_flood_on_one_of_them(two: Desk) -> None:
    hello = own_hello(two, 0)
    two.router.receive(1, hello, now=two.now)
    two.router.broadcast(b"x", now=two.now)
    assert [s.interface for s in two.take()] == [0]
    two.run(21)
    two.router.broadcast(b"x", now=two.now)
    assert [s.interface for s in of_type(two.take(), TYPE_BROADCAST)] == [0, 1]


def test_flood_that_arrives_on_the_shadow_is_not_repeated_on_the_same_segment(two: Desk) -> None:
    two.router.receive(1, own_hello(two, 0), now=two.now)
    (a,) = two.up(2)
    two.up(2, interface=1)
    two.put(1, BROADCAST_ADDRESS, a.mac, two.frame(TYPE_BROADCAST, a.address, EVERYONE, b"x"))
    assert two.run(0.01) == []


def test_own_frames_that_come_back_on_the_same_interface_are_dropped() -> None:
    desk = Desk(loopback=True)
    assert desk.router.receive(0, own_hello(desk, 0), now=desk.now) is None
    stream = encode_ethernet(bytes(6), bytes(6), encode_frame(desk.frame(TYPE_STREAM, ME, FAR, b"x")))
    for _ in range(3):
        assert desk.router.receive(0, stream, now=desk.now) is None
    assert desk.router.drops["own"] == 4
    assert desk.events() == []


def test_own_hello_that_lost_its_end_raises_no_alarm(desk: Desk) -> None:
    hello = own_hello(desk, 0)
    assert desk.router.receive(0, hello[: 14 + MESH_HEADER_BYTES], now=desk.now) is None
    assert desk.events() == []


def test_another_node_with_this_address_raises_an_alarm_every_ten_seconds(desk: Desk) -> None:
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
    hello = desk.run(0.1)[-1].handshake
    assert hello is not None
    assert hello.slot == slot


def test_new_mac_is_used_at_once_and_transit_waits_until_it_is_listed(two: Desk) -> None:
    a, b = forwarding(two)
    two.macs[0] = mac_of(77)
    two.router.interface_changed(0, mac=mac_of(77), slot=2, now=two.now)
    (hello,) = [s.handshake for s in two.run(0.031) if s.interface == 0 and s.handshake and s.frame.ttl == TTL_V1]
    assert hello.slot == 2
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


def test_interface_that_is_up_already_and_says_so_again_floods_once() -> None:
    desk = Desk()
    desk.up(2)
    desk.router.interface_changed(0, up=True, now=desk.now)
    desk.router.broadcast(b"text", now=desk.now)
    assert len(of_type(desk.take(), TYPE_BROADCAST)) == 1


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


@pytest.mark.parametrize("payload", [b"", b"text"])
def test_own_broadcast_that_comes_back_is_no_other_node(payload: bytes) -> None:
    desk = Desk()
    desk.put(0, BROADCAST_ADDRESS, mac_of(4), desk.frame(TYPE_BROADCAST, ME, EVERYONE, payload, ttl=TTL_V1))
    assert desk.events() == []
    assert desk.router.drops == {"own": 1}


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


def test_flooded_frame_without_ttl_goes_nowhere() -> None:
    desk = Desk(2)
    (two,), (three,) = desk.up(2), desk.up(3, interface=1)
    desk.hear(three, routes=(route(99),))
    desk.run(0.1)
    frame = desk.frame(TYPE_MESSAGE, mac_of(8), FAR, b"text", ttl=0)
    assert desk.put(0, BROADCAST_ADDRESS, two.mac, frame) == []
    assert desk.router.drops["ttl"] == 1


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


def test_broadcast_sent_to_us_alone_is_not_acknowledged() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    assert desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_BROADCAST, two.address, ME, b"text")) == []
    assert [event.data for event in desk.events(MessageReceived)] == [b"text"]


# --- Frames in a row --------------------------------------------------------------------------------------------------


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
