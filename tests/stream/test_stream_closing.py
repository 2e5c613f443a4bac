"""FIN, reset, TIME-WAIT: how a stream ends."""

from typing import List

import pytest
from streamdesk import answer_to, closing, grown, in_flight, open_another, reason, spend
from streamscript import MSS, PORT, RTT, THEIRS, WINDOW, Script, opened, shape, unconfirmed
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, WRAP, Wire

from alexstream import Closed, State

# --- Resets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seq", "good"), [(-1, False), (0, True), (1000, True), (WINDOW, True), (WINDOW + 1, False)])
def test_established_reset(seq: int, good: bool) -> None:
    """From rcv_nxt to the edge."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.give(RST | ACK, seq=seq)
    assert script.take_raw() == []
    assert reason(script) == ("reset by peer" if good else "")


def test_established_reset_with_a_wrong_tag_is_ignored() -> None:
    script = opened()
    for tag in (0, script.isn, script.our_isn + 1):
        script.give(RST | ACK, tag=tag)
    assert script.take_raw() == []
    assert reason(script) == ""


@pytest.mark.parametrize(
    ("seq", "good"), [(1, False), (0, True), (-1, True), (-WINDOW, True), (-WINDOW - 1, False), (2**30, False)]
)
def test_established_stateless_reset(seq: int, good: bool) -> None:
    """A peer that knows nothing reflects our own words: our ack as its seq, its old ISN as tag."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.give(RST, seq=seq, tag=script.isn)
    assert script.take_raw() == []
    assert reason(script) == ("peer restarted" if good else "")


def test_established_stateless_reset_after_a_long_silence_is_a_restart() -> None:
    script = opened()
    script.run(100.0)
    script.give(RST, tag=script.isn)
    assert reason(script) == "peer restarted"


def test_established_stateless_reset_with_our_tag_is_ignored() -> None:
    script = opened()
    script.give(RST, tag=script.our_isn)
    assert reason(script) == ""


def test_established_abort() -> None:
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.session.abort()
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.ack) == (RST | ACK, 5, 0)
    assert script.events() == [Closed(script.session, "aborted", 5, 0)]
    assert script.endpoint.sessions == {}
    assert script.run(60.0) == []
    assert script.session.send(b"x") == 0
    script.session.abort()
    script.session.finish()
    assert script.events() == []


def test_syn_sent_abort() -> None:
    script = Script()
    script.connect()
    script.session.abort()
    assert script.events() == [Closed(script.session, "aborted", 0, 0)]
    assert all(wire.flags & RST for wire in script.take_raw())
    assert script.endpoint.next_deadline() is None


def test_closed_segments_after_abort_are_reset_statelessly() -> None:
    script = opened()
    script.session.abort()
    script.take()
    script.give(payload=b"x")
    (wire,) = script.take_raw()
    assert wire.flags == RST | INIT
    assert (wire.seq, wire.tag) == ((script.our_isn + 1) % WRAP, script.our_isn)


# --- Closing ----------------------------------------------------------------------------------------------------------


def test_established_finish_sends_fin() -> None:
    script = opened()
    script.session.send(b"hello")
    script.session.finish()
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.payload) == (ACK | DATA | FIN | PUSH, 0, b"hello")
    assert script.session.state.value == "FIN-WAIT-1"
    with pytest.raises(ValueError, match="finish"):
        script.session.send(b"more")
    script.session.finish()
    assert script.take() == []


def test_established_finish_of_nothing() -> None:
    script = opened()
    script.session.finish()
    (wire,) = script.take()
    assert (wire.flags & ~PUSH, wire.seq, wire.payload) == (ACK | FIN, 0, b"")


def test_syn_sent_finish_waits_for_the_peer() -> None:
    script = Script()
    script.connect()
    script.session.send(b"hello")
    script.session.finish()
    assert script.take_raw() == []
    script.wait(RTT)
    script.raw(script.syn_ack())
    (wire,) = script.take()
    assert (wire.seq, wire.payload) == (0, b"hello")
    script.give(ACK, ack=5)
    rest = script.take()
    assert (wire.flags | (rest[0].flags if rest else 0)) & FIN


