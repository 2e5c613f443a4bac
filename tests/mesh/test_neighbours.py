"""Neighbours: hellos, the state of a link, probes, MTU, slots; one node at a desk."""

import random
from typing import List, Optional, Tuple

import pytest
from desk import (
    DEAD,
    FAR,
    HEARD,
    ME,
    PROBING,
    SUSPECT,
    UP,
    Desk,
    Peer,
    asked,
    cost,
    kill,
    listed,
    live,
    lo_peers,
    near,
    of_type,
    on_our_card,
    probes,
    reach,
    route,
    said_slot,
    starving,
    stream_to_me,
    told,
)
from meshsim import BOOT_SEQ, mac_of

from constants import (
    BROADCAST_ADDRESS,
    CONFIRM_SECONDS,
    EVERYONE,
    FLAG_BYE,
    FLAG_FULL,
    FLAG_PROBE,
    FLAG_REPLY,
    METRIC_UNREACHABLE,
    NO_SLOT,
    REPLIES_PER_SECOND,
    SEQ_JUMP_MAX,
    SWEEP_SECONDS,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STREAM,
)
from protocol import (
    LINK_MOVES,
    PAYLOAD_OFFSET,
    Echoed,
    Handshake,
    Heard,
    InterfaceConfig,
    LinkState,
    MessageReceived,
    NodeFound,
    NodeLost,
    PathChanged,
    Request,
    Route,
    Router,
    Undelivered,
    decode_handshake,
    encode_ethernet,
    encode_frame,
    encode_handshake,
)

# --- Greeting ---------------------------------------------------------------------------------------------------------


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


def test_hellos_are_30_ms_apart(desk: Desk) -> None:
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


def test_set_ports_are_told_with_the_next_hellos(desk: Desk) -> None:
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


# --- The state of a link ----------------------------------------------------------------------------------------------


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


# --- MTU --------------------------------------------------------------------------------------------------------------


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


def test_big_mtu_that_got_no_answer_is_tried_again_after_a_minute_while_data_flows() -> None:
    desk = Desk(mtu=9000)
    peer = Peer(2, mtu=9000)
    sent = desk.answer(peer, desk.hear(peer, heard=desk.lists_me(peer)))
    began, times = desk.now, []
    while desk.router.mtu_to(peer.address) == 1500:
        assert desk.now < began + 70
        padded = [s.handshake for s in sent if s.handshake and s.handshake.pad]
        times += [desk.now - began] * len(padded)
        for big in padded if len(times) > 3 else ():
            desk.hear(peer, FLAG_REPLY, ttl0=0, token=big.token)
        desk.stream(peer.address)
        desk.alive(peer)
        small = desk.run(0.04)
        sent = small + desk.answer(peer, small)
    assert [time < 1 for time in times] == [True, True, True, False]
    assert 60 < times[3] < 63
    assert desk.router.mtu_to(peer.address) == 9000


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


# --- Slots where locks cannot be had ----------------------------------------------------------------------------------


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


def test_who_said_bye_is_listed_no_more() -> None:
    desk = Desk()
    two, three = desk.up(2, 3)
    desk.hear(two, flags=FLAG_BYE)
    newcomer = Peer(4)
    desk.hear(newcomer)
    lists = listed(desk.run(0.1))
    assert {three.mac, newcomer.mac} in lists
    assert not any(two.mac in macs for macs in lists)


def test_neighbour_that_restarted_is_greeted_at_once() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    desk.run(1.0)
    two.nonce = 77
    desk.hear(two)
    hellos = [s.handshake for s in desk.run(0.04) if s.handshake and s.frame.ttl == TTL_V1]
    assert [h.heard for h in hellos] == [(Heard(two.mac, 77),)]


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


def test_neighbour_that_lists_thousands_is_believed_some() -> None:
    """The lists of one moment are one list, up to a bound."""
    desk = Desk()
    (two,) = desk.up(2)
    desk.run(1.0)
    for first in range(1000, 5000, 100):
        desk.hear(two, heard=tuple(Heard(mac_of(n), n) for n in range(first, first + 100)))
    assert len(desk.neighbour(two).heard) <= 700


def test_mtu_to_nobody_known_is_that_of_the_narrowest_card() -> None:
    wires = [InterfaceConfig("e0", mac_of(1, 0), 1500, False), InterfaceConfig("e1", mac_of(1, 1), 9000, False)]
    assert Router(ME, wires, rng=random.Random(1), now=0.0, seq=1).mtu_to(FAR) == 1500


def test_neighbour_that_is_not_up_is_answered_where_it_sends_from_now() -> None:
    desk = Desk()
    two = Peer(2)
    desk.hear(two)
    two.mac = mac_of(222)
    (answer,) = [s for s in desk.hear(two, FLAG_PROBE, ttl0=0, token=5) if s.handshake and s.handshake.token == 5]
    assert answer.destination == two.mac


def test_interface_that_is_down_stays_down_when_its_mtu_changes() -> None:
    desk = Desk(2)
    desk.router.interface_changed(1, up=False, now=desk.now)
    desk.router.interface_changed(1, mtu=1400, now=desk.now)
    desk.router.broadcast(b"text", now=desk.now)
    assert [s.interface for s in of_type(desk.take(), TYPE_BROADCAST)] == [0]


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


def test_hello_has_no_token() -> None:
    desk = Desk()
    desk.up(2)
    assert {s.handshake.token for s in desk.run(6.0) if s.handshake and s.frame.ttl == TTL_V1} == {0}


def test_bye_on_the_second_interface_is_a_bye() -> None:
    desk = Desk(2)
    (two,) = desk.up(2, interface=1)
    desk.events()
    desk.hear(two, flags=FLAG_BYE)
    desk.run(0.01)
    assert desk.events(NodeLost) == [NodeLost(two.address, "left")]


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


def test_neighbour_whose_card_now_takes_less_is_sent_less() -> None:
    desk = Desk()
    (two,) = desk.up(2)
    two.mtu = 1000
    desk.hear(two)
    assert desk.router.mtu_to(two.address) == 1000


def test_interface_that_was_down_greets_again_whatever_was_heard_meanwhile() -> None:
    desk = Desk()
    desk.up(2)
    desk.router.interface_changed(0, up=False, now=desk.now)
    desk.hear(Peer(3))  # what was under way
    desk.run(1.0)
    desk.router.interface_changed(0, up=True, now=desk.now)
    assert [s for s in desk.run(0.031) if s.frame.ttl == TTL_V1]


# --- Neighbours -------------------------------------------------------------------------------------------------------


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


def test_table_of_three_frames_is_told_in_three_hellos_and_old_after_nine() -> None:
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


# --- What restarts, moves, comes and goes -----------------------------------------------------------------------------


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
    hello = next(t.frame for t in desk.router.frames_to_send(now=desk.now) if t.interface == 0)
    desk.router.receive(1, hello, now=desk.now)
    two, _twin = desk.up(2)[0], desk.up(2, interface=1)[0]
    sent = desk.put(0, desk.macs[0], two.mac, desk.frame(TYPE_MESSAGE, two.address, FAR, b"text"))
    assert [s.interface for s in of_type(sent, TYPE_MESSAGE)] == [0]


def test_dead_neighbour_that_keeps_hello_is_not_asked_each_time() -> None:
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
        hello = desk.frame(TYPE_HANDSHAKE, mac_of(7), EVERYONE, bytes(23), TTL_V1)
        desk.put(0, BROADCAST_ADDRESS, mac_of(77), hello)
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


def test_first_route_is_told_without_a_hello() -> None:
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
