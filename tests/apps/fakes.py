"""A node, its streams and a console without network, clock, thread or terminal; and a chat client on top of them.

As a program it is that client on the terminal that it is started on, facing a peer that does what it is told in words.
"""

import json
import os
import select
import sys
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Sequence

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import paths  # noqa: F401  # the folders of the tests

import alexchat_client as chat
from constants import CHAT_LINE_BYTES
from node import run
from protocol import INFINITY
from utils import LineSplitter, printable


class FakeStream:
    """One end of a pair; what is written to one is there to be read at the other at once."""

    def __init__(self, node: "FakeNode", peer: bytes) -> None:
        self.node = node
        self.peer = peer
        self.port = 1
        self.other: FakeStream = self
        self.room = INFINITY  # bytes that `write` still takes
        self.holding = False  # the other node takes bytes and the end, but does not acknowledge them
        self.stalled = False
        self.silent_since: Optional[float] = None
        self.has_news = True
        self.then: Callable[[], object] = tuple  # what the other does just after a look that finds nothing
        self.error: Optional[OSError] = None
        self.restarted = False
        self.written = 0
        self._acknowledged = 0
        self._arrived = bytearray()
        self.finished = False
        self.closed = False

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def keep_alive(self, seconds: float) -> None:
        assert seconds > 0

    @property
    def heard_at(self) -> float:
        return self.node.now() if self.silent_since is None else self.silent_since

    @property
    def delivered(self) -> int:
        if not self.holding:
            self._acknowledged = self.written
        return self._acknowledged

    def _replaced(self, peer: bytes) -> "FakeStream":
        """The same with another peer."""
        self.peer = peer
        return self

    def acknowledge(self) -> None:
        """What is held back, but for the end."""
        self._acknowledged = self.written

    @property
    def drained(self) -> bool:
        return self.delivered == self.written and not (self.finished and self.holding)

    @property
    def ended(self) -> bool:
        return self.error is not None or (self.finished and self.other.finished)

    def read(self, size: int) -> Optional[bytes]:
        data = bytes(self._arrived[:size])
        del self._arrived[:size]
        if data:
            return data
        if self.other.finished:
            return b""
        if self.error is not None:
            raise self.error
        then, self.then = self.then, tuple
        then()
        return None

    def write(self, data: Any) -> Optional[int]:
        if self.error is not None:
            raise self.error
        assert not self.finished
        taken = int(min(len(data), self.room))
        self.room -= taken
        self.written += taken
        self.other._arrived += bytes(data[:taken])
        self._wake()
        return taken or None

    def finish(self) -> None:
        self.finished = True
        self._wake()

    def abort(self) -> None:
        self.fail(ConnectionAbortedError("aborted"))
        self.other.fail(ConnectionResetError("reset by peer"))

    def close(self) -> None:
        self.finish()
        self.closed = True

    def __enter__(self) -> "FakeStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def restart(self) -> None:
        """End because another program has the peer's address now."""
        self.fail(ConnectionResetError("peer restarted"))
        self.restarted = True

    def fail(self, error: OSError) -> None:
        """End as the network may end it."""
        if not self.ended:
            self.error = error
            self.holding = True  # what was not acknowledged will not be
            self._wake()

    def _wake(self) -> None:
        self.node.wake()
        self.other.node.wake()


class FakeListener:
    """Streams that come when the test says so."""

    def __init__(self) -> None:
        self.arrived: Deque[FakeStream] = deque()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        while self.arrived:
            self.arrived.popleft().abort()

    def accept(self, *, timeout: Optional[float] = None) -> Optional[FakeStream]:
        return self.arrived.popleft() if self.arrived else None


class FakeLink(NamedTuple):
    """The name is all that the scripts want to know."""

    name: str


class FakeAside:
    """What a call returns, at once."""

    done = True

    def __init__(self, action: Callable[[], Any]) -> None:
        try:
            self._outcome = action()
        except OSError as error:
            self._outcome = error

    def result(self) -> Any:
        if isinstance(self._outcome, OSError):
            raise self._outcome
        return self._outcome


