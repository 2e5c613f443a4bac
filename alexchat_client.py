"""AlexChat's client, and what both ends of the chat are made of.

Console         stdin, stdout, stderr, the terminal's mode and the signals (the line editor itself is in utils.py)
Conversation    JSON lines over one stream, and what of them the other node holds
Files           what is offered, sent and received (how: alexstream_client.py, alexstream_server.py)
Room            all conversations of this program, and its one event loop; ClientRoom: a client's
Lobby           the servers to choose from

JSON lines are UTF-8, one object a line, at most 64 KiB: {"type": "hello", "name": ...}, {"type": "say", "id": n,
"text": ...} (with "from" where the server passes it on), {"type": "bye"}. Unknown types and keys are ignored, and a
program that knows only these three can talk to ours. Ours say in their hello what they can beyond that, "can": "private
files", and only then get "to" in a say, `offer` and `decline`. The server reports others by `joined`, `left`, `notice`.
"""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse
import contextlib
import errno
import functools
import itertools
import termios
from collections import deque
from datetime import datetime, timedelta
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Union

import constants as c
from alexstream_client import Decline, Offer, Outgoing, Upload, complete_path, hash_file, open_file
from alexstream_server import Download, Incoming, arrivals, is_sound
from node import (
    INFINITY,
    Aside,
    BusyError,
    ChangesOmitted,
    Echoed,
    Listener,
    MessageReceived,
    Node,
    NodeEvent,
    NodeFound,
    NodeLost,
    SetupError,
    StandardOutputs,
    Stream,
    argument_parser,
    check_peer,
    describe_event,
    has_color,
    json_line,
    open_node,
    open_stream,
    peer_address,
    quoted,
    run,
    wait_for_files,
)
from utils import (
    Act,
    LineEditor,
    LineSplitter,
    Screen,
    can_encode,
    decode_json,
    encode_json,
    format_address,
    format_size,
    format_table,
    is_unicast,
    label_names,
    parse_address,
    parse_unicast,
    printable,
    printable_label,
    printable_name,
    safe_file_name,
    with_tail,
)

# --- The person's side ----------------------------------------------------------------------------------------------


class Log:
    """A file to which lines are appended with date and time; no error of it stops anything but the log."""

    def __init__(self, path: str) -> None:
        self.failure = ""  # what went wrong, once it has
        self._path = path
        self._descriptor = -1

    def add(self, text: str, now: datetime) -> None:
        """Append one line."""
        if not self._path or self.failure:
            return
        data = f"{now:%Y-%m-%d %H:%M:%S} {text}\n".encode("utf-8", "backslashreplace")
        try:
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
                self._descriptor = os.open(self._path, flags, 0o600)
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self.failure = f"nothing more is logged: {self._path}: {error.strerror}"

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Console:
    """Lines typed in, text shown, signals; with line editor and `Screen` where stdin and stdout are a terminal.

    A context manager: whatever happens inside, the terminal's mode and the signal handlers are put back. Inside,
    signals (and Ctrl-C, a key like others) take effect in `wait` and where output waits for its reader, nowhere else:
    as SystemExit with 128 + the signal's number. After that, output no longer waits for its reader.

    `as_json`: stdout is for `show_json`, nothing is edited or painted. `is_quiet`: of the notes only errors are shown.
    `log`: a file for all that is said here; `bell`: ring for messages; `timestamps`: show the time before a line.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        is_quiet: bool = False,
        has_color: bool = True,
        log: str = "",
        bell: bool = False,
        timestamps: bool = False,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.as_json = as_json
        self._is_quiet = is_quiet
        self._log = Log(log)
        self._bell = bell
        self._rang = datetime.min
        self._timestamps = timestamps
        self._clock = clock
        self.is_interactive = os.isatty(0)
        self.at_end = False  # nothing more will be typed
        self.screen: Optional[Screen] = None
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self._lines: Deque[Optional[str]] = deque()  # typed, not taken yet; None was too long
        self._splitter = LineSplitter(c.CHAT_LINE_BYTES)
        self._undo = contextlib.ExitStack()
        self._signals = -1
        self._outputs = StandardOutputs()
        self._leaving = False  # after a signal
        self._mode: List[Any] = []  # the terminal's, from before
        is_smart = os.environ.get("TERM", "dumb") != "dumb"
        if self.is_interactive and os.isatty(1) and is_smart and not as_json:
            signs = "\u00b7\u2713\u2717" if can_encode("\u00b7\u2713\u2717", encoding) else ".+!"
            self.screen = Screen(LineEditor(80, encoding=encoding), height=24, signs=signs, has_color=has_color)

    def __enter__(self) -> "Console":
        with contextlib.ExitStack() as undo:
            undo.callback(self._log.close)
            self._watch_signals(undo)
            if self.screen:
                self._mode = termios.tcgetattr(0)
                undo.callback(self._restore_terminal)
                self._take_terminal()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._undo, contextlib.suppress(OSError):
            self._paint()
            self._drain()

    def wait(self, node: Node, *, reading: bool, timeout: Optional[float]) -> None:
        """Wait for the network, a signal, typing (if `reading`), at most `timeout` seconds; write on meanwhile."""
        self._paint()
        reading = reading and not self.at_end
        ready = node.wait(self._signals, *[0] * reading, writing=self._outputs.waiting, timeout=timeout)
        self._outputs.flush()
        if self._signals in ready:
            self._take_signals()
        if reading and 0 in ready:
            self._read()

    @property
    def is_full(self) -> bool:
        """Whether so much waits for a terminal, or for the reader of a pipe, that nobody had better be listened to."""
        return self._outputs.is_full

    def take_lines(self) -> List[Optional[str]]:
        """Return the lines typed since the last call; None stands for one that was too long."""
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def show(self, text: str) -> None:
        """Show a line of the talk."""
        now = self._clock()
        if self._bell and abs(now - self._rang) >= timedelta(seconds=c.BELL_SECONDS):
            self._rang = now
            if self.screen:
                self.screen.ring()
            elif os.isatty(1) and not self.as_json:
                self._outputs.write(1, b"\a")
        if not self.as_json:
            self._show(1, text)
        self._add_to_log(text)

    def show_json(self, line: str) -> None:
        """Show an event to a program."""
        self._outputs.write_line(1, line)

    def note(self, text: str, *, is_error: bool = False) -> None:
        """Show what is not part of the talk."""
        if is_error or not self._is_quiet:
            self._show(2, text)
        self._add_to_log(text)

    def reply(self, text: str) -> None:
        """Show what the person has asked for: also where notes are not wanted."""
        self.note(text, is_error=True)

    def _show(self, descriptor: int, text: str) -> None:
        stamped = self._stamp() + text
        if self.screen and os.isatty(descriptor):
            self.screen.show(stamped)
        else:
            self._outputs.write_line(descriptor, stamped)

    def _add_to_log(self, text: str) -> None:
        had_failed = self._log.failure
        self._log.add(text, self._clock())
        if self._log.failure != had_failed:
            self._show(2, self._log.failure)

    def _stamp(self) -> str:
        return f"{self._clock():%H:%M} " if self._timestamps else ""

    def show_own(self, ident: int, text: str) -> None:
        """Show a line of one's own as sent; `settle` says later what became of it."""
        if self.screen:
            self.screen.show_own(ident, self._stamp() + printable(text))
        self._add_to_log("> " + printable(text))

    def settle(self, ident: int, text: str, *, delivered: bool) -> None:
        """Show a line of one's own as delivered or not."""
        if self.screen:
            self.screen.settle(ident, delivered=delivered)
        elif self.is_interactive and delivered and not self.as_json:
            self._outputs.write_line(2, f"delivered: {printable(text)}")

    def set_prompt(self, prompt: str) -> None:
        """Set what stands before the text being typed."""
        if self.screen:
            self.screen.editor.prompt = prompt

    def _paint(self) -> None:
        if self.screen:
            with contextlib.suppress(OSError):  # it may be gone
                self._measure(is_moved=False)  # a terminal may reflow before its signal arrives
            self._outputs.write(1, self.screen.paint())

    def _drain(self) -> None:
        """Wait until all that was said is shown; after a signal not longer than that takes at once."""
        while self._outputs.waiting and not self._leaving:
            if self._signals in wait_for_files([self._signals], None, self._outputs.waiting):
                self._take_signals()
            self._outputs.flush()

    def _read(self) -> None:
        try:
            data = os.read(0, c.READ_BYTES)
        except OSError:  # the terminal is gone
            data = b""
        self.at_end = not data
        if self.screen:
            for action in self.screen.editor.feed(data):
                self._act(action.act, action.text)
            return
        for line in self._splitter.feed(data) if data else self._splitter.finish():
            self._lines.append(None if line is None else line.decode("utf-8", "replace"))

    def _act(self, act: Act, text: str) -> None:
        if act is Act.SUBMIT:
            self._lines.append(text)
        elif act is Act.LEAVE:
            self.at_end = True
        elif act is Act.INTERRUPT:
            raise SystemExit(128 + signal.SIGINT)
        elif act is Act.CLEAR:
            self._outputs.write(1, b"\x1b[H\x1b[2J")
            self._measure()
        elif act is Act.SUSPEND:
            self._restore_terminal()
            os.kill(0, signal.SIGTSTP)  # the whole job, as the terminal would; stops here until SIGCONT
            self._take_terminal()

    # -- the terminal and the signals

    def _take_terminal(self) -> None:
        """Make keys arrive at once and unechoed, each as a byte (Ctrl-C too), and pastes in brackets."""
        mode = termios.tcgetattr(0)
        mode[0] &= ~(termios.ICRNL | termios.IXON)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(0, termios.TCSADRAIN, mode)
        os.write(1, b"\x1b[?2004h")
        self._measure()

    def _restore_terminal(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone
            os.write(1, b"\r\x1b[K\x1b[?2004l")
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, self._mode)

    def _measure(self, *, is_moved: bool = True) -> None:
        if self.screen:
            size = os.get_terminal_size(1)
            width, height = size.columns or 80, size.lines or 24  # a serial line knows no size
            if is_moved or (width, height) != (self.screen.editor.width, self.screen.height):
                self.screen.editor.width, self.screen.height = width, height
                self.screen.forget_rows()

    def _watch_signals(self, undo: contextlib.ExitStack) -> None:
        """Let signals wake `select` through a pipe; what was ignored (nohup) stays so."""
        self._signals, writing = os.pipe()
        undo.callback(os.close, self._signals)
        undo.callback(os.close, writing)
        os.set_blocking(writing, False)
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writing))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGCONT):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                undo.callback(signal.signal, number, signal.signal(number, lambda *_: None))

    def _take_signals(self) -> None:
        for number in os.read(self._signals, c.READ_BYTES):
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._leaving = True
                raise SystemExit(128 + number)
            if number == signal.SIGCONT and self.screen:
                self._take_terminal()
            self._measure()


