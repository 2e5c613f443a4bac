"""What the receiver makes of segments, in order and not."""

import os
import random
from time import process_time

import pytest
import streamwire
from invariants import check_endpoint
from paths import ROOT
from streamdesk import answer_to, fill_window
from streamscript import MSS, OURS, PORT, THEIRS, WINDOW, accepted, opened, shape
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, WRAP, Wire

# --- Receiving --------------------------------------------------------------------------------------------------------


def test_established_fourth_segment_is_acknowledged_at_once() -> None:
    script = opened()
    for number in range(3):
        script.give(payload=b"x" * 100)
        assert script.take() == [], number
    script.give(payload=b"x" * 100)
    (ack,) = script.take()
    assert (ack.flags, ack.seq, ack.ack, ack.payload) == (ACK, 0, 400, b"")


def test_established_segment_is_acknowledged_after_5_ms() -> None:
    script = opened()
    script.give(payload=b"x")
    script.wait(0.0049)
    assert script.take() == []
    script.wait(0.0001)
    assert [wire.ack for wire in script.take()] == [1]


def test_established_reply_carries_the_acknowledgement() -> None:
    script = opened()
    script.give(payload=b"x")
    script.session.send(b"y")
    assert [(wire.ack, wire.payload) for wire in script.take()] == [(1, b"y")]
    assert [wire for _, wire in script.run(0.01)] == []


def test_established_push_is_acknowledged_at_once() -> None:
    script = opened()
    script.give(ACK | PUSH, payload=b"x", ts=77000000)
    (wire,) = script.take_raw()
    assert wire.flags == ACK | INIT
    assert wire.echo == 77000000


def test_established_empty_push_is_answered_without_push() -> None:
    script = opened()
    script.give(ACK | PUSH, ts=77000000)
    (wire,) = script.take_raw()
    assert (wire.flags, wire.echo, wire.payload) == (ACK | INIT, 77000000, b"")
    script.give(ACK)
    assert script.take() == []


def test_established_flood_of_pushes_in_one_batch() -> None:
    """One acknowledgement a batch."""
    script = opened()
    for _ in range(64):
        script.give(ACK | PUSH)
    assert len(script.take()) == 1


def test_established_gap_is_reported_at_once() -> None:
    script = opened()
    script.give(seq=100, payload=b"b" * 100)
    (ack,) = script.take()
    assert (ack.ack, ack.sacks) == (0, ((100, 200),))
    script.give(seq=0, payload=b"a" * 50)
    assert [(wire.ack, wire.sacks) for wire in script.take()] == [(50, ((100, 200),))]
    script.give(seq=50, payload=b"a" * 50)
    assert [(wire.ack, wire.sacks) for wire in script.take()] == [(200, ())]
    assert script.session.read(300) == b"a" * 100 + b"b" * 100


def test_established_duplicate_is_acknowledged_at_once() -> None:
    script = opened()
    script.give(ACK | PUSH, payload=b"hello")
    script.take()
    script.give(seq=0, payload=b"hello")
    assert [wire.ack for wire in script.take()] == [5]
    assert script.session.readable == 5


def test_established_sacks_newest_first_then_from_the_left() -> None:
    script = opened()
    for seq in (1000, 3000, 5000, 2000):
        script.give(seq=seq, payload=b"x" * 100)
    (ack,) = script.take()
    assert ack.sacks == ((2000, 2100), (1000, 1100), (3000, 3100), (5000, 5100))


def test_established_sacks_16_alone_3_with_data() -> None:
    script = opened()
    for number in range(20):
        script.give(seq=1000 * (number + 1), payload=b"x")
    (ack,) = script.take()
    assert len(ack.sacks) == 16
    assert ack.sacks[0] == (20000, 20001)
    script.session.send(b"y")
    script.give(seq=30000, payload=b"x")
    assert [(len(wire.sacks), wire.payload) for wire in script.take()] == [(3, b"y")]


def test_established_two_copies_that_differ() -> None:
    """The first wins."""
    script = opened()
    script.give(seq=5, payload=b"first")
    script.give(seq=3, payload=b"other copy")
    script.give(seq=0, payload=b"01234567")
    assert script.session.read(99) == b"012otfirstopy"


@pytest.mark.parametrize("read_first", [False, True])
def test_established_segment_at_the_edge(read_first: bool) -> None:
    """Edge - 1 is taken; edge, edge + 1 and half the circle away are answered only."""
    script = opened()
    for seq, sacks in ((WINDOW - 1, ((WINDOW - 1, WINDOW),)), (WINDOW, None), (WINDOW + 1, None), (2**31 - 1, None)):
        script.give(seq=seq, payload=b"x")
        (ack,) = script.take()
        assert (ack.ack, ack.sacks) == (0, sacks if sacks else ((WINDOW - 1, WINDOW),))
    assert script.session.readable == 0


