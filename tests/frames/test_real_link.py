"""The link to real Ethernet and nodes on it: veth pairs and `lo` in namespaces of the test's own (root, Linux)."""

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
from typing import Any, Iterator, List, Optional, Tuple

import pytest
from company import Company, current
from lab import LOSE, Host, Lab, inside

import node as node_module
from constants import ETHERTYPE, NO_SLOT, SOCKET_BUFFER_BYTES
from node import EthernetLink, LinkChanged, Node, SetupError, bpf_filter

pytestmark = pytest.mark.root

SECONDS = 10.0
BROADCAST = b"\xff" * 6
READY = sys.platform.startswith("linux") and os.geteuid() == 0 and shutil.which("ip") is not None


@pytest.fixture(autouse=True)
def in_company(monkeypatch: pytest.MonkeyPatch) -> Company:
    """Let all nodes of this process go on while a test waits for one of them."""
    return Company(monkeypatch.setattr)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab."""
    if not READY and os.environ.get("ALEXCHAT_ROOT_TESTS") != "required":
        pytest.skip("network namespaces need Linux, root and ip")
    with Lab() as lab:
        yield lab


@pytest.fixture(params=["native", "libpcap"])
def driver(request: Any) -> Iterator[str]:
    """Which of scapy's sockets is used."""
    from scapy.config import conf

    if request.param == "native":
        yield request.param
        return
    try:
        conf.use_pcap = True
    except Exception as error:  # noqa: BLE001  scapy raises what it likes
        pytest.skip(f"no libpcap: {error}")
    if "pcap" not in conf.L2socket.__name__:
        pytest.skip("no libpcap")
    yield request.param
    conf.use_pcap = False


@contextlib.contextmanager
def open_links(*places: Tuple[Host, str]) -> Iterator[List[EthernetLink]]:
    """Links in the namespaces of those hosts."""
    links = []
    try:
        for host, name in places:
            with inside(host.namespace):
                links.append(EthernetLink(name))
        yield links
    finally:
        for link in links:
            link.close()


class PlacedLink(EthernetLink):
    """A link that stays in the namespace of its host, whichever thread drives the node."""

    def __init__(self, host: Host, name: str) -> None:
        self._namespace = host.namespace
        with inside(self._namespace):
            super().__init__(name)

    def claim(self) -> Optional[int]:
        with inside(self._namespace):
            return super().claim()

    def refresh(self) -> bool:
        with inside(self._namespace):
            return super().refresh()

    def reopen(self) -> None:
        with inside(self._namespace):
            super().reopen()


