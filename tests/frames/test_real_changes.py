"""Interfaces of every kind, and what happens to them while a node runs: a transfer and a chat go on (root, Linux)."""

import contextlib
import fcntl
import functools
import os
import re
import select
import struct
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest
from company import Company, current
from lab import Host, Lab, RawPort, inside
from test_real_frames import address_of, finish, lab as lab_fixture, one_line, start
from test_real_link import PlacedLink, frame, next_change, open_links, open_nodes, receive

from constants import HANDSHAKE_INTERVAL, MESH_MTU_MIN
from node import LinkChanged, Node

pytestmark = pytest.mark.root
lab = lab_fixture


@pytest.fixture(autouse=True)
def in_company(monkeypatch: pytest.MonkeyPatch) -> Company:
    """Let all nodes of this process go on while a test waits for one of them."""
    return Company(monkeypatch.setattr)


SECONDS = 10.0
AT_ONCE = 1.0  # a transfer that stood still is on its way again
NEW_ADDRESS = "02:00:00:00:77:77"
PATTERN = bytes(range(251)) * 400


def ip(host: Host, *words: str) -> None:
    host.run("ip", *words)


class Transfer:
    """Bytes that one node sends to another for as long as the test wants; each is compared on arrival."""

    def __init__(self, one: Node, two: Node) -> None:
        with two.listen(2) as listener:
            self._near = one.connect(two.address, 2, timeout=SECONDS)
            far = listener.accept(timeout=SECONDS)
        assert far is not None
        self._far = far
        self.received = 0
        self._is_over = False
        self.problem = ""
        self._works = [
            current().in_thread(functools.partial(self._guarded, work)) for work in (self._write, self._read)
        ]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, AssertionError) as error:
            self.problem = self.problem or repr(error)

    def _write(self) -> None:
        while not self._is_over:
            self._near.write(PATTERN)
        self._near.finish()

    def _read(self) -> None:
        for data in iter(lambda: self._far.read(1 << 16), b""):
            assert data is not None
            start = self.received % 251
            assert data == PATTERN[start : start + len(data)], f"other bytes at {self.received}"
            self.received += len(data)
        self._far.finish()

    def goes_on(self, seconds: float, size: int = 3_000_000) -> float:
        """Return after how many seconds more bytes have arrived than were under way; AssertionError if they do not."""
        began, goal = time.monotonic(), self.received + size
        while self.received < goal:
            assert not self.problem, self.problem
            assert time.monotonic() - began < seconds, f"{goal - self.received} of {size} bytes missing"
            time.sleep(0.01)
        return time.monotonic() - began

    def end(self) -> None:
        """Everything that was written has arrived."""
        self._is_over = True
        for work in self._works:
            work()
        assert not self.problem, self.problem
        assert self.received % len(PATTERN) == 0
        self._near.close()
        self._far.close()


@contextlib.contextmanager
def transfer(one: Node, two: Node) -> Iterator[Transfer]:
    running = Transfer(one, two)
    try:
        running.goes_on(SECONDS, 100_000)
        yield running
    finally:
        running.end()


def wait_for_mtu(node: Node, mtu: int) -> None:
    """Until the path to every other node has it."""
    deadline = time.monotonic() + SECONDS
    while {known.mtu for known in node.nodes()} != {mtu}:
        assert time.monotonic() < deadline, node.nodes()
        time.sleep(0.02)


def next_change_that(node: Node, wanted: str) -> LinkChanged:
    """The next change of an interface whose reason matches."""
    while True:
        change = next_change(node)
        if re.search(wanted, change.reason):
            return change


# --- What a socket is shown -------------------------------------------------------------------------------------------


def test_programs_of_one_card_hear_each_other_once_and_nobody_hears_himself(lab: Lab) -> None:
    left, right = lab.line(2)
    with open_links((left, "eth0"), (left, "eth0"), (right, "eth0")) as (one, two, far):
        one.send(frame(one, b"to all"))
        one.send(frame(one, b"to the far end", destination=far.mac))
        one.send(frame(one, b"to this card", destination=one.mac))
        one.send(frame(one, b"foreign", ethertype=0x88B6))
        one.send(frame(one, b"the end"))
        assert receive(two, 3) == [b"to all", b"to this card", b"the end"]
        assert receive(far, 4) == [b"to all", b"to the far end", b"to this card", b"the end"]
        two.send(frame(two, b"back"))
        assert receive(one) == [b"back"]
        assert one.receive() == two.receive() == []


