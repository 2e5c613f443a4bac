#!/usr/bin/env python3
"""How fast the mesh heals, starts and forwards, and what it costs: real processes and frames in namespaces (root).

    sudo python3 tests/bench/bench_mesh.py outage diamond --runs 10       longest silence, relay in use killed
    sudo python3 tests/bench/bench_mesh.py outage ring --fault port       ... or a port cut; "oneway": one direction
    sudo python3 tests/bench/bench_mesh.py outage diamond --with babeld   the same of Debian's babeld, for comparison
    sudo python3 tests/bench/bench_mesh.py transfer                       a stream over the diamond whose relay dies
    sudo python3 tests/bench/bench_mesh.py start --runs 10                cold start until all reach all
    sudo python3 tests/bench/bench_mesh.py load 20                        frames, bytes and CPU of N idle nodes
    sudo python3 tests/bench/bench_mesh.py forward                        one relay against a bare recv-send loop

Every figure is of one machine that does other things too: look at the worst, and at ratios taken in one run.
"""

import argparse
import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
import paths  # noqa: F401  # the folders of the tests
from lab import Host, Lab, Port, Program

PROBE_SECONDS = 0.01
SETTLE_SECONDS = 2.0  # of probes before the fault
WATCH_SECONDS = 4.0  # after it
BABEL_WATCH_SECONDS = 40.0
UDP_PORT = 9
MARK = b"probe"
NODE = [sys.executable, "node.py"]
SELF = [sys.executable, os.path.abspath(__file__)]


# --- Programs that run inside the lab --------------------------------------------------------------------------------


def open_links(names: str) -> Any:
    """A started node of the project on these interfaces."""
    from node import EthernetLink, Node

    return Node([EthernetLink(name) for name in names.split(",")])


def run_sink(names: str) -> None:
    """Note when probes arrive, until standard input ends; then say what the longest silence was."""
    node = open_links(names)
    arrivals: List[float] = []
    node._endpoint.receive_all = lambda origin, frames, *, now, at: arrivals.append(time.monotonic())
    print("ready", node.address.hex(), flush=True)
    while 0 not in node.wait(0):
        pass
    report(arrivals)
    node.close()


def run_probes(names: str, peer: str) -> None:
    """Send a probe every 10 ms, once there is a route; say on demand (a line on stdin) which neighbour is in use."""
    node = open_links(names)
    dest = bytes.fromhex(peer)
    due = 0.0
    told = False
    while True:
        lane = [known for known in node._router.nodes() if known.address == dest]
        if lane:
            transmit = node._router.send_stream(dest, MARK, now=node.now())
            if transmit is not None:
                node._queues[transmit.interface].send(transmit.frame, node.now())
                node.step()  # as Stream.write does
        if lane and not told:
            told = True
            due = time.monotonic()
            print("route", flush=True)
        due = max(due + PROBE_SECONDS, node.now())
        while node.now() < due:
            if not node.wait(0, timeout=due - node.now()):
                continue
            if not os.read(0, 100):
                node.close()
                return
            print("via", lane[0].next_hop.hex() if lane else "", flush=True)


def run_udp_sink() -> None:
    """`run_sink` over the kernel's IP."""
    arrivals: List[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("", UDP_PORT))
        print("ready", flush=True)
        while True:
            ready = select.select([0, port.fileno()], [], [])[0]
            if port.fileno() in ready:
                port.recv(100)
                arrivals.append(time.monotonic())
            if 0 in ready:
                break
    report(arrivals)


