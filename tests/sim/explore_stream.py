"""AlexStream under every schedule of a small size, not a sample of them (alexstream.md 14.4).

schedules  depth first through all interleavings of deliveries, drops, duplicates and early timers of one short stream,
           from SYN to the last FIN; equal states are visited once
plans      two streams' worth of segments, one each way, with every plan of up to 3 of the first 20 frames dropped,
           doubled or delayed (--deep: 4 of 16)
closing    finish, abort, finish at the peer's end, kill and restart of either side, in every order

At every state: what was received is a prefix of what was written, nothing is acknowledged that has not arrived, pipe
and windows add up, and whoever waits has a timer. At the end: all has arrived, both ends say why, and no table holds
anything. The first failure is shown with the steps that led to it.
"""

import argparse
import hashlib
import itertools
import os
import pickle
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from enum import Enum
from heapq import heappop, heappush
from typing import Any, Counter as CounterType, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
import paths  # noqa: F401  # the folders of the tests
import streamwire
from invariants import segments_of
from streampair import Pair
from streamsim import Frame, Witness
from streamwire import DATA, FIN, PUSH, RST, SYN

from alexstream import Session
from constants import LINGER, MESH_HEADER_BYTES, MSS_MIN, STREAM_HEADER_BYTES, USER_TIMEOUT
from utils import unwrap

MTU = MESH_HEADER_BYTES + STREAM_HEADER_BYTES + 28 + MSS_MIN  # the smallest segments, beside three SACK blocks
START = 2000.0  # seconds; so that no float of another kind looks like a time, nor an integer like a stamp
HOP = 0.001  # seconds between two deliveries
TICK = 0.1  # seconds by which the timers of two states may differ that count as equal
DELAY, ECHO = 0.03, 0.003  # how late a delayed frame is, which a PTO overtakes, and the second copy of a doubled one


class Numbers:
    """A random source that is cheap to copy."""

    def __init__(self, seed: int) -> None:
        self.seed, self.count = seed, 0

    def getrandbits(self, bits: int) -> int:
        """A number of so many bits."""
        self.count += 1
        digest = hashlib.blake2s(b"%d %d" % (self.seed, self.count)).digest()
        return int.from_bytes(digest, "big") >> (256 - bits)


class Conversation(Pair):
    """Two applications that write so many segments each, read all, and finish when their manners tell them to.

    A witness reads every segment that leaves (streamsim).
    """

    def __init__(
        self, segments: Sequence[int], manners: Sequence[str] = ("finish", "finish"), patience: float = 60
    ) -> None:
        super().__init__(Numbers, mtu=MTU, now=START)
        self.witness = Witness()
        self.data = [bytes((side + 7 * n) % 251 for n in range(count * MSS_MIN)) for side, count in enumerate(segments)]
        self.manners = list(manners)  # "finish": when all is written; "finish at end": of the peer; "": never
        self.gone = [False, False]  # whose process died; nothing of its stream is left
        self.deaf = [False, False]  # who is not even there any more to say so
        self.patience = patience  # seconds in which it must come to its end in spite of all faults
        self.connect()
        self.settle()

    def act(self) -> None:
        """What the applications do between two frames."""
        for side, data, manner in zip(self.sides, self.data, self.manners):
            side.send(data[len(side.written) :])
            side.read()
            at_end = side.session is not None and side.session.at_eof
            if not side.finished and (manner == "finish" or (manner == "finish at end" and at_end)):
                side.finish()

    def settle(self) -> None:
        """Let both ends act until they wait again."""
        while True:
            self.act()
            sent = self.transmit()
            if not sent:
                break
            for frame in sent:
                self.witness.see(frame)
        self.check()
        assert self.now < START + self.patience, "it does not end"
        assert self.is_over() or self.flying or self.next_deadline() is not None, "both wait for ever"

    def deliver(self, which: int) -> None:
        """One of the frames that fly arrives."""
        self.now += HOP
        frame = self.flying.pop(which)
        if not any(deaf and side.address == frame.destination for side, deaf in zip(self.sides, self.deaf)):
            self.arrive(frame)
        self.settle()

    def ring(self) -> None:
        """The next timer is due, whatever flies."""
        deadline = self.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.settle()

    def is_over(self) -> bool:
        """Whether both streams have ended."""
        return all(side.closed or gone for side, gone in zip(self.sides, self.gone))

    def check_delivery(self) -> None:
        """Everything arrived, and both ends know it."""
        for me, peer, data in zip(self.sides, reversed(self.sides), self.data):
            assert me.closed is not None
            assert (me.closed.reason, me.closed.acked) == ("finished", len(data)), me.closed
            assert peer.got == data

    def check_tables(self) -> None:
        """After TIME-WAIT no endpoint remembers anything that has a timer."""
        self.now += LINGER
        self.transmit()
        for side in self.sides:
            assert side.endpoint.sessions == {}, "a stream is left in the table"
            assert side.endpoint.next_deadline() is None, "something lingers for ever"


