"""The sender's scoreboard against a model that keeps what it knows of every single position, and looks at all of them.

Written from alexstream.md 6 with RFC 6675 (SACK), RFC 8985 (RACK) and RFC 9002 6.1.1 (packet threshold); O(n**2).
"""

import random
from typing import Any, Dict, Iterable, List, Optional, Tuple

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from invariants import segments_of

from alexstream import BufferPool, SegmentState, Sender, SentRange
from constants import REO_MIN, THRESHOLD
from utils import Range

SEEDS = st.integers(0, 2**32 - 1)
FLYING, SACKED, LOST = "flying", "sacked", "lost"


class Position:
    """One byte, or the FIN, that was sent and is not acknowledged: its segment and that segment's transmissions."""

    def __init__(self, segment: int) -> None:
        self.segment = segment  # where the segment begins that it was last cut into
        self.state = LOST
        self.number = self.copies = self.ts = self.repaired_ts = 0
        self.time = 0.0


class Model:
    """What of [una, nxt) is flying, sacked, lost."""

    def __init__(self, mss: int) -> None:
        self.mss, self.una, self.nxt, self.end = mss, 1, 1, 1
        self.positions: Dict[int, Position] = {}
        self.number = self.newest = self.cut_up_to = 0  # transmissions: made, known to have arrived, when last cut
        self.srtt = self.latest = self.shortest = 0.0
        self.patience_scale, self.reordered, self.measured = 1, False, False

    def all(self, state: str) -> List[int]:
        """The positions in a state."""
        return sorted(at for at, position in self.positions.items() if position.state == state)

    def segment_at(self, at: int) -> List[int]:
        """All positions of the segment that holds this one."""
        name = self.positions[at].segment
        return sorted(other for other, position in self.positions.items() if position.segment == name)

    def segments(self, state: str) -> List[List[int]]:
        """The segments in a state."""
        firsts = sorted({self.positions[at].segment for at in self.all(state)})
        return [[at for at in self.all(state) if self.positions[at].segment == first] for first in firsts]

    def sample(self, trip: float) -> None:
        """RFC 6298, as far as RACK needs it."""
        self.srtt = 7 / 8 * self.srtt + trip / 8 if self.measured else trip
        self.shortest = min(self.shortest, trip) if self.measured else trip
        self.latest, self.measured = trip, True

    def cut(self, at: int) -> List[int]:
        """The segment at `at`, in a size that may be sent: what is beyond is a lost segment of its own."""
        whole = self.segment_at(at)
        data = [other for other in whole if other < self.end]
        if len(data) > self.mss:
            for other in whole:
                self.positions[other].state = LOST
                if other >= whole[0] + self.mss:
                    self.positions[other].segment = whole[0] + self.mss
        return self.segment_at(at)

    def next_lost(self) -> Optional[Tuple[int, int]]:
        """What is repaired next: the lowest."""
        lost = self.all(LOST)
        return (lost[0], self.cut(lost[0])[-1] + 1) if lost else None

    def send(self, start: int, stop: int, ts: int, now: float) -> None:
        """A transmission; only one of what counted as lost is a repair."""
        self.number += 1
        for at in range(start, stop):
            position = self.positions.setdefault(at, Position(start))
            if position.state == LOST:
                position.repaired_ts = ts if position.copies else 0
            position.state, position.number, position.ts, position.time = FLYING, self.number, ts, now
            position.copies += 1
        self.nxt = max(self.nxt, stop)

    def acknowledge(self, ack: int, sacks: Iterable[Range], echo: int) -> int:
        """Newly delivered positions. A segment counts once a block, or the acknowledgement, covers all of it."""
        delivered, spurious = 0, False
        covering = [Range(self.una, ack)] + [block for block in sacks if max(ack, self.una) < block.start < block.stop]
        for block in covering:
            for segment in self.segments(FLYING) + self.segments(LOST):
                if not (block.start <= segment[0] and segment[-1] < block.stop <= self.nxt):
                    continue
                delivered += len(segment)
                last = self.positions[segment[0]]
                if last.state == LOST or 0 < echo < last.repaired_ts:
                    spurious = True
                elif last.copies == 1 or not 0 < echo < last.ts:
                    self.newest = max(self.newest, last.number)
                for at in segment:
                    self.positions[at].state = SACKED
        for at in [at for at in self.positions if at < ack]:
            delivered += self.positions.pop(at).state != SACKED  # of a segment in part
        self.una = max(self.una, ack)
        for at in self.positions:
            self.positions[at].segment = max(self.positions[at].segment, self.una)
        if spurious:
            self.reordered, self.patience_scale = True, min(64, 2 * self.patience_scale)
        return delivered

    def overdue_at(self, at: int) -> Optional[float]:
        """When a position will be lost, if it flies and something sent later has arrived."""
        position = self.positions[at]
        if position.state != FLYING or position.number >= self.newest:
            return None
        reordering = min(self.srtt, self.patience_scale * max(REO_MIN, self.shortest / 4))
        passed = not self.reordered and self.newest - position.number >= THRESHOLD
        return 0.0 if passed else position.time + max(self.srtt, self.latest) + reordering

    def detect(self, now: float) -> bool:
        """Mark what is lost by now; whether that is a loss of something sent since the last cut."""
        due = [at for at in self.positions if (self.overdue_at(at) or now) <= now and self.overdue_at(at) is not None]
        fresh = any(self.positions[at].number > self.cut_up_to for at in due)
        for at in due:
            self.positions[at].state = LOST
        self.cut_up_to = self.number if fresh else self.cut_up_to
        return fresh

    def resize(self, mss: int) -> None:
        """What flies in larger segments is lost."""
        self.mss = mss
        for segment in self.segments(FLYING):
            if len([at for at in segment if at < self.end]) > mss:
                for at in segment:
                    self.positions[at].state = LOST


