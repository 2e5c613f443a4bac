"""More of test_stream_scripts.py: what mutation showed to be untested. One rule a test, exact numbers."""

import gc
import random
import struct
import tracemalloc
from typing import Callable, List, Optional, Tuple

import pytest
import streamwire
from streamscript import MSS, OURS, PORT, RTT, START, THEIRS, WINDOW, Script, accepted, opened, shape, unconfirmed
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, WRAP, Wire
from test_stream_scripts import answer_to, closing, in_flight, reason, spend

from alexstream import Congestion, End, Endpoint, Receiver, RoundTrip, SegmentState, Sender, Stalled, State, buffer_size
from constants import BUFFER_BYTES, STREAMS_MAX
from utils import Range

# --- Opening --------------------------------------------------------------------------------------------------------


def test_listen_two_cookies_given_at_once_are_both_good() -> None:
    """That the first comes back does not void the second."""
    script = Script()
    script.endpoint.listen(PORT)
    answers = [answer_to(script, script.syn(stream=stream))[0] for stream in (1, 2)]
    for stream, answer in zip((1, 2), answers):
        assert answer_to(script, script.cookie_echo(answer, stream=stream))[0].flags == ACK
    assert len(script.endpoint.sessions) == 2


def test_listen_spent_cookie_is_refused_after_another_was_spent() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn(stream=1))
    echo = script.cookie_echo(answer, stream=1)
    script.raw(echo)
    script.take_raw()
    script.raw(echo._replace(flags=RST | ACK | INIT, ts=echo.ts + 1))
    (other,) = answer_to(script, script.syn(stream=2))
    script.raw(script.cookie_echo(other, stream=2))
    script.take_raw()
    assert [reply.flags for reply in answer_to(script, echo)] == [RST]


def test_listen_the_128_seconds_of_a_spent_cookie_begin_when_it_is_spent() -> None:
    """A cookie lives two slots at most, and is remembered for as long: to the end of 120 s it opens nothing again."""
    script = Script()
    script.endpoint.listen(PORT)
    script.now = 64.0 * 100
    (answer,) = answer_to(script, script.syn(stream=1))
    echo = script.cookie_echo(answer, stream=1)
    script.raw(echo)
    script.take_raw()
    script.raw(echo._replace(flags=RST | ACK | INIT, ts=echo.ts + 1))
    script.wait(120.0)
    (other,) = answer_to(script, script.syn(stream=2))
    script.raw(script.cookie_echo(other, stream=2))
    script.take_raw()
    assert [reply.flags for reply in answer_to(script, echo)] == [RST]


def test_syn_ack_tells_when_the_peer_was_heard() -> None:
    script = Script()
    script.connect()
    script.wait(0.01)
    script.raw(script.syn_ack())
    heard = script.now
    script.take()
    script.run(3.0)
    assert [event.since for event in script.events() if isinstance(event, Stalled)] == [heard]


def test_not_open_yet_is_not_at_its_end() -> None:
    script = opened()
    assert not script.session.at_eof
    script.give(payload=b"x")
    assert not script.session.at_eof
    script.session.read(1)
    assert not script.session.at_eof
    script.give(ACK | FIN)
    assert script.session.at_eof


# --- What the sender makes of acknowledgements ----------------------------------------------------------------------


def test_established_sacked_bytes_open_the_congestion_window() -> None:
    """Ten segments were the limit; two of them SACKed make room for themselves and for two more."""
    script = opened()
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 10
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 3 * MSS)])
    assert shape(script.take()) == [((10 + n) * MSS, MSS) for n in range(4)]


def test_established_acknowledgement_of_part_of_a_segment_opens_the_window_by_that_part() -> None:
    script = opened()
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 10
    script.wait(RTT)
    script.give(ACK, ack=MSS // 2)
    assert script.take() == []  # twice 706 of 1413: not yet a segment
    script.give(ACK, ack=MSS)
    assert len(script.take()) == 2


def opened_over(rtt: float) -> Script:
    """Like `opened`, over a path of another round trip."""
    script = Script()
    script.connect()
    script.wait(rtt)
    script.raw(script.syn_ack())
    script.take()
    script.wait(rtt)
    script.give(ACK)
    script.events()
    assert script.take() == []
    return script


def repair_time(script: Script) -> float:
    """Two segments leave and the second arrives; return how long after that news the first is repaired, needlessly."""
    start = script.ack
    script.session.send(bytes(2 * MSS))
    first, second = script.take_raw()
    script.wait(0.01)
    script.give(ACK, sacks=[(start + MSS, start + 2 * MSS)], echo=second.ts)
    began = script.now
    while not script.take():
        script.now = script.endpoint.next_deadline() or 0.0
    waited = script.now - began
    script.give(ACK, ack=start + 2 * MSS, echo=first.ts)
    script.take()
    return waited


def test_established_reordering_window_doubles_when_a_loss_was_none() -> None:
    """A quarter of the least round trip of 10 ms (RFC 8985 section 6.2); then half of it; then the whole, at most."""
    script = opened_over(0.01)
    times = [repair_time(script) for _ in range(4)]
    assert times[0] == pytest.approx(0.0025, abs=0.00002)
    assert times[1] == pytest.approx(0.0053, abs=0.0002)
    assert times[2] == pytest.approx(0.0108, abs=0.0003)
    assert times[3] == pytest.approx(0.0135, abs=0.0005)


def test_established_window_opens_again_and_probes_start_anew() -> None:
    """Five probes of a closed window are no reason to wait longer for what leaves when it opens."""
    script = opened(window=100)
    script.session.send(bytes(1000))
    script.take()
    script.window = 0
    script.give(ACK, ack=100)
    assert len({time for time, _ in script.run(0.65)}) == 5
    script.window = 500
    script.give(ACK, ack=100)
    assert shape(script.take()) == [(100, 500)]
    assert [time for time, _ in script.run(0.03)][:1] == [pytest.approx(0.02, abs=0.001)]


@pytest.mark.parametrize("size", [1, 5 * MSS])
def test_established_idle_then_data_has_180_seconds(size: int) -> None:
    """The user timeout counts from when there is something to wait for, not from when the peer was last heard."""
    script = opened()
    script.run(100.0)
    script.session.send(bytes(size))
    script.run(179.0)
    assert reason(script) == ""
    script.run(3.0)
    assert reason(script) == "timed out"


@pytest.mark.parametrize("ack", [MSS, 2 * MSS, 2 * MSS + 1])
def test_established_acknowledgement_that_stops_inside_a_sacked_range_takes_the_sack_back(ack: int) -> None:
    """Who holds it all would acknowledge to its end (RFC 2018 section 8): what is missing is sent again, at once."""
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 3 * MSS)])
    script.take()
    script.give(ACK, ack=ack)
    again = script.take()
    assert again[0].seq == ack
    assert again[-1].seq + len(again[-1].payload) == 3 * MSS
    script.give(ACK, ack=5 * MSS)
    assert script.run(5.0) == []


# --- What the receiver makes of segments ----------------------------------------------------------------------------


def test_established_echo_never_goes_back() -> None:
    """In order, but stamped before the one that came first: the latest stamp is echoed."""
    script = opened()
    script.give(payload=b"one", ts=2_000_000)
    script.give(payload=b"two", ts=1_999_990)
    script.give(ACK | PUSH, ts=1_999_995)
    assert [wire.echo for wire in script.take_raw()] == [2_000_000]
    assert script.session.read(10) == b"onetwo"