# --- Schedules ------------------------------------------------------------------------------------------------------


class Budget(NamedTuple):
    """How many faults are left."""

    drops: int
    duplicates: int
    timers: int


class Step(NamedTuple):
    """What happens next: `what` and, of the frames that fly, to `which`."""

    what: str
    which: int


# What cannot change what a state does next, or by little: counters, the heap behind `next_deadline`, the round trip.
UNTOLD = {
    "drops", "_timers", "_timer_count", "timer_at", "_endpoint", "_opened", "_filled", "_now", "round_trip", "_secret",
    "congestion", "_progress", "heard", "_keepalive_at", "time", "mtu", "address", "_spent", "_newest_ts", "last_stamp",
    "_known_ack", "_known_window", "_burst", "_time_wait", "_syn_acks", "_resets", "_challenges", "_rng",
}  # fmt: skip


def fingerprint(state: Conversation) -> int:
    """A hash that is equal for states that go on alike, give or take the length of a timer.

    Timers count to TICK. A stamp counts by how it compares with those of the transmissions on its side's scoreboard,
    the only ones that an echo is ever held against. All fields that are not known to be without effect are part of it,
    also those that do not exist yet.
    """
    seen: Set[int] = set()

    def freeze(value: Any, known: Sequence[Stamps]) -> Any:
        """`known` are the stamps of its own side and those of the peer."""
        kind = type(value)
        if kind is int:
            return place(value, known[0]) if is_stamp(value) else value
        if kind is float:
            return round((value - state.now) / TICK) if START <= value < START + 1000 else round(value, 1)
        if value is None or kind in (bool, str, bytes):
            return value
        if kind is bytearray:
            return bytes(value)
        if isinstance(value, (tuple, list, deque)):
            return tuple(freeze(entry, known) for entry in value)
        if isinstance(value, dict):
            return tuple((freeze(key, known), freeze(entry, known)) for key, entry in value.items())
        if isinstance(value, (set, frozenset)):
            return tuple(sorted(map(repr, value)))
        if isinstance(value, Enum):
            return value.name
        if isinstance(value, type) or id(value) in seen:
            return getattr(value, "__name__", "again")
        seen.add(id(value))
        names = getattr(value, "__slots__", None) or vars(value)
        return tuple(
            (name, freeze(getattr(value, name), known[::-1] if name == "_echo" else known))
            for name in names
            if name not in UNTOLD
        )

    known = [stamps_of(side.session) for side in state.sides]
    both = (known, known[::-1])
    frozen = tuple(freeze(side, stamps) for side, stamps in zip(state.sides, both))
    flying = []
    for frame in state.flying:
        wire = streamwire.unpack(frame.payload)
        mine, theirs = both[frame.origin != state.sides[0].address]
        echoed = wire.flags & (DATA | FIN | PUSH | SYN)  # only of these is the stamp ever looked at again
        ts, echo = place(wire.ts, mine) if echoed else None, place(wire.echo, theirs)
        flying.append((frame.origin, ts, echo, wire._replace(ts=0, echo=0, segment_size=0)))
    return hash((frozen, tuple(sorted(flying, key=repr))))  # any of them may be the next