class ScoreboardMachine(RuleBasedStateMachine):
    """Both take the same decisions and news; after each step they agree."""

    @initialize(mss=st.sampled_from([3, 5]))
    def begin(self, mss: int) -> None:
        self.mine, self.model = Sender(mss, BufferPool()), Model(mss)
        self.mine.edge = 10**6
        self.now, self.ts = 100.0, 1000
        self.way: List[Tuple[int, int, int]] = []  # transmissions that may still arrive: start, stop, ts
        self.there: Any = set()  # positions that the receiver holds

    @rule(count=st.integers(1, 20))
    def write(self, count: int) -> None:
        if self.mine.fin_at is None and self.mine.end < 150:
            self.mine.write(bytes(count))
            self.model.end += count

    @rule(sure=st.integers(0, 3))
    def finish(self, sure: int) -> None:
        if sure == 0 and self.mine.fin_at is None:
            self.mine.fin_at = self.mine.end

    @rule(count=st.integers(1, 6))
    def send(self, count: int) -> None:
        """Lost before new, as Session does."""
        for _ in range(count):
            sent, expected = self.mine.next_lost(), self.model.next_lost()
            if sent is None:
                assert expected is None
                sent = self.mine.next_new()
                expected = self.next_new()
            assert (sent and (sent.start, sent.stop)) == expected
            if sent is None:
                return
            self.on_sent(sent)

    @rule(count=st.integers(1, 6))
    def send_whole_segments_at_once(self, count: int) -> None:
        """The batched launch: whatever follows must not see a difference."""
        mss = self.model.mss
        count = min(count, (self.mine.end - self.mine.nxt) // mss)
        if count > 0 and not self.model.all(LOST):
            run = self.mine.on_run_sent(self.mine.nxt + count * mss, mss, ts=self.ts + 1, now=self.now)
            for sent in run.segments():
                self.ts += 1
                self.note(sent.start, sent.stop)

    @precondition(lambda self: not self.mine.idle)
    @rule()
    def probe(self) -> None:
        """A probe timeout: the head, and the tail or new data; nothing becomes lost."""
        head = self.mine.split_to_mss(self.mine.sent[0])
        segment = self.model.cut(self.model.una)
        assert (head.start, head.stop) == (segment[0], segment[-1] + 1)
        self.on_sent(head)
        second = self.mine.next_new()
        expected = self.next_new()
        if second is None:
            assert expected is None
            second = self.mine.tail()
            last = max(at for at, position in self.model.positions.items() if position.state != SACKED)
            segment = self.model.cut(self.model.segment_at(last)[0])
            expected = (segment[0], segment[-1] + 1)
        assert second is not None
        assert (second.start, second.stop) == expected
        self.on_sent(second)

    def next_new(self) -> Optional[Tuple[int, int]]:
        """With the peer's window wide open: a full segment, or what there is; the FIN rides with the last byte."""
        start = self.model.nxt
        stop = min(start + self.model.mss, self.model.end)
        stop += self.mine.fin_at is not None and stop == self.model.end and start <= self.model.end
        return (start, stop) if start < stop else None

    def on_sent(self, sent: SentRange) -> None:
        self.ts += 1
        start, stop = sent.start, sent.stop
        self.mine.on_sent(sent, ts=self.ts, now=self.now)
        self.note(start, stop)

    def note(self, start: int, stop: int) -> None:
        self.model.send(start, stop, self.ts, self.now)
        self.way.append((start, stop, self.ts))

    @precondition(lambda self: self.way)
    @rule(which=SEEDS, trip=st.sampled_from([0.0, 0.001, 0.004, 0.02]), told=st.booleans(), later=st.booleans())
    def arrive(self, which: int, trip: float, told: bool, later: bool) -> None:
        """A transmission arrives, in any order; the receiver says so, unless that is lost."""
        start, stop, ts = self.way.pop(which % len(self.way) if later else 0)
        self.there.update(range(start, stop))
        if told:
            ack = self.model.una
            while ack in self.there:
                ack += 1
            self.hear(ack, self.blocks_above(ack), ts, trip)

    def blocks_above(self, ack: int) -> List[Range]:
        """What the receiver holds beyond the gap."""
        blocks: List[Range] = []
        for at in sorted(at for at in self.there if at > ack):
            if blocks and blocks[-1].stop == at:
                blocks[-1] = Range(blocks[-1].start, at + 1)
            else:
                blocks.append(Range(at, at + 1))
        return blocks[-3:]

    @precondition(lambda self: not self.mine.idle)
    @rule(seed=SEEDS, trip=st.sampled_from([0.001, 0.05]))
    def hear_a_liar(self, seed: int, trip: float) -> None:
        """Any acknowledgement in range with any blocks: across segments, inverted, of what was never sent."""
        rng = random.Random(seed)
        una, nxt = self.model.una, self.model.nxt
        ack = rng.choice([una, rng.randint(una, nxt)])
        blocks = [Range(*(rng.randint(una - 5, nxt + 5) for _ in range(2))) for _ in range(rng.randint(0, 3))]
        self.there.update(range(una, ack))
        self.hear(ack, blocks, rng.choice([0, rng.randint(1000, self.ts)]), trip)

    def hear(self, ack: int, blocks: List[Range], echo: int, trip: float) -> None:
        if ack in self.model.all(SACKED):
            return  # SACK reneging is tested apart (test_stream_sender)
        delivered = self.mine.acknowledge(ack, blocks, echo=echo)
        assert delivered == self.model.acknowledge(ack, blocks, echo)
        if delivered:
            self.mine.round_trip.sample(trip)
            self.model.sample(trip)
            self.detect()

    @precondition(lambda self: self.way)
    @rule(which=SEEDS)
    def mark_lost(self, which: int) -> None:
        self.way.pop(which % len(self.way))

    @rule(seconds=st.sampled_from([0.00053, 0.0021, 0.031]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def detect(self) -> None:
        """The reordering timer, or the end of an acknowledgement."""
        assert self.mine.detect_losses(now=self.now) == self.model.detect(self.now)
        waiting = [at for at in map(self.model.overdue_at, self.model.positions) if at is not None]
        assert self.mine.reorder_at == (pytest.approx(min(waiting), abs=1e-9) if waiting else None)

    @rule(mss=st.integers(2, 7))
    def resize(self, mss: int) -> None:
        self.mine.resize(mss)
        self.model.resize(mss)

    @invariant()
    def they_agree(self) -> None:
        mine, model = self.mine, self.model
        assert (mine.una, mine.nxt) == (model.una, model.nxt)
        assert mine.bytes_in_flight == len(model.all(FLYING))
        for fate, state in ((SegmentState.FLYING, FLYING), (SegmentState.SACKED, SACKED), (SegmentState.LOST, LOST)):
            held = [at for sent in segments_of(mine) if sent.state is fate for at in range(sent.start, sent.stop)]
            assert held == model.all(state), state


TestScoreboard: Any = ScoreboardMachine.TestCase
CHOSEN = settings()  # the profile's
if CHOSEN.derandomize:
    TestScoreboard.settings = settings(max_examples=CHOSEN.max_examples, stateful_step_count=60)
