"""Bugs planted in alexstream.py, each of which a named test must see (alexstream.md 14.8).

A plant is a line of one method, replaced in the source of that method; it must stand there exactly once, so that a
plant that the code has outgrown is an error and not a pass.
"""

import inspect
import textwrap
from typing import Any, Callable, Dict, List, NamedTuple

import explore_stream
import pytest
import stream_table
import test_stream_buffers
import test_stream_closing
import test_stream_endpoint
import test_stream_receiver
import test_stream_segments
import test_stream_sender

import alexstream
from alexstream import BufferSize, Congestion, Receiver, RoundTrip, Sender, Session


class Plant(NamedTuple):
    """In `method` of `owner`, `good` becomes `bad`."""

    owner: Any
    method: str
    good: str
    bad: str


class Bug(NamedTuple):
    """What is wrong, where, and the test that must see it."""

    name: str
    plants: List[Plant]
    seen_by: Callable[[], Any]


def transfer_with_loss() -> None:
    """stream_table's cell: 200 kB, one frame in twenty lost each way."""
    stream_table.transfer(1, size=200000, loss=0.05)


def search_with_a_drop() -> None:
    """Every schedule of one segment in which a frame is lost."""
    explore_stream.schedules((1, 0), explore_stream.Budget(1, 0, 0))


REPEAT = "sender.next_lost() or sender.next_new()"
PROBE_HEAD = "head = sender.split_to_mss(sender.sent[0]) if not sender.idle else None"
PROBE_TAIL = "sender.next_new(forced=head is None) or sender.tail()"
BUGS = [
    Bug(
        "no retransmission",
        [
            Plant(Session, "_next_range", REPEAT, "sender.next_new()"),
            Plant(Session, "_probes", PROBE_HEAD, "head = None"),
            Plant(Session, "_probes", PROBE_TAIL, "sender.next_new()"),
        ],
        transfer_with_loss,
    ),
    Bug(
        "no PTO re-arm",
        [
            Plant(
                Session,
                "_on_probe_timeout",
                "self._probe_at = now + self.sender.round_trip.probe_timeout(self._backoff)",
                "self._probe_at = float('inf')",
            ),
            Plant(Session, "_note_launch", "self._probe_at = now +", "self._probe_at = self._probe_at or now +"),
        ],
        test_stream_sender.test_established_silence_probes,
    ),
    Bug(
        "go-back-N",
        [Plant(Sender, "detect_losses", "for sent in lost:", "for sent in lost and list(self.flying.values()):")],
        test_stream_sender.test_established_two_later_sacks_are_no_loss_three_are,
    ),
    Bug(
        "window in segments",
        [
            Plant(
                Session,
                "_take_window",
                "sender = self.sender",
                "sender = self.sender; window *= sender.congestion.mss",
            )
        ],
        test_stream_sender.test_established_window_of_half_the_largest_is_used,
    ),
    Bug(
        "SACK ignored",
        [Plant(Sender, "acknowledge", "for block in sacks:", "for block in ():")],
        test_stream_sender.test_established_two_later_sacks_are_no_loss_three_are,
    ),
    Bug(
        "FIN not retransmitted",
        [Plant(Sender, "has_fin", "sent.stop > self.end", "sent.stop > self.end and sent.copies < 2")],
        test_stream_closing.test_fin_wait_1_fin_is_repeated_like_data,
    ),
    Bug(
        "FIN not retransmitted, as the search of schedules sees it",
        [Plant(Sender, "has_fin", "sent.stop > self.end", "sent.stop > self.end and sent.copies < 2")],
        search_with_a_drop,
    ),
    Bug(
        "ack >= nxt accepted",
        [Plant(Session, "_take_acknowledgement", "<= ack <= sender.nxt", "<= ack")],
        lambda: test_stream_sender.test_established_ack_of_what_was_never_sent(1),
    ),
    Bug(
        "tag unchecked",
        [Plant(Session, "_check_tag", "segment.tag != self._isn", "False")],
        lambda: test_stream_receiver.test_established_wrong_tag_or_port("tag"),
    ),
    Bug(
        "pieces uncapped",
        [Plant(Receiver, "take", "len(self._pieces) >= self.size.bytes // c.BYTES_PER_PIECE", "False")],
        test_stream_receiver.test_established_at_most_1024_pieces,
    ),
    Bug(
        "cut by x 1.0",
        [Plant(Congestion, "on_loss", "0.95 if not queueing", "1.0 if not queueing")],
        test_stream_endpoint.test_congestion_window_step_by_step,
    ),
    Bug(
        "cut by x 1.0 where there is a queue",
        [Plant(Congestion, "on_loss", "0.7 if", "1.0 if")],
        test_stream_endpoint.test_congestion_window_step_by_step,
    ),
    Bug(
        "slow start never pauses",
        [Plant(Congestion, "on_delivered", " and not gently", "")],
        test_stream_buffers.test_established_slow_start_pauses_over_a_grown_round_trip,
    ),
    Bug(
        "a late flow takes a full queue for noise",
        [Plant(RoundTrip, "_has_grown", "min(max(shortest / divisor, low), high)", "max(shortest / divisor, low)")],
        lambda: test_stream_segments.test_round_trips_show_a_queue_by_how_much_longer_they_are_than_the_least(8, 1, 1),
    ),
    Bug(
        "the buffers of a node without a bound",
        [Plant(BufferSize, "_grow_to", "self._pool.left -= granted", "pass")],
        test_stream_buffers.test_1024_streams_of_strangers_hold_no_more_than_the_node_may,
    ),
    Bug(
        "window that grows with what comes in any time",
        [Plant(BufferSize, "on_passed", "* trip / seconds", "")],
        test_stream_buffers.test_established_window_stays_where_the_path_carries_it_in_many_round_trips,
    ),
]


def plant_all(monkeypatch: pytest.MonkeyPatch, plants: List[Plant]) -> None:
    """Compile the methods anew, with the bug, in the namespace of their module."""
    for owner, name in {(plant.owner, plant.method) for plant in plants}:
        source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
        for plant in plants:
            if (plant.owner, plant.method) == (owner, name):
                found = source.count(plant.good)
                assert found == 1, f"{owner.__name__}.{name}: {plant.good!r} is there {found} times: plant it anew"
                source = source.replace(plant.good, plant.bad)
        made: Dict[str, Any] = {}
        exec(compile(source, f"<{name} with a bug>", "exec"), vars(alexstream), made)
        monkeypatch.setattr(owner, name, made[name])


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_planted_bug_is_seen(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.seen_by()
    with monkeypatch.context() as planted:
        plant_all(planted, bug.plants)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            bug.seen_by()
    bug.seen_by()


def test_plant_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="plant it anew"):
        plant_all(monkeypatch, [Plant(Sender, "has_fin", "no such line", "")])