# --- What the chat says on a stream ---------------------------------------------------------------------------------


class Hello(NamedTuple):
    """The name of the peer, and which of the words of CAN, if any, its program knows."""

    name: str
    can: str = ""


class Say(NamedTuple):
    """A message; `sender` is set where the server passes it on, `to` where it is for one alone."""

    text: str
    ident: int = 0
    sender: str = ""
    to: str = ""


class Bye(NamedTuple):
    """The peer leaves."""


class Joined(NamedTuple):
    """The server tells who else is in the room."""

    name: str
    address: str


class Left(NamedTuple):
    """The server tells who is no longer there."""

    name: str


class Notice(NamedTuple):
    """The server tells why it did not do what it was asked for."""

    text: str


class Malformed(NamedTuple):
    """A line that is none of these and not just unknown."""

    reason: str


Record = Union[Hello, Say, Bye, Joined, Left, Notice, Offer, Decline, Malformed]

CAN = "private files"  # messages for one alone, and offers of files
_TYPES: Dict[str, Any] = {
    "hello": Hello, "say": Say, "bye": Bye, "joined": Joined, "left": Left, "notice": Notice, "offer": Offer,
    "decline": Decline,
}  # fmt: skip
_KEYS = {"ident": "id", "sender": "from"}  # where JSON has another word for a field
_NUMBERS = ("ident", "size")


def encode_record(record: Record) -> bytes:
    """Return the record as one line of JSON; its length is not checked."""
    fields: Dict[str, Any] = {"type": type(record).__name__.lower()}
    for field, value in record._asdict().items():
        if value != "" or field not in record._field_defaults:
            fields[_KEYS.get(field, field)] = value
    return encode_json(fields)


def decode_record(line: bytes) -> Optional[Record]:
    """Return what a line says; None where its type is unknown, for the next version's sake. Never raises."""
    fields, reason = decode_json(line)
    if not isinstance(fields.get("type"), str):
        return Malformed(reason or "not an object with a type")
    kind = _TYPES.get(fields["type"])
    if kind is None:
        return None
    values = {field: fields.get(_KEYS.get(field, field), kind._field_defaults.get(field)) for field in kind._fields}
    if any(type(value) is not (int if field in _NUMBERS else str) for field, value in values.items()):
        return Malformed("wrong fields")
    record: Record = kind(**{field: value if field in _NUMBERS else _whole(value) for field, value in values.items()})
    return record