def test_established_data_beyond_an_early_fin_is_dropped() -> None:
    script = opened()
    script.give(ACK | FIN, seq=100)
    script.give(seq=90, payload=bytes(20))
    assert script.endpoint.drops["contradiction"] == 1
    script.give(seq=0, payload=b"y" * 100)
    assert script.session.read(200) == b"y" * 100
    assert script.session.at_eof


def test_established_peer_with_a_new_clock_after_15_idle_minutes_stays() -> None:
    """Not its first segment alone: those after it are measured against that one."""
    script = opened()
    script.give(payload=b"a", ts=500_000_000)
    script.wait(901.0)
    script.give(payload=b"b", ts=100_000_000)
    script.give(payload=b"c", ts=100_000_001)
    assert script.session.read(3) == b"abc"
    script.give(seq=3, payload=b"d", ts=100_000_002)
    assert script.session.read(1) == b"d"


# --- TIME-WAIT ------------------------------------------------------------------------------------------------------


def test_time_wait_repeated_data_does_not_prolong_it() -> None:
    """Only the peer's FIN does: it shows that our acknowledgement was lost."""
    script = closing(opened())
    script.wait(9.0)
    script.give(ACK | PUSH, seq=1)
    assert [wire.flags for wire in script.take()] == [ACK]
    script.run(1.5)
    script.give(ACK | FIN, seq=0)
    assert [wire.flags for wire in script.take_raw()] == [RST | INIT]


def test_time_wait_answer_offers_no_window() -> None:
    script = closing(opened())
    script.give(ACK | FIN, seq=0)
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.ack, wire.window) == (ACK, 1, 1, 0)


def test_time_wait_empty_push_from_beyond_is_only_acknowledged() -> None:
    script = closing(opened())
    script.give(ACK | PUSH, seq=5)
    assert [wire.flags for wire in script.take()] == [ACK]


# --- Timers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(62, 72))
def test_timers_that_were_superseded_leave_the_others_in_place(count: int) -> None:
    """Delayed acknowledgements, each set before the keepalive: all of them leave in time, and so does that."""
    script = opened()
    script.seq = script.ack = 0
    script.connect()  # another, while the first is idle
    script.raw(script.syn_ack())
    script.give(ACK)
    script.events()
    script.take_raw()
    for _ in range(count):
        script.give(payload=b"x")
        assert [round(time, 4) for time, _ in script.run(0.006)] == [0.005]
    last, asked = script.now, []
    while script.now < last + 15.0:
        asked += [script.now - last for wire in script.take_raw() if wire.flags & PUSH]
        script.now = script.endpoint.next_deadline() or last + 15.0
    assert asked == [pytest.approx(15 - 0.006 * count, abs=0.01), pytest.approx(15 - 0.006)]


def test_timers_of_many_streams_survive_each_other() -> None:
    """64 streams wait for an answer; all probe, whatever became of the heap meanwhile."""
    endpoint = Endpoint(OURS, rng=random.Random(1))
    sessions = [endpoint.connect(THEIRS, PORT, now=START) for _ in range(64)]
    now, syns = START, 0
    while now < START + 16:
        syns += len(endpoint.segments_to_send(now=now))
        endpoint.check()
        deadline = endpoint.next_deadline()
        if deadline is None:
            break
        now = deadline
    assert syns == 64 * 31
    assert all(session.closed == End("no answer", 0, 0) for session in sessions)


# --- Windows --------------------------------------------------------------------------------------------------------


def filled(count: int) -> Script:
    """A stream of ours whose peer has sent `count` bytes, which nobody has read; all of them are acknowledged."""
    script = opened()
    while script.seq < count:
        script.give(payload=bytes(min(MSS, count - script.seq)))
        script.take()
    script.give(ACK | PUSH)
    assert [(wire.ack, wire.window) for wire in script.take()] == [(count, WINDOW - count)]
    return script


@pytest.mark.parametrize(
    ("held", "read", "told"),
    [
        (WINDOW // 2 + 1, 4 * MSS, True),
        (WINDOW // 2 + 1, 4 * MSS - 1, False),
        (WINDOW // 2, 4 * MSS, False),  # half the window is still open
        (WINDOW - 1, 4 * MSS - 1, False),
        (WINDOW - 1, 4 * MSS, True),
        (WINDOW, MSS - 1, False),
        (WINDOW, MSS, True),  # nothing is open: one segment is news enough
    ],
)
def test_established_reading_is_told_when_it_is_worth_it(held: int, read: int, told: bool) -> None:
    """Four segments where less than half the window is open, one where it is closed (RFC 9293 section 3.8.6.2.2)."""
    script = filled(held)
    script.session.read(read)
    updates = [(wire.flags, wire.window) for wire in script.take()]
    assert updates == ([(ACK, WINDOW - held + read)] if told else [])


def test_established_probe_of_a_narrow_window_fills_it() -> None:
    """Ten bytes are not worth a segment, but as a probe they are better than none."""
    script = opened(window=7 * MSS)
    script.session.send(bytes(20_000))
    script.take()
    script.window = 10
    script.give(ACK, ack=7 * MSS)
    assert script.take() == []
    assert [(round(time, 4), wire.seq, len(wire.payload)) for time, wire in script.run(0.03)] == [(0.02, 7 * MSS, 10)]


# --- Timers of the sender -------------------------------------------------------------------------------------------


def test_established_each_transmission_starts_the_probe_timer_anew() -> None:
    """RFC 9002 section 6.2.1: 20 ms after the last one, not after the first."""
    script = opened()
    script.session.send(b"one")
    script.take()
    script.wait(0.015)
    script.session.send(b"two")
    script.take()
    assert [round(time, 4) for time, _ in script.run(0.03)] == [0.02, 0.02]


def test_established_second_probe_asks_with_a_small_segment_too() -> None:
    """Head and tail at first; from the second probe on an empty one beside them, which any path lets through."""
    script = in_flight(5)
    probes: List[List[Tuple[int, int]]] = [[], []]
    for time, wire in script.run(0.07):
        probes[time > 0.03].append((wire.seq, len(wire.payload)))
    assert probes[0] == [(0, MSS), (4 * MSS, MSS)]
    assert probes[1] == [(0, MSS), (4 * MSS, MSS), (5 * MSS, 0)]


def test_established_small_probe_answered_means_no_longer_wait() -> None:
    """The peer is there, and it is the path that does not carry the big one: the next probe comes after 20 ms again."""
    script = in_flight(2)
    script.run(0.15)  # probes at 20, 60, 140 ms
    script.give(ACK)  # answers the small one of the last
    times = sorted({round(time, 3) for time, _ in script.run(0.1)})
    assert times == [pytest.approx(0.02, abs=0.001), pytest.approx(0.06, abs=0.001)]


@pytest.mark.parametrize("window", [0, WINDOW])
def test_syn_sent_many_tries_do_not_slow_down_what_follows(window: int) -> None:
    """The sixth SYN is answered after 1 ms; the cookie is repeated after 20 ms, as if it had been the first."""
    script = Script()
    script.window = window
    script.connect()
    for _ in range(5):
        script.now = script.endpoint.next_deadline() or 0.0
        assert len(script.take_raw()) == 1
    script.wait(RTT)
    script.raw(script.syn_ack())
    assert [wire.flags for wire in script.take()] == [ACK | PUSH]
    assert [(round(time, 4), wire.flags) for time, wire in script.run(0.03)] == [(0.02, ACK | PUSH)]


def test_established_probe_answered_without_echo_counts_as_the_last_copy() -> None:
    """Head and tail were sent again as 6th and 7th; the head's 6th has arrived, so 2nd and 3rd must be lost."""
    script = in_flight(5)
    script.run(0.021)
    script.give(ACK, ack=MSS, echo=0)
    assert shape(script.take())[:2] == [(MSS, MSS), (2 * MSS, MSS)]


def test_established_segment_larger_than_the_congestion_window_leaves_when_nothing_flies() -> None:
    """After a collapse the window is two small segments; then the path grows, and one large segment must fit."""
    script = opened(mtu=9000, segment_size=8913)
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=600)
    script.take()
    script.session.send(bytes(513))
    script.take()
    script.run(0.15)
    script.give(ACK, ack=513)
    script.take()
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=9000)
    script.session.send(bytes(20_000))
    assert shape(script.take()) == [(513, 8913)]


def test_established_resumed_is_told_once() -> None:
    script = in_flight(2)
    script.run(0.31)
    script.events()
    for ack in (1, 2, 3):
        script.give(ACK, ack=ack)
    assert script.names().count("Resumed") == 1


# --- What a segment carries -----------------------------------------------------------------------------------------


def test_established_abort_reports_no_pieces() -> None:
    """A reset says where we are, and nothing of what we hold beyond a gap."""
    script = opened()
    script.give(seq=100, payload=b"x")
    script.take()
    script.session.abort()
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.ack, wire.window, wire.sacks) == (RST | ACK, 0, 0, 0, ())


