"""The chat: its lines of JSON, the room of client and server over fakes, and the client on a real pseudo-terminal."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import datetime
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from fakes import FakeConsole, FakeNode, connect
from hypothesis import given, strategies as st

import alexchat_client as chat
from alexchat_client import (
    CAN,
    Ask,
    Bye,
    Conversation,
    Hello,
    Malformed,
    Members,
    Missed,
    Refused,
    Say,
    decode_record,
    encode_record,
    parse_members,
)
from alexstream_client import Decline, Offer
from constants import PORT_CHAT, ROOM_MAX
from node import SetupError
from protocol import MessageReceived, NodeFound
from utils import format_address

FAKES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fakes.py")

# --- one line of JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        Hello("al"), Hello("al", CAN, "a" * 16, "b", {"02:00:00:00:00:01": "é"}), Say("é\n\t\x1b🎉", 7),
        Say("", 1, "bob"), Say("x", 1, "", 1), Bye(), Ask(), Refused("full"), Missed(7), Members("a" * 16, {}),
        Decline("1" * 16), Offer("1" * 16, "a.txt", 5, "2" * 64),
    ],
)  # fmt: skip
def test_record_encoded_and_decoded(record: chat.Record) -> None:
    line = encode_record(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_record(line[:-1]) == record


def test_say_on_the_wire() -> None:
    fields = {"type": "say", "id": 7, "text": "é", "to": "bob"}
    assert json.loads(encode_record(Say("é", 7, "bob")).decode()) == fields
    assert decode_record(json.dumps(dict(fields, more={"is": "ignored"})).encode()) == Say("é", 7, "bob")
    assert json.loads(encode_record(Say("x", 7)).decode()) == {"type": "say", "id": 7, "text": "x"}


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "members", "room": "", "members": []}', b"", b"x", b"[]", b"1",
        b'"say"', b"null", b"{}", b'{"type": 1}', b'{"type": ["say"]}', b'{"type": "say"}',
        b'{"type": "say", "text": 1}', b'{"type": "say", "text": "x", "id": "1"}', b'{"type": "hello"}',
        b'{"type": "say", "text": "x", "to": {}}', b'{"type": "hello", "name": null}', b'{"type": "say", "text": "x"',
        b"[" * 60000, b'{"a":' * 10000, b"\xff\xfe", b'{"type": "say", "text": "x", "id": 1.5}',
    ],
)  # fmt: skip
def test_line_malformed(line: bytes) -> None:
    assert isinstance(decode_record(line), Malformed)


def test_hello_on_the_wire() -> None:
    """A program that knows only names and messages finds what it looks for."""
    fields = json.loads(encode_record(Hello("al", CAN)).decode())
    assert (fields.pop("type"), fields.pop("name")) == ("hello", "al")
    assert decode_record(b'{"type": "hello", "name": "al"}') == Hello("al")
    assert decode_record(b'{"type": "offer", "token": "", "file": "", "size": true, "sha256": ""}') is not None


def test_line_unknown_type() -> None:
    assert decode_record(b'{"type": "dance", "text": 1}') is None


def test_line_invalid_utf8() -> None:
    assert decode_record(b'{"type": "say", "text": "a\xc3(\xf0\x9f"}') == Say("a\ufffd(\ufffd")


def test_line_half_a_surrogate_pair() -> None:
    """JSON can spell what UTF-8 cannot; saying it again must not fail."""
    record = decode_record(b'{"type": "say", "text": "\\ud83d \\ud83c\\udf89", "to": "\\udc00"}')
    assert record == Say("\\ud83d \U0001f389", 0, "\\udc00")
    encode_record(record)


@given(st.binary(max_size=200))
def test_line_any_bytes(line: bytes) -> None:
    decode_record(line)


def test_members_that_can_be_called_are_taken_from_a_list() -> None:
    said = {
        "02:00:00:00:00:03": "a\x1bb",
        "ff:ff:ff:ff:ff:ff": "all",
        "x": "x",
        "02:00:00:00:00:04": 7,
        "2:0:0:0:0:5": "",
    }
    assert parse_members(said) == {b"\2\0\0\0\0\3": "a?b", b"\2\0\0\0\0\5": ""}
    assert len(parse_members({format_address(b"\2" + n.to_bytes(5, "big")): "n" for n in range(9999)})) == ROOM_MAX


def test_bytes_queued_until_taken() -> None:
    with FakeNode(1) as node, FakeNode(2) as other:
        stream = connect(node, other)
        stream.room = 10
        one = Conversation(stream, now=0.0, is_mine=True)  # type: ignore[arg-type]
        one.put(Say("x" * 100, 1))
        one.finish()
        one.flush(now=1.0)
        assert (len(one._queue) > 0, stream.finished, one.take_held()) == (True, False, [])
        stream.room = 1000
        one.flush(now=2.0)
        assert stream.finished
        assert one.take_held() == [Say("x" * 100, 1)]
        assert not one.put(Say("too late", 2))


# --- finding a room --------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What an echo brings."""

    address: bytes
    name: str = ""
    hops: int = 2
    rtt: float = 0.0015
    ports: Tuple[int, ...] = (PORT_CHAT,)


