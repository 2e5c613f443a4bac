#!/usr/bin/env python3
"""A laboratory of network namespaces: small Ethernets on one Linux machine, taken down again whatever happens.

As a command (root): build a topology, then run a command in it or open one shell per node in tmux.

    sudo python3 tests/frames/lab.py line 4                       four shells: n1 - n2 - n3 - n4
    sudo python3 tests/frames/lab.py bridge 3 -- ip link          a command in n1, then everything is deleted
    sudo python3 tests/frames/lab.py --relay line 4 -- python3 send_handshake.py eth0

As a library:

    with Lab() as lab:
        a, b = lab.line(2)
        server = a.start([sys.executable, "alexchat_server.py", "eth0"])
        server.expect("listening", timeout=10)

Every namespace is named ax<pid>-<letter>-<node> and holds nothing but what was put there: no IP address, no IPv6,
`lo` up. Interfaces are eth0, eth1 ... with addresses 02:00:00:<port>:<node, two bytes>. Every wait has a deadline.
"""

import argparse
import contextlib
import ctypes
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Any, Dict, Iterator, List, Match, NamedTuple, NoReturn, Optional, Sequence, Tuple, Type, Union

PADDED_BYTES = 60  # an Ethernet card pads what it sends to this; veth and lo do not
POLL_SECONDS = 0.02  # between two looks at a terminal's screen
CARRIER_SECONDS = 5.0
PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMESPACES = "/run/netns"
CLONE_NEWNET = 0x40000000
SINK = "sink"  # an interface that is down: what is sent there is gone
LOSE = f'fwd to "{SINK}"'  # nftables' statement for a frame that nobody will see again


def call(*argv: str, feed: str = "") -> str:
    """Run a command; its standard output. RuntimeError with its standard error where it fails."""
    done = subprocess.run(
        argv, input=feed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, check=False
    )
    if done.returncode:
        raise RuntimeError("{}: {}".format(" ".join(argv), done.stderr.strip() or done.returncode))
    return done.stdout


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Put the calling thread into a namespace: a socket opened there stays there. (os.setns is Python 3.12's.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as here, open(os.path.join(NAMESPACES, namespace)) as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns " + namespace)
        try:
            yield
        finally:
            libc.setns(here.fileno(), CLONE_NEWNET)


class Program:
    """A process whose output is collected as it comes. `stdin`, `stdout`: files in place of the pipes."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: Union[int, IO[Any]] = subprocess.PIPE,
        stdout: Union[int, IO[Any]] = subprocess.PIPE,
        env: Optional[Dict[str, str]] = None,
    ) -> None:
        self.argv = list(argv)
        self.process = subprocess.Popen(
            self.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=PROJECT,
            env=dict(os.environ, PYTHONUNBUFFERED="1", **(env or {})),
            start_new_session=True,  # Ctrl-C in the terminal of the tests is not theirs
        )
        self._news = threading.Condition()
        self._collected = {"out": bytearray(), "err": bytearray()}
        self._readers = [
            threading.Thread(target=self._collect, args=(name, pipe), daemon=True)
            for name, pipe in (("out", self.process.stdout), ("err", self.process.stderr))
            if pipe is not None
        ]
        for reader in self._readers:
            reader.start()

    def _collect(self, name: str, pipe: IO[bytes]) -> None:
        for data in iter(lambda: os.read(pipe.fileno(), 65536), b""):
            with self._news:
                self._collected[name] += data
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def out(self) -> str:
        """Standard output until now."""
        return bytes(self._collected["out"]).decode("utf-8", "backslashreplace")

    @property
    def err(self) -> str:
        """Standard error until now."""
        return bytes(self._collected["err"]).decode("utf-8", "backslashreplace")

    def expect(self, pattern: str, *, timeout: float = 10, where: str = "out") -> Match[str]:
        """Wait until a regular expression matches the output ("out" or "err"); AssertionError after `timeout` s."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                found = re.search(pattern, getattr(self, where), re.MULTILINE)
                if found:
                    return found
                ended = self.process.poll() is not None and not any(r.is_alive() for r in self._readers)
                left = deadline - time.monotonic()
                if left <= 0 or ended:
                    raise AssertionError(f"no {pattern!r} in std{where} after {timeout} s\n{self}")
                self._news.wait(min(left, 0.1))  # the end of the process itself notifies nobody

    def send(self, text: Union[str, bytes]) -> None:
        """Write to standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() if isinstance(text, str) else text)
        self.process.stdin.flush()

    def close_stdin(self) -> None:
        """End standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self, timeout: float = 10) -> int:
        """The exit status (-n: killed by signal n), output complete; AssertionError after `timeout` seconds."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self}") from None
        for reader in self._readers:
            reader.join(1)
        return status

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """Kill it if it still runs, and release its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(1)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def __str__(self) -> str:
        shown = " ".join(map(shlex.quote, self.argv))
        return f"$ {shown}\nstatus: {self.process.poll()}\nstdout:\n{self.out[-3000:]}\nstderr:\n{self.err}"


