"""AlexStream in the simulator against its bounds: `python tests/sim/stream_table.py [--seeds 20] [CELL ...]`.

Prints a table of what every cell measured beside what it must reach; exit status 1 if a cell misses. 2 MB over
100 Mb/s with an RTT of 1 ms unless the cell says otherwise. "goodput" is the share of what full frames back to back
would carry, "needless" what was sent again beyond what the network lost.
"""

import argparse
import hashlib
import os
import random
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
import paths  # noqa: F401  # the folders of the tests
import streamsim
import streamwire
from streamsim import (
    Acked,
    Cable,
    Frame,
    Host,
    Link,
    Program,
    Relay,
    Resumed,
    Simulator,
    Stalled,
    random_bytes,
)
from streamwire import ACK, INIT, PUSH

from alexstream import Accepted, Connected, Endpoint
from constants import BUFFER_GROWN_MAX

PORT = 7
SIZE = 2000000  # bytes
MSS = 1500 - 23 - 36 - 28
FULL_FRAME_BYTES = 14 + 23 + 36 + MSS
Figures = Dict[str, float]
Fault = Callable[[Simulator, Host, Host, Cable], None]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def max_of_20(values: Sequence[float]) -> float:
    """Of the first 20."""
    return max(values[:20])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all stay at or below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Bound(NamedTuple):
    """What one figure must keep over all seeds."""

    figure: str
    over: Callable[[Sequence[float]], float]
    low: float = float("-inf")
    high: float = float("inf")

    def measure(self, runs: Sequence[Figures]) -> Optional[float]:
        """The figure over all seeds that have it."""
        values = [run[self.figure] for run in runs if self.figure in run]
        return self.over(values) if values else None

    def is_kept(self, runs: Sequence[Figures]) -> bool:
        """Whether the runs keep it; a figure that no run has is kept."""
        value = self.measure(runs)
        return value is None or self.low <= value <= self.high

    def describe(self) -> str:
        """Such as "median goodput >= 0.97"."""
        limit = f">= {self.low:g}" if self.low > float("-inf") else f"<= {self.high:g}"
        return f"{self.over.__name__} {self.figure} {limit}"


class Cell(NamedTuple):
    """One row of the table."""

    name: str
    run: Callable[[int], Figures]  # by seed
    bounds: Tuple[Bound, ...]
    seeds: int = 3  # in CI
    seeds_max: int = 1000  # for cells that take long


def ideal_seconds(size: int, rate: float) -> float:
    """The time that `size` bytes take in full frames, back to back."""
    return (size * FULL_FRAME_BYTES / MSS) * 8 / rate


def transfer(
    seed: int,
    *,
    size: int = SIZE,
    fault: Optional[Fault] = None,
    seconds: float = 600.0,
    relays: int = 0,
    checked: bool = False,
    **link: Any,
) -> Figures:
    """One stream of `size` bytes from the opener; its figures. `seconds` is the end of patience."""
    with Simulator(seed) as sim:
        sim.checked = checked
        one, other = sim.host(), sim.host()
        if relays:
            sim.chain(one, other, relays=relays, **link)
            cable = Cable(one.links[other.address], other.links[one.address])
        else:
            cable = sim.join(one, other, **link)
        writer = start_transfer(sim, one, other, size)
        if fault is not None:
            fault(sim, one, other, cable)
        start = sim.now
        sim.run(seconds, until=lambda: writer.partner is not None and writer.partner.ended_at is not None)
        end = sim.now
        sim.run(seconds, until=writer.is_over)
        check_transfer(writer)
        figures = measure(sim, one, other, cable, size, end - start, link.get("rate", 1e8))
        figures["carried"] = end - writer.happened(Connected)[0].time
        return figures


def start_transfer(sim: Simulator, one: Host, other: Host, size: int) -> Program:
    """Open a stream that carries `size` bytes; its `partner` is the reader once there is one."""
    writer = one.open(other, PORT, random_bytes(sim.rng, size))
    other.listen(PORT, lambda session: Program(other, session, partner=writer))
    return writer