@pytest.mark.parametrize(
    ("mtu", "blocks"), [(151, 11), (155, 11), (157, 12), (159, 12), (183, 15), (191, 16), (1500, 16)]
)
def test_established_sacks_fit_the_smallest_path(mtu: int, blocks: int) -> None:
    """As many blocks of 8 bytes, with 2 before them, as fit where the payload and three blocks would."""
    script = opened()
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=mtu)
    for number in range(20):
        script.give(seq=10 * number + 10, payload=b"x")
    script.give(ACK | PUSH)
    wires = script.take()
    assert [len(wire.sacks) for wire in wires] == [blocks]
    assert 23 + 36 + 2 + 8 * blocks <= mtu


def test_congestion_second_loss_with_a_queue_is_no_slow_start() -> None:
    """The window stands at the threshold: x 0.7, not x 0.5 (RFC 5681: slow start is below it)."""
    window = Congestion(1000)
    window.on_delivered(90_000)
    seen = []
    for _ in range(3):
        window.on_loss(queueing=True)
        seen.append(round(window.window))
    assert seen == [50_000, 35_000, 24_500]


def test_established_two_overtaken_segments_are_repaired_each_in_its_time() -> None:
    """2 ms after each was sent; the timer of the first is not put off by the second."""
    script = opened()
    for pause in (0.0005, 0.0001, RTT):
        script.session.send(bytes(MSS))
        assert len(script.take()) == 1
        script.wait(pause)
    script.give(ACK, sacks=[(2 * MSS, 3 * MSS)])
    assert [(round(time, 4), wire.seq) for time, wire in script.run(0.002)] == [(0.0004, 0), (0.0009, MSS)]


def test_round_trip_keeps_the_least() -> None:
    trip = RoundTrip()
    for milliseconds in (8, 5, 7):
        trip.sample(milliseconds / 1000)
    assert trip.minimum == 0.005


@pytest.mark.parametrize(("milliseconds", "queue"), [(9.9, False), (10.0, True)])
def test_round_trips_show_a_queue_when_a_quarter_longer_than_the_least(milliseconds: float, queue: bool) -> None:
    trip = RoundTrip()
    for sample in (8.0, *[milliseconds] * 4):
        trip.sample(sample / 1000)
    assert trip.shows_queue == queue


def test_congestion_collapse_is_not_undone() -> None:
    window = Congestion(1000)
    window.on_loss(queueing=False)
    window.collapse()
    window.on_spurious()
    assert window.window == 2000


def test_round_trips_show_a_queue_when_all_of_the_last_four_had_grown() -> None:
    trip = RoundTrip()
    seen = []
    for milliseconds in (1, 9, 9, 9, 9, 1, 9):
        trip.sample(milliseconds / 1000)
        seen.append(trip.shows_queue)
    assert seen == [False, False, False, False, True, False, False]


def test_writable_is_what_send_would_take() -> None:
    script = opened()
    assert script.session.writable == BUFFER_BYTES
    script.session.send(bytes(1000))
    assert script.session.writable == BUFFER_BYTES - 1000
    script.session.finish()
    assert script.session.writable == 0


def test_writable_is_told_only_to_who_was_refused() -> None:
    script = opened()
    script.session.send(bytes(1000))
    script.take()
    script.give(ACK, ack=1000)
    assert script.names() == ["Acked"]


def test_established_plain_data_is_acknowledged_after_5_ms_too() -> None:
    """By the fast path: a segment with nothing but data, after one that said the rest."""
    script = opened()
    for _ in range(3):
        script.give(payload=b"x", echo=0)
        assert [round(time, 4) for time, _ in script.run(0.01)] == [0.005]
    for _ in range(3):
        script.give(payload=b"x", echo=0)
        assert script.take() == []
    script.give(payload=b"x", echo=0)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 7)]


@pytest.mark.parametrize("news", ["ack", "window"])
def test_established_data_that_says_something_else_too_is_heard_in_full(news: str) -> None:
    """The fast path leaves alone what carries an acknowledgement or opens the window."""
    script = opened(window=5 * MSS)
    script.session.send(bytes(10 * MSS))
    assert len(script.take()) == 5
    script.give(payload=b"x", echo=0)
    script.take()
    if news == "window":
        script.window = 7 * MSS
    script.give(payload=b"x", ack=2 * MSS if news == "ack" else None, echo=0)
    assert shape(script.take())[:2] == [(5 * MSS, MSS), (6 * MSS, MSS)]
    assert script.session.read(10) == b"xx"


def test_established_loss_acknowledged_in_part_is_repaired_from_there() -> None:
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    script.give(ACK, ack=MSS // 2, sacks=[(MSS, 4 * MSS)])
    assert shape(script.take()) == [(MSS // 2, MSS - MSS // 2)]


def test_established_burst_is_32_segments_and_what_was_just_delivered() -> None:
    script = opened()
    script.session.send(bytes(300 * MSS))
    counts, sent = [], 0
    for _ in range(4):
        counts.append(len(script.take()))
        sent += counts[-1]
        script.wait(RTT)
        script.give(ACK, ack=(sent - 1) * MSS)  # one stays on the way: else it is a new beginning
    assert counts == [10, 18, 36, 68]


def test_established_repeated_fin_is_no_contradiction() -> None:
    script = opened()
    for _ in range(2):
        script.give(ACK | FIN, seq=0)
        assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 1)]
    assert script.endpoint.drops == {}


def test_established_fin_beyond_a_full_window_waits_for_its_turn() -> None:
    script = filled(WINDOW)
    script.give(ACK | FIN, seq=WINDOW)
    assert [(wire.ack, wire.window) for wire in script.take()] == [(WINDOW, 0)]
    script.session.read(WINDOW)
    script.take()
    assert not script.session.at_eof
    script.give(ACK | FIN, seq=WINDOW)
    assert script.session.at_eof


def test_syn_sent_path_changes_size_of_the_next_syn() -> None:
    script = Script()
    script.connect()
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=900)
    (syn,) = script.take_raw()
    assert syn.segment_size == 900 - 23 - 36 - 28


