"""Two endpoints with nothing but the frames between them: who decides what arrives, and when, is the test.

The one who drives a `Pair` delivers, loses and delays its `flying` frames and moves its clock; after every step
`check` says what must hold whatever the network and the applications did.
"""

import random
from typing import Any, Callable, List, Optional

from invariants import check_endpoint
from streamsim import Frame

from alexstream import Accepted, Acked, Closed, Connected, EndOfStream, Endpoint, Session

PORT = 7


class Side:
    """One node: its endpoint, its stream, and what its application did and saw."""

    def __init__(self, number: int, rng: Any, mtu: int) -> None:
        self.address = b"\x02\0\0\0\0" + bytes([number + 1])
        self.session: Optional[Session] = None
        self.written = bytearray()
        self.got = bytearray()
        self.acked = 0
        self.finished = False
        self.ended = False
        self.closed: Optional[Closed] = None
        self.mtu = mtu
        self.start(rng)

    def start(self, rng: Any) -> None:
        """Boot, or boot again."""
        self.endpoint = Endpoint(self.address, rng=rng, mtu=self.mtu)
        self.endpoint.listen(PORT)

    def send(self, data: bytes) -> None:
        """Write what the send buffer takes of it."""
        if self.session is not None and not self.finished and not self.closed:
            self.written += data[: self.session.send(data)]

    def read(self, size: int = 1 << 20) -> None:
        """Read what is there."""
        if self.session is not None:
            self.got += self.session.read(size)

    def finish(self) -> None:
        """No more will be written."""
        if self.session is not None:
            self.session.finish()
            self.finished = True

    def held(self) -> int:
        """Bytes that have arrived, read or not."""
        return len(self.got) + (self.session.readable if self.session is not None else 0)

    def take_events(self) -> None:
        """Hold every event against the rules: one Closed, as the last; Acked only grows."""
        while True:
            event = self.endpoint.next_event()
            if event is None:
                return
            if isinstance(event, Accepted) and self.session is None:
                self.session = event.session
            if event.session is not self.session:
                continue  # the network may repeat an old handshake
            assert self.closed is None, event
            if isinstance(event, Acked):
                assert event.offset >= self.acked
                self.acked = event.offset
            elif isinstance(event, EndOfStream):
                assert not self.ended
                self.ended = True
            elif isinstance(event, Closed):
                self.closed = event
            elif isinstance(event, Connected):
                assert self.session.opener


class Pair:
    """Side 0 opens to side 1; time stands still unless moved."""

    def __init__(self, make_rng: Callable[[int], Any] = random.Random, *, mtu: int = 1500, now: float = 100.0) -> None:
        self.sides = [Side(number, make_rng(number), mtu) for number in (0, 1)]
        self.now = now
        self.flying: List[Frame] = []
        self.spoilt = False  # aborted or restarted: the stream need not complete

    def connect(self) -> None:
        """Side 0 opens."""
        one, other = self.sides
        one.session = one.endpoint.connect(other.address, PORT, now=self.now)

    def transmit(self) -> List[Frame]:
        """Both sides send what they want; what left."""
        gone = []
        for side in self.sides:
            gone += [
                Frame(side.address, out.peer, bytes(out.payload))
                for out in side.endpoint.segments_to_send(now=self.now)
            ]
            assert side.endpoint.segments_to_send(now=self.now) == []
            side.take_events()
        self.flying += gone
        return gone

    def arrive(self, frame: Frame) -> None:
        """A frame reaches its end."""
        for side in self.sides:
            if side.address == frame.destination:
                side.endpoint.receive(frame.origin, frame.payload, now=self.now)

    def next_deadline(self) -> Optional[float]:
        """When the first timer of both is due, or None."""
        deadlines = [side.endpoint.next_deadline() for side in self.sides]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def check(self) -> None:
        """What must hold after every step (alexstream.md 13): sound endpoints, a prefix, nothing claimed too early."""
        for me, peer in zip(self.sides, reversed(self.sides)):
            check_endpoint(me.endpoint)
            deadline = me.endpoint.next_deadline()
            assert deadline is None or deadline > self.now, "a deadline in the past"
            assert peer.written.startswith(me.got), "other bytes than were written"
            assert me.held() <= len(peer.written)
            assert self.spoilt or peer.acked <= me.held(), "acknowledged what had not arrived"
            if me.session is not None and me.session.at_eof:
                assert peer.finished, "an end that nobody wrote"
                assert me.got == peer.written, "the end before the last byte"
