#!/usr/bin/env python3
"""How fast a stream is, beside what its sockets could carry and what others do: real frames in namespaces (root).

    sudo python3 tests/bench/bench_stream.py                          everything of ours, and the kernel's TCP
    sudo python3 tests/bench/bench_stream.py pair pingpong --runs 9   a part of it
    sudo python3 tests/bench/bench_stream.py pair --with tcp,aioquic,aiortc,reticulum,pytcp

    pair      MTU 1500 on a cable: goodput, CPU, memory, against the ceiling; beside it what --with names: TCP of the
              kernel with its offloads off, and others in Python, which get virtual environments in /var/cache
    pingpong  round trip of 64-byte messages between applications, against the same on the bare sockets
    pipes     whole programs: `head -c N /dev/zero | alexstream_client.py` to `alexstream_server.py > /dev/null`
    lo jumbo  goodput with frames of 65535 bytes and at MTU 9000, against their own ceilings
    relays    the same through one and three relays, against as many bare recv-send loops
    start     from the start of alexstream_client.py to the first byte at the server
    line      a line of the chat, from Enter on one terminal to the other screen, on idle machines, beside the ping
    streams   4, 16 and 64 streams at once against one
    series    10 000 streams one after the other: does memory grow?

The ceiling: frames of the MTU sent by one process through the project's sockets (scapy's `outs.send`) and drained by
another (`ins.recv_into`), nothing else. Every pass measures all that is compared, one after the other, each ratio is
of one pass, and a figure is "median (least-most)" of the passes: the wall clock of a busy machine swings, ratios less.
Sender and receiver have a core each, and go before what other sessions of the machine run.
"""

import argparse
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import termios
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
import paths  # noqa: F401  # the folders of the tests
from lab import Host, Lab, Program, stop

BLOCK = os.urandom(256 << 10)  # what an application writes at once
READ_BYTES = 256 << 10
MESSAGE_BYTES = 64
PORT = 7
TCP_ADDRESSES = "10.77.0.1", "10.77.0.2"
TCP_PORT = 5001
SILENCE_SECONDS = 0.5  # after which a blast is over
WAIT_SECONDS = 60.0  # for a program to start, or to end after its time
TRIAL_SECONDS = 0.5  # of a competitor, before it takes part
NICE = -10  # of the sessions that are measured
WARM_UP = 200  # round trips before those that count
SELF = [sys.executable, os.path.abspath(__file__)]
NODE = [sys.executable, "node.py", "eth0,eth1"]
FORWARDER = ["sh", "-c", f"exec {sys.executable} {os.path.join(HERE, 'bench_mesh.py')} _forwarder >&2"]


# --- Programs that run inside the lab: each prints "ready WORD" and at its end "result {...}" ------------------------


class Meter:
    """What this process uses from now on."""

    def __init__(self, interface: str = "eth0") -> None:
        self._interface = interface
        self._before = self._counts()
        self._began = time.monotonic()

    def _counts(self) -> List[float]:
        """CPU seconds, frames sent, frames received."""
        frames = []
        for way in "tx", "rx":
            with open(f"/sys/class/net/{self._interface}/statistics/{way}_packets") as file:
                frames.append(float(file.read()))
        return [time.process_time(), *frames]

    def report(self, size: int, *, ended: float = 0.0, **more: object) -> None:
        """Print the result for `size` bytes of payload; `ended`: when the last of them came, if not now."""
        seconds = (ended or time.monotonic()) - self._began
        cpu, sent, received = (now - before for before, now in zip(self._before, self._counts()))
        print("result", json.dumps(dict(more, size=size, seconds=seconds, cpu=cpu, sent=sent, received=received,
                                        peak=memory("VmHWM"))), flush=True)  # fmt: skip


def memory(field: str, pid: object = "self") -> float:
    """MB of a process: VmRSS now, VmHWM at most (ru_maxrss would know of the parent's, from before the exec)."""
    with open(f"/proc/{pid}/status") as status:
        found = re.search(rf"^{field}:\s*(\d+) kB", status.read(), re.MULTILINE)
    assert found
    return int(found.group(1)) * 1024 / 1e6