def test_listen_cookie_without_init_opens_nothing() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn())
    echo = script.cookie_echo(answer)
    assert [reply.flags for reply in answer_to(script, echo._replace(flags=echo.flags & ~INIT))] == [RST | INIT]
    assert script.endpoint.sessions == {}


def test_listen_accepting_takes_one_acknowledgement() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn())
    assert [reply.flags for reply in answer_to(script, script.cookie_echo(answer, b"x"))] == [ACK]


def over_with_data() -> Script:
    """Both sides have finished; the peer had sent four bytes."""
    script = opened()
    script.give(payload=b"data")
    script.session.finish()
    script.take()
    script.give(ACK | FIN, ack=1)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 5)]
    assert reason(script) == "finished"
    return script


def test_time_wait_repeated_data_is_acknowledged() -> None:
    script = over_with_data()
    script.give(seq=0, payload=b"data")
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 5)]


def test_time_wait_acknowledgement_is_not_answered() -> None:
    script = over_with_data()
    script.give(ACK)
    assert script.take() == []


def test_time_wait_fin_with_a_wrong_tag_is_not_answered() -> None:
    script = over_with_data()
    script.give(ACK | FIN, seq=4, tag=1)
    assert script.take() == []
    assert script.endpoint.drops == {"closed": 1}


def test_established_path_back_starts_the_probes_anew() -> None:
    """At once, and then after 20 ms, however long the silence had grown."""
    script = in_flight(2)
    script.run(3.0)
    script.endpoint.path_changed(THEIRS, now=script.now)
    times = sorted({round(time, 4) for time, _ in script.run(0.07)})
    assert times == [0, 0.02, 0.06]


def test_established_silence_is_told_anew_after_the_peer_was_heard() -> None:
    """Four silent probes each time: those before it spoke do not count."""
    script = in_flight(2)
    script.run(0.15)  # three
    script.give(ACK, ack=1)
    script.events()
    script.run(0.15)
    assert script.names() == []


def test_congestion_begins_with_two_large_segments_or_ten_small_ones() -> None:
    """RFC 6928 section 2."""
    assert [Congestion(mss).window for mss in (100, 1413, 5000, 9000)] == [1000, 14130, 14600, 18000]


def test_established_fin_is_acknowledged_at_once_before_the_stream_is_whole() -> None:
    script = opened()
    script.give(payload=b"x", flags=ACK | DATA | FIN)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 2)]


def test_round_trip_is_smoothed_by_rfc_6298() -> None:
    """Section 2: the first sample R gives R and R/2; then an eighth and a quarter of the news."""
    trip = RoundTrip()
    trip.sample(0.010)
    assert [trip.srtt, trip.rttvar] == pytest.approx([0.010, 0.005 * 3 / 4])
    trip.sample(0.018)
    assert [trip.srtt, trip.rttvar] == pytest.approx([0.011, 0.00375 + (0.008 - 0.00375) / 4])
    assert trip.probe_timeout(0) == pytest.approx(0.011 + 4 * 0.0048125 + 0.005)


def test_writable_is_nothing_after_the_end() -> None:
    script = opened()
    script.session.abort()
    assert script.session.writable == 0


def test_readable_is_told_once_until_it_is_fetched() -> None:
    script = opened()
    for _ in range(3):
        script.give(payload=b"x")
    assert script.names() == ["Readable"]
    script.give(payload=b"x")
    assert script.names() == ["Readable"]


def test_writable_is_told_once_for_one_refusal() -> None:
    script = opened()
    assert script.session.send(bytes(BUFFER_BYTES + 1)) == BUFFER_BYTES
    told = []
    for ack in (MSS, 2 * MSS):
        script.take()
        script.give(ACK, ack=ack)
        told += script.names()
    assert told.count("Writable") == 1


def test_first_segments_echo_the_stamps_of_the_handshake() -> None:
    """So the peer has its first round trip, too."""
    script = Script()
    script.connect()
    answer = script.syn_ack()
    script.raw(answer)
    assert [wire.echo for wire in script.take_raw()] == [answer.ts]
    script = Script()
    script.endpoint.listen(PORT)
    (reply,) = answer_to(script, script.syn())
    echo = script.cookie_echo(reply)
    assert [wire.echo for wire in answer_to(script, echo)] == [echo.ts]


@pytest.mark.parametrize("kind", [opened, accepted])
def test_established_beginning_of_an_expected_segment_is_dropped(kind: Callable[[], Script]) -> None:
    """Every truncation, those that begin like the next data segment too; then the whole is taken."""
    script = kind()
    segment = script.packed(ACK, payload=b"payload")
    for length in range(len(segment)):
        script.feed(segment[:length])
    assert sum(script.endpoint.drops.values()) == len(segment)
    script.feed(segment)
    assert script.session.read(10) == b"payload"


def test_established_plain_data_shows_that_the_peer_lives() -> None:
    """By the fast path, every ten seconds: no keepalive, and each time something to read."""
    script = opened()
    script.give(payload=b"x")
    sent = []
    for _ in range(10):
        script.events()
        script.give(payload=b"x", echo=0)
        assert script.names() == ["Readable"]
        sent += script.run(10.0)
    assert {wire.flags for _, wire in sent} == {ACK}


@pytest.mark.parametrize(("sent", "received"), [(BUFFER_BYTES, 0), (0, 300 * MSS)])
def test_closed_streams_give_their_memory_back(sent: int, received: int) -> None:
    """Not when the garbage collector comes by: what was not delivered at once, the rest with the last timers."""
    script = Script()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(100):
            script.seq = script.ack = 0
            script.connect()
            script.raw(script.syn_ack())
            script.give(ACK)
            script.session.send(bytes(sent))
            for _ in range(0, received, 10 * MSS):
                script.give(payload=bytes(10 * MSS))
            script.take()
            script.session.abort()
            script.take()
            script.events()
        assert tracemalloc.get_traced_memory()[0] < 75 * received + 2 * BUFFER_BYTES
    finally:
        tracemalloc.stop()
        gc.enable()


def test_time_wait_lasts_ten_seconds_from_the_last_fin() -> None:
    script = closing(opened())
    for _ in range(3):
        script.run(9.0)
        script.give(ACK | FIN, seq=0)
        assert [wire.flags for wire in script.take()] == [ACK]


def test_congestion_spurious_loss_in_slow_start_lets_it_go_on() -> None:
    window = Congestion(1000)
    window.on_loss(queueing=True)
    window.on_spurious()
    window.on_delivered(5000)
    assert window.window == 15_000


def test_established_unknown_option_that_looks_like_a_sack_is_none() -> None:
    script = in_flight(5)
    start = script.our_isn + 1 + MSS
    option = struct.pack(">BBII", 9, 10, start % WRAP, (start + 3 * MSS) % WRAP) + bytes(2)
    wire = streamwire.unpack(script.packed(ACK))
    script.raw(wire, options=option)
    assert script.take() == []


# --- What comes in a row, by the fast path --------------------------------------------------------------------------


def plain(script: Script, *payloads: bytes) -> None:
    """Data segments that say nothing else, in one batch."""
    batch = [script.packed(ACK, payload=payload, echo=0) for payload in payloads]
    script.endpoint.receive_all(THEIRS, batch, now=script.now)
    script.endpoint.check()


def test_established_plain_data_beyond_the_window_is_not_stored() -> None:
    script = opened()
    plain(script, b"x")
    while script.seq < WINDOW - 1000:
        plain(script, bytes(1000))
    script.take()
    last = WINDOW - script.seq
    plain(script, bytes(last + 1))
    script.take()
    plain(script, b"beyond")
    assert script.session.readable == WINDOW
    assert [wire.window for wire in script.take()] == [0]