def _whole(text: str) -> str:
    """Return the text without halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Unacked(NamedTuple):
    """A record and the offset in the stream behind it: once the other node holds that much, it holds the record."""

    offset: int
    record: Record


class Conversation:
    """JSON lines over one stream: records in and out without waiting, and what the other node holds of them."""

    def __init__(self, stream: Stream, *, now: float) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.name = format_address(stream.peer)
        self.can = ""
        self.is_greeted = False  # the peer has sent its hello
        self.has_left = False  # it said so, or its leaving is told already
        self.is_duplicate = False  # there is another chat with the same node: nothing more is said here
        self.at_end = False  # the peer says nothing more
        self.may_have_more = False  # there may be more to read
        self.last_progress_at = now  # when it last took something, or had nothing to take (monotonic seconds)
        self.call_at = INFINITY  # when to call a restarted program again, and until when to try
        self.lost_at = INFINITY
        self.unacked: Deque[Unacked] = deque()
        self._splitter = LineSplitter(c.CHAT_LINE_BYTES)
        self._queue = bytearray()
        self._offset = 0  # behind the last byte queued
        self.is_finishing = False  # nothing more will be said here
        self._delivered = 0  # at the last look

    @property
    def waiting(self) -> int:
        """Bytes that the other node does not hold yet."""
        return self._offset - self.stream.delivered

    @property
    def is_full(self) -> bool:
        """Whether the peer does not take what is queued for it."""
        return len(self._queue) > c.QUEUE_BYTES or self.waiting > c.WAITING_BYTES

    @property
    def is_settled(self) -> bool:
        """Whether the other node holds all that is said, its end too, or will hold nothing more."""
        return not (self._queue or self.unacked) and (self.stream.drained or self.stream.ended)

    @property
    def is_away(self) -> bool:
        """Whether the peer cannot be reached at the moment, but may come back."""
        return self.stream.stalled or self.lost_at < INFINITY

    def put(self, record: Record, line: bytes = b"") -> bool:
        """Queue a record, encoded already if `line` is given; return False when nothing can be said any more."""
        may_return = self.stream.restarted or self.lost_at < INFINITY
        if self.is_finishing or (self.stream.ended and not may_return):
            return False
        line = line or encode_record(record)
        self._queue += line
        self._offset += len(line)
        if not isinstance(record, (Hello, Bye)):
            self.unacked.append(Unacked(self._offset, record))
        return True

    def take_over(self, before: "Conversation") -> None:
        """Take over from a conversation whose stream has failed: say again, in order, what its peer did not hold."""
        self.name, self.can, self.is_greeted = before.name, before.can, before.is_greeted
        for unacked in before.unacked:
            self.put(unacked.record)
        before.unacked.clear()

    def finish(self) -> None:
        """Say nothing more, once all that is queued is said."""
        self.is_finishing = True

    def flush(self, *, now: float) -> None:
        """Give the stream what it takes."""
        try:
            while self._queue:
                taken = self.stream.write(bytes(self._queue[: c.RECEIVE_BYTES]))
                if not taken:
                    break
                self.last_progress_at = now
                del self._queue[:taken]
            if self.is_finishing and not self._queue:
                self.stream.finish()
        except OSError:  # the stream has failed; it says so itself
            self._queue.clear()
        if not self.is_full or self.stream.delivered > self._delivered:
            self.last_progress_at = now
        self._delivered = self.stream.delivered

    def receive(self) -> List[Record]:
        """Return what arrived, at most RECEIVE_BYTES of it."""
        try:
            data = self.stream.read(c.RECEIVE_BYTES)
        except OSError:  # the stream has failed; it says so itself
            data = None
        self.may_have_more = bool(data)
        if data is None:
            return []
        self.at_end = not data
        records = []
        for line in self._splitter.feed(data) if data else self._splitter.finish():
            record = Malformed("longer than 64 KiB") if line is None else decode_record(line)
            if record is not None:
                records.append(record)
        return records

    def take_held(self) -> List[Record]:
        """Return the records that the other node holds since the last call."""
        held = []
        while self.unacked and self.unacked[0].offset <= self.stream.delivered:
            held.append(self.unacked.popleft().record)
        return held


# --- Files ----------------------------------------------------------------------------------------------------------


class Files:
    """The files that this person offers, was offered, sends and receives."""

    def __init__(self, node: Node, console: Console, folder: str, tell: Callable[..., None]) -> None:
        """`tell`: the room's, for programs."""
        self._tell = tell
        self.incoming: Dict[int, Incoming] = {}  # offers, by the number that /accept takes
        self._node = node
        self._console = console
        self._folder = folder
        self._numbers = itertools.count(1)
        self._hashing: Deque[Tuple[Outgoing, Aside]] = deque()  # to be offered when their digest is known
        self._shared: Dict[str, Outgoing] = {}  # by token
        self._listener: Optional[Listener] = None
        self._uploads: List[Upload] = []
        self._downloads: Dict[int, Download] = {}
        self._is_full = False  # and said so

    # -- ours

    def send(self, path: str) -> None:
        """Open a file, to be offered once it is hashed; raise OSError, ValueError."""
        if len(self._shared) + len(self._hashing) >= c.OFFERS_MAX:
            raise ValueError(f"{c.OFFERS_MAX} files are offered already")
        file = open_file(path)
        digest = self._node.aside(functools.partial(hash_file, os.dup(file.descriptor), file.size))
        self._hashing.append((file, digest))

    def next_offer(self) -> Optional[Offer]:
        """Return an offer whose digest is known by now, if any."""
        if not self._hashing or not self._hashing[0][1].done:
            return None
        file, hasher = self._hashing.popleft()
        try:
            digest = hasher.result()
            if self._listener is None:
                self._listener = self._node.listen(c.PORT_FILE)
        except OSError as error:
            self._console.note(f"{printable(file.path)}: {error.strerror}", is_error=True)
            self._tell("file failed", path=file.path, reason=error.strerror)
            os.close(file.descriptor)
            return None
        token = os.urandom(8).hex()
        self._shared[token] = file._replace(sha256=digest)
        return Offer(token, os.path.basename(file.path), file.size, digest)

    def path(self, token: str) -> str:
        """Return where a file of ours is."""
        return self._shared[token].path

    def forget(self, token: str) -> None:
        """Take an offer back."""
        os.close(self._shared.pop(token).descriptor)

    def declined(self, token: str, name: str) -> None:
        """Say that a member does not want a file of ours."""
        if token in self._shared:
            file = self._shared[token]
            self._console.note(f"{name} does not want {printable(os.path.basename(file.path))}")
            self._tell("file declined", name=name, path=file.path, sha256=file.sha256)

    # -- others'

    def take_offer(self, offer: Offer, sender: str, address: bytes) -> None:
        """Show an offer, if it can be meant, and is not one too many."""
        if not is_sound(offer) or address in (b"", self._node.address):
            self._console.note(f"{sender} offers a file in a way that makes no sense: ignored")
            return
        if any((known.address, known.offer.token) == (address, offer.token) for known in self.incoming.values()):
            return
        same = [incoming.address for incoming in self.incoming.values()].count(address)
        if same >= c.OFFERS_PER_NODE or len(self.incoming) >= c.OFFERS_MAX:
            if not self._is_full:
                self._console.note(f"{sender} offers more files than are shown: /accept or /decline some")
            self._is_full = True
            return
        number, name = next(self._numbers), safe_file_name(offer.file)
        self.incoming[number] = Incoming(sender, address, name, offer)
        self._console.show(f"{sender} offers {name} ({format_size(offer.size)}): /accept {number} or /decline {number}")
        self._tell_of("file offered", self.incoming[number], number=number, size=offer.size)

    def choose(self, which: str) -> Optional[int]:
        """Return the number of the offer meant by a number, a sender or, if there is only one, nothing."""
        numbers = [n for n, incoming in self.incoming.items() if which in ("", str(n), incoming.sender)]
        if len(numbers) == 1:
            return numbers[0]
        lines = [f"  {n}  {self.incoming[n].name} from {self.incoming[n].sender}" for n in numbers or self.incoming]
        self._console.reply("\n".join(["which file? Give its number:", *lines] if lines else ["no file is offered"]))
        return None

    def accept(self, number: int) -> None:
        """Begin, or go on, to fetch a file."""
        incoming = self.incoming[number]
        if number in self._downloads:
            self._console.reply(f"{incoming.name} is under way already")
            return
        try:
            self._downloads[number] = Download(self._node, incoming, self._folder)
        except OSError as error:
            reason = f"{error.strerror} in {self._folder}"
            self._console.note(f"NOT accepted: {incoming.name}: {reason}", is_error=True)
            self._tell_of("file failed", incoming, number=number, reason=reason)
        else:
            self._tell_of("file accepted", incoming, number=number)

    def decline(self, number: int) -> Decline:
        """Forget an offer; return what to tell its sender."""
        self._is_full = False
        if number in self._downloads:
            self._downloads.pop(number).close()
        incoming = self.incoming.pop(number)
        return Decline(incoming.offer.token, incoming.sender)

    # -- both

    @property
    def is_active(self) -> bool:
        """Whether a file is on its way."""
        return bool(self._downloads) or any(upload.file for upload in self._uploads)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do without the network."""
        return any(download.is_busy for download in self._downloads.values())

    def next_deadline(self) -> float:
        """Return when to look again even if nothing happens."""
        waiting = [one.call_at for one in self._downloads.values() if one.waits_to_call]
        return min([INFINITY, *waiting, *(one.deadline for one in self._uploads)])

    def progress(self) -> str:
        """Return how far the files have come, for the prompt."""
        names = [f"{one.incoming.name} {one.percent}" for one in self._downloads.values()]
        names += [f"{os.path.basename(one.file.path)} {one.percent}" for one in self._uploads if one.file]
        return ", ".join(names)

    def turn(self, name_of: Callable[[bytes], str]) -> None:
        """Let every file go on."""
        now = self._node.now()
        for stream in arrivals(self._listener) if self._listener else ():
            if len(self._uploads) < c.UPLOADS_MAX:
                self._uploads.append(Upload(stream, now=now))
            else:
                stream.abort()
        for upload in self._uploads:
            told = upload.turn(self._shared, now=now)
            if told and upload.file:
                self._tell_of_upload(upload, upload.file, name_of(upload.stream.peer), told)
        self._uploads = [upload for upload in self._uploads if not upload.is_over]
        for number, download in list(self._downloads.items()):
            told = download.turn()
            if told:
                self._tell_of_download(number, download, told)
            if download.is_over:
                del self._downloads[number]
            if download.path:
                del self.incoming[number]
                self._is_full = False

    def _tell_of_upload(self, upload: Upload, file: Outgoing, name: str, told: str) -> None:
        what = told.format(printable(os.path.basename(file.path)))
        self._console.note(f"{name} {what}", is_error=not upload.is_held)
        kind = "file finished" if upload.is_held else "file failed"
        reason = {} if upload.is_held else {"reason": what}
        self._tell(kind, name=name, address=upload.stream.peer, path=file.path, sha256=file.sha256, **reason)

    def _tell_of_download(self, number: int, download: Download, told: str) -> None:
        incoming = download.incoming
        self._console.note(f"{incoming.name} from {incoming.sender}: {told}", is_error=not download.path)
        if download.path:
            self._tell_of("file finished", incoming, number=number, path=download.path)
        else:
            self._tell_of("file failed", incoming, number=number, reason=told)

    def _tell_of(self, kind: str, incoming: Incoming, **fields: object) -> None:
        sender, address, sha256 = incoming.sender, incoming.address, incoming.offer.sha256
        self._tell(kind, name=sender, address=address, file=incoming.name, sha256=sha256, **fields)

    def close(self) -> None:
        """Stop everything; what was received in part stays, to be resumed."""
        for download in self._downloads.values():
            download.close()
        for upload in self._uploads:
            upload.stream.abort()
        for file in [*self._shared.values(), *(file for file, _ in self._hashing)]:
            os.close(file.descriptor)
        self._downloads, self._uploads, self._shared = {}, [], {}
        self._hashing.clear()
        if self._listener is not None:
            self._listener.close()


# --- Everybody, and the loop ----------------------------------------------------------------------------------------


class Room:
    """Everybody this program talks to, and the one loop that serves them, the person and the signals."""

    def __init__(
        self,
        node: Node,
        console: Console,
        *,
        name: str,
        linger: float = 0.0,
        downloads: str = ".",
        is_verbose: bool = False,
    ) -> None:
        self.node = node
        self._is_verbose = is_verbose
        self.console = console
        self.name = name
        self.chats: List[Conversation] = []
        self.people: Dict[str, str] = {}  # those that the server announced: name -> address
        self.files = Files(node, console, downloads, self.tell)
        self.leave_at = INFINITY  # what is open then is left (monotonic seconds)
        self._linger = linger  # seconds to listen on after the last line of a pipe
        self._idents = itertools.count(1)
        self._missing: Dict[int, int] = {}  # message -> how many nodes do not hold it yet
        self._ignored: Set[str] = set()  # names and addresses
        self._who_at = INFINITY  # when the answers to /who are shown
        self._lingering = False
        self._undelivered = 0  # messages
        self._lost = 0  # streams
        if console.screen:
            console.screen.editor.completions = self._completions

    def join(self, stream: Stream) -> Conversation:
        """Take up the talk on a new stream."""
        chat = Conversation(stream, now=self.node.now())
        chat.put(Hello(self.name, CAN))
        self.chats.append(chat)
        return chat

    def run(self) -> int:
        """Talk until it is over; return the exit status."""
        status = 0
        try:
            self._loop()
        except SystemExit as interruption:
            status = int(interruption.code or 0)
            for line in self.console.take_lines():  # typed just before
                self._type(line)
            self.leave()
            with contextlib.suppress(SystemExit):  # a second interruption does not wait
                self._loop()
        self.leave_at = self.node.now()
        for chat in list(self.chats):
            self.remove(chat)
            chat.stream.abort()
            self.drain(chat)
        self.files.close()
        return status or int(self.has_failed())

    def _loop(self) -> None:
        while not self.is_over():
            self.console.wait(self.node, reading=self.wants_lines(), timeout=self._timeout())
            self.turn()

    def has_failed(self) -> bool:
        """Return whether the exit status has to report a failure."""
        return self._lost > 0 or (self._undelivered > 0 and not self.console.is_interactive)

    def is_over(self) -> bool:
        """Return whether there is nothing left to do."""
        return not (self.chats or self.files.is_active) or self.node.now() >= self.leave_at

    def wants_lines(self) -> bool:
        """Return whether a typed line has a receiver that takes it. A person may type at any time."""
        return self.console.is_interactive or (bool(self.chats) and not self.is_congested())

    def is_congested(self) -> bool:
        """Return whether some peer does not take what is queued for it."""
        return any(chat.is_full for chat in self.chats)

    def may_listen(self) -> bool:
        """Return whether to take in what others say."""
        return not self.console.is_full

    def _timeout(self) -> Optional[float]:
        if self.files.is_busy or (self.may_listen() and any(chat.may_have_more for chat in self.chats)):
            return 0.0
        left = self.next_deadline() - self.node.now()
        return None if left == INFINITY else max(left, 0.0)

    def next_deadline(self) -> float:
        """Return when to look after everybody even if nothing happens."""
        return min(self.leave_at, self._who_at, self.files.next_deadline())

    def turn(self) -> None:
        """Do what typing, the network and the clock ask for."""
        for line in self.console.take_lines():
            self._type(line)
        self._report_mesh()
        for chat in self.chats:
            if self.may_listen():
                self._listen(chat)
            else:
                chat.may_have_more = True  # what woke this turn up will not do so again
        for chat in list(self.chats):
            self.serve(chat)
        self.chats = self.chats[1:] + self.chats[:1]  # who is listened to first may be the only one in a turn
        offer = self.files.next_offer()
        if offer is not None:
            self._offer(offer)
        self.files.turn(self.name_of)
        self._show_who()
        self._set_prompt()
        if self.console.at_end:
            self.end_typing()
        for chat in self.chats:
            chat.flush(now=self.node.now())

    def _set_prompt(self) -> None:
        away = [chat.name for chat in self.chats if chat.is_away]
        said = [*([f"{' '.join(away)}: link lost, retrying"] if away else []), self.files.progress()]
        self.console.set_prompt("; ".join(filter(None, said)) + "> ")

    def _report_mesh(self) -> None:
        """Show what concerns this node; who comes and goes in the mesh does not."""
        for event in news(self.node):
            if isinstance(event, MessageReceived):
                self.console.note(told_message(event))
                self.tell("message", address=event.origin, data=event.data)
            elif self._is_verbose or not isinstance(event, (ChangesOmitted, NodeFound, NodeLost)):
                self.console.note(describe_event(event, self.node.names))

    # -- what is typed

    def _type(self, line: Optional[str]) -> None:
        if line is None:
            self._refuse("a line of over 64 KiB")
        elif not self.console.is_interactive:
            self._say(line)
        elif line.strip() == "exit":
            self.leave()
        elif line.startswith("/") and not line.startswith("//"):
            self._obey(line)
        elif self.leave_at == INFINITY:
            self._say(line[line.startswith("//") :])
        else:
            self._refuse(f"already leaving: {printable(line)}")

    def _completions(self, before: str) -> List[str]:
        """Return what Tab can make of the text before the cursor: a path, a command or a name at its end."""
        send, space, path = before.partition(" ")
        if send.lower() == "/send" and space:
            return [send + space + found for found in complete_path(path)]
        start = before[: before.rfind(" ") + 1]
        return [start + word for word in (*COMMAND_NAMES, "exit", *self.members())]

    def _obey(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = next((command for command in COMMANDS if name.lower() in command.names.split()), None)
        if command is None:
            self.console.reply(f"no command {printable(name)}: /help lists them; /{printable(name)} says it")
        else:
            command.act(self, rest.strip())

    def help(self, _: str) -> None:
        """List the commands."""
        rows = [(" or ".join(command.names.split()), command.usage, command.does) for command in COMMANDS]
        lines = [f"  {f'{names} {usage}'.strip():32} {does}" for names, usage, does in rows]
        self.console.reply("\n".join([*lines, "  //TEXT                           say a line that begins with /"]))

    def msg(self, rest: str) -> None:
        """Say something to one person alone."""
        typed, _, text = rest.partition(" ")
        name, problem = self._find(typed)
        if not text.strip():
            self.console.reply("usage: /msg NAME TEXT")
        elif problem:
            self._refuse(problem)
        elif not all("private" in chat.can.split() for chat in self.audience(name)):
            self._refuse("the other program passes on no messages to one alone")
        else:
            self._say(text.strip(), to=name)

    def _find(self, typed: str) -> Tuple[str, str]:
        """Return the name, as shown here, of the one person meant, and ""; or else "" and what is wrong.

        Each member may be called by its name and the tail of its address. A name alone that several have is refused.
        """
        labels = {with_tail(name.partition("~")[0], address): name for name, address in self.members().items()}
        found = {label: name for label, name in labels.items() if typed in (label, label.partition("~")[0])}
        if len(found) == 1 and typed in (*found, *found.values()):
            return next(iter(found.values())), ""
        if found:
            return "", f"which {printable(typed)}? {', '.join(sorted(found))}"
        return "", f"nobody here is called {printable(typed)}: /who lists all"

    def ignore(self, typed: str) -> None:
        """Hide, or show again, what a member says; without a name list who is ignored."""
        name, problem = (typed, "") if self.is_ignored(typed) else self._find(typed)
        if not typed:
            self.console.reply(" ".join(["ignored:", *(sorted(self._ignored) or ["nobody"])]))
        elif self.is_ignored(name):
            self._ignored -= {name, self.members().get(name, "")}
            self.console.reply(f"{name} is heard again")
        elif problem:
            self.console.reply(problem)
        else:
            self._ignored |= {name, self.members()[name]}
            self.console.reply(f"{name} is ignored; /ignore {name} ends that")

    def send(self, path: str) -> None:
        """Offer a file to everybody here."""
        try:
            self.files.send(path)
        except OSError as error:
            self.console.reply(f"{printable(path)}: {error.strerror}")
        except ValueError as error:
            self.console.reply(printable(str(error)))

    def accept(self, which: str) -> None:
        """Fetch an offered file."""
        number = self.files.choose(which)
        if number is not None:
            self.files.accept(number)

    def decline(self, which: str) -> None:
        """Refuse an offered file, also when it is on its way."""
        number = self.files.choose(which)
        if number is not None:
            answer = self.files.decline(number)
            for chat in self.audience(answer.to):
                chat.put(answer)

    def who(self, _: str) -> None:
        """Ask everybody's node for an answer, to be shown in a moment."""
        self.node.ask(self._addresses().values())
        self._who_at = self.node.now() + c.WHO_SECONDS

    def _addresses(self) -> Dict[str, bytes]:
        found = {name: parse_address(address) for name, address in self.members().items() if address}
        return {name: address for name, address in found.items() if address != self.node.address}

    def _show_who(self) -> None:
        """Show the table that /who asked for, once all have answered or their time is up."""
        if self._who_at == INFINITY:
            return
        addresses, now = self._addresses(), self.node.now()
        answers = {answer.address: answer for answer in self.node.answers()}
        if now < self._who_at and not set(addresses.values()) <= set(answers):
            return
        self._who_at = INFINITY
        heard = {known.address: known.last_heard for known in self.node.nodes()}
        rows = [("name", "address", "hops", "round trip", "last seen")]
        for name, address in sorted(addresses.items()):
            hops, trip, seen = "-", "-", "-"
            if address in answers:
                hops, trip, seen = str(answers[address].hops), f"{1000 * answers[address].rtt:.2f} ms", "now"
            elif address in heard:
                seen = f"{now - heard[address]:.0f} s ago"
            rows.append((name, format_address(address), hops, trip, seen))
        rows.append((f"{self.own_name} (you)", format_address(self.node.address), "0", "-", "now"))
        self.console.reply("\n".join(format_table(rows)))

    @property
    def own_name(self) -> str:
        """What the others see."""
        return printable_name(self.name) or format_address(self.node.address)

    def members(self) -> Dict[str, str]:
        """Return everybody's name and address."""
        direct = {chat.name: format_address(chat.stream.peer) for chat in self.chats if not chat.is_duplicate}
        return {**self.people, **direct}

    def name_of(self, address: bytes) -> str:
        """Return what a node is called here."""
        text = format_address(address)
        return next((name for name, known in self.members().items() if known == text), text)

    def audience(self, name: str) -> List[Conversation]:  # noqa: ARG002  the server's room needs it
        """Return the chats on which a message to one person goes: that with the server, which passes it on."""
        return list(self.chats)

    def _say(self, text: str, to: str = "") -> None:
        message = Say(text, next(self._idents), "", to)
        line = encode_record(message)
        if len(line) > c.CHAT_LINE_BYTES - c.FROM_BYTES:
            self._refuse(f"a message of {len(text)} characters: too long")
            return
        if self.console.is_interactive and any(chat.waiting > c.WAITING_BYTES for chat in self.chats):
            self._refuse(f"too much is waiting already: {printable(text)}")
            return
        takers = sum(chat.put(message, line) for chat in (self.audience(to) if to else self.chats))
        if not takers:
            self._refuse(f"nobody is here: {printable(text)}")
            return
        self._missing[message.ident] = takers
        self.console.show_own(message.ident, own_line(message))

    def _offer(self, offer: Offer) -> None:
        """Tell everybody of a file of ours."""
        takers = sum(self.put_offer(chat, offer) for chat in self.chats)
        size = format_size(offer.size)
        if takers:
            self.console.note(f"offered {printable(offer.file)} ({size}); it goes to who accepts it")
            path = self.files.path(offer.token)
            me = {"name": self.own_name, "address": self.node.address}
            self.tell("file offered", **me, path=path, size=offer.size, sha256=offer.sha256)
        else:
            self.files.forget(offer.token)
            reason = "nobody here can take files"
            self.console.note(f"NOT offered: {printable(offer.file)} ({size}): {reason}", is_error=True)
            self.tell("file failed", path=offer.file, sha256=offer.sha256, reason=reason)

    def put_offer(self, chat: Conversation, offer: Offer) -> bool:
        """Pass an offer to one member; return False if its program does not know what that is."""
        return "files" in chat.can.split() and chat.put(offer)

    def _refuse(self, what: str) -> None:
        self._undelivered += 1
        self.console.note(f"NOT delivered: {what}", is_error=True)
        self.tell("not delivered", reason=what)

    def end_typing(self) -> None:
        """Stdin has ended. A person leaves; after a pipe's last line is delivered, the others may go on for a while."""
        if self.console.is_interactive:
            self.leave()
            return
        for chat in self.chats:
            chat.finish()
            chat.flush(now=self.node.now())
        if self.leave_at == INFINITY and all(chat.is_settled for chat in self.chats):
            self._lingering = True
            self.leave_at = self.node.now() + self._linger

    def leave(self, _: str = "") -> None:
        """Say goodbye to everybody, and wait a little for their answer."""
        self._lingering = False
        self.leave_at = min(self.leave_at, self.node.now() + c.CHAT_LEAVE_SECONDS)
        for chat in self.chats:
            chat.put(Bye())
            chat.finish()
            chat.flush(now=self.node.now())
        self.files.close()

    # -- what the others say

    def _listen(self, chat: Conversation) -> None:
        """Act on what has arrived."""
        unreadable: List[Malformed] = []
        for record in chat.receive():
            if isinstance(record, Say):
                self.hear(chat, record)
            elif isinstance(record, Hello):
                self.greet(chat, record)
            elif isinstance(record, Bye):
                self.note_leaving(chat)
                chat.finish()
            elif isinstance(record, Offer):
                self.hear_offer(chat, record)
            elif isinstance(record, Decline):
                self.hear_decline(chat, record)
            elif isinstance(record, Malformed):
                unreadable.append(record)
            else:
                self.hear_server(record)
            if self._lingering:
                self.leave_at = self.node.now() + self._linger
        if unreadable:  # one note for all: a peer that sends a million empty lines must not own the screen
            more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
            self.console.note(f"{chat.name} sent a line that cannot be read: {unreadable[0].reason}{more}")

    def drain(self, chat: Conversation) -> None:
        """Act on all that a stream which is over still holds: the peer was told that it is delivered."""
        self._listen(chat)
        while chat.may_have_more:
            self._listen(chat)

    def reject(self, stream: Stream) -> None:
        """Reject a stream, but show what it delivered."""
        stream.abort()
        self.drain(Conversation(stream, now=self.node.now()))

    def hear(self, chat: Conversation, message: Say) -> None:
        """Show a message."""
        sender = printable_label(message.sender) or chat.name
        alone = " (to you alone)" if message.to else ""
        if not self.is_ignored(sender):
            self.console.show(f"{sender}{alone}: {printable(message.text)}")
            address = self.members().get(sender) or chat.stream.peer
            self.tell("line", name=sender, address=address, text=message.text, **told_to(message))

    def hear_offer(self, chat: Conversation, offer: Offer) -> None:
        """Show an offer; where it names no address, it is the peer's own."""
        sender = printable_label(offer.sender) or chat.name
        address = parse_unicast(offer.address) if offer.address else chat.stream.peer
        if not self.is_ignored(sender):
            self.files.take_offer(offer, sender, address)

    def hear_decline(self, chat: Conversation, decline: Decline) -> None:
        """Say who does not want a file of ours."""
        self.files.declined(decline.token, printable_label(decline.sender) or chat.name)

    def hear_server(self, record: Record) -> None:
        """Act on what only a server may say: nothing."""

    def is_ignored(self, name: str) -> bool:
        """Return whether what a member says is hidden."""
        return not self._ignored.isdisjoint({name, self.members().get(name, name)})

    def greet(self, chat: Conversation, hello: Hello) -> None:
        """Name the peer as it says, once; with the tail of its address where it could be mistaken for another name."""
        chat.can = hello.can
        address = format_address(chat.stream.peer)
        if not chat.is_greeted:
            name = printable_name(hello.name)
            others = {self.own_name, *(o.name for o in self.chats if o.stream.peer != chat.stream.peer)}
            others |= {known for owner, known in self.node.names.items() if owner != chat.stream.peer}
            if name in others or any(char >= "\x7f" for char in name):
                name = with_tail(name, address)
            chat.name = name if name and name not in others else address
        if not chat.is_duplicate and (not chat.is_greeted or chat.lost_at < INFINITY):
            here = "is back" if chat.is_greeted else "is here"
            self.console.note(f"{chat.name} {here}" if chat.name == address else f"{chat.name} ({address}) {here}")
            self.tell("back" if chat.is_greeted else "joined", name=chat.name, address=address)
        chat.is_greeted, chat.lost_at = True, INFINITY

    def note_leaving(self, chat: Conversation) -> None:
        """Say once that a member has left."""
        if not chat.has_left and not chat.is_duplicate:
            self.console.note(f"{chat.name} left")
            self.tell("left", name=chat.name, address=chat.stream.peer)
        chat.has_left = True

    def serve(self, chat: Conversation) -> None:
        """Send what is queued, show what became of it, and remove the conversation when its stream is over."""
        chat.flush(now=self.node.now())
        self.settle_held(chat)
        if chat.stream.ended and self.may_listen():
            self.drain(chat)
            self.remove(chat)

    def remove(self, chat: Conversation) -> None:
        """Remove a conversation whose stream is over, and list what will not arrive."""
        self.chats.remove(chat)
        error = chat.stream.error
        if chat.is_duplicate:
            self.give_up(chat)
            return
        if error is not None and not chat.at_end and not chat.has_left:
            self._lost += 1
            self.console.note(f"{chat.name} is lost: {error}", is_error=True)
            self.tell("lost", name=chat.name, address=chat.stream.peer, reason=str(error))
        elif self.leave_at == INFINITY:
            self.note_leaving(chat)
        self.give_up(chat)

    def give_up(self, chat: Conversation) -> None:
        """List what the peer will not get."""
        self.settle_held(chat)
        for _, record in chat.unacked:
            if isinstance(record, Say) and not record.sender:
                self._undelivered += 1
                self.console.note(f"NOT delivered to {chat.name}: {printable(own_line(record))}", is_error=True)
                self.settle(record, delivered=False)

    def settle_held(self, chat: Conversation) -> None:
        """Show which messages the other node holds by now."""
        for record in chat.take_held():
            self.settle(record, delivered=True)

    def settle(self, record: Record, *, delivered: bool) -> None:
        """Show what became of a message: delivered if all have it, not delivered with the first who will not get it."""
        if not isinstance(record, Say) or record.sender:
            return
        missing = self._missing.pop(record.ident, 0)
        if missing > 1 and delivered:
            self._missing[record.ident] = missing - 1
        elif missing:
            self.console.settle(record.ident, own_line(record), delivered=delivered)
            kind = "delivered" if delivered else "not delivered"
            self.tell(kind, id=record.ident, text=record.text, **told_to(record))

    def tell(self, kind: str, **fields: object) -> None:
        """Tell a program, if one listens, what has happened."""
        if self.console.as_json:
            self.console.show_json(json_line(self.node, kind, fields))


