"""A real endpoint against a peer written by hand: one segment in, the exact segments out.

Positions in scripts are relative: 0 is the first byte of each direction, -1 its SYN. Times are seconds since the start.

    script = opened()                       # we connected to the peer
    script.session.send(b"hello")
    assert script.take() == [...]           # what we send now
    script.give(ACK, ack=5)                 # what the peer says
"""

import random
from typing import Any, List, NamedTuple, Optional, Tuple

import streamwire
from invariants import check_endpoint
from streamwire import ACK, DATA, FIN, INIT, PUSH, SYN, WRAP, Wire

from alexstream import Endpoint, Session

OURS = b"\x02\x00\x00\x00\x00\x01"
THEIRS = b"\x02\x00\x00\x00\x00\x02"
PORT = 7
WINDOW = 512 << 10
MSS = 1500 - 23 - 36 - 28
RTT = 0.001  # seconds, of the handshake
START = 5000.0


class Timed(NamedTuple):
    """A segment and the time at which it left, in seconds since `run` was called."""

    time: float
    wire: Wire


class Script:
    """One endpoint and the peer's half of one stream with it."""

    def __init__(self, *, mtu: int = 1500, isn: int = 0xFFFFFF00, seed: int = 1) -> None:
        self.endpoint = Endpoint(OURS, rng=random.Random(seed), mtu=mtu)
        self.now = START
        self.isn = isn  # the peer's
        self.our_isn = 0
        self.init = 0  # INIT where the peer is the opener
        self.stream = 0x1234
        self.port = PORT
        self.window = WINDOW  # what the peer advertises
        self.seq = 0  # the peer's next
        self.ack = 0  # the peer expects
        self.echo = 0  # ts of our latest segment with data or PUSH
        self.last_stamp = 0  # of the peer, not wrapped
        self.session: Session = None  # type: ignore[assignment]

    # What the peer sends

    def give(self, flags: int = ACK, *, seq: Optional[int] = None, ack: Optional[int] = None, **fields: Any) -> None:
        """A segment of the peer; `seq` and `ack` and the SACKs relative; DATA is set where there is a payload."""
        self.feed(self.packed(flags, seq=seq, ack=ack, **fields))

    def packed(self, flags: int, *, seq: Optional[int] = None, ack: Optional[int] = None, **fields: Any) -> bytes:
        """The bytes of what `give` gives."""
        payload = fields.get("payload", b"")
        seq = self.seq if seq is None else seq
        if seq == self.seq:
            self.seq += len(payload) + bool(flags & FIN)
        self.ack = self.ack if ack is None else ack
        sacks = tuple((self.our_isn + 1 + left, self.our_isn + 1 + right) for left, right in fields.pop("sacks", ()))
        wire = Wire(
            self.stream,
            flags | self.init | (DATA if payload else 0),
            self.port,
            (self.isn + 1 + seq) % WRAP,
            (self.our_isn + 1 + self.ack) % WRAP,
            self.window,
            self.our_isn,
            self.stamp(),
            self.echo,
            sacks=sacks,
        )
        return self.pack(wire._replace(**fields))

    def pack(self, wire: Wire) -> bytes:
        """Any segment, as bytes from the peer."""
        return streamwire.pack(wire, THEIRS, OURS)

    def raw(self, wire: Wire, *, origin: bytes = THEIRS, **spoil: Any) -> None:
        """Any segment, exactly as it is."""
        self.feed(streamwire.pack(wire, origin, OURS, **spoil), origin=origin)

    def feed(self, data: bytes, *, origin: bytes = THEIRS) -> None:
        """Any bytes."""
        self.endpoint.receive(origin, data, now=self.now)
        check_endpoint(self.endpoint)

    def stamp(self) -> int:
        """The peer's ts: microseconds, strictly growing."""
        self.last_stamp = max(self.last_stamp + 1, int((self.now - START) * 1e6) + 1000000)
        return self.last_stamp % WRAP

    # What we send

    def take_raw(self) -> List[Wire]:
        """What leaves now, with the numbers of the wire."""
        wires = []
        for peer, data in self.endpoint.segments_to_send(now=self.now):
            assert streamwire.is_whole(data)
            assert streamwire.checksum_is_right(data, OURS, peer)
            wires.append(streamwire.unpack(data))
        assert self.endpoint.segments_to_send(now=self.now) == []
        deadline = self.endpoint.next_deadline()
        assert deadline is None or deadline > self.now
        check_endpoint(self.endpoint)
        for wire in wires:
            if wire.flags & (PUSH | DATA | SYN | FIN):
                self.echo = wire.ts
        return wires

    def take(self) -> List[Wire]:
        """What leaves now, with relative numbers; `ts`, `echo`, `tag`, stream and port are blanked."""
        return [self.relative(wire) for wire in self.take_raw()]

    def relative(self, wire: Wire) -> Wire:
        """The segment with what scripts look at; the rest is checked here and blanked."""
        assert (wire.stream, wire.port, wire.tag) == (self.stream, self.port, self.isn), wire
        sacks = tuple((self.position(left), self.position(right)) for left, right in wire.sacks)
        return wire._replace(
            seq=signed(wire.seq - self.our_isn - 1),
            ack=self.position(wire.ack),
            sacks=sacks,
            tag=0,
            ts=0,
            echo=0,
            stream=0,
            port=0,
            flags=wire.flags & ~INIT,
        )

    def position(self, wire: int) -> int:
        """A wire number of the peer's direction, relative."""
        return signed(wire - self.isn - 1)

    def run(self, seconds: float) -> List[Timed]:
        """Go on for a time, with no input; what leaves, and when."""
        start, end, gone = self.now, self.now + seconds, []
        while True:
            gone += [Timed(round(self.now - start, 6), wire) for wire in self.take()]
            deadline = self.endpoint.next_deadline()
            if deadline is None or deadline > end:
                self.now = end
                return gone
            self.now = deadline

    def wait(self, seconds: float) -> None:
        """Let time pass unnoticed."""
        self.now += seconds

    def events(self) -> List[Any]:
        """All events since last asked."""
        told: List[Any] = []
        while True:
            event = self.endpoint.next_event()
            if event is None:
                return told
            told.append(event)

    def names(self) -> List[str]:
        """The kinds of the events since last asked."""
        return [type(event).__name__ for event in self.events()]

    # Opening

    def connect(self, **offer: Any) -> Wire:
        """We connect: our SYN."""
        self.session = self.endpoint.connect(THEIRS, PORT, now=self.now)
        (syn,) = self.take_raw()
        self.stream, self.our_isn = syn.stream, syn.seq
        return syn

    def syn_ack(self, **fields: Any) -> Wire:
        """The peer's SYN-ACK, not given yet."""
        wire = Wire(
            self.stream,
            SYN | ACK,
            PORT,
            self.isn,
            (self.our_isn + 1) % WRAP,
            self.window,
            self.our_isn,
            self.stamp(),
            self.echo,
            1413,
        )
        return wire._replace(**fields)

    def syn(self, **fields: Any) -> Wire:
        """The peer's SYN, not given yet."""
        wire = Wire(self.stream, SYN | INIT, PORT, self.isn, 0, self.window, 0, self.stamp(), 0, 1413)
        return wire._replace(**fields)

    def cookie_echo(self, answer: Wire, payload: bytes = b"", **fields: Any) -> Wire:
        """The peer's third segment, not given yet."""
        flags = ACK | INIT | PUSH | (DATA if payload else 0)
        wire = Wire(
            self.stream,
            flags,
            PORT,
            (self.isn + 1) % WRAP,
            (answer.seq + 1) % WRAP,
            self.window,
            answer.seq,
            self.stamp(),
            answer.ts,
            1413,
            payload=payload,
        )
        return wire._replace(**fields)