def until(seconds: float) -> Iterator[None]:
    """Yield until so many seconds have passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def open_link(interface: str) -> Any:
    """The project's own link: scapy's socket with the project's buffers."""
    from node import EthernetLink

    return EthernetLink(interface)


def frame_to(link: Any, peer: str, size: int) -> bytes:
    """A frame of the project's EtherType with so many bytes of payload."""
    from constants import ETHERTYPE

    return bytes.fromhex(peer) + bytes(link.mac) + ETHERTYPE.to_bytes(2, "big") + os.urandom(size)


def run_drain(interface: str) -> None:
    """The ceiling's receiver."""
    link = open_link(interface)
    port = link._socket.ins
    print("ready", link.mac.hex(), flush=True)
    receive, buffer = port.recv_into, bytearray(0x1000E)
    select.select([port], [], [])
    meter = Meter(interface)
    size = count = 0
    ended = 0.0
    while not ended or select.select([port], [], [], SILENCE_SECONDS)[0]:
        with contextlib.suppress(BlockingIOError):
            while True:
                size += receive(buffer)
                count += 1
        ended = time.monotonic()
    meter.report(size - 14 * count, ended=ended)


def run_blast(interface: str, peer: str, seconds: str) -> None:
    """The ceiling's sender."""
    link = open_link(interface)
    send = link._socket.outs.send
    link._socket.outs.setblocking(True)
    size = min(link.mtu, 65535)
    frame = frame_to(link, peer, size)
    meter = Meter(interface)
    count = 0
    for _ in until(float(seconds)):
        for _ in range(64):
            send(frame)
        count += 64
    meter.report(size * count)


@contextlib.contextmanager
def opened(interface: str) -> Iterator[Any]:
    """A running node."""
    from node import Node

    with Node([open_link(interface)]) as node:
        yield node


def run_sink(interface: str, check: str = "") -> None:
    """Take one stream; `check`: and its hash."""
    digest = hashlib.sha256()
    with opened(interface) as node, node.listen(PORT) as listener:
        print("ready", node.address.hex(), flush=True)
        with listener.accept() as stream:
            size = len(stream.read(1))
            meter = Meter(interface)
            for data in iter(lambda: stream.read(READ_BYTES), b""):
                size += len(data)
                if check:
                    digest.update(data)
            meter.report(size - 1, hash=digest.hexdigest())


def run_source(interface: str, peer: str, seconds: str, check: str = "") -> None:
    """Write for so many seconds, until all is delivered."""
    digest = hashlib.sha256()
    with opened(interface) as node, node.connect(bytes.fromhex(peer), PORT) as stream:
        stream.write(b"0")
        meter = Meter(interface)
        for _ in until(float(seconds)):
            block = os.urandom(len(BLOCK)) if check else BLOCK
            stream.write(block)
            if check:
                digest.update(block)
        stream.finish()
        stream.drain()
        meter.report(stream.written - 1, hash=digest.hexdigest())


def run_tcp_sink(address: str) -> None:
    """`run_sink` over the kernel's TCP."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, TCP_PORT))
        listener.listen(1)
        print("ready", address, flush=True)
        with listener.accept()[0] as stream:
            size = len(stream.recv(1))
            meter = Meter()
            for data in iter(lambda: stream.recv(READ_BYTES), b""):
                size += len(data)
            meter.report(size - 1)


def run_tcp_source(address: str, seconds: str) -> None:
    """`run_source` over the kernel's TCP."""
    with socket.create_connection((address, TCP_PORT)) as stream:
        stream.sendall(b"0")
        meter = Meter()
        size = 0
        for _ in until(float(seconds)):
            stream.sendall(BLOCK)
            size += len(BLOCK)
        stream.shutdown(socket.SHUT_WR)
        stream.recv(1)
        meter.report(size)