def test_established_segment_across_the_edge_is_cut() -> None:
    script = opened()
    script.give(seq=WINDOW - 3, payload=b"abcdef")
    (ack,) = script.take()
    assert ack.sacks == ((WINDOW - 3, WINDOW),)


def test_established_window_shrinks_as_nobody_reads() -> None:
    script = opened()
    for _ in range(4):
        script.give(payload=b"x" * 1000)
    (ack,) = script.take()
    assert (ack.ack, ack.window) == (4000, WINDOW - 4000)
    script.session.read(1000)
    script.give(ACK | PUSH)
    (ack,) = script.take()
    assert ack.ack + ack.window == WINDOW  # a step too small to tell
    script.session.read(1000)
    script.give(ACK | PUSH)
    (ack,) = script.take()
    assert ack.ack + ack.window == WINDOW + 2000


def test_established_full_window_takes_nothing() -> None:
    script = opened()
    fill_window(script)
    script.give(seq=WINDOW, payload=b"y")
    assert [(wire.ack, wire.window) for wire in script.take()] == [(WINDOW, 0)]
    assert script.session.readable == WINDOW


def test_established_reading_opens_the_window_unasked() -> None:
    script = opened()
    fill_window(script)
    script.session.read(MSS - 1)
    assert script.take() == []
    script.session.read(1)
    (update,) = script.take()
    assert (update.flags, update.ack, update.window) == (ACK, WINDOW, MSS)


def test_established_reading_of_4_segments_opens_a_narrow_window() -> None:
    script = opened()
    while script.seq < WINDOW - 100000:
        script.give(payload=b"x" * 50000)
        script.take()
    script.run(0.01)
    script.session.read(4 * MSS - 1)
    assert script.take() == []
    script.session.read(1)
    assert [wire.ack + wire.window for wire in script.take()] == [WINDOW + 4 * MSS]


def test_established_at_most_1024_pieces() -> None:
    script = opened()
    for number in range(1, 1100):
        script.give(seq=2 * number, payload=b"x")
    (ack,) = script.take()
    assert max(stop for _, stop in ack.sacks) <= 2 * 1024 + 1
    script.give(seq=0, payload=b"y" * 5000)
    assert script.session.readable == 5000