class Terminal:
    """A program on a terminal of its own: a tmux session, typed into with keys and read from its screen."""

    def __init__(self, server: str, name: str, argv: Sequence[str], *, columns: int = 100, rows: int = 30) -> None:
        self._tmux = ["tmux", "-u", "-L", server]
        self._name = name
        command = " ".join(map(shlex.quote, argv))
        new = ["-f", "/dev/null", "new-session", "-d", "-s", name, "-x", str(columns), "-y", str(rows), "-c", PROJECT]
        # in one call, so that the session cannot end before its screen is told to remain
        call(*self._tmux, *new, command, ";", "set-option", "-w", "remain-on-exit", "on")

    def keys(self, *keys: str) -> None:
        """Press keys by tmux's names: "Enter", "C-c", "BSpace" ..."""
        call(*self._tmux, "send-keys", "-t", self._name, *keys)

    def type(self, text: str, *, enter: bool = True) -> None:
        """Type text, and Enter after it."""
        call(*self._tmux, "send-keys", "-t", self._name, "-l", text)
        if enter:
            self.keys("Enter")

    def screen(self) -> str:
        """What the screen shows, with what has scrolled away."""
        return call(*self._tmux, "capture-pane", "-p", "-J", "-S", "-", "-t", self._name)

    def styled_screen(self) -> Tuple[str, int, int]:
        """What the screen shows now, with the escape sequences of colours; column and row of the cursor."""
        place = call(*self._tmux, "display", "-p", "-t", self._name, "#{cursor_x} #{cursor_y}").split()
        return call(*self._tmux, "capture-pane", "-p", "-e", "-t", self._name), int(place[0]), int(place[1])

    def expect(self, pattern: str, *, timeout: float = 10) -> Match[str]:
        """Wait until a regular expression matches the screen; AssertionError with the screen after `timeout` s."""
        deadline = time.monotonic() + timeout
        while True:
            screen = self.screen()
            found = re.search(pattern, screen, re.MULTILINE)
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} on the screen after {timeout} s:\n{screen.rstrip()}")
            time.sleep(POLL_SECONDS)

    def wait(self, timeout: float = 10) -> int:
        """The program's exit status (-n: killed by signal n); AssertionError after `timeout` seconds."""
        asked = "#{pid} #{pane_dead}#{?pane_dead_signal, -#{pane_dead_signal},} #{pane_dead_status}"
        deadline = time.monotonic() + timeout
        while True:
            server, dead, *status = call(*self._tmux, "display", "-p", "-t", self._name, asked).split()
            if status:
                return int(status[0])
            if dead == "1":
                os.kill(int(server), signal.SIGCHLD)  # tmux 3.3 now and then misses it
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {timeout} s:\n{self.screen().rstrip()}")
            time.sleep(POLL_SECONDS)

    @property
    def pid(self) -> int:
        """The program's process id."""
        return int(call(*self._tmux, "display", "-p", "-t", self._name, "#{pane_pid}"))


class Port(NamedTuple):
    """One end of a cable."""

    namespace: str
    name: str
    address: str