def news(node: Node) -> Iterator[NodeEvent]:
    """Yield what has happened in the mesh since the last call."""
    return iter(lambda: node.next_event(timeout=0), None)


def told_message(message: MessageReceived) -> str:
    """Return what to show of a text that came outside the chat."""
    return f"message from {format_address(message.origin)}: {printable(message.data)}"


def own_line(message: Say) -> str:
    """Return how a message of one's own is shown to oneself."""
    return f"(to {message.to} alone) {message.text}" if message.to else message.text


def told_to(message: Say) -> Dict[str, str]:
    """Return the field that only a message to one alone has."""
    return {"to": message.to} if message.to else {}


class Command(NamedTuple):
    """What may be typed after a slash: all its spellings, what follows, what it does."""

    names: str
    usage: str
    does: str
    act: Callable[[Room, str], None]


COMMANDS = (
    Command("/help /h /?", "", "this list", Room.help),
    Command("/who /w /names", "", "who is here, how far, when last heard", Room.who),
    Command("/msg /m", "NAME TEXT", "say something to one person alone", Room.msg),
    Command("/ignore", "[NAME]", "hide what somebody says, or show it again", Room.ignore),
    Command("/send", "PATH", "offer a file to everybody here", Room.send),
    Command("/accept", "[NUMBER or NAME]", "fetch an offered file, or the rest of it", Room.accept),
    Command("/decline", "[NUMBER or NAME]", "do not want it, or stop it", Room.decline),
    Command("/exit /quit /q", "", "leave", Room.leave),
)
COMMAND_NAMES = tuple(" ".join(command.names for command in COMMANDS).split())


