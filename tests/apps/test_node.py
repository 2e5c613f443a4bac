"""Nodes with the real clock on links of memory: no root, no scapy, and no wait without a deadline."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import pytest
from company import SECONDS, Company, current
from paths import ROOT

from alexstream import Endpoint
from constants import (
    BLOCKED_PATIENCE,
    BUFFER_BYTES,
    CROWDED_BATCH,
    CROWDED_SECONDS,
    ETHERNET_HEADER_BYTES,
    EVERYONE,
    LOOK_SECONDS,
    RECEIVE_BATCH,
    SPIN_CROWDED,
    SPIN_SECONDS,
    STREAMS_PER_PEER,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
)
from node import (
    _KINDS,
    BusyError,
    ChangesOmitted,
    EthernetLink,
    Link,
    LinkChanged,
    Node,
    SetupError,
    Stream,
    argument_parser,
    bpf_frames,
    describe_event,
    drop_privileges,
    emphasis,
    has_color,
    json_line,
    login_name,
    open_stream,
    peer_address,
    quoted,
    read_names,
    start_command,
    wait_for_files,
)
from protocol import Frame, MessageReceived, NodeFound, RouteChanged, StrangeNode, encode_ethernet, encode_frame


class Cable:
    """An Ethernet segment of memory: what one port sends, all others receive."""

    def __init__(self) -> None:
        self.ports: List[MemoryLink] = []


class MemoryLink(Link):
    """A port of a `Cable`. What is real of it may change at any time; `fault` is asked before a frame is sent."""

    def __init__(self, cable: Cable, number: int, mtu: int = 1500) -> None:
        self.name = f"mem{number}"
        self.mac = bytes((2, 0, 0, 0, 0, number))
        self.mtu = mtu
        self.real_mtu = mtu
        self.real_name, self.real_mac = self.name, self.mac  # what `refresh` finds
        self.problem = ""  # why the port is of no use
        self.slots: Dict[bytes, Optional[int]] = {}
        self.loopback = False
        self.down = 0  # the errno that sending gives while the port is away
        self.fault: Callable[[bytes], Optional[int]] = lambda frame: None
        self.cable = cable
        self.socket, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.peer.setblocking(False)
        self._notice, noticed = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._noticed = noticed
        self._noticed.setblocking(False)
        self.notices = noticed.fileno()
        cable.ports.append(self)
        self.send = self._send
        self.receive = self._receive

    def fileno(self) -> int:
        return self.socket.fileno()

    def _send(self, frame: bytes) -> None:
        problem = self.down or self.fault(frame)
        if not problem and len(frame) > self.real_mtu + ETHERNET_HEADER_BYTES:
            problem = errno.EMSGSIZE
        if problem:
            raise OSError(problem, os.strerror(problem))
        for port in self.cable.ports:
            if port is not self and not port.down:
                with contextlib.suppress(BlockingIOError):  # a full buffer is a lost frame
                    port.peer.send(frame)

    def _receive(self) -> List[bytes]:
        frames: List[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(frames) < RECEIVE_BATCH:
                frames.append(self.socket.recv(0x10000))
        return frames

    def notify(self) -> None:
        """Say that something has changed, as the system does."""
        self._notice.send(b"x")

    def refresh(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            while self._noticed.recv(1):
                pass
        self.mtu = self.real_mtu
        self.name, self.mac = self.real_name, self.real_mac
        if self.problem:
            raise OSError(errno.EMSGSIZE, self.problem)
        return not self.down

    def claim(self) -> Optional[int]:
        return self.slots.get(self.mac, 0)

    def close(self) -> None:
        if self in self.cable.ports:
            self.cable.ports.remove(self)
        for end in (self.socket, self.peer, self._notice, self._noticed):
            end.close()


class Pair:
    """Two nodes on one cable."""

    def __init__(self, mtu: int = 1500) -> None:
        self.cable = Cable()
        self.links = [MemoryLink(self.cable, number, mtu) for number in (1, 2)]
        self.nodes = [Node([link], name=f"n{number}") for number, link in enumerate(self.links, 1)]

    def connect(self, port: int = 2) -> Tuple[Stream, Stream]:
        """Both ends of a new stream: that of the first node, which opened it, and that of the second."""
        with self.nodes[1].listen(port) as listener:
            near = self.nodes[0].connect(self.nodes[1].address, port, timeout=SECONDS)
            far = listener.accept(timeout=SECONDS)
        assert far is not None
        return near, far


@pytest.fixture(autouse=True)
def in_company(monkeypatch: pytest.MonkeyPatch) -> Company:
    """Let all nodes of a test go on while it waits for one of them."""
    return Company(monkeypatch.setattr)


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Start a call beside the test; what is returned waits for its result, or raises what it raised."""
    return current().in_thread(function)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that one side never finishes are given up sooner than by CLOSE_SECONDS."""
    monkeypatch.setattr("constants.CLOSE_SECONDS", 0.5)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    with pair.nodes[0], pair.nodes[1]:
        yield pair


def wait_for(node: Node, ready: Callable[[], object]) -> None:
    """Wait as an application does that serves many: on `fileno`, then looking at everything."""
    deadline = time.monotonic() + SECONDS
    while not ready():
        left = deadline - time.monotonic()
        assert left > 0, "did not happen"
        node.wait(timeout=left)


def next_result(node: Node, ask: Callable[[], Any]) -> Any:
    """Wait until `ask` returns something, and return that."""
    results: List[Any] = []

    def ready() -> bool:
        results.append(ask())
        return bool(results[-1])

    wait_for(node, ready)
    return results[-1]


def read_all(stream: Stream) -> bytes:
    """Read until the end and finish too."""
    with stream:
        return stream.read() or b""


def next_event(node: Node, kind: type) -> Any:
    """The next mesh event of that kind."""
    while True:
        event = node.next_event(timeout=SECONDS)
        assert event is not None, f"no {kind.__name__}"
        if isinstance(event, kind):
            return event


# --- The mesh -------------------------------------------------------------------------------------------------------


def test_nodes_find_each_other_and_take_leave(pair: Pair) -> None:
    one, two = pair.nodes
    assert next_event(one, NodeFound).address == two.address
    assert next_event(two, NodeFound).address == one.address
    assert [info.address for info in one.nodes()] == [two.address]
    assert len(one.neighbours()) == 1


def test_a_message_is_delivered_once_and_acknowledged(pair: Pair) -> None:
    one, two = pair.nodes
    assert 0 <= one.send_message(two.address, "good day", timeout=SECONDS) < SECONDS
    event = next_event(two, MessageReceived)
    assert (event.origin, event.data) == (one.address, b"good day")


def test_messages_that_an_application_does_not_take_are_refused_not_lost(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that stands still (^S) reads on later: what was acknowledged waits, the rest is not delivered."""
    one, two = pair.nodes
    next_event(one, NodeFound)
    next_event(two, NodeFound)
    two.shows_texts = True
    monkeypatch.setattr("constants.EVENTS_MAX", 3)
    for text in ("1", "2"):
        one.send_message(two.address, text, timeout=SECONDS)
    for _ in range(5):  # what nobody was promised makes room
        two._add_event(LinkChanged("mem2", False, "x"))
    one.send_message(two.address, "3", timeout=SECONDS)
    with pytest.raises(TimeoutError, match="no acknowledgement"):
        one.send_message(two.address, "4", timeout=0.3)
    assert two.drops["inbox full"] > 0
    assert [next_event(two, MessageReceived).data for _ in range(3)] == [b"1", b"2", b"3"]
    one.send_message(two.address, "5", timeout=SECONDS)
    assert next_event(two, MessageReceived).data == b"5"


def test_a_program_that_wants_no_events_keeps_the_newest_and_answers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constants.EVENTS_MAX", 3)
    one, two = pair.nodes
    for number in range(5):
        one.send_message(two.address, str(number), timeout=SECONDS)
    assert [event.data for event in two._events if isinstance(event, MessageReceived)][-2:] == [b"3", b"4"]
    assert len(two._events) == 3  # with that the other was found