def test_established_plain_data_fills_a_gap() -> None:
    script = opened()
    plain(script, b"a")
    script.give(seq=3, payload=b"d")
    script.take()
    plain(script, b"bc")
    assert script.session.read(10) == b"abcd"
    assert [wire.ack for wire in script.take()] == [4]


def test_established_plain_data_before_a_fin_that_came_early_is_the_last() -> None:
    script = opened()
    plain(script, b"a")
    script.give(ACK | FIN, seq=3)
    script.take()
    plain(script, b"bc")
    assert script.session.read(10) == b"abc"
    assert script.session.at_eof
    assert [wire.ack for wire in script.take()] == [4]


def test_established_plain_data_in_one_batch_is_acknowledged_once_by_the_fourth() -> None:
    script = opened()
    plain(script, b"a")
    assert [(time, wire.ack) for time, wire in script.run(0.01)] == [(0.005, 1)]
    plain(script, b"b", b"c", b"d")
    assert script.take() == []
    plain(script, b"e")
    assert [wire.ack for wire in script.take()] == [5]


def test_presses_who_waits_for_an_acknowledgement_that_no_answer_will_carry() -> None:
    """One segment's goes with the application's answer; of several or out of order, the peer must hear at once."""
    script = opened()
    seen = [script.session.presses]
    for seq in (0, 1, 5):
        script.give(ACK | PUSH, seq=seq, payload=b"x")
        seen.append(script.session.presses)
        if seq == 1:
            script.take()
            seen.append(script.session.presses)
    assert seen == [False, False, True, False, True]


# --- Scoreboard -----------------------------------------------------------------------------------------------------


def test_established_lost_tail_is_found_by_the_echo_of_a_repaired_head() -> None:
    """The second copy arrived, sent after the tail: that was overtaken a round trip ago."""
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    assert shape(script.take()) == [(0, MSS)]
    script.wait(RTT)
    script.give(ACK, ack=4 * MSS)
    assert shape([wire for _, wire in script.run(0.002)]) == [(4 * MSS, MSS)]


def test_established_acknowledgement_of_some_says_nothing_of_the_rest() -> None:
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, ack=2 * MSS)
    script.give(ACK, ack=2 * MSS + 10)
    assert script.run(0.015) == []


def test_established_sack_without_acknowledgement_makes_no_room() -> None:
    script = opened()
    script.session.send(bytes(BUFFER_BYTES + 1))
    script.take()
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 2 * MSS)])
    assert script.names() == []
    script.give(ACK, ack=MSS)
    assert "Writable" in script.names()


def test_established_acknowledgement_is_not_late_because_data_flies() -> None:
    script = in_flight(1)
    script.wait(RTT)
    script.give(ack=0, payload=b"x")
    assert [(time, wire.flags) for time, wire in script.run(0.01)] == [(0.005, ACK)]


def test_established_same_path_again_repeats_only_the_probe() -> None:
    """What flies in segments of just the size that fits is not lost."""
    script = in_flight(5)
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=1500)
    assert shape(script.take()) == [(0, MSS), (4 * MSS, MSS)]
    script.give(ACK, ack=5 * MSS)
    assert script.run(1.0) == []


def test_congestion_is_cut_once_a_round() -> None:
    """Two losses of one window of data, seen one after the other."""
    script = in_flight(10)
    congestion = script.session.sender.congestion
    before = congestion.window
    script.session.send(bytes(30 * MSS))
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 5 * MSS)])
    script.take()
    cut = congestion.window
    assert cut < before
    script.wait(0.0001)
    script.give(ACK, sacks=[(6 * MSS, 10 * MSS)])
    script.take()
    assert congestion.window >= cut


# --- Timers of several streams --------------------------------------------------------------------------------------


def open_another(script: Script) -> None:
    """One more stream of ours, beside those that there are."""
    script.seq = script.ack = script.last_stamp = 0
    script.connect()
    script.raw(script.syn_ack())
    script.give(ACK)
    script.take_raw()


def test_time_wait_of_one_stream_does_not_prolong_that_of_another() -> None:
    script = closing(opened())
    first = (script.stream, script.our_isn)
    script.wait(5.0)
    open_another(script)
    closing(script)
    second = (script.stream, script.our_isn)
    script.wait(1.0)
    script.stream, script.our_isn = first
    script.give(ACK | FIN, seq=0, ack=1)
    assert [wire.flags for wire in script.take()] == [ACK]  # until 16 s
    script.run(9.5)
    script.stream, script.our_isn = second
    script.give(ACK | FIN, seq=0, ack=1)
    assert [wire.flags for wire in script.take_raw()] == [RST | INIT]


def test_time_wait_of_one_stream_does_not_shorten_that_of_another() -> None:
    script = closing(opened())
    ends = [script.now + 10.0]
    script.wait(5.0)
    open_another(script)
    closing(script)
    ends.append(script.now + 10.0)
    assert script.endpoint.next_deadline() == pytest.approx(ends[0])
    script.run(5.1)
    assert script.endpoint.next_deadline() == pytest.approx(ends[1])
    script.give(ACK | FIN, seq=0, ack=1)
    assert [wire.flags for wire in script.take()] == [ACK]


def test_time_wait_ends_in_time_whatever_other_streams_wait_for() -> None:
    """Of the end of one, the probe of the other, whatever comes first."""
    script = closing(opened())
    end = script.now + 10.0
    open_another(script)
    assert script.endpoint.next_deadline() == pytest.approx(end)
    script.session.send(b"x")
    script.take_raw()
    assert (script.endpoint.next_deadline() or 0.0) < end - 9.0


def test_syn_sent_is_repeated_in_time_whatever_other_streams_wait_for() -> None:
    """Their timers were set and taken back."""
    script = opened()
    other = script.endpoint.connect(b"\x02\0\0\0\0\x03", PORT, now=script.now)
    sent: List[float] = []
    for step in range(200):
        if step % 4 == 0:
            script.endpoint.receive(THEIRS, script.packed(ACK, payload=b"x"), now=script.now)
        elif step % 4 == 1:
            script.session.send(b"y")
        out = script.endpoint.segments_to_send(now=script.now)
        sent += [step / 400 for peer, _ in out if peer == other.peer]
        script.endpoint.receive(THEIRS, script.packed(ACK, ack=script.ack + (step % 4 == 1)), now=script.now)
        script.wait(1 / 400)
    assert sent == [0.0, pytest.approx(0.2, abs=0.003)]


@pytest.mark.parametrize("flags", [RST | ACK | PUSH, SYN | PUSH])
def test_time_wait_reset_or_syn_that_asks_for_an_answer_gets_none(flags: int) -> None:
    script = closing(opened())
    script.give(flags, seq=1)
    assert script.take_raw() == []


