"""Meshes of Routers in virtual time: that they find ways, heal, and say little. Churn is for fuzz_mesh.py."""

import random
from typing import Any, Callable, List, Sequence, Tuple

import pytest
from fuzz_mesh import COMMON_VETO
from meshsim import BOOT_SEQ, HANDSHAKE, MESSAGE, STATUS, STREAM, TEXT, Network, Segment, SimNode, V1SimNode, mac_of

from constants import FLOODS_PER_SECOND, LOST_FLOODS_PER_SECOND
from protocol import (
    DuplicateAddress,
    Echoed,
    MessageReceived,
    NodeFound,
    NodeLost,
    PathChanged,
    RouteChanged,
    Undelivered,
)

Build = Callable[[Network], List[SimNode]]
SHAPES: List[Tuple[str, Build]] = [
    ("line of 4", lambda net: net.line(4)),
    ("line of 9", lambda net: net.line(9)),
    ("ring of 5", lambda net: net.ring(5)),
    ("diamond", lambda net: net.diamond()),
    ("grid", lambda net: net.grid(4, 4)),
    ("bus of 20", lambda net: net.bus(20)),
    ("hub and spokes", lambda net: hub(net, 6)),
    ("two buses", lambda net: two_buses(net, 6, 2)),
]


def hub(net: Network, spokes: int) -> List[SimNode]:
    """One segment on which the spokes hear only the hub, as with port isolation or Wi-Fi."""
    segment = net.segment()
    nodes = [net.node(segment) for _ in range(spokes + 1)]
    segment.isolated.update(node.ports[0] for node in nodes[1:])
    return nodes


def two_buses(net: Network, size: int, bridges: int) -> List[SimNode]:
    """Two segments of `size` nodes each, `bridges` of them on both."""
    left, right = net.segment(), net.segment()
    both = [net.node(left, right) for _ in range(bridges)]
    return both + [net.node(left) for _ in range(size)] + [net.node(right) for _ in range(size)]


def steady(net: Network, seconds: float = 8.0) -> None:
    """Let a mesh come to rest, and forget what it sent until then."""
    net.run(seconds)
    assert net.converged()
    net.frames.clear()
    net.bytes.clear()


def cable(a: SimNode, b: SimNode) -> Segment:
    return next(p.segment for p in a.ports for q in b.ports if p.segment is q.segment)


# --- Finding ways ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "build"), SHAPES)
def test_cold_start_reaches_everybody(shape: str, build: Build) -> None:
    for seed in range(3):
        net = Network(seed)
        build(net)
        assert net.run_until_converged() <= 0.3


@pytest.mark.parametrize(("shape", "build"), SHAPES)
def test_messages_between_all_pairs_are_delivered_and_routed(shape: str, build: Build) -> None:
    net = Network(1)
    nodes = build(net)
    steady(net)
    pairs = [(a, b) for a in nodes for b in nodes if a is not b]
    sent = [(a, b, a.message(b)) for a, b in random.Random(1).sample(pairs, min(len(pairs), 40))]
    net.run(0.05)
    assert all(a.delivered(msg_id) for a, _, msg_id in sent)
    hops = sum(len(net.walk(a, b) or ()) - 1 + len(net.walk(b, a) or ()) - 1 for a, b, _ in sent)
    assert net.sent(MESSAGE) + net.sent(STATUS) == hops  # each by its route, none flooded


def test_hops_names_and_mtu_of_far_nodes() -> None:
    net = Network(1)
    cables = [net.segment() for _ in range(3)]
    a = net.node(cables[0])
    net.node(cables[0], cables[1], mtu=1400)
    net.node(cables[1], cables[2], mtu=9000)
    d = net.node(cables[2], mtu=9000)
    steady(net)
    (info,) = [info for info in a.router.nodes() if info.address == d.address]
    assert (info.hops, info.mtu, info.name) == (3, 1400, "")
    token = a.do("echo", d.address)
    net.run(0.1)
    (echoed,) = a.happened(Echoed)
    assert echoed._replace(rtt=0.0) == Echoed(token, d.address, 3, 0.0, "n4", (4,))
    assert echoed.rtt == pytest.approx(0.0006)
    assert d.router.mtu_to(net.nodes[2].address) == 9000
    assert d.router.mtu_to(a.address) == 1400