def check_transfer(writer: Program) -> None:
    """Every byte arrived, once, and both ends know it."""
    reader = writer.partner
    assert reader is not None, "never accepted"
    assert reader.ended_at is not None, f"no end of stream after {reader.received_bytes} bytes"
    assert bytes(reader.received) == writer.data
    assert writer.session.acked == len(writer.data)
    assert writer.closed is not None
    assert writer.closed.reason == "finished", writer.closed
    assert writer.closed.acked == len(writer.data)


def measure(sim: Simulator, one: Host, other: Host, cable: Cable, size: int, seconds: float, rate: float) -> Figures:
    """The figures of a transfer that took `seconds`."""
    witness, count = sim.witness, cable.there.count
    again, lost = witness.total(one.address, "again_bytes"), count["bytes lost"]
    figures = {
        "seconds": seconds,
        "goodput": ideal_seconds(size, rate) / seconds,
        "again": float(again),
        "probes": float(witness.total(one.address, "probes")),
        "acks": witness.total(other.address, "bare") / float(witness.total(one.address, "data_segments")),
        "needless": max(0.0, again - lost) / size,
        "overflow": count["overflow"] / float(sum(count[fate] for fate in ("overflow", "passed", "lost"))),
    }
    if count["lost"] + count["corrupted"] >= 20:
        figures["again/lost"] = again / float(lost)
    return figures


# --- Cells ----------------------------------------------------------------------------------------------------------


def in_time(seconds: float) -> Tuple[Bound, Bound]:
    """Complete within so many seconds; of more than 20 seeds, counted from when the stream is open.

    By design a lost SYN or SYN-ACK costs 0.2, then 0.4, then 0.5 s. At 5 % loss both ways two in a row, 1 of 105
    openings, take longer than the bound; at 10 % three in a row, 1 of 146.
    """
    return Bound("seconds", max_of_20, high=seconds), Bound("carried", max, high=seconds)


def loss_cell(percent: int, goodput: float, seconds: float) -> Cell:
    """Loss both ways."""
    bounds = (Bound("goodput", median, low=goodput), *in_time(seconds), Bound("again/lost", median, high=1.10))
    return Cell(f"loss {percent} %", lambda seed: transfer(seed, loss=percent / 100.0), bounds)


def lose_acks(sim: Simulator, one: Host, other: Host, cable: Cable) -> None:
    """90 % of them, once the stream is open: 31 SYN-ACKs in a row would be lost in 1 of 26 runs."""
    sim.after(0.003, lambda: setattr(cable.back, "loss", 0.9))


def grid_cells() -> List[Cell]:
    """Round trips and rates, nothing lost."""
    still = (Bound("again", max, high=0), Bound("goodput", median, low=0.0))
    trips, rates = (50e-6, 0.2e-3, 5e-3, 20e-3, 100e-3), (1e6, 1e7, 1e9)
    cells = [grid_cell(f"RTT {trip * 1e3:g} ms", still, delay=trip / 2) for trip in trips]
    return cells + [grid_cell(f"rate {rate / 1e6:g} Mb/s", still, rate=rate) for rate in rates]


def grid_cell(name: str, bounds: Tuple[Bound, ...], **link: Any) -> Cell:
    """One transfer over one kind of link."""
    return Cell(name, lambda seed: transfer(seed, **link), bounds, seeds=1, seeds_max=20)


def queue_cell(frames: int) -> Cell:
    """A short queue and no loss but its own."""
    bounds = (Bound("goodput", median, low=0.90), Bound("overflow", median, high=0.08))
    return grid_cell(f"queue {frames}", bounds, queue=frames)


def flows(seed: int, count: int, late: float = 0.0) -> Figures:
    """`count` streams of as many hosts through one bottleneck of 100 Mb/s: fairness while all of them run.

    The last one comes `late` seconds after the others, when the queue is full.
    """
    settled = 3 * late + 0.5  # slow start is not what is judged
    seconds = settled + max(1.5, 4 * late)
    with Simulator(seed) as sim:
        near, far = Relay(sim), Relay(sim)
        there, back = Link(sim, far.arrive, queue=93), Link(sim, near.arrive, queue=93)
        readers: List[Program] = []
        for number in range(count):
            one, other = sim.host(), sim.host()
            one.links[other.address] = Link(sim, near.arrive, rate=1e9, delay=1e-6)
            other.links[one.address] = Link(sim, far.arrive, rate=1e9, delay=1e-6)
            near.links[other.address], near.links[one.address] = there, Link(sim, one.arrive, rate=1e9, delay=1e-6)
            far.links[one.address], far.links[other.address] = back, Link(sim, other.arrive, rate=1e9, delay=1e-6)
            other.listen(PORT, reader_maker(other, readers))
            opening = opener(one, other, bytes(int(seconds * 1e8 / 8)))
            sim.at(sim.now + sim.rng.uniform(0, 0.001) + late * (number == count - 1), opening)
        sim.run(settled)
        before = [reader.received_bytes for reader in readers]
        sim.run(seconds - settled)
        got = [reader.received_bytes - already for reader, already in zip(readers, before)]
    jain = sum(got) ** 2 / (count * float(sum(value * value for value in got)))
    return {"Jain": jain, "utilisation": ideal_seconds(sum(got), 1e8) / (seconds - settled)}


