"""The small scripts over fakes: what they print, write and return. (test_real_frames.py runs them on real frames.)"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Tuple

import pytest
from fakes import FakeListener, FakeNode, FakeStream, connect
from paths import ROOT

import alexstream_client
import alexstream_server
import send_handshake
import send_message
from alexstream_client import Transfer
from alexstream_server import Server, Shown
from node import BusyError, EthernetLink, Output, SetupError, StandardOutputs, peer_address
from protocol import Echoed, NodeInfo

# --- send_handshake and send_message ---------------------------------------------------------------------------------


@pytest.fixture
def run_script(monkeypatch: Any) -> Callable[..., int]:
    """Run a script's main on a fake node with these arguments."""

    def run(module: Any, *arguments: str, **methods: Any) -> int:
        node = FakeNode(1)
        for name, method in methods.items():
            setattr(node, name, method)
        monkeypatch.setattr(sys, "argv", ["script", "fake0", *arguments])
        monkeypatch.setattr(module, "open_node", lambda arguments, **_: node)
        status: int = module.main()
        return status

    return run


FOUND = [
    NodeInfo(b"\4" * 6, 0, b"\2" * 6, 2, 1400, "", (), 0.0123, 999.0),
    NodeInfo(b"\2" * 6, 0, b"\2" * 6, 1, 1500, "b\x1bb", (1, 2), 0.0005, 999.5),
]


def test_handshake_answered(run_script: Any, capsys: Any) -> None:
    assert run_script(send_handshake, discover=lambda wait: FOUND) == 0
    assert capsys.readouterr().out.splitlines() == [
        "02:02:02:02:02:02  1 hop   direct                MTU 1500  0.50 ms   ports 1 2  b?b~02:02",
        "04:04:04:04:04:04  2 hops  by 02:02:02:02:02:02  MTU 1400  12.30 ms  ports -",
    ]


def test_a_next_hop_that_nobody_knows_is_a_dash(run_script: Any, capsys: Any) -> None:
    """A node known by rumour, on a card that several programs share: the relay cannot be told from the others."""
    rumour = [NodeInfo(b"\4" * 6, 0, bytes(6), 2, 1500, "", (), None, 999.0)]
    assert run_script(send_handshake, discover=lambda wait: rumour) == 0
    assert "  2 hops  by -  MTU 1500" in capsys.readouterr().out
    assert run_script(send_handshake, "--json", discover=lambda wait: rumour) == 0
    assert json.loads(capsys.readouterr().out)["next_hop"] is None


def test_handshake_answered_in_color(run_script: Any, capsys: Any) -> None:
    assert run_script(send_handshake, "--color", "always", discover=lambda wait: FOUND) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("\x1b[1m02:02:02:02:02:02\x1b[m  1 hop   direct     ")
    assert second.startswith("\x1b[1m04:04:04:04:04:04\x1b[m  2 hops  by ")


def test_handshake_answered_in_json(run_script: Any, capsys: Any) -> None:
    assert run_script(send_handshake, "--json", discover=lambda wait: FOUND) == 0
    near, far = map(json.loads, capsys.readouterr().out.splitlines())
    assert (near["name"], near["ports"], near["age"], near["interface"]) == ("b\x1bb", [1, 2], 0.5, "fake0")
    assert (far["address"], far["next_hop"], far["mtu"], far["rtt"]) == (
        "04:04:04:04:04:04", "02:02:02:02:02:02", 1400, 0.0123,
    )  # fmt: skip


def test_handshake_not_answered(run_script: Any, capsys: Any) -> None:
    waited: List[float] = []

    def discover(wait: float) -> List[NodeInfo]:
        waited.append(wait)
        return []

    assert run_script(send_handshake, "--wait", "0.5", discover=discover) == 1
    assert waited == [0.5]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nobody answered" in captured.err


PEER = b"\2\0\0\0\0\x09"