class RawPort:
    """Any bytes in Ethernet frames through a port, past the stack under test; frames are padded as a card does."""

    def __init__(self, port: Port, ethertype: int) -> None:
        with inside(port.namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
        self._socket.bind((port.name, ethertype))

    def send(self, frame: bytes, *, padded: bool = True) -> None:
        """Send one frame, Ethernet header first."""
        self._socket.send(frame.ljust(PADDED_BYTES, b"\0") if padded else frame)

    def receive(self, timeout: float) -> Optional[bytes]:
        """The next frame that arrives within `timeout` seconds (own ones are not seen), or None."""
        deadline = time.monotonic() + timeout
        while True:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                frame, address = self._socket.recvfrom(65536 + 14)
            except socket.timeout:
                return None
            if address[2] != socket.PACKET_OUTGOING:  # type: ignore[attr-defined, unused-ignore]
                return frame

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def __enter__(self) -> "RawPort":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Host:
    """One machine of the lab: a namespace, its ports, and the programs in it."""

    def __init__(self, lab: "Lab", name: str) -> None:
        self.lab = lab
        self.name = name
        self.namespace = lab.prefix + name
        self.ports: List[Port] = []

    @property
    def interfaces(self) -> str:
        """All its interfaces as the scripts take them: eth0,eth1"""
        return ",".join(port.name for port in self.ports)

    @property
    def lo(self) -> Port:
        """Its loopback interface, which has no other end."""
        return Port(self.namespace, "lo", "00:00:00:00:00:00")

    def command(self, argv: Sequence[str]) -> List[str]:
        """The same command, run in this namespace (`ip netns exec` becomes the command: one process id)."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def run(self, *argv: str, feed: str = "") -> str:
        """Run a command to its end; its standard output, RuntimeError where it fails."""
        return call(*self.command(argv), feed=feed)

    def start(self, argv: Sequence[str], **options: Any) -> Program:
        """Start a program (options: see Program); the lab ends it at the latest."""
        program = Program(self.command(argv), **options)
        self.lab.programs.append(program)
        return program

    def terminal(self, argv: Sequence[str], *, columns: int = 100, rows: int = 30) -> Terminal:
        """Start a program on a terminal of its own."""
        name = f"{self.name}-{len(self.lab.terminals)}"
        self.lab.terminals.append(Terminal(self.lab.prefix, name, self.command(argv), columns=columns, rows=rows))
        return self.lab.terminals[-1]


class Lab:
    """Namespaces, cables and switches. A context manager: leaving it ends every program and deletes everything."""

    def __init__(self) -> None:
        remove_stale()
        taken = namespaces()
        letters = itertools.chain("abcdefghijklmnopqrstuvwxyz", map(str, itertools.count()))
        prefixes = (f"ax{os.getpid()}-{letter}-" for letter in letters)
        self.prefix = next(p for p in prefixes if not any(name.startswith(p) for name in taken))
        self.hosts: List[Host] = []
        self.programs: List[Program] = []
        self.terminals: List[Terminal] = []
        self.other_end: Dict[Port, Port] = {}

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the programs, delete the namespaces and with them every cable."""
        for program in self.programs:
            program.close()
        with contextlib.suppress(RuntimeError, FileNotFoundError):  # no server, or none any more; no tmux
            call("tmux", "-L", self.prefix, "kill-server")
        with contextlib.suppress(OSError):  # tmux leaves its socket behind
            os.unlink(os.path.join(os.environ.get("TMUX_TMPDIR", "/tmp"), f"tmux-{os.getuid()}", self.prefix))
        remove([host.namespace for host in self.hosts])
        self.hosts, self.programs, self.terminals = [], [], []

    # --- what there is -----------------------------------------------------------------------------------------------

    def host(self, name: str = "") -> Host:
        """A new machine with `lo` up and nothing else: n1, n2 ... where no name is given."""
        host = Host(self, name or f"n{len(self.hosts) + 1}")
        self.hosts.append(host)
        call("ip", "netns", "add", host.namespace)
        quiet = "for each in all default; do echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done"
        host.run("sh", "-c", f"if [ -d /proc/sys/net/ipv6/conf ]; then {quiet}; fi")
        call("ip", "-n", host.namespace, "link", "set", "lo", "up")
        return host

    def cable(self, left: Host, right: Host) -> None:
        """A veth pair between two hosts, both ends up."""
        ends = [self._new_port(left), self._new_port(right)]
        call("ip", "-n", ends[0].namespace, "link", "add", ends[0].name, "address", ends[0].address, "type", "veth",
             "peer", "name", ends[1].name, "address", ends[1].address, "netns", ends[1].namespace)  # fmt: skip
        for end, other in (ends, ends[::-1]):
            self.other_end[end] = other
            self.set_up(end, True)
        self._wait_for_carrier(ends)

    def _wait_for_carrier(self, ends: Sequence[Port]) -> None:
        """The kernel notices a cable a moment after it is plugged in."""
        deadline = time.monotonic() + CARRIER_SECONDS
        for end in ends:
            while " state UP " not in call("ip", "-n", end.namespace, "-o", "link", "show", "dev", end.name):
                assert time.monotonic() < deadline, f"no carrier on {end}"
                time.sleep(POLL_SECONDS)

    def _new_port(self, host: Host) -> Port:
        index = len(host.ports)
        number = self.hosts.index(host) + 1
        address = f"02:00:00:{index:02x}:{number >> 8:02x}:{number & 255:02x}"
        port = Port(host.namespace, f"eth{index}", address)
        host.ports.append(port)
        return port

    # --- topologies --------------------------------------------------------------------------------------------------

    def line(self, count: int) -> List[Host]:
        """n1 - n2 - ... : each but the ends has eth0 to the left and eth1 to the right."""
        hosts = [self.host() for _ in range(count)]
        for left, right in zip(hosts, hosts[1:]):
            self.cable(left, right)
        return hosts

    def ring(self, count: int = 5) -> List[Host]:
        """A line whose ends are joined."""
        hosts = self.line(count)
        self.cable(hosts[-1], hosts[0])
        return hosts

    def diamond(self) -> List[Host]:
        """n1 - n2 - n4 and n1 - n3 - n4."""
        hosts = [self.host() for _ in range(4)]
        for left, right in ((0, 1), (1, 3), (0, 2), (2, 3)):
            self.cable(hosts[left], hosts[right])
        return hosts

    def grid(self, columns: int, rows: int) -> List[Host]:
        """Row by row, each joined to its neighbours to the right and below."""
        hosts = [self.host() for _ in range(columns * rows)]
        for index, host in enumerate(hosts):
            if (index + 1) % columns:
                self.cable(host, hosts[index + 1])
            if index + columns < len(hosts):
                self.cable(host, hosts[index + columns])
        return hosts

    def bridge(self, count: int) -> List[Host]:
        """Hosts on one segment: a bridge in a namespace of its own, whose port eth<i> leads to the i-th host."""
        hosts = [self.host() for _ in range(count)]
        switch = self.host("switch")
        call("ip", "-n", switch.namespace, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        call("ip", "-n", switch.namespace, "link", "set", "bridge", "up")
        for host in hosts:
            self.cable(host, switch)
            call("ip", "-n", switch.namespace, "link", "set", switch.ports[-1].name, "master", "bridge")
        return hosts

    # --- faults ------------------------------------------------------------------------------------------------------

    def lose(self, port: Port, percent: float) -> None:
        """Drop so many per cent of what arrives at a port, at random (0: none)."""
        self._filter(port, f"numgen random mod 10000 < {round(percent * 100)} {LOSE}" if percent else "")

    def corrupt(self, port: Port, percent: float) -> None:
        """Overwrite one byte, 100 into the Ethernet frame, in so many per cent of what arrives at a port (0: none)."""
        self._filter(port, f"numgen random mod 10000 < {round(percent * 100)} @ll,800,8 set 0xa5" if percent else "")

    def police(self, port: Port, megabytes: int) -> None:
        """Drop what arrives at a port beyond so many MB a second: a slow path."""
        self._filter(port, f"limit rate over {megabytes} mbytes/second {LOSE}")

    def block(self, port: Port, *, inward: bool = True, outward: bool = True) -> None:
        """Cut silently, without a carrier event: what arrives at the port, what leaves it, or both."""
        if inward:
            self._filter(port, LOSE)
        if outward:
            self._filter(self.other_end[port], LOSE)

    def deafen(self, port: Port, sources: Sequence[Port]) -> None:
        """Lose what arrives at a port from these others (none: nothing)."""
        addresses = ", ".join(source.address for source in sources)
        self._filter(port, f"ether saddr {{ {addresses} }} {LOSE}" if sources else "")

    def unblock(self, port: Port) -> None:
        """Undo `block`, `lose` and `corrupt` on this cable."""
        self._filter(port, "")
        self._filter(self.other_end[port], "")

    def _filter(self, port: Port, rule: str) -> None:
        """The one rule of what arrives at a port, applied where the other end sends it.

        A packet socket of all EtherTypes sees what arrives before any filter does. And a filter that drops what is sent
        tells the sender; so what is to be lost goes out by an interface that is down.
        """
        end = self.other_end.get(port, port)  # `lo` has no other
        with contextlib.suppress(RuntimeError):  # it is there already
            call("ip", "-n", end.namespace, "tuntap", "add", SINK, "mode", "tap")
        chain = "netdev lab " + end.name
        commands = [
            "add table netdev lab",
            f'add chain {chain} {{ type filter hook egress device "{end.name}" priority 0; }}',
            "flush chain " + chain,
        ]
        if rule:
            commands.append(f"add rule {chain} {rule}")
        call("ip", "netns", "exec", end.namespace, "nft", "-f", "-", feed="\n".join(commands) + "\n")

    def set_mtu(self, port: Port, mtu: int) -> None:
        """Largest Ethernet payload that the port takes."""
        call("ip", "-n", port.namespace, "link", "set", port.name, "mtu", str(mtu))

    def set_up(self, port: Port, up: bool) -> None:
        """Raise or lower a port; the other end sees its carrier come or go."""
        call("ip", "-n", port.namespace, "link", "set", port.name, "up" if up else "down")


def namespaces() -> List[str]:
    """The names of the machine's network namespaces."""
    return sorted(os.listdir(NAMESPACES)) if os.path.isdir(NAMESPACES) else []


def remove(names: Sequence[str]) -> None:
    """End what still runs in namespaces of ours and delete them."""
    for name in names:
        with contextlib.suppress(RuntimeError):  # gone already
            for pid in call("ip", "netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            call("ip", "netns", "del", name)


def remove_stale() -> None:
    """Delete what a lab left behind that was killed; other people's namespaces stay."""
    owners = ((re.match(r"ax(\d+)-[a-z0-9]+-", name), name) for name in namespaces())
    remove([name for owner, name in owners if owner and not os.path.exists("/proc/" + owner.group(1))])


# --- the command -----------------------------------------------------------------------------------------------------


def build(lab: Lab, topology: str, size: str) -> List[Host]:
    """The hosts of a named topology. ValueError where the name or the size makes no sense."""
    if topology == "grid":
        columns, _, rows = size.partition("x")
        return lab.grid(int(columns), int(rows))
    if topology in ("pair", "diamond"):
        if size:
            raise ValueError(f"{topology} takes no size")
        return lab.line(2) if topology == "pair" else lab.diamond()
    return {"line": lab.line, "ring": lab.ring, "bridge": lab.bridge}[topology](int(size or 5))


def run_nodes(hosts: Sequence[Host]) -> None:
    """Run node.py on the hosts, each on all its interfaces and with its name."""
    for program in [host.start([sys.executable, "node.py", host.interfaces, "--name", host.name]) for host in hosts]:
        program.expect("^alexmesh: node", where="err")


def open_shells(lab: Lab, hosts: Sequence[Host]) -> int:
    """One tmux pane per host, each a shell in its namespace, and wait until the user leaves."""
    tmux = ["tmux", "-u", "-L", lab.prefix, "-f", "/dev/null"]
    shell = os.environ.get("SHELL", "/bin/sh")
    for index, host in enumerate(hosts):
        new = ["split-window"] if index else ["new-session", "-d", "-x", "160", "-y", "50"]
        prompt = f"echo 'this is {host.name} with {host.interfaces}'; exec {shell}"
        call(*tmux, *new, "-c", PROJECT, *host.command(["sh", "-c", prompt]))
        call(*tmux, "select-layout", "tiled")
    return subprocess.call([*tmux, "attach"])


def require(tool: str, package: str) -> None:
    """Leave with 2 and the next command where a program is not installed."""
    if shutil.which(tool) is None:
        print(f"lab.py: {tool} is not installed: sudo apt install -y {package}", file=sys.stderr)
        sys.exit(2)


def stop(number: int, _frame: object) -> NoReturn:
    """Signal handler: leave through every `finally`."""
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """The command line; the exit status of the command that it ran."""
    parser = argparse.ArgumentParser(prog="lab.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--relay", action="store_true", help="run node.py on all the other hosts")
    parser.add_argument("--on", metavar="HOST", default="n1", help="where the command runs, and no node.py (n1)")
    parser.add_argument("topology", choices=("pair", "line", "ring", "diamond", "grid", "bridge"))
    parser.add_argument("size", nargs="?", default="", help="number of hosts (5); a grid's is like 4x4")
    own = list(itertools.takewhile(lambda word: word != "--", arguments))
    command = arguments[len(own) + 1 :]
    options = parser.parse_args(own)
    if os.geteuid():
        parser.error("network namespaces need root: sudo python3 tests/frames/lab.py ...")
    require("ip", "iproute2")
    if not command:
        require("tmux", "tmux")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with Lab() as lab:
        try:
            hosts = build(lab, options.topology, options.size)
            host = {each.name: each for each in lab.hosts}[options.on]
        except (ValueError, KeyError):
            sizes = "a grid's size is like 4x4, that of a line, ring or bridge a number; pair and diamond have none"
            parser.error(f"no host {options.on} in {options.topology} {options.size}: {sizes}")
        if options.relay:
            run_nodes([each for each in hosts if each is not host])
        if not command:
            return open_shells(lab, hosts)
        try:
            return subprocess.call(host.command(command), cwd=PROJECT)
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
