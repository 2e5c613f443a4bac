"""Two endpoints and a hostile network, driven by hypothesis; a model says what must hold after every step.

CI runs the same 300 examples of 80 steps each time. The long search, 20 000 new ones of 200 steps (about an hour):

    HYPOTHESIS_PROFILE=deep pytest --timeout 0 tests/stream/test_stream_{machine,scoreboard}.py
"""

import random
from typing import Any, List

import streamwire
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from streampair import PORT, Pair
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, WRAP, Wire

from constants import COOKIE_SLOT

SIDES = st.sampled_from([0, 1])
SEEDS = st.integers(0, 2**32 - 1)
MORE_THAN_A_WINDOW = random.Random(0).getrandbits(8 * 600000).to_bytes(600000, "big")


class StreamMachine(RuleBasedStateMachine):
    """See the module. A reader that does not call `read` is a paused one, and so is each between two rules."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.sides = self.pair.sides
        self.cut = False
        self.restarts = 0
        self.began = self.pair.now

    @initialize()
    def connect(self) -> None:
        """Side 0 opens."""
        self.pair.connect()
        self.transmit()

    # Applications

    @rule(side=SIDES, size=st.one_of(st.integers(1, 100), st.integers(1000, 8000)), fill=SEEDS)
    def write(self, side: int, size: int, fill: int) -> None:
        self.sides[side].send(random.Random(fill).getrandbits(8 * size).to_bytes(size, "big"))
        self.transmit()

    @rule(side=SIDES)
    def write_more_than_a_window(self, side: int) -> None:
        """The reader is paused: it fills up, and the writer has to wait."""
        self.sides[side].send(MORE_THAN_A_WINDOW)
        self.transmit()

    @rule(side=SIDES, size=st.integers(1, 100000))
    def read(self, side: int, size: int) -> None:
        self.sides[side].read(size)
        self.transmit()

    @rule(side=SIDES)
    def finish(self, side: int) -> None:
        self.sides[side].finish()
        self.transmit()

    @rule(side=SIDES, sure=st.integers(0, 9))
    def abort(self, side: int, sure: int) -> None:
        session = self.sides[side].session
        if session is not None and sure == 0:
            session.abort()
            self.pair.spoilt = True
            self.transmit()

    # The network

    @precondition(lambda self: self.pair.flying)
    @rule(which=SEEDS)
    def deliver(self, which: int) -> None:
        self.pair.arrive(self.pair.flying.pop(which % len(self.pair.flying)))
        self.transmit()

    @rule(count=st.integers(1, 60))
    def deliver_in_order(self, count: int) -> None:
        for _ in range(min(count, len(self.pair.flying))):
            self.deliver(0)

    @precondition(lambda self: self.pair.flying)
    @rule(which=SEEDS)
    def drop(self, which: int) -> None:
        self.pair.flying.pop(which % len(self.pair.flying))

    @precondition(lambda self: self.pair.flying)
    @rule(which=SEEDS)
    def duplicate(self, which: int) -> None:
        self.pair.flying.append(self.pair.flying[which % len(self.pair.flying)])

    @precondition(lambda self: self.pair.flying)
    @rule(which=SEEDS, bit=SEEDS)
    def corrupt(self, which: int, bit: int) -> None:
        frame = self.pair.flying.pop(which % len(self.pair.flying))
        spoilt = bytearray(frame.payload)
        spoilt[bit // 8 % len(spoilt)] ^= 1 << bit % 8
        self.pair.arrive(frame._replace(payload=bytes(spoilt)))
        self.transmit()

    @rule()
    def cut_or_mend(self) -> None:
        self.cut = not self.cut
        if self.cut:
            self.pair.flying = []
        else:
            for side, peer in zip(self.sides, reversed(self.sides)):
                side.endpoint.path_changed(peer.address, now=self.pair.now)
            self.transmit()

    @rule(side=SIDES, mtu=st.sampled_from([100, 300, 600, 900, 1500, 1600]))
    def set_mtu(self, side: int, mtu: int) -> None:
        self.sides[side].endpoint.path_changed(self.sides[1 - side].address, now=self.pair.now, mtu=mtu)
        self.transmit()

    # Time

    @rule(seconds=st.sampled_from([0.0001, 0.001, 0.005, 0.02, 0.2, 3.0]))
    def wait(self, seconds: float) -> None:
        self.pair.now += seconds
        self.transmit()

    @rule()
    def wait_for_timer(self) -> None:
        deadline = self.pair.next_deadline()
        if deadline is not None:
            self.pair.now = max(self.pair.now, deadline)
            self.transmit()

    # Trouble

    @rule(side=SIDES, seed=SEEDS, sure=st.integers(0, 9))
    def restart(self, side: int, seed: int, sure: int) -> None:
        """kill -9, and a new process: everything is forgotten."""
        me = self.sides[side]
        if sure == 0 and me.session is not None:
            self.restarts += 1  # never as any before: the secret of the cookies is another
            me.start(random.Random(f"{self.restarts} {seed}"))
            me.session = None
            me.got.clear()
            self.pair.spoilt = True

    @rule(
        side=SIDES,
        flags=st.sampled_from([ACK, ACK | DATA, ACK | DATA | FIN, RST, RST | ACK, SYN, SYN | ACK, ACK | PUSH]),
        numbers=st.lists(SEEDS, min_size=6, max_size=6),
        init=st.booleans(),
    )
    def inject(self, side: int, flags: int, numbers: List[int], init: bool) -> None:
        """A forged segment for the live stream, tag unknown to the liar."""
        session = self.sides[side].session
        if session is not None:
            wire = Wire(session.stream, flags | (INIT if init else 0), PORT, *numbers)  # type: ignore[arg-type]
            self.forge(side, wire._replace(payload=b"forged" if flags & DATA else b""))

    @precondition(lambda self: self.established())
    @rule(
        side=SIDES,
        flags=st.sampled_from([ACK, ACK | PUSH, ACK | DATA, ACK | DATA | FIN, ACK | FIN, RST | ACK, SYN, SYN | ACK]),
        beyond=st.integers(1, 2**30),
        window=st.one_of(st.just(0), SEEDS),
        sack=st.lists(st.integers(0, 2**30), max_size=4),
    )
    def inject_with_the_right_tag(self, side: int, flags: int, beyond: int, window: int, sack: List[int]) -> None:
        """A liar on the path, who knows tag and numbers: all that is outside of what may be said has no effect.

        What is inside may be forged, by whoever can read the frames: a limit of the protocol.
        """
        me, peer = self.sides[side], self.sides[1 - side]
        assert me.session is not None
        assert peer.session is not None
        sender, receiver = me.session.sender, me.session.receiver
        seq = receiver.edge if flags & (DATA | FIN | RST) else receiver.nxt
        ack = sender.nxt + beyond if flags & DATA else sender.una
        isn, peer_isn = me.session._isn, peer.session._isn
        wire = Wire(
            me.session.stream,
            flags | (0 if me.session.opener else INIT),
            PORT,
            (peer_isn + seq + (beyond if seq == receiver.edge else 0)) % WRAP,
            (isn + ack) % WRAP,
            min(window, max(0, sender.edge - ack)),  # a wider one would be believed
            isn,
            int(self.pair.now * 1e6) % WRAP,
            0,
            sacks=tuple((isn + sender.nxt + right, isn + sender.una - 1) for right in sack),
            payload=b"forged" if flags & DATA else b"",
        )
        # Who sends after its own end is reset, and the liar sends in the peer's name
        self.pair.spoilt = self.pair.spoilt or (me.session.closed is not None and bool(flags & DATA))
        self.forge(side, wire)

    @rule(side=SIDES, data=st.binary(max_size=80))
    def inject_noise(self, side: int, data: bytes) -> None:
        me, peer = self.sides[side], self.sides[1 - side]
        me.endpoint.receive(peer.address, data, now=self.pair.now)
        self.transmit()

    def forge(self, side: int, wire: Wire) -> None:
        """A segment with a right checksum reaches `side` in the name of its peer."""
        me, peer = self.sides[side], self.sides[1 - side]
        data = streamwire.pack(wire, peer.address, me.address)
        me.endpoint.receive(peer.address, data, now=self.pair.now)
        self.transmit()

    def established(self) -> bool:
        """Whether both sides know each other's numbers."""
        return all(side.session is not None and side.session.state.value != "SYN-SENT" for side in self.sides)

    # How it goes on

    def transmit(self) -> None:
        """Both sides send what they want."""
        self.pair.transmit()
        if self.cut:
            self.pair.flying = []
        del self.pair.flying[:-500]

    @invariant()
    def what_must_hold(self) -> None:
        self.pair.check()

    def teardown(self) -> None:
        """From here on the network is fair: everything must arrive, and both ends must come to their end."""
        self.cut = False
        pair = self.pair
        gave_up = ("no answer", "timed out", "peer silent")  # after so long without a frame they may
        pair.spoilt = pair.spoilt or any(side.closed and side.closed.reason in gave_up for side in self.sides)
        # A cookie that was under way for longer is no good any more
        pair.spoilt = pair.spoilt or (self.sides[1].session is None and pair.now - self.began > COOKIE_SLOT)
        self.let_finish()
        fair, end, rounds = pair.now, pair.now + 400.0, 0
        while pair.now < end and not all(side.closed or side.session is None for side in self.sides):
            rounds += 1
            assert rounds < 5000, "for ever at one time"
            self.transmit()
            self.deliver_in_order(len(pair.flying))
            for side in self.sides:
                side.read()
            self.transmit()
            if not pair.flying and pair.next_deadline() is None:
                break  # nothing will happen any more
            if not pair.flying:
                self.wait_for_timer()
            self.let_finish()
            if pair.now < fair + 2.5:  # whoever was to give up by then may not have asked once more
                pair.spoilt = pair.spoilt or any(side.closed and side.closed.reason in gave_up for side in self.sides)
        for side in self.sides:
            side.read()
        pair.check()
        for me, peer in zip(self.sides, reversed(self.sides)):
            if not pair.spoilt:
                reason = me.closed.reason if me.closed else "open"
                assert reason == "finished", reason
                assert me.got == peer.written
                assert me.closed is not None
                assert me.closed.acked == len(me.written)

    def let_finish(self) -> None:
        """Every stream that is there ends."""
        for side in self.sides:
            if not side.finished:
                side.finish()


TestStreamMachine: Any = StreamMachine.TestCase
CHOSEN = settings()  # the profile's
if CHOSEN.derandomize:
    TestStreamMachine.settings = settings(max_examples=CHOSEN.max_examples * 3 // 2, stateful_step_count=80)