class Mesh:
    """A node that looks for rooms, and others that are in some, or know none, or keep silent."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.node: Any = stack.enter_context(FakeNode(1))
        self._stack = stack
        self._others: List[Tuple[FakeNode, str, str]] = []
        self.node.others_turn = self.turn

    def add(self, number: int, name: str, room: str = "", *, says_hello: bool = True) -> bytes:
        """Let a node appear that answers to its name, and is in a room."""
        other = self._stack.enter_context(FakeNode(number))
        self.node.others[other.address] = other
        other.listen(PORT_CHAT)
        if says_hello:
            self._others.append((other, name, room))
        answer = Answer(other.address, name)
        self.node.answering.append(answer)
        self.node.found.append(answer)
        return other.address

    def remove(self, address: bytes) -> None:
        """Let a node disappear."""
        for known in (self.node.answering, self.node.found):
            known[:] = [answer for answer in known if answer.address != address]
        del self.node.others[address]

    def turn(self) -> None:
        """The others take calls and say hello; time passes."""
        self.node.time += 0.25
        for other, name, room in self._others:
            people = {format_address(o.address): n for o, n, r in self._others if r == room != "" and o is not other}
            listener = other.listeners[PORT_CHAT]
            while listener.arrived:
                listener.arrived.popleft().write(encode_record(Hello(name, CAN if room else "", room, "", people)))


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with contextlib.ExitStack() as stack:
        yield Mesh(stack)


def choose(mesh: Mesh, console: Any) -> bytes:
    return chat.choose_room(mesh.node, console)


def test_rooms_none_one_many_to_a_pipe(mesh: Mesh) -> None:
    console: Any = FakeConsole(is_interactive=False)
    with pytest.raises(TimeoutError, match=r"no room answers; to open one: .*alexchat_server\.py fake0"):
        choose(mesh, console)
    alice = mesh.add(0x11, "ali\x1bce", "a" * 16)
    assert choose(mesh, console) == alice
    mesh.add(0x12, "bob", "a" * 16)
    assert choose(mesh, console) == alice  # two members of one room
    mesh.add(0x13, "carol", "b" * 16)
    mesh.add(0x14, "old")
    with pytest.raises(SetupError) as raised:
        choose(mesh, console)
    assert [line.partition("alexchat_client.py ")[2] for line in str(raised.value).splitlines()[1:]] == [
        "fake0 02:00:00:00:00:11  # ali?ce, bob, 2 hops",
        "fake0 02:00:00:00:00:13  # carol, 2 hops",
        "fake0 02:00:00:00:00:14  # old, 2 hops",
    ]


def test_who_asks_holds_no_stream(mesh: Mesh) -> None:
    mesh.add(0x11, "alice", "a" * 16)
    mesh.add(0x12, "silent", says_hello=False)
    with pytest.raises(SetupError):
        choose(mesh, FakeConsole(is_interactive=False))
    (stream,) = mesh.node.others[bytes((2, 0, 0, 0, 0, 0x12))].listeners[PORT_CHAT].arrived
    assert stream.ended
    assert stream.read(999) == encode_record(Ask())


class Choosing(FakeConsole):
    """A person who types one line each time the program waits."""

    def __init__(self, mesh: Mesh, *lines: str) -> None:
        super().__init__(is_interactive=True)
        self._mesh = mesh
        self._lines = list(lines)
        self.before_wait: Any = tuple

    def __enter__(self) -> "Choosing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, network: int, *, reading: bool, timeout: Optional[float]) -> None:
        self._mesh.turn()
        self.before_wait()
        self.typed += self._lines[:1]
        self._lines = self._lines[1:]
        self.at_end = not self._lines and not self.typed


ALICE, BOB, BOBBY = (bytes((2, 0, 0, 0, 0, number)) for number in (0x11, 0x12, 0x13))


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (("", "", "2"), BOB),
        (("", "", "alice"), ALICE),
        (("02:00:00:00:00:12",), BOB),
        (("2:0:0:0:0:98",), b"\2\0\0\0\0\x98"),  # also one that is not listed
        (("", "", "nobody", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", "7", "1"), ALICE),
        (("", "", "b?b", "3"), BOBBY),
        (("exit",), b""),
        (("/quit",), b""),
        ((), b""),
    ],
)
def test_room_chosen(mesh: Mesh, lines: Tuple[str, ...], chosen: bytes) -> None:
    """By number, name or address; a number goes before a name."""
    for number, name in enumerate(("alice", "b\x1bb", "b b", "1"), 0x11):
        mesh.add(number, name, f"{number:016x}")
    console: Any = Choosing(mesh, *lines)
    assert choose(mesh, console) == chosen
    assert console.notes[0] == "a number, name or address chooses; `exit` leaves"
    if len(lines) > 5:
        assert sum("called" in note for note in console.notes) == 4
    if "b?b" in lines:
        assert console.notes[-1].startswith("several are called b?b")


def test_lines_typed_ahead_are_said_in_the_room(mesh: Mesh) -> None:
    mesh.add(0x11, "alice", "a" * 16)
    mesh.add(0x12, "bob", "b" * 16)
    console: Any = Choosing(mesh, "", "", "2")
    console.before_wait = lambda: console.typed.extend(["2", "hello", "bob"] if len(console._lines) == 1 else [])
    assert choose(mesh, console) == BOB
    assert console.take_lines()[:2] == ["hello", "bob"]


def test_rooms_listed_live_and_the_first_one_taken(mesh: Mesh) -> None:
    """A room that grows is listed again, one that goes is said to be gone, and numbers stay."""
    mesh.add(0x11, "alice", "a" * 16)
    mesh.add(0x12, "bob", "b" * 16)
    console: Any = Choosing(mesh, *[""] * 30, "2")
    steps = {5: lambda: mesh.add(0x13, "carol", "b" * 16), 20: lambda: mesh.remove(ALICE)}
    console.before_wait = lambda: steps.pop(31 - len(console._lines), tuple)()
    assert choose(mesh, console) == BOB
    assert [note.split("  ")[1:3] for note in console.notes if note.startswith("  ")] == [
        ["1", "alice"], ["2", "bob"], ["2", "bob, carol"], ["1", "alice"],
    ]  # fmt: skip
    empty: Any = Choosing(mesh, *[""] * 20)
    mesh.node.found.clear()
    known, mesh.node.answering = mesh.node.answering[1:], []

    def appear() -> None:
        mesh.node.answering = mesh.node.found = known

    empty.before_wait = appear
    assert choose(mesh, empty) in (BOB, BOBBY)


def test_message_while_rooms_are_listed_is_shown(mesh: Mesh) -> None:
    """Its sender was told that it is delivered."""
    console: Any = Choosing(mesh, "exit")
    mesh.node.events.extend((NodeFound(ALICE, 1, 1500, ""), MessageReceived(ALICE, bytes(6), 1, b"raw\x1b[2J")))
    assert choose(mesh, console) == b""
    assert console.notes[1:] == ["message from 02:00:00:00:00:11: raw^[[2J"]


# --- on a real pseudo-terminal ---------------------------------------------------------------------------------------


class OnTerminal:
    """The client of fakes.py on a pseudo-terminal of its own, and what that shows."""

    def __init__(self, *command: str, width: int = 40, height: int = 10, **environment: str) -> None:
        pyte = pytest.importorskip("pyte")
        self.screen = pyte.Screen(width, height)
        self._emulator = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        self.mode_before = termios.tcgetattr(slave)
        self._slave = slave
        self.raw = b""
        settings = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command or [sys.executable, FAKES, "--no-timestamps"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=settings,
            preexec_fn=own_terminal,
        )

    def __enter__(self) -> "OnTerminal":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # the shell's children too
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    @property
    def rows(self) -> List[str]:
        return [row.rstrip() for row in self.screen.display if row.strip()]

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def expect(self, *rows: str, timeout: float = 10) -> None:
        """Wait until these are the last rows on the screen."""
        self.wait_for(lambda: self.rows[-len(rows) :] == list(rows), timeout, f"expected {rows}, ")

    def wait_for(self, ready: Callable[[], object], timeout: float = 10, what: str = "") -> None:
        """Read on until that is so."""
        deadline = time.monotonic() + timeout
        while not ready():
            assert time.monotonic() < deadline, f"{what}on the screen: {self.rows}"
            if select.select([self._master], [], [], 0.05)[0]:
                data = os.read(self._master, 65536)
                self.raw += data
                self._emulator.feed(data)

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(height, width)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def ends(self, timeout: float = 10) -> int:
        """Return the exit status; the terminal's mode is what it was."""
        status = self.process.wait(timeout)
        assert termios.tcgetattr(self._slave) == self.mode_before
        return status


