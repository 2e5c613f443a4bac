"""What the sender makes of writes, windows, acknowledgements and losses."""

import random
from time import process_time
from typing import Any, List, Optional

import pytest
from streamdesk import filled, flying, in_flight, launch, opened_over, reason, repair_time, shape_starts, starts
from streamscript import MSS, RTT, START, THEIRS, WINDOW, Script, opened, shape
from streamwire import ACK, DATA, PUSH

from alexstream import Acked, BufferPool, Congestion, Receiver, SegmentState, Sender, Stalled, State, buffer_size
from constants import BUFFER_BYTES, BUFFER_BYTES_MIN
from utils import Range

# --- Sending ----------------------------------------------------------------------------------------------------------


def test_established_send_small() -> None:
    script = opened()
    script.session.send(b"hello")
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.ack, wire.payload) == (ACK | DATA | PUSH, 0, 0, b"hello")
    assert (wire.window, wire.segment_size, wire.sacks) == (WINDOW, None, ())


def test_established_send_two_lines_without_waiting() -> None:
    """Nagle is off."""
    script = opened()
    script.session.send(b"one\n")
    assert shape(script.take()) == [(0, 4)]
    script.session.send(b"two\n")
    assert shape(script.take()) == [(4, 4)]


def test_established_send_initial_window() -> None:
    """RFC 6928: ten segments; PUSH on none of them, because eight or more fly and more is to come."""
    script = opened()
    script.session.send(bytes(100000))
    wires = script.take()
    assert shape(wires) == [(n * MSS, MSS) for n in range(10)]
    assert [bool(wire.flags & PUSH) for wire in wires] == [False] * 10


def test_established_send_exactly_what_fits_ends_with_push() -> None:
    script = opened()
    script.session.send(bytes(3 * MSS))
    assert [bool(wire.flags & PUSH) for wire in script.take()] == [False, False, True]


def test_established_send_blocked_with_few_in_flight_ends_with_push() -> None:
    script = opened(window=4 * MSS)
    script.session.send(bytes(10 * MSS))
    assert [bool(wire.flags & PUSH) for wire in script.take()] == [False, False, False, True]


def test_established_ack_in_slow_start_sends_twice_as_much() -> None:
    script = opened()
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 10
    script.wait(RTT)
    script.give(ACK, ack=2 * MSS)
    assert shape(script.take()) == [(n * MSS, MSS) for n in range(10, 14)]


def test_established_large_ack_replaces_what_arrived_and_32_segments_at_most() -> None:
    script = opened()
    script.session.send(bytes(360 * MSS))
    counts = [len(script.take())]
    for _ in range(4):
        script.wait(RTT)
        script.give(ACK, ack=sum(counts) * MSS)
        counts.append(len(script.take()))
    assert counts == [10, 20, 40, 40 + 32, 80]  # then the congestion window is the limit


def test_established_after_idle_time_32_segments_leave_at_once() -> None:
    """However many earlier acknowledgements would have let go."""
    script = opened()
    for _ in range(4):
        script.session.send(bytes(100 * MSS))
        script.run(RTT)
        while script.session.acked < script.session.written:
            script.give(ACK, ack=script.session.sender.nxt - 1)
            script.take()
    script.wait(RTT)
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 32


def test_established_send_takes_what_the_buffer_holds() -> None:
    script = opened(window=0)
    assert script.session.send(bytes(600000)) == WINDOW
    assert script.session.send(b"more") == 0
    assert script.session.writable == 0
    assert script.session.written == WINDOW
    script.take()
    script.window = WINDOW
    script.give(ACK)
    script.take()
    script.give(ACK, ack=5000)
    assert "Writable" in script.names()
    assert script.session.writable == 5000
    assert script.session.send(memoryview(bytes(6000))) == 5000


def test_established_ack_is_a_receipt() -> None:
    script = opened()
    script.session.send(bytes(1000))
    script.take()
    script.wait(RTT)
    script.give(ACK, ack=600)
    assert script.events() == [Acked(script.session, 600)]
    script.give(ACK, ack=1000)
    assert script.events() == [Acked(script.session, 1000)]
    script.give(ACK, ack=1000)
    assert script.events() == []
    assert script.session.acked == 1000


def test_established_ack_in_mid_segment_resends_the_rest_only() -> None:
    script = opened()
    script.session.send(bytes(range(250)))
    script.take()
    script.wait(RTT)
    script.give(ACK, ack=100)
    (again,) = {wire for _, wire in script.run(0.02)}
    assert (again.seq, again.payload) == (100, bytes(range(100, 250)))


