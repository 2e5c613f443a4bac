"""What the tests of the stream machine share: sessions in a given state, and what they sent."""

from typing import Any, List

from invariants import check_endpoint
from streamscript import MSS, RTT, THEIRS, WINDOW, Script, opened, shape
from streamwire import ACK, FIN, INIT, PUSH, RST, Wire

from alexstream import BufferPool, Closed, SegmentState, Sender
from constants import BUFFER_BYTES

OTHER = b"\x02\x00\x00\x00\x00\x03"


def address(number: int) -> bytes:
    """A unicast address by number."""
    return b"\x02" + number.to_bytes(5, "big")


def in_flight(count: int, **kind: Any) -> Script:
    """An open stream of ours with `count` full segments flying."""
    script = opened(**kind)
    script.session.send(bytes(count * MSS))
    assert shape(script.take()) == [(n * MSS, MSS) for n in range(count)]
    return script


def reason(script: Script) -> str:
    """Why the stream has ended, by its one Closed event; "" while it lives."""
    closed = [event for event in script.events() if isinstance(event, Closed)]
    assert len(closed) <= 1
    assert script.session.closed == (closed[0][1:] if closed else None)
    return closed[0].reason if closed else ""


def answer_to(script: Script, wire: Wire, origin: bytes = THEIRS) -> List[Wire]:
    """What the endpoint sends at once after `wire`."""
    script.raw(wire, origin=origin)
    return script.take_raw()


def spend(script: Script, stream: int) -> Wire:
    """A stream that the peer opens and aborts at once; return what brought the cookie back."""
    (answer,) = answer_to(script, script.syn(stream=stream))
    echo = script.cookie_echo(answer, stream=stream)
    assert answer_to(script, echo)[0].flags == ACK
    assert answer_to(script, echo._replace(flags=RST | ACK | INIT, ts=echo.ts + 1)) == []
    script.events()
    return echo


def shape_starts(script: Script) -> List[int]:
    """Positions of what is sent within a fifth of a second."""
    return [wire.seq for _, wire in script.run(0.2)]


def fill_window(script: Script) -> None:
    """The peer sends all that we take."""
    while script.seq < WINDOW:
        script.give(payload=b"x" * min(60000, WINDOW - script.seq))
        script.take()
    script.give(ACK | PUSH)
    assert [(wire.ack, wire.window) for wire in script.take()] == [(WINDOW, 0)]


def closing(script: Script) -> Script:
    """Both sides have finished and know it."""
    script.session.finish()
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=1)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 1)]
    return script


def together(script: Script, *segments: bytes) -> None:
    """Segments of one batch, as a link gives them."""
    script.endpoint.receive_all(THEIRS, list(segments), now=script.now)
    check_endpoint(script.endpoint)


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


def filled(count: int) -> Script:
    """A stream of ours whose peer has sent `count` bytes, which nobody has read; all of them are acknowledged."""
    script = opened()
    while script.seq < count:
        script.give(payload=bytes(min(MSS, count - script.seq)))
        script.take()
    script.give(ACK | PUSH)
    assert [(wire.ack, wire.window) for wire in script.take()] == [(count, WINDOW - count)]
    return script


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


def plain(script: Script, *payloads: bytes) -> None:
    """Data segments that say nothing else, in one batch."""
    batch = [script.packed(ACK, payload=payload, echo=0) for payload in payloads]
    script.endpoint.receive_all(THEIRS, batch, now=script.now)
    check_endpoint(script.endpoint)


def open_another(script: Script) -> None:
    """One more stream of ours, beside those that there are."""
    script.seq = script.ack = script.last_stamp = 0
    script.connect()
    script.raw(script.syn_ack())
    script.give(ACK)
    script.take_raw()


def give_general(script: Script, payload: bytes) -> None:
    """Data that follows the last with an older stamp: no header prediction."""
    script.give(payload=payload, ts=int(1e8) - script.seq)


def flying(count: int) -> Sender:
    """A sender of 20 segments of 1000 bytes, so many of them launched, at time 0; a round trip takes 0.1 s."""
    sender = Sender(1000, BufferPool())
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