HERE = "peer (02:00:00:00:00:02) is here"
SHOWN = "-- " + HERE


def test_terminal_typed_and_answered() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type("grüße".encode())
        terminal.expect("> grüße")
        terminal.type(b"\r")
        terminal.expect("✓ me: grüße", "peer: you said grüße", ">")
        terminal.type(b"exit\r")
        assert terminal.ends() == 0
        assert terminal.raw.count(b"\x1b[?2004h") == 1


def test_terminal_messages_arrive_while_typing() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"flood 200\rhalf a li\x1b[D\x1b[D")
        terminal.expect(*(f"peer: message {number}" for number in range(192, 200)), "> half a li")
        terminal.expect("> half a li")
        assert terminal.screen.cursor.x == len("> half a ")
        terminal.type(b"\x05ne\r")
        terminal.expect("peer: you said half a line", ">")


def test_terminal_delivered_later() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"hold\r")
        terminal.expect("✓ me: hold", ">")
        terminal.type(b"one\r")
        terminal.expect("✓ me: hold", "· me: one", "peer: you said one", ">")
        terminal.type(b"take\r")
        terminal.expect("✓ me: one", "peer: you said one", "✓ me: take", ">")


def test_terminal_link_lost() -> None:
    with OnTerminal(width=80) as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"stall\rtyping")
        terminal.expect("✓ me: stall", "peer: link lost, retrying> typing")
        terminal.type(b"\x15hold\r")
        terminal.expect("✓ me: hold", "peer: link lost, retrying>")
        terminal.type(b"lost words\rlose\r")
        terminal.expect("-- NOT delivered to peer: lose", ">")
        terminal.type(b"exit\r")
        assert terminal.ends() == 0
        assert "✗ me: lost words" in terminal.rows
        assert "-- NOT delivered to peer: lost words" in terminal.rows