def test_fin_wait_1_lasts_until_the_fin_itself_is_acknowledged() -> None:
    """Its data alone is not enough to let the stream go when the peer's FIN comes."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.session.finish()
    script.take()
    script.give(ACK, ack=5)
    assert script.session.state.value == "FIN-WAIT-1"
    script.give(ACK | FIN, ack=5)
    assert (script.session.state.value, reason(script)) == ("CLOSING", "")
    script.give(ACK, ack=6)
    assert reason(script) == "finished"


def test_connect_beyond_1024_streams_is_refused() -> None:
    script = Script()
    for number in range(STREAMS_MAX):
        script.endpoint.connect(b"\x02\0\0\x01\0" + bytes([number % 16]), PORT, now=script.now)
    with pytest.raises(RuntimeError, match="too many streams"):
        script.endpoint.connect(b"\x02\0\0\0\x01\0", PORT, now=script.now)


# --- Long silences --------------------------------------------------------------------------------------------------


def test_established_progress_after_silence_starts_everything_anew() -> None:
    """The probes begin with 20 ms again, and 180 s and eight probes are granted again."""
    script = in_flight(3)
    script.run(100.0)
    script.give(ACK, ack=MSS, echo=0)
    assert sorted({time for time, _ in script.run(0.5) if time}) == [0.02, 0.06, 0.14, 0.3]
    script.run(100.0)
    assert reason(script) == ""
    script.give(ACK, ack=2 * MSS, echo=0)
    script.take()
    script.wait(300.0)
    assert len(script.take()) > 0
    assert reason(script) == ""


def test_established_stopped_for_300_seconds_sends_eight_probes() -> None:
    script = in_flight(2)
    script.wait(300.0)
    assert len({time for time, _ in script.run(60.0)}) == 8
    assert reason(script) == "timed out"


def test_established_idle_and_silent_peer_is_asked_four_times_in_180_seconds() -> None:
    script = opened()
    assert [time for time, _ in script.run(179.99)] == [15.0, 45.0, 105.0, 165.0]
    assert reason(script) == ""
    assert script.run(0.02) == []
    assert reason(script) == "peer silent"


def test_established_idle_and_stopped_for_300_seconds_asks_four_times_first() -> None:
    script = opened()
    script.wait(300.0)
    assert [time for time, _ in script.run(209.99)] == [0.0, 30.0, 90.0, 150.0]
    assert reason(script) == ""
    script.run(0.02)
    assert reason(script) == "peer silent"


@pytest.mark.parametrize(("age", "taken"), [(30.0, True), (30.1, False)])
def test_established_age_is_that_against_the_newest_of_all(age: float, taken: bool) -> None:
    """PAWS, also where what came is not what header prediction expects: there is a gap, and stamps go back."""
    script = opened()
    for stamp in (100.0, 120.0, 110.0):
        script.give(seq=9, payload=b"j", ts=int(stamp * 1e6))
    script.give(seq=0, payload=b"abcdefghi", ts=int((120.0 - age) * 1e6))
    assert script.session.readable == (10 if taken else 0)


# --- What the general way does as header prediction does ------------------------------------------------------------


def give_general(script: Script, payload: bytes) -> None:
    """Data that follows the last with an older stamp: no header prediction."""
    script.give(payload=payload, ts=int(1e8) - script.seq)


def test_established_fourth_segment_with_an_older_stamp_is_acknowledged_at_once() -> None:
    script = opened()
    script.give(ACK, ts=int(1e8))
    for last in (False, False, False, True):
        give_general(script, b"x")
        assert bool(script.take()) is last


def test_established_segment_up_to_the_edge_is_acknowledged_after_5_ms() -> None:
    script = opened()
    script.give(ACK, ts=int(1e8))
    for size in [WINDOW // 16] * 15 + [WINDOW // 16 - 1]:
        give_general(script, bytes(size))
    assert [wire.ack for wire in script.take()] == [WINDOW - 1]
    give_general(script, b"x")
    assert [(time, wire.ack) for time, wire in script.run(0.01)] == [(0.005, WINDOW)]


# --- The sender alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "edge", "fin", "forced", "stop"),
    [
        (9001, 1001, False, False, 1001),  # the window ends after a full segment
        (9001, 1000, False, False, None),  # one byte before: less than half of what it was
        (9001, 1000, False, True, 1000),
        (1000, 1000, False, False, 1000),  # it ends where the data do: no fragment
        (1000, 1000, True, False, 1000),  # the FIN has no place in it
        (1000, 1001, True, False, 1001),
        (1, 1, True, False, None),
        (1, 2, True, False, 2),
        (1, 2, False, False, None),
    ],
)
def test_sender_cuts_what_is_new_by_the_window(
    end: int, edge: int, fin: bool, forced: bool, stop: Optional[int]
) -> None:
    sender = Sender(1000)
    sender.write(bytes(end - 1))
    sender.edge, sender.max_window = edge, 4000
    sender.fin_at = end if fin else None
    found = sender.next_new(forced=forced)
    assert (found and (found.start, found.stop)) == (stop and (1, stop))


def flying(count: int) -> Sender:
    """A sender of 20 segments of 1000 bytes, so many of them launched, at time 0; a round trip takes 0.1 s."""
    sender = Sender(1000)
    sender.write(bytes(20000))
    sender.edge = 1 << 20
    sender.round_trip.sample(0.1)
    launch(sender, count)
    return sender


def launch(sender: Sender, count: int) -> None:
    """The next so many, one by one, stamped 1000."""
    for _ in range(count):
        sent = sender.next_new()
        assert sent is not None
        sender.on_sent(sent, ts=1000, now=0.0)


def starts(sender: Sender, state: SegmentState) -> List[int]:
    """Where the segments in one state begin."""
    return [sent.start for sent in sender.sent if sent.state is state]


def test_sender_counts_each_delivery_once() -> None:
    sender = flying(5)
    assert sender.acknowledge(1, [Range(2001, 4001)], echo=0) == 2000
    assert sender.acknowledge(1, [Range(2001, 4001)], echo=0) == 0
    assert sender.acknowledge(5001, [], echo=0) == 3000
    assert sender.bytes_in_flight == 0


@pytest.mark.parametrize(("echo", "spurious"), [(0, False), (1, True), (1000, True), (4999, True), (5000, False)])
def test_sender_loss_was_none_if_an_earlier_copy_has_arrived(echo: int, spurious: bool) -> None:
    sender = flying(1)
    sender.congestion.on_loss(queueing=False)
    window = sender.congestion.window
    sender.mark_lost(sender.sent[0])
    sender.on_sent(sender.sent[0], ts=5000, now=1.0)
    sender.acknowledge(1001, [], echo=echo)
    assert (sender.congestion.window > window) is spurious


def test_sender_loss_acknowledged_unrepaired_was_none() -> None:
    sender = flying(1)
    sender.congestion.on_loss(queueing=False)
    window = sender.congestion.window
    sender.mark_lost(sender.sent[0])
    sender.acknowledge(1001, [], echo=0)
    assert sender.congestion.window > window


def test_established_abort_lets_go_of_everything() -> None:
    """A program may hold an ended stream for long."""
    script = in_flight(5)
    script.give(ACK, sacks=[(MSS, 2 * MSS)])
    script.session.abort()
    sender = script.session.sender
    assert (len(sender.sent), sender.segments_in_flight, sender.lost, sender.bytes_in_flight, sender.room) == (
        0,
        0,
        False,
        0,
        BUFFER_BYTES,
    )


def test_sender_sack_from_what_is_expected_next_is_none() -> None:
    assert flying(2).acknowledge(1, [Range(1, 1001)], echo=0) == 0


def test_sender_repairs_are_numbered_in_their_order() -> None:
    """Of three repaired in a row, the third has not overtaken the others by three."""
    sender = flying(7)
    sender.acknowledge(1, [Range(3001, 7001)], echo=0)
    assert sender.detect_losses(now=0.0)
    for _ in range(3):
        repaired = sender.next_lost()
        assert repaired is not None
        sender.on_sent(repaired, ts=2000, now=0.0)
    sender.acknowledge(1, [Range(2001, 3001)], echo=2000)
    sender.detect_losses(now=0.0)
    assert starts(sender, SegmentState.FLYING) == [1, 1001]


def test_sender_losses_of_one_flight_are_one_round() -> None:
    """Of what flew when the first was found: up to transmission 5, which is segment 5."""
    sender = flying(5)
    sender.acknowledge(1, [Range(3001, 4001)], echo=0)
    assert sender.detect_losses(now=0.0)
    launch(sender, 3)
    sender.acknowledge(1, [Range(7001, 8001)], echo=0)
    assert not sender.detect_losses(now=0.0)
    assert starts(sender, SegmentState.LOST) == [1, 1001, 2001, 4001]
    launch(sender, 3)
    sender.acknowledge(1, [Range(10001, 11001)], echo=0)
    assert sender.detect_losses(now=0.0)
    assert starts(sender, SegmentState.FLYING) == [8001, 9001]


def test_sender_patience_with_reordering_has_an_end() -> None:
    """After losses that were none, 64 quarters of the least round trip, not 256."""
    sender = flying(12)
    for _ in range(8):
        sender.mark_lost(sender.sent[0])
        sender.acknowledge(sender.sent[0].stop, [], echo=0)
    sender.round_trip.sample(0.008)
    while sender.round_trip.srtt < 0.999:
        sender.round_trip.sample(1.0)
    sender.acknowledge(8001, [Range(11001, 12001)], echo=0)
    assert not sender.detect_losses(now=0.0)
    assert sender.reorder_at == pytest.approx(1.0 + 64 * 0.002)


def test_sender_delivered_train_leaves_what_follows_in_peace() -> None:
    """Only what was sent after a segment can overtake it."""
    sender = flying(0)
    sender.on_run_sent(10001, 1000, ts=1000, now=0.0)
    sender.acknowledge(10001, [], echo=0)
    launch(sender, 1)
    assert starts(sender, SegmentState.FLYING) == [10001]
    assert not sender.detect_losses(now=9.0)
    assert sender.reorder_at is None


def test_sender_train_acknowledged_in_part_keeps_its_order() -> None:
    """Of segments 8, 9 and 10, only the first was overtaken by three when the eleventh arrives."""
    sender = flying(0)
    sender.on_run_sent(10001, 1000, ts=1000, now=0.0)
    assert sender.acknowledge(7001, [], echo=0) == 7000
    launch(sender, 1)
    assert sender.acknowledge(7001, [Range(10001, 11001)], echo=0) == 1000
    sender.detect_losses(now=0.0)
    assert (starts(sender, SegmentState.LOST), starts(sender, SegmentState.FLYING)) == ([7001], [8001, 9001])


def test_sender_train_sacked_in_part_then_acknowledged_counts_each_once() -> None:
    sender = flying(0)
    sender.on_run_sent(5001, 1000, ts=1000, now=0.0)
    assert sender.acknowledge(1, [Range(2001, 3001)], echo=0) == 1000
    sender.on_run_sent(10001, 1000, ts=1000, now=0.0)
    assert sender.acknowledge(7501, [], echo=0) == 6500
    assert (sender.una, sender.bytes_in_flight) == (7501, 2500)


def test_sender_resized_cuts_what_it_repairs() -> None:
    """Segments of 1000 where 400 fit now: both are lost, the first is cut, its parts keep what is known of it."""
    sender = flying(2)
    sender.resize(400)
    head = sender.next_lost()
    assert head is not None
    assert [(sent.start, sent.stop) for sent in sender.sent] == [(1, 401), (401, 1001), (1001, 2001)]
    assert (head.start, sender.bytes_in_flight) == (1, 0)
    assert starts(sender, SegmentState.LOST) == [1, 401, 1001]
    assert [(sent.number, sent.copies, sent.ts) for sent in sender.sent] == [(1, 1, 1000), (1, 1, 1000), (2, 1, 1000)]
    sender.on_sent(head, ts=5000, now=1.0)
    assert (head.copies, head.ts, head.repaired_ts, sender.bytes_in_flight) == (2, 5000, 5000, 400)
    second = sender.next_lost()
    assert second is not None
    assert (second.start, second.stop, second.repaired_ts) == (401, 801, 0)


def test_congestion_undoes_nothing_if_nothing_was_cut() -> None:
    """A loss of no round, of what became too large, may turn out to be none too."""
    window = Congestion(1000)
    window.on_spurious()
    assert window.window == 10_000


def test_states_are_named_as_in_rfc_9293() -> None:
    names = "SYN-SENT ESTABLISHED FIN-WAIT-1 FIN-WAIT-2 CLOSE-WAIT CLOSING LAST-ACK TIME-WAIT CLOSED"
    assert [state.value for state in State] == names.split()


@pytest.mark.parametrize(("mss", "size"), [(1413, 512 << 10), (2048, 512 << 10), (4000, 1024000), (65448, 2 << 20)])
def test_buffers_hold_256_segments_of_at_most_2_mib(mss: int, size: int) -> None:
    assert buffer_size(mss) == size


def test_receiver_offers_its_large_buffer_once_something_was_read() -> None:
    receiver = Receiver(8000)
    assert receiver.window(8000) == BUFFER_BYTES
    receiver.read(1)
    receiver.take(1, b"xy", False)
    receiver.read(0)
    assert receiver.window(8000) == BUFFER_BYTES - 2
    assert receiver.read(1) == b"x"
    assert receiver.window(8000) == 256 * 8000 - 1


# --- Endings and beginnings -----------------------------------------------------------------------------------------


def test_syn_sent_finished_stream_ends_like_any_other() -> None:
    script = Script()
    script.connect()
    script.session.send(b"hello")
    script.session.finish()
    script.wait(RTT)
    script.raw(script.syn_ack())
    script.take()
    script.give(ACK, ack=5)
    script.take()
    script.give(ACK, ack=6)
    assert script.session.state is State.FIN_WAIT_2
    script.give(ACK | FIN)
    assert reason(script) == "finished"


def test_fin_wait_1_silent_peer_that_has_not_finished_is_an_error() -> None:
    """Nobody knows whether it would have had more to say."""
    script = opened()
    script.session.finish()
    script.run(179.0)
    assert reason(script) == ""
    script.run(4.0)
    assert reason(script) == "timed out"


@pytest.mark.parametrize("flags", [ACK | INIT, ACK | INIT | PUSH])
def test_listen_cookie_is_answered_at_once(flags: int) -> None:
    """Whoever opens waits for that, and may not ask with PUSH."""
    script = Script()
    script.init = INIT
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn())
    (reply,) = answer_to(script, script.cookie_echo(answer)._replace(flags=flags))
    assert (reply.flags, reply.payload) == (ACK, b"")


def test_unconfirmed_silence_does_not_slow_down_what_follows() -> None:
    """The cookie was repeated four times; the first probe of what is sent then comes after 20 ms like any other."""
    script = unconfirmed()
    assert len(script.run(0.31)) >= 4
    script.give(ACK, echo=0)
    script.session.send(b"hello")
    script.take()
    assert sorted({time for time, _ in script.run(0.1)}) == [0.02, 0.06]


@pytest.mark.parametrize(("size", "sent"), [(2 * MSS - 1, [MSS, MSS - 1]), (2 * MSS, [MSS, MSS]), (1, [1]), (0, [0])])
def test_established_finish_rides_on_the_last_segment(size: int, sent: List[int]) -> None:
    script = opened()
    script.session.send(bytes(size))
    script.session.finish()
    wires = script.take()
    assert [len(wire.payload) for wire in wires] == sent
    assert [bool(wire.flags & FIN) for wire in wires] == [False] * (len(sent) - 1) + [True]


@pytest.mark.parametrize(("count", "window", "push"), [(10, 10, True), (20, 8, False), (20, 7, True)])
def test_established_push_on_what_nothing_follows_or_leaves_few_flying(count: int, window: int, push: bool) -> None:
    """Fewer than eight, where the peer's window is the limit."""
    script = opened(window=window * MSS)
    script.session.send(bytes(count * MSS))
    wires = script.take()
    assert len(wires) == min(count, window)
    assert bool(wires[-1].flags & PUSH) is push