def ping(exchange: Callable[[], object], count: int) -> None:
    """Report the round trips of so many exchanges in microseconds."""
    for _ in range(WARM_UP):
        exchange()
    trips = []
    meter = Meter()
    for _ in range(count):
        began = time.perf_counter()
        exchange()
        trips.append(1e6 * (time.perf_counter() - began))
    trips.sort()
    meter.report(MESSAGE_BYTES * count, p50=trips[count // 2], p99=trips[count * 99 // 100])


def run_raw_echo(interface: str) -> None:
    """Send every frame back."""
    link = open_link(interface)
    port = link._socket.ins
    port.setblocking(True)
    print("ready", link.mac.hex(), flush=True)
    while True:
        frame = port.recv(2048)
        port.send(frame[6:12] + frame[:6] + frame[12:])


def run_raw_ping(interface: str, peer: str, count: str) -> None:
    """Time the bare sockets."""
    link = open_link(interface)
    port = link._socket.ins
    port.setblocking(True)
    frame = frame_to(link, peer, MESSAGE_BYTES)

    def exchange() -> None:
        port.send(frame)
        port.recv(2048)

    ping(exchange, int(count))


def run_echo(interface: str) -> None:
    """Write back whatever is read."""
    with opened(interface) as node, node.listen(PORT) as listener:
        print("ready", node.address.hex(), flush=True)
        with listener.accept() as stream:
            for data in iter(lambda: stream.read(READ_BYTES), b""):
                stream.write(data)


def run_ping(interface: str, peer: str, count: str) -> None:
    """Time a stream."""
    message = os.urandom(MESSAGE_BYTES)
    with opened(interface) as node, node.connect(bytes.fromhex(peer), PORT) as stream:

        def exchange() -> None:
            stream.write(message)
            missing = MESSAGE_BYTES
            while missing:
                missing -= len(stream.read(missing))

        ping(exchange, int(count))


def run_streams_sink(interface: str, count: str) -> None:
    """Take so many streams at once, all in one thread."""
    size = over = 0
    meter = None
    with opened(interface) as node, node.listen(PORT) as listener:
        print("ready", node.address.hex(), flush=True)
        streams: List[Any] = []
        while over < int(count):
            for stream in iter(lambda: listener.accept(timeout=0), None):
                stream.setblocking(False)
                streams.append(stream)
            arrived = [(stream, stream.read(READ_BYTES)) for stream in streams if stream.has_news]
            size += sum(len(data) for _, data in arrived if data)
            meter = meter or (Meter(interface) if size else None)
            for stream in [stream for stream, data in arrived if data == b""]:
                streams.remove(stream)
                over += 1
            node.wait(timeout=0 if any(data is not None for _, data in arrived) else None)
        assert meter is not None
        meter.report(size)


def run_streams_source(interface: str, count: str, peer: str, seconds: str) -> None:
    """Write into so many streams at once, as each takes it."""
    with opened(interface) as node:
        streams = [node.connect(bytes.fromhex(peer), PORT) for _ in range(int(count))]
        meter = Meter(interface)
        for stream in streams:
            stream.setblocking(False)
        for _ in until(float(seconds)):
            for stream in streams:
                if stream.has_news:
                    stream.write(BLOCK)
            node.wait(timeout=1.0)
        for stream in streams:
            stream.finish()
        for stream in streams:
            stream.drain()
        meter.report(sum(stream.written for stream in streams))


def run_series_sink(interface: str) -> None:
    """Answer one stream after the other."""
    with opened(interface) as node, node.listen(PORT) as listener:
        print("ready", node.address.hex(), flush=True)
        while True:
            with listener.accept() as stream:
                stream.write(stream.read())


def run_series_source(interface: str, peer: str, count: str) -> None:
    """Open, use and close so many streams one after the other; say when the first fifth is done."""
    message = os.urandom(MESSAGE_BYTES)
    with opened(interface) as node:
        meter = Meter(interface)
        for number in range(int(count)):
            with node.connect(bytes.fromhex(peer), PORT) as stream:
                stream.write(message)
                stream.finish()
                assert stream.read() == message
            if number == int(count) // 5:
                print("fifth", flush=True)
                sys.stdin.readline()
        meter.report(MESSAGE_BYTES * int(count))
        sys.stdin.readline()


INNER: Dict[str, Callable[..., None]] = {
    "_drain": run_drain,
    "_blast": run_blast,
    "_sink": run_sink,
    "_source": run_source,
    "_tcp-sink": run_tcp_sink,
    "_tcp-source": run_tcp_source,
    "_raw-echo": run_raw_echo,
    "_raw-ping": run_raw_ping,
    "_echo": run_echo,
    "_ping": run_ping,
    "_streams-sink": run_streams_sink,
    "_streams-source": run_streams_source,
    "_series-sink": run_series_sink,
    "_series-source": run_series_source,
}


# --- Measuring -------------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """What the two ends of one run said."""

    sender: Dict[str, Any]
    receiver: Dict[str, Any]

    @property
    def rate(self) -> float:
        """Goodput in MB/s."""
        return float(self.receiver["size"] / self.receiver["seconds"] / 1e6)

    @property
    def costs(self) -> List[float]:
        """CPU seconds per GB: sender, receiver; CPU microseconds per frame: sender, receiver."""
        ends = ((self.sender, self.sender["sent"]), (self.receiver, self.receiver["received"]))
        return [end["cpu"] / self.receiver["size"] * 1e9 for end, _ in ends] + [
            end["cpu"] / frames * 1e6 for end, frames in ends
        ]


def result_of(program: Program, seconds: float = 0.0) -> Dict[str, Any]:
    """Wait for the result of a program that takes so many seconds."""
    line = program.expect(r"^result (\{.*\})$", timeout=seconds + WAIT_SECONDS).group(1)
    return dict(json.loads(line))


def pinned(core: int, argv: Sequence[str]) -> List[str]:
    """The command, on one core."""
    return ["taskset", "-c", str(core), *argv]


def start(host: Host, argv: Sequence[str]) -> Program:
    """Start a program that goes before what else the machine does: `nice` alone counts only within one session."""
    program = host.start(argv)
    with contextlib.suppress(OSError), open(f"/proc/{program.process.pid}/autogroup", "w") as group:
        group.write(str(NICE))
    return program


class Contender:
    """A way to move bytes from one host to another, as two commands, and those of the relays between."""

    def __init__(
        self,
        hosts: Sequence[Host],
        commands: Sequence[Sequence[str]],
        *,
        relay: Sequence[str] = (),
        whole: bool = True,
    ) -> None:
        """`hosts`: source, relays, sink. `commands`: of sink and source, which gets the sink's word and the seconds
        too. Without relays each end has a core to itself. `whole`: what was sent must have arrived.
        """
        self._source, *self._relays, self._sink = hosts
        self._commands = [list(argv) if self._relays else pinned(1 - end, argv) for end, argv in enumerate(commands)]
        self._relay = relay
        self._whole = whole

    def run(self, amount: float, *check: str) -> Sample:
        """One transfer of so many seconds."""
        with contextlib.ExitStack() as ending:

            def begin(host: Host, argv: Sequence[str]) -> Program:
                return ending.enter_context(contextlib.closing(start(host, argv)))

            for program in [begin(host, self._relay) for host in self._relays]:
                program.expect("^alexmesh|^ready", where="err", timeout=WAIT_SECONDS)
            sink = begin(self._sink, [*self._commands[0], *check])
            word = sink.expect(r"^ready (.*)\n", timeout=WAIT_SECONDS).group(1)
            source = begin(self._source, [*self._commands[1], word, str(amount), *check])
            sample = Sample(result_of(source, amount), result_of(sink, amount))
        sent, received = sample
        if self._whole and (sent["size"], sent.get("hash")) != (received["size"], received.get("hash")):
            raise AssertionError(f"{sent} became {received}")
        return sample


def ours(interface: str) -> List[List[str]]:
    """The commands of a stream."""
    return [[*SELF, "_sink", interface], [*SELF, "_source", interface]]


def bare(interface: str) -> List[List[str]]:
    """The commands of its ceiling."""
    return [[*SELF, "_drain", interface], [*SELF, "_blast", interface]]


def note(text: str) -> None:
    """Tell on standard error how it goes."""
    print(text, file=sys.stderr, flush=True)


def measure(contenders: Dict[str, Contender], options: argparse.Namespace) -> Dict[str, List[Sample]]:
    """Interleaved: each contender once in every pass."""
    samples: Dict[str, List[Sample]] = {name: [] for name in contenders}
    for number, name in itertools.product(range(1, options.runs + 1), contenders):
        samples[name].append(contenders[name].run(options.seconds))
        note(f"  pass {number}: {name} {samples[name][-1].rate:.1f} MB/s")
    return samples


# --- What others do --------------------------------------------------------------------------------------------------

# Newer releases of PyTCP want Python 3.14, those from 2.7.9 on lack their modules
OTHERS = {
    "aioquic": "aioquic",
    "aiortc": "aiortc",
    "reticulum": "rns",
    "reticulum-tcp": "rns",
    "pytcp": "pytcp==2.7.6",
}


def with_ip(lab: Lab) -> List[Host]:
    """Two more hosts on a cable, with IP."""
    hosts = lab.line(2)
    for host, address in zip(hosts, TCP_ADDRESSES):
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        for setting in "accept_dad", "disable_ipv6":  # Reticulum uses link-local addresses
            host.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/eth0/{setting}")
    return hosts


def tcp(lab: Lab) -> Contender:
    """The kernel's, on a cable that merges, splits and sums up nothing for it."""
    hosts = with_ip(lab)
    for host in hosts:
        for feature in ("rx", "tx", "sg", "tso", "gso", "gro"):
            host.run("ethtool", "-K", "eth0", feature, "off")
    return Contender(hosts, [[*SELF, "_tcp-sink", TCP_ADDRESSES[1]], [*SELF, "_tcp-source"]])


def other(lab: Lab, name: str) -> Contender:
    """A competitor in a virtual environment of its own; CalledProcessError where that cannot be made."""
    folder = "/var/cache/alexchat-bench-" + OTHERS[name]
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(os.path.join(folder, "complete")):
        note(f"  installing {OTHERS[name]} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "-q", OTHERS[name]], check=True, stdout=sys.stderr)
        with open(os.path.join(folder, "complete"), "w"):
            pass
    command = [python, os.path.join(HERE, "bench_others.py"), name]
    hosts = with_tap(lab) if name == "pytcp" else with_ip(lab)
    return Contender(hosts, [[*command, "sink"], [*command, "source"]])


def add(lab: Lab, name: str, ends: Dict[str, Contender]) -> str:
    """Add a competitor after a trial; why not, if that is so."""
    try:
        contender = tcp(lab) if name == "tcp" else other(lab, name)
        contender.run(TRIAL_SECONDS)
    except (OSError, RuntimeError, AssertionError, subprocess.CalledProcessError) as problem:
        note(f"  {problem}")
        return "does not run here: " + str(problem).strip().splitlines()[-1]
    ends[name] = contender
    return ""


def with_tap(lab: Lab) -> List[Host]:
    """Two more hosts whose cable ends in a bridge with a TAP interface."""
    hosts = lab.line(2)
    for host in hosts:
        for line in ("tuntap add name tap7 mode tap", "link add br0 type bridge", "link set tap7 master br0",
                     "link set eth0 master br0", "link set tap7 up", "link set br0 up"):  # fmt: skip
            host.run("ip", *line.split())
    return hosts


# --- The table -------------------------------------------------------------------------------------------------------


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """median (least-most)"""
    values = sorted(values)
    return "{:{f}} ({:{f}}-{:{f}})".format(statistics.median(values), values[0], values[-1], f=form)


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """The ratios of the passes, as a spread."""
    return spread(a / b for a, b in zip(over, under))


def rates(samples: Iterable[Sample]) -> List[float]:
    """MB/s of each."""
    return [sample.rate for sample in samples]


class Row(NamedTuple):
    """A line of the table."""

    what: str
    bound: str
    ratio: str
    figures: str


HEAD = Row("what", "must reach", "ratio", "figures"), Row("---", "---", "---", "---")


def goodput(name: str, bound: str, ceiling: Sequence[Sample], stream: Sequence[Sample]) -> Row:
    """A stream against its ceiling."""
    figures = f"{spread(rates(stream), '.0f')} of {spread(rates(ceiling), '.0f')} MB/s"
    return Row(name, bound, ratio(rates(stream), rates(ceiling)), figures)


def cost_rows(ceiling: Sequence[Sample], stream: Sequence[Sample]) -> Iterator[Row]:
    """CPU and memory of a stream at both ends, CPU against the ceiling's."""
    for end, side in enumerate(("sender", "receiver")):
        own, base = ([sample.costs[end::2] for sample in samples] for samples in (stream, ceiling))
        per_gb, per_frame = ([costs[which] for costs in own] for which in (0, 1))
        figures = f"{spread(per_gb)} s/GB, {spread(per_frame)} us/frame (ceiling {spread(c[1] for c in base)})"
        yield Row(f"CPU of the {side}", "", ratio(per_frame, [costs[1] for costs in base]), figures)
    peaks = [[sample[end]["peak"] for sample in stream] for end in (0, 1)]
    yield Row("peak RSS", "60 MB", "", " / ".join(spread(each, ".1f") for each in peaks) + " MB")


def run_pair(options: argparse.Namespace) -> Iterator[Row]:
    """MTU 1500 on one cable."""
    with Lab() as lab:
        hosts = lab.line(2)
        ends = {"ceiling": Contender(hosts, bare("eth0"), whole=False), "alexstream": Contender(hosts, ours("eth0"))}
        ends["alexstream"].run(options.seconds, "check")
        note("  every byte arrived, in order: the hashes of a run with random bytes are equal")
        failures = {name: add(lab, name, ends) for name in options.beside}
        samples = measure(ends, options)
    speeds = {name: rates(own) for name, own in samples.items()}
    yield Row("ceiling", "1.0", "1.0", f"{spread(speeds['ceiling'], '.0f')} MB/s")
    yield goodput("AlexStream goodput", "0.50, try for 0.65", samples["ceiling"], samples["alexstream"])
    yield from cost_rows(samples["ceiling"], samples["alexstream"])
    for name, failure in failures.items():
        what, bound = ("the kernel's TCP, offloads off", "0.4") if name == "tcp" else (name, "10")
        row = Row("AlexStream against " + what, bound, "", failure)
        if not failure:
            costs = " / ".join(spread(side, ".0f") for side in list(zip(*(each.costs for each in samples[name])))[:2])
            share = ratio(speeds["alexstream"], speeds[name])
            row = row._replace(ratio=share, figures=f"{spread(speeds[name], '.1f')} MB/s, CPU {costs} s/GB")
        yield row


def run_pingpong(options: argparse.Namespace) -> Iterator[Row]:
    """Round trips."""
    results: Dict[str, List[Dict[str, Any]]] = {"raw-": [], "": []}
    with Lab() as lab:
        left, right = lab.line(2)
        for number, kind in itertools.product(range(1, options.runs + 1), results):
            server = start(right, pinned(1, [*SELF, f"_{kind}echo", "eth0"]))
            word = server.expect(r"^ready (.*)\n", timeout=WAIT_SECONDS).group(1)
            client = start(left, pinned(0, [*SELF, f"_{kind}ping", "eth0", word, str(options.trips)]))
            with contextlib.closing(server), contextlib.closing(client):
                results[kind].append(result_of(client))
            note(f"  pass {number}: {kind}ping {results[kind][-1]['p50']:.1f} us")
    for which, bound in ("p50", "at most 1.6"), ("p99", "at most 2.5"):
        raw, own = ([result[which] for result in results[kind]] for kind in results)
        yield Row(
            f"64-byte ping-pong, {which}", bound, ratio(own, raw), f"{spread(own, '.1f')} of {spread(raw, '.1f')} us"
        )


def run_pipes(options: argparse.Namespace) -> Iterator[Row]:
    """Whole programs through pipes."""
    shares, rates, size = [], [], int(300e6 * options.seconds)
    with Lab() as lab:
        hosts = lab.line(2)
        stream = Contender(hosts, ours("eth0"))
        for number in range(1, options.runs + 1):
            alone = stream.run(options.seconds).rate
            command = f"exec {sys.executable} alexstream_server.py eth0 --once > /dev/null"
            server = start(hosts[1], pinned(1, ["sh", "-c", command]))
            address = server.expect(r"reach it with: .* (\S+)$", where="err", timeout=WAIT_SECONDS).group(1)
            command = f"head -c {size} /dev/zero | exec {sys.executable} alexstream_client.py eth0 {address} - --json"
            client = start(hosts[0], pinned(0, ["sh", "-c", command]))
            with contextlib.closing(server), contextlib.closing(client):
                told = client.expect(r"^(\{.*\})$", where="err", timeout=WAIT_SECONDS).group(1)
            rates.append(size / json.loads(told)["seconds"] / 1e6)
            shares.append(rates[-1] / alone)
            note(f"  pass {number}: pipes {rates[-1]:.1f} MB/s, the stream alone {alone:.1f}")
    yield Row(
        "whole programs through pipes, of the stream alone",
        "0.90",
        spread(shares, ".2f"),
        f"{spread(rates, '.0f')} MB/s",
    )


def run_lo(options: argparse.Namespace) -> Iterator[Row]:
    """Frames of 65535 bytes."""
    with Lab() as lab:
        host = lab.host()
        ends = {"ceiling": Contender([host, host], bare("lo"), whole=False), "lo": Contender([host, host], ours("lo"))}
        samples = measure(ends, options)
    yield goodput("lo, frames of 65535 bytes", "0.45", samples["ceiling"], samples["lo"])


def run_jumbo(options: argparse.Namespace) -> Iterator[Row]:
    """MTU 9000."""
    with Lab() as lab:
        hosts = lab.line(2)
        for host in hosts:
            lab.set_mtu(host.ports[0], 9000)
        ends = {"ceiling": Contender(hosts, bare("eth0"), whole=False), "jumbo": Contender(hosts, ours("eth0"))}
        samples = measure(ends, options)
    yield goodput("MTU 9000", "0.45", samples["ceiling"], samples["jumbo"])


def run_relays(options: argparse.Namespace) -> Iterator[Row]:
    """One relay between, then three: four and six processes on the cores there are."""
    for count in 1, 3:
        with Lab() as lab:
            hosts = lab.line(2 + count)
            ends = {
                "ceiling": Contender(hosts, bare("eth0"), relay=FORWARDER, whole=False),
                f"{count} relays": Contender(hosts, ours("eth0"), relay=NODE),
            }
            samples = measure(ends, options)
        yield goodput(f"relays between: {count}", "0.45", samples["ceiling"], samples[f"{count} relays"])


def run_start(options: argparse.Namespace) -> Iterator[Row]:
    """Until the first byte of a new client is on the server's standard output."""
    seconds: Dict[str, List[float]] = {"client": [], "python": []}
    with Lab() as lab:
        left, right = lab.line(2)
        for _ in range(options.runs):
            server = start(right, [sys.executable, "alexstream_server.py", "eth0", "--once"])
            server.expect("^alexmesh", where="err", timeout=WAIT_SECONDS)
            began = time.monotonic()
            client = start(left, [sys.executable, "alexstream_client.py", "eth0", right.ports[0].address, "x"])
            server.expect("x", timeout=WAIT_SECONDS)
            seconds["client"].append(time.monotonic() - began)
            client.wait()
            server.wait()
            began = time.monotonic()
            start(left, [sys.executable, "-c", "print('x')"]).expect("x")
            seconds["python"].append(time.monotonic() - began)
    python = f"an empty Python program: {spread(seconds['python'], '.3f')} s"
    yield Row("process start to first byte", "0.25 s", "", f"{spread(seconds['client'], '.3f')} s; {python}")


class Seat:
    """A program on a terminal of its own, as plain bytes: no tmux between."""

    def __init__(self, host: Host, argv: Sequence[str]) -> None:
        self.keyboard, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        command = ["sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
        self.program = host.start(command, stdin=theirs, stdout=theirs, env={"TERM": "xterm"})
        os.close(theirs)

    def shows(self, text: bytes) -> None:
        """Wait until a text comes."""
        shown = b""
        while text not in shown:
            assert select.select([self.keyboard], (), (), WAIT_SECONDS)[0], f"{text!r} is not in {shown!r}"
            shown += os.read(self.keyboard, 65536)


def run_line(options: argparse.Namespace) -> Iterator[Row]:
    """Both programs sleep before each line, as they do while people type."""
    lines, pings = [], []
    with Lab() as lab:
        left, right = lab.line(2)
        hub = Seat(right, [sys.executable, "alexchat_server.py", "eth0"])
        hub.shows(b"the room is open")
        address = right.ports[0].address
        ann = Seat(left, [sys.executable, "alexchat_client.py", "eth0", address])
        hub.shows(b"is here")
        ping = [sys.executable, "send_handshake.py", "eth0", address, "--json", "--interval", "0.1", "--count"]
        for number in range(20 * options.runs):
            text = b"<%d>" % number
            os.write(ann.keyboard, text)
            ann.shows(text)
            time.sleep(0.05)
            began = time.monotonic()
            os.write(ann.keyboard, b"\r")
            hub.shows(text)
            lines.append(1000 * (time.monotonic() - began))
        for told in left.run(*ping, str(20 * options.runs)).splitlines():
            pings += [1000 * rtt for rtt in [json.loads(told).get("rtt")] if rtt]
    line, trip = statistics.median(lines), statistics.median(pings)
    figures = f"{line:.2f} ms, p99 {sorted(lines)[len(lines) * 99 // 100]:.2f}; ping {trip:.2f}"
    yield Row("a line typed to shown, p50, beyond the ping", "under 2 ms", f"{line - trip:.2f} ms", figures)


def run_streams(options: argparse.Namespace) -> Iterator[Row]:
    """Many at once."""
    counts = ["1", "4", "16", "64"]
    with Lab() as lab:
        hosts = lab.line(2)
        commands = {n: [[*SELF, f"_streams-{end}", "eth0", n] for end in ("sink", "source")] for n in counts}
        samples = measure({n: Contender(hosts, commands[n]) for n in counts}, options)
    for n in counts[1:]:
        together, one = rates(samples[n]), rates(samples["1"])
        figures = f"{spread(together, '.0f')} of {spread(one, '.0f')} MB/s"
        yield Row(f"{n} streams at once, of one", "0.9", ratio(together, one), figures)


def run_series(options: argparse.Namespace) -> Iterator[Row]:
    """Memory after all streams, against after the first fifth of them."""
    sizes = []
    with Lab() as lab:
        left, right = lab.line(2)
        sink = start(right, pinned(1, [*SELF, "_series-sink", "eth0"]))
        word = sink.expect(r"^ready (.*)\n", timeout=WAIT_SECONDS).group(1)
        source = start(left, pinned(0, [*SELF, "_series-source", "eth0", word, str(options.series)]))
        for mark in "^fifth", "^result":
            source.expect(mark, timeout=WAIT_SECONDS + options.series / 20)
            sizes.append([memory("VmRSS", program.process.pid) for program in (source, sink)])
            source.send("\n")
        rate = options.series / result_of(source)["seconds"]
    figures = "; ".join(f"{early:.1f} -> {late:.1f} MB" for early, late in zip(*sizes))
    growth = ", ".join(f"{late / early:.2f}" for early, late in zip(*sizes))
    yield Row(f"{options.series} streams in turn, RSS", "no growth", growth, f"{figures}; {rate:.0f} streams/s")


RUNS: Dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "pair": run_pair,
    "pingpong": run_pingpong,
    "pipes": run_pipes,
    "lo": run_lo,
    "jumbo": run_jumbo,
    "relays": run_relays,
    "start": run_start,
    "line": run_line,
    "streams": run_streams,
    "series": run_series,
}


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    if arguments and arguments[0] in INNER:
        INNER[arguments[0]](*arguments[1:])
        return 0
    parser = argparse.ArgumentParser(
        prog="bench_stream.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help="one or more of: " + " ".join(RUNS) + " (all)")
    parser.add_argument("--runs", type=int, default=5, help="passes (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each transfer (2)")
    parser.add_argument("--trips", type=int, default=5000, help="round trips of each ping-pong (5000)")
    parser.add_argument("--series", type=int, default=10000, help="streams one after the other (10000)")
    beside = ["tcp", *OTHERS]
    parser.add_argument("--with", dest="beside", metavar="NAMES", default="tcp", type=lambda text: text.split(","),
                        help=f"what `pair` measures besides: {','.join(beside)}, or an empty word (tcp)")  # fmt: skip
    options = parser.parse_args(arguments)
    options.beside = [name for name in options.beside if name]
    if not set(options.beside) <= set(beside):
        parser.error(f"--with takes some of: {','.join(beside)}")
    if not set(options.what) <= set(RUNS):
        parser.error(f"WHAT is of: {' '.join(RUNS)}")
    if os.geteuid():
        parser.error("network namespaces need root: sudo python3 tests/bench/bench_stream.py ...")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second start compiles nothing
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    rows = list(HEAD)
    try:
        for what in options.what or RUNS:
            note(what)
            rows.extend(RUNS[what](options))
    except KeyboardInterrupt:
        return 130
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