def test_terminal_paste() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"\x1b[200~exit\rtwo\r\x1b[201~")
        terminal.expect("> exit↵two↵")
        terminal.type(b"!\r")
        terminal.expect(
            "✓ me: exit", "          two", "          !", "peer: you said exit", "          two", "          !", ">"
        )


def test_terminal_resized() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"0123456789abcdefghij0123456789")
        terminal.expect("> 0123456789abcdefghij0123456789")
        terminal.resize(12, 10)
        terminal.expect("> <456789")


def test_terminal_resized_before_the_signal_says_so() -> None:
    """No mark is set where its line may no longer be, and the row has the new width."""
    with OnTerminal("sh", "-c", f"trap '' WINCH; exec {sys.executable} {FAKES} --no-timestamps") as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"hold\r")
        terminal.expect("✓ me: hold", ">")
        terminal.type(b"one\r")
        terminal.expect("✓ me: hold", "· me: one", "peer: you said one", ">")
        terminal.resize(20, 10)
        terminal.type(b"0123456789" * 3)
        terminal.expect("> <67890123456789")
        terminal.type(b"\x15take\r")
        terminal.expect("· me: one", "peer: you said one", "✓ me: take", "✓ me: one", ">")


@pytest.mark.parametrize("key", [b"\x03", b"\x03\x03"])
def test_terminal_ctrl_c(key: bytes) -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"typed")
        terminal.expect("> typed")
        terminal.type(b"\x03")
        terminal.expect(SHOWN, ">")
        terminal.type(b"\x03")
        assert terminal.ends() == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_terminal_signal(number: signal.Signals) -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.process.send_signal(number)
        assert terminal.ends() == 128 + number