def test_fin_wait_1_fin_is_repeated_like_data() -> None:
    script = opened()
    script.session.finish()
    script.take()
    sent = script.run(0.2)
    assert [time for time, _ in sent] == [0.02, 0.02, 0.06, 0.06, 0.14, 0.14]  # two copies of what is alone
    assert {wire.flags for _, wire in sent} == {ACK | FIN | PUSH}


def test_fin_wait_2_peer_may_send_for_ever() -> None:
    """Half-close."""
    script = opened()
    script.session.finish()
    script.take()
    script.wait(RTT)
    script.give(ACK, ack=1)
    assert script.session.state.value == "FIN-WAIT-2"
    for _ in range(100):
        script.run(36.0)
        script.give(ACK | PUSH, payload=b"still here")
        script.take()
        assert script.session.read(99) == b"still here"
    assert script.session.closed is None


def test_established_fin_ends_the_stream_after_all_bytes() -> None:
    """A FIN out of order; and it is acknowledged at once."""
    script = opened()
    script.give(ACK | FIN, seq=5)
    assert script.names() == []
    script.take()
    script.give(seq=0, payload=b"hello")
    assert "EndOfStream" in script.names()
    assert [wire.ack for wire in script.take()] == [6]
    assert script.session.state.value == "CLOSE-WAIT"
    assert [script.session.at_eof, script.session.read(9), script.session.at_eof] == [False, b"hello", True]
    assert script.session.read(9) == b""


def test_close_wait_we_may_still_send() -> None:
    script = opened()
    script.give(ACK | FIN)
    script.take()
    script.session.send(b"hello")
    assert shape(script.take()) == [(0, 5)]
    script.wait(RTT)
    script.give(ACK, ack=5)
    assert script.session.acked == 5


@pytest.mark.parametrize(
    ("flags", "seq", "payload"), [(ACK | FIN, 3, b""), (ACK | FIN, 9, b""), (ACK, 5, b"x"), (ACK, 6, b"x")]
)
def test_close_wait_contradiction_of_the_end_is_dropped(flags: int, seq: int, payload: bytes) -> None:
    script = opened()
    script.give(ACK | FIN | PUSH, payload=b"hello")
    script.take()
    script.give(flags, seq=seq, payload=payload)
    assert [wire.ack for wire in script.take()] == [6]
    assert script.endpoint.drops["contradiction"] == 1
    script.give(ACK | PUSH)
    assert [wire.ack for wire in script.take()] == [6]
    assert script.session.read(99) == b"hello"


def test_established_fin_below_known_data_is_dropped() -> None:
    script = opened()
    script.give(seq=5, payload=b"fghij")
    script.give(ACK | FIN, seq=3)
    assert script.endpoint.drops == {"contradiction": 1}
    script.give(seq=0, payload=b"abcde")
    script.take()
    assert "EndOfStream" not in script.names()
    assert script.session.read(99) == b"abcdefghij"


def test_fin_wait_1_fin_and_ack_closes() -> None:
    script = closing(opened())
    assert script.session.state.value in ("TIME-WAIT", "CLOSED")
    assert reason(script) == "finished"


def test_time_wait_fin_is_acknowledged_again_and_linger_restarts() -> None:
    script = closing(opened())
    script.wait(9.0)
    script.give(ACK | FIN, seq=0)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 1)]
    script.wait(9.0)
    script.give(ACK | FIN, seq=0)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 1)]
    script.run(10.1)
    script.give(ACK | FIN, seq=0)
    assert [wire.flags for wire in script.take_raw()] == [RST | INIT]


def test_time_wait_data_beyond_the_end_is_reset() -> None:
    script = closing(opened())
    script.give(seq=1, payload=b"more")
    (wire,) = script.take_raw()
    assert wire.flags & RST


