"""The chat: what every member of a room is made of, and the program that joins one.

Console         stdin, stdout, stderr, the terminal's mode and the signals (the line editor itself is in utils.py)
Conversation    JSON lines over one stream, and what of them the other node holds
Room            all conversations of this program, and its one event loop (its files: `Files` in alexstream_server.py)
Survey, Lobby   the rooms to choose from

JSON lines are UTF-8, one object a line, at most 64 KiB: {"type": "hello", "name": ...}, {"type": "say", "id": n,
"text": ...}, {"type": "bye"}. Unknown types and keys are ignored, and a program that knows only these three can talk to
ours. Ours say in their hello what they can beyond that ("can") and, for the room, its number, whom they have in it and
a number of their own; the records below are all there are.
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
import itertools
import re
import termios
from collections import deque
from datetime import datetime, timedelta
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

import constants as c
from alexstream_client import SECRECY, Decline, Offer, Queued, Withdrawn, complete_path, use_secret
from alexstream_server import Audience, Files, arrivals
from node import (
    INFINITY,
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
    check_folder,
    check_peer,
    command_line,
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
    BOLD,
    DIM,
    RED,
    Act,
    LineEditor,
    LineSplitter,
    Piece,
    Screen,
    TokenBucket,
    can_encode,
    decode_json,
    encode_json,
    format_address,
    format_size,
    format_table,
    is_name,
    label_names,
    nick_look,
    parse_unicast,
    printable,
    printable_name,
    with_tail,
)

# --- The person's side ----------------------------------------------------------------------------------------------


_RIGID = re.compile("(linux|screen|st)(-|$)")  # TERM of terminals that do not break rows anew when they become narrower


class Log:
    """A file to which lines are appended with date and time; no error of it stops anything but the log.

    It is looked up by its name at every line, so it may be moved away (logrotate); after an error it goes on with a
    whole line as soon as that is possible.
    """

    def __init__(self, path: str) -> None:
        self.failure = ""  # what goes wrong at the moment
        self._path = path
        self._descriptor = -1
        self._is_torn = False  # the last line has no end

    def add(self, text: str, now: datetime) -> None:
        """Append one line."""
        if not self._path:
            return
        data = f"{now:%Y-%m-%d %H:%M:%S} {text}\n".encode("utf-8", "backslashreplace")
        try:
            self._open()
            data = b"\n" * self._is_torn + data
            while data:
                written = os.write(self._descriptor, data)
                self._is_torn, data = written < len(data), data[written:]
        except OSError as error:
            self.failure = f"nothing more is logged: {self._path}: {error.strerror}"
        else:
            self.failure = ""

    def _open(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                    return
            self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
        self._descriptor = os.open(self._path, flags, 0o600)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Console(Audience):
    """Lines typed in, text shown, signals; with line editor and `Screen` where stdin and stdout are a terminal.

    A context manager: whatever happens inside, the terminal's mode and the signal handlers are put back. Inside,
    signals (and Ctrl-C, a key like others) take effect in `wait` and where output waits for its reader, nowhere else:
    as SystemExit with 128 + the signal's number. After that, output no longer waits for its reader.

    `as_json`: stdout is for `show_json`, nothing is edited or painted. `is_quiet`: of the notes only errors are shown.
    `log`: a file for all that is said here; `bell`: ring for messages; `timestamps`: show the time before a line, which
    None does on a `Screen`.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        is_quiet: bool = False,
        has_color: bool = True,
        log: str = "",
        bell: bool = False,
        timestamps: Optional[bool] = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.as_json = as_json
        self._is_quiet = is_quiet
        self._log = Log(log)
        self._bell = bell
        self._rang = datetime.min
        self._clock = clock
        self._day = clock().date()
        self.own_name = ""  # lines that have it stand out
        self.is_interactive = os.isatty(0)
        self.at_end = False  # nothing more will be typed
        self.screen: Optional[Screen] = None
        self._lines: Deque[Optional[str]] = deque()  # typed, not taken yet; None was too long
        self._splitter = LineSplitter(c.CHAT_LINE_BYTES)
        self._undo = contextlib.ExitStack()
        self._read_at = 0.0  # when keys last came, by the node's clock
        self._signals = -1
        self._outputs = StandardOutputs()
        self._leaving = False  # after a signal
        self._mode: List[Any] = []  # the terminal's, from before
        is_smart = os.environ.get("TERM", "dumb") != "dumb"
        if self.is_interactive and os.isatty(1) and is_smart and not as_json:
            encoding = self._outputs.encoding
            signs = "\u00b7\u2713\u2717" if can_encode("\u00b7\u2713\u2717", encoding) else ".+!"
            editor = LineEditor(80, encoding=encoding)
            reflows = "TMUX" in os.environ or not ("XTERM_VERSION" in os.environ or _RIGID.match(os.environ["TERM"]))
            self.screen = Screen(editor, height=24, signs=signs, has_color=has_color, reflows=reflows)
        self._timestamps = timestamps if timestamps is not None else self.screen is not None

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
        patience = self.screen.editor.patience if self.screen else None
        if patience is not None:
            left = max(self._read_at + patience - node.now(), 0.0)
            timeout = left if timeout is None else min(timeout, left)
        ready = node.wait(self._signals, *[0] * reading, writing=self._outputs.waiting, timeout=timeout)
        self._outputs.flush()
        if self._signals in ready:
            self._take_signals()
        if reading and 0 in ready:
            self._read_at = node.now()
            self._read()
        elif self.screen and patience is not None and node.now() >= self._read_at + patience:
            self.screen.editor.give_up()

    @property
    def is_full(self) -> bool:
        """Whether so much waits for a terminal, or for the reader of a pipe, that nobody had better be listened to."""
        return self._outputs.is_full

    def take_lines(self) -> List[Optional[str]]:
        """Return the lines typed since the last call; None stands for one that was too long."""
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def put_back(self, lines: Iterable[Optional[str]]) -> None:
        """Let the next `take_lines` return these lines first."""
        self._lines.extendleft(reversed(list(lines)))

    def show(self, name: str, text: str, *, note: str = "", is_act: bool = False) -> None:
        """Show a line of the talk; `note`, about it, stands behind the name. `is_act`: it says what somebody does."""
        self._ring()
        head = f"* {name}{note} " if is_act else f"{name}{note}: "
        whole, text = printable(text, is_whole=True), printable(text)
        if self.screen and os.isatty(1):
            is_for_me = note or re.search(rf"(?i)(?<!\w){re.escape(self.own_name)}(?!\w)", text)
            look = BOLD if self.own_name and is_for_me else ""
            who = (Piece("* " * is_act), Piece(name, nick_look(name)), Piece(note + (" " if is_act else ": ")))
            self._show_on_screen(*who, Piece(text, look))
        elif not self.as_json:
            self._outputs.write_line(1, self._stamp() + head + text)
        self._add_to_log(head + whole)

    def announce(self, text: str) -> None:
        """Show what somebody wants of the person."""
        self._ring()
        if self.screen and os.isatty(1):
            self._show_on_screen(Piece("-- ", DIM), Piece(text, BOLD))
        elif not self.as_json:
            self._outputs.write_line(1, self._stamp() + text)
        self._add_to_log(text)

    def _ring(self) -> None:
        now = self._clock()
        if self._bell and abs(now - self._rang) >= timedelta(seconds=c.BELL_SECONDS):
            self._rang = now
            if self.screen:
                self.screen.ring()
            elif os.isatty(1) and not self.as_json:
                self._outputs.write(1, b"\a")

    def show_json(self, line: str) -> None:
        """Show an event to a program."""
        self._outputs.write_line(1, line)

    def note(self, text: str, *, is_error: bool = False) -> None:
        """Show what is not part of the talk."""
        if is_error or not self._is_quiet:
            self._show_note(text, RED if is_error else DIM)
        self._add_to_log(text)

    def reply(self, text: str) -> None:
        """Show what the person has asked for: also where notes are not wanted."""
        if self.screen and os.isatty(2):
            self.screen.show(Piece(text))
        else:
            self._outputs.write_line(2, text)
        self._add_to_log(text)

    def _show_note(self, text: str, look: str) -> None:
        if self.screen and os.isatty(2):
            self._show_on_screen(Piece("-- ", DIM), Piece(text, look))
        else:
            self._outputs.write_line(2, self._stamp() + text)

    def _show_on_screen(self, *pieces: Piece) -> None:
        if self.screen:
            self._show_day(self.screen)
            self.screen.show(Piece(self._stamp(), DIM), *pieces)

    def _show_day(self, screen: Screen) -> None:
        """Show the date where it has changed."""
        today = self._clock().date()
        if self._timestamps and today != self._day:
            screen.show(Piece(f"-- {today:%A %d %B %Y}", DIM))
        self._day = today

    def _add_to_log(self, text: str) -> None:
        had_failed = self._log.failure
        self._log.add(text, self._clock())
        if self._log.failure != had_failed:
            self._show_note(self._log.failure or "it is logged again", RED)

    def _stamp(self) -> str:
        return f"{self._clock():%H:%M} " if self._timestamps else ""

    def show_own(self, ident: int, text: str, *, receivers: int, is_act: bool = False) -> None:
        """Show a line of one's own as sent; `settle` says later what became of it."""
        if self.screen:
            self._show_day(self.screen)
            room = len(f"{receivers}/{receivers}") if receivers > 1 else 1
            name = f"* {self.own_name} " if is_act else f"{self.own_name}: "
            self.screen.show_own(ident, printable(text), name=name, clock=self._stamp(), room=room)
        self._add_to_log("> " + printable(text, is_whole=True))

    def progress(self, ident: int, held: int, receivers: int) -> None:
        """Show how many hold a line of one's own by now."""
        if self.screen and held:
            self.screen.progress(ident, f"{held}/{receivers}")

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
        elif act is Act.LIST:
            self.reply(text)
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
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
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
                self.screen.resize(width, height)

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
    """The first line of a member: its name, which words of CAN its program knows, its room, and whom it has there.

    `run` is new with every start of a program: so two streams of one program are told from those of two.
    """

    name: str
    can: str = ""
    room: str = ""  # 16 hex digits, made by who opened it; empty: not in one yet
    run: str = ""
    members: Dict[str, str] = {}  # noqa: RUF012  address: name; nobody writes to it


