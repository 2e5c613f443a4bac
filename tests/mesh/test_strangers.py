"""What strangers can make a node do: how much it sends because of them, whom it still hears, how far numbers move."""

import itertools
import random
from typing import Callable, List, Sequence

import pytest
from bench_strangers import CONVERSATIONS, VICTIM, Talk, crowd_of_512, flush_seconds, storm
from desk import ME, Desk, Peer, Sent, asked, forwarding, of_type, probes, route, told
from fuzz_mesh import check_no_cycle
from meshsim import BOOT_SEQ, Network, Port, SimNode, mac_of

from constants import (
    BROADCAST_ADDRESS,
    CREDIT_BYTES,
    CREDIT_PER_SECOND,
    EVERYONE,
    FLAG_PROBE,
    FLAG_REPLY,
    SEQ_JUMP_MAX,
    SEQ_MAX,
    TTL_V1,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
    TYPE_STREAM,
    UPDATE_GAP,
)
from protocol import Frame, Handshake, Heard, Request, Route, encode_ethernet, encode_frame, encode_handshake

# --- Bytes in and bytes out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CONVERSATIONS))
@pytest.mark.parametrize("interfaces", [1, 3])
def test_strangers_get_no_more_bytes_than_they_send(name: str, interfaces: int) -> None:
    """Four hundred frames of as many invented origins, all at once and ten a second; within the next 25 s."""
    for gap in (0.0, 0.1):
        talk = Talk(interfaces).run(CONVERSATIONS[name], 400, gap)
        assert talk.sent <= 1.7 * talk.received, (gap, talk)


def test_third_party_gets_few_frames_because_of_invented_v1_nodes(desk_at_rest: Desk) -> None:
    """It is named as their Ethernet source: an answer for each, and questions as far as they paid for that."""
    desk = desk_at_rest
    sent: List[Sent] = []
    for number in range(1000, 1040):
        frame = desk.frame(TYPE_HANDSHAKE, mac_of(number), desk.router.address, bytes(23), TTL_V1)
        sent += desk.put(0, desk.macs[0], VICTIM, frame)
    sent += desk.run(25)
    assert len([s for s in sent if s.destination == VICTIM]) <= 3 * 40


@pytest.fixture
def desk_at_rest() -> Desk:
    desk = Desk()
    desk.run(1)
    return desk


def test_answers_without_a_route_are_flooded_as_far_as_the_questions_pay_for_it() -> None:
    """From the Ethernet address of a neighbour, but of origins that nobody knows."""
    desk = Desk(3)
    (peer,) = desk.up(2)
    received = sent = 0
    for number in range(1000, 1400):
        frame = desk.frame(TYPE_MESSAGE, mac_of(number), desk.router.address, b"x")
        received += 14 + len(encode_frame(frame))
        answers = of_type(desk.put(0, desk.macs[0], peer.mac, frame), TYPE_STATUS)
        sent += sum(14 + len(encode_frame(s.frame)) for s in answers)
    assert 0 < sent <= received + CREDIT_BYTES + CREDIT_PER_SECOND * desk.now
    assert desk.router.drops["limit"] > 0


def test_requests_with_rising_numbers_are_passed_on_four_times_a_second(two_sided: Desk) -> None:
    a, b = forwarding(two_sided)
    passed: List[Request] = []
    for step in range(200):
        request = Request(b.address, BOOT_SEQ + step, 64)
        passed += asked(two_sided.hear(a, ttl0=0, requests=[request]) + two_sided.run(0.01))
    assert len(passed) <= 4 + 2 * 4


@pytest.fixture
def two_sided() -> Desk:
    return Desk(2)


def test_large_table_is_told_to_a_newcomer_that_has_answered() -> None:
    """Else seventy bytes of anybody would fetch all of it."""
    desk = Desk(2)
    (far,) = desk.up(2, interface=1)
    (near,) = desk.up(3)
    for first in (1000, 1100, 1200, 1300):
        desk.hear(far, routes=[route(number) for number in range(first, first + 100)])
    desk.run(0.5)
    desk.router.local.credit._left = 500
    newcomer = Peer(4)
    sent = desk.hear(newcomer, heard=desk.lists_me(newcomer, near)) + desk.run(0.02)
    assert len(told(sent)) < 200
    assert probes(sent)
    assert len({r.dest for r in told(desk.answer(newcomer, sent) + desk.run(0.05))}) >= 400


def test_large_table_is_told_once_to_a_newcomer_that_answers_twice() -> None:
    desk = Desk(2)
    (far,) = desk.up(2, interface=1)
    (near,) = desk.up(3)
    desk.hear(far, routes=[route(number) for number in range(1000, 1090)])
    desk.run(0.5)
    desk.router.local.credit._left = 500
    newcomer = Peer(4)
    sent = desk.hear(newcomer, heard=desk.lists_me(newcomer, near)) + desk.run(0.02)
    assert len({r.dest for r in told(desk.answer(newcomer, sent) + desk.run(0.05))}) >= 90
    desk.router.hint(newcomer.address, now=desk.now)
    assert len(told(desk.answer(newcomer, desk.take()) + desk.run(0.05))) < 5


