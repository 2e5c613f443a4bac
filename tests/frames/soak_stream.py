#!/usr/bin/env python3
"""Streams under every fault at once, for as long as you like (root, Linux): sudo python3 tests/frames/soak_stream.py

Eight streams at a time go from one process over a relay to another, three namespaces on two cables, while faults come
and go at random: loss, corruption, silence, carrier, MTU, duplicates, garbage, SIGSTOP, kill -9. Exit status 1 unless
every digest was equal, nothing but a kill ended a stream, no process grew, and no session was left.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import re
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
import paths  # noqa: F401  # the folders of the tests
from company import Company
from lab import Host, Lab, Program, RawPort

from alexstream import Endpoint
from constants import ETHERTYPE, LINGER
from node import EthernetLink, Listener, Node, Stream
from utils import format_address, parse_address

COMPANY: Company  # of the one node of a process and the threads that use it

PORT = 9
ADDRESS = "(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"
LARGEST = 20e6  # bytes of a stream; sizes are spread evenly over its logarithm
BLOCK = 1 << 16
GROWTH_MAX = 5000  # KB
SAMPLE_SECONDS = 0.5  # between two looks at memory
FAULT_SECONDS = 6.0  # at most; never more than a quarter of a short run
AFTERMATH_SECONDS = 20.0  # until which a fault that is over excuses that nobody answered
SETTLE_SECONDS = 60.0  # in which what is under way must arrive, once all is well again
LIVED_SECONDS = 120.0  # before that a process still grows to what its buffers need

# --- The two ends: processes of their own ---------------------------------------------------------------------------


def report(**what: Any) -> None:
    """One line to the conductor; a whole one, whichever thread says it."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def send_one(node: Node, peer: bytes, rng: random.Random) -> None:
    """One stream of random size; what the peer answers must be the digest of what was sent."""
    began, left, sha, stream = time.monotonic(), int(LARGEST ** rng.random()) - 1, hashlib.sha256(), None
    block = rng.getrandbits(8 * BLOCK).to_bytes(BLOCK, "big")
    size = left
    try:
        with node.connect(peer, PORT) as stream:
            while left:
                shift = rng.randrange(BLOCK)
                piece = (block[shift:] + block[:shift])[: min(left, BLOCK)]
                sha.update(piece)
                stream.write(piece)
                left -= len(piece)
            stream.finish()
            answer = stream.read()
        report(event="equal" if answer == sha.digest() else "WRONG", bytes=size)
    except OSError as error:
        where = "open" if stream is None else "data"
        report(event="failed", where=where, began=began, ended=time.monotonic(), why=str(error), bytes=size)


def receive_one(stream: Stream) -> None:
    """Read to the end and answer with the digest."""
    sha = hashlib.sha256()
    try:
        with stream:
            for piece in iter(lambda: stream.read(BLOCK), b""):
                assert piece is not None
                sha.update(piece)
            stream.write(sha.digest())
            stream.finish()
            stream.drain()  # closing alone would give up after CLOSE_SECONDS
    except OSError as error:
        report(event="cut", why=str(error))