def pinging(*answers: Optional[float], interrupted: bool = False, asked: Optional[List[Any]] = None) -> Any:
    """A `ping` whose answers take so many seconds; None: there is none."""

    def ping(*arguments: Any, **options: Any) -> Iterator[Any]:
        if asked is not None:
            asked.append((*arguments, options))
        for number, rtt in enumerate(answers, 1):
            yield number, None
            if rtt is not None:
                yield number, Echoed(number, PEER, 3, rtt, "", ())
        if interrupted:
            raise KeyboardInterrupt

    return ping


def test_ping_answered(run_script: Any, capsys: Any) -> None:
    asked: List[Any] = []
    options = ("02:00:00:00:00:09", "--count", "3", "--interval", "0.5", "--wait", "2")
    assert run_script(send_handshake, *options, ping=pinging(0.001, None, 0.002, asked=asked)) == 0
    assert asked == [(PEER, {"count": 3, "interval": 0.5, "wait": 2.0})]
    assert capsys.readouterr().out.splitlines() == [
        "reply from 02:00:00:00:00:09: seq=1 hops=3 time=1.000 ms",
        "reply from 02:00:00:00:00:09: seq=3 hops=3 time=2.000 ms",
        "--- 02:00:00:00:00:09 ping statistics ---",
        "3 sent, 2 received, 33.3% lost",
        "round trip min/avg/max = 1.000/1.500/2.000 ms",
    ]


def test_ping_in_json(run_script: Any, capsys: Any) -> None:
    assert run_script(send_handshake, "02:00:00:00:00:09", "--json", ping=pinging(0.001, None)) == 0
    reply, statistics = map(json.loads, capsys.readouterr().out.splitlines())
    assert reply == {"type": "reply", "address": "02:00:00:00:00:09", "seq": 1, "hops": 3, "rtt": 0.001}
    assert statistics == {
        "type": "statistics", "address": "02:00:00:00:00:09", "sent": 2, "received": 1, "loss": 0.5,
        "rtt_min": 0.001, "rtt_avg": 0.001, "rtt_max": 0.001,
    }  # fmt: skip


def test_ping_in_few_words(run_script: Any, capsys: Any) -> None:
    assert run_script(send_handshake, "02:00:00:00:00:09", "-q", ping=pinging(0.001)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "--- 02:00:00:00:00:09 ping statistics ---"


@pytest.mark.parametrize(("answers", "status"), [((0.001,), 0), ((None,), 1), ((), 1)])
def test_ping_interrupted(run_script: Any, capsys: Any, answers: Any, status: int) -> None:
    ping = pinging(*answers, interrupted=True)
    arguments = (send_handshake, "02:00:00:00:00:09", "--count", "0")
    assert run_script(*arguments, ping=ping, knows=lambda address: True) == status
    captured = capsys.readouterr()
    assert f"{len(answers)} sent, {1 - status} received" in captured.out
    assert captured.err == ""


def test_ping_nobody(run_script: Any, capsys: Any) -> None:
    ping = pinging(None, None)
    assert run_script(send_handshake, "02:00:00:00:00:09", ping=ping, knows=lambda address: False) == 1
    captured = capsys.readouterr()
    assert "2 sent, 0 received, 100% lost" in captured.out
    assert "no such node 02:00:00:00:00:09" in captured.err


def tracing(*hops: Any) -> Any:
    """A `trace` with these answers: (address, name, round trip), or None."""

    def trace(dest: bytes, *, wait: float) -> Iterator[Tuple[int, Optional[Echoed]]]:
        for number, hop in enumerate(hops, 1):
            yield number, hop and Echoed(number, hop[0], 9, hop[2], hop[1], ())

    return trace


RELAY = b"\2\0\0\0\0\2"


def test_trace_shows_each_hop(run_script: Any, capsys: Any) -> None:
    trace = tracing((RELAY, "attic", 0.0005), None, (PEER, "", 0.002))
    assert run_script(send_handshake, "02:00:00:00:00:09", "--trace", trace=trace) == 0
    assert capsys.readouterr().out.splitlines() == [
        " 1  02:00:00:00:00:02  attic  0.500 ms",
        " 2  *",
        " 3  02:00:00:00:00:09  -  2.000 ms",
    ]


def test_trace_in_json(run_script: Any, capsys: Any) -> None:
    trace = tracing(None, (PEER, "", 0.002))
    assert run_script(send_handshake, "02:00:00:00:00:09", "--trace", "--json", trace=trace) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"type": "hop", "number": 1, "address": None, "name": None, "rtt": None},
        {"type": "hop", "number": 2, "address": "02:00:00:00:00:09", "name": "", "rtt": 0.002},
    ]