def test_neighbour_that_cannot_pay_is_told_of_as_soon_as_it_answers() -> None:
    """Else seventy bytes of anybody would be told to a whole LAN."""
    desk = Desk(2)
    (known,) = desk.up(2, interface=1)
    desk.router.hint(known.address, now=desk.now)
    desk.answer(known, desk.take())
    newcomer = Peer(3)
    desk.hear(newcomer, heard=desk.lists_me(newcomer))
    desk.router.local.credit._left = 100.0  # enough for a probe
    sent = desk.run(0.02)
    assert told(sent, 1) == []
    assert [s.frame.dest for s in probes(sent)] == [newcomer.address]
    sent = desk.answer(newcomer, sent) + desk.run(UPDATE_GAP)
    assert [r.dest for r in told(sent, 1)] == [newcomer.address]


def credit(desk: Desk) -> float:
    return desk.router.local.credit._left


def test_bytes_are_earned_from_strangers_and_from_neighbours_that_have_never_answered_alone() -> None:
    desk = Desk()
    known, silent = desk.up(2, 3)
    desk.router.hint(known.address, now=desk.now)
    desk.answer(known, desk.take())
    assert desk.neighbour(known).srtt > 0
    for origin, source, is_paid in (
        (known.address, known.mac, False),
        (silent.address, silent.mac, True),
        (mac_of(99), mac_of(99), True),
    ):
        desk.router.local.credit._left = 100.0
        data = encode_ethernet(ME, source, encode_frame(desk.frame(TYPE_STREAM, origin, ME, bytes(200))))
        desk.router.receive(0, data, now=desk.now)
        assert (credit(desk) > 100) is is_paid, origin


def test_neighbour_that_has_answered_is_probed_also_when_all_is_spent() -> None:
    desk = Desk()
    (peer,) = desk.up(2)
    desk.router.hint(peer.address, now=desk.now)
    desk.answer(peer, desk.take())
    desk.neighbour(peer).sent = float("-inf")
    desk.router.local.credit._left = -512.0
    desk.router.hint(peer.address, now=desk.now)
    assert len(probes(desk.take())) == 1


def test_neighbour_that_data_went_to_is_probed_also_when_all_is_spent() -> None:
    desk = Desk()
    (peer,) = desk.up(2)
    assert desk.stream(peer.address)
    desk.router.local.credit._left = -500.0
    desk.router.hint(peer.address, now=desk.now)
    assert [s.frame.dest for s in probes(desk.take())] == [peer.address]


@pytest.mark.parametrize("lacks", ["turn", "credit"])
def test_newcomer_needs_both_a_turn_and_credit(lacks: str) -> None:
    desk = Desk()
    if lacks == "turn":
        for bucket in desk.router.neighbours.newcomers:
            bucket._tokens = 0.0
    else:
        desk.router.local.credit._left = -100.0  # its own frame does not pay for that
    desk.router.neighbours.newcomers[0]._filled = desk.router.local.credit._filled = desk.now
    desk.hear(Peer(2))
    assert desk.router.neighbours.all() == []
    assert desk.router.drops["newcomers"] == 1


def test_neighbour_that_is_only_heard_is_not_told_name_and_ports() -> None:
    """They are longer than the question."""
    desk = Desk()
    stranger = Peer(2)
    desk.hear(stranger)
    (reply,) = [s.handshake for s in desk.hear(stranger, FLAG_PROBE, ttl0=0, token=7) if s.handshake]
    assert (reply.flags & FLAG_REPLY, reply.token, reply.name) == (FLAG_REPLY, 7, None)


# --- A storm of them -------------------------------------------------------------------------------------------------


def test_storm_of_60000_newcomers_costs_little_and_is_forgotten() -> None:
    result = storm(count=6000, seconds=1.0)
    assert result.neighbours <= 512
    assert result.destinations <= 4096
    assert result.slowest_ping < 0.5
    assert result.newcomers_message < 2.0
    assert result.newcomer_is_neighbour_after < 6.0


def test_newcomer_that_lists_us_is_let_in_while_others_are_too_many(desk_at_rest: Desk) -> None:
    desk = desk_at_rest
    for number in range(1000, 2000):
        desk.hear_v1(number)
        desk.hear(Peer(number + 1000))
    assert desk.router.drops["newcomers"] > 1000
    (peer,) = desk.up(2)
    assert desk.hop(peer.address) == peer.address


def test_flush_among_512_neighbours_does_not_compare_them_pair_by_pair() -> None:
    """That took 0.3 s; now it takes 1 ms (bench_strangers.py)."""
    router = crowd_of_512()
    assert len(router.neighbours.all()) == 512 + 2
    assert flush_seconds(router) < 0.05