def test_path_mtu_over_a_switch_without_jumbo_frames_is_1500() -> None:
    net = Network(1)
    good, bad = net.segment(), net.segment()
    bad.mtu = 1500
    a, b, c = net.node(good, mtu=9000), net.node(good, bad, mtu=9000), net.node(bad, mtu=9000)
    steady(net)
    assert [a.router.mtu_to(b.address), b.router.mtu_to(c.address), a.router.mtu_to(c.address)] == [9000, 1500, 1500]


def test_stream_over_eight_relays() -> None:
    net = Network(1)
    nodes = net.line(10)
    steady(net)
    for _ in range(100):
        nodes[0].stream(nodes[-1])
    net.run(0.1)
    assert len(nodes[-1].streams) == 100
    assert net.sent(STREAM) == 900


@pytest.mark.parametrize("loss", [0.05, 0.15])
def test_loss_delays_but_does_not_prevent(loss: float) -> None:
    for seed in range(5):
        net = Network(seed)
        nodes = net.line(4, loss=loss)
        assert net.run_until_converged(30) < 12
        net.run(5)
        ids = [nodes[0].message(nodes[3], timeout=30) for _ in range(20)]
        net.run(30)
        assert all(nodes[0].delivered(msg_id) for msg_id in ids)
        assert len(nodes[3].texts()) == 20


# --- Healing ---------------------------------------------------------------------------------------------------------


def outages(build: Build, ends: Tuple[int, int], fault: Callable[[Network, List[SimNode]], None]) -> float:
    """Return the longest gap of 10 ms probes after a fault on the way, in ms, worst of ten."""
    worst = 0.0
    for seed in range(10):
        net = Network(seed)
        nodes = build(net)
        steady(net)
        a, b = nodes[ends[0]], nodes[ends[1]]
        net.flow(a, b)
        net.run(2)
        way = net.walk(a, b)
        assert way is not None
        fault(net, way)
        since = net.now
        net.run(3)
        worst = max(worst, net.outage(b, since - 0.01))
    return 1000 * worst