def test_trace_ends_after_five_silent_hops(run_script: Any, capsys: Any) -> None:
    trace = tracing(None, None, (RELAY, "attic", 0.0005), *[None] * 20)
    assert run_script(send_handshake, "02:00:00:00:00:09", "--trace", trace=trace) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 8
    assert captured.err == "02:00:00:00:00:09 does not answer\n"


def test_trace_without_a_node_is_misuse(run_script: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_script(send_handshake, "--trace")
    assert "--trace needs a NODE" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["--count=-1", "--count=x", "--interval=0", "--interval=nan", "--wait=-1"])
def test_ping_misused(run_script: Any, wrong: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_script(send_handshake, "02:00:00:00:00:09", wrong)


def test_message_acknowledged(run_script: Any, capsys: Any) -> None:
    sent: List[Any] = []

    def send(*arguments: Any, timeout: float) -> float:
        sent.append((*arguments, timeout))
        return 0.00125

    assert run_script(send_message, "02-0-0-0-0-9", "hi", "--timeout", "7", send_message=send) == 0
    assert sent == [(b"\2\0\0\0\0\x09", "hi", 7.0)]
    assert capsys.readouterr().out == "delivered to 02:00:00:00:00:09 in 1.25 ms\n"


def test_message_not_acknowledged(run_script: Any, capsys: Any) -> None:
    def send(*arguments: Any, timeout: float) -> float:
        raise TimeoutError("no acknowledgement")

    assert run_script(send_message, "02:00:00:00:00:09", "hi", send_message=send) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "not delivered: no acknowledgement\n")
    assert run_script(send_message, "02:00:00:00:00:09", "hi", "--json", send_message=send) == 1
    assert json.loads(capsys.readouterr().out) == {
        "type": "not delivered", "address": "02:00:00:00:00:09", "reason": "no acknowledgement",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "out"),
    [("--quiet", ""), ("--json", '{"type": "delivered", "address": "02:00:00:00:00:09", "rtt": 0.00125}\n')],
)
def test_message_acknowledged_in_other_words(run_script: Any, capsys: Any, option: str, out: str) -> None:
    def send(*arguments: Any, timeout: float) -> float:
        return 0.00125

    assert run_script(send_message, "02:00:00:00:00:09", "hi", option, send_message=send) == 0
    assert capsys.readouterr().out == out


def test_message_to_a_name(run_script: Any) -> None:
    sent: List[bytes] = []

    def send(peer: bytes, text: str, *, timeout: float) -> float:
        sent.append(peer)
        return 0.001

    options: Any = {"send_message": send, "discover": lambda wait, enough: FOUND}
    assert run_script(send_message, "b?b~02:02", "hi", names={b"\4" * 6: "ann"}, **options) == 0
    assert run_script(send_message, "ann", "hi", names={b"\4" * 6: "ann"}, **options) == 0
    assert sent == [b"\2" * 6, b"\4" * 6]


def test_message_to_everybody(run_script: Any) -> None:
    sent: List[str] = []
    assert run_script(send_message, "FF:FF:FF:FF:FF:FF", "hi", broadcast=sent.append) == 0
    assert sent == ["hi"]


@pytest.mark.parametrize("address", ["02:00:00:00:00:01", "01:00:00:00:00:01", "02:00:00:00:00", "no name"])
def test_message_to_a_bad_address(run_script: Any, address: str) -> None:
    """Its own, a group, no address, and no name either."""
    with pytest.raises(SetupError, match=address):
        run_script(send_message, address, "hi")