@pytest.mark.parametrize("count", [20000, pytest.param(1000000, marks=pytest.mark.slow)])
def test_established_a_million_single_bytes(count: int) -> None:
    """An acknowledgement for every fourth; the last ones cost no more than the first."""
    script = opened()
    wire = Wire(script.stream, ACK | DATA, PORT, 0, script.our_isn + 1, WINDOW, script.our_isn, payload=b"x")
    acks, halves = 0, []
    for _ in range(2):
        spent = process_time()
        for _ in range(count // 2):
            script.seq += 1
            data = script.pack(wire._replace(seq=script.isn + script.seq, ts=script.stamp()))
            script.endpoint.receive(THEIRS, data, now=script.now)
            acks += len(script.endpoint.segments_to_send(now=script.now))
            if script.session.readable > 10000:
                script.session.read(10000)
        halves.append(process_time() - spent)
    assert acks == pytest.approx(count / 4, rel=0.01)
    assert halves[1] < 2 * halves[0] + 0.1


def test_established_forged_data_with_the_right_numbers_is_taken() -> None:
    """Who can see the segments can forge them; the README says so."""
    script = opened()
    script.give(ACK | PUSH, payload=b"forged")
    assert script.session.read(9) == b"forged"
    with open(os.path.join(ROOT, "README.md")) as readme:
        assert "not authenticated" in readme.read()


def test_established_peer_stopped_for_a_minute_while_we_write() -> None:
    """The window fills, then Stalled, Resumed, and nothing is lost."""
    script = opened(window=5 * MSS)
    assert script.session.send(bytes(WINDOW)) == WINDOW
    sent = script.take() + [wire for _, wire in script.run(60.0)]
    assert max(wire.seq + len(wire.payload) for wire in sent) == 5 * MSS
    assert script.session.send(b"x") == 0
    assert script.names() == ["Stalled"]
    script.window = WINDOW
    script.give(ACK, ack=5 * MSS)
    assert script.names()[0] == "Resumed"
    assert shape(script.take())[0] == (5 * MSS, MSS)


@pytest.mark.parametrize(("age", "taken"), [(29.9, True), (30.1, False)])
def test_established_old_ts_is_dropped(age: float, taken: bool) -> None:
    """PAWS."""
    script = opened()
    script.give(ACK, ts=100000000)
    script.give(ACK | PUSH, payload=b"x", ts=(100000000 - int(age * 1e6)) % WRAP)
    assert script.session.readable == taken
    if not taken:
        assert sum(script.endpoint.drops.values()) == 1
        assert script.take() == []


def test_established_old_ts_after_15_idle_minutes_is_taken() -> None:
    """By then the peer's stamps may have wrapped; only a process that was stopped gets here."""
    script = opened()
    script.give(ACK, ts=100000000)
    script.wait(901.0)
    script.give(ACK | PUSH, payload=b"x", ts=1)
    assert script.session.readable == 1


@pytest.mark.parametrize("field", ["tag", "port"])
def test_established_wrong_tag_or_port(field: str) -> None:
    """No effect; what is reflected cannot hit the live stream."""
    script = opened()
    good = Wire(script.stream, ACK | DATA, PORT, script.isn + 1, script.our_isn + 1, tag=script.our_isn, payload=b"x")
    script.raw(good._replace(ts=script.stamp(), **{field: getattr(good, field) + 1}))
    for reply in script.take_raw():
        assert reply.flags & RST
        assert not reply.flags & ACK
    assert script.session.readable == 0
    assert script.names() == []


def test_established_wrong_init_bit_is_another_stream() -> None:
    script = opened()
    wire = Wire(script.stream, ACK | INIT | DATA, PORT, script.isn + 1, script.our_isn + 1, tag=script.our_isn)
    (reply,) = answer_to(script, wire._replace(payload=b"x"))
    assert reply.flags == RST
    assert script.session.readable == 0


def test_established_syn_is_challenged() -> None:
    """A late duplicate and a forged one; ten a second."""
    script = accepted()
    count = 0
    for number in range(50):
        script.wait(0.001)
        script.raw(script.syn() if number % 2 else script.syn(seq=number))
        count += len(script.take())
    assert count == 10
    assert script.names() == []
    assert script.session.state.value == "ESTABLISHED"
    script.wait(1.1)
    script.raw(script.syn())
    assert [wire.flags for wire in script.take()] == [ACK]


def test_established_late_syn_ack_is_challenged() -> None:
    script = opened()
    for _ in range(30):
        script.raw(script.syn_ack())
        script.wait(0.0001)
    assert len(script.take()) <= 10
    assert script.session.state.value == "ESTABLISHED"


def test_established_blind_segments_do_nothing() -> None:
    script = opened()
    script.session.send(b"hello")
    script.take()
    rng = random.Random(70)
    for _ in range(5000):
        flags = rng.choice([ACK | DATA, ACK | DATA | FIN, RST, RST | ACK, ACK, SYN | ACK, SYN, ACK | PUSH])
        numbers = [rng.getrandbits(32) for _ in range(6)]
        payload = b"evil" if flags & DATA else b""
        wire = Wire(script.stream, flags, PORT, *numbers)._replace(payload=payload)  # type: ignore[arg-type]
        script.endpoint.receive(THEIRS, streamwire.pack(wire, THEIRS, OURS), now=script.now)
    check_endpoint(script.endpoint)
    assert script.session.state.value == "ESTABLISHED"
    assert (script.session.readable, script.session.acked) == (0, 0)
    script.give(ACK, ack=5, payload=b"good")
    assert script.session.read(9) == b"good"
    assert script.session.acked == 5


def test_any_bytes_are_counted_and_dropped() -> None:
    script = opened()
    for size in range(36):
        script.feed(bytes(size))
    assert script.endpoint.drops["short"] == 36
    script.feed(bytes(100))
    assert script.endpoint.drops["length"] == 1
    script.feed(bytes([0, 1, 2, 9]) + bytes(96))
    assert script.endpoint.drops["checksum"] == 1
    assert script.take() == []


def test_established_segment_cut_anywhere_is_dropped() -> None:
    """Also what begins as the expected segment does and ends before its header."""
    script = opened()
    whole = script.packed(ACK | DATA, payload=b"hello")
    for size in range(len(whole)):
        script.feed(whole[:size])
    assert sum(script.endpoint.drops.values()) == len(whole)
    assert script.session.readable == 0
    script.feed(whole)
    assert script.session.read(9) == b"hello"


# --- What the receiver makes of segments ------------------------------------------------------------------------------


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