@contextlib.contextmanager
def open_nodes(*places: Tuple[Host, str]) -> Iterator[List[Node]]:
    """Running nodes."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Node([PlacedLink(host, name)], name=host.name)) for host, name in places]


def frame(link: EthernetLink, text: bytes, *, destination: bytes = BROADCAST, ethertype: int = ETHERTYPE) -> bytes:
    return destination + link.mac + ethertype.to_bytes(2, "big") + text


def receive(link: EthernetLink, count: int = 1) -> List[bytes]:
    """The payloads of the next frames."""
    frames: List[bytes] = []
    deadline = time.monotonic() + SECONDS
    while len(frames) < count:
        assert select.select([link], [], [], deadline - time.monotonic())[0], "nothing arrived"
        frames += link.receive()
    return [one[14:] for one in frames]


def next_change(node: Node) -> LinkChanged:
    while True:
        event = node.next_event(timeout=SECONDS)
        assert event is not None, "no change"
        if isinstance(event, LinkChanged):
            return event


# --- The link -------------------------------------------------------------------------------------------------------


def test_frames_cross_a_cable_and_only_ours_are_heard(lab: Lab, driver: str) -> None:
    left, right = lab.line(2)
    with open_links((left, "eth0"), (right, "eth0")) as (one, two):
        assert (one.name, one.mtu, one.loopback) == ("eth0", 1500, False)
        assert one.mac != two.mac
        assert one.receive() == []
        one.send(frame(one, b"foreign", ethertype=0x88B6))
        one.send(frame(one, b"to all"))
        one.send(frame(one, b"to one", destination=two.mac))
        one.send(frame(one, b"x" * 1500))
        assert receive(two, 3) == [b"to all", b"to one", b"x" * 1500]
        two.send(frame(two, b"back"))
        assert receive(one) == [b"back"]  # and not its own


def test_everybody_on_lo_hears_everything(lab: Lab) -> None:
    host = lab.host()
    with open_links((host, "lo"), (host, "lo")) as (one, two):
        assert (one.mac, one.mtu, one.loopback) == (bytes(6), 0xFFFF, True)
        one.send(frame(one, b"x" * 0xFFFF))
        assert receive(two) == receive(one) == [b"x" * 0xFFFF]


def test_a_frame_too_long_is_refused_and_the_mtu_read_again(lab: Lab, driver: str) -> None:
    left, _ = lab.line(2)
    with inside(left.namespace), open_links((left, "eth0")) as (link,):
        left.run("ip", "link", "set", "eth0", "mtu", "900")
        assert link.mtu == 1500
        with pytest.raises(OSError) as caught:  # noqa: PT011  its number tells
            link.send(frame(link, b"x" * 1500))
        assert caught.value.errno == errno.EMSGSIZE
        assert link.refresh()
        assert link.mtu == 900
        left.run("ip", "link", "set", "eth0", "down")
        with pytest.raises(OSError, match="Network is down"):
            link.refresh()


def test_the_card_stays_unpromiscuous_and_its_buffers_are_large(lab: Lab) -> None:
    left, _ = lab.line(2)
    with open_links((left, "eth0")) as (link,):
        assert "PROMISC" not in left.run("ip", "link", "show", "eth0")
        port = socket.socket(fileno=os.dup(link.fileno()))
        assert port.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= SOCKET_BUFFER_BYTES
        port.close()
        assert not os.get_blocking(link.fileno())


def test_programs_of_one_card_have_a_slot_each(lab: Lab, tmp_path: Any, monkeypatch: Any) -> None:
    """Slot 0 is the right to use the card's address."""
    left, right = lab.line(2)
    right.run("ip", "link", "set", "eth0", "address", left.ports[0].address)
    run_directory = tmp_path / "run"
    monkeypatch.setattr(node_module, "_RUN_DIRECTORY", str(run_directory))

    def lock_files() -> List[str]:
        return sorted(path.name for path in run_directory.iterdir() if path.name != "claiming")

    places = [*[(left, "eth0")] * (NO_SLOT + 2), (right, "eth0"), (left, "lo")]
    with open_links(*places) as (*links, elsewhere, lo):
        with inside(left.namespace):
            assert [link.claim() for link in links] == [*range(NO_SLOT), NO_SLOT, NO_SLOT]
            assert [link.claim() for link in links] == [*range(NO_SLOT), NO_SLOT, NO_SLOT]
            assert lo.claim() == NO_SLOT
            assert len(lock_files()) == NO_SLOT
            links[3].close()
            assert len(lock_files()) == NO_SLOT - 1
            with open_links((left, "eth0")) as (late,):
                assert late.claim() == 3
        with inside(right.namespace):
            assert elsewhere.claim() == 0  # the same address in another namespace is another card
        assert (run_directory.stat().st_mode & 0o777) == 0o755
        assert {path.stat().st_mode & 0o777 for path in run_directory.iterdir()} == {0o600}
    assert lock_files() == []
    run_directory.chmod(0o777)
    with open_links((left, "eth0")) as (link,), inside(left.namespace):
        assert link.claim() is None


def test_lock_files_of_dead_programs_go_and_those_of_live_ones_stay(lab: Lab, tmp_path: Any, monkeypatch: Any) -> None:
    """Killed, or without the right to remove it: whoever claims next does."""
    left, _ = lab.line(2)
    monkeypatch.setattr(node_module, "_RUN_DIRECTORY", str(tmp_path))
    body = f"import node, time; node._RUN_DIRECTORY = {str(tmp_path)!r}; print(node.EthernetLink('eth0').claim())"
    program = left.start([sys.executable, "-c", body + "; time.sleep(60)"])
    program.expect("^0$")
    for number in range(300):
        (tmp_path / f"{number}-02000000{number:04x}.lock").touch()
    with open_links((left, "eth0"), (left, "eth0")) as (one, two), inside(left.namespace):
        assert one.claim() == 1
        assert len(list(tmp_path.glob("*.lock"))) == 2
        program.signal(signal.SIGKILL)
        program.wait()
        assert two.claim() == 0
        assert len(list(tmp_path.glob("*.lock"))) == 2