def named_nodes(*said: str) -> FakeNode:
    """A node that finds nodes 2, 3 ... of these names."""
    node = FakeNode(1)
    for number, name in enumerate(said, 2):
        address = bytes([2, 0, 0, 0, 0, number])
        node.found.append(NodeInfo(address, 0, address, 1, 1500, name, (), 0.001, 999.0))
    node.names = {b"\2\0\0\0\0\x99": "dad", b"\2\0\0\0\0\3": "robert"}
    return node


@pytest.mark.parametrize(
    ("text", "number"),
    [("bob", 3), ("robert", 3), ("dad", 0x99), ("dad~00:07", 7), ("ann~00:04", 4), ("Jürgen", 5), ("eve??2J~00:06", 6)],
)
def test_names_are_found_in_the_users_file_and_in_the_mesh(text: str, number: int) -> None:
    with named_nodes("ann", "bob", "ann", "Jürgen", "eve\x1b[2J", "dad") as node:
        assert peer_address(text, node) == bytes([2, 0, 0, 0, 0, number])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "text", "problem"),
    [
        (["ann", "bob", "ann"], "ann",
         "several nodes are called ann, choose one: ann~00:02 (02:00:00:00:00:02), ann~00:04 (02:00:00:00:00:04)"),
        (["ann", "", "eve\x1b"], "zoe",
         "no node is named zoe, but: ann (02:00:00:00:00:02), eve?~00:04 (02:00:00:00:00:04), "
         "robert (02:00:00:00:00:03)"),
        ([""], "zoe", " send_handshake.py fake0 lists addresses"),
        ([f"n{number}" for number in range(10, 30)], "zoe", "n19 (02:00:00:00:00:0b), n20 (02:00:00:00:00:0c), ..."),
    ],
)  # fmt: skip
def test_names_that_are_not_found(monkeypatch: Any, said: List[str], text: str, problem: str) -> None:
    monkeypatch.setattr(sys, "argv", ["send_message.py"])
    monkeypatch.delenv("SUDO_UID", raising=False)
    with named_nodes(*said) as node, pytest.raises(SetupError) as caught:
        peer_address(text, node)  # type: ignore[arg-type]
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 500


def test_message_too_long(run_script: Any) -> None:
    def send(*arguments: Any, timeout: float) -> float:
        raise ValueError("2000 bytes do not fit, 1477 do")

    with pytest.raises(SetupError, match=r"2000 .* 1477"):
        run_script(send_message, "02:00:00:00:00:09", "x" * 2000, send_message=send)


# --- alexstream_client -----------------------------------------------------------------------------------------------


@pytest.fixture
def stdin() -> Iterator[BinaryIO]:
    """The writing end of a pipe that is file 0 meanwhile."""
    before = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    with os.fdopen(writing, "wb", 0) as end:
        yield end
    os.dup2(before, 0)
    os.close(before)


class Sink:
    """A server that takes everything, and finishes when its client has."""

    def __init__(self, node: FakeNode, *, answer: bytes = b"") -> None:
        self.stream = connect(node, FakeNode(2))
        self.taken = b""
        self.answer = answer
        node.others_turn = self.take

    def take(self) -> None:
        data = self.stream.other.read(1 << 20)
        self.taken += data or b""
        if data == b"" and not self.stream.other.finished:
            self.stream.other.write(self.answer)
            self.stream.other.finish()


def test_transfer_text(capfdbinary: Any) -> None:
    with FakeNode(1) as node:
        sink = Sink(node, answer=b"thanks\0\xff")
        Transfer(node, sink.stream, b"text").run()  # type: ignore[arg-type]
        assert sink.taken == b"text"
        assert capfdbinary.readouterr().out == b"thanks\0\xff"