def grown(count: int) -> Script:
    """An open stream of ours whose congestion window has grown past `count` segments, with nothing in flight."""
    script = opened()
    while script.session.sender.congestion.window < count * MSS:
        script.session.send(bytes(BUFFER_BYTES))
        script.take()
        script.wait(RTT)
        script.give(ACK, ack=script.session.sender.nxt - 1)
    while not script.session.sender.idle or script.session.sender.unsent:
        script.take()
        script.give(ACK, ack=script.session.sender.nxt - 1)
    assert script.take() == []
    return script


def test_established_32_segments_leave_for_each_thing_heard() -> None:
    """However often there is something else to write."""
    script = grown(100)
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 32
    script.session.send(b"x")
    assert script.take() == []


def test_established_overdue_segment_is_repaired_though_the_burst_is_used_up() -> None:
    script = grown(100)
    script.session.send(bytes(4 * MSS))
    first = script.take()[0].seq
    script.wait(RTT)
    script.give(ACK, sacks=[(first + MSS, first + 3 * MSS)])
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 34
    (repair,) = [(time, wire) for time, wire in script.run(0.015) if wire.seq == first]
    assert repair[0] < 0.003


def test_established_no_echo_is_no_sample_on_a_machine_that_has_just_started() -> None:
    """Where the time is less than the longest round trip that is believed."""
    script = Script()
    script.now = 1.0
    open_another(script)
    script.session.send(b"x")
    script.take()
    before = script.session.sender.round_trip.latest
    script.wait(0.5)
    script.give(ACK, ack=1, echo=0)
    assert script.session.acked == 1
    assert script.session.sender.round_trip.latest == before