def test_programs_that_start_at_once_have_different_slots(lab: Lab, tmp_path: Any) -> None:
    left, _ = lab.line(2)
    body = f"import node, time; node._RUN_DIRECTORY = {str(tmp_path)!r}; print(node.EthernetLink('eth0').claim())"
    programs = [left.start([sys.executable, "-c", body + "; time.sleep(60)"]) for _ in range(NO_SLOT)]
    slots = [int(program.expect("^[0-9]$", timeout=20).group()) for program in programs]
    assert sorted(slots) == list(range(NO_SLOT))


def test_the_filter_of_a_bpf_device_takes_what_is_for_this_card_and_nothing_else(lab: Lab) -> None:
    """The program is the same on Linux."""
    from scapy.libs.structures import bpf_insn, sock_fprog

    left, right = lab.line(2)
    lines = bpf_filter(bytes.fromhex(right.ports[0].address.replace(":", "")))
    program = (bpf_insn * len(lines))(*(bpf_insn(*line) for line in lines))
    with inside(right.namespace):
        everything = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        everything.bind(("eth0", 3))
    with everything, open_links((left, "eth0")) as (link,):
        attach_filter = 26
        everything.setsockopt(socket.SOL_SOCKET, attach_filter, bytes(sock_fprog(len(program), program)))
        everything.settimeout(SECONDS)
        own = bytes.fromhex(right.ports[0].address.replace(":", ""))
        other, group = b"\2\0\0\0\0\x77", b"\3\0\0\0\0\1"
        for number, dest in enumerate((own, other, BROADCAST, group, other, own)):
            link.send(dest + link.mac + b"\x88\xb5" + bytes([number]) * 46)
            link.send(dest + link.mac + b"\x88\xb6foreign".ljust(48))
        assert [everything.recv(2000)[14] for _ in range(4)] == [0, 2, 3, 5]


def test_faults_of_the_lab_reach_a_socket_that_sees_frames_before_every_filter(lab: Lab) -> None:
    """And the sender is not told."""
    left, right = lab.line(2)
    with open_links((left, "eth0"), (right, "eth0")) as (one, two):

        def arrive(count: int) -> List[bytes]:
            for _ in range(count):
                one.send(frame(one, b"x" * 200))
            one.send(frame(one, b"short"))
            frames = [b""]
            while frames[-1] != b"short":
                frames += receive(two)
            return frames[1:-1]

        assert arrive(500) == [b"x" * 200] * 500
        lab.corrupt(right.ports[0], 50)
        frames = arrive(500)
        assert len(frames) == 500
        assert 150 < frames.count(b"x" * 86 + b"\xa5" + b"x" * 113) < 350
        lab._filter(right.ports[0], "@ll,272,8 != 0 " + LOSE)  # the short one is not that long
        assert arrive(100) == []
        lab.unblock(right.ports[0])
        assert len(arrive(100)) == 100


# --- Nodes on it ----------------------------------------------------------------------------------------------------


def transfer(one: Node, two: Node, data: bytes) -> None:
    """Send `data` from one to the other and back."""
    with two.listen(2) as listener:
        near = one.connect(two.address, 2, timeout=SECONDS)
        far = listener.accept(timeout=SECONDS)
    assert far is not None
    half = len(data) // 2
    for start, stop in ((0, half), (half, len(data))):
        near.setblocking(False)
        sent, received = start, b""
        while len(received) < stop - start:
            sent += near.write(data[sent:stop]) or 0
            received += far.read(1 << 20) or b""
        assert received == data[start:stop]
    near.setblocking(True)
    near.finish()
    assert far.read() == b""
    far.close()
    near.close()