class FakeNode:
    """A clock that stands still, and a pipe that wakes `select`."""

    port_bit = 0

    def __init__(self, number: int) -> None:
        self.address = bytes([2, 0, 0, 0, 0, number])
        self.links = (FakeLink("fake0"),)
        self.names: Dict[bytes, str] = {}
        self.time = 1000.0
        self.events: Deque[Any] = deque()
        self.found: List[Any] = []
        self.answering: List[Any] = []  # who answers to `ask` at once
        self.asked: List[bytes] = []
        self.others: Dict[bytes, FakeNode] = {}  # whom `open` reaches
        self.listeners: Dict[int, FakeListener] = {}
        self.others_turn: Callable[[], object] = tuple  # called whenever the program looks at its node
        self._pipe: List[int] = []  # from the first `wait` on
        self._awake = False

    def now(self) -> float:
        return self.time

    def wake(self) -> None:
        if not self._awake and self._pipe:
            os.write(self._pipe[1], b"\0")
        self._awake = True

    def aside(self, action: Callable[[], Any]) -> "FakeAside":
        self.wake()
        return FakeAside(action)

    def wait(self, *files: int, writing: Sequence[int] = (), timeout: Optional[float] = None) -> List[int]:
        if not self._pipe:
            self._pipe, was_awake, self._awake = list(os.pipe()), self._awake, False
            if was_awake:
                self.wake()
        ready = select.select([self._pipe[0], *files], writing, [], timeout)
        if self._awake:
            self._awake = False
            os.read(self._pipe[0], 1)
        self.others_turn()
        return [file for file in ready[0] + ready[1] if file != self._pipe[0]]

    def next_event(self, *, timeout: Optional[float] = None) -> Any:
        return self.events.popleft() if self.events else None

    def listen(self, port: int, *, only: bytes = b"") -> FakeListener:
        self.listeners[port] = FakeListener()
        return self.listeners[port]

    def open(self, peer: bytes, port: int) -> FakeStream:
        node = self.others.get(peer)
        listener = node.listeners.get(port) if node else None
        if node is None or listener is None or listener.closed:
            stream = FakeStream(self, peer)
            stream.fail(ConnectionRefusedError("refused"))
            return stream
        stream = connect(self, node)
        listener.arrived.append(stream.other)
        return stream

    def echo(self, dest: bytes, *, timeout: float) -> Any:
        raise TimeoutError("no answer")

    def ask(self, dests: Iterable[bytes]) -> None:
        self.asked = list(dests)

    def answers(self) -> List[Any]:
        return list(self.answering)

    def nodes(self) -> List[Any]:
        return self.found

    def discover(self, wait: float, *, enough: Any = None) -> List[Any]:
        return self.found

    def close(self) -> None:
        for end in self._pipe:
            os.close(end)
        self._pipe = []

    def __enter__(self) -> "FakeNode":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(one: FakeNode, two: FakeNode) -> FakeStream:
    """Return the end at `one` of a stream between two nodes; the end at `two` is its `other`."""
    stream, other = FakeStream(one, two.address), FakeStream(two, one.address)
    stream.other, other.other = other, stream
    return stream


class TickingNode(FakeNode):
    """One whose clock goes on by itself: for a program, which has to come to its end."""

    def now(self) -> float:
        return time.monotonic()