class ClientRoom(Room):
    """The room of a client: one chat, with a server or with another client; over when that is.

    `listener`: where a peer may call us just while we call it. Of the two streams the one opened by the lower address
    stays (simultaneous opens are two streams); what was said on the other still arrives.
    """

    def __init__(self, node: Node, console: Console, *, listener: Optional[Listener] = None, **settings: Any) -> None:
        super().__init__(node, console, **settings)
        self._listener = listener
        self._listens_until = node.now() + c.CROSSING_SECONDS if listener else INFINITY

    def next_deadline(self) -> float:
        """Return also when to call a restarted peer again."""
        again = [chat.call_at for chat in self.chats if chat.stream.ended]
        return min([super().next_deadline(), self._listens_until, *again])

    def turn(self) -> None:
        """Take the call of the peer that was called at the same time."""
        if self._listener is not None:
            for stream in arrivals(self._listener):
                self._cross(stream)
            if self.node.now() >= self._listens_until:
                self._listener.close()
                self._listener, self._listens_until = None, INFINITY
        super().turn()

    def _cross(self, stream: Stream) -> None:
        """Keep one of two streams with the same peer; reject any other."""
        mine = next((chat for chat in self.chats if chat.stream.peer == stream.peer), None)
        if mine is None or len(self.chats) > 1:
            self.reject(stream)
            return
        theirs = self.join(stream)
        keep, spare = (mine, theirs) if self.node.address < stream.peer else (theirs, mine)
        keep.name, keep.can, keep.is_greeted = mine.name, mine.can, mine.is_greeted
        spare.is_duplicate = True
        spare.finish()

    def hear_server(self, record: Record) -> None:
        """Keep the list of who is here."""
        if isinstance(record, Notice):
            self.console.note(printable(record.text), is_error=True)
            self.tell("notice", text=record.text)
        elif isinstance(record, Joined):
            name, address = printable_label(record.name), printable_label(record.address)
            if name in self.people or len(self.people) >= c.PEOPLE_MAX:
                return
            if address != record.address.lower() or not parse_unicast(address):
                return
            self.people[name] = address
            self.console.note(f"{name} ({address}) is here")
            self.tell("joined", name=name, address=address)
        elif isinstance(record, Left):
            name = printable_label(record.name)
            address = self.people.pop(name, "")
            if address:
                self.console.note(f"{name} left")
                self.tell("left", name=name, address=address)

    def remove(self, chat: Conversation) -> None:
        """Remove a conversation; for some minutes call back a peer whose program was restarted."""
        now = self.node.now()
        if self.leave_at < INFINITY and not self._lingering:
            chat.lost_at = now
        elif chat.stream.restarted and chat.lost_at == INFINITY and not chat.at_end and not chat.has_left:
            self.console.note(f"{chat.name}'s program was restarted: calling again")
            self.tell("restarted", name=chat.name, address=chat.stream.peer)
            chat.call_at, chat.lost_at = now, now + c.RETURN_SECONDS
        if chat.lost_at == INFINITY or now >= chat.lost_at:
            super().remove(chat)
        elif now >= chat.call_at:
            try:
                stream = self.node.open(chat.stream.peer, chat.stream.port)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                chat.call_at = now + c.RETRY_SECONDS
                return
            self.chats.remove(chat)
            again = self.join(stream)
            again.call_at, again.lost_at = now + c.RETRY_SECONDS, chat.lost_at
            self.settle_held(chat)
            again.take_over(chat)
            again.is_finishing = chat.is_finishing
            self.people.clear()