def test_terminal_ctrl_d() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"ab\x01\x04")
        terminal.expect("> b")
        terminal.type(b"\x04\x04")
        assert terminal.ends() == 0


def test_terminal_peer_leaves() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"bye\r")
        terminal.expect("✓ me: bye", "-- peer left", ">")
        terminal.type(b"exit\r")
        assert terminal.ends() == 0


def test_terminal_suspended_and_continued() -> None:
    """As a job of a shell, which waits for a line while it is stopped."""
    with OnTerminal(
        "sh", "-mc", f"{sys.executable} {FAKES} --no-timestamps; echo stopped; read -r line; fg; echo $?"
    ) as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"half\x1a")
        terminal.expect("stopped")
        terminal.type(b"line\n")
        terminal.expect("> half")
        terminal.type(b" done\r")
        terminal.expect("peer: you said half done", ">")
        terminal.type(b"exit\r")
        terminal.expect("0")
        assert terminal.ends() == 0


def test_terminal_cleared() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"typed\x0c")
        terminal.expect("> typed")
        assert terminal.rows == ["> typed"]


def test_terminal_tab() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"hi p\t")
        terminal.expect("> hi peer")
        terminal.type(b"\x15/ms\tpe\t")
        terminal.expect("> /msg peer")


def test_terminal_tab_completes_paths(tmp_path: Any) -> None:
    """Directories get a slash; what several share is completed; a name that would act on the terminal is left out."""
    for name in ("my photos/cat 1.jpg", "my photos/cat 2.jpg", "my photos/.hidden", "notes/old\x1b]0;pwned\x07", "x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with OnTerminal(width=200, HOME=str(tmp_path)) as terminal:
        terminal.expect(SHOWN, ">")
        for keys, row in (
            (b"/send ~/m\t", "~/my photos/"),
            (b"\t", "~/my photos/cat"),
            (b"2\t", "~/my photos/cat 2.jpg"),
            (b"\x15/send ~/my photos/.h\t", "~/my photos/.hidden"),
            (b"\x15/send %s/n\to\t!" % str(tmp_path).encode(), f"{tmp_path}/notes/o!"),
            (b"\x15/send ~/nowhere/x\t!", "~/nowhere/x!"),
        ):
            terminal.type(keys)
            terminal.expect(f"> /send {row}")
        assert b"pwned" not in terminal.raw


def test_terminal_messages_arrive_while_looking_through_the_history() -> None:
    with OnTerminal() as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"one\r")
        terminal.expect("peer: you said one", ">")
        terminal.type(b"flood 100\rdraft\x1b[A\x1b[A\x1b[D")
        terminal.expect("peer: message 99", "> one")
        assert terminal.screen.cursor.x == len("> on")
        terminal.type(b"\x1b[B\x1b[B")
        terminal.expect("peer: message 99", "> draft")