Stamps = List[int]  # ascending


def is_stamp(value: int) -> bool:
    """Whether a number can be nothing else."""
    return START * 1e6 <= value < (START + 100) * 1e6


def stamps_of(session: Optional[Session]) -> Stamps:
    """All that an echo may be held against: those of the transmissions on the scoreboard, and the small probe's."""
    if session is None:
        return []
    sent = segments_of(session.sender)
    return sorted({session._small_ts, *(one.ts for one in sent), *(one.repaired_ts for one in sent)})


def place(stamp: int, known: Stamps) -> Tuple[int, int, bool]:
    """How a stamp compares with those, and whether it is one: zero says "none"."""
    return bisect_left(known, stamp), bisect_right(known, stamp), stamp != 0


def is_stale(state: Conversation, frame: Frame) -> bool:
    """Whether a frame is an acknowledgement that says nothing new to a peer just heard, nor ever will.

    When it arrives, and whether, is all the same: one order is enough (partial-order reduction).
    """
    wire = streamwire.unpack(frame.payload)
    if wire.flags & (DATA | FIN | PUSH | SYN | RST) or wire.sacks:
        return False
    (side,) = [side for side in state.sides if side.address == frame.destination]
    session = side.session
    if session is None or session.closed is not None:
        return session is not None
    ack = unwrap(wire.ack - session._isn, session.sender.una)
    is_old = ack <= session.sender.una and ack + wire.window <= session.sender.edge
    return is_old and session._confirmed and not session._silent and wire.echo != session._small_ts


def choices(state: Conversation, budget: Budget) -> Iterator[Tuple[Step, Budget]]:
    """All that may happen next, and what is left of the budget then."""
    if not state.flying:
        yield Step("timer", 0), budget
        return
    stale = next((which for which, frame in enumerate(state.flying) if is_stale(state, frame)), None)
    if stale is not None:
        yield Step("deliver", stale), budget
        return
    for which, frame in enumerate(state.flying):
        if frame in state.flying[:which]:
            continue  # a copy: to take the first is the same
        yield Step("deliver", which), budget
        if budget.drops:
            yield Step("drop", which), budget._replace(drops=budget.drops - 1)
        if budget.duplicates:
            yield Step("duplicate", which), budget._replace(duplicates=budget.duplicates - 1)
    if budget.timers and state.next_deadline() is not None:
        yield Step("timer", 0), budget._replace(timers=budget.timers - 1)


def take(state: Conversation, step: Step) -> None:
    """Let it happen."""
    if step.what == "deliver":
        state.deliver(step.which)
    elif step.what == "drop":
        state.flying.pop(step.which)
    elif step.what == "duplicate":
        state.flying.append(state.flying[step.which])
    else:
        state.ring()


class Trail(NamedTuple):
    """A step, and those before it."""

    step: Step
    before: Any  # Optional[Trail]; mypy before 1.0 knows no recursive types


def steps_of(trail: Optional[Trail]) -> List[Step]:
    """From the first to the last."""
    steps: List[Step] = []
    while trail is not None:
        steps.append(trail.step)
        trail = trail.before
    return steps[::-1]