# --- The program ----------------------------------------------------------------------------------------------------


def chat_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with what both ends of the chat share."""
    parser = argument_parser(prog, description, epilog)
    parser.add_argument("--timestamps", action="store_true", help="show the time before every line")
    parser.add_argument("--bell", action="store_true", help="ring the terminal's bell when somebody says something")
    parser.add_argument("--log", metavar="FILE", default="", help="append the talk and all notes to a file")
    parser.add_argument("--downloads", metavar="DIR", default=".", help="where accepted files go (the current one)")
    return parser


def check_downloads(arguments: argparse.Namespace) -> None:
    """Raise SetupError if there is no place for files; opens nothing."""
    folder = arguments.downloads
    if not os.path.isdir(folder):
        raise SetupError(f"--downloads {folder}: no such directory; to make it: mkdir {folder}")


def open_console(arguments: argparse.Namespace) -> Console:
    """Return the console as the command line wants it; after `open_node`, so that the log is the user's file."""
    return Console(
        as_json=arguments.json,
        is_quiet=arguments.quiet,
        has_color=has_color(arguments, sys.stdout),
        log=arguments.log,
        bell=arguments.bell,
        timestamps=arguments.timestamps,
    )


def room_settings(arguments: argparse.Namespace) -> Dict[str, Any]:
    """Return what every room takes from the command line."""
    return {"name": arguments.name, "downloads": arguments.downloads, "is_verbose": arguments.verbose}