def run_udp_probes(address: str) -> None:
    """`run_probes` over the kernel's IP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        due = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                port.sendto(MARK, (address, UDP_PORT))
            due = max(due + PROBE_SECONDS, time.monotonic())
            if select.select([0], [], [], max(0.0, due - time.monotonic()))[0]:
                break


def report(arrivals: Sequence[float]) -> None:
    """Print the longest silence between two probes in ms, and how many came."""
    gaps = [after - before for before, after in zip(arrivals, arrivals[1:])]
    print("silence", json.dumps({"ms": round(1000 * max(gaps, default=-1.0)), "count": len(arrivals)}), flush=True)


def run_forwarder() -> None:
    """The bare loop that a relay is measured against: what comes in at one port goes out of the other, nothing else."""
    from node import EthernetLink

    left, right = EthernetLink("eth0"), EthernetLink("eth1")
    print("ready", flush=True)
    while True:
        for link in select.select([left, right], [], [])[0]:
            out = right if link is left else left
            for frame in link.receive():
                with contextlib.suppress(BlockingIOError):
                    out.send(frame)


# --- Outages ---------------------------------------------------------------------------------------------------------


def build(lab: Lab, topology: str) -> Tuple[Host, Host, List[Host]]:
    """The two ends of a topology, and all of its hosts."""
    if topology == "grid":
        hosts = lab.grid(4, 4)
    elif topology == "diamond":
        hosts = lab.diamond()
    else:
        hosts = lab.line(4) if topology == "line" else lab.ring(5)
    return hosts[0], hosts[2 if topology == "ring" else -1], hosts


def address_of(host: Host) -> str:
    """The node id of a host: the address of its first interface, as hex."""
    return host.ports[0].address.replace(":", "")


def silence_of(sink: Program) -> Dict[str, int]:
    """End a sink and take its report."""
    sink.close_stdin()
    return dict(json.loads(sink.expect(r"^silence (\{.*\})$", timeout=10).group(1)))


def break_relay(lab: Lab, host: Host, towards: Host, program: Program, fault: str) -> None:
    """Kill the relay and its ports without a carrier event; or cut its port towards a host, or one direction of it."""
    if fault == "kill":
        program.signal(signal.SIGKILL)
        for port in host.ports:
            lab.block(port)
        return
    port = next(port for port in host.ports if lab.other_end[port].namespace == towards.namespace)
    if fault == "port":
        lab.block(port)
    else:
        lab.block(port, outward=False)  # the relay goes deaf towards the sender, but is heard


def measure_outage(topology: str, fault: str) -> Dict[str, int]:
    """The longest silence at the far end while the first relay in use breaks."""
    with Lab() as lab:
        first, last, hosts = build(lab, topology)
        relays = {host: host.start([*NODE, host.interfaces]) for host in hosts if host not in (first, last)}
        sink = last.start([*SELF, "_sink", last.interfaces])
        sink.expect("^ready", timeout=20)
        probes = first.start([*SELF, "_probes", first.interfaces, address_of(last)])
        probes.expect("^route", timeout=20)
        time.sleep(SETTLE_SECONDS + random.random() * 5)  # anywhere between two HANDSHAKEs
        probes.send("via?\n")
        via = probes.expect("^via (.+)$").group(1)
        relay = next(host for host in relays if address_of(host) == via)
        break_relay(lab, relay, first, relays[relay], fault)
        time.sleep(WATCH_SECONDS)
        probes.close_stdin()
        probes.wait()
        return silence_of(sink)


def measure_babel(topology: str, hello: str) -> Dict[str, int]:
    """The same with babeld and the kernel's forwarding."""
    with Lab() as lab:
        first, last, hosts = build(lab, topology)
        relays: Dict[Host, Program] = {}
        for number, host in enumerate(hosts, 1):
            start_ip(host, number)
            options = ["-h", hello] if hello else []
            names = [port.name for port in host.ports]
            pid_file = f"/tmp/{host.namespace}.pid"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(pid_file)  # of one that was killed: babeld would not start
            program = host.start(["babeld", "-I", pid_file, "-S", "", *options,
                                  "-C", "redistribute local if lo", *names])  # fmt: skip
            relays[host] = program
        target = f"10.66.0.{hosts.index(last) + 1}"
        wait_until(lambda: target in first.run("ip", "route"), 60)
        wait_until(lambda: "10.66.0.1 " in last.run("ip", "route"), 60)
        sink = last.start([*SELF, "_udp-sink"])
        sink.expect("^ready")
        probes = first.start([*SELF, "_udp-probes", target])
        time.sleep(SETTLE_SECONDS)
        port = route_port(first, target)
        relay = next(host for host in hosts if host.namespace == lab.other_end[port].namespace)
        break_relay(lab, relay, first, relays[relay], "kill")
        time.sleep(BABEL_WATCH_SECONDS)
        probes.close_stdin()
        return silence_of(sink)


def start_ip(host: Host, number: int) -> None:
    """Give a host an address of its own and let its kernel forward."""
    for name in ("all", "default", *(port.name for port in host.ports)):
        host.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    host.run("ip", "address", "add", f"10.66.0.{number}/32", "dev", "lo")
    for port in host.ports:
        lab_down_up(host, port)


def lab_down_up(host: Host, port: Port) -> None:
    """A link-local address comes only with the link."""
    host.run("ip", "link", "set", port.name, "down")
    host.run("ip", "address", "add", f"10.66.0.{host.lab.hosts.index(host) + 1}/32", "dev", port.name)
    host.run("ip", "link", "set", port.name, "up")


