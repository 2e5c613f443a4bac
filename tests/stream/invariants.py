"""What must hold of the stream machine after every step."""

from typing import List

import constants as c
from alexstream import Endpoint, SegmentState, Sender, SentRange, Session


def segments_of(sender: Sender) -> List[SentRange]:
    """All that is not acknowledged, in segments, without changing how it is kept."""
    return sender._sent + [sent for run in sender._runs for sent in run.segments()]


def check_endpoint(endpoint: Endpoint) -> None:
    """Assert the bounds of the tables, and what must hold of every session."""
    assert len(endpoint.sessions) <= c.STREAMS_MAX
    assert len(endpoint._time_wait) <= c.LINGERING_MAX
    assert len(endpoint._spent) <= c.COOKIES_MAX
    assert len(endpoint._timers) <= 2 * len(endpoint.sessions) + 64
    for session in endpoint.sessions.values():
        check_session(session)


def check_session(session: Session) -> None:
    """Assert that scoreboard, buffers and timers fit together."""
    sender, receiver = session.sender, session.receiver
    assert 1 <= sender.una <= sender.nxt <= max(sender.edge, sender.una)
    tiles = segments_of(sender)
    assert [sender.una] + [sent.stop for sent in tiles] == [sent.start for sent in tiles] + [sender.nxt]
    flying = sorted((sent for sent in tiles if sent.state is SegmentState.FLYING), key=lambda sent: sent.number)
    assert sender.bytes_in_flight == sum(sent.stop - sent.start for sent in flying)
    assert sender.segments_in_flight == len(flying)
    assert list(sender._flying) == [sent.number for sent in flying][: len(sender._flying)]
    assert sender.room >= 0
    edges = [receiver.nxt] + [edge for held in receiver.ranges for edge in held]
    assert all(left < right for left, right in zip(edges, edges[1:]))
    assert receiver.ranges.total() + len(receiver.unread) <= receiver.size.bytes
    assert len(receiver._pieces) <= receiver.size.bytes // c.BYTES_PER_PIECE
    waiting = not sender.idle or sender.unsent or not session._confirmed
    assert session.closed or not waiting or session._push_now or session.next_deadline() is not None