def test_on_lo_everybody_hears_everything_once(lab: Lab) -> None:
    host = lab.host()
    with open_links((host, "lo"), (host, "lo")) as (one, two):
        for text in (b"1", b"2", b"3"):
            one.send(frame(one, text))
        for link in (one, two):
            assert receive(link, 3) == [b"1", b"2", b"3"]
            assert link.receive() == []


def tagged(source: bytes, kind: int, tag: int, text: bytes) -> bytes:
    ends = b"\xff" * 6 + source
    return ends + kind.to_bytes(2, "big") + tag.to_bytes(2, "big") + bytes.fromhex("88b5") + text.ljust(46, b"\0")


def test_frames_of_another_vlan_are_not_ours_but_priorities_are(lab: Lab) -> None:
    left, right = lab.line(2)
    with open_links((right, "eth0")) as (link,), RawPort(left.ports[0], 0) as port:
        for kind, tag, text in (
            (0x8100, 5, b"VLAN 5"),
            (0x8100, 0x6000, b"priority 3"),
            (0x88A8, 5, b"provider's VLAN 5"),
            (0x8100, 0xEFFF, b"VLAN 4095, priority 7"),
            (0x8100, 0xF000, b"priority 7, may be dropped"),
        ):
            port.send(tagged(bytes.fromhex("020000000077"), kind, tag, text))
        port.send(frame(link, b"untagged"), padded=True)
        texts = [text.rstrip(b"\0") for text in receive(link, 3)]
        assert texts == [b"priority 3", b"priority 7, may be dropped", b"untagged"]


def test_a_new_address_of_the_card_is_what_its_programs_reach_it_by(lab: Lab) -> None:
    left, _ = lab.line(2)
    with open_links((left, "eth0"), (left, "eth0")) as (one, two):
        old = one.mac
        ip(left, "link", "set", "eth0", "address", NEW_ADDRESS)
        with inside(left.namespace):
            assert two.refresh()
        assert two.mac == bytes.fromhex(NEW_ADDRESS.replace(":", ""))
        one.send(frame(one, b"to the old one", destination=old))
        one.send(frame(one, b"to the new one", destination=two.mac))
        assert receive(two) == [b"to the new one"]


def test_programs_on_one_card_talk(lab: Lab) -> None:
    """As they do on `lo`, and with those at the other end of the cable."""
    left, right = lab.line(2)
    with open_nodes((left, "eth0"), (left, "eth0"), (right, "eth0")) as (one, two, far):
        assert one.address == bytes.fromhex(left.ports[0].address.replace(":", ""))
        assert two.address[0] == 2
        assert two.address != one.address
        for here, there in ((one, two), (two, one), (far, one), (far, two), (two, far)):
            here.send_message(there.address, "good day", timeout=SECONDS)
        with transfer(one, two):
            pass


# --- Kinds of interfaces ----------------------------------------------------------------------------------------------


def make_bridge(left: Host, right: Host) -> None:
    ip(right, "link", "add", "br0", "address", "02:00:00:00:00:aa", "type", "bridge")
    ip(right, "link", "set", "eth0", "master", "br0")
    ip(right, "link", "set", "br0", "up")


def make_macvlan(mode: str) -> Callable[[Host, Host], None]:
    def make(left: Host, right: Host) -> None:
        ip(right, "link", "add", "link", "eth0", "name", "mv0", "type", "macvlan", "mode", mode)
        if mode == "source":
            ip(right, "link", "set", "mv0", "type", "macvlan", "macaddr", "add", left.ports[0].address)
        ip(right, "link", "set", "mv0", "up")

    return make


def make_vxlan(left: Host, right: Host) -> None:
    for host, own, other in ((left, "10.0.0.1", "10.0.0.2"), (right, "10.0.0.2", "10.0.0.1")):
        ip(host, "address", "add", own + "/24", "dev", "eth0")
        tunnel = ["type", "vxlan", "id", "5", "dstport", "4789", "local", own, "remote", other]
        ip(host, "link", "add", "vx0", *tunnel)
        ip(host, "link", "set", "vx0", "up")