# --- Numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [SEQ_JUMP_MAX + 10, SEQ_MAX - BOOT_SEQ - 1, SEQ_MAX - BOOT_SEQ])
def test_no_frame_moves_our_number_more_than_the_bound_beyond_the_clock(ahead: int) -> None:
    desk = Desk()
    (peer,) = desk.up(2)
    desk.hear(peer, ttl0=0, requests=[Request(desk.router.address, BOOT_SEQ + ahead, 9)])
    desk.hear(peer, routes=[Route(desk.router.address, BOOT_SEQ + ahead, 10, 1500)])
    assert desk.router.local.seq == BOOT_SEQ


def test_node_without_a_clock_takes_the_number_it_once_had_but_not_the_last() -> None:
    desk = Desk(boot_seq=0)
    (peer,) = desk.up(2)
    desk.hear(peer, ttl0=0, requests=[Request(desk.router.address, SEQ_MAX, 9)])
    assert desk.router.local.seq == 1
    desk.hear(peer, ttl0=0, requests=[Request(desk.router.address, BOOT_SEQ, 9)])
    assert desk.router.local.seq == BOOT_SEQ


MSG_IDS = itertools.count(1)
LIAR = mac_of(66)


def to_everyone(source: bytes, origin: bytes, handshake: Handshake) -> bytes:
    frame = Frame(TYPE_HANDSHAKE, origin, EVERYONE, TTL_V1, next(MSG_IDS), encode_handshake(handshake))
    return encode_ethernet(BROADCAST_ADDRESS, source, encode_frame(frame))


def lie(port: Port, routes: Sequence[Route] = (), requests: Sequence[Request] = ()) -> bytes:
    """A HANDSHAKE of a neighbour that offers or wants routes."""
    heard = (Heard(port.mac, port.node.router.local.nonce),)
    handshake = Handshake(0, TTL_V1, 5.0, 1500, 66, 1, heard=heard)
    return to_everyone(LIAR, LIAR, handshake._replace(routes=tuple(routes), requests=tuple(requests)))


Attack = Callable[[Port, SimNode], List[bytes]]


def ask_for_the_last(port: Port, victim: SimNode) -> List[bytes]:
    return [lie(port, requests=[Request(victim.address, SEQ_MAX, 64)])]


def offer_the_last(port: Port, victim: SimNode) -> List[bytes]:
    return [lie(port, routes=[Route(victim.address, SEQ_MAX, 10, 1500)])]


def walk_to_the_end(port: Port, victim: SimNode) -> List[bytes]:
    steps = range(BOOT_SEQ, SEQ_MAX, SEQ_JUMP_MAX - 1)
    asked = [lie(port, requests=[Request(victim.address, seq, 64)]) for seq in steps]
    return asked + [lie(port, routes=[Route(victim.address, seq, 10, 1500)]) for seq in steps]


def pose_as_it(port: Port, victim: SimNode) -> List[bytes]:
    heard = (Heard(port.mac, port.node.router.local.nonce),)
    return [to_everyone(LIAR, victim.address, Handshake(0, TTL_V1, 5.0, 1500, 66, SEQ_MAX, heard=heard))]


@pytest.mark.parametrize("attack", [ask_for_the_last, offer_the_last, walk_to_the_end, pose_as_it])
@pytest.mark.parametrize("has_clock", [True, False])
@pytest.mark.parametrize("is_down", [True, False])
def test_victim_that_restarts_is_reached_within_ten_seconds(attack: Attack, has_clock: bool, is_down: bool) -> None:
    """By its neighbour and by those behind it; the attacker is on every segment, while the victim runs or is away."""
    net = Network(3)
    nodes = net.line(4)
    victim = nodes[-1]
    net.run(8)
    if is_down:
        victim.crash()
        net.run(3)
    for _ in range(5):
        for port in [port for node in net.alive() for port in node.ports]:
            for frame in attack(port, victim):
                port.node.receive(port, frame)
                net.pump(port.node)
        net.run(0.5)
    if not is_down:
        victim.crash()
        net.run(1.5)
    victim.start(seq=None if has_clock else 0)
    started = net.now
    while not net.converged():
        net.run(0.1)
        assert net.now < started + 10, [(n.number, n.router.routes.table.get(victim.address)) for n in nodes[:-1]]


def test_random_lies_close_no_circle() -> None:
    """A lie about a far number makes nodes start afresh, one by one, while frames are under way."""
    rng = random.Random(5)
    net = Network(5)
    nodes = net.grid(3, 3)
    net.run(5)
    attacks = (ask_for_the_last, offer_the_last, pose_as_it)
    for _ in range(60):
        victim, liar_hears = rng.choice(nodes), rng.choice(nodes)
        if rng.random() < 0.2:
            victim.crash()
            net.at(net.now + 0.2, victim.start)
        port = rng.choice(liar_hears.ports)
        for frame in rng.choice(attacks)(port, victim) if liar_hears.up else ():
            liar_hears.receive(port, frame)
            net.pump(liar_hears)
        for _ in range(40):
            net.run(0.02)
            check_no_cycle(net)
    net.run(25)
    assert net.converged()