def test_a_message_to_nobody_times_out(pair: Pair) -> None:
    one, two = pair.nodes
    with pytest.raises(TimeoutError, match="no such node 02:00:00:00:00:99"):
        one.send_message(b"\2\0\0\0\0\x99", "anybody?", timeout=0.3)
    next_event(one, NodeFound)
    pair.links[1].fault = lambda frame: errno.EPERM
    with pytest.raises(TimeoutError, match=r"no acknowledgement from 02:00:00:00:00:02 within 0\.3 s"):
        one.send_message(two.address, "anybody?", timeout=0.3)


def test_messages_that_cannot_be_sent_are_refused(pair: Pair) -> None:
    one, two = pair.nodes
    with pytest.raises(ValueError, match="1478 bytes, a frame to there has room for 1477"):
        one.send_message(two.address, "x" * 1478, timeout=1)
    with pytest.raises(ValueError, match="1478 bytes"):
        one.broadcast("x" * 1478)
    with pytest.raises(ValueError, match="not the address of another node"):
        one.send_message(one.address, "x", timeout=1)
    one.send_message(two.address, "x" * 1477, timeout=SECONDS)


def test_a_broadcast_reaches_every_node() -> None:
    cable = Cable()
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Node([MemoryLink(cable, number)])) for number in (1, 2, 3)]
        for other in nodes[1:]:
            next_event(other, NodeFound)
        nodes[0].broadcast("to all")
        assert [next_event(other, MessageReceived).data for other in nodes[1:]] == [b"to all", b"to all"]


def test_discover_returns_who_answers_with_its_ports(pair: Pair) -> None:
    one, two = pair.nodes
    with two.listen(1):
        (found,) = one.discover(0.6)
    assert (found.address, found.hops, found.name, tuple(found.ports)) == (two.address, 1, "n2", (1,))
    assert found.rtt is not None
    assert 0 < found.rtt < 0.6
    assert one.echo(two.address, timeout=SECONDS).address == two.address
    with pytest.raises(TimeoutError, match="no such node"):
        one.echo(b"\2\0\0\0\0\x99", timeout=0.1)


def test_asking_without_waiting(pair: Pair) -> None:
    one, two = pair.nodes
    next_event(one, NodeFound)
    with two.listen(1):
        one.ask([two.address, b"\2\0\0\0\0\x99"])
        (answer,) = next_result(one, one.answers)
    assert (answer.address, answer.hops, answer.name, tuple(answer.ports)) == (two.address, 1, "n2", (1,))
    one.ask([])
    assert one.answers() == []


def test_a_ping_counts_what_is_lost(pair: Pair) -> None:
    one, two = pair.nodes
    next_event(one, NodeFound)
    pings = one.ping(two.address, count=3, interval=0.05, wait=0.2)
    assert next(pings) == (1, None)
    number, answer = next(pings)
    assert number == 1
    assert answer is not None
    assert (answer.address, answer.hops, answer.name) == (two.address, 1, "n2")
    pair.links[1].fault = lambda frame: errno.EPERM
    assert list(pings) == [(2, None), (3, None)]


def test_a_trace_tells_a_node_from_one_without_a_route(pair: Pair) -> None:
    one, two = pair.nodes
    ((number, answer),) = one.trace(two.address, wait=SECONDS)
    assert answer is not None
    assert (number, answer.address, answer.name) == (1, two.address, "n2")
    with pytest.raises(TimeoutError, match="no such node"):
        next(one.trace(b"\2\0\0\0\0\x99", wait=0.1))