def route_port(host: Host, target: str) -> Port:
    """Through which port the kernel's route to an address leads."""
    name = re.search(r"dev (\S+)", host.run("ip", "route", "get", target))
    assert name
    return next(port for port in host.ports if port.name == name.group(1))


def wait_until(ready: Callable[[], bool], timeout: float) -> None:
    """Poll for something that can only be asked."""
    deadline = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def outage(options: argparse.Namespace) -> None:
    """The row of the table: worst, median and all silences."""
    results = []
    for _ in range(options.runs):
        if options.program == "babeld":
            results.append(measure_babel(options.topology, options.hello)["ms"])
        else:
            results.append(measure_outage(options.topology, options.fault)["ms"])
        print(f"  {results[-1]} ms", file=sys.stderr, flush=True)
    name = f"{options.program} {options.topology} {options.fault}"
    print(
        f"{name}: longest silence, ms: worst {max(results)}, median {statistics.median(results):g}, {sorted(results)}"
    )


# --- The rest of the table -------------------------------------------------------------------------------------------


def transfer(options: argparse.Namespace) -> None:
    """The longest pause of a stream over the diamond when its relay dies, and whether all of it arrived."""
    with Lab() as lab:
        first, last, hosts = build(lab, "diamond")
        relays = {host: host.start([*NODE, host.interfaces]) for host in hosts[1:3]}
        server = last.start([sys.executable, "alexstream_server.py", last.interfaces, "--once"])
        server.expect("^alexmesh", where="err")
        client = first.start([sys.executable, "alexstream_client.py", first.interfaces, last.ports[0].address, "-"])
        pipe: Any = client.process.stdin
        sizes: List[Tuple[float, int]] = []
        sent = 0
        broken = 0.0
        began = time.monotonic()
        chunk = os.urandom(1 << 16)
        while time.monotonic() - began < SETTLE_SECONDS + WATCH_SECONDS:
            if select.select([], [pipe], [], 0.01)[1]:
                client.send(chunk)
                sent += len(chunk)
            sizes.append((time.monotonic(), len(server._collected["out"])))
            if not broken and sizes[-1][0] - began > SETTLE_SECONDS:
                broken = sizes[-1][0]
                used = max(relays, key=lambda host: received_packets(host))
                break_relay(lab, used, first, relays[used], "kill")
        client.close_stdin()
        statuses = client.wait(30), server.wait(30)
        grown = [now for (now, size), (_, before) in zip(sizes[1:], sizes) if size > before]
        pause = max(after - before for before, after in zip(grown, grown[1:]) if after > broken)
        got = bytes(server._collected["out"])
        whole = got == chunk * (sent // len(chunk))
        print(f"transfer over the diamond: longest pause {1000 * pause:.0f} ms, exit statuses {statuses}, "
              f"{len(got)} of {sent} bytes, {'equal' if whole else 'NOT EQUAL'}")  # fmt: skip


def received_packets(host: Host) -> int:
    """Frames that came in through all ports of a host."""
    counts = [host.run("cat", f"/sys/class/net/{port.name}/statistics/rx_packets") for port in host.ports]
    return sum(map(int, counts))


def start(options: argparse.Namespace) -> None:
    """From the start of all processes until every node has a route to every other."""
    for topology in ("line", "ring", "diamond"):
        results = []
        for _ in range(options.runs):
            with Lab() as lab:
                hosts = build(lab, topology)[2]
                began = time.monotonic()
                programs = [host.start([*NODE, "--json", host.interfaces]) for host in hosts]
                for program in programs:
                    program.expect(f'(?s)("found".*){{{len(hosts) - 1}}}', timeout=20)
                results.append(1000 * (time.monotonic() - began))
        print(f"cold start, {topology}: worst {max(results):.0f} ms, median {statistics.median(results):.0f} ms")


def load(options: argparse.Namespace) -> None:
    """Frames and bytes a node sends, and the CPU it takes, on one segment of N idle nodes."""
    with Lab() as lab:
        hosts = lab.bridge(options.count)
        programs = [host.start([*NODE, host.interfaces]) for host in hosts]
        for program in programs:
            program.expect("^alexmesh", where="err", timeout=60)
        time.sleep(15)
        before = [(traffic(host), cpu(program)) for host, program in zip(hosts, programs)]
        time.sleep(options.seconds)
        after = [(traffic(host), cpu(program)) for host, program in zip(hosts, programs)]
        share = 1 / options.seconds / len(hosts)
        frames = sum(now[0][0] - then[0][0] for then, now in zip(before, after)) * share
        size = sum(now[0][1] - then[0][1] for then, now in zip(before, after)) * share
        busy = sum(now[1] - then[1] for then, now in zip(before, after)) * share
        print(f"load, N = {len(hosts)}: {frames:.3f} frames/s, {size:.1f} B/s, CPU {100 * busy:.2f} % per node")


def traffic(host: Host) -> Tuple[int, int]:
    """Frames and bytes (without Ethernet header) that a host has sent."""
    frames, size = (int(host.run("cat", f"/sys/class/net/eth0/statistics/tx_{what}")) for what in ("packets", "bytes"))
    return frames, size - 14 * frames


def cpu(program: Program) -> float:
    """CPU seconds of a process."""
    with open(f"/proc/{program.process.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forward(options: argparse.Namespace) -> None:
    """Frames/s through node.py against a bare loop, both on one core, blasted by a raw socket; interleaved."""
    ratios = []
    for _ in range(options.runs):
        bare, relay = forward_rate([*SELF, "_forwarder"], "^ready"), forward_rate([*NODE, "eth0,eth1"], "")
        ratios.append(relay / bare)
        print(f"  bare {bare:.0f} frames/s, relay {relay:.0f}, ratio {ratios[-1]:.2f}", file=sys.stderr, flush=True)
    middle = statistics.median(ratios)
    print(f"forwarding: ratio to a bare loop: median {middle:.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


def forward_rate(argv: Sequence[str], ready: str) -> float:
    """Frames/s that reach n3 when n1 sends as fast as it can, n2 pinned to one core, n1 and n3 on the other."""
    with Lab() as lab:
        first, middle, last = lab.line(3)
        program = middle.start(["taskset", "-c", "0", *argv])
        program.expect(ready or "^alexmesh", where="out" if ready else "err")
        sink = last.start([*SELF, "_count", last.interfaces])
        sink.expect("^ready")
        blast = first.start(["taskset", "-c", "1", *SELF, "_blast", first.interfaces, address_of(last)])
        rate = float(sink.expect(r"^rate ([\d.]+)", timeout=30).group(1))
        blast.close_stdin()
        return rate


def run_blast(names: str, peer: str) -> None:
    """Be a node, and send 1500-byte STREAM frames to a node two hops away as fast as the socket takes them."""
    node = open_links(names)
    dest = bytes.fromhex(peer)
    while not any(known.address == dest for known in node.nodes()):
        node.next_event(timeout=5)
    link = node.links[0]
    transmit = node._router.send_stream(dest, bytes(1500 - 23), now=node.now())
    frame = transmit[1]
    end = time.monotonic() + 8
    while time.monotonic() < end:
        for _ in range(64):
            with contextlib.suppress(BlockingIOError):
                link.send(frame)
        node.wait(timeout=0)  # the relay must go on hearing this node
    node.close()


def run_count(names: str) -> None:
    """Be a node, and say how many large frames come in a second once they come."""
    node = open_links(names)
    count = 0

    def note(origin: bytes, frames: Sequence[bytes], *, now: float, at: int) -> None:
        nonlocal count
        count += len(frames)

    node._endpoint.receive_all = note
    print("ready", flush=True)
    while not count:
        node.wait(timeout=0.05)
    drive(node, 1)
    before, began = count, time.monotonic()
    drive(node, 3)
    print("rate", (count - before) / (time.monotonic() - began), flush=True)
    node.close()


def drive(node: Any, seconds: float) -> None:
    """Let a node go on for so long."""
    end = node.now() + seconds
    while node.now() < end:
        node.wait(timeout=end - node.now())


INNER: Dict[str, Callable[..., None]] = {
    "_sink": run_sink,
    "_probes": run_probes,
    "_udp-sink": run_udp_sink,
    "_udp-probes": run_udp_probes,
    "_forwarder": run_forwarder,
    "_blast": run_blast,
    "_count": run_count,
}


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    if arguments and arguments[0] in INNER:
        INNER[arguments[0]](*arguments[1:])
        return 0
    parser = argparse.ArgumentParser(
        prog="bench_mesh.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True  # Python 3.6 takes it only so
    for run in (outage, transfer, start, load, forward):
        command = commands.add_parser(run.__name__, help=(run.__doc__ or "").splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument("--runs", type=int, default=5)
        if run is outage:
            command.add_argument("topology", choices=("diamond", "ring", "grid"))
            command.add_argument("--fault", choices=("kill", "port", "oneway"), default="kill")
            command.add_argument("--with", dest="program", choices=("alexmesh", "babeld"), default="alexmesh")
            command.add_argument("--hello", default="", help="babeld's hello interval in seconds")
        if run is load:
            command.add_argument("count", type=int)
            command.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second start compiles nothing
    options.run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