def reader_maker(host: Host, readers: List[Program]) -> Callable[[Any], Program]:
    """Programs that read and forget, gathered in `readers`."""

    def make(session: Any) -> Program:
        reader = Program(host, session, finish=False)
        reader.keep = False
        readers.append(reader)
        return reader

    return make


def opener(one: Host, other: Host, data: bytes) -> Callable[[], None]:
    """Opens a stream when called."""
    return lambda: (one.open(other, PORT, data), None)[1]


def flows_cell(count: int, late: float = 0.0) -> Cell:
    """`count` flows at once, or the last of them late."""
    bounds = (Bound("Jain", mean, low=0.85), Bound("utilisation", median, low=0.95))
    name = f"{count} flows" + ", one late" * (late > 0)
    return Cell(name, lambda seed: flows(seed, count, late), bounds, seeds=1)


def steady(seed: int, rate: float, trip: float, queue: int = 1000) -> Figures:
    """One stream without an end over a long way: of what rate and window allow, the share once it has started."""
    start, seconds = 20 * trip + 0.2, 10 * trip + 0.2
    with Simulator(seed) as sim:
        one, other = sim.host(), sim.host()
        cable = sim.join(one, other, rate=rate, delay=trip / 2, queue=queue)
        readers: List[Program] = []
        other.listen(PORT, reader_maker(other, readers))
        one.open(other, PORT, bytes(int((start + seconds) * rate / 8)))
        sim.run(start)
        before = readers[0].received_bytes
        sim.run(seconds)
        got = readers[0].received_bytes - before
        count = cable.there.count
    ideal = min(seconds / ideal_seconds(1, rate), BUFFER_GROWN_MAX * seconds / trip)
    overflow = count["overflow"] / float(count["overflow"] + count["passed"])
    return {"goodput": got / ideal, "overflow": overflow}


def steady_cells() -> List[Cell]:
    """Long round trips at 100 Mb/s and 1 Gb/s."""
    bounds = (Bound("goodput", median, low=0.9), Bound("overflow", median, high=0.08))
    return [
        Cell(
            f"{rate / 1e6:g} Mb/s, {trip * 1e3:g} ms",
            lambda seed, rate=rate, trip=trip: steady(seed, rate, trip),  # type: ignore[misc]
            bounds,
            seeds=int(rate < 1e9),
            seeds_max=1,
        )
        for rate in (1e8, 1e9)
        for trip in (0.005, 0.02, 0.1)
    ]


def partition(seed: int, seconds: float, signalled: bool = False) -> Figures:
    """Both sides send; the cable is out for `seconds`."""
    with Simulator(seed) as sim:
        one, other, cable, programs = talk(sim)
        sim.run(sim.rng.uniform(0.02, 0.1))
        cable.set_up(False)
        sim.run(seconds)
        before = [program.received_bytes for program in programs]
        heal = sim.now
        mend(sim, cable, (one, other), signalled)
        sim.run(60.0, until=lambda: all(map(int.__lt__, before, (program.received_bytes for program in programs))))
        figures = {"resumed": sim.now - heal}
        sim.run(120.0, until=lambda: all(program.is_over() for program in programs))
        for program in programs:
            assert program.closed is not None
            assert (program.closed.reason, program.closed.acked) == ("finished", SIZE), program.closed
            assert program.received_bytes == SIZE
            check_stall(program)
        return figures