@pytest.mark.parametrize("where", ["cable", "lo"])
def test_nodes_talk(lab: Lab, driver: str, where: str) -> None:
    left, right = lab.line(2)
    places = [(left, "eth0"), (right, "eth0")] if where == "cable" else [(left, "lo"), (left, "lo")]
    with open_nodes(*places) as (one, two):
        if where == "cable":
            assert one.address == bytes.fromhex(left.ports[0].address.replace(":", ""))
        else:
            assert one.address[0] == two.address[0] == 2
        assert one.send_message(two.address, "good day", timeout=SECONDS) < SECONDS
        (found,) = one.discover(0.8)
        assert found.address == two.address
        transfer(one, two, os.urandom(100_000))


def test_an_interface_that_goes_down_and_comes_back(lab: Lab) -> None:
    left, right = lab.line(2)
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two):
        transfer(one, two, b"before")
        lab.set_up(left.ports[0], False)
        assert next_change(one) == LinkChanged("eth0", False, os.strerror(errno.ENETDOWN))
        lab.set_up(left.ports[0], True)
        assert next_change(one).up
        transfer(one, two, b"after")


def test_an_interface_that_is_taken_away_and_brought_back(lab: Lab) -> None:
    left, right = lab.line(2)
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two):
        transfer(one, two, b"before")
        left.run("ip", "link", "delete", "eth0")
        assert not next_change(one).up
        assert not next_change(two).up
        left.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right.namespace)
        for host in (left, right):
            host.run("ip", "link", "set", "eth0", "address", host.ports[0].address, "up")
        assert next_change(one).up
        assert next_change(two).up
        transfer(one, two, b"after")


def test_a_cable_that_is_pulled_out_and_put_back_in_mid_stream(lab: Lab) -> None:
    left, right = lab.line(2)
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two), two.listen(2) as listener:
        near = one.connect(two.address, 2, timeout=SECONDS)
        far = listener.accept(timeout=SECONDS)
        assert far is not None
        lab.set_up(right.ports[0], False)
        near.write(b"x" * 100_000)
        deadline = time.monotonic() + SECONDS
        while not near.stalled:
            assert time.monotonic() < deadline
            one.wait(timeout=1)
        lab.set_up(right.ports[0], True)
        started = time.monotonic()
        near.drain(SECONDS)
        assert time.monotonic() - started < 3
        near.finish()
        assert far.read() == b"x" * 100_000
        far.close()
        near.close()


def test_a_card_whose_address_changes_in_mid_stream(lab: Lab) -> None:
    """A node's address is not its card's, once it has one."""
    left, right = lab.line(2)
    with open_nodes((left, "eth0"), (right, "eth0")) as (one, two), two.listen(2) as listener:
        near = one.connect(two.address, 2, timeout=SECONDS)
        far = listener.accept(timeout=SECONDS)
        assert far is not None
        near.write(b"x" * 100_000)
        right.run("ip", "link", "set", "eth0", "address", "02:00:00:00:77:77")
        near.write(b"y" * 100_000)
        near.drain(SECONDS)
        near.finish()
        assert far.read() == b"x" * 100_000 + b"y" * 100_000
        far.close()
        near.close()


def test_what_the_card_drops_is_all_that_is_lost(lab: Lab) -> None:
    """14.9: frames sent = frames read + the kernel's own count of those that found the buffer full."""
    packet_statistics = struct.Struct("=II")  # of linux/if_packet.h: packets with the dropped ones, drops
    left, right = lab.line(2)
    with open_links((left, "eth0"), (right, "eth0")) as (one, two):
        port = socket.socket(fileno=os.dup(two.fileno()))
        port.setsockopt(socket.SOL_SOCKET, 33, 65536)  # SO_RCVBUFFORCE: a small one is full sooner
        count = 500
        for number in range(count):
            one.send(frame(one, number.to_bytes(4, "big") + bytes(1400)))
        got = []
        while select.select([two], [], [], 0.2)[0]:
            got += [int.from_bytes(one[14:18], "big") for one in two.receive()]
        seen, dropped = packet_statistics.unpack(port.getsockopt(263, 6, packet_statistics.size))  # SOL_PACKET
        port.close()
    assert got == sorted(set(got))
    assert dropped > 0
    assert (seen, len(got)) == (count, count - dropped)


