"""All streams of a node: limits, events, the heap of timers."""

from typing import Callable, List

import streamwire
from invariants import check_endpoint
from streamdesk import address, closing, in_flight, spend
from streamscript import MSS, PORT, RTT, THEIRS, WINDOW, Script, opened, shape, unconfirmed
from streamwire import ACK, FIN, WRAP

from alexstream import Congestion, Connected, EndOfStream, Readable


def test_time_never_goes_back() -> None:
    """An earlier `now` counts as the latest."""
    script = in_flight(2)
    script.endpoint.tick(now=script.now - 100)
    script.endpoint.path_changed(THEIRS, now=script.now - 100)
    assert script.endpoint.next_deadline() is not None
    script.endpoint.segments_to_send(now=script.now - 1)
    check_endpoint(script.endpoint)


def test_ts_names_the_transmission() -> None:
    """Strictly growing, also within a microsecond."""
    script = opened()
    script.session.send(bytes(8 * MSS))
    stamps = [wire.ts for wire in script.take_raw()]
    assert all(after > before for before, after in zip(stamps, stamps[1:]))
    assert len(stamps) == 8


def test_connected_and_accepted_are_told_first() -> None:
    script = unconfirmed()
    script.give(payload=b"hello")
    kinds = [type(event) for event in script.events()]
    assert kinds == [Connected, Readable]
    script.give(ACK | FIN)
    assert [type(event) for event in script.events()] == [EndOfStream]


def test_stamp_is_never_zero_on_the_wire() -> None:
    script = opened()
    script.endpoint.last_stamp = 2 * WRAP - 1
    script.session.send(b"x")
    assert [wire.ts for wire in script.take_raw()] == [1]
    script.endpoint.last_stamp = 3 * WRAP - 6
    script.session.send(bytes(8 * MSS))
    assert min(wire.ts for wire in script.take_raw()) > 0


def test_path_mtus_of_4096_peers_are_remembered() -> None:
    script = Script()
    for number in (*range(4096), 0, 4096):  # the first is heard of again, so the second is the oldest
        script.endpoint.path_changed(address(number + 1000), now=script.now, mtu=600)
    sizes = []
    for number in (1001, 1000, 5096):
        script.endpoint.connect(address(number), PORT, now=script.now)
        (syn,) = script.endpoint.segments_to_send(now=script.now)
        sizes.append(streamwire.unpack(syn.payload).segment_size)
    assert sizes == [MSS, 600 - 23 - 36 - 28, 600 - 23 - 36 - 28]


def test_no_listener_refusals_are_limited() -> None:
    script = Script()
    for number in range(1, 501):
        script.raw(script.syn(stream=number))
    assert len(script.take_raw()) == 200
    assert script.endpoint.drops["too many resets"] == 300


def test_time_wait_answers_are_limited() -> None:
    script = closing(opened())
    for _ in range(300):
        script.give(ACK | FIN, seq=0)
    assert len(script.take()) == 200


def test_listen_spent_cookies_are_forgotten_after_two_slots() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    for stream in (1, 2):
        spend(script, stream)
        script.wait(130.0)
    assert len(script.endpoint._spent) == 1


def test_established_loss_acknowledged_before_it_is_repaired() -> None:
    """The first copies were late only: nothing is sent again."""
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    script.give(ACK, ack=100)
    script.give(ACK, ack=5 * MSS)
    assert script.take() == []
    assert script.session.acked == 5 * MSS


def test_established_loss_and_probe_at_one_time_send_once() -> None:
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    script.wait(0.03)
    assert shape(script.take()) == [(0, MSS), (4 * MSS, MSS)]


def test_established_zero_window_is_no_black_hole() -> None:
    """Answered probes of a closed window say nothing of the path."""
    script = opened(window=0)
    script.session.send(bytes(5000))
    for _ in range(20):
        script.now = script.endpoint.next_deadline() or 0.0
        script.take()
        script.give(ACK)
    script.window = WINDOW
    script.give(ACK)
    assert shape(script.take())[0] == (0, MSS)


def test_established_small_segments_lost_are_no_black_hole() -> None:
    script = opened()
    for _ in range(12):
        script.session.send(b"x" * 100)
        script.take()
        script.run(0.15)
        script.give(ACK)
    script.session.send(bytes(5000))
    assert max(len(wire.payload) for wire in script.take()) == MSS


def test_timers_do_not_pile_up() -> None:
    """A conversation of short messages leaves no dead timers behind."""
    script = opened()
    for _ in range(3000):
        script.session.send(b"x")
        script.take()
        script.give(ACK, ack=script.ack + 1)
        script.take()
    assert len(script.endpoint._timers) <= 66


def test_congestion_window_step_by_step() -> None:
    window = Congestion(1000)
    seen = [window.window]
    steps: List[Callable[[], None]] = [
        lambda: window.on_delivered(2000),  # slow start
        lambda: window.on_loss(queueing=False),  # noise
        lambda: window.on_delivered(11400),  # avoidance: one segment a window
        lambda: window.on_loss(queueing=True),
        lambda: window.on_spurious(),
        lambda: window.on_spurious(),  # there is nothing left to undo
        lambda: window.collapse(),
        lambda: window.on_delivered(2000),  # slow start up to where the loss was
        lambda: window.on_loss(queueing=True),  # in slow start
        lambda: window.on_loss(queueing=True),  # two segments are the floor
    ]
    for step in steps:
        step()
        seen.append(round(window.window))
    assert seen == [10000, 12000, 11400, 12400, 8680, 12400, 12400, 2000, 4000, 2000, 2000]