def test_terminal_help() -> None:
    with OnTerminal(width=80, height=20) as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"/help\r")
        terminal.expect(
            "  /exit or /quit or /q             leave",
            "  //TEXT                           say a line that begins with /",
            ">",
        )
        assert len(terminal.rows) == 17  # none is wrapped


CLOCK = r"\d\d:\d\d "


def test_terminal_timestamps_bell_and_log(tmp_path: Any) -> None:
    log = tmp_path / "log"
    with OnTerminal(sys.executable, FAKES, "--timestamps", "--bell", "--log", str(log)) as terminal:
        terminal.wait_for(lambda: len(terminal.rows) > 1)
        terminal.type(b"flood 50\r")
        terminal.wait_for(lambda: "message 49" in terminal.rows[-2])
        terminal.type(b"one\rexit\r")
        assert terminal.ends() == 0
        terminal.wait_for(lambda: any("said one" in row for row in terminal.rows))
        shown = [re.sub(CLOCK, "12:34 ", row) for row in terminal.rows]
        assert "12:34 ✓ me: one" in shown
        assert "12:34 peer: you said one" in shown
        assert terminal.raw.count(b"\x07") == 1  # for 51 messages in less than five seconds
    lines = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in log.read_text("utf-8").splitlines()]
    assert lines[0] == HERE
    assert [line for line in lines if "one" in line] == ["> one", "peer: you said one"]
    assert len([line for line in lines if "message" in line]) == 50
    assert oct(log.stat().st_mode & 0o777) == "0o600"


def test_terminal_log_that_is_moved_away_is_begun_anew(tmp_path: Any) -> None:
    """As logrotate does it."""
    log, moved = tmp_path / "log", tmp_path / "log.1"
    with OnTerminal(sys.executable, FAKES, "--no-timestamps", "--log", str(log)) as terminal:
        terminal.type(b"one\r")
        terminal.expect("✓ me: one", "peer: you said one", ">")
        log.rename(moved)
        terminal.type(b"two\r")
        terminal.expect("✓ me: two", "peer: you said two", ">")
    assert "one" in moved.read_text("utf-8")
    assert "two" not in moved.read_text("utf-8")
    assert [line.partition(" ")[2].partition(" ")[2] for line in log.read_text("utf-8").splitlines()] == [
        "> two",
        "peer: you said two",
    ]


@pytest.mark.root
def test_log_goes_on_with_a_whole_line_when_the_disk_has_room_again(tmp_path: Any) -> None:
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tmp_path)])
    try:
        log, ballast = chat.Log(str(tmp_path / "log")), tmp_path / "ballast"
        now = datetime(2026, 1, 1)
        log.add("one", now)
        ballast.write_bytes(bytes(4096))
        log.add("x" * 5000, now)
        assert log.failure.startswith("nothing more is logged: ")
        log.add("lost", now)
        ballast.unlink()
        log.add("two", now)
        assert log.failure == ""
        log.close()
        lines = (tmp_path / "log").read_text().splitlines()
        assert [line[20:24] for line in lines] == ["one", "xxxx", "two"]
    finally:
        subprocess.check_call(["umount", str(tmp_path)])


def test_terminal_whose_keys_come_in_fives_is_read_key_by_key() -> None:
    with OnTerminal("sh", "-c", f"stty min 5 time 0; exec {sys.executable} {FAKES} --no-timestamps") as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"a")
        terminal.expect(SHOWN, "> a")


@pytest.mark.parametrize("path", ["/dev/full", "/proc/log"])
def test_terminal_log_that_fails(path: str) -> None:
    """It is told once, and the chat goes on."""
    with OnTerminal(sys.executable, FAKES, "--no-timestamps", "--log", path, width=80) as terminal:
        terminal.wait_for(lambda: any(f"nothing more is logged: {path}: " in row for row in terminal.rows))
        terminal.type(b"one\r")
        terminal.expect("✓ me: one", "peer: you said one", ">")
        assert sum("logged" in row for row in terminal.rows) == 1


def test_terminal_goes_away_while_the_output_is_a_pipe() -> None:
    """The program comes to its end, and does not spin for ever."""
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, FAKES], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        os.close(slave)
        assert done.stderr is not None
        assert HERE.encode() in done.stderr.readline()
        os.close(master)
        assert done.wait(20) == 0


