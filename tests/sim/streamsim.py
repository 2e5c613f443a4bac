"""AlexStream in virtual time: endpoints, links with every fault there is, relays, and a witness that reads the wire.

Deterministic: one `random.Random(seed)`. When a run fails, its seed is printed and its last segments go to a file;
`ALEX_SEED=<seed>` runs that seed alone.

    with Simulator(seed) as sim:
        alice, bob = sim.host(), sim.host()
        sim.join(alice, bob, rate=1e8, delay=0.0005, loss=0.1)
        bob.listen(7)
        program = alice.open(bob, 7, data=b"...")
        sim.run(5.0, until=program.is_over)
"""

import heapq
import os
import random
import sys
import tempfile
from collections import Counter, deque
from typing import (
    Any,
    Callable,
    Counter as CounterType,
    Deque,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import streamwire
from invariants import check_endpoint
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, WRAP

from alexstream import (
    Accepted,
    Acked,
    Closed,
    Connected,
    EndOfStream,
    Endpoint,
    Resumed,
    Session,
    Stalled,
)

BELOW_L4_BYTES = 14 + 23  # Ethernet and AlexMesh headers
SHORTEST_FRAME_BYTES = 60
RELAY_HOLD_SECONDS = 2.0  # a relay drops what it held longer
INBOX_FRAMES = 2000  # socket buffer of a host
READ_FRAMES = 64
TRACE_LINES = 20000


def seeds(count: int) -> List[int]:
    """The seeds to run: 1 ... `count`, or the one of ALEX_SEED."""
    chosen = os.environ.get("ALEX_SEED")
    return [int(chosen)] if chosen else list(range(1, count + 1))


class Frame(NamedTuple):
    """What a link carries."""

    origin: bytes
    destination: bytes
    payload: bytes
    ttl: int = 32

    def wire_bytes(self) -> int:
        """Size on the wire."""
        return max(SHORTEST_FRAME_BYTES, BELOW_L4_BYTES + len(self.payload))


class Simulator:
    """The clock, the random source, the agenda and the trace."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 1000.0  # seconds; not 0, so that nothing depends on it
        self.checked = False  # invariants.py after every step
        self.hosts: List[Host] = []
        self.witness = Witness()
        self._agenda: List[Tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._trace: Deque[Tuple[float, str, Optional[Frame]]] = deque(maxlen=TRACE_LINES)

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], traceback: object) -> None:
        if kind is not None:
            name = os.path.join(tempfile.gettempdir(), f"alexstream-{self.seed}.trace")
            with open(name, "w") as file:
                file.writelines(self._trace_lines())
            sys.stderr.write(f"seed {self.seed}: trace in {name}; again with ALEX_SEED={self.seed}\n")

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do `action` at the time `when`, in seconds of `now`."""
        self._count += 1
        heapq.heappush(self._agenda, (max(when, self.now), self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do `action` `seconds` from now."""
        self.at(self.now + seconds, action)

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Go on until `until()` or for `seconds`; whether `until()` came true."""
        end = self.now + seconds
        while not until():
            if not self._agenda or self._agenda[0][0] > end:
                self.now = end
                return until()
            self.now, _, action = heapq.heappop(self._agenda)
            action()
        return True

    def note(self, text: str, frame: Optional[Frame] = None) -> None:
        """A line of the trace, written out only if the run fails."""
        self._trace.append((self.now, text, frame))

    def host(self, *, mtu: int = 1500, rng: Optional[random.Random] = None) -> "Host":
        """A new host with an endpoint."""
        address = bytes([2, 0, 0, 0, 0, len(self.hosts) + 1])
        host = Host(self, address, mtu=mtu, rng=rng or random.Random(self.rng.getrandbits(64)))
        self.hosts.append(host)
        return host

    def join(self, one: "Host", other: "Host", *, back: Optional[Dict[str, Any]] = None, **forward: Any) -> "Cable":
        """A link each way; `back` are the differences of the way from `other` to `one`."""
        there = Link(self, other.arrive, **forward)
        here = Link(self, one.arrive, **dict(forward, **(back or {})))
        one.links[other.address], other.links[one.address] = there, here
        return Cable(there, here)

    def chain(self, one: "Host", other: "Host", *, relays: int, **kind: Any) -> List["Relay"]:
        """`relays` relays between two hosts, the same kind of link everywhere; the relays from `one` to `other`."""
        made = [Relay(self) for _ in range(relays)]
        rooms: List[Union[Host, Relay]] = [one, *made, other]
        for left, right in zip(rooms, rooms[1:]):
            left.links[other.address] = Link(self, right.arrive, **kind)
            right.links[one.address] = Link(self, left.arrive, **kind)
        return made

    def _trace_lines(self) -> List[str]:
        lines = []
        for when, text, frame in self._trace:
            detail = ""
            if frame is not None:
                detail = f" {frame.origin[-1]}>{frame.destination[-1]} "
                detail += streamwire.unpack(frame.payload).describe() if len(frame.payload) >= 36 else "short"
            lines.append(f"{when:.6f} {text}{detail}\n")
        return lines


class Cable(NamedTuple):
    """Both ways between two hosts."""

    there: "Link"
    back: "Link"

    def set_up(self, up: bool) -> None:
        """Plug in or pull out."""
        self.there.up = self.back.up = up


class Link:
    """One way: a drop-tail queue, a rate, a delay, and faults. Probabilities are per frame, times in seconds."""

    def __init__(
        self,
        sim: Simulator,
        sink: Callable[[Frame], None],
        *,
        rate: float = 1e8,
        delay: float = 0.0005,
        queue: int = 1000,
        jitter: float = 0.0,
        loss: float = 0.0,
        reorder: float = 0.0,
        reorder_by: float = 0.0,
        duplicate: float = 0.0,
        corrupt: float = 0.0,
        bursts: Optional[Tuple[float, float]] = None,
        mtu: int = 1500,
    ) -> None:
        self.sim, self.sink = sim, sink
        self.rate, self.delay, self.queue, self.jitter = rate, delay, queue, jitter
        self.loss, self.reorder, self.reorder_by = loss, reorder, reorder_by
        self.duplicate, self.corrupt, self.mtu = duplicate, corrupt, mtu
        self.bursts = bursts  # mean seconds of fair weather, and of foul: then every frame is lost
        self.up = True
        self.filter: Callable[[Frame], bool] = lambda frame: True  # what a test lets pass
        self.count: CounterType[str] = Counter()  # frames by fate; "bytes lost": of stream data
        self._queue: Deque[float] = deque()  # when each waiting frame will have left
        self._free_at = 0.0
        self._last_arrival = 0.0
        self._weather_changes_at = 0.0
        self._foul = False

    def send(self, frame: Frame) -> None:
        """Take a frame at its near end."""
        now, rng = self.sim.now, self.sim.rng
        while self._queue and self._queue[0] <= now:
            self._queue.popleft()
        fate = self._fate(frame)
        if fate == "overflow" or fate == "too big" or fate == "down":  # never on the wire
            self._drop(frame, fate)
            return
        self._free_at = max(now, self._free_at) + frame.wire_bytes() * 8 / self.rate
        self._queue.append(self._free_at)
        if fate:
            self._drop(frame, fate)
            return
        self.count["passed"] += 1
        self._arrive(frame)
        if rng.random() < self.duplicate:
            self.count["duplicated"] += 1
            self._arrive(frame)

    def _fate(self, frame: Frame) -> str:
        """Why the frame will not arrive; "" when it will."""
        if not self.up:
            return "down"
        if len(self._queue) >= self.queue:
            return "overflow"
        if BELOW_L4_BYTES - 14 + len(frame.payload) > self.mtu:
            return "too big"
        if not self.filter(frame):
            return "filtered"
        if self.sim.rng.random() < self.loss or self._weather_is_foul():
            return "lost"
        return ""

    def _weather_is_foul(self) -> bool:
        """Bursts go by time, not by frame: a chain per frame would stand still while only probes are sent."""
        if self.bursts is None:
            return False
        while self._weather_changes_at <= self.sim.now:
            self._foul = not self._foul and self._weather_changes_at > 0
            start = self._weather_changes_at or self.sim.now
            self._weather_changes_at = start + self.sim.rng.expovariate(1 / self.bursts[self._foul])
        return self._foul

    def _drop(self, frame: Frame, fate: str) -> None:
        self.count[fate] += 1
        self.count["bytes lost"] += len(streamwire.unpack(frame.payload).payload)
        self.sim.note(fate, frame)

    def _arrive(self, frame: Frame) -> None:
        rng = self.sim.rng
        when = self._free_at + self.delay + (self.jitter * rng.random() if self.jitter else 0.0)
        if self.reorder and rng.random() < self.reorder:
            self.count["reordered"] += 1
            when += self.reorder_by
        else:
            when = self._last_arrival = max(when, self._last_arrival)
        if self.corrupt and rng.random() < self.corrupt:
            self.count["corrupted"] += 1
            self.count["bytes lost"] += len(streamwire.unpack(frame.payload).payload)
            frame = frame._replace(payload=self._spoil(frame.payload))
        self.sim.at(when, lambda: self._deliver(frame))

    def _spoil(self, payload: bytes) -> bytes:
        rng = self.sim.rng
        spoiled = bytearray(payload)
        for _ in range(rng.randint(1, 8)):
            spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        if bytes(spoiled) == payload:
            spoiled[0] ^= 1
        return bytes(spoiled)

    def _deliver(self, frame: Frame) -> None:
        if self.up:
            self.sink(frame)
        else:
            self._drop(frame, "down")


class Relay:
    """Passes frames on; frozen, it keeps them, and drops the stale ones when it wakes."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.links: Dict[bytes, Link] = {}  # by final destination
        self._frozen = False
        self._held: Deque[Tuple[float, Frame]] = deque(maxlen=INBOX_FRAMES)

    def arrive(self, frame: Frame) -> None:
        """A frame for somebody beyond."""
        if self._frozen:
            self._held.append((self.sim.now, frame))
        elif frame.ttl > 0:
            self.links[frame.destination].send(frame._replace(ttl=frame.ttl - 1))

    def freeze(self, frozen: bool) -> None:
        """SIGSTOP, SIGCONT."""
        self._frozen = frozen
        held, self._held = self._held, deque(maxlen=INBOX_FRAMES)
        for since, frame in held:
            if self.sim.now - since <= RELAY_HOLD_SECONDS:
                self.arrive(frame)


class Host:
    """A machine: an endpoint, its one loop, its programs."""

    def __init__(self, sim: Simulator, address: bytes, *, mtu: int, rng: random.Random) -> None:
        self.sim, self.address, self.mtu = sim, address, mtu
        self.links: Dict[bytes, Link] = {}  # by final destination
        self.programs: Dict[Session, Program] = {}
        self.accepted: List[Program] = []
        self.answer: Callable[[Session], Program] = lambda session: Program(self, session)
        self.frozen = False
        self.sent = 0  # segments
        self._inbox: Deque[Frame] = deque(maxlen=INBOX_FRAMES)
        self._alarm: Optional[float] = None
        self.boot(rng)

    def boot(self, rng: random.Random) -> None:
        """Start, or after a kill -9 start again: nothing of before is remembered."""
        self.endpoint = Endpoint(self.address, rng=rng, mtu=self.mtu)
        self.programs = {}
        self.accepted = []

    def listen(self, port: int, answer: Optional[Callable[[Session], "Program"]] = None) -> None:
        """Accept streams for `port`; `answer` makes the program of each (a silent reader when not given)."""
        self.endpoint.listen(port)
        if answer is not None:
            self.answer = answer

    def open(self, peer: "Host", port: int, data: bytes = b"", *, finish: bool = True) -> "Program":
        """Connect and write `data`, then finish."""
        session = self.endpoint.connect(peer.address, port, now=self.sim.now)
        program = self.programs[session] = Program(self, session, data, finish=finish)
        self.sim.after(0, self.step)
        return program

    def arrive(self, frame: Frame) -> None:
        """A frame at the network card."""
        if frame.destination != self.address:
            return
        self._inbox.append(frame)
        if len(self._inbox) == 1:
            self.sim.after(0, self.step)

    def freeze(self, frozen: bool) -> None:
        """SIGSTOP, SIGCONT."""
        self.frozen = frozen
        self.sim.after(0, self.step)

    def step(self) -> None:
        """One round of the loop: input before timers, one `now`, output last."""
        if self.frozen:
            return
        now = self.sim.now
        for _ in range(min(READ_FRAMES, len(self._inbox))):
            frame = self._inbox.popleft()
            self.sim.note("received", frame)
            self.endpoint.receive(frame.origin, frame.payload, now=now)
        while True:
            self._run_programs()
            if not self._transmit():
                break
        if self._inbox:
            self.sim.after(0, self.step)
        if self.sim.checked:
            check_endpoint(self.endpoint)
        self._set_alarm()

    def _run_programs(self) -> None:
        """Events first, then every program once."""
        while True:
            event = self.endpoint.next_event()
            if event is None:
                break
            if isinstance(event, Accepted):
                self.programs[event.session] = self.answer(event.session)
                self.accepted.append(self.programs[event.session])
            self.programs[event.session].note(event)
        for program in list(self.programs.values()):
            program.run()

    def _transmit(self) -> bool:
        """Send what there is; whether it made events."""
        for peer, payload in self.endpoint.segments_to_send(now=self.sim.now):
            self.sent += 1
            frame = Frame(self.address, peer, bytes(payload))
            self.sim.witness.see(frame)
            if peer in self.links:
                self.links[peer].send(frame)
        deadline = self.endpoint.next_deadline()
        assert deadline is None or deadline > self.sim.now, f"a deadline in the past: {deadline}"
        return self._has_events()

    def _has_events(self) -> bool:
        event = self.endpoint.next_event()
        if event is None:
            assert self.endpoint.segments_to_send(now=self.sim.now) == [], "sent twice for one stimulus"
            return False
        self.programs[event.session].note(event)
        return True

    def _set_alarm(self) -> None:
        deadline = self.endpoint.next_deadline()
        if deadline is not None and (self._alarm is None or deadline < self._alarm or self._alarm <= self.sim.now):
            self._alarm = deadline
            self.sim.at(deadline, lambda: self._ring(deadline))

    def _ring(self, when: float) -> None:
        if self._alarm != when:
            return  # an earlier one was set since
        self._alarm = None
        deadline = self.endpoint.next_deadline()
        if deadline is not None and deadline <= self.sim.now:
            self.step()
        else:
            self._set_alarm()


class Happened(NamedTuple):
    """An event and its time in seconds."""

    time: float
    event: Any


class Program:
    """What an application does with one stream: write `data`, finish, read all that comes unless `paused`."""

    def __init__(
        self,
        host: Host,
        session: Session,
        data: bytes = b"",
        *,
        finish: bool = True,
        partner: Optional["Program"] = None,
    ) -> None:
        self.host, self.session = host, session
        self.data, self.offset, self.finish = data, 0, finish
        self.paused = False
        self.keep = True  # False: forget what was read
        self.received = bytearray()
        self.received_bytes = 0
        self.history: List[Happened] = []
        self.reads: List[Happened] = []  # how many bytes had been read, when
        self.closed: Optional[Closed] = None
        self.ended_at: Optional[float] = None  # when EndOfStream came
        self.partner = partner  # at the other end: what it wrote is what must come
        if partner is not None:
            partner.partner = self
        self._acked = 0
        self._finished = False

    def run(self) -> None:
        """Write and read as much as goes."""
        session = self.session
        while self.offset < len(self.data) and self.closed is None:
            taken = session.send(memoryview(self.data)[self.offset : self.offset + 65536])
            self.offset += taken
            if not taken:
                break
        if self.finish and not self._finished and self.offset == len(self.data) and self.closed is None:
            self._finished = True
            session.finish()
        while not self.paused and session.readable:
            self._read(session.read(65536))

    def write(self, data: bytes) -> None:
        """More to send, from now on."""
        self.data += data
        self.host.sim.after(0, self.host.step)

    def pause(self, paused: bool) -> None:
        """Stop or go on reading."""
        self.paused = paused
        self.host.sim.after(0, self.host.step)

    def abort(self) -> None:
        """End it now."""
        self.session.abort()
        self.host.sim.after(0, self.host.step)

    def note(self, event: Any) -> None:
        """Keep an event; the order of events is an invariant."""
        assert self.closed is None, f"{event} after Closed"
        now = self.host.sim.now
        self.history.append(Happened(now, event))
        if isinstance(event, Acked):
            assert event.offset >= self._acked, "Acked falls"  # the acknowledgement of the FIN repeats it
            self._acked = event.offset
            if self.partner is not None:
                assert event.offset <= self.partner.received_bytes + self.partner.session.readable
        elif isinstance(event, EndOfStream):
            assert self.ended_at is None
            self.ended_at = now
        elif isinstance(event, Closed):
            self.closed = event

    def happened(self, kind: type) -> List[Happened]:
        """Events of one kind."""
        return [entry for entry in self.history if isinstance(entry.event, kind)]

    def is_over(self) -> bool:
        """Whether Closed came."""
        return self.closed is not None

    def _read(self, piece: bytes) -> None:
        assert piece
        if self.partner is not None:
            start = self.received_bytes
            assert piece == self.partner.data[start : start + len(piece)], f"wrong bytes at {start}"
        self.received_bytes += len(piece)
        self.reads.append(Happened(self.host.sim.now, self.received_bytes))
        if self.keep:
            self.received += piece


class Flow:
    """What the witness knows of one direction of one stream."""

    def __init__(self) -> None:
        self.isn = 0
        self.top = 0  # highest position sent, from the ISN
        self.edge: Optional[int] = None  # highest position this direction may send to, as the other side said
        self.ended = False  # the FIN was sent
        self.ts: Optional[int] = None
        self.segments = self.data_segments = self.data_bytes = self.again_bytes = self.again_segments = 0
        self.bare = self.probes = 0  # without payload; PUSH among them, the cookie echo apart


class Witness:
    """Reads every segment as it leaves a host and holds it against what must be true of each (alexstream.md 13)."""

    def __init__(self) -> None:
        self.flows: Dict[Tuple[bytes, bytes, int, bool], Flow] = {}

    def see(self, frame: Frame) -> None:
        """A segment leaves `frame.origin`."""
        wire = streamwire.unpack(frame.payload)
        if wire.flags & RST:
            return
        init = bool(wire.flags & INIT)
        key = (frame.origin, frame.destination, wire.stream, init)
        if wire.flags & SYN:
            if key not in self.flows or self.flows[key].isn != wire.seq:
                self.flows[key] = Flow()
                self.flows[key].isn = wire.seq
            return
        flow = self.flows.get(key)
        other = self.flows.get((frame.destination, frame.origin, wire.stream, not init))
        if flow is None or other is None or wire.tag != other.isn:
            return  # of a stream before a restart
        self._see_sent(flow, wire)
        self._see_acknowledged(other, wire)

    def total(self, origin: bytes, name: str) -> int:
        """Sum of a counter over all flows that `origin` sends."""
        return sum(getattr(flow, name) for key, flow in self.flows.items() if key[0] == origin)

    def _see_sent(self, flow: Flow, wire: streamwire.Wire) -> None:
        start = near(wire.seq - flow.isn, flow.top)
        stop = start + len(wire.payload) + bool(wire.flags & FIN)
        assert flow.ts is None or 0 < (wire.ts - flow.ts) % WRAP < WRAP // 2, "ts does not grow"
        flow.ts = wire.ts
        flow.segments += 1
        flow.ended = flow.ended or bool(wire.flags & FIN)
        if wire.flags & DATA:
            flow.data_segments += 1
            flow.data_bytes += len(wire.payload)
            again = max(0, min(flow.top, stop) - start)
            flow.again_bytes += min(again, len(wire.payload))
            flow.again_segments += again > 0
            if flow.edge is not None:
                assert start + len(wire.payload) <= flow.edge, "data beyond the peer's window"
        else:
            flow.bare += 1
            flow.probes += bool(wire.flags & PUSH) and wire.segment_size is None and not wire.flags & FIN
        assert start <= flow.top or flow.top == 0, f"a hole before {start}"
        flow.top = max(flow.top, stop)

    def _see_acknowledged(self, other: Flow, wire: streamwire.Wire) -> None:
        if not wire.flags & ACK:
            return
        ack = near(wire.ack - other.isn, other.top)
        edge = ack + wire.window
        assert ack <= max(other.top, 1), "acknowledges what was not sent"
        if not other.ended or ack < other.top:  # after the end there is no window any more
            assert other.edge is None or edge >= other.edge, "the window's edge moved left"
            other.edge = edge
        for left, right in wire.sacks:
            start, stop = near(left - other.isn, ack), near(right - other.isn, ack)
            assert ack < start < stop <= min(edge, other.top), f"SACK {start}-{stop} outside"


def near(wire: int, position: int) -> int:
    """The position nearest to `position` that is `wire` modulo 2**32."""
    return position + (wire - position + WRAP // 2) % WRAP - WRAP // 2


def random_bytes(rng: random.Random, count: int) -> bytes:
    """`count` bytes that no other part of the stream repeats."""
    return rng.getrandbits(8 * count).to_bytes(count, "big") if count else b""


__all__: Sequence[str] = [
    "Accepted",
    "Acked",
    "Cable",
    "Closed",
    "Connected",
    "Flow",
    "Frame",
    "Host",
    "Link",
    "Program",
    "Relay",
    "Resumed",
    "Simulator",
    "Stalled",
    "Witness",
    "near",
    "random_bytes",
    "seeds",
]