@pytest.mark.parametrize("resets", [False, True])
def test_transfer_told_in_json(capfd: Any, resets: bool) -> None:
    """On stderr: stdout has what the other side sent back."""
    with FakeNode(1) as node:
        sink = Sink(node, answer=b"thanks")
        if resets:
            node.others_turn = sink.stream.other.abort
        options = {"node": "02:00:00:00:00:02", "text": "text", "json": True, "quiet": False}
        node.connect = lambda peer, port: sink.stream  # type: ignore[attr-defined]
        caught = None
        try:
            alexstream_client.send(node, argparse.Namespace(**options))  # type: ignore[arg-type]
        except OSError as error:
            caught = str(error)
        assert caught == ("NOT delivered: reset by peer; its node holds 0 of the 0 bytes sent" if resets else None)
        shown = capfd.readouterr()
        outcome = {"reason": "reset by peer"} if resets else {"seconds": 0.0}
        kind = "not delivered" if resets else "delivered"
        count = 0 if resets else 4
        told = {"type": kind, "address": "02:00:00:00:00:02", "bytes": count, "held": count, **outcome}
        assert json.loads(shown.err) == told
        assert shown.out == ("" if resets else "thanks")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError("refused"), "refused; start alexstream_server.py there"),
        (BusyError("busy"), "busy; try again later"),
        (TimeoutError("no such node"), r"no such node; who is there: .*python\S* .*send_handshake.py fake0"),
    ],
)
def test_no_stream(run_script: Any, error: OSError, says: str) -> None:
    def connect_to(peer: bytes, port: int) -> None:
        raise error

    with pytest.raises(type(error), match=says):
        run_script(alexstream_client, "02:00:00:00:00:02", "text", connect=connect_to)


def test_transfer_stdin_in_pieces(stdin: BinaryIO) -> None:
    with FakeNode(1) as node:
        sink = Sink(node)
        left = [b"one", b"\0two", b""]

        def turn() -> None:
            sink.take()
            piece = left.pop(0) if left else b""
            if piece:
                stdin.write(piece)
            else:
                stdin.close()

        node.wake()
        node.others_turn = turn
        Transfer(node, sink.stream, None).run()  # type: ignore[arg-type]
        assert sink.taken == b"one\0two"


def test_transfer_peer_takes_little_at_once(stdin: BinaryIO) -> None:
    with FakeNode(1) as node:
        sink = Sink(node)
        data = os.urandom(50000)
        stdin.write(data)
        stdin.close()

        def turn() -> None:
            sink.take()
            sink.stream.room = 7000
            node.wake()

        sink.stream.room = 0
        node.others_turn = turn
        Transfer(node, sink.stream, None).run()  # type: ignore[arg-type]
        assert sink.taken == data


def test_transfer_last_bytes_come_just_after_a_look(capfdbinary: Any) -> None:
    """And the end with them: it is not over before they are written."""
    with FakeNode(1) as node:
        stream = connect(node, FakeNode(2))

        def answer() -> None:
            stream.other.write(b"thanks")
            stream.other.finish()

        stream.then = answer
        Transfer(node, stream, b"text").run()  # type: ignore[arg-type]
        assert capfdbinary.readouterr().out == b"thanks"


def test_transfer_reset_with_something_left_to_send(capfdbinary: Any) -> None:
    """What the other side said before, and was told to be delivered, is written all the same."""
    with FakeNode(1) as node:
        stream = connect(node, FakeNode(2))
        stream.room = 3

        def refuse() -> None:
            if stream.other.error is None:
                stream.other.write(b"error: no such thing")
                stream.other.abort()

        node.wake()
        node.others_turn = refuse
        with pytest.raises(ConnectionResetError):
            Transfer(node, stream, b"a long text").run()  # type: ignore[arg-type]
        assert capfdbinary.readouterr().out == b"error: no such thing"


def test_transfer_reset() -> None:
    with FakeNode(1) as node:
        sink = Sink(node)
        node.others_turn = sink.stream.other.abort
        with pytest.raises(ConnectionResetError):
            Transfer(node, sink.stream, b"text").run()  # type: ignore[arg-type]


# --- alexstream_server -----------------------------------------------------------------------------------------------


