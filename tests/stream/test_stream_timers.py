"""Probes, keepalive, giving up: what happens when nothing is heard."""

import random
from typing import List, Tuple

import pytest
from invariants import check_endpoint
from streamdesk import answer_to, closing, in_flight, open_another, reason
from streamscript import MSS, OURS, PORT, RTT, START, THEIRS, WINDOW, Script, opened, shape
from streamwire import ACK, FIN, INIT, PUSH, RST, SYN

from alexstream import Closed, End, Endpoint
from constants import STREAMS_MAX

# --- Keepalive --------------------------------------------------------------------------------------------------------


def test_established_idle_is_probed_after_15_seconds() -> None:
    script = opened()
    script.run(14.99)
    sent = script.run(0.02)
    assert [(wire.flags, wire.seq, wire.payload) for _, wire in sent] == [(ACK | PUSH, 0, b"")]


def test_established_idle_and_answered_lives_for_ever() -> None:
    script = opened()
    probes = 0
    while script.now < START + 3600:
        deadline = script.endpoint.next_deadline()
        assert deadline is not None
        script.now = deadline
        for wire in script.take():
            probes += 1
            assert wire.flags == ACK | PUSH
            script.give(ACK)
    assert script.session.closed is None
    assert 60 <= probes <= 241


def test_established_idle_and_silent_peer_is_given_up() -> None:
    script = opened()
    times = [time for time, _ in script.run(179.0)]
    assert times[0] == pytest.approx(15.0)
    assert all(after - before <= 60.0 for before, after in zip(times, times[1:]))
    assert reason(script) == ""
    script.run(62.0)
    assert reason(script) == "peer silent"


def test_listen_flood_of_silent_connections_is_forgotten() -> None:
    """64 streams of one peer are opened and never used; three minutes later there is room again."""
    script = Script()
    script.endpoint.listen(PORT)

    def open_one(stream: int) -> int:
        (answer,) = answer_to(script, script.syn(stream=stream))
        return answer_to(script, script.cookie_echo(answer, stream=stream))[0].flags

    assert [open_one(number) for number in range(1, 65)] == [ACK] * 64
    assert open_one(65) == RST | ACK
    while script.now < START + 245:
        script.now = script.endpoint.next_deadline() or START + 245
        script.endpoint.segments_to_send(now=script.now)
    assert script.endpoint.sessions == {}
    assert [event.reason for event in script.events() if isinstance(event, Closed)] == ["peer silent"] * 64
    assert open_one(66) == ACK


# --- Timers -----------------------------------------------------------------------------------------------------------


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
        check_endpoint(endpoint)
        deadline = endpoint.next_deadline()
        if deadline is None:
            break
        now = deadline
    assert syns == 64 * 31
    assert all(session.closed == End("no answer", 0, 0) for session in sessions)


# --- Timers of the sender ---------------------------------------------------------------------------------------------


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


# --- Timers of several streams ----------------------------------------------------------------------------------------


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


# --- Long silences ----------------------------------------------------------------------------------------------------


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