def schedules(segments: Tuple[int, int], budget: Budget, seconds: float = float("inf")) -> CounterType[str]:
    """Visit every state that faults within `budget` can lead to, or those met in `seconds`; how many of what."""
    count: CounterType[str] = Counter()
    first = Conversation(segments)
    visited = {hash((fingerprint(first), budget))}
    stack: List[Tuple[bytes, Budget, Optional[Trail]]] = [(pickle.dumps(first, -1), budget, None)]
    end = time.monotonic() + seconds
    while stack and time.monotonic() < end:
        frozen, budget, trail = stack.pop()
        state: Conversation = pickle.loads(frozen)
        for step, left in choices(state, budget):
            after: Conversation = pickle.loads(frozen)
            try:
                take(after, step)
                if after.is_over():  # what still flies meets nothing but TIME-WAIT: one order is enough
                    count["ends"] += 1
                    while after.flying:
                        after.deliver(0)
                    after.check_delivery()
                    after.check_tables()
                    continue
            except BaseException:
                show_steps(Conversation(segments), steps_of(Trail(step, trail)))
                raise
            count["steps"] += 1
            name = hash((fingerprint(after), left))
            if name not in visited:
                visited.add(name)
                stack.append((pickle.dumps(after, -1), left, Trail(step, trail)))
    count["states"] = len(visited)
    count["states left to go on from"] = len(stack)
    return count


def show_steps(state: Conversation, steps: Sequence[Step]) -> None:
    """Tell a schedule, up to its last step."""
    for step in steps:
        frame = state.flying[step.which] if step.what != "timer" else None
        detail = f" {frame.origin[-1]}> {streamwire.unpack(frame.payload).describe()}" if frame else ""
        sys.stderr.write(f"{state.now - START:.6f} {step.what}{detail}\n")
        if step is not steps[-1]:
            take(state, step)


# --- Plans ----------------------------------------------------------------------------------------------------------

Plan = Dict[int, str]  # what becomes of the frame of that number; all others arrive
FATES = ("drop", "double", "delay")


def plans(frames: int, faults: int) -> Iterator[Plan]:
    """Every choice of up to `faults` of the first `frames` frames, with every choice of their fates."""
    for count in range(faults + 1):
        for chosen in itertools.combinations(range(frames), count):
            for fates in itertools.product(FATES, repeat=count):
                yield dict(zip(chosen, fates))


def run_plan(plan: Plan, segments: Tuple[int, int] = (6, 6)) -> float:
    """One conversation to its end, each frame under way for half a millisecond; seconds until it was over."""
    state = Conversation(segments)
    way: List[Tuple[float, int, Frame]] = []
    sent = 0
    while way or state.flying or not state.is_over():
        for frame in state.flying:
            fate = plan.get(sent, "")
            if fate != "drop":
                heappush(way, (state.now + HOP / 2 + (DELAY if fate == "delay" else 0), sent, frame))
            if fate == "double":
                heappush(way, (state.now + HOP / 2 + ECHO, sent, frame))
            sent += 1
        state.flying = []
        deadline = state.next_deadline()
        if way and (deadline is None or way[0][0] <= deadline):
            state.now, _, frame = heappop(way)
            state.arrive(frame)
            state.settle()
        elif not state.is_over():
            state.ring()
    took = state.now - START
    state.check_delivery()
    state.check_tables()
    return took


def run_plans(chosen: Iterator[Plan]) -> CounterType[str]:
    """Run each; how many, and the slowest in milliseconds."""
    count: CounterType[str] = Counter()
    for plan in chosen:
        try:
            took = run_plan(plan)
        except BaseException:
            sys.stderr.write(f"plan {plan}\n")
            raise
        count["runs"] += 1
        count["slowest ms"] = max(count["slowest ms"], round(took * 1000))
    return count


# --- Closing --------------------------------------------------------------------------------------------------------

DEEDS = ("finish", "finish at end", "abort", "kill", "restart")
ORDERS = ("0 first", "1 first", "at once", "at once, all lost")


def closings() -> Iterator[Tuple[str, str, str]]:
    """What side 0 does, what side 1 does, and in which order; without those in which nobody begins."""
    for one, other, order in itertools.product(DEEDS, DEEDS, ORDERS):
        if (one, other) != ("finish at end", "finish at end"):
            yield one, other, order


