"""Buffers grow with what passes in a round trip, and all of a node's together hold no more than they may."""

from typing import Callable, List, Tuple

import pytest
import streamwire
from invariants import check_endpoint
from streamdesk import address, answer_to, fill_window, opened_over
from streamscript import MSS, OURS, PORT, RTT, THEIRS, WINDOW, Script, accepted, opened
from streamwire import ACK, DATA, INIT, RST, SYN, WRAP, Wire

from alexstream import BufferPool, BufferSize, Congestion
from constants import BUFFER_BYTES, BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, BUFFER_GROWN_MAX, BUFFERS_BYTES, STREAMS_MAX

SHARED = BUFFERS_BYTES - STREAMS_MAX * BUFFER_BYTES_MIN
KIB = 1 << 10


def test_buffer_grows_to_twice_what_passes_in_a_round_trip() -> None:
    size = BufferSize(BufferPool(), MSS, BUFFER_BYTES)
    seen = []
    for count, now in (
        (300 * KIB, 1.0),  # the first measure began long before
        (300 * KIB, 1.0625),  # a round trip is not over
        (100 * KIB, 1.25),  # 400 KiB in two
        (600 * KIB, 1.5),
        (100 * KIB, 1.625),  # too little to look at
        (1800 * KIB, 2.5),  # 1900 KiB in eight
        (900 * KIB, 2.75),
        (3000 * KIB, 3.0),  # the most
    ):
        size.on_passed(count, trip=0.125, now=now)
        seen.append(size.bytes // KIB)
    assert seen == [512, 512, 512, 600, 600, 600, 900, 3000]


def test_buffer_does_not_grow_before_a_round_trip_is_known() -> None:
    size = BufferSize(BufferPool(), MSS, BUFFER_BYTES)
    for now in (1.0, 1.0, 1.001):
        size.on_passed(10 * BUFFER_BYTES, trip=0.0, now=now)
    assert size.bytes == BUFFER_BYTES


def test_buffer_of_large_segments_grows_when_half_of_it_was_read() -> None:
    size = BufferSize(BufferPool(), 60000, BUFFER_BYTES)
    assert size.bytes == BUFFER_BYTES
    size.on_passed(BUFFER_BYTES // 2, trip=0.1, now=5.0)
    assert size.bytes == BUFFER_BYTES
    size.on_passed(1, trip=0.1, now=5.0)
    assert size.bytes == BUFFER_BYTES_MAX


def test_pool_leaves_half_to_streams_that_begin_and_a_little_for_each() -> None:
    pool = BufferPool()
    large = [BufferSize(pool, MSS, BUFFER_BYTES) for _ in range(6)]
    for size in large:
        size.on_passed(BUFFER_GROWN_MAX, trip=1.0, now=1.5)
    assert [size.bytes for size in large[:3]] == [BUFFER_GROWN_MAX] * 3
    assert BUFFER_BYTES < large[3].bytes < BUFFER_GROWN_MAX
    assert [size.bytes for size in large[4:]] == [BUFFER_BYTES] * 2
    assert pool.left == SHARED // 2
    others = [BufferSize(pool, MSS, BUFFER_BYTES) for _ in range(STREAMS_MAX - 6)]
    assert pool.left == 0
    assert others[0].bytes == BUFFER_BYTES
    assert others[-1].bytes == BUFFER_BYTES_MIN
    assert sum(size.bytes for size in large + others) == BUFFERS_BYTES
    large[0].release()
    large[0].release()  # gives nothing twice
    assert pool.left == BUFFER_GROWN_MAX - BUFFER_BYTES_MIN
    others[-1].on_passed(BUFFER_BYTES_MIN, trip=1.0, now=9.0)  # who had too little asks again
    assert others[-1].bytes == BUFFER_BYTES


def test_slow_start_does_not_double_while_a_queue_stands() -> None:
    window = Congestion(1000)
    window.on_delivered(10000, gently=True)
    assert window.window == 11000
    window.on_delivered(10000)
    assert window.window == 21000


def test_established_slow_start_pauses_over_a_grown_round_trip() -> None:
    """And goes on when it is short again."""
    script = opened()
    grown = []
    for trip in (RTT, *[RTT + 0.0011] * 6, RTT):
        window = script.session.sender.congestion.window
        script.session.send(bytes(BUFFER_BYTES))
        script.take()
        script.wait(trip)
        script.give(ACK, ack=script.session.sender.nxt - 1)
        grown.append(script.session.sender.congestion.window / window)
    assert grown[0] == 2
    assert all(factor < 1.1 for factor in grown[4:7])
    assert grown[7] > 1.5


def read_in_rounds(script: Script, trip: float) -> List[int]:
    """The peer fills our window in each of some round trips, and all of it is read; our buffer after each, in KiB."""
    seen = []
    for _ in range(6):
        end = script.session.receiver.edge - 1
        while script.seq < end:
            script.give(payload=bytes(min(60000, end - script.seq)))
        assert len(script.session.read(BUFFER_GROWN_MAX))
        script.take()
        script.wait(trip)
        seen.append(script.session.receiver.size.bytes // KIB)
    return seen


@pytest.mark.parametrize("make", [opened, accepted])
def test_established_window_grows_while_it_is_read_in_a_round_trip(make: Callable[[], Script]) -> None:
    assert read_in_rounds(make(), RTT) == [512, 1024, 2048, 4096, 4096, 4096]


def test_established_window_stays_where_the_path_carries_it_in_many_round_trips() -> None:
    assert read_in_rounds(opened(), 2 * RTT) == [512] * 6


def test_established_send_buffer_grows_while_it_is_acknowledged_in_a_round_trip() -> None:
    script = opened_over(0.05)
    script.window = 1 << 24
    script.session.sender.congestion.window = float(1 << 24)
    seen = []
    for _ in range(8):
        script.session.send(bytes(BUFFER_GROWN_MAX))
        while script.session.sender.unsent:
            script.take()
            script.give(ACK)
        script.wait(0.05)
        script.give(ACK, ack=script.session.sender.nxt - 1)
        seen.append(script.session.writable // KIB)
    assert seen == sorted(seen)
    assert seen[0] < 1024
    assert seen[-1] == 4096


def test_established_grown_buffer_takes_more_pieces() -> None:
    """One for each 512 bytes."""
    script = opened()
    read_in_rounds(script, RTT)
    start = script.seq
    for number in range(1, 1500):
        script.give(seq=start + 2 * number, payload=b"x")
    assert len(script.session.receiver._pieces) == 1499


def strangers(script: Script, count: int) -> List[Tuple[bytes, Wire]]:
    """So many streams of strangers, 60 of each, that offer all that our SYN-ACK asked for and read nothing."""
    found = []
    for number in range(1, count + 1):
        origin = address(1000 + number // 60)
        script.now += 0.001
        script.endpoint.receive(origin, streamwire.pack(script.syn(stream=number), origin, OURS), now=script.now)
        wires = [streamwire.unpack(data) for _, data in script.endpoint.segments_to_send(now=script.now)]
        (answer,) = [wire for wire in wires if wire.flags & SYN]
        echo = script.cookie_echo(answer, stream=number)
        script.endpoint.receive(origin, streamwire.pack(echo, origin, OURS), now=script.now)
        for offset in range(0, answer.window, 32 * KIB):
            give_data(script, origin, echo, offset, bytes(min(32 * KIB, answer.window - offset)))
        found.append((origin, echo))
    return found


def give_data(script: Script, origin: bytes, echo: Wire, offset: int, data: bytes) -> None:
    """Data at an offset of the stream that `echo` opened."""
    wire = echo._replace(flags=ACK | INIT | DATA, seq=(echo.seq + offset) % WRAP, ts=script.stamp(), segment_size=None)
    script.endpoint.receive(origin, streamwire.pack(wire._replace(payload=data), origin, OURS), now=script.now)


def test_1024_streams_of_strangers_hold_no_more_than_the_node_may() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    opened_by = strangers(script, STREAMS_MAX)
    sessions = list(script.endpoint.sessions.values())
    assert len(sessions) == STREAMS_MAX
    held = [len(session.receiver.unread) + session.receiver.ranges.total() for session in sessions]
    assert sum(held) <= BUFFERS_BYTES
    assert sum(held) > BUFFERS_BYTES - BUFFER_BYTES  # and no less
    assert (held[0], held[-1]) == (BUFFER_BYTES, BUFFER_BYTES_MIN)
    assert sum(session.writable for session in sessions) == BUFFERS_BYTES
    check_endpoint(script.endpoint)
    for origin, echo in opened_by[:2]:
        reset = echo._replace(flags=RST | ACK | INIT, ts=script.stamp(), seq=(echo.seq + BUFFER_BYTES) % WRAP)
        script.endpoint.receive(origin, streamwire.pack(reset, origin, OURS), now=script.now)
    assert len(script.endpoint.sessions) == STREAMS_MAX - 2
    assert script.endpoint.receive_pool.left == 2 * (BUFFER_BYTES - BUFFER_BYTES_MIN)
    assert len(sessions[-1].read(BUFFER_BYTES)) == BUFFER_BYTES_MIN  # who has too little asks again when it is read
    assert sessions[-1].receiver.size.bytes == BUFFER_BYTES


def test_syn_offers_what_the_pool_has_left() -> None:
    script = Script()
    script.endpoint.receive_pool.left = 1000
    assert script.connect().window == BUFFER_BYTES_MIN + 1000
    assert script.endpoint.receive_pool.left == 0


def test_more_than_the_buffer_holds_is_dropped_where_the_pool_ran_dry_while_opening() -> None:
    """Our SYN-ACK had offered more."""
    script = Script()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn())
    assert answer.window == WINDOW
    script.endpoint.receive_pool.left = 0
    echo = script.cookie_echo(answer)
    script.raw(echo)
    assert [wire.window for wire in script.take_raw()] == [BUFFER_BYTES_MIN]
    give_data(script, THEIRS, echo, 0, bytes(60000))
    assert [(wire.ack - echo.seq) % WRAP for wire in script.take_raw()] == [BUFFER_BYTES_MIN]
    (answer,) = answer_to(script, script.syn(stream=9))
    assert answer.window == BUFFER_BYTES_MIN  # the next one offers no more than there is


def test_closed_stream_gives_its_buffers_back_and_takes_none_when_it_is_read() -> None:
    script = opened()
    pools = script.endpoint.send_pool, script.endpoint.receive_pool
    assert [pool.left for pool in pools] == [SHARED - BUFFER_BYTES + BUFFER_BYTES_MIN] * 2
    fill_window(script)
    script.session.abort()
    assert [pool.left for pool in pools] == [SHARED] * 2
    assert len(script.session.read(WINDOW)) == WINDOW
    assert [pool.left for pool in pools] == [SHARED] * 2
    script.take_raw()