class Senders:
    """A server and those who send to it."""

    def __init__(self, node: FakeNode, output: Optional[str], *, once: bool = True, **options: Any) -> None:
        self.node = node
        self.listener = FakeListener()
        options = {"json": False, "quiet": False, "color": "auto", **options}
        arguments = argparse.Namespace(output=output, once=once, **options)
        self.server = Server(node, self.listener, StandardOutputs(), arguments)  # type: ignore[arg-type]

    def add(self, data: bytes, *, finished: bool = True) -> FakeStream:
        stream = connect(self.node, FakeNode(2))
        stream.other.write(data)
        if finished:
            stream.other.finish()
        self.listener.arrived.append(stream)
        return stream


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\x1b[2J\r\n" * 100000])
def test_arrival_into_a_file(tmp_path: Any, data: bytes, capfd: Any) -> None:
    with FakeNode(1) as node:
        senders = Senders(node, str(tmp_path))
        stream = senders.add(data)
        assert senders.server.run() == 0
        assert stream.closed
        assert stream.error is None
        assert senders.listener.closed
        assert (tmp_path / "02-00-00-00-00-02-1").read_bytes() == data
        assert f"sent {len(data)} bytes, complete" in capfd.readouterr().err


def test_arrival_never_over_an_existing_file(tmp_path: Any) -> None:
    (tmp_path / "02-00-00-00-00-02-1").write_bytes(b"mine")
    (tmp_path / "02-00-00-00-00-02-2").symlink_to(tmp_path / "nowhere")
    with FakeNode(1) as node:
        senders = Senders(node, str(tmp_path))
        senders.add(b"new")
        assert senders.server.run() == 0
    assert (tmp_path / "02-00-00-00-00-02-1").read_bytes() == b"mine"
    assert (tmp_path / "02-00-00-00-00-02-3").read_bytes() == b"new"
    assert not (tmp_path / "nowhere").exists()


def test_arrival_into_a_pipe(capfdbinary: Any) -> None:
    with FakeNode(1) as node:
        senders = Senders(node, None)
        senders.add(b"\xff\0raw\x1b")
        assert senders.server.run() == 0
        assert capfdbinary.readouterr().out == b"\xff\0raw\x1b"


def test_arrival_reset(tmp_path: Any, capfd: Any) -> None:
    with FakeNode(1) as node:
        senders = Senders(node, str(tmp_path))
        stream = senders.add(b"half", finished=False)
        node.others_turn = stream.other.abort
        assert senders.server.run() == 1
        assert "sent 4 bytes, INCOMPLETE: reset by peer" in capfd.readouterr().err


def test_once_takes_the_first_of_two_that_have_come(tmp_path: Any) -> None:
    with FakeNode(1) as node:
        senders = Senders(node, str(tmp_path))
        streams = [senders.add(b"first"), senders.add(b"second")]
        assert senders.server.run() == 0
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]
        assert isinstance(streams[1].other.error, ConnectionResetError)


def test_arrivals_at_once(tmp_path: Any) -> None:
    """One is refused for want of a directory entry, one is reset, the others arrive; then Ctrl-C."""
    with FakeNode(1) as node:
        senders = Senders(node, str(tmp_path), once=False)
        streams = [senders.add(b"number %d" % number, finished=number != 1) for number in range(4)]
        turns = iter([streams[1].other.abort, None])

        def turn() -> None:
            action = next(turns)
            if action is None:
                raise KeyboardInterrupt
            action()

        node.others_turn = turn
        with pytest.raises(KeyboardInterrupt):
            senders.server.run()
        assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"number %d" % n for n in range(4)]


@pytest.mark.parametrize("into_files", [True, False])
def test_arrivals_in_json_never_mix_with_the_bytes(tmp_path: Any, capfd: Any, into_files: bool) -> None:
    with FakeNode(1) as node:
        senders = Senders(node, str(tmp_path) if into_files else None, json=True)
        senders.add(b"data")
        assert senders.server.run() == 0
    shown = capfd.readouterr()
    path = str(tmp_path / "02-00-00-00-00-02-1") if into_files else ""
    address = "02:00:00:00:00:02"
    assert [json.loads(line) for line in (shown.out if into_files else shown.err).splitlines()] == [
        {"type": "begun", "address": address, "file": path},
        {"type": "complete", "address": address, "bytes": 4, "file": path},
    ]
    assert (shown.err if into_files else shown.out) == ("" if into_files else "data")