def linger_argument(text: str) -> float:
    """Return a number of seconds, zero and infinity among them; raise ValueError."""
    if not float(text) >= 0:  # also for nan
        raise ValueError(text)
    return float(text)


def choose_server(node: Node, console: Console) -> bytes:
    """Return the address of the only chat server in the mesh, or of that which the person chooses; or b"".

    Without a person raises SetupError with the commands to choose from if there are several, TimeoutError if none.
    """
    servers = [found for found in node.discover(c.DISCOVER_SECONDS) if c.PORT_CHAT in (found.ports or ())]
    if len(servers) == 1:
        return servers[0].address
    if console.is_interactive:
        with console:
            return Lobby(node, console).choose()
    if not servers:
        raise TimeoutError(
            f"no chat server answers; to start one: sudo python3 alexchat_server.py {quoted(node.links[0].name)}"
        )
    names = quoted(",".join(link.name for link in node.links))
    command = f"sudo python3 alexchat_client.py {names}"
    labels = label_names({server.address: server.name or "" for server in servers}, node.names)
    lines = [
        f"  {command} {format_address(server.address)}  # {labels[server.address]}, {server.hops} hops"
        for server in servers
    ]
    raise SetupError("\n".join(["several chat servers answer, choose one:", *lines]))


class Lobby:
    """The servers of the whole mesh, listed as they come and go, until the person has chosen one."""

    def __init__(self, node: Node, console: Console) -> None:
        self._node = node
        self._console = console
        self._numbers: Dict[bytes, int] = {}  # a server keeps its number
        self._names: Dict[bytes, str] = {}  # of those that are there, as they are shown
        self._said: Dict[bytes, str] = {}  # as they call themselves
        self._ask_at = 0.0

    def choose(self) -> bytes:
        """Return the address chosen; an empty one where the person would rather leave."""
        self._console.reply("chat servers (a number, a name or an address chooses one):")
        self._console.set_prompt("server> ")
        while True:
            self.turn()
            for line in self._console.take_lines():
                if (line or "").strip() in ("exit", "/exit", "/quit", "/q"):
                    return b""
                chosen = self._find((line or "").strip())
                if chosen:
                    return chosen
            if self._console.at_end:
                return b""
            left = max(self._ask_at - self._node.now(), 0.0)
            self._console.wait(self._node, reading=True, timeout=left)

    def turn(self) -> None:
        """Show the servers that came and went, and ask all nodes now and then."""
        present = {known.address for known in self._node.nodes()}
        for address in self._names.keys() - present:
            self._forget(address)
        for answer in self._node.answers():
            if c.PORT_CHAT in answer.ports and answer.address in present - self._names.keys():
                self._add(answer)
            elif c.PORT_CHAT not in answer.ports and answer.address in self._names:
                self._forget(answer.address)
        if self._node.now() >= self._ask_at:
            self._ask_at = self._node.now() + c.LOBBY_SECONDS
            self._node.ask(present)
        for event in news(self._node):
            if isinstance(event, MessageReceived):
                self._console.note(told_message(event))

    def _add(self, answer: Echoed) -> None:
        if answer.address not in self._numbers and len(self._numbers) >= c.PEOPLE_MAX:
            return
        number = self._numbers.setdefault(answer.address, len(self._numbers) + 1)
        self._said[answer.address] = answer.name
        name = self._names[answer.address] = label_names(self._said, self._node.names)[answer.address]
        where = f"{answer.hops} hop{'s' * (answer.hops != 1)}  {1000 * answer.rtt:.2f} ms"
        self._console.reply(f"  {number}  {name:12}  {format_address(answer.address)}  {where}")

    def _forget(self, address: bytes) -> None:
        del self._said[address]
        self._console.reply(f"  {self._numbers[address]}  {self._names.pop(address):12}  is gone")

    def _find(self, text: str) -> bytes:
        names = ((a, (str(self._numbers[a]), name, printable_name(self._said[a]))) for a, name in self._names.items())
        found = [address for address, all_names in names if text and text in all_names]
        with contextlib.suppress(ValueError):
            found = [parse_address(text)]
        if len(found) == 1 and is_unicast(found[0]) and found[0] != self._node.address:
            return found[0]
        if text:
            several = "several are called" if len(found) > 1 else "no server is"
            self._console.reply(f"{several} {printable(text)}: give a number from the list, or an address")
        return b""