def crash_relay(net: Network, way: List[SimNode]) -> None:
    way[len(way) // 2].crash()


def cut_port(net: Network, way: List[SimNode]) -> None:
    segment = cable(way[1], way[2])
    segment.cut(way[1].port_on(segment), way[2].port_on(segment))


def cut_one_way(net: Network, way: List[SimNode]) -> None:
    segment = cable(way[1], way[2])
    segment.cut(way[1].port_on(segment), way[2].port_on(segment), both=False)


@pytest.mark.parametrize(
    ("build", "ends", "fault", "limit"),
    [
        (lambda net: net.diamond(), (0, 3), crash_relay, 141),
        (lambda net: net.ring(5), (0, 2), crash_relay, 160),
        (lambda net: net.grid(4, 4), (0, 15), crash_relay, 311),
        (lambda net: net.diamond(), (0, 3), cut_port, 242),
        (lambda net: net.diamond(), (0, 3), cut_one_way, 329),
    ],
    ids=["diamond", "ring", "grid", "port", "one way"],
)
def test_outage_after_silent_death(
    build: Build, ends: Tuple[int, int], fault: Callable[[Network, List[SimNode]], None], limit: float
) -> None:
    """The limits are the prototype's worst figures on real frames."""
    assert outages(build, ends, fault) <= limit


def test_idle_death_is_found_without_traffic() -> None:
    net = Network(1)
    nodes = net.ring(5)
    steady(net)
    nodes[2].crash()
    net.run(9)
    assert net.converged()
    assert all(node.happened(NodeLost) == [NodeLost(nodes[2].address, "unreachable")] for node in net.alive())


def test_relay_that_leaves_costs_no_frame() -> None:
    net = Network(1)
    a, _b, _c, d = net.diamond()
    steady(net)
    sent = net.flow(a, d, interval=0.001, until=net.now + 2)
    back = net.flow(d, a, interval=0.001, until=net.now + 2)
    net.run(0.5)
    relay = (net.walk(a, d) or [])[1]
    relay.do("leave")
    net.at(net.now + 0.3, relay.crash)
    net.run(3)
    assert (len(d.streams), len(a.streams)) == (len(sent), len(back))
    assert a.happened(NodeLost) == [NodeLost(relay.address, "left")]


def test_relay_that_leaves_a_ring_costs_no_frame() -> None:
    """Here the other way is not feasible and must be asked for."""
    net = Network(1)
    nodes = net.ring(5)
    steady(net)
    sent = net.flow(nodes[0], nodes[2], interval=0.001, until=net.now + 2)
    net.run(0.5)
    nodes[1].do("leave")
    net.at(net.now + 0.3, nodes[1].crash)
    net.run(3)
    assert len(nodes[2].streams) == len(sent)


def test_restart_is_noticed_at_once_on_parallel_links() -> None:
    net = Network(1)
    one, two = net.segment(), net.segment()
    a, b = net.node(one, two), net.node(one, two)
    steady(net)
    b.crash()
    b.start()
    assert net.run_until_converged() < 0.2
    net.run(1)
    assert a.happened(NodeLost) == []


@pytest.mark.parametrize("seq", [0, BOOT_SEQ - 1000, BOOT_SEQ + 5, BOOT_SEQ + 100000, BOOT_SEQ + (1 << 30)])
def test_restart_with_any_seq_is_back_within_a_second(seq: int) -> None:
    net = Network(1)
    nodes = net.ring(6)
    steady(net)
    nodes[0].crash()
    net.run(0.5)
    nodes[0].start(seq=seq)
    net.run(1.0)
    assert net.converged()


def test_lost_retraction_is_repaired_by_the_first_data_frame() -> None:
    net = Network(1)
    a, b, c = net.line(3)
    steady(net)
    c.crash()
    ab = cable(a, b)
    ab.cut(b.ports[0], a.ports[0], both=False)
    b.stream(c)
    while b.router.path_to(c.address) is not None:
        net.run(0.01)
    net.run(0.02)
    ab.cuts.clear()
    assert a.router.path_to(c.address) is not None
    a.stream(c)
    net.run(0.01)
    assert a.router.path_to(c.address) is None


def test_streams_are_told_of_the_new_path() -> None:
    net = Network(1)
    a, _b, _c, d = net.diamond()
    steady(net)
    net.flow(a, d)
    net.run(1)
    (net.walk(a, d) or [])[1].crash()
    net.run(1)
    assert PathChanged(d.address, 1500) in a.happened(PathChanged)


# --- Saying little ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "limit"), [(5, 14), (20, 22), (50, 50)])
def test_control_load_of_a_bus(count: int, limit: float) -> None:
    net = Network(1)
    net.bus(count)
    steady(net, 30)
    net.run(50)
    assert net.sent() == net.sent(HANDSHAKE)
    assert net.sent() / count / 50 <= 0.22
    assert sum(net.bytes.values()) / count / 50 <= limit


@pytest.mark.parametrize(
    ("build", "limit"),
    [(lambda net: net.bus(50), 1), (lambda net: two_buses(net, 20, 5), 3), (lambda net: hub(net, 6), 7)],
    ids=["bus", "two buses", "hub"],
)
def test_broadcast_reaches_all_once_with_few_frames(build: Build, limit: int) -> None:
    net = Network(1)
    nodes = build(net)
    steady(net)
    for sender in nodes[-3:]:
        net.frames.clear()
        sender.do("broadcast", b"to all")
        net.run(0.1)
        assert net.sent(TEXT) <= limit
    for node in nodes:
        assert len(node.texts()) == 3 - (node in nodes[-3:])


def test_broadcast_in_a_grid_reaches_all_once() -> None:
    net = Network(1)
    nodes = net.grid(5, 5)
    steady(net)
    nodes[12].do("broadcast", b"to all")
    net.run(0.2)
    assert all(node.texts() == [b"to all"] for node in nodes if node is not nodes[12])
    assert net.sent(TEXT) <= 4 + sum(len(node.ports) - 1 for node in nodes if node is not nodes[12])


def test_message_to_nobody_fails_in_time_and_floods_little() -> None:
    net = Network(1)
    nodes = net.line(5)
    steady(net)
    start = net.now
    nodes[0].do("send_message", mac_of(99), b"x", timeout=3.0)
    net.run(4)
    (when,) = [t for t, event in nodes[0].events if isinstance(event, Undelivered)]
    assert when - start == pytest.approx(3.0)
    assert net.sent(MESSAGE) <= 6 + 3  # the repetitions are flooded no further


def test_stream_to_nobody_floods_little() -> None:
    net = Network(1)
    nodes = net.line(3)
    steady(net)
    ghost = net.node(net.segment(), start=False)
    for _ in range(1000):
        nodes[0].stream(ghost)
        net.run(0.001)
    assert net.sent(STREAM) <= 2 * (2 * FLOODS_PER_SECOND)


def test_stream_that_lost_its_route_floods_little() -> None:
    net = Network(1)
    nodes = net.line(4)
    steady(net)
    net.flow(nodes[0], nodes[3], interval=0.001, until=net.now + 4)
    net.run(1)
    nodes[3].crash()
    net.run(0.4)  # until it is known
    net.frames.clear()
    net.run(2)
    assert net.sent(STREAM) <= 3 * 3 * LOST_FLOODS_PER_SECOND


# --- Odd wiring ------------------------------------------------------------------------------------------------------


def test_lo_with_several_nodes() -> None:
    net = Network(1)
    lo = net.segment(loopback=True)
    nodes = [net.node(lo, mtu=65536) for _ in range(5)]
    steady(net)
    ids = [(a, a.message(b)) for a in nodes for b in nodes if a is not b]
    nodes[0].do("broadcast", b"to all")
    for _ in range(50):
        nodes[1].stream(nodes[2])
    net.run(0.1)
    assert all(a.delivered(msg_id) for a, msg_id in ids)
    assert net.sent(MESSAGE) == len(ids)
    assert net.sent(TEXT) == 1
    assert [len(node.streams) for node in nodes] == [0, 0, 50, 0, 0]
    assert nodes[0].router.mtu_to(nodes[1].address) == 65535


def test_lo_node_reaches_the_ethernet_by_floods_only() -> None:
    """Nobody forwards what came by `lo`: a program there takes a card of the machine too."""
    net = Network(1)
    lo, lan = net.segment(loopback=True), net.segment()
    inner, relay, outer = net.node(lo), net.node(lan, lo), net.node(lan)
    net.run(8)
    assert inner.router.path_to(outer.address) is None
    assert net.walk(outer, inner) == [outer, relay, inner]
    net.frames.clear()
    ids = [(inner, inner.message(outer)), (outer, outer.message(inner))]
    net.run(0.1)
    assert all(node.delivered(msg_id) for node, msg_id in ids)


def own_address(machine: int, program: int) -> bytes:
    """The address of a program that is not the first on its card."""
    return bytes((2, 0, 0, 0, machine, program))


def machine(net: Network, lans: Sequence[Segment], number: int, programs: int, **options: Any) -> List[SimNode]:
    """Return programs that share the cards of a machine, one on each LAN."""
    macs = [mac_of(number, index) for index in range(len(lans))]
    return [
        net.node(*lans, macs=macs, address=own_address(number, program) if program else macs[0], **options)
        for program in range(programs)
    ]


def route_changes(nodes: Sequence[SimNode]) -> int:
    return sum(len(node.happened(kind)) for node in nodes for kind in (RouteChanged, NodeFound, NodeLost))


def changes_in_30_s(net: Network) -> int:
    """Return how many routes change between the 4th and the 34th second after the last program was started."""
    for node in net.nodes:
        node.router.routes.tells_changes = True
    net.run(3)
    before = route_changes(net.nodes)
    net.frames.clear()
    net.run(30)
    return route_changes(net.nodes) - before


@pytest.mark.parametrize("cards", [2, 3, 5])
@pytest.mark.parametrize("programs", [1, 2, 5])
def test_programs_on_the_cards_of_a_lan_change_no_route_and_lose_nothing(cards: int, programs: int) -> None:
    net = Network(cards * 10 + programs)
    lan = net.segment()
    nodes = [node for number in range(1, cards + 1) for node in machine(net, [lan], number, programs)]
    assert changes_in_30_s(net) == 0
    assert net.sent() <= 7 * len(nodes)  # a HANDSHAKE in 4.5 to 5 s
    assert net.converged()
    for _ in range(100):
        a, b = net.rng.sample(nodes, 2)
        a.stream(b)
        net.run(0.001)
    assert sum(len(node.streams) for node in nodes) == 100
    assert net.sent(STREAM) == 100


@pytest.mark.parametrize("programs", [2, 3, 5])
def test_programs_on_both_cards_of_relays_change_no_route_and_lose_nothing(programs: int) -> None:
    net = Network(programs)
    left, right = net.segment(), net.segment()
    for number in (1, 2):
        machine(net, [left, right], number, programs)
    near, far = machine(net, [left], 3, programs), machine(net, [right], 4, programs)
    assert changes_in_30_s(net) == 0
    assert net.converged()
    for a, b in zip(near * 10, far * 10):
        a.stream(b)
        net.run(0.001)
    assert [len(node.streams) for node in far] == [10] * programs
    assert net.sent(STREAM) == 20 * programs  # each goes by one program of one relay


def test_with_common_vetoes_two_programs_on_each_end_of_a_cable_are_never_quiet() -> None:
    """So it was before there were slots, when they did not hear each other either."""
    net = Network(1)
    lan = net.segment()
    lan.deaf = True
    for number in (1, 2):
        machine(net, [lan], number, 2, kind=COMMON_VETO)
    assert changes_in_30_s(net) > 100


def test_nine_programs_on_one_card_are_reached_and_seven_forward() -> None:
    net = Network(1)
    left, right = net.segment(), net.segment()
    relays = machine(net, [left, right], 1, 9)
    (a,), (b,) = machine(net, [left], 2, 1), machine(net, [right], 3, 1)
    assert changes_in_30_s(net) == 0
    assert net.converged()
    for relay in relays[:7]:
        relay.crash()
    net.run(30)
    assert a.router.path_to(b.address) is None
    assert [net.walk(a, relay) for relay in relays[7:]] == [[a, relay] for relay in relays[7:]]


def test_program_that_takes_the_slot_of_one_that_was_killed_takes_its_place() -> None:
    net = Network(1)
    left, right = net.segment(), net.segment()
    first, second = machine(net, [left, right], 1, 2)
    (a,), (b,) = machine(net, [left], 2, 1), machine(net, [right], 3, 1)
    steady(net)
    first.crash()
    third = net.node(left, right, macs=[port.mac for port in first.ports], address=own_address(1, 9))
    net.run(0.2)
    assert {n.address for n in a.router.neighbours.all()} == {second.address, third.address}
    assert net.walk(a, b) in ([a, second, b], [a, third, b])


def test_two_programs_on_one_card_that_do_not_hear_each_other() -> None:
    """As on a system that does not show them each other's frames."""
    net = Network(1)
    lan = net.segment()
    lan.deaf = True
    (one, two), (other,) = machine(net, [lan], 1, 2), machine(net, [lan], 2, 1)
    assert changes_in_30_s(net) == 0
    net.frames.clear()
    ids = [(a, a.message(b)) for a, b in [(one, other), (two, other), (other, one), (other, two)]]
    for _ in range(20):
        other.stream(one)
        other.stream(two)
        net.run(0.01)
    assert all(node.delivered(msg_id) for node, msg_id in ids)
    assert (len(one.streams), len(two.streams)) == (20, 20)
    assert net.sent(MESSAGE) + net.sent(STATUS) + net.sent(STREAM) == 8 + 40


def test_two_programs_on_the_cards_of_a_relay() -> None:
    """A relay and a plain program on the same two cards: nothing is forwarded twice."""
    net = Network(1)
    left, right = net.segment(), net.segment()
    cards = [mac_of(1), mac_of(1, 1)]
    net.node(left, right, macs=cards)
    second = net.node(left, macs=cards[:1], address=bytes((2, 0, 0, 0, 0, 9)))
    a, b = net.node(left), net.node(right)
    net.run(8)
    net.frames.clear()
    for source, dest in [(a, b), (b, a), (second, a), (a, second)] * 10:
        source.stream(dest)
        net.run(0.01)
    assert [len(node.streams) for node in (a, b, second)] == [20, 10, 10]
    assert net.sent(STREAM) == 60


def test_two_interfaces_on_one_segment_give_no_duplicates() -> None:
    net = Network(1)
    lan = net.segment()
    twin, a, b = net.node(lan, lan), net.node(lan), net.node(lan)
    steady(net, 12)
    twin.do("broadcast", b"one")
    a.do("broadcast", b"two")
    ids = [(x, x.message(y)) for x in (twin, a, b) for y in (twin, a, b) if x is not y]
    net.run(0.1)
    assert all(node.delivered(msg_id) for node, msg_id in ids)
    assert sorted(b.texts()) == [b"hello", b"hello", b"one", b"two"]
    assert net.sent(TEXT) == 2
    assert twin.happened(DuplicateAddress) == []


def test_two_nodes_with_one_address_both_raise_an_alarm_and_nothing_loops() -> None:
    net = Network(1)
    lan = net.segment()
    one = net.node(lan, macs=[mac_of(7, 1)], address=mac_of(7))
    two = net.node(lan, macs=[mac_of(7, 2)], address=mac_of(7))
    other = net.node(lan)
    net.run(30)
    assert {event.mac for event in one.happened(DuplicateAddress)} == {mac_of(7, 2)}
    assert {event.mac for event in two.happened(DuplicateAddress)} == {mac_of(7, 1)}
    assert 2 <= len(one.happened(DuplicateAddress)) <= 4
    net.frames.clear()
    other.message(one)
    net.run(0.05)
    assert net.sent(MESSAGE) <= 2


def test_two_far_nodes_with_one_address_the_nearer_gets_the_traffic() -> None:
    net = Network(1)
    cables = [net.segment() for _ in range(5)]
    one = net.node(cables[0], address=mac_of(77))
    middle = [net.node(cables[i], cables[i + 1]) for i in range(4)]
    two = net.node(cables[4], address=mac_of(77))
    net.run(20)
    net.frames.clear()
    net.run(20)
    assert net.sent() / 20 / 10 < 0.5  # frames per second and port: they do not chase each other
    middle[0].stream(one)
    middle[3].stream(two)
    net.run(0.1)
    assert (len(one.streams), len(two.streams)) == (1, 1)


def test_port_pair_cut_on_a_bus_is_bridged_by_a_third_node() -> None:
    net = Network(1)
    a, b, c = net.bus(3)
    steady(net)
    net.flow(a, b)
    net.run(1)
    a.ports[0].segment.cut(a.ports[0], b.ports[0])
    since = net.now
    net.run(2)
    assert net.walk(a, b) == [a, c, b]
    assert net.outage(b, since - 0.01) < 0.3


def test_one_way_hearing_on_a_bus_is_bridged_by_a_third_node() -> None:
    net = Network(1)
    a, b, c = net.bus(3)
    steady(net)
    a.ports[0].segment.cut(a.ports[0], b.ports[0], both=False)
    net.run(12)
    assert net.converged()
    assert net.walk(a, b) == [a, c, b]
    assert net.walk(b, a) == [b, c, a]


# --- Mixed with v1.0 -------------------------------------------------------------------------------------------------


def test_v1_at_the_end_of_a_line_of_ours() -> None:
    net = Network(1)
    cables = [net.segment() for _ in range(3)]
    ours = [net.node(cables[max(i - 1, 0)], *cables[i : i + 1]) for i in (0, 1, 2)]
    old = net.v1(cables[2])
    net.run(8)
    assert net.walk(ours[0], old) == [*ours, old]
    ids = [ours[0].message(old) for _ in range(20)]
    net.run(1)
    assert all(ours[0].delivered(msg_id) for msg_id in ids)


def test_v1_at_both_ends_of_a_line_of_ours_discover_and_reach_each_other() -> None:
    net = Network(1)
    cables = [net.segment() for _ in range(4)]
    left = net.v1(cables[0])
    for i in range(3):
        net.node(cables[i], cables[i + 1])
    right = net.v1(cables[3])
    net.run(8)
    assert right.address in left.v1.known
    assert left.address in right.v1.known
    ids = []
    for number in range(20):
        ids.append((left, left.text(right, f"right {number}")))
        net.run(0.01)
        ids.append((right, right.text(left, f"left {number}")))
        net.run(0.1)
    assert all(msg_id in node.v1.acked for node, msg_id in ids)
    assert right.v1.printed == [(left.address, f"right {n}") for n in range(20)]


def behind_v1(net: Network) -> Tuple[SimNode, SimNode, SimNode]:
    """Return a, b, c of a - v1.0 - b - c: a and b hear only the v1.0 node between them."""
    lan, far = net.segment(), net.segment()
    a = net.node(lan)
    net.v1(lan)
    b, c = net.node(lan, far), net.node(far)
    lan.isolated.update((a.ports[0], b.ports[0]))
    return a, b, c


def test_ours_behind_v1_are_reached_by_flooding() -> None:
    net = Network(1)
    a, b, c = behind_v1(net)
    net.run(12)
    assert a.router.path_to(b.address) is None
    ids = [(x, x.message(y)) for x, y in [(a, c), (c, a), (a, b), (b, a)] * 20]
    net.run(1)
    assert all(node.delivered(msg_id) for node, msg_id in ids)
    assert len(c.texts()) == 20
    assert {info.address: info.hops for info in a.router.nodes()}[b.address] == 2


def test_ours_behind_v1_exchange_streams_by_flooding() -> None:
    net = Network(1)
    a, _b, c = behind_v1(net)
    net.run(12)
    for _ in range(50):
        a.stream(c)
        c.stream(a)
        net.run(0.02)
    assert (len(c.streams), len(a.streams)) == (50, 50)


def test_v1_to_ours_on_a_bus_is_not_repeated_by_ours() -> None:
    net, ours, old, _ = mixed_bus()
    msg_id = old.text(ours[3], "hello")
    net.run(0.1)
    assert msg_id in old.v1.acked
    assert net.sent(MESSAGE) == 2  # the other v1.0 node repeats it
    assert net.sent(STATUS) == 2  # one for each copy


def mixed_bus() -> Tuple[Network, List[SimNode], V1SimNode, V1SimNode]:
    """Return 18 of ours and two v1.0 nodes on one bus, at rest."""
    net = Network(1)
    ours = net.bus(18)
    old, other = net.v1(net.segments[0]), net.v1(net.segments[0])
    net.run(12.5)
    net.frames.clear()
    return net, ours, old, other


def test_v1_to_v1_on_a_bus_of_ours_takes_few_frames() -> None:
    net, _, old, other = mixed_bus()
    total = 0
    for number in range(20):
        msg_id = old.text(other, f"hello {number}")
        net.run(0.05)
        assert msg_id in old.v1.acked
        total += net.sent(MESSAGE) + net.sent(STATUS)
        net.frames.clear()
    assert total / 20 <= 2.5


def test_v1_spokes_reach_each_other_through_our_hub() -> None:
    net = Network(1)
    lan = net.segment()
    net.node(lan)
    old, other = net.v1(lan), net.v1(lan)
    lan.isolated.update((old.ports[0], other.ports[0]))
    net.run(8)
    msg_id = old.text(other, "hello")
    net.run(0.1)
    assert msg_id in old.v1.acked


def test_v1_behind_v1_is_reached_by_flooding() -> None:
    net = Network(1)
    lan = net.segment()
    a, near, far = net.node(lan), net.v1(lan), net.v1(lan)
    lan.isolated.update((a.ports[0], far.ports[0]))
    net.run(12)
    assert a.router.path_to(near.address) is not None
    assert a.router.path_to(far.address) is None
    msg_id = a.message(far)
    net.run(0.1)
    token = a.do("echo", far.address)
    net.run(1)
    assert a.delivered(msg_id)
    assert [(echoed.token, echoed.hops) for echoed in a.happened(Echoed)] == [(token, 2)]


def test_v1_nodes_and_ours_answer_each_other_without_end() -> None:
    """Two that answer every directed HANDSHAKE must not go on for ever."""
    net = Network(1)
    lan = net.segment()
    a, old = net.node(lan), net.v1(lan)
    net.run(8)
    net.frames.clear()
    a.do("announce")
    net.run(0.5)
    assert net.sent(HANDSHAKE) <= 4
    net.flow(a, old, interval=0.05, until=net.now + 10)
    net.run(10)
    assert net.sent(HANDSHAKE) / 10 <= 30


def test_v1_with_two_proxies_makes_no_loop_and_survives_one() -> None:
    net = Network(1)
    lan = net.segment()
    cables = [net.segment(), net.segment()]
    old = net.v1(lan)
    one, two = net.node(lan, cables[0]), net.node(lan, cables[1])
    far = net.node(*cables)
    net.run(70)  # past a change of the sequence number that both make for it
    way = net.walk(far, old) or []
    assert len(way) == 3
    way[1].crash()
    net.run(9)
    msg_id = far.message(old)
    net.run(0.2)
    assert far.delivered(msg_id)
    assert net.walk(far, old) == [far, two if way[1] is one else one, old]


def test_found_and_lost_are_told_once() -> None:
    net = Network(1)
    nodes = net.ring(5)
    net.run(60)
    for node in nodes:
        assert len(node.happened(NodeFound)) == 4
        assert node.happened(NodeLost) == []
        assert node.happened(MessageReceived) == []