class FakeConsole:
    """What a person or a pipe types, and what they were shown."""

    screen = None
    is_full = False

    def __init__(self, *, is_interactive: bool, as_json: bool = False) -> None:
        self.is_interactive = is_interactive
        self.as_json = as_json
        self.events: List[Dict[str, Any]] = []  # as JSON
        self.at_end = False
        self.typed: List[Optional[str]] = []
        self.shown: List[str] = []
        self.notes: List[str] = []
        self.own: Dict[int, Any] = {}  # the text of a line that is under way, then whether it was delivered
        self.held: Dict[int, str] = {}  # by how many of all
        self.prompt = ""

    def take_lines(self) -> List[Optional[str]]:
        lines, self.typed = self.typed, []
        return lines

    def show(self, name: str, text: str, *, note: str = "", is_act: bool = False) -> None:
        self.shown.append(f"* {name}{note} {printable(text)}" if is_act else f"{name}{note}: {printable(text)}")

    def announce(self, text: str) -> None:
        self.shown.append(text)

    def show_json(self, line: str) -> None:
        self.events.append(json.loads(line))

    def note(self, text: str, *, is_error: bool = False) -> None:
        self.notes.append(text)

    def reply(self, text: str) -> None:
        self.notes.append(text)

    def put_back(self, lines: Iterable[Optional[str]]) -> None:
        self.typed = [*lines, *self.typed]

    def show_own(self, ident: int, text: str, *, receivers: int, is_act: bool = False) -> None:
        self.own[ident] = text
        self.held[ident] = f"0/{receivers}"

    def progress(self, ident: int, held: int, receivers: int) -> None:
        self.held[ident] = f"{held}/{receivers}"

    def settle(self, ident: int, text: str, *, delivered: bool) -> None:
        assert self.own[ident] == text
        self.own[ident] = delivered

    def set_prompt(self, prompt: str) -> None:
        self.prompt = prompt


class Peer:
    """The other end of a chat, as a test moves it; without `can` a program that knows nothing but messages."""

    def __init__(self, stream: FakeStream, name: str, *, can: str = "", room: str = "", run: str = "") -> None:
        self.stream = stream
        self._splitter = LineSplitter(CHAT_LINE_BYTES)
        self.hello: Optional[chat.Hello] = None  # of the room
        self.listed: Dict[str, str] = {}  # what it says of who is there
        self.say(chat.Hello(name, can, room, run))

    def say(self, record: chat.Record) -> None:
        self.stream.write(chat.encode_record(record))

    def heard(self) -> List[Optional[chat.Record]]:
        """What has arrived since the last call, but for names and lists of members."""
        data = self.stream.read(1 << 30)
        records = [chat.decode_record(line) for line in self._splitter.feed(data or b"") if line is not None]
        for record in records:
            if isinstance(record, (chat.Hello, chat.Members)):
                self.listed = record.members
                self.hello = record if isinstance(record, chat.Hello) else self.hello
        return [record for record in records if not isinstance(record, (chat.Hello, chat.Members))]


class Obedient(Peer):
    """A peer who does as told: `flood N`, `stall`, `go on`, `hold`, `take`, `lose`, `bye`; else it repeats that."""

    def obey(self) -> None:
        for record in self.heard():
            if isinstance(record, chat.Say):
                self._do(*record.text.partition(" ")[::2], text=record.text)
            elif isinstance(record, chat.Bye):
                self.stream.finish()

    def _do(self, word: str, rest: str, text: str) -> None:
        mine = self.stream.other
        if word == "flood":
            for number in range(int(rest)):
                self.say(chat.Say(f"message {number}"))
        elif word in ("stall", "go"):
            mine.stalled = word == "stall"
        elif word in ("hold", "take"):
            mine.holding = word == "hold"
        elif word == "lose":
            mine.fail(TimeoutError("timed out"))
        elif word == "bye":
            self.say(chat.Bye())
            self.stream.finish()
        else:
            self.say(chat.Say("you said " + text))


def main() -> int:
    """Run the client, with the chat's options."""
    arguments = chat.chat_parser("fakes.py", "", "", linger=INFINITY).parse_args(["fake0", *sys.argv[1:]])
    chat.check_folders(arguments)
    with TickingNode(1) as node, FakeNode(2) as other:
        stream = connect(node, other)
        node.others_turn = Obedient(stream.other, "peer").obey
        with chat.open_console(arguments) as console:
            arguments.name = "me"
            room = chat.open_room(node, console, arguments)  # type: ignore[arg-type]
            room.join(stream)  # type: ignore[arg-type]
            return room.run()


if __name__ == "__main__":
    sys.exit(run(main))