class Members(NamedTuple):
    """Whom the sender has in the room: hints where to call, never facts about anybody."""

    room: str
    members: Dict[str, str]


class Ask(NamedTuple):
    """A question for the other side's Hello; the one that asks it does not become a member."""


class Refused(NamedTuple):
    """The caller cannot come in; `reason` is a word: "full"."""

    reason: str


class Say(NamedTuple):
    """A message; `to` is set where it is for one alone, `act` where it says what the sender does."""

    text: str
    ident: int = 0
    to: str = ""
    act: int = 0


class Missed(NamedTuple):
    """So many messages were not kept for who did not take them."""

    lines: int


class Nick(NamedTuple):
    """The sender has another name."""

    name: str


class Bye(NamedTuple):
    """The peer leaves."""


class Malformed(NamedTuple):
    """A line that is none of these and not just unknown."""

    reason: str


Record = Union[Hello, Members, Ask, Refused, Say, Missed, Nick, Bye, Offer, Decline, Withdrawn, Queued, Malformed]

CAN = "private files room"  # messages for one alone, offers of files, members that call each other
# The types of lines: "type" in JSON is the name in small letters.
_RECORDS = (Hello, Members, Ask, Refused, Say, Missed, Nick, Bye, Offer, Decline, Withdrawn, Queued)
_KEYS = {"ident": "id"}  # where JSON has another word for a field
_FIELD_TYPES = {"members": dict, **dict.fromkeys(("ident", "size", "act", "lines", "before"), int)}  # others are text


def encode_record(record: Record) -> bytes:
    """Return the record as one line of JSON; its length is not checked."""
    fields: Dict[str, Any] = {"type": type(record).__name__.lower()}
    for field, value in record._asdict().items():
        if value or field not in record._field_defaults or field == "ident":
            fields[_KEYS.get(field, field)] = value
    return encode_json(fields)


def decode_record(line: bytes) -> Optional[Record]:
    """Return what a line says; None where its type is unknown, for the next version's sake. Never raises."""
    fields, reason = decode_json(line)
    if not isinstance(fields.get("type"), str):
        return Malformed(reason or "not an object with a type")
    kind: Any = next((kind for kind in _RECORDS if kind.__name__.lower() == fields["type"]), None)
    if kind is None:
        return None
    values = {field: fields.get(_KEYS.get(field, field), kind._field_defaults.get(field)) for field in kind._fields}
    if any(type(value) is not _FIELD_TYPES.get(field, str) for field, value in values.items()):
        return Malformed("wrong fields")
    record: Record = kind(**{field: _whole(value) if type(value) is str else value for field, value in values.items()})
    return record


def _whole(text: str) -> str:
    """Return the text without halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def parse_members(said: Dict[str, Any]) -> Dict[bytes, str]:
    """Return those of the members that somebody lists which can be called, at most ROOM_MAX."""
    pairs = ((parse_unicast(address), name) for address, name in itertools.islice(said.items(), c.ROOM_MAX))
    return {address: printable_name(name) for address, name in pairs if address and isinstance(name, str)}


def is_room(text: str) -> bool:
    """Return whether this can be the number of a room."""
    return re.fullmatch("[0-9a-f]{16}", text) is not None


class Unacked(NamedTuple):
    """A record and the offset in the stream behind it: once the other node holds that much, it holds the record."""

    offset: int
    record: Record


class Conversation:
    """JSON lines over one stream: records in and out without waiting, and what the other node holds of them."""

    def __init__(self, stream: Stream, *, now: float, is_mine: bool) -> None:
        """`is_mine`: this program has opened the stream."""
        stream.setblocking(False)
        self.stream = stream
        self.peer = stream.peer
        self.is_mine = is_mine
        self.is_invited = False  # this person has called it
        self.opened_at = now
        self.name = format_address(stream.peer)  # as it is shown
        self.hello: Optional[Hello] = None  # once the peer has sent it
        self.listed: Dict[bytes, str] = {}  # whom the peer says it has in the room
        self.told: Tuple[str, Dict[str, str]] = ("", {})  # the room and the members that were told to it last, and when
        self.told_at = now
        self.has_left = False  # it said so, or its leaving is told already
        self.is_duplicate = False  # there is another stream with the same program, or no place: nothing more is said
        self.at_end = False  # the peer says nothing more
        self.may_have_more = False  # there may be more to read
        self.stalled_at = INFINITY  # since when it does not answer
        self.is_gone = False  # and that has been told
        self.lost_at = INFINITY  # its program has ended: until when its return is waited for
        self.missed = 0  # messages that were refused for it, and that it was not told of
        self.last_progress_at = now  # when it last took a good piece, or had nothing to take (monotonic seconds)
        self.unacked: Deque[Unacked] = deque()
        self.is_finishing = False  # nothing more will be said here
        self._splitter = LineSplitter(c.CHAT_LINE_BYTES)
        self._queue = bytearray()
        self._offset = 0  # behind the last byte queued
        self._delivered = 0  # when progress was noted last

    @property
    def is_member(self) -> bool:
        """Whether the peer has said hello, and this is the stream to talk to it."""
        return self.hello is not None and not self.is_duplicate

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
        return self.is_gone or self.stream.stalled or self.lost_at < INFINITY

    def can(self, word: str) -> bool:
        """Return whether the peer's program knows this word of CAN."""
        return self.hello is not None and word in self.hello.can.split()

    def put(self, record: Record, line: bytes = b"") -> bool:
        """Queue a record, encoded already if `line` is given; return False when nothing can be said any more."""
        may_return = self.stream.restarted or self.lost_at < INFINITY
        if self.is_finishing or (self.stream.ended and not may_return):
            return False
        line = line or encode_record(record)
        self._queue += line
        self._offset += len(line)
        if isinstance(record, (Say, Offer, Decline)):
            self.unacked.append(Unacked(self._offset, record))
        return True

    def take_over(self, before: "Conversation") -> None:
        """Take over from a conversation whose stream has failed: say again, in order, what its peer did not hold."""
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
                del self._queue[:taken]
            if self.is_finishing and not self._queue:
                self.stream.finish()
        except OSError:  # the stream has failed; it says so itself
            self._queue.clear()
        if not self.is_full or self.stream.delivered >= self._delivered + c.PROGRESS_BYTES:
            self.last_progress_at, self._delivered = now, self.stream.delivered

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