def test_a_trace_asks_a_silent_hop_three_times(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pair.nodes
    next_event(one, NodeFound)
    pair.links[1].fault = lambda frame: errno.EPERM
    asked: List[int] = []
    echo = one._router.echo

    def counted(dest: bytes, *, now: float, ttl: int) -> int:
        asked.append(ttl)
        return echo(dest, now=now, ttl=ttl)

    monkeypatch.setattr(one._router, "echo", counted)
    assert next(one.trace(two.address, wait=0.05)) == (1, None)
    assert asked == [0, 0, 0]


def test_more_changes_than_anybody_reads_are_counted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = pair.nodes
    next_event(one, NodeFound)
    for number in range(1000):
        one._keep(NodeFound(bytes((2, 0, 0, 0, number >> 8, number & 255)), 1, 1500, ""))
    told = 0
    event = one.next_event(timeout=SECONDS)
    while not isinstance(event, ChangesOmitted):
        told += isinstance(event, NodeFound)
        event = one.next_event(timeout=SECONDS)
    assert told < 300
    assert told + event.number == 1000
    assert describe_event(event) == f"and {event.number} more changes"
    line = json_line(one, _KINDS[type(event)], event._asdict())
    assert json.loads(line) == {"type": "more changes", "number": event.number}


def test_a_text_too_long_for_the_far_end_is_refused_once_that_is_known(pair: Pair) -> None:
    one, two = pair.nodes
    pair.links[0].fault = lambda frame: errno.EPERM if len(frame) > 600 else None  # the other card would not take it
    pair.links[1].real_mtu = 576
    pair.links[1].notify()
    with pytest.raises(ValueError, match="too long: the text has 1200 bytes, a frame to there has room for 553"):
        one.send_message(two.address, "x" * 1200, timeout=SECONDS)
    assert one._router.messages.unacknowledged == {}  # it must not arrive later, when the path is wider
    assert one.send_message(two.address, "x" * 553, timeout=SECONDS) < SECONDS


def test_one_forged_segment_keeps_nobody_from_a_node_that_answers(pair: Pair) -> None:
    one, two = pair.nodes
    next_event(one, NodeFound)
    segment = encode_frame(Frame(TYPE_MESSAGE, two.address, one.address, 5, 99, b"\0\0\0\1\0\0\0\2\3\0\0"))
    pair.links[0].peer.send(encode_ethernet(one.address, two.address, segment))
    next_event(one, StrangeNode)
    near, far = pair.connect()
    near.write(b"all the same")
    assert far.read(12) == b"all the same"
    pair.links[1].fault = lambda frame: errno.EPERM
    with pytest.raises(TimeoutError, match="no acknowledgement"):
        one.send_message(two.address, "x", timeout=0.1)


def test_calling_a_program_that_speaks_v1_streams_says_so(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constants.NO_SUCH_NODE_SECONDS", 0.5)
    one, two = pair.nodes
    next_event(one, NodeFound)
    pair.links[1].fault = lambda frame: errno.EPERM  # it answers nothing that we would understand
    segment = encode_frame(Frame(TYPE_MESSAGE, two.address, one.address, 5, 99, b"\0\0\0\1\0\0\0\2\3\0\0"))
    pair.links[0].peer.send(encode_ethernet(one.address, two.address, segment))
    said = "02:00:00:00:00:02 speaks v1.0 streams, which this program does not"
    with pytest.raises(TimeoutError, match=said):
        one.connect(two.address, 1)  # which would go on for three minutes
    with pytest.raises(TimeoutError, match=said):
        one.send_message(two.address, "x", timeout=0.1)
    assert describe_event(next_event(one, StrangeNode)) == said


@pytest.mark.parametrize(
    "words", ["eth0 N --name x", "eth0 --name x N", "--name x eth0 N", "--color never eth0 -q --name=x N"]
)
def test_options_may_stand_anywhere(words: str) -> None:
    parser = argument_parser("x", "y")
    parser.add_argument("node", nargs="?")
    arguments = parser.parse_args(words.split())
    assert (arguments.interface, arguments.node, arguments.name) == ("eth0", "N", "x")


@pytest.mark.parametrize("text", ["-5", "-5 degrees outside", "- a list", "-0.5", ""])
@pytest.mark.parametrize("words", ["eth0 -q {}", "eth0 {} -q", "-q eth0 {}"])
def test_texts_that_begin_with_a_dash_stay_where_they_are(words: str, text: str) -> None:
    parser = argument_parser("x", "y")
    parser.add_argument("text")
    arguments = parser.parse_args([text if word == "{}" else word for word in words.split()])
    assert (arguments.interface, arguments.text, arguments.quiet) == ("eth0", text, True)


def test_an_option_with_a_blank_in_its_value_is_one() -> None:
    parser = argument_parser("x", "y")
    assert parser.parse_args(["--name=Bob Bobson", "eth0"]).name == "Bob Bobson"
    with pytest.raises(SystemExit):
        parser.parse_args(["eth0", "-x"])


def test_words_after_two_dashes_are_no_options() -> None:
    parser = argument_parser("x", "y")
    parser.add_argument("text")
    assert parser.parse_args(["eth0", "-q", "--", "-v"]).text == "-v"
    assert parser.parse_args(["eth0", "-", "-q"]).text == "-"


def test_route_changes_are_told_to_who_wants_them(pair: Pair) -> None:
    one, two = pair.nodes
    one.tell_routes()
    changed = next_event(one, RouteChanged)
    assert changed == RouteChanged(two.address, 0, two.address, 1, 1500)
    assert describe_event(changed) == "02:00:00:00:00:02 is 1 hop away by 02:00:00:00:00:02, MTU 1500"


def test_json_lines_are_safe_and_complete(pair: Pair) -> None:
    one, _ = pair.nodes
    event = MessageReceived(b"\2" * 6, EVERYONE, 7, b"\x1b[2J\xff\n\xe2\x80\xae")
    line = json_line(one, "message", event._asdict())
    assert line.isprintable()
    expected = {"type": "message", "origin": "02:02:02:02:02:02", "dest": "00:00:00:00:00:00", "msg_id": 7}
    assert json.loads(line) == {**expected, "text": "\x1b[2J\\xff\n\u202e"}
    line = json_line(one, "route", {"interface": 0, "last_heard": one.now(), "ports": (1, 2), "rtt": 0.12345678})
    assert json.loads(line) == {"type": "route", "interface": "mem1", "age": 0.0, "ports": [1, 2], "rtt": 0.123457}


def test_noise_is_counted_and_harms_nobody(pair: Pair) -> None:
    one, two = pair.nodes
    next_event(one, NodeFound)
    for noise in (
        b"",
        b"x",
        bytes(14),
        bytes(60),
        b"\xff" * 1500,
        two.address + one.address + b"\x88\xb5\1\5" + bytes(80),
    ):
        pair.links[0].send(noise)
    assert one.send_message(two.address, "still there?", timeout=SECONDS) >= 0
    assert sum(two.drops.values()) >= 1


# --- Streams --------------------------------------------------------------------------------------------------------


def test_streams_that_were_reset_before_they_were_accepted_leave_nothing(pair: Pair) -> None:
    """Else a peer could fill the memory of a server that is busy with another client."""
    one, two = pair.nodes
    with two.listen(2) as listener:
        for _ in range(100):
            with one.connect(two.address, 2, timeout=SECONDS) as stream:
                stream.abort()
        with one.connect(two.address, 2, timeout=SECONDS) as stream:
            wait_for(two, lambda: len(listener.arrived) == 1)
            accepted = listener.accept(timeout=SECONDS)
            assert accepted is not None
            stream.write(b"x")
            assert accepted.read(1) == b"x"


def test_a_stream_carries_bytes_both_ways_and_closes_by_halves(pair: Pair) -> None:
    near, far = pair.connect()
    assert (near.peer, far.peer, near.port, near.node) == (far.node.address, near.node.address, 2, pair.nodes[0])
    near.write(b"question\n")
    near.finish()
    near.drain(SECONDS)
    assert (near.written, near.delivered, near.drained) == (9, 9, True)
    assert far.readline() == b"question\n"
    assert (far.read(1), far.ended) == (b"", False)
    far.write(b"answer")
    far.finish()
    assert near.read() == b"answer"
    far.drain(SECONDS)
    near.close()
    far.close()
    assert near.error is None
    assert far.error is None
    assert near.ended
    assert far.ended
    assert near.closed


def test_a_megabyte_arrives_unchanged_through_a_file_like_copy(pair: Pair) -> None:
    data = os.urandom(3 << 20)
    near, far = pair.connect()
    received: io.BytesIO = io.BytesIO()

    def copy() -> None:
        with far:
            shutil.copyfileobj(far, received, 1 << 16)  # type: ignore[misc]

    copied = in_thread(copy)
    with near:
        assert near.write(data) == len(data)
        near.drain(SECONDS)
    copied()
    assert near.error is None
    assert hashlib.sha256(received.getvalue()).digest() == hashlib.sha256(data).digest()


def test_a_lossy_cable_loses_nothing(pair: Pair) -> None:
    near, far = pair.connect()
    count = 0

    def lose(frame: bytes) -> Optional[int]:
        nonlocal count
        count += 1
        return errno.EPERM if count % 20 == 0 else None

    pair.links[0].fault = lose
    data = os.urandom(200_000)
    received = in_thread(lambda: read_all(far))
    with near:
        near.write(data)
        near.drain(SECONDS)  # a busy machine may need longer than `impatience` allows
    assert received() == data
    assert pair.nodes[0].drops["send: " + os.strerror(errno.EPERM)] > 0


def test_readinto_and_lines(pair: Pair) -> None:
    near, far = pair.connect()
    near.write(b"one\ntwo\n")
    buffer = bytearray(4)
    assert far.readinto(buffer) == 4
    assert bytes(buffer) == b"one\n"
    near.finish()
    assert list(far) == [b"two\n"]
    assert far.readinto(buffer) == 0
    assert far.readable()
    assert far.writable()
    assert not far.seekable()


def test_a_caller_looks_for_frames_until_others_want_the_processor(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among many frames at once: in a conversation it goes on looking."""
    node, clock, pause = pair.nodes[0], 5.0, 0.0
    sleep = current().plain_sleep

    def give_up_the_processor() -> None:
        nonlocal clock
        clock += pause

    def looks(batch: int) -> int:
        nonlocal clock
        began = clock
        node._received_at, node._batch = clock, batch
        assert sleep(node, [], [], clock, clock + SPIN_SECONDS) == []
        return round((clock - began) / pause)

    with monkeypatch.context() as patch:
        patch.setattr("node._yield_processor", give_up_the_processor)
        patch.setattr(node, "now", lambda: clock)
        pause = SPIN_SECONDS / 10
        assert looks(CROWDED_BATCH) == 10
        pause = 1.2 * SPIN_CROWDED
        assert looks(CROWDED_BATCH - 1) == 4
        assert looks(CROWDED_BATCH) == 1
        assert looks(CROWDED_BATCH) == 0
        clock += CROWDED_SECONDS
        assert looks(CROWDED_BATCH) == 1


def test_a_stream_that_does_not_block_says_none(pair: Pair) -> None:
    near, far = pair.connect()
    near.setblocking(False)
    assert near.read(1) is None
    assert near.readinto(bytearray(1)) is None
    taken = near.write(bytes(BUFFER_BYTES + 1))
    assert taken == BUFFER_BYTES
    wait_for(near.node, lambda: near.delivered == BUFFER_BYTES)  # now the other node's buffer is full
    assert near.write(bytes(BUFFER_BYTES)) == BUFFER_BYTES
    assert near.write(b"x") is None
    assert near.write(b"") == 0
    assert len(far.read(BUFFER_BYTES) or b"") == BUFFER_BYTES
    wait_for(near.node, lambda: near.write(b"x"))
    near.close()
    assert read_all(far) == bytes(BUFFER_BYTES) + b"x"
    assert near.closed


@pytest.mark.parametrize(("mtu", "size"), [(1500, BUFFER_BYTES), (4000, 256 * 3913), (9000, 2 << 20), (65535, 2 << 20)])
def test_larger_segments_have_larger_buffers(mtu: int, size: int) -> None:
    """On both sides, but who does not read is sent no more than BUFFER_BYTES."""
    pair = Pair(mtu)
    with pair.nodes[0], pair.nodes[1]:
        near, far = pair.connect()
        near.setblocking(False)
        assert near.write(bytes(3 << 20)) == size
        wait_for(near.node, lambda: near.delivered == BUFFER_BYTES)
        assert len(far.read(BUFFER_BYTES) or b"") == BUFFER_BYTES
        wait_for(near.node, lambda: near.delivered == size)
        assert near.write(bytes(3 << 20)) == size
        wait_for(near.node, lambda: near.delivered > BUFFER_BYTES + size - mtu)
        assert near.delivered <= BUFFER_BYTES + size
        near.node.close(abort=True)


def test_a_wait_ends_with_data_progress_an_end_and_a_new_stream(pair: Pair) -> None:
    one, two = pair.nodes
    with two.listen(7) as listener:
        assert listener.accept(timeout=0) is None
        near = one.connect(two.address, 7, timeout=SECONDS)
        far = next_result(two, lambda: listener.accept(timeout=0))
    far.setblocking(False)
    near.write(b"abc")
    assert next_result(two, lambda: far.read(10)) == b"abc"
    wait_for(one, lambda: near.delivered == 3)
    near.finish()
    wait_for(two, lambda: far.read(1) == b"")
    far.abort()
    wait_for(one, lambda: near.ended)
    assert isinstance(near.error, ConnectionResetError)


def test_a_wait_lasts_while_nothing_happens(pair: Pair) -> None:
    one, _ = pair.nodes
    next_event(one, NodeFound)
    began = one.now()
    while one.next_event(timeout=0) is not None or one.now() - began < 0.2:
        one.wait(timeout=0.05)
    began = one.now()
    one.wait(timeout=0.1)
    assert one.now() - began >= 0.1


def test_a_stream_has_news_until_nothing_more_can_be_done_without_waiting(pair: Pair) -> None:
    (near, far), (other, quiet) = pair.connect(), pair.connect(3)
    for stream in (near, far, other, quiet):
        stream.setblocking(False)
        assert stream.read(1) is None
        assert not stream.has_news
    near.write(b"abc")
    wait_for(far.node, lambda: far.has_news)
    assert not quiet.has_news
    assert [(far.read(2), far.has_news) for _ in range(3)] == [(b"ab", True), (b"c", True), (None, False)]
    wait_for(near.node, lambda: near.delivered == 3)
    near.write(bytes(BUFFER_BYTES))
    wait_for(near.node, lambda: near.delivered == BUFFER_BYTES)  # now the other node's buffer is full
    assert near.write(bytes(2 * BUFFER_BYTES))
    assert (near.has_news, near.write(b"x"), near.has_news) == (False, None, False)
    assert far.read(BUFFER_BYTES)
    wait_for(near.node, lambda: near.has_news)
    far.node.close(abort=True)
    assert (quiet.has_news, quiet.ended) == (True, True)


def test_waiting_for_files_beside_the_network(pair: Pair) -> None:
    near, far = pair.connect()
    node = near.node
    reading, writing = os.pipe()
    with contextlib.closing(open(reading, "rb", buffering=0)), contextlib.closing(open(writing, "wb", buffering=0)):
        while node.wait(reading, timeout=0.05) or node.next_event(timeout=0):
            pass
        began = time.monotonic()
        assert node.wait(reading, timeout=0.1) == []
        assert time.monotonic() - began >= 0.1
        assert node.wait(reading, writing=[writing], timeout=SECONDS) == [writing]
        os.write(writing, b"typed")
        assert node.wait(reading, timeout=SECONDS) == [reading]
        far.write(b"x")  # whatever else there is, a file that can be read is found
        wait_for(node, lambda: near._session.readable)
        assert node.wait(reading, timeout=SECONDS) == [reading]
        assert os.read(reading, 9) == b"typed"
    with pytest.raises(OSError, match="Bad file descriptor"):
        node.wait(reading, timeout=SECONDS)


def test_a_program_that_writes_without_waiting_looks_for_answers_too(pair: Pair) -> None:
    near, far = pair.connect()
    received = in_thread(lambda: read_all(far))
    near.setblocking(False)
    deadline = time.monotonic() + SECONDS / 2
    while near.written < 4 * BUFFER_BYTES:
        if not near.write(bytes(BUFFER_BYTES)):
            time.sleep(LOOK_SECONDS)  # it has other things to do; and the other node is in this process
        assert time.monotonic() < deadline, near.delivered
    near.finish()
    near.drain(SECONDS)
    assert received() == bytes(near.written)


def test_connecting_fails_in_the_ways_of_sockets(pair: Pair) -> None:
    one, two = pair.nodes
    with pytest.raises(ConnectionRefusedError, match="port 9: refused"):
        one.connect(two.address, 9)
    with pytest.raises(TimeoutError, match="no such node 02:00:00:00:00:99"):
        one.connect(b"\2\0\0\0\0\x99", 1, timeout=0.3)
    pair.links[1].fault = lambda frame: errno.EPERM
    with pytest.raises(TimeoutError, match=r"no answer from 02:00:00:00:00:02 within 0\.3 s"):
        one.connect(two.address, 1, timeout=0.3)
    pair.links[1].fault = lambda frame: None
    with pytest.raises(ValueError, match="address"):
        one.connect(one.address, 1)
    with pytest.raises(ValueError, match="address"):
        one.connect(b"\xff" * 6, 1)


def test_opening_without_waiting(pair: Pair) -> None:
    one, two = pair.nodes
    with two.listen(1) as listener:
        near = one.open(two.address, 1)
        near.setblocking(False)
        near.write(b"at once")
        wait_for(one, lambda: near.connected)
        far = listener.accept(timeout=SECONDS)
    assert far is not None
    assert far.read(7) == b"at once"
    refused = one.open(two.address, 9)
    wait_for(one, lambda: refused.ended)
    assert isinstance(refused.error, ConnectionRefusedError)
    assert not refused.restarted


def test_another_program_at_the_address_of_the_peer(pair: Pair) -> None:
    one, _ = pair.nodes
    near, _far = pair.connect()
    pair.links[1].fault = lambda frame: errno.EPERM  # it dies without a word
    pair.nodes[1].close(abort=True)
    with Node([MemoryLink(pair.cable, 2)]):
        near.write(b"who is there?")
        wait_for(one, lambda: near.ended)
    assert near.restarted
    assert isinstance(near.error, ConnectionResetError)


def test_what_arrived_before_a_reset_is_read_first(pair: Pair) -> None:
    near, far = pair.connect()
    near.write(b"last words")
    near.drain(SECONDS)
    near.abort()
    wait_for(far.node, lambda: far.ended)
    assert far.read(4) == b"last"
    assert far.read(100) == b" words"
    with pytest.raises(ConnectionResetError, match="reset by peer"):
        far.read(1)
    with pytest.raises(ConnectionResetError):
        far.write(b"too late")
    with pytest.raises(ConnectionResetError):
        far.drain()
    with pytest.raises(ConnectionAbortedError):
        near.read(1)
    near.close()
    far.close()


def test_leaving_a_with_block_by_an_exception_resets(pair: Pair) -> None:
    near, far = pair.connect()

    def fail() -> None:
        with near:
            near.write(b"half a file")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ConnectionResetError):
        far.read()


def test_a_closed_stream_is_a_closed_file(pair: Pair) -> None:
    near, far = pair.connect()
    far.finish()
    near.close()
    near.close()
    assert near.error is None
    for call in (lambda: near.read(1), lambda: near.write(b"x")):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="finished"):
        far.write(b"x")


def test_data_that_nobody_will_read_resets_the_stream(pair: Pair) -> None:
    near, far = pair.connect()
    near.setblocking(False)
    near.close()
    assert far.read(1) == b""
    far.write(b"are you there?")
    with pytest.raises(ConnectionResetError):
        far.drain(SECONDS)


def test_closing_waits_for_what_is_not_delivered_yet() -> None:
    pair = Pair()
    data = os.urandom(200_000)
    with pair.nodes[1]:
        with pair.nodes[0]:
            near, far = pair.connect()
            received = in_thread(lambda: read_all(far))
            near.write(data)
        assert received() == data
        assert near.ended


def test_drain_gives_up_at_its_timeout(pair: Pair) -> None:
    near, _ = pair.connect()
    pair.links[1].fault = lambda frame: errno.EPERM  # no acknowledgement comes back
    near.write(b"hello")
    with pytest.raises(TimeoutError, match=r"5 bytes not delivered within 0\.2 s"):
        near.drain(0.2)
    wait_for(near.node, lambda: near.stalled)
    pair.links[1].fault = lambda frame: None
    near.drain(SECONDS)
    assert not near.stalled


def test_a_port_has_one_listener(pair: Pair) -> None:
    one, two = pair.nodes
    with one.listen(1):
        with pytest.raises(OSError, match="listens on port 1 already") as caught:
            one.listen(1)
        assert caught.value.errno == errno.EADDRINUSE
    listener = one.listen(1)
    stream = two.connect(one.address, 1, timeout=SECONDS)
    assert isinstance(listener.accept(), Stream)
    listener.close()
    assert listener.accept() is None
    listener.close()
    stream.close()


def test_streams_that_nobody_takes_are_reset(pair: Pair) -> None:
    one, two = pair.nodes
    listener = one.listen(1)
    stream = two.connect(one.address, 1, timeout=SECONDS)
    wait_for(one, lambda: listener.arrived)
    listener.close()
    with pytest.raises(ConnectionResetError):
        stream.read(1)


def reset(near: Node, far: Node, data: bytes) -> None:
    """Open a stream, see `data` delivered, and abort; the far node has seen all that."""
    stream = near.connect(far.address, 1, timeout=SECONDS)
    stream.write(data)
    stream.drain(SECONDS)
    stream.abort()
    wait_for(far, lambda: not far._streams)


def test_what_was_delivered_before_a_reset_is_there_to_be_read(pair: Pair) -> None:
    """The peer was told that this node holds it: a program that takes its streams a moment later must have it."""
    near, far = pair.nodes
    with far.listen(1) as listener:
        reset(near, far, b"hello")
        stream = listener.accept(timeout=0)
        assert stream is not None
        assert stream.read(100) == b"hello"
        with pytest.raises(ConnectionResetError):
            stream.read(100)
        reset(near, far, b"")  # nothing is lost with this one
        assert listener.accept(timeout=0) is None


def test_streams_reset_before_they_are_taken_are_limited(pair: Pair) -> None:
    """As open ones are: a peer that opens, writes and resets must not fill the memory."""
    near, far = pair.nodes
    with far.listen(1) as listener:
        for number in range(STREAMS_PER_PEER):
            reset(near, far, b"%d" % number)
        with pytest.raises(BusyError, match="busy; try again later"):
            open_stream(near, far.address, 1, "server.py")
        taken = listener.accept(timeout=0)
        assert taken is not None
        assert taken.read(100) == b"0"
        reset(near, far, b"more")
        assert len(listener.arrived) == STREAMS_PER_PEER


def test_streams_of_others_are_refused_before_anything_is_delivered(pair: Pair) -> None:
    near, far = pair.nodes
    with far.listen(1, only=b"\2\0\0\0\0\x09") as listener:
        with pytest.raises(BusyError):
            open_stream(near, far.address, 1, "server.py")
        assert not listener.arrived
    with far.listen(1, only=near.address) as listener:
        near.connect(far.address, 1, timeout=SECONDS)
        assert listener.accept(timeout=SECONDS) is not None


def test_too_many_streams_of_our_own_are_an_error_of_the_system(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which its callers catch, as they do with others of streams."""
    near, far = pair.nodes
    monkeypatch.setattr("constants.STREAMS_MAX", 2)
    with far.listen(1):
        near.open(far.address, 1), near.open(far.address, 1)
        with pytest.raises(OSError, match="too many streams") as caught:
            near.open(far.address, 1)
    assert caught.value.errno == errno.EMFILE


def test_streams_that_wait_are_limited_over_all_peers(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = pair.nodes
    monkeypatch.setattr("constants.STREAMS_MAX", 2)
    with far.listen(1):
        reset(near, far, b"1")
        reset(near, far, b"2")
        with pytest.raises(BusyError):
            open_stream(near, far.address, 1, "server.py")


# --- Life and death -------------------------------------------------------------------------------------------------


def test_every_waiting_call_fails_when_the_node_is_closed() -> None:
    pair = Pair()
    one, two = pair.nodes
    with two:
        listener = one.listen(3)
        near, _ = pair.connect()
        next_event(one, NodeFound)
        while one.next_event(timeout=0) is not None:
            pass
        calls = [in_thread(call) for call in (listener.accept, lambda: near.read(1), one.next_event)]
        for _ in range(3):  # they wait by now
            two.wait(timeout=0.02)
        one.close()
        one.close()
        for call in calls:
            with pytest.raises(OSError, match=r"aborted|the node is closed"):
                call()
        for late in (lambda: one.listen(4), lambda: one.connect(two.address, 1), lambda: one.broadcast("x")):
            with pytest.raises(OSError, match="the node is closed"):
                late()
        near.close()
        listener.close()


def test_a_peer_that_takes_no_more_streams_is_told_as_busy(pair: Pair) -> None:
    near, far = pair.nodes
    with far.listen(2):
        for _ in range(STREAMS_PER_PEER):
            near.connect(far.address, 2, timeout=SECONDS)
        with pytest.raises(BusyError, match="busy; try again later"):
            open_stream(near, far.address, 2, "server.py")


def test_a_bug_ends_every_wait_with_a_clear_error(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in which it comes to light raises it: that is what `run` reports, with its place."""
    near, far = pair.connect()
    listener = near.node.listen(9)

    def fail(self: Endpoint, origin: bytes, frames: List[bytes], *, now: float, at: int) -> None:
        if self is near.node._endpoint:
            raise ZeroDivisionError
        receive_all(self, origin, frames, now=now, at=at)

    receive_all = Endpoint.receive_all
    monkeypatch.setattr(Endpoint, "receive_all", fail)
    with pytest.raises(ZeroDivisionError):
        near.read(far.write(b"x") or 1)  # under load the frame is here before write returns
    for call in (lambda: near.read(1), lambda: near.write(b"x"), listener.accept):
        with pytest.raises(OSError, match="this is a bug"):
            call()
    assert "this is a bug" in str(near.error)


def test_nothing_stays_open() -> None:
    before = sorted(os.listdir("/dev/fd"))
    threads = threading.active_count()
    pair = Pair()
    with pair.nodes[0], pair.nodes[1]:
        near, _far = pair.connect()
        near.write(b"unread")
    assert sorted(os.listdir("/dev/fd")) == before
    assert threading.active_count() == threads
    Node([MemoryLink(Cable(), 1)]).close()
    assert sorted(os.listdir("/dev/fd")) == before


def test_leaving_by_an_exception_resets_what_is_not_finished() -> None:
    pair = Pair()

    def fail() -> None:
        with pair.nodes[0]:
            half, far_half = pair.connect()
            whole, far_whole = pair.connect()
            half.write(b"half")
            whole.write(b"whole")
            whole.finish()
            far.extend((far_half, far_whole))
            raise KeyError

    far: List[Stream] = []
    with pair.nodes[1]:
        with pytest.raises(KeyError):
            fail()
        assert far[0].read(100) == b"half"
        with pytest.raises(ConnectionResetError):
            far[0].read(100)
        assert far[1].read() == b"whole"


def test_addresses() -> None:
    class Taken(MemoryLink):
        slot: Optional[int] = 1

        def claim(self) -> Optional[int]:
            return self.slot

    class Unknown(Taken):
        slot = None

    silent = MemoryLink(Cable(), 1)
    silent.mac = bytes(6)
    with contextlib.ExitStack() as stack:
        nodes = [Node([link]) for link in (silent, Taken(Cable(), 1), Unknown(Cable(), 1))]
        nodes.append(Node([MemoryLink(Cable(), 1)], address=b"\2abcde"))
        for node in nodes:
            stack.callback(node.close)
        assert nodes[3].address == b"\2abcde"
        assert {node.address[0] for node in nodes} == {2}
        assert len({node.address for node in nodes}) == 4


# --- Links in trouble -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [errno.ENETDOWN, errno.ENXIO, errno.ENODEV])
def test_a_link_that_goes_down_and_comes_back(pair: Pair, problem: int) -> None:
    near, far = pair.connect()
    near.write(b"before ")
    near.drain(SECONDS)
    pair.links[0].down = problem
    near.write(b"during ")
    down = next_event(near.node, LinkChanged)
    assert down == LinkChanged("mem1", False, os.strerror(problem))
    assert describe_event(down) == "mem1: " + os.strerror(problem)
    wait_for(near.node, lambda: near.stalled)
    pair.links[0].down = 0
    assert next_event(near.node, LinkChanged).up
    near.write(b"after")
    near.drain(SECONDS)
    assert far.read(100) == b"before during after"


@pytest.mark.parametrize("problem", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_card_delays_but_loses_nothing(pair: Pair, problem: int) -> None:
    near, far = pair.connect()
    count = 0

    def refuse_every_second(frame: bytes) -> Optional[int]:
        nonlocal count
        count += 1
        return problem if count % 2 else None

    pair.links[0].fault = refuse_every_second
    data = os.urandom(200_000)
    received = in_thread(lambda: read_all(far))
    with near:
        near.write(data)
        near.drain(SECONDS)  # a busy machine may need longer than `impatience` allows
    assert received() == data


def test_a_card_without_carrier_is_tried_now_and_then(pair: Pair) -> None:
    near, far = pair.connect()
    tries, began = 0, time.monotonic()

    def refuse(frame: bytes) -> Optional[int]:
        nonlocal tries
        tries += time.monotonic() - began < BLOCKED_PATIENCE  # on a busy machine it goes on for longer
        return errno.ENOBUFS

    pair.links[0].fault = refuse
    near.write(bytes(100_000))
    wait_for(near.node, lambda: near.node.drops.get("blocked"))
    assert 0 < tries < 30
    pair.links[0].down = errno.ENOBUFS
    assert next_event(near.node, LinkChanged) == LinkChanged("mem1", False, "no carrier")
    pair.links[0].down = 0
    pair.links[0].fault = lambda frame: None
    assert next_event(near.node, LinkChanged).up
    near.finish()
    assert read_all(far) == bytes(100_000)


def test_an_mtu_that_shrinks_in_mid_stream(pair: Pair) -> None:
    near, far = pair.connect()
    received = in_thread(lambda: read_all(far))
    near.write(bytes(100_000))
    pair.links[0].real_mtu = 900
    with near:
        near.write(bytes(100_000))
        near.drain(SECONDS)
    assert received() == bytes(200_000)


def refuse_beyond(length: int) -> Callable[[bytes], Optional[int]]:
    """As a veth does whose other end takes no larger frames."""
    return lambda frame: errno.ENOBUFS if len(frame) > length else None


def test_a_frame_too_large_for_the_other_end_holds_up_no_smaller_one(pair: Pair) -> None:
    """The same error as that of a full card: but smaller ones get through meanwhile."""
    near, far = pair.connect()
    one, two = pair.nodes
    received = in_thread(lambda: read_all(far))
    near.write(bytes(50_000))
    near.drain(SECONDS)
    pair.links[0].fault = refuse_beyond(900)
    near.write(bytes(50_000))
    wait_for(one, lambda: one.drops.get("send: refused size"))
    assert one.send_message(two.address, "good day", timeout=SECONDS) < 1
    assert not one.drops.get("blocked")
    pair.links[0].fault = lambda frame: None
    near.finish()
    assert received() == bytes(100_000)


def test_a_far_end_whose_mtu_falls_says_so_before_it_is_asked(pair: Pair) -> None:
    near, far = pair.connect()
    one = near.node
    received = in_thread(lambda: read_all(far))
    near.write(bytes(100_000))
    pair.links[0].fault = refuse_beyond(900 + ETHERNET_HEADER_BYTES)
    pair.links[1].real_mtu = 900
    pair.links[1].notify()
    with near:
        near.write(bytes(100_000))
        near.drain(SECONDS)
    assert received() == bytes(200_000)
    assert [node.mtu for node in one.nodes()] == [900]


def test_jumbo_frames_that_a_switch_refuses_are_given_up() -> None:
    pair = Pair(9000)
    for link in pair.links:
        link.fault = refuse_beyond(1500 + ETHERNET_HEADER_BYTES)
    with pair.nodes[0], pair.nodes[1]:
        near, far = pair.connect()
        received = in_thread(lambda: read_all(far))
        near.write(bytes(200_000))
        near.finish()
        assert received() == bytes(200_000)
        assert pair.nodes[0].drops["send: refused size"] >= 1
        assert [node.mtu for node in pair.nodes[0].nodes()] == [1500]


def test_jumbo_frames_that_no_longer_get_through_are_given_up() -> None:
    pair = Pair(9000)
    one, two = pair.nodes
    with one, two:
        for node in pair.nodes:  # a stream keeps the size that both ends knew when it was opened
            wait_for_mtu(node, 9000)
        near, far = pair.connect()
        received = in_thread(lambda: read_all(far))
        near.write(bytes(200_000))
        for link in pair.links:
            link.fault = refuse_beyond(1500 + ETHERNET_HEADER_BYTES)
        near.write(bytes(200_000))
        near.drain(SECONDS)
        assert one.drops["send: refused size"] >= 1
        assert [node.mtu for node in one.nodes()] == [1500]
        near.finish()
        assert received() == bytes(400_000)


def wait_for_mtu(node: Node, mtu: int) -> None:
    """Until the path to the only other node has it."""
    deadline = time.monotonic() + SECONDS
    while [known.mtu for known in node.nodes()] != [mtu]:
        assert time.monotonic() < deadline, node.nodes()
        node.wait(timeout=0.01)


def test_a_size_refused_without_a_smaller_mtu_counts_as_lost(pair: Pair) -> None:
    near, far = pair.connect()
    pair.links[0].fault = lambda frame: errno.EMSGSIZE if len(frame) > 1000 else None
    near.write(bytes(50_000))
    wait_for(near.node, lambda: near.node.drops.get("send: refused size"))
    pair.links[0].fault = lambda frame: None
    near.finish()
    assert read_all(far) == bytes(50_000)


# --- Links that change ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["notice", "interval", "error"])
def test_another_name_and_ethernet_address_are_taken_and_told(pair: Pair, why: str, monkeypatch: Any) -> None:
    """Whether the system says that something has changed, or an error makes the node look, or it is time to."""
    one, two = pair.nodes
    link = pair.links[0]
    address, new = one.address, address_of(0x77)
    link.slots[new] = 3
    if why == "interval":
        monkeypatch.setattr("constants.HANDSHAKE_INTERVAL", 0.2)
        one._look_at = one.now() + 0.2
    one.send_message(two.address, "good day", timeout=SECONDS)
    link.real_mac, link.real_name = new, "wan\x1b[0m"
    if why == "notice":
        link.notify()
    elif why == "error":
        fault = [errno.EIO]
        link.fault = lambda frame: fault.pop() if fault else None
        one.broadcast("x")
    assert next_event(one, LinkChanged) == LinkChanged("wan\x1b[0m", True, "mem1 is called so now")
    change = next_event(one, LinkChanged)
    assert describe_event(change) == "wan^[[0m: new Ethernet address 02:00:00:00:00:77"
    assert one.address == address
    assert one._router.local.interfaces[0].slot == 3
    two.send_message(one.address, "still there", timeout=SECONDS)
    deadline = time.monotonic() + SECONDS
    while [neighbour.mac for neighbour in two.neighbours()] != [new]:
        assert time.monotonic() < deadline
        two.wait(timeout=0.02)


def test_an_interface_of_no_use_is_down_and_says_why(pair: Pair) -> None:
    one, two = pair.nodes
    one.send_message(two.address, "good day", timeout=SECONDS)
    pair.links[0].problem = "MTU 100 is too small"
    pair.links[0].notify()
    assert next_event(one, LinkChanged) == LinkChanged("mem1", False, "MTU 100 is too small")
    pair.links[0].notify()  # is not told again
    pair.links[0].problem = ""
    pair.links[0].notify()
    assert next_event(one, LinkChanged) == LinkChanged("mem1", True, "works again")
    one.send_message(two.address, "good day", timeout=SECONDS)


def test_waiting_for_files_of_any_number() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    reading, writing = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 2000) for end in (reading, writing)]
    assert wait_for_files([high[0]], 0) == []
    assert wait_for_files([high[0]], None, [high[1]]) == [high[1]]
    os.write(writing, b"x")
    assert wait_for_files([high[0], reading], SECONDS) == [high[0], reading]
    for file in (reading, writing, *high):
        os.close(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        wait_for_files([reading], 0)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("eth0", "eth0"),
        ("eth0,eth1", "eth0,eth1"),
        ("$(id)", "'$(id)'"),
        ("it's", "'it'\"'\"'s'"),
        ("a\x1b[0m'\\", "$'a\\033[0m\\047\\134'"),
        (os.fsdecode(b"e\xff"), "$'e\\377'"),
        ("caf\xe9", "'caf\xe9'"),
    ],
)
def test_names_for_a_shell(name: str, shown: str) -> None:
    assert quoted(name) == shown
    echoed = subprocess.run(["bash", "-c", "printf %s " + shown], stdout=subprocess.PIPE, check=True).stdout
    assert echoed == os.fsencode(name)


def test_a_storm_of_broadcasts_leaves_a_stream_its_turn(pair: Pair) -> None:
    """What the cards cannot hold is lost, as on a real one."""
    near, far = pair.connect()
    data = os.urandom(200_000)
    source = MemoryLink(pair.cable, 9)
    frames = [
        encode_ethernet(b"\xff" * 6, source.mac, encode_frame(Frame(kind, source.mac, EVERYONE, 5, number, b"storm")))
        for number in range(25_000)
        for kind in (TYPE_HANDSHAKE, TYPE_BROADCAST)
    ]
    storm = in_thread(lambda: [source.send(frame) for frame in frames])
    received = in_thread(lambda: read_all(far))
    near.write(data)
    near.finish()
    near.drain(SECONDS)
    assert received() == data
    storm()
    near.close()
    source.close()


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_wall_clock_may_jump(pair: Pair, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    near, far = pair.connect()
    near.write(b"before ")
    near.drain(SECONDS)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + 3600 * hours)
    near.write(b"after")
    near.drain(SECONDS)
    assert far.read(100) == b"before after"


def test_a_machine_that_slept_five_minutes_asks_before_it_gives_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its monotonic clock jumps while bytes are under way."""
    near, far = pair.connect()
    pair.links[1].down = errno.ENETDOWN
    near.write(b"sent before it slept")
    wait_for(near.node, lambda: near.stalled)
    true_now, asleep = Node.now, near.node
    monkeypatch.setattr(Node, "now", lambda self: true_now(self) + (300 if self is asleep else 0))
    pair.links[1].down = 0
    near.drain(SECONDS)
    assert far.read(100) == b"sent before it slept"


# --- The command line -----------------------------------------------------------------------------------------------


def test_addresses_that_users_give() -> None:
    with Node([MemoryLink(Cable(), 1)]) as node:
        assert peer_address("2:0:0:0:0:2", node) == b"\2\0\0\0\0\2"
        for text in ("02:00:00:00:00", "no name", "", "~00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"):
            with pytest.raises(SetupError, match="address"):
                peer_address(text, node)
        with pytest.raises(SetupError, match="own address"):
            peer_address("02:00:00:00:00:01", node)


def address_of(number: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, number))


def test_a_name_is_waited_for() -> None:
    cable = Cable()
    with Node([MemoryLink(cable, 1)]) as node:
        found = in_thread(lambda: peer_address("late", node))
        with Node([MemoryLink(cable, 2)], name="late"):
            assert found() == address_of(2)


def test_nobody_answers_to_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constants.FIND_SECONDS", 0.1)
    with Node([MemoryLink(Cable(), 1)]) as node, pytest.raises(TimeoutError, match=r"no node named ann answered"):
        peer_address("ann", node)


def test_the_users_names(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The second file goes before the first; what is wrong in them is said with its place, and left out."""
    machine, own = tmp_path / "machine", tmp_path / "own"
    machine.write_text("02:00:00:00:00:02 ann\n02:00:00:00:00:03 bob # my brother\n02:00:00:00:00:04 eve\n")
    own.write_bytes(b"# mine\n\nnonsense x\n2-0-0-0-0-9 ann\r\n02:00:00:00:00:04 mum\n02:00:00:00:00:05 \xff\n")
    monkeypatch.setattr("node._NAMES_FILES", (str(machine), str(own), str(tmp_path / "absent")))
    assert read_names(None) == {address_of(9): "ann", address_of(3): "bob", address_of(4): "mum"}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"{own}:3:", f"{own}:6:"]
    assert "'nonsense' is not an address" in lines[0]
    assert read_names(str(machine)) == {address_of(2): "ann", address_of(3): "bob", address_of(4): "eve"}
    with pytest.raises(SetupError, match=r"cannot read the names in .*absent: No such file"):
        read_names(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("choice", "terminal", "environment", "colored"),
    [
        ("auto", True, {"TERM": "xterm"}, True),
        ("auto", True, {"TERM": "xterm", "NO_COLOR": ""}, True),  # as no-color.org has it
        ("auto", True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", True, {}, False),
        ("auto", False, {"TERM": "xterm"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"TERM": "xterm"}, False),
    ],
)
def test_when_to_color(
    monkeypatch: pytest.MonkeyPatch, choice: str, terminal: bool, environment: Dict[str, str], colored: bool
) -> None:
    file: Any = types.SimpleNamespace(isatty=lambda: terminal)
    arguments = argument_parser("prog.py", "What it does.").parse_args(["eth0", "--color", choice])
    monkeypatch.setattr("os.environ", environment)
    assert has_color(arguments, file) == colored
    assert emphasis(arguments, file)("text") == ("\x1b[1mtext\x1b[m" if colored else "text")


def test_an_interface_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(SetupError, match=r"no interface 'nope\^\[' here, but: .*\blo"):
        EthernetLink("nope\x1b")


def test_parser() -> None:
    parser = argument_parser("prog.py", "What it does.", "More.")
    arguments = parser.parse_args(["eth0,eth1", "--name", "bob"])
    assert (arguments.interface, arguments.name) == ("eth0,eth1", "bob")
    assert "More.\nexit status: 0 done" in parser.format_help()


def test_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    assert login_name() == "ann"
    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setenv("LOGNAME", "bob")
    assert login_name() == "bob"


ANN = {"SUDO_UID": "1000", "SUDO_GID": "1001", "SUDO_USER": "ann"}


@pytest.mark.parametrize(
    ("environment", "faults", "says"),
    [
        ({}, {}, ""),  # a root shell
        ({"SUDO_UID": "0", "SUDO_GID": "0", "SUDO_USER": "root"}, {}, ""),
        ({"SUDO_UID": "1000", "SUDO_GID": "1001", "SUDO_USER": "ann"}, {}, "ann (uid 1000, gid 1001)"),
        ({"SUDO_UID": "1000", "SUDO_GID": "1001", "SUDO_USER": "ann"}, {"keeps": True}, "given up for good"),
        (
            {"SUDO_UID": "1000", "SUDO_GID": "1001", "SUDO_USER": "ann"},
            {"setuid": 1},
            "cannot become .*EPERM|Operation",
        ),
        ({"SUDO_UID": "1000", "SUDO_GID": "1001", "SUDO_USER": "ann"}, {"prctl": 22}, "cannot become .*Invalid"),
        ({"SUDO_UID": "x", "SUDO_GID": "1001", "SUDO_USER": "ann"}, {}, "cannot become"),
        ({"SUDO_UID": "1000"}, {}, "cannot become .*SUDO_GID"),
    ],
)
def test_who_a_program_under_sudo_becomes(
    monkeypatch: pytest.MonkeyPatch, environment: Dict[str, str], faults: Dict[str, int], says: str
) -> None:
    """A kernel that only notes what it is asked; with `keeps` it lets anybody become root again."""
    calls: List[Tuple[Any, ...]] = []

    def become(call: str, *ids: Any) -> None:
        calls.append((call, *ids))
        if call in faults or (ids == (0,) and "keeps" not in faults):
            raise OSError(faults.get(call, errno.EPERM), os.strerror(faults.get(call, errno.EPERM)))

    monkeypatch.setattr("os.environ", dict(environment))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("node._LINUX", True)
    monkeypatch.setattr("node._forbid_new_privileges", functools.partial(become, "prctl"))
    for call in ("initgroups", "setgid", "setuid", "seteuid"):
        monkeypatch.setattr(f"os.{call}", functools.partial(become, call))
    if says.startswith(("cannot", "given")):
        with pytest.raises(SetupError, match=f"{says}.*--keep-root"):
            drop_privileges()
    else:
        assert drop_privileges() == says
        gone = [("initgroups", "ann", 1001), ("setgid", 1001), ("setuid", 1000), ("prctl",)]
        assert calls == ([*gone, ("seteuid", 0), ("setuid", 0)] if says else [])


@pytest.mark.parametrize(
    ("is_sudo", "environment", "executable", "prefix", "found", "command"),
    [
        (True, {}, "/usr/bin/python3", "/usr", "/usr/bin/python3", "sudo python3 x.py lo"),
        (True, {}, "/env/bin/python", "/env", "/usr/bin/python3", "sudo /env/bin/python x.py lo"),
        (True, {}, "/my env/bin/python", "/my env", None, "sudo '/my env/bin/python' x.py lo"),
        (True, {"SUDO_UID": "1"}, "/env/bin/python", "/env", "/usr/bin/python3", "sudo /env/bin/python x.py lo"),
        (False, {}, "/env/bin/python3", "/env", "/env/bin/python3", "python3 x.py lo"),
    ],
)
def test_printed_commands_name_the_interpreter_in_use(
    is_sudo: bool,
    environment: Dict[str, str],
    executable: str,
    prefix: str,
    found: Optional[str],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """sudo has a PATH of its own, which the program sees only if it runs under it."""
    paths = []

    def which(name: str, path: Optional[str]) -> Optional[str]:
        paths.append(path)
        return found

    monkeypatch.setattr("shutil.which", which)
    monkeypatch.setattr("os.environ", environment)
    monkeypatch.setattr("sys.executable", executable)
    monkeypatch.setattr("sys.prefix", prefix)
    monkeypatch.setattr("sys.base_prefix", "/usr")
    monkeypatch.setattr("node._LINUX", True)
    assert start_command("x.py lo", is_sudo=is_sudo) == command
    assert (paths[0] is None) == (not is_sudo or "SUDO_UID" in environment)


def script(body: str, *, wrapper: Sequence[str] = (), **options: Any) -> "subprocess.Popen[str]":
    """Run `body` as the main function of a script."""
    lines = ["import os, signal, sys, time", "from node import *", "from node import run", "def main():"]
    lines += ["    " + line for line in body.splitlines()] + ["sys.exit(run(main))"]
    return subprocess.Popen(
        [*wrapper, sys.executable, "-bb", "-W", "error", "-c", "\n".join(lines)],
        cwd=ROOT, env=dict(os.environ, PYTHONIOENCODING="ascii"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "out", "err"),
    [
        ("print('done')", 0, "done\n", ""),
        ("return 3", 3, "", ""),
        ("print('caf\\xe9 \\u263a')", 0, "caf\\xe9 \\u263a\n", ""),
        ("sys.exit(4)", 4, "", ""),
        ("raise SetupError('no such thing: make one')", 2, "", "-c: no such thing: make one\n"),
        ("raise ConnectionRefusedError('refused')", 1, "", "-c: refused\n"),
        ("open('/nope')", 1, "", "-c: [Errno 2] No such file or directory: '/nope'\n"),
        ("raise OSError(28, 'No space left on device')", 1, "", "-c: No space left on device\n"),
        ("1 // 0", 1, "", None),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", 130, "", ""),
        (
            "try:\n  os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)\nfinally:\n  print('closed')",
            143,
            "closed\n",
            "",
        ),
        ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(9)", 129, "", ""),
    ],
)
def test_how_scripts_end(body: str, status: int, out: str, err: Optional[str]) -> None:
    process = script(body)
    shown = process.communicate(timeout=SECONDS)
    assert (process.returncode, shown[0]) == (status, out)
    if err is None:
        assert shown[1].count("\n") == 1
        assert "internal error, please report: ZeroDivisionError" in shown[1]
    else:
        assert shown[1] == err


def test_a_closed_output_ends_a_script_quietly() -> None:
    process = script("while True: print('x' * 1000)")
    assert process.stdout is not None
    assert process.stdout.read(10) == "x" * 10
    process.stdout.close()
    assert process.wait(SECONDS) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        process = script("print('x')")
        process.communicate(timeout=SECONDS)
        again = subprocess.run(
            process.args, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, universal_newlines=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
    assert (again.returncode, again.stderr) == (1, "-c: No space left on device\n")


def test_standard_files_that_are_closed_are_not_taken_by_sockets() -> None:
    process = script(
        "os.write(3, str(os.open('/', 0)).encode())", wrapper=["sh", "-c", 'exec "$@" 3>&1 <&- >&- 2>&-', "sh"]
    )
    out, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, int(out) > 3) == (0, True)


def test_a_signal_in_the_middle_of_a_machine_waits_until_it_is_done() -> None:
    process = script(
        "from node import INTERRUPTS\n"
        "with INTERRUPTS:\n"
        "  with INTERRUPTS:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.05)\n"
        "  print('whole')\n"
        "time.sleep(9)"
    )
    assert process.communicate(timeout=SECONDS) == ("whole\n", "")
    assert process.returncode == 130


@pytest.mark.parametrize("where", ["node.wait()", "[0 for _ in iter(int, 1)]", "open(0).read()"])
def test_ctrl_c_ends_a_program_wherever_it_is(where: str) -> None:
    process = script(
        "import warnings\n"
        "warnings.simplefilter('ignore')\n"  # of what the tests' own tools say on old Pythons
        "sys.path.append('tests'); import paths\n"
        "from test_node import Pair\n"
        "node = Pair().nodes[0]\n"
        f"print('there', flush=True)\n"
        f"{where}",
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(SECONDS)
    assert time.monotonic() - began < 1  # 50 ms on an idle machine
    process.communicate()
    assert process.returncode == 130


# --- BPF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length_at", "alignment", "header"), [(8, 4, 18), (16, 8, 32)])  # macOS, FreeBSD
def test_frames_are_found_in_what_a_bpf_device_gives(length_at: int, alignment: int, header: int) -> None:
    frames = [bytes([n]) * (14 + n) for n in range(70)]
    data = b""
    for frame in frames:
        size = len(frame).to_bytes(4, sys.byteorder)
        data += (bytes(length_at) + size + size + header.to_bytes(2, sys.byteorder)).ljust(header, b"\0") + frame
        data += bytes(-len(data) % alignment)
    assert list(bpf_frames(data, length_at, alignment)) == frames
    assert list(bpf_frames(b"", length_at, alignment)) == []
    assert len(list(bpf_frames(bytes(1000), length_at, alignment))) < 1000  # nonsense ends
