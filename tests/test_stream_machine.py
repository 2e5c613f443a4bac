"""Two endpoints and a hostile network, driven by hypothesis; a model says what must hold after every step.

CI runs a modest number of examples, always the same; ALEX_EXAMPLES=20000 runs that many others.
"""

import os
import random
from typing import Any, Dict, List, Optional

import streamwire
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from streamsim import Frame
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, Wire

from alexstream import Accepted, Acked, Closed, Connected, EndOfStream, Endpoint, Session

EXAMPLES = int(os.environ.get("ALEX_EXAMPLES", "0"))
PORT = 7
SIDES = st.sampled_from([0, 1])
SEEDS = st.integers(0, 2**32 - 1)


class Side:
    """One node: its endpoint, its stream, and what its application did and saw."""

    def __init__(self, number: int) -> None:
        self.address = b"\x02\0\0\0\0" + bytes([number + 1])
        self.session: Optional[Session] = None
        self.written = bytearray()
        self.got = bytearray()
        self.acked = 0
        self.finished = False
        self.ended = False
        self.closed: Optional[Closed] = None
        self.start(number)

    def start(self, seed: int) -> None:
        """Boot, or boot again."""
        self.endpoint = Endpoint(self.address, rng=random.Random(seed))
        self.endpoint.listen(PORT)

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


class StreamMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Side(0), Side(1)]
        self.now = 100.0
        self.flying: List[Frame] = []
        self.cut = False
        self.spoilt = False  # aborted or restarted: the stream need not complete

    @initialize()
    def connect(self) -> None:
        """Side 0 opens."""
        one, other = self.sides
        one.session = one.endpoint.connect(other.address, PORT, now=self.now)
        self.transmit()

    # Applications

    @rule(side=SIDES, size=st.one_of(st.integers(1, 100), st.integers(1000, 8000)), fill=SEEDS)
    def write(self, side: int, size: int, fill: int) -> None:
        me = self.sides[side]
        if me.session is None or me.finished or me.closed:
            return
        data = random.Random(fill).getrandbits(8 * size).to_bytes(size, "big")
        taken = me.session.send(data)
        me.written += data[:taken]
        self.transmit()

    @rule(side=SIDES, size=st.integers(1, 100000))
    def read(self, side: int, size: int) -> None:
        me = self.sides[side]
        if me.session is not None:
            me.got += me.session.read(size)
            self.transmit()

    @rule(side=SIDES)
    def finish(self, side: int) -> None:
        me = self.sides[side]
        if me.session is not None:
            me.session.finish()
            me.finished = True
            self.transmit()

    @precondition(lambda self: self.sides[1].session is not None)
    @rule(side=SIDES, sure=st.integers(0, 9))
    def abort(self, side: int, sure: int) -> None:
        me = self.sides[side]
        if me.session is not None and sure == 0:
            me.session.abort()
            self.spoilt = True
            self.transmit()

    # The network

    @precondition(lambda self: self.flying)
    @rule(which=SEEDS)
    def deliver(self, which: int) -> None:
        self.arrive(self.flying.pop(which % len(self.flying)))

    @rule(count=st.integers(1, 60))
    def deliver_in_order(self, count: int) -> None:
        for _ in range(min(count, len(self.flying))):
            self.arrive(self.flying.pop(0))

    @precondition(lambda self: self.flying)
    @rule(which=SEEDS)
    def drop(self, which: int) -> None:
        self.flying.pop(which % len(self.flying))

    @precondition(lambda self: self.flying)
    @rule(which=SEEDS)
    def duplicate(self, which: int) -> None:
        self.flying.append(self.flying[which % len(self.flying)])

    @precondition(lambda self: self.flying)
    @rule(which=SEEDS, bit=SEEDS)
    def corrupt(self, which: int, bit: int) -> None:
        frame = self.flying.pop(which % len(self.flying))
        spoilt = bytearray(frame.payload)
        spoilt[bit // 8 % len(spoilt)] ^= 1 << bit % 8
        self.arrive(frame._replace(payload=bytes(spoilt)))

    @rule()
    def cut_or_mend(self) -> None:
        self.cut = not self.cut
        if self.cut:
            self.flying = []
        else:
            for side, peer in zip(self.sides, reversed(self.sides)):
                side.endpoint.path_changed(peer.address, now=self.now)
            self.transmit()

    @rule(side=SIDES, mtu=st.sampled_from([100, 300, 600, 900, 1500, 1600]))
    def set_mtu(self, side: int, mtu: int) -> None:
        self.sides[side].endpoint.path_changed(self.sides[1 - side].address, now=self.now, mtu=mtu)
        self.transmit()

    @rule(side=SIDES)
    def block(self, side: int) -> None:
        self.sides[side].endpoint.blocked(now=self.now)
        self.transmit()

    # Time

    @rule(seconds=st.sampled_from([0.0001, 0.001, 0.005, 0.02, 0.2, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.transmit()

    @rule()
    def wait_for_timer(self) -> None:
        deadlines = [side.endpoint.next_deadline() for side in self.sides]
        set_ones = [deadline for deadline in deadlines if deadline is not None]
        if set_ones:
            self.now = max(self.now, min(set_ones))
            self.transmit()

    # Trouble

    @rule(seed=SEEDS, sure=st.integers(0, 9))
    def restart(self, seed: int, sure: int) -> None:
        """kill -9 of side 1: everything is forgotten."""
        if sure == 0:
            self.sides[1].start(seed + 2)  # never one that was there: the secret of the cookies is another
            self.sides[1].session = None
            self.sides[1].got.clear()
            self.spoilt = True

    @rule(
        side=SIDES,
        flags=st.sampled_from([ACK, ACK | DATA, ACK | DATA | FIN, RST, RST | ACK, SYN, SYN | ACK, ACK | PUSH]),
        numbers=st.lists(SEEDS, min_size=6, max_size=6),
        init=st.booleans(),
    )
    def inject(self, side: int, flags: int, numbers: List[int], init: bool) -> None:
        """A forged segment for the live stream, tag unknown to the liar."""
        session = self.sides[0].session
        assert session is not None
        payload = b"forged" if flags & DATA else b""
        flags |= INIT if init else 0
        wire = Wire(session.stream, flags, PORT, *numbers)._replace(payload=payload)  # type: ignore[arg-type]
        me, peer = self.sides[side], self.sides[1 - side]
        data = streamwire.pack(wire, peer.address, me.address)
        me.endpoint.receive(peer.address, data, now=self.now)
        self.transmit()

    @rule(side=SIDES, data=st.binary(max_size=80))
    def inject_noise(self, side: int, data: bytes) -> None:
        me, peer = self.sides[side], self.sides[1 - side]
        me.endpoint.receive(peer.address, data, now=self.now)
        self.transmit()

    # How it goes on

    def transmit(self) -> None:
        """Both sides send what they want."""
        for side in self.sides:
            sent = side.endpoint.segments_to_send(now=self.now)
            assert side.endpoint.segments_to_send(now=self.now) == []
            if not self.cut:
                self.flying += [Frame(side.address, out.peer, bytes(out.payload)) for out in sent]
            side.take_events()
        del self.flying[:-500]

    def arrive(self, frame: Frame) -> None:
        """A frame reaches its end."""
        for side in self.sides:
            if side.address == frame.destination:
                side.endpoint.receive(frame.origin, frame.payload, now=self.now)
        self.transmit()

    @invariant()
    def endpoints_are_sound(self) -> None:
        for side in self.sides:
            side.endpoint.check()
            deadline = side.endpoint.next_deadline()
            assert deadline is None or deadline > self.now

    @invariant()
    def received_is_a_prefix_of_written(self) -> None:
        for me, peer in zip(self.sides, reversed(self.sides)):
            assert peer.written.startswith(bytes(me.got))
            if me.session is not None:
                held = len(me.got) + me.session.readable
                assert held <= len(peer.written)
                assert self.spoilt or peer.acked <= held
                if me.session.at_eof:
                    assert peer.finished
                    assert me.got == peer.written

    def teardown(self) -> None:
        """From here on the network is fair: everything must arrive, and both ends must come to their end."""
        self.cut = False
        gave_up = ("no answer", "timed out", "peer silent")  # after so long without a frame they may
        self.spoilt = self.spoilt or any(side.closed and side.closed.reason in gave_up for side in self.sides)
        for side in self.sides:
            if side.session is not None:
                side.session.finish()
                side.finished = True
        fair, end, rounds = self.now, self.now + 400.0, 0
        while self.now < end and not all(side.closed or side.session is None for side in self.sides):
            rounds += 1
            assert rounds < 5000, "for ever at one time"
            self.transmit()
            self.deliver_in_order(len(self.flying))
            for side in self.sides:
                if side.session is not None:
                    side.got += side.session.read(1 << 20)
            self.transmit()
            if not self.flying and all(side.endpoint.next_deadline() is None for side in self.sides):
                break  # nothing will happen any more
            if not self.flying:
                self.wait_for_timer()
            if self.sides[1].session is not None and not self.sides[1].finished:
                self.sides[1].session.finish()
                self.sides[1].finished = True
            if self.now < fair + 2.5:  # whoever was to give up by then may not have asked once more
                self.spoilt = self.spoilt or any(side.closed and side.closed.reason in gave_up for side in self.sides)
        for side in self.sides:
            if side.session is not None:
                side.got += side.session.read(1 << 20)
        self.endpoints_are_sound()
        self.received_is_a_prefix_of_written()
        for me, peer in zip(self.sides, reversed(self.sides)):
            if not self.spoilt:
                reason = me.closed.reason if me.closed else "open"
                assert reason == "finished", reason
                assert me.got == peer.written
                assert me.closed is not None
                assert me.closed.acked == len(me.written)


TestStreamMachine: Any = StreamMachine.TestCase
OPTIONS: Dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
if EXAMPLES:
    TestStreamMachine.settings = settings(max_examples=EXAMPLES, stateful_step_count=200, **OPTIONS)
else:
    TestStreamMachine.settings = settings(max_examples=60, stateful_step_count=60, derandomize=True, **OPTIONS)
