"""Segments that come together: header prediction comes to the same as the general path."""

import pytest
from streamdesk import give_general, plain, together
from streamscript import MSS, RTT, WINDOW, opened
from streamwire import ACK, FIN, PUSH

from alexstream import State

# --- Segments that come together --------------------------------------------------------------------------------------


def test_batch_of_acks_counts_as_the_last_of_them() -> None:
    """Everything but the number of round trips measured is as if they had come one by one."""
    states = []
    for batch in (True, False):
        script = opened()
        script.session.send(bytes(300 * MSS))
        assert len(script.take()) == 10
        script.give(ACK, ack=10 * MSS)
        assert len(script.take()) == 20
        script.wait(RTT)
        script.window = WINDOW - 7
        acks = [script.packed(ACK, ack=count * MSS, echo=script.echo) for count in (11, 15, 15, 20, 24)]
        if batch:
            together(script, *acks)
        else:
            for ack in acks:
                script.feed(ack)
        session, sender = script.session, script.session.sender
        states.append((session.acked, sender.edge, sender.bytes_in_flight, sender.congestion.window, script.names()))
        assert len(script.take()) == 28  # what has arrived twice over: slow start
    assert states[0] == states[1]
    assert states[0][:3] == (24 * MSS, 1 + 24 * MSS + WINDOW - 7, 6 * MSS)


def test_batch_of_acks_keeps_an_echo_of_an_earlier_one() -> None:
    script = opened()
    script.session.send(bytes(10 * MSS))
    script.take()
    script.wait(0.003)
    together(script, script.packed(ACK, ack=5 * MSS, echo=script.echo), script.packed(ACK, ack=9 * MSS, echo=0))
    assert script.session.sender.round_trip.latest == pytest.approx(0.003, abs=2e-5)
    assert script.session.acked == 9 * MSS


def test_batch_of_acks_up_to_one_of_what_was_never_sent() -> None:
    script = opened()
    script.session.send(bytes(10 * MSS))
    script.take()
    together(script, *(script.packed(ACK, ack=count * MSS) for count in (3, 4, 11, 5)))
    assert script.session.acked == 5 * MSS
    assert script.endpoint.drops == {"ack": 1}


def test_batch_of_acks_up_to_that_of_the_fin() -> None:
    script = opened()
    script.session.send(bytes(3 * MSS))
    script.session.finish()
    script.take()
    together(script, *(script.packed(ACK, ack=count) for count in (MSS, 3 * MSS, 3 * MSS + 1)))
    assert script.session.acked == 3 * MSS
    assert script.session.state is State.FIN_WAIT_2


# --- What comes in a row, by the fast path ----------------------------------------------------------------------------


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


# --- What the general way does as header prediction does --------------------------------------------------------------


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