KINDS: Dict[str, Any] = {
    "bridge": (make_bridge, "eth0", "br0"),
    "vxlan": (make_vxlan, "vx0", "vx0"),
    **{
        f"macvlan {mode}": (make_macvlan(mode), "eth0", "mv0")
        for mode in ("bridge", "private", "vepa", "passthru", "source")
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_interface_carries_messages_and_streams(lab: Lab, kind: str) -> None:
    left, right = lab.line(2)
    make, near, far = KINDS[kind]
    make(left, right)
    with open_nodes((left, near), (right, far)) as (one, two):
        one.send_message(two.address, "good day", timeout=SECONDS)
        with transfer(two, one):
            pass


def test_taps_carry_messages_and_streams(lab: Lab) -> None:
    """What one program writes into its tap is what a node on that interface receives: a cable made of a thread."""
    set_interface, is_tap_without_header = 0x400454CA, 0x1002  # TUNSETIFF, IFF_TAP | IFF_NO_PI
    hosts = [lab.host(), lab.host()]
    with contextlib.ExitStack() as stack:
        ends: List[int] = []
        for host in hosts:
            with inside(host.namespace):
                ends.append(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
                stack.callback(os.close, ends[-1])
                fcntl.ioctl(ends[-1], set_interface, struct.pack("16sH22x", b"tap0", is_tap_without_header))
            ip(host, "link", "set", "tap0", "up")
        stop = threading.Event()

        def carry() -> None:
            while not stop.is_set():
                for end in select.select(ends, [], [], 0.1)[0]:
                    with contextlib.suppress(BlockingIOError):
                        os.write(ends[end == ends[0]], os.read(end, 0x10000))

        cable = threading.Thread(target=carry)
        cable.start()
        stack.callback(cable.join)
        stack.callback(stop.set)
        with open_nodes((hosts[0], "tap0"), (hosts[1], "tap0")) as (one, two):
            one.send_message(two.address, "good day", timeout=SECONDS)
            with transfer(one, two):
                pass


def refusal(host: Host, interface: str) -> str:
    """The one line of a program that does not start."""
    program = finish(host, "node.py", interface, status=2)
    return one_line(program)


def test_what_cannot_be_used_is_said_with_the_next_command(lab: Lab) -> None:
    left, right = lab.line(2)
    make_bridge(left, right)
    assert refusal(right, "eth0").endswith("eth0 is a port of br0: use br0")
    ip(left, "link", "set", "eth0", "mtu", "127")
    line = "eth0: MTU 127 is too small: sudo ip link set eth0 mtu 128 or more"
    assert refusal(left, "eth0").endswith(line)
    ip(left, "link", "add", "v\x1b[0m", "type", "veth", "peer", "name", "v$(id)")
    shown = refusal(left, "v\x1b[0m")
    assert shown.endswith("$'v\\033[0m' is down: sudo ip link set $'v\\033[0m' up")
    left.run("bash", "-c", shown.split("sudo ")[1])  # as a user would paste it
    left.run("bash", "-c", refusal(left, "v$(id)").split("sudo ")[1])
    assert left.run("ip", "-o", "link").count(",UP,") == 4
    left.run("bash", "-c", "ip link set 'v$(id)' down; ip link set 'v$(id)' name $'v\\377'; ip link set $'v\\377' up")
    program = finish(left, "node.py", os.fsdecode(b"v\xff"), status=2)
    line = r"\$'v\\377' cannot be opened, its name is not UTF-8: sudo (ip link set \$'v\\377' name lan\d+)$"
    (command,) = re.findall(line, one_line(program))
    left.run("bash", "-c", command)
    assert "lan" in left.run("ip", "-o", "link")
    finish(left, "send_handshake.py", "lo", "--wait", "0.1", status=1)  # others start beside such a name


def test_an_interface_name_reaches_the_terminal_and_commands_safely(lab: Lab) -> None:
    host = lab.host()
    ip(host, "link", "add", "v\x1b[0m", "type", "veth", "peer", "name", "v$(id)")
    for name in ("v\x1b[0m", "v$(id)"):
        ip(host, "link", "set", name, "up")
    one = start(host, "alexchat_server.py", "v\x1b[0m", "-v")
    one.expect(r"reach it with: \S+ alexchat_client.py \$'v\\033\[0m' 02|[0-9a-f:]{17}", where="err")
    two = start(host, "alexchat_server.py", "v$(id)", "-v")
    two.expect(r"reach it with: \S+ alexchat_client.py 'v\$\(id\)' ", where="err")
    ip(host, "link", "set", "v$(id)", "down")
    two.expect(r"^alexmesh: |^v\$\(id\): Network is down$", where="err")
    for program in (one, two):
        assert "\x1b" not in program.err


@pytest.mark.parametrize("name", ["short", "enp0s31f6np0d1v23-of-the-second-board"])
def test_an_altname_is_as_good_as_the_name(lab: Lab, name: str) -> None:
    left, right = lab.line(2)
    ip(right, "link", "property", "add", "dev", "eth0", "altname", name)
    program = start(right, "node.py", f"eth0,{name}")
    program.expect(" on eth0$", where="err")
    finish(left, "send_message.py", "eth0", address_of(program), "hello")
    program.expect("hello$")


# --- Changes under a running node -------------------------------------------------------------------------------------


def change_mtu(left: Host, right: Host) -> None:
    ip(right, "link", "set", "eth0", "mtu", "576")


def change_address(left: Host, right: Host) -> None:
    ip(right, "link", "set", "eth0", "address", NEW_ADDRESS)


def rename(left: Host, right: Host) -> None:
    ip(right, "link", "set", "eth0", "name", "wan0")


def rename_and_plug_anew(left: Host, right: Host) -> None:
    rename(left, right)
    ip(right, "link", "set", "wan0", "down")
    ip(right, "link", "set", "wan0", "up")


def recreate(left: Host, right: Host) -> None:
    ip(right, "link", "delete", "eth0")
    ip(right, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", left.namespace)
    for host in (left, right):
        ip(host, "link", "set", "eth0", "address", host.ports[0].address, "up")


CHANGES: Dict[str, Any] = {
    "smaller MTU": (change_mtu, None),
    "new address": (change_address, "new Ethernet address " + NEW_ADDRESS),
    "another name": (rename, "eth0 is called so now"),
    "another name, then down and up": (rename_and_plug_anew, "works again"),
    "removed and created anew": (recreate, "works again"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("direction", ["to it", "from it"])
def test_a_transfer_survives(lab: Lab, change: str, direction: str) -> None:
    left, right = lab.line(2)
    happen, said = CHANGES[change]
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two):
        address = two.address
        with transfer(*((one, two) if direction == "to it" else (two, one))) as running:
            happen(left, right)
            running.goes_on(SECONDS)
            if said:
                assert next_change_that(two, said).name == ("wan0" if "name" in change else "eth0")
            one.send_message(two.address, "still there", timeout=SECONDS)
        assert two.address == address
        assert two.now() - min(n.last_heard for n in one.neighbours()) < 2 * HANDSHAKE_INTERVAL


@pytest.mark.parametrize("direction", ["to it", "from it"])
def test_a_card_that_takes_only_frames_for_it_gets_another_address(lab: Lab, direction: str) -> None:
    """A veth takes all; a macvlan, as a real card, takes nothing for its former address, and others send there yet."""
    left, right = lab.line(2)
    make_macvlan("bridge")(left, right)
    with open_nodes((left, "eth0"), (right, "mv0")) as (one, two):
        with transfer(*((one, two) if direction == "to it" else (two, one))) as running:
            ip(right, "link", "set", "mv0", "address", NEW_ADDRESS)
            running.goes_on(SECONDS)
        assert [neighbour.mac.hex() for neighbour in one.neighbours()] == [NEW_ADDRESS.replace(":", "")]


@pytest.mark.parametrize("change", CHANGES)
def test_a_chat_survives(lab: Lab, change: str) -> None:
    left, right = lab.line(2)
    happen, said = CHANGES[change]
    server = start(right, "alexchat_server.py", "eth0", "--name", "bob", "-v")
    client = start(left, "alexchat_client.py", "eth0", "--name", "ann")
    client.send("before\n")
    server.expect("^ann: before$")
    happen(left, right)
    client.send("after\n")
    server.expect("^ann: after$", timeout=20)
    server.send("good\n")
    client.expect("^bob: good$", timeout=20)
    if said:
        server.expect(said, where="err")


@pytest.mark.parametrize("sizes", ["1500 576 1500", "1500 1400 1500", "9000 1500 9000", "9000 576 9000"])
@pytest.mark.parametrize("direction", ["to it", "from it"])
def test_an_mtu_that_changes_in_mid_transfer(lab: Lab, sizes: str, direction: str) -> None:
    """At one end only: the other one is told within a second, with no help from an error of its own."""
    left, right = lab.line(2)
    whole, less, again = sizes.split()
    for host in (left, right):
        ip(host, "link", "set", "eth0", "mtu", whole)
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two):
        for node in (one, two):
            wait_for_mtu(node, int(whole))
        with transfer(*((one, two) if direction == "to it" else (two, one))) as running:
            for mtu in (less, again):
                ip(right, "link", "set", "eth0", "mtu", mtu)
                running.goes_on(3 * AT_ONCE)  # 0.1 s where the processors are not wanted by others
        wait_for_mtu(one, int(again))


def test_ends_with_large_frames_and_a_switch_without(lab: Lab) -> None:
    """The switch's veth answers to a large frame as if its queue were full."""
    left, right = lab.bridge(2)
    for host in (left, right):
        ip(host, "link", "set", "eth0", "mtu", "9000")
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two):
        one.send_message(two.address, "good day", timeout=SECONDS)
        with transfer(one, two) as running:
            running.goes_on(SECONDS)
            wait_for_mtu(one, 1500)
            assert one.drops["send: refused size"] >= 1


def test_a_switch_that_loses_its_large_frames_in_mid_transfer(lab: Lab) -> None:
    left, right = lab.bridge(2)
    switch = lab.hosts[-1]
    for host, port in ((left, "eth0"), (right, "eth0"), (switch, "eth0"), (switch, "eth1"), (switch, "bridge")):
        ip(host, "link", "set", port, "mtu", "9000")
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two):
        for node in (one, two):  # a stream keeps the size that both ends knew when it was opened
            wait_for_mtu(node, 9000)
        with transfer(one, two) as running:
            for port in ("eth0", "eth1", "bridge"):
                ip(switch, "link", "set", port, "mtu", "1500")
            wait_for_mtu(one, 1500)
            running.goes_on(3 * AT_ONCE)


def test_the_least_mtu_carries_a_stream_and_less_is_told(lab: Lab) -> None:
    left, right = lab.line(2)
    for host in (left, right):
        ip(host, "link", "set", "eth0", "mtu", str(MESH_MTU_MIN))
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two), transfer(one, two) as running:
        ip(right, "link", "set", "eth0", "mtu", "100")
        change = next_change(two)
        assert (change.up, change.reason[:24]) == (False, "MTU 100 is too small: su")
        ip(right, "link", "set", "eth0", "mtu", "128")
        assert next_change_that(two, "works again").up
        running.goes_on(SECONDS, 100_000)


def test_a_node_that_may_not_claim_goes_on_with_a_new_address(lab: Lab) -> None:
    """Who gave up root has no slot there, and keeps that of the first address."""

    class Unprivileged(PlacedLink):
        def claim(self) -> Any:
            if self.mac == bytes.fromhex(NEW_ADDRESS.replace(":", "")):
                return None
            return super().claim()

    left, right = lab.line(2)
    with open_nodes((left, "eth0")) as (one,), Node([Unprivileged(right, "eth0")]) as two, transfer(
        one, two
    ) as running:
        change_address(left, right)
        assert next_change_that(two, "new Ethernet address").up
        running.goes_on(SECONDS)


def test_a_cable_pulled_out_is_told_at_once(lab: Lab) -> None:
    """By the carrier, not by a frame that could not be sent."""
    left, right = lab.line(2)
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two):
        one.send_message(two.address, "good day", timeout=SECONDS)
        began = time.monotonic()
        lab.set_up(right.ports[0], False)
        assert next_change(one) == LinkChanged("eth0", False, "no carrier")
        lab.set_up(right.ports[0], True)
        assert next_change(one).up
        assert time.monotonic() - began < HANDSHAKE_INTERVAL / 2
        one.send_message(two.address, "good day", timeout=SECONDS)


def test_a_program_with_more_than_1024_open_files_embeds_a_node(lab: Lab) -> None:
    body = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = [open("/dev/null") for _ in range(1100)]
sys.path.append("tests")
import paths
from company import Company, current
from node import EthernetLink, Node
Company(setattr)
with Node([EthernetLink("lo")]) as one, Node([EthernetLink("lo")]) as two:
    reading, writing = os.pipe()
    one.send_message(two.address, "good day", timeout=10)
    os.write(writing, b"x")
    print(min(one.links[0].fileno(), reading) > 1024, one.wait(reading, timeout=10) == [reading])
"""
    program = lab.host().start([sys.executable, "-c", body])
    assert (program.wait(20), program.out) == (0, "True True\n"), str(program)