def test_established_echo_of_a_stamp_not_given_yet_is_no_sample() -> None:
    """Nothing was sent for so long that it lies in the past all the same."""
    script = in_flight(2)
    before = script.session.sender.round_trip.latest
    script.wait(0.5)
    script.give(ACK, ack=MSS, echo=script.echo + 400_000)
    assert script.session.sender.round_trip.latest == before


def test_established_opened_window_too_narrow_for_a_segment_is_filled_by_the_next_probe() -> None:
    """Also after several probes that found it closed."""
    script = opened(window=4 * MSS)
    script.session.send(bytes(20 * MSS))
    script.take()
    script.window = 0
    script.give(ACK, ack=4 * MSS)
    for _ in range(4):
        script.run(1.0)
        script.give(ACK)
    script.window = 10
    script.give(ACK)
    assert shape([wire for _, wire in script.run(0.1)])[0] == (4 * MSS, 10)


def test_established_repair_starts_the_probe_timer_anew() -> None:
    script = in_flight(4)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 3 * MSS)])
    repair, probe = sorted({time for time, _ in script.run(0.03)})
    assert 0 < repair < 0.003
    assert probe - repair == pytest.approx(0.02, abs=1e-5)


def test_established_abort_offers_no_window() -> None:
    script = opened()
    script.session.abort()
    (reset,) = script.take()
    assert (reset.flags, reset.window) == (RST | ACK, 0)
    assert script.session.state is State.CLOSED


def test_established_gap_does_not_close_the_window() -> None:
    script = opened()
    script.give(seq=100, payload=b"x")
    (ack,) = script.take()
    assert (ack.window, ack.sacks) == (WINDOW, ((100, 101),))


def test_established_smaller_path_is_repaired_32_segments_at_once() -> None:
    """Whatever had left just before."""
    script = grown(100)
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 32
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=1000)
    assert len(script.take()) == 2 + 32  # head and tail as probes


def test_established_path_back_with_a_closed_window_starts_the_probes_anew() -> None:
    script = opened(window=0)
    script.session.send(b"hello")
    script.run(10.0)
    script.endpoint.path_changed(THEIRS, now=script.now)
    assert sorted({time for time, _ in script.run(0.1)}) == [0.0, 0.02, 0.06]


def test_established_black_hole_takes_five_rounds_for_each_half() -> None:
    script = opened(mtu=9000, segment_size=4000)
    script.session.send(bytes(50000))
    script.take()
    sizes = [4000]
    for _ in range(14):
        wires: List[Wire] = []
        while not any(wire.flags & PUSH and not wire.payload for wire in wires):
            wires = [wire for _, wire in script.run((script.endpoint.next_deadline() or 0.0) - script.now)]
        script.wait(RTT)
        script.give(ACK)
        sizes.append(script.session.sender.congestion.mss)
    assert sizes == [4000] * 5 + [2000] * 5 + [1000] * 5


def test_time_wait_fin_behind_new_data_does_not_prolong_it() -> None:
    script = closing(opened())
    script.wait(9.0)
    script.give(ACK | FIN, seq=0, payload=b"more")
    assert [wire.flags for wire in script.take_raw()] == [RST | ACK | INIT]
    assert script.run(1.1) == []
    assert script.endpoint.next_deadline() is None


def test_time_wait_new_data_is_reset_though_our_fin_was_never_acknowledged() -> None:
    script = opened()
    script.give(ACK | FIN)
    script.session.finish()
    script.run(5.0)
    assert reason(script) == "finished"
    script.give(ACK, seq=1, ack=0, payload=b"more")
    assert [wire.flags for wire in script.take_raw()] == [RST | ACK | INIT]


def test_listen_oldest_spent_cookie_is_forgotten_first() -> None:
    """64 s are a slot; a cookie is remembered for two."""
    script = Script()
    script.endpoint.listen(PORT)
    echoes = []
    for stream, pause in ((1, 0.0), (2, 110.0), (3, 18.5)):
        script.wait(pause)
        echoes.append(spend(script, stream))
    assert [reply.flags for reply in answer_to(script, echoes[1])] == [RST]
    assert script.events() == []


def test_listen_new_secret_is_kept_for_the_next_4096_cookies() -> None:
    """One that was given before a second stream opened is good after it."""
    script = Script()
    script.endpoint.listen(PORT)
    for number in range(1, 4098):
        script.now += 0.001
        spend(script, number)
    answers = [answer_to(script, script.syn(stream=number))[0] for number in (5000, 5001)]
    for number, answer in zip((5000, 5001), answers):
        assert answer_to(script, script.cookie_echo(answer, stream=number))[0].flags == ACK


def test_unconfirmed_silence_is_told_after_four_probes_too() -> None:
    script = unconfirmed()
    script.run(0.29)
    assert "Stalled" not in script.names()
    script.run(0.02)
    assert "Stalled" in script.names()


def test_established_small_segment_far_from_the_start_is_no_black_hole() -> None:
    """Its size is what counts: no small probe is sent beside it."""
    script = grown(20)
    script.session.send(bytes(100))
    wires = [wire for _, wire in script.run(1.0)]
    assert {len(wire.payload) for wire in wires} == {100}