def sender(node: Node, peer: bytes, streams: int, seed: int) -> None:
    """`streams` at once until standard input ends."""
    over = threading.Event()

    def work(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        while not over.is_set():
            send_one(node, peer, rng)

    workers = [COMPANY.in_thread(functools.partial(work, number)) for number in range(streams)]
    wait_for_the_end(node)
    over.set()
    for finish in workers:
        finish()


def receiver(node: Node) -> None:
    """Whatever comes until standard input ends."""
    workers: List[Callable[[], Any]] = []

    def accept(listener: Listener) -> None:
        while not listener.closed:
            stream = listener.accept()
            if stream is not None:
                workers.append(COMPANY.in_thread(functools.partial(receive_one, stream)))

    with node.listen(PORT) as listener:
        door = COMPANY.in_thread(functools.partial(accept, listener))
        wait_for_the_end(node)
    door()
    for finish in workers:
        finish()


def wait_for_the_end(node: Node) -> None:
    """Let the node go on until standard input ends."""
    while not node.wait(0):
        pass


def work(role: str, peer: str, streams: int, seed: int) -> int:
    """Be one end, then wait until nothing of all the streams is left, and say what was dropped."""
    global COMPANY
    COMPANY = Company(setattr)
    with Node([EthernetLink("eth0")], name=role) as node:
        report(event="up", address=format_address(node.address))
        if role == "receive":
            receiver(node)
        else:
            sender(node, parse_address(peer), streams, seed)
        endpoint: Endpoint = node._endpoint
        deadline = time.monotonic() + LINGER + 10
        while endpoint.sessions and time.monotonic() < deadline:
            node.wait(timeout=0.1)
        report(event="over", left=len(endpoint.sessions), lingering=len(endpoint._time_wait), drops=node.drops)
    return 0


# --- The faults -----------------------------------------------------------------------------------------------------


class Actor:
    """A process of the soak, started again where it is killed; its memory by time."""

    def __init__(self, host: Host, argv: Sequence[str], ready: str, where: str = "out") -> None:
        self.host, self.argv, self.ready, self.where = host, argv, ready, where
        self.killed: List[float] = []
        self.lives: List[List[Tuple[float, int]]] = []  # (seconds, KB resident) of each life
        self.programs: List[Program] = []
        self.start()

    @property
    def program(self) -> Program:
        """The one that runs."""
        return self.programs[-1]

    def start(self) -> None:
        """Start and wait until it is ready."""
        self.programs.append(self.host.start([sys.executable, *self.argv]))
        self.program.expect(self.ready, where=self.where, timeout=30)
        self.lives.append([])

    def kill(self) -> None:
        """SIGKILL."""
        self.killed.append(time.monotonic())
        self.program.signal(signal.SIGKILL)
        self.program.wait()

    def sample(self) -> None:
        """Look at its memory."""
        with contextlib.suppress(OSError, AttributeError), open(f"/proc/{self.program.process.pid}/status") as status:
            found = re.search(r"VmRSS:\s+(\d+)", status.read())
            assert found is not None
            self.lives[-1].append((time.monotonic(), int(found.group(1))))

    def peaks(self) -> List[List[int]]:
        """KB at the peak of each third of each life. The first is warm-up: buffers and bounded tables fill."""
        found = []
        for life in self.lives:
            if life and life[-1][0] - life[0][0] >= LIVED_SECONDS:
                third = (life[-1][0] - life[0][0]) / 3
                starts = [life[0][0] + third * number for number in range(3)]
                found.append([max(size for when, size in life if start <= when <= start + third) for start in starts])
        return found


class Fault(NamedTuple):
    """One that was: what, and from when until when."""

    name: str
    began: float
    ended: float


class Soak:
    """The laboratory, its three processes and what is wrong with them at the moment."""

    def __init__(self, lab: Lab, *, streams: int, seed: int) -> None:
        self.lab, self.rng = lab, random.Random(seed)
        self.left, self.middle, self.right = lab.line(3)
        own = [os.path.abspath(__file__), "--streams", str(streams), "--seed", str(seed), "--work"]
        self.relay = Actor(self.middle, ["node.py", "eth0,eth1"], "^alexmesh: node", "err")
        self.receiver = Actor(self.right, [*own, "receive"], '"up"')
        self.sender = Actor(self.left, [*own, "send", "--peer", self.right.ports[0].address], '"up"')
        self.actors = (self.relay, self.receiver, self.sender)
        self.ports = [self.left.ports[0], *self.middle.ports, self.right.ports[0]]
        self.faults: List[Fault] = []
        self.now: Dict[str, Tuple[float, float, Callable[[], object]]] = {}  # name: began, ends, how it is undone

    def filtered(self) -> Callable[[], object]:
        """Loss, corruption or silence at one port."""
        port = self.rng.choice(self.ports)
        kind = self.rng.choice(("lose", "corrupt", "block"))
        if kind == "block":
            self.lab.block(port, outward=self.rng.random() < 0.5)
        else:
            getattr(self.lab, kind)(port, self.rng.choice((1, 5, 30)))
        return lambda: self.lab.unblock(port)

    def carrier(self) -> Callable[[], object]:
        """`ip link set down`, then up."""
        port = self.rng.choice(self.ports)
        self.lab.set_up(port, False)
        return lambda: self.lab.set_up(port, True)

    def mtu(self) -> Callable[[], object]:
        """One cable narrower."""
        cable = self.rng.choice((self.ports[:2], self.ports[2:]))
        size = self.rng.choice((600, 900, 1400))

        def set_both(mtu: int) -> None:
            for port in cable:
                self.lab.set_mtu(port, mtu)

        set_both(size)
        return lambda: set_both(1500)

    def stop(self) -> Callable[[], object]:
        """SIGSTOP, SIGCONT."""
        program = self.rng.choice(self.actors).program
        program.signal(signal.SIGSTOP)
        return lambda: program.signal(signal.SIGCONT)

    def kill(self) -> Callable[[], object]:
        """kill -9 of the receiver or the relay, and start it again."""
        actor = self.rng.choice((self.receiver, self.relay))
        actor.kill()
        return actor.start

    def duplicates(self) -> Callable[[], object]:
        """Every tenth frame to the receiver comes again, some of them later than what follows."""
        return self._inject(0.1, lambda frame: frame)

    def garbage(self) -> Callable[[], object]:
        """Every third frame to the receiver is followed by one of random bytes, or by itself with bytes changed."""

        def spoil(frame: bytes) -> bytes:
            made = bytearray(frame.ljust(16, b"\0"))
            everything = list(range(self.rng.choice((0, 14, 15)), len(made)))
            for at in everything if self.rng.random() < 0.3 else self.rng.choices(everything, k=3):
                made[at] = self.rng.getrandbits(8)
            made[12:14] = ETHERTYPE.to_bytes(2, "big")
            return bytes(made[: self.rng.randint(14, len(made))] if self.rng.random() < 0.3 else made)

        return self._inject(0.3, spoil)

    def _inject(self, share: float, change: Callable[[bytes], bytes]) -> Callable[[], object]:
        over = threading.Event()
        ends = [RawPort(port, ETHERTYPE) for port in (self.right.ports[0], self.middle.ports[1])]

        def run() -> None:
            late: List[bytes] = []
            while not over.is_set():
                with contextlib.suppress(OSError):  # the interface is down, or narrower than it was
                    frame = ends[0].receive(0.1)
                    if frame is not None and self.rng.random() < share:
                        late.append(change(frame))
                    if late and self.rng.random() < 0.5:
                        ends[1].send(late.pop(0), padded=False)

        def stop() -> None:
            over.set()
            thread.join()
            for end in ends:
                end.close()

        thread = threading.Thread(target=run)
        thread.start()
        return stop

    def run(self, seconds: float) -> None:
        """At most two faults at a time; one that stops or kills a process is alone, for its cure needs the process."""
        end = time.monotonic() + seconds
        kinds = ["filtered", "carrier", "mtu", "stop", "kill", "duplicates", "garbage"]
        sampled = 0.0
        bag: List[str] = []  # each comes once before any comes again
        while time.monotonic() < end:
            now = time.monotonic()
            for name, (_, until, _) in list(self.now.items()):
                if until <= now:
                    self.cure(name)
            bag = bag or self.rng.sample(kinds, len(kinds))
            name = bag[0]
            alone = {"stop", "kill"} & {name, *self.now}
            if name not in self.now and len(self.now) < (1 if alone else 2) and self.rng.random() < 0.2:
                del bag[0]
                undo = getattr(self, name)()
                self.now[name] = (now, now + self.rng.uniform(0.2, min(FAULT_SECONDS, seconds / 4)), undo)
            if now - sampled >= SAMPLE_SECONDS:
                sampled = now
                for actor in self.actors:
                    actor.sample()
            time.sleep(0.05)
        for name in list(self.now):
            self.cure(name)

    def cure(self, name: str) -> None:
        """End a fault."""
        began, _, undo = self.now.pop(name)
        undo()
        self.faults.append(Fault(name, began, time.monotonic()))


# --- The verdict ----------------------------------------------------------------------------------------------------


def told(actor: Actor) -> List[Dict[str, Any]]:
    """All lines of all lives; the last of a life that was killed may be half a one."""
    lines = [line for program in actor.programs for line in program.out.splitlines()]
    return [json.loads(line) for line in lines if line.endswith("}")]


def unexplained(soak: Soak, failures: Sequence[Dict[str, Any]]) -> Iterator[str]:
    """Streams that ended otherwise than by a kill of the peer, or could not open although all was well."""
    for one in failures:
        killed = any(one["began"] <= when <= one["ended"] for when in soak.receiver.killed)
        recent = any(
            fault.began <= one["ended"] and fault.ended + AFTERMATH_SECONDS >= one["began"] for fault in soak.faults
        )
        if not (killed or (one["where"] == "open" and recent)):
            yield f"failed without a reason: {one}"


def finish(soak: Soak) -> Iterator[str]:
    """Let what is under way arrive, end the processes; what was wrong."""
    soak.relay.program.signal(signal.SIGUSR1)
    for actor in (soak.sender, soak.receiver):
        actor.program.close_stdin()
        try:
            actor.program.expect('"over"', timeout=SETTLE_SECONDS + LINGER + 10)
        except AssertionError as problem:
            yield from (str(problem), soak.receiver.program.err, soak.relay.program.err)
            return
        (over,) = [line for line in told(actor) if line["event"] == "over"]
        name = "sender" if actor is soak.sender else "receiver"
        print(f"drops of the {name}: {json.dumps(over['drops'])}; tombstones {over['lingering']}")
        if over["left"]:
            yield f"left in the tables: {over}"
        if actor.program.wait():
            yield f"exit status {actor.program.process.returncode}"
    drops = re.findall(r"^dropped (\d+): (.*)$", soak.relay.program.err, re.MULTILINE)
    print("drops of the relay:", ", ".join(f"{reason} {count}" for count, reason in drops))
    for actor in soak.actors:
        for program in actor.programs:
            if "Traceback" in program.err or "internal error" in program.err:
                yield str(program)


def judge(soak: Soak) -> List[str]:
    """Print what there was; everything that was wrong."""
    wrong = list(finish(soak))
    lines = told(soak.sender)
    by_event = {name: [line for line in lines if line["event"] == name] for name in ("equal", "WRONG", "failed")}
    total = sum(line["bytes"] for line in by_event["equal"])
    counts = {name: sum(fault.name == name for fault in soak.faults) for name in {fault.name for fault in soak.faults}}
    print("faults:", ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"streams: {len(by_event['equal'])} equal with {total / 1e6:.1f} MB, {len(by_event['WRONG'])} wrong")
    reasons = [(line["where"], re.sub(ADDRESS, "PEER", line["why"])) for line in by_event["failed"]]
    for where, why in sorted(set(reasons)):
        print(f"failed in {where}: {reasons.count((where, why))} {why}")
    for name, actor in (("sender", soak.sender), ("relay", soak.relay), ("receiver", soak.receiver)):
        peak = max(size for life in actor.lives for _, size in life)
        print(f"memory of the {name}: peak {peak} KB; in the thirds of each life {actor.peaks()} KB")
        wrong += [f"{name} grew: {thirds} KB" for thirds in actor.peaks() if thirds[2] - thirds[1] > GROWTH_MAX]
    wrong += [f"digest differs: {line}" for line in by_event["WRONG"]]
    wrong += list(unexplained(soak, by_event["failed"]))
    return wrong if by_event["equal"] else [*wrong, "no stream arrived"]


def soak(lab: Lab, seconds: float, *, streams: int = 8, seed: int = 1) -> List[str]:
    """Run it and print its figures; everything that was wrong."""
    under_test = Soak(lab, streams=streams, seed=seed)
    under_test.run(seconds)
    return judge(under_test)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long the faults go on (3600)")
    parser.add_argument("--streams", type=int, default=8, help="at once (8)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the faults and the sizes (the time)")
    parser.add_argument("--work", choices=("send", "receive"), help=argparse.SUPPRESS)
    parser.add_argument("--peer", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        return work(options.work, options.peer, options.streams, options.seed)
    if os.geteuid():
        parser.error("network namespaces need root: sudo python3 tests/frames/soak_stream.py")
    print(f"seed {options.seed}, {options.streams} streams, {options.seconds:g} s", flush=True)
    with Lab() as lab:
        wrong = soak(lab, options.seconds, streams=options.streams, seed=options.seed)
    print("\n".join(wrong) or "all is well")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