def close(one: str, other: str, order: str) -> List[str]:
    """Bring a stream to its end in the middle of its data; what each side was told (or that its process is gone)."""
    state = Conversation((6, 6), ("", ""), 3 * USER_TIMEOUT)
    go_on(state, HOP * 100)
    state.data = [data + bytes(3 * MSS_MIN) for data in state.data]
    state.settle()
    first = order == "1 first"
    do(state, int(first), (one, other)[first])
    if order.endswith("first"):
        go_on(state, 1.0)
    do(state, int(not first), (one, other)[not first])
    if order.endswith("lost"):
        state.flying = []
    go_on(state, 2 * USER_TIMEOUT)
    assert state.is_over(), "one side waits for ever"
    told = []
    for side, gone, deed in zip(state.sides, state.gone, (one, other)):
        told.append(deed + "ed" if gone else side.closed.reason if side.closed else "")
    if "finished" in told:
        state.check_delivery()
    state.check_tables()
    return told


def do(state: Conversation, number: int, deed: str) -> None:
    """The deed of one side."""
    side = state.sides[number]
    if deed.startswith("finish"):
        state.manners[number] = deed
    elif deed == "abort":
        assert side.session is not None
        side.session.abort()
    else:
        side.session = None
        side.start(Numbers(number + 2))
        state.gone[number] = True
        state.deaf[number] = deed == "kill"
    state.settle()


def go_on(state: Conversation, seconds: float) -> None:
    """Deliver in order and let timers ring, for a time or until nothing happens any more."""
    end = state.now + seconds
    while state.flying or (not state.is_over() and (state.next_deadline() or end) < end):
        if state.flying:
            state.deliver(0)
        else:
            state.ring()
    state.now = max(state.now, end)


def expected(mine: str, theirs: str, order: str, me: int) -> Set[str]:
    """What the one whose deed is `mine` may be told."""
    they_began = order.startswith(str(1 - me))
    if mine in ("kill", "restart"):
        return {mine + "ed"}
    if mine == "abort" and not (they_began and theirs in ("abort", "restart")):
        return {"aborted"}
    return {
        "finish": {"finished"},
        "finish at end": {"finished"},
        "abort": {"peer restarted"} if order.endswith("lost") else {"reset by peer"},
        "kill": {"timed out", "peer silent"},
        "restart": {"peer restarted"},
    }[theirs]


def run_closings() -> CounterType[str]:
    """All of them; how many, and how often which end."""
    count: CounterType[str] = Counter()
    for one, other, order in closings():
        told = close(one, other, order)
        for me, (mine, theirs) in enumerate(((one, other), (other, one))):
            assert told[me] in expected(mine, theirs, order, me), (one, other, order, told)
            count[told[me]] += 1
        count["runs"] += 1
    return count


# --- The command ----------------------------------------------------------------------------------------------------

PARTS = ("schedules", "plans", "closing")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Search, and print how much was searched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="schedules, plans, closing (all)")
    parser.add_argument("--segments", type=int, nargs=2, default=(3, 0), metavar="N", help="schedules: each way (3 0)")
    parser.add_argument("--drops", type=int, default=2, help="schedules: frames lost (2)")
    parser.add_argument("--duplicates", type=int, default=0, help="schedules: frames doubled (0)")
    parser.add_argument("--timers", type=int, default=1, help="schedules: timers that run while frames fly (1)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="schedules: stop then (never)")
    parser.add_argument("--deep", action="store_true", help="plans: 4 of 16 frames instead of 3 of 20")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    budget = Budget(options.drops, options.duplicates, options.timers)
    searches = {
        "schedules": lambda: schedules(tuple(options.segments), budget, 60 * options.minutes),
        "plans": lambda: run_plans(plans(*((16, 4) if options.deep else (20, 3)))),
        "closing": run_closings,
    }
    for part in options.parts or PARTS:
        began = time.monotonic()
        count = searches[part]()
        figures = ", ".join(f"{number} {what}" for what, number in sorted(count.items()))
        print(f"{part}: {figures}; {time.monotonic() - began:.0f} s, no failure", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