@pytest.mark.parametrize("beyond", [1, 2, 1000, 2**31 - 6, 2**31 - 5])
def test_established_ack_of_what_was_never_sent(beyond: int) -> None:
    """Dropped, challenged ten times a second at most."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    challenges = 0
    for _ in range(100):
        script.give(ACK, ack=5 + beyond)
        challenges += len(script.take())
        script.wait(0.0001)
    assert challenges == 10
    assert script.session.acked == 0
    script.give(ACK, ack=5)
    assert script.session.acked == 5


def test_established_acks_of_what_has_not_arrived_yet() -> None:
    """Who acknowledges what still flies hurts himself: it is never sent again, nor sent any faster."""
    script = opened()
    script.session.send(bytes(WINDOW))
    counts = [len(script.take())]
    while counts[-1]:
        script.wait(RTT)
        script.give(ACK, ack=min(sum(counts) * MSS, WINDOW))
        counts.append(len(script.take()))
        assert counts[-1] <= min(2 * counts[-2], counts[-2] + 32)
    assert script.session.acked == WINDOW
    assert {wire.payload for _, wire in script.run(60.0)} <= {b""}


@pytest.mark.parametrize("acks", [1000, pytest.param(10000, marks=pytest.mark.slow)])
def test_established_flood_of_shifting_sacks(acks: int) -> None:
    """16 true blocks each, never the same; a window of 370 segments flies."""
    script = opened()
    script.session.send(bytes(WINDOW))
    top, held = 10 * MSS, 0
    script.take()
    while top < held + 360 * MSS:  # acknowledged by fours, the window grows by as much
        script.wait(RTT)
        held += 4 * MSS
        script.give(ACK, ack=held)
        script.session.send(bytes(script.session.writable))
        top = max([top] + [wire.seq + len(wire.payload) for wire in script.take()])
    rng = random.Random(54)
    first = script.ack // MSS + 1
    spent = process_time()
    for _ in range(acks):
        script.wait(0.0001)
        blocks = [(MSS * n, MSS * (n + 1)) for n in (rng.randrange(first, first + 350) for _ in range(16))]
        script.endpoint.receive(THEIRS, script.packed(ACK, sacks=blocks), now=script.now)
        script.endpoint.segments_to_send(now=script.now)
    assert process_time() - spent < acks * 2e-3
    script.take()
    assert reason(script) == ""


def test_established_ack_at_una_minus_1_una_nxt() -> None:
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, ack=MSS)
    script.events()
    for ack, acked in ((MSS - 1, MSS), (MSS, MSS), (3 * MSS, 3 * MSS)):
        script.give(ACK, ack=ack)
        assert script.session.acked == acked
        assert script.take() == []


def test_established_ack_below_the_isn_is_challenged() -> None:
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, ack=MSS)
    script.give(ACK, ack=-2)
    assert [wire.flags for wire in script.take()] == [ACK]
    assert script.session.acked == MSS


@pytest.mark.parametrize(
    "sack", [(5000, 4000), (4000, 4000), (-5, 0), (0, 1000000), (-(2**30), 2**30), (0, MSS + 1), (3 * MSS, 9 * MSS)]
)
def test_established_wrong_sack_is_ignored(sack: Any) -> None:
    """Inverted, empty, below una, beyond nxt, everything."""
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, sacks=[sack])
    assert script.take() == []
    script.give(ACK, ack=3 * MSS)
    assert script.session.acked == 3 * MSS


def test_established_reneging_peer_is_sent_again_what_it_took_back() -> None:
    """SACKed first, then acknowledged only up to there; nothing above `una` was forgotten."""
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 3 * MSS)])
    script.give(ACK, ack=MSS)
    script.take()
    assert {wire.seq for _, wire in script.run(0.2)} >= {MSS}
    script.give(ACK, ack=2 * MSS)
    assert 2 * MSS in shape_starts(script)
    script.give(ACK, ack=3 * MSS)
    assert script.session.acked == 3 * MSS
    assert script.endpoint.next_deadline() == script.now + 15


def test_established_random_sacks_do_no_harm() -> None:
    script = in_flight(10)
    rng = random.Random(51)
    for _ in range(300):
        script.wait(0.0001)
        script.give(ACK, sacks=[(rng.getrandbits(32), rng.getrandbits(32)) for _ in range(16)])
    script.take()
    script.give(ACK, ack=10 * MSS)
    assert script.session.acked == 10 * MSS


def test_established_segment_sent_once_has_arrived_whatever_is_echoed() -> None:
    """An acknowledgement may name an older one that was under way for longer."""
    script = in_flight(10)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 5 * MSS)], echo=script.echo - 9)
    assert shape(script.take())[:1] == [(0, MSS)]


def test_established_two_later_sacks_are_no_loss_three_are() -> None:
    """The packet threshold of RFC 9002 section 6.1.1."""
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 2 * MSS)])
    script.give(ACK, sacks=[(MSS, 3 * MSS)])
    assert script.take() == []
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    assert shape(script.take()) == [(0, MSS)]


def test_established_reordering_time_is_loss() -> None:
    """RACK: lost when sent max(srtt, latest) + reo = 1 + 1 ms ago and overtaken."""
    script = in_flight(2)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 2 * MSS)])
    assert [(round(time, 5), wire.seq) for time, wire in script.run(0.005)] == [(0.001, 0)]


def test_established_lost_again_is_found_by_later_transmissions() -> None:
    script = in_flight(5)
    script.session.send(bytes(5 * MSS))
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    assert (0, MSS) in shape(script.take())
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 8 * MSS)])
    assert (0, MSS) in shape(script.take()) + shape([wire for _, wire in script.run(0.004)])


def test_established_spurious_loss_is_undone() -> None:
    """The first copy arrived after all: its echo is older than the second copy."""
    script = in_flight(10)
    first = script.echo - 9
    script.session.send(bytes(40 * MSS))
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    again = shape(script.take())
    assert again[0] == (0, MSS)
    script.wait(0.0002)
    script.give(ACK, ack=4 * MSS, echo=first)
    script.take()
    # From here on the packet threshold is off: three later ones are not enough.
    script.give(ACK, sacks=[(5 * MSS, 10 * MSS)])
    assert (4 * MSS, MSS) not in shape(script.take())


def test_established_silence_probes() -> None:
    """PTO: 20 ms, doubled each time, 2 s at most; each time head and tail, asking for an answer at once."""
    script = in_flight(5)
    sent = script.run(9.0)
    times: List[float] = []
    for time, wire in sent:
        if not times or times[-1] != time:
            times.append(time)
        assert wire.flags & PUSH
    assert times == [0.02, 0.06, 0.14, 0.30, 0.62, 1.26, 2.54, 4.54, 6.54, 8.54]
    assert shape([wire for time, wire in sent if time == 0.02]) == [(0, MSS), (4 * MSS, MSS)]


def test_established_silence_probe_prefers_new_data() -> None:
    script = opened()
    script.session.send(bytes(12 * MSS))
    assert len(script.take()) == 10
    (first, second) = [wire for _, wire in script.run(0.02)]
    assert shape([first, second]) == [(0, MSS), (10 * MSS, MSS)]


def test_established_silence_marks_nothing_lost() -> None:
    """RFC 9002 section 6.2: the answer, late, to the first copy of the head shows nothing of the rest."""
    script = opened()
    script.session.send(bytes(10 * MSS))
    first = script.take_raw()[0].ts
    script.run(0.02)
    script.wait(0.0005)
    script.give(ACK, ack=MSS, echo=first)
    assert script.take() == []


def test_established_three_silent_probes_collapse_the_window() -> None:
    script = opened()
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 10
    script.run(0.15)
    sent = 13
    script.wait(RTT)
    script.give(ACK, ack=sent * MSS)
    assert len(script.take()) in (2, 3)


def test_established_silence_is_told() -> None:
    script = in_flight(2)
    heard = script.now
    script.run(0.29)
    assert script.names() == []
    script.run(0.011)
    assert script.events() == [Stalled(script.session, heard)]
    script.run(100.0)
    assert script.names() == []
    script.give(ACK, ack=MSS)
    assert script.names()[0] == "Resumed"


def test_established_user_timeout() -> None:
    """180 s without progress, and by then far more than 8 probes."""
    script = in_flight(2)
    script.run(179.9)
    assert reason(script) == ""
    script.run(2.2)
    assert reason(script) == "timed out"
    assert script.endpoint.sessions == {}
    assert script.endpoint.next_deadline() is None


def test_established_stopped_for_300_seconds_probes_before_it_gives_up() -> None:
    """On waking the input comes first; and with none, eight probes."""
    script = in_flight(2)
    script.wait(300.0)
    assert script.take() != []
    assert reason(script) == ""
    script.wait(0.001)
    script.give(ACK, ack=2 * MSS)
    assert reason(script) == ""
    silent = in_flight(2)
    silent.wait(300.0)
    silent.run(4.0)
    assert reason(silent) == ""
    silent.run(4.0)
    assert reason(silent) == "timed out"


def test_established_head_missing_for_ever_times_out() -> None:
    """What is SACKed and never acknowledged is no progress; and it is not sent again."""
    script = in_flight(10)
    start = script.now
    heads = 0
    while not script.session.closed and script.now < START + 400:
        script.wait(0.1)
        script.give(ACK, sacks=[(MSS, 10 * MSS)])
        sent = shape(script.take())
        assert all(position < MSS or (position, length) == (10 * MSS, 0) for position, length in sent)
        heads += sent != []
    assert heads > 8
    assert reason(script) == "timed out"
    assert 180 <= script.now - start <= 183


@pytest.mark.parametrize("echo", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_established_senseless_echo_is_no_sample(echo: int) -> None:
    """PTO stays what it was."""
    script = in_flight(2)
    script.wait(RTT)
    script.give(ACK, ack=MSS, echo=echo)
    assert {time for time, _ in script.run(0.03)} == {0.02}


def test_established_echo_of_the_future_is_no_sample() -> None:
    script = in_flight(2)
    script.wait(RTT)
    script.give(ACK, ack=MSS, echo=script.echo + 1000000)
    assert {time for time, _ in script.run(0.03)} == {0.02}


def test_established_zero_window_is_probed_for_ever() -> None:
    script = opened(window=0)
    script.session.send(bytes(5000))
    times = []
    for _ in range(300):
        deadline = script.endpoint.next_deadline()
        assert deadline is not None
        script.now = deadline
        for wire in script.take():
            assert (wire.flags, wire.seq, wire.payload) == (ACK | PUSH, 0, b"")
            times.append(script.now)
            script.wait(RTT)
            script.give(ACK)
    assert script.take() == []
    assert times[-1] - times[0] > 250
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert max(pauses) <= 2.0 + RTT + 1e-6
    assert reason(script) == ""
    script.window = 5000
    script.give(ACK)
    assert sum(len(wire.payload) for wire in script.take()) == 5000


def test_established_zero_window_of_a_dead_peer_times_out() -> None:
    script = opened(window=0)
    script.session.send(bytes(5000))
    sent = script.run(179.0)
    assert {(wire.flags, wire.payload) for _, wire in sent} == {(ACK | PUSH, b"")}
    assert [time for time, _ in sent][:4] == [0.02, 0.06, 0.14, 0.3]
    script.run(4.0)
    assert reason(script) == "timed out"


def test_established_window_opening_by_single_bytes() -> None:
    """The sender waits for a segment or half the largest window."""
    script = opened(window=4 * MSS)
    script.session.send(bytes(20000))
    assert len(script.take()) == 4
    script.wait(RTT)
    script.window = 0
    script.give(ACK, ack=4 * MSS)
    for window in range(1, MSS):
        script.window = window
        script.give(ACK)
        assert script.take() == []
    script.window = MSS
    script.give(ACK)
    assert shape(script.take()) == [(4 * MSS, MSS)]


def test_established_window_of_half_the_largest_is_used() -> None:
    script = opened(window=1000)
    script.session.send(bytes(20000))
    assert shape(script.take()) == [(0, 1000)]
    script.wait(RTT)
    for window, sent in ((499, []), (500, [(1000, 500)])):
        script.window = window
        script.give(ACK, ack=1000)
        assert shape(script.take()) == sent


def test_established_shrunken_window_is_not_obeyed() -> None:
    """The edge never moves back (RFC 9293 section 3.8.6)."""
    script = opened(window=10000)
    script.session.send(b"x" * 1000)
    script.take()
    script.wait(RTT)
    script.window = 0
    script.give(ACK, ack=1000)
    script.session.send(b"x" * 1000)
    assert shape(script.take()) == [(1000, 1000)]


def test_established_path_mtu_falls() -> None:
    """What flies in larger segments goes again in smaller ones."""
    script = in_flight(3)
    script.wait(0.0005)
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=600)
    sent = [wire for _, wire in script.run(0.1)]
    size = 600 - 23 - 36 - 28
    assert max(len(wire.payload) for wire in sent) == size
    covered = sorted(shape(sent))
    assert covered[0][0] == 0
    end = 0
    for position, length in covered:
        assert position <= end
        end = max(end, position + length)
    assert end == 3 * MSS


def test_established_path_mtu_rises_only_when_told() -> None:
    script = opened(mtu=9000, segment_size=8913)
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=1500)
    script.session.send(bytes(20000))
    assert {len(wire.payload) for wire in script.take()[:3]} == {MSS}
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=9000)
    script.wait(RTT)
    script.give(ACK, ack=10 * MSS)
    assert max(len(wire.payload) for wire in script.take()) > MSS


def test_path_mtu_below_any_use_is_clamped() -> None:
    script = opened()
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=10)
    script.session.send(bytes(200))
    assert {len(wire.payload) for wire in script.take()} == {64, 200 % 64}


def test_established_path_back_sends_at_once() -> None:
    script = in_flight(3)
    script.run(10.0)
    script.endpoint.path_changed(THEIRS, now=script.now)
    assert (0, MSS) in shape(script.take())


def test_path_changed_for_nobody() -> None:
    script = Script()
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=900)
    assert script.take_raw() == []


def test_established_black_hole_is_found() -> None:
    """Small probes are answered, big ones are not, five times: half the segment size."""
    script = opened()
    script.session.send(bytes(50000))
    script.take()
    sizes, fitting, answers = set(), [], 0
    for _ in range(200):
        script.now = script.endpoint.next_deadline() or 0.0
        wires = script.take()
        script.wait(RTT)
        small = [wire for wire in wires if len(wire.payload) <= 813]
        sizes |= {len(wire.payload) for wire in wires}
        fitting = [(wire.seq, wire.seq + len(wire.payload)) for wire in small if wire.payload]
        if fitting:
            break
        if any(wire.flags & PUSH and not wire.payload for wire in small):
            script.give(ACK)
            answers += 1
    assert answers == 5
    assert max(stop - start for start, stop in fitting) == MSS // 2


# --- What the sender makes of acknowledgements ------------------------------------------------------------------------


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


# --- Windows ----------------------------------------------------------------------------------------------------------


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


# --- Scoreboard -------------------------------------------------------------------------------------------------------


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


# --- The sender alone -------------------------------------------------------------------------------------------------


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
    sender = Sender(1000, BufferPool())
    sender.write(bytes(end - 1))
    sender.edge, sender.max_window = edge, 4000
    sender.fin_at = end if fin else None
    found = sender.next_new(forced=forced)
    assert (found and (found.start, found.stop)) == (stop and (1, stop))


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
        BUFFER_BYTES_MIN,
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


def test_sender_delivered_run_leaves_what_follows_in_peace() -> None:
    """Only what was sent after a segment can overtake it."""
    sender = flying(0)
    sender.on_run_sent(10001, 1000, ts=1000, now=0.0)
    sender.acknowledge(10001, [], echo=0)
    launch(sender, 1)
    assert starts(sender, SegmentState.FLYING) == [10001]
    assert not sender.detect_losses(now=9.0)
    assert sender.reorder_at is None


def test_sender_run_acknowledged_in_part_keeps_its_order() -> None:
    """Of segments 8, 9 and 10, only the first was overtaken by three when the eleventh arrives."""
    sender = flying(0)
    sender.on_run_sent(10001, 1000, ts=1000, now=0.0)
    assert sender.acknowledge(7001, [], echo=0) == 7000
    launch(sender, 1)
    assert sender.acknowledge(7001, [Range(10001, 11001)], echo=0) == 1000
    sender.detect_losses(now=0.0)
    assert (starts(sender, SegmentState.LOST), starts(sender, SegmentState.FLYING)) == ([7001], [8001, 9001])


def test_sender_run_sacked_in_part_then_acknowledged_counts_each_once() -> None:
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
    receiver = Receiver(8000, BufferPool())
    assert receiver.window(8000) == BUFFER_BYTES
    receiver.unread.take(1)
    receiver.take(1, b"xy", False)
    assert receiver.window(8000) == BUFFER_BYTES - 2
    assert receiver.unread.take(1) == b"x"
    receiver.size.on_passed(BUFFER_BYTES, trip=0.0, now=1.0)
    assert receiver.window(8000) == 256 * 8000 - 1