def call(node: Node, peer: bytes) -> Tuple[Stream, Optional[Listener]]:
    """Return a stream with the chat of `peer`, and where it may be calling us just now if it is no server.

    A client that calls listens on PORT_CALL, not on PORT_CHAT: it must not be taken for a server.
    """
    listener = node.listen(c.PORT_CALL, only=peer)
    try:
        try:
            stream = open_stream(node, peer, c.PORT_CHAT, "alexchat_server.py")
            listener.close()
            return stream, None
        except BusyError:  # a server, then: it calls no one
            raise
        except ConnectionRefusedError:
            pass
        return open_stream(node, peer, c.PORT_CALL, "alexchat_server.py"), listener
    except (ConnectionRefusedError, TimeoutError):
        deadline = node.now() + c.ANSWER_SECONDS
        while node.now() < deadline:
            answer = listener.accept(timeout=deadline - node.now())
            if answer is not None and answer.peer == peer:
                return answer, None
            if answer is not None:
                answer.abort()
        raise


TYPING = """\
typing: Enter sends; the sign before your line is a dot until the other node holds it, then a check mark.
  `exit` or Ctrl-D leaves; arrows, Home, End, Ctrl-A E K U W Y L, Tab and history work as in a shell.
  /help lists the commands: who is here, messages to one alone, files.
names: without --name the others see the login name."""
JSON_EVENTS = """\
line, joined, left, lost, restarted, back, message, delivered, not delivered, and for files
  file offered, accepted, declined, finished, failed, as objects on stdout."""
EXAMPLES = f"""\
{TYPING}
pipes: every line of stdin is sent, incoming lines go to stdout as `name: text`, everything else to stderr.
--json: notice, {JSON_EVENTS}
examples:
  sudo python3 alexchat_client.py eth0                       # the only chat server there is
  sudo python3 alexchat_client.py eth0 6a:00:00:00:00:01     # a server, or a client that calls this one too
  uptime | sudo python3 alexchat_client.py eth0 --linger 0   # send and go
"""


def main() -> int:
    """Talk to one chat server."""
    parser = chat_parser("alexchat_client.py", "Chat with the people on an AlexChat server.", EXAMPLES)
    parser.add_argument(
        "node", metavar="NODE", nargs="?", help="the server's address or name; without it: the only server, or a list"
    )
    parser.add_argument(
        "--linger",
        type=linger_argument,
        default=c.LINGER_SECONDS,
        metavar="SECONDS",
        help="after the last line of a pipe, listen until the other ends or is silent for so long (%(default)g; inf)",
    )
    arguments = parser.parse_args()
    if arguments.node:
        check_peer(arguments.node)
    check_downloads(arguments)
    with open_node(arguments) as node:
        console = open_console(arguments)
        peer = peer_address(arguments.node, node) if arguments.node else choose_server(node, console)
        if not peer:
            return 0
        stream, listener = call(node, peer)
        with console:
            console.note(f"connected to {format_address(peer)}")
            settings = room_settings(arguments)
            room = ClientRoom(node, console, listener=listener, linger=arguments.linger, **settings)
            room.join(stream)
            return room.run()


if __name__ == "__main__":
    sys.exit(run(main))