# --- What keeps a program from starting -----------------------------------------------------------------------------


def refused(host: Host, name: str) -> str:
    with inside(host.namespace), pytest.raises(SetupError) as caught:
        EthernetLink(name)
    return str(caught.value)


def test_interfaces_that_cannot_be_used_are_named_with_the_next_command(lab: Lab) -> None:
    left, _ = lab.line(2)
    left.run("ip", "link", "set", "eth0", "down")
    left.run("ip", "tuntap", "add", "tun0", "mode", "tun")
    assert refused(left, "eth0") == "eth0 is down: sudo ip link set eth0 up"
    assert refused(left, "eth1") == "there is no interface 'eth1' here, but: lo eth0 tun0"
    assert refused(left, "tun0") == "tun0 is not Ethernet; the interfaces here are: lo eth0"


@pytest.mark.parametrize("kind", ["Scapy_Exception", "ValueError"])
def test_what_scapy_raises_at_opening_is_said_in_one_line(lab: Lab, kind: str, monkeypatch: Any) -> None:
    """ValueError: the interface has gone since it was looked at."""
    import scapy.error
    from scapy.config import conf

    def raise_it(**_: Any) -> None:
        raise getattr(scapy.error, kind, ValueError)("no such thing")

    host = lab.line(2)[0]
    monkeypatch.setattr(conf, "L2socket", raise_it)
    assert refused(host, "eth0") == "cannot open eth0: no such thing"


def test_missing_scapy_is_said_in_one_line(lab: Lab) -> None:
    missing = "import sys; sys.modules['scapy'] = None; sys.path.insert(0, '.')"
    body = f"{missing}; import node; sys.exit(node.run(node.main))"
    program = lab.host().start([sys.executable, "-bb", "-c", body, "lo"])
    assert program.wait() == 2, str(program)
    if sys.prefix == sys.base_prefix:
        command = "sudo apt install -y --no-install-recommends python3-scapy"
    else:
        command = f"{sys.executable} -m pip install scapy"
    assert program.err == f"-c: scapy is not installed: {command}\n"


def test_help_needs_no_scapy(lab: Lab) -> None:
    body = "import sys; import node\ntry: node.main()\nfinally: sys.exit(any('scapy' in name for name in sys.modules))"
    program = lab.host().start([sys.executable, "-c", body, "--help"])
    assert program.wait() == 0, str(program)


def test_scapys_tables_are_not_read_and_no_cache_of_root_is_left_in_the_users_home(lab: Lab, tmp_path: Any) -> None:
    body = "import node; node.EthernetLink('lo'); import scapy.data; print(len(list(scapy.data.MANUFDB)))"
    program = lab.host().start(["env", f"HOME={tmp_path}", f"XDG_CACHE_HOME={tmp_path}", sys.executable, "-c", body])
    assert (program.wait(), program.out) == (0, "0\n"), str(program)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "scapy leaves its cache there otherwise"


def test_the_node_program_reports_prints_and_ends_cleanly(lab: Lab) -> None:
    host = lab.host()
    script = [sys.executable, "-bb", "-W", "error", "node.py", "lo", "--name", "watcher"]
    program = host.start(script)
    address = program.expect(r"^alexmesh: node (\S+) on lo$", where="err").group(1)
    with open_nodes((host, "lo")) as (node,):
        name = ":".join(f"{octet:02x}" for octet in node.address)
        node.send_message(bytes.fromhex(address.replace(":", "")), "hello\x1b[2J", timeout=SECONDS)
        current().until(lambda: f"{name}: hello^[[2J\n" in program.out and f"found {name}" in program.err)
        program.signal(10)  # SIGUSR1
        current().until(lambda: f"neighbour {name} on lo: up" in program.err)
    program.expect(f"^lost {name}: left", where="err")
    program.signal(15)
    assert program.wait() == 143
    assert "Traceback" not in program.err