def check_stall(program: Program) -> None:
    """Stalled, then Resumed, in turns."""
    told = [type(entry.event) for entry in program.history if isinstance(entry.event, (Stalled, Resumed))]
    assert told
    assert told == [Stalled, Resumed] * (len(told) // 2)


def mend(sim: Simulator, cable: Cable, hosts: Sequence[Host], signalled: bool) -> None:
    """The cable is in again; L3 may know."""
    cable.set_up(True)
    if signalled:
        for host in hosts:
            for peer in host.links:
                host.endpoint.path_changed(peer, now=sim.now)
            host.step()


def talk(sim: Simulator, **link: Any) -> Tuple[Host, Host, Cable, List[Program]]:
    """Two hosts that send SIZE bytes to each other at once; both programs, once the stream is open."""
    one, other = sim.host(), sim.host()
    cable = sim.join(one, other, **link)
    caller = one.open(other, PORT, random_bytes(sim.rng, SIZE))
    reply = random_bytes(sim.rng, SIZE)
    other.listen(PORT, lambda session: Program(other, session, reply, partner=caller))
    assert sim.run(15.0, until=lambda: bool(other.accepted))
    return one, other, cable, [caller, other.accepted[0]]


def partition_for_ever(seed: int) -> Figures:
    """Both sides send; the cable comes back after 200 s, too late."""
    with Simulator(seed) as sim:
        _, _, cable, programs = talk(sim)
        sim.run(0.05)
        cable.set_up(False)
        start = sim.now
        sim.run(200.0, until=lambda: all(program.is_over() for program in programs))
        for program, peer in zip(programs, reversed(programs)):
            assert program.closed is not None
            assert program.closed.reason == "timed out", program.closed
            assert program.closed.acked <= peer.received_bytes + peer.session.readable
        return {"seconds": sim.now - start}


def freeze(seed: int, who: str, seconds: float) -> Figures:
    """The sender, the receiver or the relay between them is stopped for a while."""

    def fault(sim: Simulator, one: Host, other: Host, cable: Cable) -> None:
        relay = cable.there.sink.__self__  # type: ignore[attr-defined]
        target = {"sender": one, "receiver": other, "relay": relay}[who]
        sim.after(0.05, lambda: target.freeze(True))
        sim.after(0.05 + seconds, lambda: target.freeze(False))

    return {"after": transfer(seed, fault=fault, relays=1)["seconds"] - seconds}


def mtu(seed: int, signalled: bool) -> Figures:
    """A path of 1500, then 900, then 9000 bytes between interfaces of 1500; longest pause, longest frame at the end."""
    size = 8 * SIZE
    with Simulator(seed) as sim:
        one, other = sim.host(), sim.host()
        cable = sim.join(one, other)
        longest = [0]

        def change(path: int) -> None:
            longest[0] = 0
            cable.there.mtu = cable.back.mtu = path
            for host in (one, other) if signalled else ():
                for peer in host.links:
                    host.endpoint.path_changed(peer, now=sim.now, mtu=path)
                host.step()

        def look(frame: Frame) -> bool:
            longest[0] = max(longest[0], 23 + len(frame.payload))
            return True

        cable.there.filter = look
        writer = start_transfer(sim, one, other, size)
        sim.after(0.05, lambda: change(900))
        sim.after(1.2, lambda: change(9000))
        sim.run(60.0, until=writer.is_over)
        check_transfer(writer)
        assert writer.partner is not None
        times = [entry.time for entry in writer.partner.reads]
    pause = max(after - before for before, after in zip(times, times[1:]))
    return {"pause": pause, "longest": longest[0]}


def zero_window(seed: int) -> Figures:
    """The reader pauses for 60 s; what it sends in the moment when it reads again is lost; until new data is sent."""
    with Simulator(seed) as sim:
        one, other = sim.host(), sim.host()
        cable = sim.join(one, other)
        writer = start_transfer(sim, one, other, SIZE)
        sim.run(0.02, until=lambda: bool(other.accepted))
        reader = other.accepted[0]
        reader.paused = True
        sim.run(60.0 + sim.rng.uniform(0, 2))
        flow = sim.witness.flows[one.address, other.address, reader.session.stream, True]
        start, top = sim.now, flow.top
        cable.back.filter = lambda frame: sim.now > start + 0.001
        reader.pause(False)
        sim.run(60.0, until=lambda: flow.top > top)
        resumed = sim.now - start
        sim.run(60.0, until=writer.is_over)
        check_transfer(writer)
    return {"resumed": resumed}


def handshakes(seed: int) -> Figures:
    """50 opens, 30 % dropped and 30 % spoilt each way, never more than 3 in a row."""
    slowest = 0.0
    with Simulator(seed) as sim:
        for _ in range(50):
            one, other = sim.host(), sim.host()
            cable = sim.join(one, other)
            for link in cable:
                spoil_at_most_3(sim.rng, link)
            other.listen(PORT)
            program = one.open(other, PORT, b"hello")
            start = sim.now
            assert sim.run(16.0, until=lambda: bool(other.accepted and other.accepted[0].received)), "not open"  # noqa: B023
            slowest = max(slowest, sim.now - start)
            sim.run(60.0, until=program.is_over)
            assert program.closed is not None
            assert program.closed.reason == "finished"
    return {"slowest": slowest}


def spoil_at_most_3(rng: random.Random, link: Link) -> None:
    """Drop 30 %, spoil 30 % of the rest, at most 3 in a row."""
    row = [0]

    def look(frame: Frame) -> bool:
        link.corrupt = 0.0
        dropped = rng.random() < 0.3 and row[0] < 3
        spoilt = not dropped and rng.random() < 0.3 and row[0] < 3
        row[0] = row[0] + 1 if dropped or spoilt else 0
        link.corrupt = float(spoilt)
        return not dropped

    link.filter = look


def chat(seed: int, lines: int = 400) -> Figures:
    """Lines of 60 bytes, one every 100 ms or so, 30 % loss: how late they arrive, and when the sender knows."""
    with Simulator(seed) as sim:
        one, other = sim.host(), sim.host()
        sim.join(one, other, loss=0.3)
        other.listen(PORT)
        program = one.open(other, PORT, finish=False)
        sim.run(16.0, until=lambda: bool(other.accepted))
        written = []
        for number in range(lines):
            sim.run(sim.rng.uniform(0.05, 0.15))
            written.append(sim.now)
            program.write(bytes([number & 0xFF]) * 60)
        sim.run(30.0, until=lambda: program.session.acked == 60 * lines)
        reads = [(entry.time, entry.event) for entry in other.accepted[0].reads]
        acks = [(entry.time, entry.event.offset) for entry in program.happened(Acked)]
    late = [when(reads, 60 * (n + 1)) - time for n, time in enumerate(written)]
    known = [when(acks, 60 * (n + 1)) - time for n, time in enumerate(written)]
    return {"one-way p99": percentile(late, 0.99), "receipt p99": percentile(known, 0.99)}


def when(progress: Sequence[Tuple[float, int]], offset: int) -> float:
    """The time at which `offset` was reached."""
    return next(time for time, reached in progress if reached >= offset)


class Rigged(random.Random):
    """Its 32-bit numbers are all the same: an ISN of one's choice."""

    isn = 0

    def getrandbits(self, k: int) -> int:
        """The ISN, or a random number of another size."""
        return self.isn if k == 32 else super().getrandbits(k)


def pushes(seed: int) -> Figures:
    """An attacker who knows the tag adds three empty PUSHes to every data segment: answers must not cost the stream."""

    def fault(sim: Simulator, one: Host, other: Host, cable: Cable) -> None:
        def look(frame: Frame) -> bool:
            wire = streamwire.unpack(frame.payload)
            if wire.payload:
                for number in (1, 2, 3):
                    forged = wire._replace(flags=ACK | INIT | PUSH, ts=wire.ts + number, payload=b"")
                    other.arrive(frame._replace(payload=streamwire.pack(forged, frame.origin, frame.destination)))
            return True

        cable.there.filter = look

    return transfer(seed, fault=fault)


def forgeries(seed: int) -> Figures:
    """500 segments a second of random numbers, and a copy of every true one with another tag, to both ends."""

    def fault(sim: Simulator, one: Host, other: Host, cable: Cable) -> None:
        rng = random.Random(seed)

        def spoil(host: Host, frame: Frame) -> None:
            wire = streamwire.unpack(frame.payload)
            field = rng.choice(("stream", "port", "seq", "ack", "ts", "flags"))
            change: Any = {field: rng.getrandbits(7)}
            wrong = wire._replace(**change, tag=wire.tag ^ 1 << rng.randrange(32), payload=b"")
            ends = [*one.endpoint.sessions.values(), *other.endpoint.sessions.values()]
            if any(wrong.tag in (end._isn, end._peer_isn) for end in ends):
                return  # a reset reflects a wrong bit, the same bit again is right: who knows the numbers may reset
            host.arrive(frame._replace(payload=streamwire.pack(wrong, frame.origin, frame.destination)))

        def shoot() -> None:
            for host, peer in ((one, other), (other, one)):
                numbers: Any = [rng.getrandbits(32) for _ in range(6)]
                wire = streamwire.Wire(rng.getrandbits(16), rng.getrandbits(7), PORT, *numbers)
                host.arrive(Frame(peer.address, host.address, streamwire.pack(wire, peer.address, host.address)))
            sim.after(0.002, shoot)

        def look(frame: Frame) -> bool:
            spoil(one if frame.destination == one.address else other, frame)
            return True

        cable.there.filter = cable.back.filter = look
        shoot()

    return transfer(seed, fault=fault)


def killed(seed: int, again: bool) -> Figures:
    """The receiver is killed in mid-stream, and started again after half a second or never; when the sender knows."""
    with Simulator(seed) as sim:
        one, other = sim.host(), sim.host()
        sim.join(one, other)
        writer = start_transfer(sim, one, other, 8 * SIZE)
        sim.run(0.1 + sim.rng.uniform(0, 0.1))
        reader = other.accepted[0]
        other.freeze(True)
        start = sim.now
        if again:
            sim.run(0.5)
            other.boot(random.Random(seed))
            other.freeze(False)
        sim.run(200.0, until=writer.is_over)
        assert writer.closed is not None
        assert writer.closed.reason == ("peer restarted" if again else "timed out"), writer.closed
        assert writer.closed.acked <= reader.received_bytes + reader.session.readable
        stalled = writer.happened(Stalled)
        return {"told": sim.now - start, "stalled": stalled[0].time - start if stalled else 0.0}


def slept_too_long(seed: int, who: str) -> Figures:
    """Longer than the user timeout: both ends say so, and nothing was called delivered that was not."""
    with Simulator(seed) as sim:
        one, other, _, programs = talk(sim)
        sim.run(0.05)
        target = one if who == "sender" else other
        target.freeze(True)
        sim.run(300.0)
        target.freeze(False)
        start = sim.now
        sim.run(60.0, until=lambda: all(program.is_over() for program in programs))
        for program, peer in zip(programs, reversed(programs)):
            assert program.closed is not None
            assert program.closed.reason in ("timed out", "peer restarted"), program.closed
            assert program.closed.acked <= peer.received_bytes + peer.session.readable
        return {"told": sim.now - start}


ISNS = (0, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 1000, 2**31 - 1000, 2**32 - 200000)


def pump(seed: int, size: int) -> Figures:
    """`size` bytes in segments of 60 000 from hand to hand, without a network: positions beyond 2**32 and 2**31."""
    rng = Rigged(seed)
    rng.isn = ISNS[seed % len(ISNS)]
    ends = [Endpoint(bytes([2, 0, 0, 0, 0, number]), rng=rng, mtu=60000 + 23 + 36 + 28) for number in (1, 2)]
    one, other = ends
    other.listen(PORT)
    writer, reader, now = one.connect(other.address, PORT, now=1.0), None, 1.0
    block = random_bytes(random.Random(seed), 1 << 20)
    sent, received = hashlib.blake2b(), hashlib.blake2b()
    largest = 0
    while writer.closed is None:
        now += 1e-5
        start = writer.written % len(block)
        piece = memoryview(block)[start : start + min(writer.writable, size - writer.written)]
        if piece:
            sent.update(piece[: writer.send(piece)])
        if writer.written == size:
            writer.finish()
        for end, peer in (ends, ends[::-1]):
            for _, payload in end.segments_to_send(now=now):
                largest = max(largest, len(payload))
                peer.receive(end.address, payload, now=now)
            for event in iter(end.next_event, None):
                reader = event.session if isinstance(event, Accepted) else reader
        if reader is not None:
            received.update(reader.read(1 << 20))
            if reader.at_eof:
                reader.finish()
        if one.next_deadline() is not None and not piece:
            now += 1e-3
    assert writer.closed.reason == "finished", writer.closed
    assert writer.closed.acked == size
    assert received.digest() == sent.digest()
    return {"largest": largest - 36}


def isn_edges(seed: int) -> Figures:
    """Streams whose numbers pass 2**32 or 2**31, or start there."""
    for isn in ISNS:
        with Simulator(seed) as sim:
            rng = Rigged(sim.rng.getrandbits(64))
            rng.isn = isn
            one, other = sim.host(rng=rng), sim.host()
            sim.join(one, other, loss=0.02)
            writer = start_transfer(sim, one, other, 400000)
            sim.run(60.0, until=writer.is_over)
            check_transfer(writer)
            assert [flow.isn for key, flow in sim.witness.flows.items() if key[3]] == [isn]
    return {}


def cells() -> List[Cell]:
    """The whole table."""
    still, jumbo = Bound("again", max, high=0), Bound("largest", min, low=60000)
    whole, pause = (Bound("seconds", max, high=60),), Bound("pause", max, high=1.0)
    table = [
        Cell(
            "loss 0",
            transfer,
            (Bound("goodput", median, low=0.97), still, Bound("probes", max, high=0), Bound("acks", max, high=0.30)),
        ),
        loss_cell(1, 0.90, 0.5),
        loss_cell(5, 0.70, 0.6),
        loss_cell(10, 0.50, 1.2),
        loss_cell(30, 0.15, 5.0),
    ]
    table += grid_cells()
    table += [queue_cell(frames) for frames in (8, 32, 93, 300)]
    table += [flows_cell(count) for count in (2, 4, 8)]
    table.append(flows_cell(4, late=0.5))
    table += steady_cells()
    small, big = Bound("needless", median, high=0.005), Bound("needless", median, high=0.08)
    table += [
        Cell("reorder 5 % by RTT/2", lambda seed: transfer(seed, reorder=0.05, reorder_by=0.0005), (small,)),
        Cell("reorder 5 % by 5 RTT", lambda seed: transfer(seed, reorder=0.05, reorder_by=0.005), (big,)),
        Cell("jitter 2 ms", lambda seed: transfer(seed, jitter=0.002), (still,), seeds=1),
        Cell("duplicates 50 %", lambda seed: transfer(seed, duplicate=0.5), (still,)),
        Cell(
            "corrupt 5 %",
            lambda seed: transfer(seed, corrupt=0.05),
            (Bound("goodput", median, low=0.70), *in_time(0.6)),
        ),
        Cell("bursts 2 of 20 ms", lambda seed: transfer(seed, bursts=(0.018, 0.002)), (Bound("seconds", max, high=5),)),
        Cell("ACK loss 30 %", lambda seed: transfer(seed, back={"loss": 0.3}), (Bound("needless", median, high=0.02),)),
        Cell("ACK loss 90 %", lambda seed: transfer(seed, fault=lose_acks), ()),
        Cell("5 relays, 2 % each", lambda seed: transfer(seed, relays=5, loss=0.02), whole, seeds=1),
    ]
    for seconds in (1, 10, 60, 170):
        table.append(partition_cell(seconds, signalled=False))
        table.append(partition_cell(seconds, signalled=True))
    table.append(Cell("partition 200 s", partition_for_ever, (Bound("seconds", max, high=200),)))
    for who in ("sender", "receiver", "relay"):
        table += [freeze_cell(who, seconds) for seconds in (0.5, 60, 170)]
    table += [oversleep_cell(who) for who in ("sender", "receiver")]
    table += [
        Cell("MTU 1500-900-9000", lambda seed: mtu(seed, False), (pause, Bound("longest", max, high=900)), 1, 20),
        Cell("MTU 1500-900-9000, told", lambda seed: mtu(seed, True), (pause, Bound("longest", min, low=1472)), 1, 20),
        Cell("zero window 60 s", zero_window, (Bound("resumed", max, high=2.2),)),
        Cell("50 handshakes, 30+30 %", handshakes, (Bound("slowest", max, high=10),), seeds=1),
        Cell(
            "chat, 30 % loss",
            chat,
            (Bound("one-way p99", median, high=0.120), Bound("receipt p99", median, high=0.600)),
        ),
        Cell("ISN edges", isn_edges, (), seeds=1),
        Cell("50 MB, MSS 60000", lambda seed: pump(seed, 50000000), (jumbo,), seeds=2, seeds_max=len(ISNS)),
        Cell("5 GB, MSS 60000", lambda seed: pump(seed, 5000000000), (jumbo,), seeds=0, seeds_max=1),
        Cell("3 PUSHes a segment", pushes, (Bound("goodput", median, low=0.95), still), seeds=1),
        Cell("forgeries", forgeries, (Bound("goodput", median, low=0.95), still), seeds=1),
        Cell(
            "100 and 2 Mb/s", lambda seed: transfer(seed, back={"rate": 2e6}), (Bound("goodput", median, low=0.9),), 1
        ),
        Cell("killed, again in 0.5 s", lambda seed: killed(seed, True), (Bound("told", max, high=2.5),), seeds=1),
        Cell(
            "killed",
            lambda seed: killed(seed, False),
            (Bound("told", max, high=183), Bound("stalled", min, low=0.01), Bound("stalled", max, high=2)),
            seeds=1,
        ),
    ]
    return table


def partition_cell(seconds: float, *, signalled: bool) -> Cell:
    """The cable is out for a while; `signalled`: L3 tells when it is back."""
    limit = 0.050 if signalled else 2.2
    name = "partition {:g} s{}".format(seconds, ", told" if signalled else "")
    return Cell(name, lambda seed: partition(seed, seconds, signalled), (Bound("resumed", max, high=limit),))


def freeze_cell(who: str, seconds: float) -> Cell:
    """Somebody is stopped for a while."""
    name = f"freeze {who} {seconds:g} s"
    return Cell(name, lambda seed: freeze(seed, who, seconds), (Bound("after", max, high=10),), seeds=1)


def oversleep_cell(who: str) -> Cell:
    """Somebody is stopped for longer than the user timeout of 180 s."""
    bounds = (Bound("told", max, high=20),)
    return Cell(f"freeze {who} 300 s", lambda seed: slept_too_long(seed, who), bounds, seeds=1)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cells", nargs="*", metavar="CELL", help="names, or their beginnings (all)")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each cell (20; at night: 1000)")
    parser.add_argument("--golden", action="store_true", help="write the table to tests/sim/stream_table.txt too")
    options = parser.parse_args(arguments)
    missed, lines = 0, [f"python tests/sim/stream_table.py --seeds {options.seeds}", ""]
    for cell in cells():
        if not cell.name.startswith(tuple(options.cells) or ""):
            continue
        runs = []
        for seed in streamsim.seeds(min(options.seeds, cell.seeds_max)):
            try:
                runs.append(cell.run(seed))
            except AssertionError as failure:  # noqa: PERF203
                missed += 1
                lines.append(f"{cell.name:24s} seed {seed} FAILED: {failure}")
                print(lines[-1], flush=True)
        for bound in cell.bounds or (Bound("complete", len),):
            missed += not bound.is_kept(runs)
            lines.append(line_of(cell, bound, runs))
            print(lines[-1], flush=True)
    print(f"{missed} of the bounds missed" if missed else "every bound is kept")
    if options.golden:
        with open(os.path.join(HERE, "stream_table.txt"), "w") as file:
            file.write(
                "\n".join([*lines, "", *(line for cell in cells() if cell.seeds for line in fingerprint(cell)), ""])
            )
    return int(missed > 0)


def fingerprint(cell: Cell) -> List[str]:
    """The figures of seed 1, bounded or not: what a test compares with the golden file."""
    figures = cell.run(1)
    return [f"{cell.name:24s} seed 1 {name:25s} {figures[name]:>10.6g}" for name in sorted(figures)]


def line_of(cell: Cell, bound: Bound, runs: Sequence[Figures]) -> str:
    """One line of the table."""
    value, kept = bound.measure(runs), bound.is_kept(runs)
    shown = "-" if value is None else f"{value:.4g}"
    text = bound.describe() if cell.bounds else "completes"
    return "{:24s} {:32s} {:>10s}  {}".format(cell.name, text, shown, "ok" if kept else "MISSED")


if __name__ == "__main__":
    sys.exit(main())
