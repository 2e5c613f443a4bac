"""What a segment carries: fields, sizes, acknowledgements owed."""

import gc
import struct
import tracemalloc
from typing import Callable

import pytest
import streamwire
from streamdesk import answer_to, closing, filled, in_flight, over_with_data
from streamscript import MSS, PORT, RTT, THEIRS, WINDOW, Script, accepted, opened, shape
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, WRAP

from alexstream import (
    Congestion,
    RoundTrip,
)
from constants import BUFFER_BYTES


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


@pytest.mark.parametrize(
    ("least", "shows", "pauses"),
    [(0.2, 0.3, 1.0), (1.0, 0.3, 1.0), (2.0, 0.5, 1.0), (8.0, 1.0, 1.0), (12.0, 1.0, 1.5), (100.0, 1.0, 2.0)],
)
def test_round_trips_show_a_queue_by_how_much_longer_they_are_than_the_least(
    least: float, shows: float, pauses: float
) -> None:
    """By a quarter, between 0.3 and 1 ms; slow start pauses at an eighth, between 1 and 2 ms."""
    for grown in (shows - 0.01, shows + 0.01, pauses - 0.01, pauses + 0.01):
        trip = RoundTrip()
        for sample in (least, *[least + grown] * 4):
            trip.sample(sample / 1000)
        assert (trip.shows_queue, trip.pauses_slow_start) == (grown > shows, grown > pauses)


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