@pytest.mark.parametrize(
    ("option", "path", "says"),
    [
        ("--downloads", "/no where", "--downloads '/no where': no such directory; to make it: mkdir -p '/no where'"),
        ("--downloads", "/etc/passwd", "--downloads /etc/passwd: it is not a directory"),
        ("--log", "/nowhere/log", "--log /nowhere: no such directory; to make it: mkdir -p /nowhere"),
        ("--log", "/etc", "--log /etc: it is a directory; the log is a file"),
    ],
)
def test_no_place_for_downloads_or_the_log(option: str, path: str, says: str) -> None:
    done = run_piped(b"", arguments=[option, path])
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [f"fakes.py: {says}"]


def test_output_not_a_terminal() -> None:
    """Typed on a terminal, shown in a file: no editor and no escape sequence anywhere."""
    with OnTerminal("sh", "-c", f"{sys.executable} {FAKES} | cat") as terminal:
        terminal.expect(HERE)
        terminal.type(b"hello\n")
        terminal.expect("delivered: hello", "peer: you said hello")
        assert b"\x1b" not in terminal.raw
        terminal.type(b"/exit\n")
        assert terminal.ends() == 0


def test_input_not_a_terminal() -> None:
    with OnTerminal("sh", "-c", f"echo hello | {sys.executable} {FAKES}") as terminal:
        terminal.expect(HERE, "peer: you said hello")
        assert b"\x1b" not in terminal.raw


def test_ascii_terminal() -> None:
    """Marks in ASCII, and what the character set lacks as a question mark."""
    with OnTerminal(PYTHONIOENCODING="ascii") as terminal:
        terminal.expect(SHOWN, ">")
        terminal.type(b"hold\r")
        terminal.expect("+ me: hold", ">")
        terminal.type(b"one\r")
        terminal.expect(". me: one", "peer: you said one", ">")
        terminal.type(b"lose\r")
        terminal.expect("-- NOT delivered to peer: lose", ">")
        assert {"! me: one", "! me: lose"} <= set(terminal.rows)
        assert max(terminal.raw) < 128


def test_dumb_terminal_lines() -> None:
    """No editor: the terminal's own line mode, and no escape sequence."""
    with OnTerminal(TERM="dumb") as terminal:
        terminal.expect(HERE)
        terminal.type(b"hello\n")
        terminal.expect("hello", "delivered: hello", "peer: you said hello")
        assert b"\x1b" not in terminal.raw
        terminal.type(b"exit\n")
        assert terminal.ends() == 0


# --- from pipes ------------------------------------------------------------------------------------------------------


def run_piped(data: bytes, arguments: Sequence[str] = ()) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, FAKES, *arguments]
    return subprocess.run(command, input=data, timeout=20, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_pipe_of_lines() -> None:
    done = run_piped(b"one\r\n\nb\xc3\xa9\xff\nbye")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == ["peer: you said one", "peer: you said ", "peer: you said bé\ufffd"]
    assert done.stderr.decode().splitlines() == [HERE, "peer left"]


def test_pipe_lines_not_delivered() -> None:
    with subprocess.Popen(
        [sys.executable, FAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hold\nanything\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"peer: you said anything\n"
        errors = process.communicate(b"one\nlose\n", timeout=20)[1]
        assert process.returncode == 1
        assert "NOT delivered to peer: one" in errors.decode()


def test_pipe_line_without_end() -> None:
    done = run_piped(b"x" * 300000 + b"\nfine\nbye\n")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == ["peer: you said fine"]
    assert done.stderr.decode().count("NOT delivered") == 1


def test_pipe_whose_reader_leaves() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, FAKES], input=b"one\n", timeout=20, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_pipe_whose_reader_does_not_read_signal() -> None:
    """Where output waits for its reader, a signal still ends the program."""
    with subprocess.Popen([sys.executable, FAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"flood 20000\n")
        process.stdin.flush()
        assert process.stdout.read(1) == b"p"
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait(10) == 143