def unconfirmed(**kind: Any) -> Script:
    """We opened, the peer answered and has said nothing since; the cookie has gone back once."""
    segment_size = kind.pop("segment_size", 1413)
    window = kind.pop("window", WINDOW)
    script = Script(**kind)
    script.window = window
    script.connect()
    script.wait(RTT)
    script.raw(script.syn_ack(segment_size=segment_size))
    script.take()
    return script


def opened(**kind: Any) -> Script:
    """We opened, the peer answered, all is confirmed; nothing is left to send or to tell."""
    script = unconfirmed(**kind)
    script.wait(RTT)
    script.give(ACK)
    script.events()
    assert script.take() == []
    return script


def accepted(**kind: Any) -> Script:
    """The peer opened; nothing is left to send or to tell."""
    script = Script(**kind)
    script.init = INIT
    script.endpoint.listen(PORT)
    script.raw(script.syn())
    (answer,) = script.take_raw()
    script.our_isn = answer.seq
    script.wait(RTT)
    script.raw(script.cookie_echo(answer))
    script.take()
    (event,) = script.events()
    script.session = event.session
    return script


def signed(number: int) -> int:
    """`number` modulo 2**32, between -2**31 and 2**31."""
    return (number + WRAP // 2) % WRAP - WRAP // 2


def shape(wires: List[Wire]) -> List[Tuple[int, int]]:
    """Position and payload size of each."""
    return [(wire.seq, len(wire.payload)) for wire in wires]