def test_time_wait_ends_and_leaves_nothing() -> None:
    script = closing(opened())
    assert script.run(60.0) == []
    assert script.endpoint.sessions == {}
    assert script.endpoint.next_deadline() is None


def test_time_wait_resets_are_ignored() -> None:
    script = closing(opened())
    script.give(RST | ACK)
    script.give(RST, tag=script.isn)
    assert script.take_raw() == []
    assert len(script.events()) == 2 or script.session.closed is not None
    assert script.session.closed is not None
    assert script.session.closed.reason == "finished"


def test_time_wait_at_most_1024_are_remembered() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    wires = []
    for number in range(1, 1101):
        script.now += 0.001
        (answer,) = answer_to(script, script.syn(stream=number))
        echo = script.cookie_echo(answer, b"x", stream=number)
        script.raw(echo._replace(flags=echo.flags | FIN))
        script.take_raw()
        script.events()
        for session in list(script.endpoint.sessions.values()):
            session.finish()
        script.take_raw()
        last = Wire(number, ACK | INIT, PORT, (echo.seq + 2) % WRAP, (answer.seq + 2) % WRAP, tag=answer.seq)
        script.raw(last._replace(ts=script.stamp()))
        script.take_raw()
        wires.append(last._replace(flags=ACK | FIN | INIT, seq=(echo.seq + 1) % WRAP))
    script.now += 1.0
    assert [wire.flags for wire in answer_to(script, wires[-1]._replace(ts=script.stamp()))] == [ACK]
    assert [wire.flags for wire in answer_to(script, wires[-1024]._replace(ts=script.stamp()))] == [ACK]
    assert [wire.flags for wire in answer_to(script, wires[-1025]._replace(ts=script.stamp()))] == [RST]


def test_closing_simultaneously() -> None:
    script = opened()
    script.session.finish()
    script.take()
    script.give(ACK | FIN)
    script.take()
    assert script.session.state.value == "CLOSING"
    script.wait(RTT)
    script.give(ACK, ack=1)
    assert reason(script) == "finished"


def test_last_ack_unanswered_fin_is_forgiven() -> None:
    """The peer's process went away right after its last ACK: four probes, then it is finished, not an error."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=5)
    script.session.finish()
    sent = script.run(5.0)
    assert sorted({time for time, wire in sent if wire.flags & FIN}) == [0, 0.02, 0.06, 0.14, 0.3]
    assert reason(script) == "finished"
    assert script.endpoint.sessions == {}
    # It was only without a cable: whenever it asks within the user timeout, it is told of the end.
    script.wait(170.0)
    script.give(ACK | PUSH)
    assert [(wire.flags, wire.seq, wire.ack) for wire in script.take()] == [(ACK | FIN, 5, 1)]
    script.give(ACK, ack=6)
    assert script.take() == []
    script.run(30.0)
    script.give(ACK | PUSH)
    assert [wire.flags for wire in script.take_raw()] == [RST | INIT]


def test_last_ack_unanswered_data_is_an_error() -> None:
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=4)
    script.session.finish()
    script.run(100.0)
    assert reason(script) == ""
    script.run(100.0)
    assert reason(script) == "timed out"


def test_last_ack_stateless_reset_after_all_is_said() -> None:
    """The peer's process ended after its FIN and after it held all our data: nothing was lost."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=5)
    script.session.finish()
    script.take()
    script.give(RST, seq=1, tag=script.isn)
    assert reason(script) in ("finished", "peer restarted")


def test_close_wait_abort_resets() -> None:
    script = opened()
    script.give(ACK | FIN | PUSH, payload=b"unread")
    script.take()
    script.session.abort()
    assert [wire.flags for wire in script.take()] == [RST | ACK]


# --- TIME-WAIT --------------------------------------------------------------------------------------------------------


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


# --- Endings and beginnings -------------------------------------------------------------------------------------------


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