# --- The room, and the loop -----------------------------------------------------------------------------------------


class Receipt:
    """A message of ours: whom it is for, and who holds it by now."""

    def __init__(self, message: Say, total: int) -> None:
        self.message = message
        self.total = total
        self.held = 0
        self.missing: List[str] = []  # names of those that will not get it


class Call(NamedTuple):
    """When an address was last called, and how often."""

    at: float
    tries: int


class Room:
    """Everybody this program has a stream with, and the one loop that serves them, the person and the signals.

    There is no centre. Each member has a stream to each of the others, says its lines on all of them, takes calls, and
    passes on nothing. Members tell each other whom they have in the room; whoever learns of one that it has no stream
    with calls it. Of two streams of one pair of programs that opened by the lower address stays. So the room becomes
    whole again after a split, and lives as long as anybody is in it.
    """

    def __init__(
        self,
        node: Node,
        console: Console,
        *,
        name: str,
        is_opener: bool = False,
        callers: Optional[Listener] = None,
        linger: float = 0.0,
        downloads: str = ".",
        is_verbose: bool = False,
    ) -> None:
        """`is_opener`: the room is new, and stays though nobody else is in it. `callers`: who calls while it calls."""
        self.node = node
        self.console = console
        self.name = name
        self.chats: List[Conversation] = []  # all streams: of members, newcomers, duplicates
        self.files = Files(node, console, downloads, tell=self.tell, send_to=self._put_to)
        self.leave_at = INFINITY  # what is open then is left (monotonic seconds)
        self.room = os.urandom(8).hex() if is_opener else ""
        self._run = os.urandom(8).hex()
        self._is_verbose = is_verbose
        self._is_opener = is_opener
        self._listeners = [node.listen(c.PORT_CHAT), *([callers] if callers else [])]
        self._callers_until = node.now() + c.CROSSING_SECONDS if callers else INFINITY
        self._away: Dict[bytes, Conversation] = {}  # whose program has ended, by address
        self._lost_until: Dict[bytes, float] = {}  # members that were lost: they are called now and then
        self._calls: Dict[bytes, Call] = {}
        self._call_limit = TokenBucket(c.CALLS_PER_SECOND, c.ROOM_MAX)
        self._unreachable: Set[bytes] = set()  # and said so
        self._met: Set[str] = set()  # other rooms that have become this one
        self._joined_at = INFINITY  # when the first member was met
        self._tend_at = 0.0  # when to look after members and calls again
        self._linger = linger  # seconds to listen on after the last line of a pipe
        self._is_lingering = False
        self._idents = itertools.count(1)
        self._receipts: Dict[int, Receipt] = {}
        self._ignored: Set[bytes] = set()
        self._who_at = INFINITY  # when the answers to /who are shown
        self._undelivered = 0  # messages
        self._lost = 0  # members
        console.own_name = self.own_name
        if self.own_name != name and name:
            console.note(f"the others see your name as {self.own_name}")
        if console.screen:
            console.screen.editor.completions = self._completions

    # -- the loop

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
        self._is_lingering = False
        for chat in list(self.chats):
            self._on_ended(chat)
            chat.stream.abort()
            self._drain(chat)
        for chat in self._away.values():
            self._give_up(chat)
        self.files.close()
        return status or int(self.has_failed())

    def _loop(self) -> None:
        while not self.is_over():
            self.console.wait(self.node, reading=self.wants_lines(), timeout=self._timeout())
            self.turn()

    def has_failed(self) -> bool:
        """Return whether the exit status has to report a failure: of a pipe, or of coming in."""
        if self.console.is_interactive:
            return not self._is_opener and self._joined_at == INFINITY
        return self._undelivered > 0 or (self._lost > 0 and not self._is_opener)

    def is_over(self) -> bool:
        """Return whether there is nothing left to do. A person, and whoever opened the room, may stay alone."""
        if self.node.now() >= self.leave_at:
            return True
        if any(chat.hello is not None for chat in self.chats) or self._is_coming_in or self.files.is_active:
            return False
        if self._away and self.leave_at == INFINITY:
            return False
        stays = self._is_opener or (self.console.is_interactive and self._joined_at < INFINITY)
        return self.leave_at < INFINITY or not stays

    def wants_lines(self) -> bool:
        """Return whether a typed line has a receiver that takes it. A person may type at any time.

        A pipe waits until those whom the first members listed are here, and for members that take what is said.
        """
        if self.console.is_interactive:
            return True
        members, now = self.members(), self.node.now()
        is_coming = any(chat.is_mine and chat.hello is None for chat in self.chats)
        if not members or (is_coming and now < self._joined_at + c.JOIN_SECONDS):
            return False
        slow = [chat for chat in members if chat.is_full]
        return len(slow) < len(members) and all(now >= chat.last_progress_at + c.SLOW_SECONDS for chat in slow)

    @property
    def _is_coming_in(self) -> bool:
        """Whether the first call is not answered yet: what is typed waits for that."""
        return self._joined_at == INFINITY and not self._is_opener and self.leave_at == INFINITY and bool(self.chats)

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
        slow = [chat.last_progress_at + c.SLOW_SECONDS for chat in self.chats if chat.is_full]
        return min(
            self.leave_at, self._who_at, self._callers_until, self._tend_at, self.files.next_deadline(),
            *(at for at in slow if at > self.node.now()),
        )  # fmt: skip

    def turn(self) -> None:
        """Do what typing, the network and the clock ask for."""
        for line in [] if self._is_coming_in else self.console.take_lines():
            self._type(line)
        self._report_mesh()
        self._take_calls()
        unheard = set()
        for chat in list(self.chats):
            if self.may_listen():
                self._listen(chat)
            else:
                chat.may_have_more = True  # what woke this turn up will not do so again
                unheard.add(chat)
        for chat in list(self.chats):
            self._serve(chat)
        # The first stream may be the only one heard in a turn; the programs of one address are heard in their order.
        self.chats.sort(key=lambda chat: chat not in unheard)
        self.chats = self.chats if unheard else self.chats[1:] + self.chats[:1]
        self._tend(self.node.now())
        offer = self.files.next_offer()
        if offer is not None:
            self._offer(offer)
        self.files.turn(self.name_of)
        self._show_who()
        self._set_prompt()
        if self.console.at_end:
            self._end_typing()
        for chat in self.chats:
            chat.flush(now=self.node.now())

    def _set_prompt(self) -> None:
        away = [chat.name for chat in self.members() if chat.is_away]
        said = [*([f"{' '.join(away)}: link lost, retrying"] if away else []), self.files.progress()]
        self.console.set_prompt("; ".join(filter(None, said)) + "> ")

    def _report_mesh(self) -> None:
        """Show what concerns this node; who comes and goes in the mesh does not."""
        for event in news(self.node):
            if isinstance(event, MessageReceived):
                self.console.note(told_message(event, is_secret=bool(self.node.port_bit)))
                self.tell("message", address=event.origin, data=event.data)
            elif self._is_verbose or not isinstance(event, (ChangesOmitted, NodeFound, NodeLost)):
                self.console.note(describe_event(event, self.node.names))

    # -- who is here

    def members(self) -> List[Conversation]:
        """Return the conversations with the others in the room, also with those whose return is waited for."""
        return [*(chat for chat in self.chats if chat.is_member), *self._away.values()]

    @property
    def own_name(self) -> str:
        """What the others see."""
        return printable_name(self.name) or format_address(self.node.address)

    def name_of(self, address: bytes) -> str:
        """Return what a node is called here."""
        return next((chat.name for chat in self.members() if chat.peer == address), format_address(address))

    def _find(self, typed: str) -> Tuple[List[Conversation], str]:
        """Return the one member meant by a name, its first part or an address; or else nobody, and what is wrong."""
        wanted, members = typed.rstrip(":,").lower(), self.members()
        found = [chat for chat in members if wanted in (chat.name.lower(), format_address(chat.peer))]
        found = found or [chat for chat in members if wanted == chat.name.partition("~")[0].lower()]
        if len(found) == 1:
            return found, ""
        if found:
            return [], f"which {printable(typed)}? {', '.join(sorted(chat.name for chat in found))}"
        return [], f"nobody here is called {printable(typed)}: /who lists all"

    def _name_all(self) -> None:
        """Name all as they say, with the tail of the address where a name could be mistaken for another."""
        said = {chat.peer: chat.hello.name for chat in self.members() if chat.hello is not None}
        labels = label_names({**said, self.node.address: self.name}, self.node.names)
        for chat in self.members():
            before, chat.name = chat.name, labels[chat.peer] or format_address(chat.peer)
            if before not in (chat.name, format_address(chat.peer)):
                self.console.note(f"{before} is called {chat.name} now")

    # -- coming together

    def join(self, stream: Stream, *, is_mine: bool = True) -> Conversation:
        """Take up the talk on a new stream."""
        chat = Conversation(stream, now=self.node.now(), is_mine=is_mine)
        stream.keep_alive(c.ROOM_KEEPALIVE)
        chat.told = (self.room, self._reached())
        chat.put(Hello(self.name, CAN, self.room, self._run, chat.told[1]))
        self.chats.append(chat)
        self._tend_at = self.node.now()
        return chat

    def _take_calls(self) -> None:
        """Take the streams that have come."""
        if self.node.now() >= self._callers_until:
            self._listeners.pop().close()
            self._callers_until = INFINITY
        for stream in (stream for listener in self._listeners for stream in arrivals(listener)):
            if self.leave_at == INFINITY and sum(chat.hello is None for chat in self.chats) < c.ROOM_MAX:
                self.join(stream, is_mine=False)
            else:
                stream.abort()

    def greet(self, chat: Conversation, hello: Hello) -> None:
        """Let somebody in that says its name; one address is one program, and one stream."""
        if chat.hello is not None:
            return
        chat.hello, chat.listed = hello._replace(name=hello.name[: c.NAME_CHARACTERS]), parse_members(hello.members)
        twin = next((one for one in self.chats if one.peer == chat.peer and one is not chat and one.is_member), None)
        is_same = twin is not None and twin.hello is not None and twin.hello.run == hello.run  # program
        if twin is not None and is_same and not (twin.stream.stalled or twin.at_end):
            chat.name = twin.name
            self._retire(twin if chat.is_mine == (self.node.address < chat.peer) else chat)
            return
        if twin is not None:
            self._replace(twin, is_same=is_same)
        before = twin or self._away.pop(chat.peer, None)
        if len(self.members()) >= c.ROOM_MAX:  # this one among them, and not this program
            chat.put(Refused("full"))
            self._retire(chat)
            return
        self._name_all()
        self._meet(chat, hello.room)
        if not is_same:
            self._announce(chat, "is here" if before is None else "is back")
        if before is not None:
            self._settle_held(before)
            chat.take_over(before)
            chat.is_gone = before.is_gone
        self._joined_at = min(self._joined_at, self.node.now())
        self._unreachable.discard(chat.peer)
        self._lost_until.pop(chat.peer, None)
        self._tend_at = self.node.now()

    def _retire(self, chat: Conversation) -> None:
        """Say nothing more on a stream; what is said on it is still heard."""
        chat.is_duplicate = True
        chat.finish()

    def _replace(self, chat: Conversation, *, is_same: bool) -> None:
        """Let go of a stream that does not work any more, or whose program has ended; what it delivered is shown."""
        chat.stream.abort()
        self._drain(chat)
        if chat.at_end and not is_same:
            self._note_leaving(chat)
        self.chats.remove(chat)

    def _announce(self, chat: Conversation, what: str) -> None:
        address = format_address(chat.peer)
        self.console.note(f"{chat.name} {what}" if chat.name == address else f"{chat.name} ({address}) {what}")
        self.tell("back" if what == "is back" else "joined", name=chat.name, address=chat.peer)
        if not chat.can("room") and len(self.members()) > 1:
            self.console.note(f"the others do not hear {chat.name}, whose program knows no rooms")

    def _meet(self, chat: Conversation, room: str) -> None:
        """Make this room and that of a member one, that with the lower number; of two in none the lower opens one."""
        if not is_room(room):
            if not self.room and self.node.address < chat.peer:
                self.room = os.urandom(8).hex()
            return
        if self.room not in ("", room) and room not in self._met and len(self._met) < c.ROOM_MAX:
            self._met |= {room, self.room}
            if chat.listed or len(self.members()) > 1:
                self.console.note(f"this room and that of {chat.name} are one now")
                self.tell("met", name=chat.name, address=chat.peer)
        self.room = min(room, self.room or room)

    def _reached(self) -> Dict[str, str]:
        """Return whom to name to others as members: those who answer, and know rooms."""
        return {
            format_address(chat.peer): chat.hello.name
            for chat in self.chats
            if chat.hello is not None and chat.is_member and chat.can("room") and not chat.is_away
        }

    def _tend(self, now: float) -> None:
        """Look after the members: who is gone or back, whom to call, what to tell them of each other."""
        if now < self._tend_at:
            return
        members = [chat for chat in self.chats if chat.is_member]
        waits = [self._watch(chat, now) for chat in members]
        for number, chat in enumerate(list(self._away.values())):
            if now >= chat.lost_at or number < len(self._away) - c.ROOM_MAX:
                del self._away[chat.peer]
                self._give_up(chat)
        waits += [chat.lost_at for chat in self._away.values()]
        waits += [chat.opened_at + c.CALL_SECONDS for chat in self.chats if chat.hello is None]
        waits.append(self._call_others(members, now))
        all_reached = self._reached()
        for chat in members:
            own = format_address(chat.peer)
            reached = {address: name for address, name in all_reached.items() if address != own}
            if chat.told != (self.room, reached) and chat.can("room"):
                if now >= chat.told_at + c.MEMBERS_SECONDS:
                    chat.put(Members(self.room, reached))
                    chat.told, chat.told_at = (self.room, reached), now
                else:
                    waits.append(chat.told_at + c.MEMBERS_SECONDS)
        self._tend_at = min(waits, default=INFINITY)

    def _watch(self, chat: Conversation, now: float) -> float:
        """Say when a member does not answer any more, and when it does again; return when to look next."""
        gone_at = min(chat.stalled_at, chat.stream.heard_at + c.ROOM_KEEPALIVE) + c.GONE_SECONDS
        if chat.is_gone != (now >= gone_at):
            chat.is_gone = not chat.is_gone
            what = "is gone: no answer; what is said waits for it" if chat.is_gone else "is back"
            self.console.note(f"{chat.name} {what}")
            self.tell("gone" if chat.is_gone else "back", name=chat.name, address=chat.peer)
        return now + c.GONE_SECONDS if chat.is_gone else gone_at

    def _call_others(self, members: List[Conversation], now: float) -> float:
        """Call whom members list and who is not here; return when to look next."""
        listed = {address: chat for chat in members if not chat.is_away for address in chat.listed}
        self._lost_until = {who: until for who, until in self._lost_until.items() if now < until}
        wanted = {**dict.fromkeys(self._lost_until, c.CALL_LOST), **dict.fromkeys(listed, c.CALL_AGAIN)}
        wanted.update(dict.fromkeys(self._away, c.RETRY_SECONDS))
        self._calls = {who: call for who, call in self._calls.items() if who in wanted or now < call.at + c.CALL_AGAIN}
        here = {self.node.address, *(chat.peer for chat in self.chats if not chat.is_duplicate)}
        calling = sum(chat.is_mine and chat.hello is None for chat in self.chats)
        next_at = INFINITY
        for address in wanted.keys() - here:
            call, by = self._calls.get(address, Call(-INFINITY, 0)), listed.get(address)
            if by is not None and call.tries > 1 and address not in self._unreachable:
                self._unreachable.add(address)
                name = with_tail(by.listed[address], format_address(address))
                self.console.note(f"{name} cannot be reached from here; {by.name} can")
            again_at = call.at + wanted[address]
            if self.leave_at < INFINITY or calling >= c.CALLS_AT_ONCE or now < again_at:
                next_at = min(next_at, max(again_at, now + c.RETRY_SECONDS))
            elif self._call_limit.take(now=now):
                self._calls[address] = Call(now, call.tries + 1)
                with contextlib.suppress(OSError):  # too many streams
                    self.join(self.node.open(address, c.PORT_CHAT))
                    calling += 1
            else:
                next_at = min(next_at, now + c.RETRY_SECONDS)
        self._unreachable &= listed.keys()
        return next_at

    # -- what is typed

    def _type(self, line: Optional[str]) -> None:
        if line is None:
            self._refuse("a line of over 64 KiB")
        elif not self.console.is_interactive:
            self._say(line)
        elif line.strip() == "exit":
            self.leave()
        elif line.lstrip().startswith("/") and not line.startswith("//"):
            self._obey(line.strip())
        elif self.leave_at == INFINITY:
            self._say(line[line.startswith("//") :])
        else:
            self._refuse(f"already leaving: {printable(line)}")

    def _completions(self, before: str) -> List[str]:
        """Return what Tab can make of the text before the cursor: a path, a command or a name at its end."""
        send, space, path = before.partition(" ")
        if send.lower() == "/send" and space:
            return [send + space + found for found in complete_path(path)]
        start = before[: max(map(before.rfind, " @(,;\"'")) + 1]
        names = [chat.name for chat in self.members()]
        if start:
            return [start + name for name in names]
        return [*(command.names.split()[0] for command in COMMANDS), "exit", *(name + ": " for name in names)]

    def _obey(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = next((command for command in COMMANDS if name.lower() in command.names.split()), None)
        if command is None:
            self.console.reply(f"no command {printable(name)}: /help lists them; /{printable(name)} says it")
        elif len(rest.split()) < len(re.sub(r"\[.*\]", "", command.usage).split()):
            self.console.reply(f"usage: {command.names.split()[0]} {command.usage}")
        else:
            command.act(self, rest.strip())

    def help(self, _: str) -> None:
        """List the commands."""
        rows = [(" or ".join(command.names.split()), command.usage, command.does) for command in COMMANDS]
        lines = [f"  {f'{names} {usage}'.strip():32} {does}" for names, usage, does in rows]
        self.console.reply("\n".join([*lines, "  //TEXT                           say a line that begins with /"]))

    def me(self, text: str) -> None:
        """Say what this person does."""
        self._say(text, is_act=True)

    def nick(self, name: str) -> None:
        """Take another name, and tell all."""
        if not is_name(name):
            self.console.reply(f"a name has letters, digits and -_. and at most {c.NAME_CHARACTERS} characters")
            return
        self.name = name
        self.console.own_name = self.own_name
        self._put_all(Nick(name))
        self._name_all()
        self.console.note(f"you are {self.own_name} now")
        self._tend_at = self.node.now()

    def _put_all(self, record: Record) -> None:
        """Say something to all members whose programs know rooms."""
        for chat in self.members():
            if chat.can("room"):
                chat.put(record)

    def _put_to(self, address: bytes, record: Record) -> None:
        """Say something to the member at this address, if it is here."""
        for chat in self.members():
            if chat.peer == address:
                chat.put(record)

    def say(self, text: str) -> None:
        """Say what would otherwise be a command."""
        self._say(text)

    def msg(self, rest: str) -> None:
        """Say something to one person alone."""
        typed, _, text = rest.partition(" ")
        found, problem = self._find(typed)
        if problem:
            self._refuse(problem)
        elif not found[0].can("private"):
            self._refuse(f"{found[0].name}'s program knows no messages to one alone")
        else:
            self._say(text.strip(), to=found)

    def call(self, typed: str) -> None:
        """Call somebody of another room: the two become one."""
        known = {node.name: node.address for node in self.node.nodes() if node.name}
        address = parse_unicast(typed) or known.get(typed, b"")
        if not address or address == self.node.address:
            self.console.reply(f"no other node is called {printable(typed)}: give an address, or a name in the mesh")
        elif any(chat.peer == address for chat in self.chats):
            self.console.reply(f"{self.name_of(address)} is here")
        else:
            try:
                self.join(self.node.open(address, c.PORT_CHAT)).is_invited = True
            except OSError as error:
                self.console.reply(str(error))

    def ignore(self, typed: str) -> None:
        """Hide, or show again, what a member says; without a name list who is ignored."""
        found, problem = self._find(typed) if typed else ([], "")
        address = found[0].peer if found else parse_unicast(typed)
        if not typed:
            names = sorted(map(self.name_of, self._ignored)) or ["nobody"]
            self.console.reply(" ".join(["ignored:", *names]))
        elif address in self._ignored:
            self._ignored.remove(address)
            self.console.reply(f"{self.name_of(address)} is heard again")
        elif not found:
            self.console.reply(problem)
        else:
            self._ignored.add(address)
            self.console.reply(f"{found[0].name} is ignored; /ignore {found[0].name} ends that")

    def send(self, path: str) -> None:
        """Offer a file to everybody here."""
        try:
            self.files.send(path)
        except OSError as error:
            self.console.reply(f"{printable(path)}: {error.strerror}")
        except ValueError as error:
            self.console.reply(printable(str(error)))

    def unsend(self, which: str) -> None:
        """Take an offer back, also when the file is on its way."""
        token = self.files.own_token(which)
        if token is None:
            self.console.reply("which file of yours? /files lists them")
            return
        self._put_all(Withdrawn(token))
        self.console.note(f"{self.files.unsend(token)} is offered no more")

    def list_files(self, _: str) -> None:
        """List what is offered, on its way and in line."""
        self.console.reply("\n".join(format_table(self.files.rows())) or "no files")

    def accept(self, which: str) -> None:
        """Fetch an offered file."""
        number = self.files.choose(which)
        if number is not None:
            self.files.accept(number)

    def decline(self, which: str) -> None:
        """Refuse an offered file, also when it is on its way."""
        number = self.files.choose(which)
        if number is not None:
            address, answer = self.files.decline(number)
            self._put_to(address, answer)

    def who(self, _: str) -> None:
        """Ask everybody's node for an answer, to be shown in a moment."""
        self.node.ask([chat.peer for chat in self.members()])
        self._who_at = self.node.now() + c.WHO_SECONDS

    def _show_who(self) -> None:
        """Show the table that /who asked for, once all have answered or their time is up."""
        if self._who_at == INFINITY:
            return
        members, now = self.members(), self.node.now()
        answers = {answer.address: answer for answer in self.node.answers()}
        if now < self._who_at and not {chat.peer for chat in members} <= answers.keys():
            return
        self._who_at = INFINITY
        rows = [("name", "address", "hops", "round trip", "state")]
        for chat in sorted(members, key=lambda chat: chat.name):
            hops, trip, state = "-", "-", f"silent for {now - chat.stream.heard_at:.0f} s"
            if chat.lost_at < INFINITY:
                state = "its program has ended"
            elif chat.peer in answers:
                hops, trip = str(answers[chat.peer].hops), f"{1000 * answers[chat.peer].rtt:.2f} ms"
                state = "its program does not answer" if chat.is_away else "here"
            rows.append((chat.name, format_address(chat.peer), hops, trip, state))
        rows.append((f"{self.own_name} (you)", format_address(self.node.address), "0", "-", "here"))
        self.console.reply("\n".join(format_table(rows)))

    def _say(self, text: str, to: Sequence[Conversation] = (), *, is_act: bool = False) -> None:
        message = Say(text, next(self._idents), to[0].name if to else "", int(is_act))
        line = encode_record(message)
        lines, is_long = text.count("\n") + 1, len(text) > c.SHOWN_CHARACTERS
        if len(line) > c.CHAT_LINE_BYTES or (self.console.is_interactive and (is_long or lines > c.SHOWN_LINES)):
            limits = f" (at most {c.SHOWN_CHARACTERS} in {c.SHOWN_LINES})" if self.console.is_interactive else ""
            self._refuse(f"a message of {len(text)} characters in {lines} line{'s' * (lines > 1)}: too long{limits}")
            return
        audience = to or self.members()
        receipt = Receipt(message, len(audience))
        for chat in audience:
            if chat.waiting > c.WAITING_BYTES or not chat.put(message, line):
                receipt.missing.append(chat.name)
                self._miss(chat)
        if not audience:
            self._refuse(f"nobody is here: {printable(text)}")
        elif len(receipt.missing) == len(audience):
            self._refuse(f"too much is waiting already: {printable(text)}")
        else:
            self._receipts[message.ident] = receipt
            self.console.show_own(message.ident, own_line(message), receivers=len(audience), is_act=is_act)

    def _miss(self, chat: Conversation) -> None:
        """Count a message that is refused for a member that takes nothing; say so of the first."""
        if not chat.missed:
            self.console.note(f"too much is waiting for {chat.name}: it gets nothing more until it takes that")
        chat.missed += 1
        self._undelivered += 1

    def _offer(self, offer: Offer) -> None:
        """Tell everybody of a file of ours."""
        takers = [chat.peer for chat in self.members() if chat.can("files") and chat.put(offer)]
        size = format_size(offer.size)
        if takers:
            self.console.note(f"offered {printable(offer.file)} ({size}); it goes to who accepts it")
            path = self.files.offered(offer.token, takers)
            me = {"name": self.own_name, "address": self.node.address}
            self.tell("file offered", **me, path=path, size=offer.size, sha256=offer.sha256)
        else:
            self.files.forget(offer.token)
            reason = "nobody here can take files"
            self.console.note(f"NOT offered: {printable(offer.file)} ({size}): {reason}", is_error=True)
            self.tell("file failed", path=offer.file, sha256=offer.sha256, reason=reason)

    def _refuse(self, what: str) -> None:
        self._undelivered += 1
        self.console.note(f"NOT delivered: {what}", is_error=True)
        self.tell("not delivered", reason=what)

    @property
    def _has_said_all(self) -> bool:
        """Whether a pipe has ended whose program is not to stay for ever."""
        stays = self._is_opener and self._linger == INFINITY
        return self.console.at_end and not self.console.is_interactive and not stays

    def _end_typing(self) -> None:
        """Stdin has ended. A person leaves; after a pipe's last line is delivered, the others may go on for a while."""
        if self.console.is_interactive:
            self.leave()
        if not self._has_said_all:
            return
        members = self.members()
        for chat in members:
            chat.finish()
            chat.flush(now=self.node.now())
        if self.leave_at == INFINITY and all(chat.is_settled for chat in members):
            self._is_lingering = True
            self.leave_at = self.node.now() + self._linger

    def leave(self, _: str = "") -> None:
        """Say goodbye to everybody, and wait a little for their answer."""
        self._is_lingering = False
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
            if isinstance(record, Hello):
                self.greet(chat, record)
            elif isinstance(record, Refused):
                self._on_refused(chat, record)
            elif isinstance(record, Ask):
                self._retire(chat)
            elif isinstance(record, Malformed):
                unreadable.append(record)
            elif chat.hello is not None:  # nobody speaks without a name
                self._hear(chat, record)
            if self._is_lingering:
                self.leave_at = self.node.now() + self._linger
        if unreadable:  # one note for all: a peer that sends a million empty lines must not own the screen
            more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
            self.console.note(f"{chat.name} sent a line that cannot be read: {unreadable[0].reason}{more}")

    def _hear(self, chat: Conversation, record: Record) -> None:
        """Act on what a member says."""
        if isinstance(record, Say):
            self._hear_line(chat, record)
        elif isinstance(record, Members):
            chat.listed = parse_members(record.members)
            self._meet(chat, record.room)
            self._tend_at = self.node.now()
        elif isinstance(record, Bye):
            self._note_leaving(chat, says_so=True)
            chat.finish()
        elif isinstance(record, Nick) and chat.hello is not None:
            before, chat.hello = chat.name, chat.hello._replace(name=record.name[: c.NAME_CHARACTERS])
            self._name_all()
            self._tend_at = self.node.now()
            self.tell("nick", name=chat.name, address=chat.peer, before=before)
        elif isinstance(record, Missed):
            self.console.note(f"{chat.name} said {record.lines} lines more, which were not kept until you took them")
            self.tell("missed", name=chat.name, address=chat.peer, lines=record.lines)
        else:
            self._hear_of_file(chat, record)

    def _hear_of_file(self, chat: Conversation, record: Record) -> None:
        if isinstance(record, Offer):
            if chat.peer not in self._ignored:
                self.files.take_offer(record, chat.name, chat.peer)
        elif isinstance(record, Decline):
            self.files.declined(record.token, chat.name, chat.peer)
        elif isinstance(record, Withdrawn):
            incoming = self.files.withdraw(chat.peer, record.token)
            if incoming is not None:
                self.console.note(f"{chat.name} offers {incoming.name} no more")
        elif isinstance(record, Queued):
            self.files.queued(chat.peer, record)

    def _hear_line(self, chat: Conversation, message: Say) -> None:
        """Show a message."""
        if chat.peer not in self._ignored:
            alone = " (to you alone)" if message.to else ""
            self.console.show(chat.name, message.text, note=alone, is_act=bool(message.act))
            self.tell("line", name=chat.name, address=chat.peer, text=message.text, **told_to(message))

    def _on_refused(self, chat: Conversation, refused: Refused) -> None:
        reason = f"the room is full: {c.ROOM_MAX}" if refused.reason == "full" else printable(refused.reason)
        self.console.note(f"{chat.name}: {reason}", is_error=True)
        self.tell("refused", name=chat.name, address=chat.peer, reason=reason)
        if chat.hello is not None and chat.is_member:
            self._retire(chat)
        if not self.members():  # it was not let in
            self._joined_at = INFINITY
            self._lost += 1

    def _drain(self, chat: Conversation) -> None:
        """Act on all that a stream which is over still holds: the peer was told that it is delivered."""
        self._listen(chat)
        while chat.may_have_more:
            self._listen(chat)

    def _note_leaving(self, chat: Conversation, *, says_so: bool = False) -> None:
        """Say once that a member has left; or, where this side had ended the talk first, that it is over."""
        if chat.is_member and not chat.has_left:
            has_stayed = chat.is_finishing and not says_so
            self.console.note(f"the talk with {chat.name} is over" if has_stayed else f"{chat.name} left")
            self.tell("ended" if has_stayed else "left", name=chat.name, address=chat.peer)
        chat.has_left = True

    # -- what becomes of what was said

    def _serve(self, chat: Conversation) -> None:
        """Send what is queued, show what became of it, and remove the conversation when its stream is over."""
        now = self.node.now()
        chat.flush(now=now)
        self._settle_held(chat)
        stalled_at = min(chat.stalled_at, now) if chat.stream.stalled else INFINITY
        if stalled_at != chat.stalled_at:
            chat.stalled_at = stalled_at
            self._tend_at = now
        if chat.missed and chat.waiting <= c.QUEUE_BYTES and chat.put(Missed(chat.missed)):
            chat.missed = 0
        if chat.at_end and self.console.at_end:  # a pipe's, as the peer's
            chat.finish()
        if chat.hello is None and now >= chat.opened_at + c.CALL_SECONDS:
            chat.stream.abort()
        if chat.stream.ended and self.may_listen():
            self._drain(chat)
            self._on_ended(chat)

    def _on_ended(self, chat: Conversation) -> None:
        """Remove a conversation whose stream is over, and list what will not arrive, unless its program may return."""
        self.chats.remove(chat)
        self._tend_at = now = self.node.now()
        error, is_leaving = chat.stream.error, self.leave_at < INFINITY and not self._is_lingering
        has_said_all = chat.at_end or chat.has_left
        if chat.hello is None:
            is_first = self._joined_at == INFINITY and not self._is_opener
            if error is not None and chat.is_mine and (is_first or chat.is_invited):
                self._lose(chat, error)
        elif chat.is_member and chat.stream.restarted and not has_said_all and not is_leaving:
            self.console.note(f"{chat.name}'s program has ended; if it comes back it gets what it missed")
            self.tell("restarted", name=chat.name, address=chat.peer)
            chat.lost_at = now + c.RETURN_SECONDS
            self._away[chat.peer] = chat
            return
        elif chat.is_member and error is not None and not has_said_all:
            self._lose(chat, error)
        elif self.leave_at == INFINITY:
            self._note_leaving(chat)
        self._give_up(chat)

    def _lose(self, chat: Conversation, error: OSError) -> None:
        self._lost += 1
        if chat.is_member and len(self._lost_until) < c.ROOM_MAX:
            self._lost_until[chat.peer] = self.node.now() + c.LOST_SECONDS
        self.console.note(f"{chat.name} is lost: {error}", is_error=True)
        self.tell("lost", name=chat.name, address=chat.peer, reason=str(error))

    def _give_up(self, chat: Conversation) -> None:
        """List what the peer will not get, and forget what it offered."""
        self._settle_held(chat)
        for _, record in chat.unacked:
            if isinstance(record, Say):
                self._undelivered += 1
                self.console.note(f"NOT delivered to {chat.name}: {printable(own_line(record))}", is_error=True)
                self._settle(chat, record, is_held=False)
        chat.unacked.clear()
        if chat.is_member:
            self.files.withdraw(chat.peer)
            self._name_all()

    def _settle_held(self, chat: Conversation) -> None:
        """Show which messages the other node holds by now."""
        for record in chat.take_held():
            self._settle(chat, record, is_held=True)

    def _settle(self, chat: Conversation, record: Record, *, is_held: bool) -> None:
        """Show what became of a message: delivered once all hold it for whom it is; or who will not get it."""
        receipt = self._receipts.get(record.ident) if isinstance(record, Say) else None
        if receipt is None:
            return
        receipt.held += is_held
        if not is_held:
            receipt.missing.append(chat.name)
        message, text = receipt.message, own_line(receipt.message)
        fields = {"id": message.ident, "text": message.text, **told_to(message)}
        if is_held and receipt.total > 1:
            self.tell("held", **fields, name=chat.name, address=chat.peer)
        if receipt.held + len(receipt.missing) < receipt.total:
            self.console.progress(message.ident, receipt.held, receipt.total)
            return
        del self._receipts[message.ident]
        self.console.settle(message.ident, text, delivered=not receipt.missing)
        if receipt.missing:
            self.tell("not delivered", **fields, missing=receipt.missing)
        else:
            self.tell("delivered", **fields)

    def tell(self, kind: str, **fields: object) -> None:
        """Tell a program, if one listens, what has happened."""
        if self.console.as_json:
            self.console.show_json(json_line(self.node, kind, fields))


def news(node: Node) -> Iterator[NodeEvent]:
    """Yield what has happened in the mesh since the last call."""
    return iter(lambda: node.next_event(timeout=0), None)


def told_message(message: MessageReceived, *, is_secret: bool) -> str:
    """Return what to show of a text that came outside the chat."""
    warning = "NOT SECRET, may be anybody: " * is_secret
    return f"{warning}message from {format_address(message.origin)}: {printable(message.data)}"


def own_line(message: Say) -> str:
    """Return how a message of one's own is shown to oneself."""
    return f"(to {message.to} alone) {message.text}" if message.to else message.text


def told_to(message: Say) -> Dict[str, Any]:
    """Return the fields that only a message to one alone, or about an act, has."""
    return {**({"to": message.to} if message.to else {}), **({"act": True} if message.act else {})}


class Command(NamedTuple):
    """What may be typed after a slash: all its spellings, what follows, what it does."""

    names: str
    usage: str
    does: str
    act: Callable[[Room, str], None]


COMMANDS = (
    Command("/help /h /?", "", "this list", Room.help),
    Command("/who /w /names", "", "who is here, how far, in which state", Room.who),
    Command("/msg /m", "NAME TEXT", "say something to one person alone", Room.msg),
    Command("/me", "TEXT", "say what you do: * ann waves", Room.me),
    Command("/nick", "NAME", "take another name", Room.nick),
    Command("/ignore", "[NAME]", "hide what somebody says, or show it again", Room.ignore),
    Command("/send", "PATH", "offer a file to everybody here", Room.send),
    Command("/unsend", "[FILE]", "take an offer back", Room.unsend),
    Command("/files", "", "what is offered and on its way", Room.list_files),
    Command("/accept", "[NUMBER or NAME]", "fetch an offered file, or the rest of it", Room.accept),
    Command("/decline", "[NUMBER or NAME]", "do not want it, or stop it", Room.decline),
    Command("/call", "NODE", "call another room: the two become one", Room.call),
    Command("/say", "TEXT", "say what would be a command, like `exit`", Room.say),
    Command("/exit /quit /q", "", "leave", Room.leave),
)
COMMAND_NAMES = tuple(" ".join(command.names for command in COMMANDS).split())


# --- Finding a room -------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A room, or a program that knows none: the nearest member that answered, and the names of all."""

    address: bytes
    hops: int
    rtt: float
    people: Dict[bytes, str]


class Found(NamedTuple):
    """What a hello says: the number of a room, or the address of a program that knows none, and who is there."""

    key: str
    people: Dict[bytes, str]


class Survey:
    """Asks whoever takes calls for the room it is in, by a stream that opens no membership."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._port = c.PORT_CHAT | node.port_bit
        self._asking: Dict[bytes, Conversation] = {}
        self._answers: Dict[bytes, Echoed] = {}  # of the nodes, when last asked
        self._found: Dict[bytes, Found] = {}  # by who has said hello

    def ask(self, answers: Iterable[Echoed]) -> None:
        """Take the answers of nodes; ask those that take calls."""
        self._answers = {answer.address: answer for answer in answers if self._port in answer.ports}
        for address in self._answers.keys() - self._asking.keys():
            if len(self._asking) < c.ROOM_MAX:
                with contextlib.suppress(OSError):  # too many streams
                    stream = self._node.open(address, c.PORT_CHAT)
                    self._asking[address] = Conversation(stream, now=self._node.now(), is_mine=True)
                    self._asking[address].put(Ask())

    def turn(self) -> None:
        """Take what has come; forget who was asked long ago, so that it is asked again."""
        now = self._node.now()
        for address, chat in list(self._asking.items()):
            chat.flush(now=now)
            for record in chat.receive():
                if isinstance(record, Hello):
                    others = parse_members(record.members)
                    key = record.room if is_room(record.room) else format_address(address)
                    self._found[address] = Found(key, {**others, address: printable_name(record.name)})
                    chat.finish()
                    chat.flush(now=now)
            if now >= chat.opened_at + c.CALL_SECONDS or address not in self._answers:
                chat.stream.abort()
                del self._asking[address]
        self._found = {address: found for address, found in self._found.items() if address in self._answers}

    @property
    def is_complete(self) -> bool:
        """Whether all that were asked have answered."""
        return self._found.keys() >= self._answers.keys()

    def places(self) -> Dict[str, Place]:
        """Return the rooms, by their number; a program that has none, or has not answered yet, by its address."""
        places: Dict[str, Place] = {}
        for address, answer in sorted(self._answers.items(), key=lambda item: (item[1].hops, item[0])):
            unknown = Found(format_address(address), {address: printable_name(answer.name)})
            key, people = self._found.get(address, unknown)
            place = places.setdefault(key, Place(address, answer.hops, answer.rtt, {}))
            place.people[address] = people[address]
            for who, name in people.items():
                place.people.setdefault(who, name)
        return places

    def close(self) -> None:
        """Let go of all streams."""
        for chat in self._asking.values():
            chat.stream.abort()


def choose_room(node: Node, console: Console) -> bytes:
    """Return the address of a member of the only room in the mesh, or of that which the person chooses; or b"".

    Without a person raises SetupError with the commands to choose from if there are several, TimeoutError if none.
    """
    survey = Survey(node)
    found = node.discover(c.DISCOVER_SECONDS)
    survey.ask(Echoed(0, one.address, one.hops, one.rtt or 0.0, one.name, one.ports) for one in found)
    until = node.now() + c.ASK_SECONDS
    survey.turn()
    while not survey.is_complete and node.now() < until:
        node.wait(timeout=until - node.now())
        survey.turn()
    survey.close()
    places = survey.places()
    if len(places) == 1:
        return next(iter(places.values())).address
    if console.is_interactive:
        with console:
            return Lobby(node, console).choose(waits=not places)
    if not places:
        raise TimeoutError(f"no room answers; to open one: {command_line('alexchat_server.py', node.links[:1])}")
    command = command_line("alexchat_client.py", node.links)
    lines = [
        f"  {command} {format_address(place.address)}  # {people_of(place)}, {place.hops} hops"
        for place in places.values()
    ]
    raise SetupError("\n".join(["several rooms answer, choose one:", *lines]))


def people_of(place: Place) -> str:
    """Return the names of those in a room, the nearest first."""
    names = [name or format_address(address) for address, name in place.people.items()]
    return ", ".join(names[: c.CANDIDATES_MAX]) + " ..." * (len(names) > c.CANDIDATES_MAX)


class Lobby:
    """The rooms of the whole mesh, listed as they come and go, until the person has chosen one."""

    def __init__(self, node: Node, console: Console) -> None:
        self._node = node
        self._console = console
        self._survey = Survey(node)
        self._numbers: Dict[str, int] = {}  # a room keeps its number
        self._places: Dict[str, Place] = {}  # as they are shown
        self._ask_at = 0.0

    def choose(self, *, waits: bool) -> bytes:
        """Return the address of a member of the room chosen; an empty one where the person would rather leave.

        `waits`: there is no room yet, and the first one is taken.
        """
        self._console.set_prompt("room> ")
        waiting = "waiting for a room (start alexchat_server.py somewhere)"
        what = waiting if waits else "a number, name or address chooses"
        self._console.reply(f"{what}; `exit` leaves")
        try:
            while True:
                self.turn()
                lines = self._console.take_lines()
                for number, line in enumerate(lines, 1):
                    text = (line or "").strip()
                    if text in ("exit", "/exit", "/quit", "/q"):
                        return b""
                    chosen = self._find(text)
                    if chosen:
                        self._console.put_back(lines[number:])
                        return chosen
                if waits and self._survey.is_complete and len(self._places) == 1:
                    return next(iter(self._places.values())).address
                if self._console.at_end:
                    return b""
                left = max(self._ask_at - self._node.now(), 0.0)
                self._console.wait(self._node, reading=True, timeout=left)
        finally:
            self._survey.close()

    def turn(self) -> None:
        """Show the rooms that came, changed and went, and ask all nodes now and then."""
        present = {known.address for known in self._node.nodes()}
        self._survey.ask(answer for answer in self._node.answers() if answer.address in present)
        self._survey.turn()
        if self._survey.is_complete:
            self._show(self._survey.places())
        if self._node.now() >= self._ask_at:
            self._ask_at = self._node.now() + c.LOBBY_SECONDS
            self._node.ask(present)
        for event in news(self._node):
            if isinstance(event, MessageReceived):
                self._console.note(told_message(event, is_secret=bool(self._node.port_bit)))

    def _show(self, places: Dict[str, Place]) -> None:
        for key in self._places.keys() - places.keys():
            self._console.reply(f"  {self._numbers[key]}  {people_of(self._places[key])}  is gone")
        for key, place in places.items():
            before = self._places.get(key)
            if (before is None or before.people != place.people) and (
                key in self._numbers or len(self._numbers) < c.PEOPLE_MAX
            ):
                number = self._numbers.setdefault(key, len(self._numbers) + 1)
                where = f"{place.hops} hop{'s' * (place.hops != 1)}  {1000 * place.rtt:.2f} ms"
                self._console.reply(f"  {number}  {people_of(place)}  {format_address(place.address)}  {where}")
        self._places = {key: place for key, place in places.items() if key in self._numbers}

    def _find(self, text: str) -> bytes:
        """Return the address meant by a number of the list, else by an address or a name."""
        for key, place in self._places.items():
            if text == str(self._numbers[key]):
                return place.address
        address = parse_unicast(text)
        if address and address != self._node.address:
            return address
        found = [a for place in self._places.values() for a, name in place.people.items() if text and name == text]
        if len(found) == 1:
            return found[0]
        if text:
            several = "several are" if len(found) > 1 else "nobody in these rooms is"
            self._console.reply(f"{several} called {printable(text)}: give a number from the list, or an address")
        return b""


def call(node: Node, peer: bytes) -> Tuple[Stream, Optional[Listener]]:
    """Return a stream with the chat of `peer`, and where it may be calling us just now if it is in no room.

    Who calls and is in no room listens on PORT_CALL, not on PORT_CHAT: it must not be taken for a room.
    """
    listener = node.listen(c.PORT_CALL, only=peer)
    try:
        try:
            stream = open_stream(node, peer, c.PORT_CHAT, "alexchat_server.py")
            listener.close()
            return stream, None
        except BusyError:  # in a room, then: it calls no one
            raise
        except ConnectionRefusedError as error:
            with contextlib.suppress(ConnectionRefusedError):
                return open_stream(node, peer, c.PORT_CALL, "alexchat_server.py"), listener
            raise error
    except (ConnectionRefusedError, TimeoutError):
        deadline = node.now() + c.ANSWER_SECONDS
        while node.now() < deadline:
            answer = listener.accept(timeout=deadline - node.now())
            if answer is not None and answer.peer == peer:
                return answer, None
            if answer is not None:
                answer.abort()
        raise


# --- The program ----------------------------------------------------------------------------------------------------


def chat_parser(prog: str, description: str, epilog: str, *, linger: float) -> argparse.ArgumentParser:
    """Return a parser with what both ways into a room share."""
    parser = argument_parser(prog, description, epilog, has_streams=True)
    parser.add_argument(
        "--timestamps", action="store_true", default=None, help="show the time before every line, as terminals do"
    )
    parser.add_argument("--no-timestamps", dest="timestamps", action="store_false", help="show no time")
    parser.add_argument("--bell", action="store_true", help="ring the terminal's bell when somebody says something")
    parser.add_argument("--log", metavar="FILE", default="", help="append the talk and all notes to a file")
    parser.add_argument("--downloads", metavar="DIR", default=".", help="where accepted files go (the current one)")
    parser.add_argument(
        "--linger",
        type=linger_argument,
        default=linger,
        metavar="SECONDS",
        help="after the last line of a pipe, listen until all have ended or are silent for so long (%(default)g; inf)",
    )
    return parser


def check_folders(arguments: argparse.Namespace) -> None:
    """Raise SetupError if there is no place for files or for the log; opens nothing."""
    if arguments.log and os.path.isdir(arguments.log):
        raise SetupError(f"--log {quoted(arguments.log)}: it is a directory; the log is a file")
    for option, folder in (("--downloads", arguments.downloads), ("--log", os.path.dirname(arguments.log) or ".")):
        check_folder(option, folder)


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


def open_room(node: Node, console: Console, arguments: argparse.Namespace, **settings: Any) -> Room:
    """Return a room as the command line wants it."""
    return Room(
        node,
        console,
        name=arguments.name,
        linger=arguments.linger,
        downloads=arguments.downloads,
        is_verbose=arguments.verbose,
        **settings,
    )


def linger_argument(text: str) -> float:
    """Return a number of seconds, zero and infinity among them; raise ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if float(text) >= 0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to inf")


HELP = "; /help lists the commands"
TYPING = f"""\
typing: Enter sends; the sign before your line is a dot until the nodes of all others hold it, then a check mark;
  while some do, it says how many: 2/3. `exit` or Ctrl-D leaves; arrows, Home, End, Ctrl-A E K U W Y L, Tab and
  history work as in a shell. /help lists the commands: who is here, messages to one alone, files.
pipes: every line of stdin goes to all others (the first waits for one to come); incoming lines go to stdout as
  `name: text`, everything else to stderr.
names: without --name the others see the login name.
--json: line, joined, left, ended, lost, gone, back, restarted, met, missed, refused, message, held (by one of several),
  delivered, not delivered, and for files file offered, accepted, declined, finished, failed, as objects on stdout.
{SECRECY}"""
EXAMPLES = f"""\
{TYPING}\
examples:
  sudo python3 alexchat_client.py eth0                       # the only room there is
  sudo python3 alexchat_client.py eth0 6a:00:00:00:00:01     # anybody in a room, or a client that calls this one too
  uptime | sudo python3 alexchat_client.py eth0 --linger 0   # send and go
"""


def main() -> int:
    """Join a room."""
    parser = chat_parser("alexchat_client.py", "Join an AlexChat room.", EXAMPLES, linger=c.LINGER_SECONDS)
    parser.add_argument(
        "node", metavar="NODE", nargs="?", help="address or name of anybody in it; without it: the only room, or a list"
    )
    arguments = parser.parse_args()
    if arguments.node:
        check_peer(arguments.node)
    check_folders(arguments)
    with open_node(arguments) as node:
        use_secret(node, arguments.secret, is_quiet=arguments.quiet)
        console = open_console(arguments)
        peer = peer_address(arguments.node, node) if arguments.node else choose_room(node, console)
        if not peer:
            return 0
        stream, callers = call(node, peer)
        with console:
            console.note(f"connected to {format_address(peer)}" + HELP * console.is_interactive)
            room = open_room(node, console, arguments, callers=callers)
            room.join(stream)
            return room.run()


if __name__ == "__main__":
    sys.exit(run(main))