def test_quiet_arrivals_tell_only_what_is_missing(tmp_path: Any, capfd: Any) -> None:
    for finished in (True, False):
        with FakeNode(1) as node:
            senders = Senders(node, str(tmp_path), quiet=True)
            stream = senders.add(b"data", finished=finished)
            node.others_turn = stream.other.abort if not finished else tuple
            assert senders.server.run() == (0 if finished else 1)
    assert capfd.readouterr().err == "02:00:00:00:00:02 sent 4 bytes, INCOMPLETE: reset by peer\n"


def test_arrival_no_file_for_it(tmp_path: Any, capfd: Any) -> None:
    with FakeNode(1) as node:
        senders = Senders(node, str(tmp_path / "gone"))
        stream = senders.add(b"data")
        assert senders.server.run() == 1  # nobody else is listened to with --once
        assert isinstance(stream.other.error, ConnectionResetError)
        assert "02:00:00:00:00:02 is refused: No such file or directory" in capfd.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_arrival_stdout_full() -> None:
    before, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        with FakeNode(1) as node:
            senders = Senders(node, None, once=False)
            stream = senders.add(b"data")
            with pytest.raises(OSError, match="No space left"):
                senders.server.run()
            assert isinstance(stream.other.error, ConnectionResetError)
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(full)


def test_shown_lines(capfd: Any) -> None:
    shown = Shown(Output(1), "02:02")
    for piece in (b"one\ntw", b"o\x1b[2J\xff\n", b"x" * 9000, b"\nlast"):
        shown.write(piece)
    shown.finish()
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["02:02: one", "02:02: two^[[2J\\xff"]
    assert [len(line) for line in lines[2:5]] == [7 + 4096, 7 + 4096, 7 + 808]
    assert lines[5:] == ["02:02: last"]


def test_shown_text_that_is_no_utf8(capfd: Any) -> None:
    """Also where it is cut anywhere; what can be read is, the rest is shown as bytes."""
    for cut in range(12):
        shown = Shown(Output(1), "02:02")
        text = b"\xf0\x9f\x98\x80 \xc3( \xed\xa0\x80\n"
        for piece in (text[:cut], text[cut:], b"\xf0\x9f"):
            shown.write(piece)
        shown.finish()
        out = capfd.readouterr().out.splitlines()
        assert out == ["02:02: \U0001f600 \\xc3( \\xed\\xa0\\x80", "02:02: \\xf0\\x9f"]


# --- what needs no node ----------------------------------------------------------------------------------------------


def test_output_directory_absent(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["alexstream_server.py", "fake0", "--output", "/no/such/directory"])
    with pytest.raises(SetupError, match="mkdir"):
        alexstream_server.main()


def test_own_address_before_the_interface(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["alexstream_client.py", "no-such-interface", "not:an:address"])
    with pytest.raises(SetupError, match="not:an:address"):
        alexstream_client.main()


@pytest.mark.parametrize("script", ["node", "alexchat_client", "alexstream_server", "send_handshake", "send_message"])
def test_script_finds_its_modules_in_isolated_mode_from_anywhere(script: str, tmp_path: Any) -> None:
    """python3 -I leaves out the script's folder, where its modules are; a link to the script leads there, too."""
    path = os.path.join(ROOT, f"{script}.py")
    os.symlink(path, str(tmp_path / script))
    for folder, name in (
        (str(tmp_path), path),
        (os.path.dirname(path), os.path.basename(path)),
        (str(tmp_path), script),
    ):
        said = subprocess.run([sys.executable, "-I", name, "--help"], cwd=folder, stdout=subprocess.PIPE, check=True)
        assert said.stdout.startswith(b"usage: ")


def test_clock_of_the_next_century_is_said_in_one_line(monkeypatch: Any) -> None:
    """Where seconds since 1970 need more than 32 bits scapy opens nothing."""
    monkeypatch.setattr("node.time.time", lambda: 150 * 31556952.0)
    with pytest.raises(SetupError, match=r"^this machine's clock says 2120; set it: sudo date -s '.*'$"):
        EthernetLink("lo")
