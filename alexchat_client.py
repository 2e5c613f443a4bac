"""AlexChat's client, and what both ends of the chat are made of.

LineEditor      one row of typing, without I/O
Console         stdin, stdout, stderr, the terminal's mode and the signals
Chat            JSON lines over one stream, and what of them the other node holds
Room            everybody this program talks to, and its one event loop
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse
import codecs
import contextlib
import enum
import itertools
import json
import os
import re
import select
import sys
import termios
import unicodedata
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Union

from constants import CHAT_LINE_BYTES, PORT_CHAT
from node import (
    INFINITY,
    MessageReceived,
    Node,
    NodeFound,
    NodeLost,
    SetupError,
    Stream,
    argument_parser,
    check_peer,
    describe_event,
    has_color,
    json_line,
    open_node,
    open_stream,
    peer_address,
    run,
)
from utils import format_address, parse_address, printable, printable_name

READ_BYTES = 4096  # of stdin at once: what a terminal gives, and in the shortest lines 0.1 MB of JSON
RECEIVE_BYTES = 64 << 10  # of one stream before the others get their turn
QUEUE_BYTES = 64 << 10  # waiting for one stream; above it nothing more is read that would be sent to it
SLOW_SECONDS = 5.0  # with that much waiting and nothing taken, a client is dropped: it would hold up the others
FROM_BYTES = 256  # room for the name that the server adds
LEAVE_SECONDS = 3.0  # to get the last lines and the farewell across
LINGER_SECONDS = 5.0
DISCOVER_SECONDS = 1.0
HISTORY_MAX = 500
SEQUENCE_MAX = 32  # characters; no key sends a longer escape sequence


# --- Lines ----------------------------------------------------------------------------------------------------------


class LineSplitter:
    """Cuts bytes into lines; one longer than `limit` (with its newline) comes out as None and takes no memory.

    A line ends with a newline; a carriage return just before it belongs to the end. U+2028 and the like are text.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> List[Optional[bytes]]:
        """Return the lines that `data` completes, without their ends."""
        *complete, rest = (self._rest + data).split(b"\n")
        lines = [self._line(line) for line in complete]
        self._skipping = self._skipping or len(rest) >= self._limit
        self._rest = b"" if self._skipping else rest
        return lines

    def finish(self) -> List[Optional[bytes]]:
        """Return the last line, if the input ended without a newline."""
        return self.feed(b"\n") if self._rest or self._skipping else []

    def _line(self, line: bytes) -> Optional[bytes]:
        too_long, self._skipping = self._skipping or len(line) >= self._limit, False
        return None if too_long else line[:-1] if line.endswith(b"\r") else line


# --- The line editor ------------------------------------------------------------------------------------------------


class Act(enum.Enum):
    """What a key asks of the program."""

    SUBMIT = "this line is complete"
    INTERRUPT = "Ctrl-C on an empty line"
    LEAVE = "Ctrl-D on an empty line"
    SUSPEND = "Ctrl-Z"
    CLEAR = "Ctrl-L"


class Action(NamedTuple):
    """An `Act`, and the line it is about."""

    act: Act
    text: str = ""


_TOKEN = re.compile(
    r"(?P<plain>[^\x00-\x1f\x7f]+)"
    r"|(?P<sequence>\x1b(?:\[\[.|\[[0-?]*[ -/]*[@-Z\\-~]|O[ -~]|[^\[O\x00-\x1f]))"
    r"|(?P<broken>\x1b(?:\[\[?[0-?]*[ -/]*|O)?(?=[\x00-\x1f\x7f-\U0010ffff]))"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f])"
)
_PASTE_END = re.compile("\x1b\\[201~|\x03")  # Ctrl-C: the way out when the terminal's own mark got lost


def columns(text: str) -> int:
    """Return how many terminal columns `text` takes: marks and joiners none, East Asian wide characters two."""
    return sum(
        _COLUMNS.get(unicodedata.category(char), 2 if unicodedata.east_asian_width(char) in "WF" else 1)
        for char in text
    )


_COLUMNS = {"Mn": 0, "Me": 0, "Cf": 0}


class LineEditor:
    """One row of typing without any I/O: bytes of keys in, actions out, and the bytes that draw the row.

    `width` is the terminal's, in columns; set it anew after a resize. `words` returns what Tab can complete to.
    """

    def __init__(self, width: int, *, encoding: str = "utf-8") -> None:
        self.width = width
        self.prompt = "> "
        self.text = ""
        self.cursor = 0  # index into text
        self._left = 0  # index of the first character shown
        self.words: Callable[[], Iterable[str]] = tuple
        self.encoding = encoding
        self._newline = "\u21b5" if _can_encode("\u21b5", encoding) else "|"
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._keys = ""  # decoded, not yet understood
        self._pasting = False
        self._pasted: List[str] = []  # pieces of a paste under way
        self._killed = ""
        self._history: List[str] = []
        self._recalled = 0  # index into the history; its length = the line being written
        self._draft = ""
        self._actions = self._make_actions()

    # -- keys in

    def feed(self, data: bytes) -> List[Action]:
        """Take the bytes that the terminal sent, any bytes, however cut; return what they ask of the program."""
        self._keys += self._decoder.decode(data)
        actions: List[Action] = []
        while self._keys and (self._feed_paste() if self._pasting else self._feed_token(actions)):
            pass
        return actions

    def _feed_token(self, actions: List[Action]) -> bool:
        """Act on the next key or run of characters; return False when it is not complete yet."""
        token = _TOKEN.match(self._keys)
        if token is None:
            if len(self._keys) <= SEQUENCE_MAX:
                return False
            self._keys = self._keys[1:]  # no sequence: forget its escape character
            return True
        self._keys = self._keys[token.end() :]
        if token.lastgroup == "plain":
            self._insert(token.group())
        elif token.group() in self._actions:
            action = self._actions[token.group()]()
            if action:
                actions.append(action)
        return True

    def _feed_paste(self) -> bool:
        """Collect what is pasted; return False when its end has not arrived yet."""
        end = _PASTE_END.search(self._keys)
        stop = end.start() if end else len(self._keys) - 5  # the last characters may be the first of the end mark
        self._pasted.append(self._keys[: max(stop, 0)])
        self._keys = self._keys[end.end() if end else max(stop, 0) :]
        if end:
            self._insert("".join(self._pasted) if end.group() != "\x03" else "")
            self._pasting, self._pasted = False, []
        return not self._pasting

    def _insert(self, text: str) -> None:
        """Put `text` at the cursor; line ends become newlines, what neither shows nor joins is left out."""
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
        text = "".join(char for char in text if char in "\n\u200c\u200d" or _is_typable(char))
        text = text[: CHAT_LINE_BYTES - len(self.text)]  # a text of that length is refused as a whole when submitted
        self._replace(self.cursor, self.cursor, text)

    # -- what keys do

    def _replace(self, start: int, stop: int, text: str = "") -> None:
        self.text = self.text[:start] + text + self.text[stop:]
        self.cursor = start + len(text)

    def _set(self, text: str) -> None:
        self._replace(0, len(self.text), text)

    def _kill(self, start: int, stop: int) -> None:
        if start < stop:
            self._killed = self.text[start:stop]
            self._replace(start, stop)

    def _submit(self) -> Optional[Action]:
        text = self.text
        if not text:
            return None
        if self._history[-1:] != [text]:
            self._history = [*self._history, text][-HISTORY_MAX:]
        self._recalled = len(self._history)
        self._draft = ""
        self._set("")
        return Action(Act.SUBMIT, text)

    def _interrupt(self) -> Optional[Action]:
        if not self.text:
            return Action(Act.INTERRUPT)
        self._recalled = len(self._history)
        self._set("")
        return None

    def _leave_or_delete(self) -> Optional[Action]:
        if not self.text:
            return Action(Act.LEAVE)
        self._replace(self.cursor, self._after())
        return None

    def _recall(self, step: int) -> None:
        """Show the history's entry `step` further on; the line being written waits behind the last one."""
        if not 0 <= self._recalled + step <= len(self._history):
            return
        if self._recalled == len(self._history):
            self._draft = self.text
        self._recalled += step
        self._set([*self._history, self._draft][self._recalled])

    def _complete_word(self) -> None:
        before = self.text[: self.cursor]
        word = before.rpartition(" ")[2]
        found = [candidate for candidate in self.words() if candidate.startswith(word)]
        if found:
            common = os.path.commonprefix(found)  # noqa: RUF071  character by character
            self._insert(common[len(word) :] + " " * (len(found) == 1))

    def _move(self, index: int) -> None:
        self.cursor = index

    def _before(self) -> int:
        """Return where the character before the cursor starts, with its marks."""
        index = max(self.cursor - 1, 0)
        while index and not columns(self.text[index]):
            index -= 1
        return index

    def _after(self) -> int:
        """Return where the character at the cursor ends, with its marks."""
        index = self.cursor + 1
        while index < len(self.text) and not columns(self.text[index]):
            index += 1
        return min(index, len(self.text))

    def _word_before(self) -> int:
        before = self.text[: self.cursor].rstrip()
        return len(before) - len((before.split() or [""])[-1])

    def _word_after(self) -> int:
        after = self.text[self.cursor :]
        return self.cursor + len(after) - len(after.lstrip()) + len((after.split() or [""])[0])

    def _start_paste(self) -> None:
        self._pasting = True

    def _make_actions(self) -> Dict[str, Callable[[], Optional[Action]]]:
        """Return what each key does; `^[[` and `^[O` are the two ways in which terminals send the cursor keys."""
        table = (
            ("\r \n", self._submit),
            ("\x03", self._interrupt),
            ("\x04", self._leave_or_delete),
            ("\x1a", lambda: Action(Act.SUSPEND)),
            ("\x0c", lambda: Action(Act.CLEAR)),
            ("\t", self._complete_word),
            ("\x7f \x08", lambda: self._replace(self._before(), self.cursor)),
            ("\x1b[3~", lambda: self._replace(self.cursor, self._after())),
            ("\x01 \x1b[H \x1bOH \x1b[1~ \x1b[7~", lambda: self._move(0)),
            ("\x05 \x1b[F \x1bOF \x1b[4~ \x1b[8~", lambda: self._move(len(self.text))),
            ("\x02 \x1b[D \x1bOD", lambda: self._move(self._before())),
            ("\x06 \x1b[C \x1bOC", lambda: self._move(self._after())),
            ("\x1bb \x1b[1;5D \x1b[1;3D", lambda: self._move(self._word_before())),
            ("\x1bf \x1b[1;5C \x1b[1;3C", lambda: self._move(self._word_after())),
            ("\x10 \x1b[A \x1bOA", lambda: self._recall(-1)),
            ("\x0e \x1b[B \x1bOB", lambda: self._recall(1)),
            ("\x0b", lambda: self._kill(self.cursor, len(self.text))),
            ("\x15", lambda: self._kill(0, self.cursor)),
            ("\x17 \x1b\x7f", lambda: self._kill(self._word_before(), self.cursor)),
            ("\x1bd", lambda: self._kill(self.cursor, self._word_after())),
            ("\x19", lambda: self._insert(self._killed)),
            ("\x1b[200~", self._start_paste),
        )
        return {key: action for keys, action in table for key in keys.split(" ")}

    # -- the row out

    def paint(self) -> bytes:
        """Return what draws the row over itself and places the cursor; it leaves the last column free.

        The cursor is placed by writing what stands before it once more, not by counting columns, so that it is right
        also where the terminal has another opinion of a character's width.
        """
        prompt = self.prompt if columns(self.prompt) < self.width // 2 else ""
        room = max(self.width - 1 - columns(prompt), 1)
        self._scroll(room)
        stop = self._reach(self._left, room)
        before, after = (
            text.replace("\n", self._newline)
            for text in (self.text[self._left : self.cursor], self.text[self.cursor : stop])
        )
        again = "\r" + prompt + before if after else ""
        row = "\x1b[?7l\r" + prompt + before + after + "\x1b[K" + again + "\x1b[?7h"
        return row.encode(self.encoding, "replace")

    def _scroll(self, room: int) -> None:
        """Move the first character shown so that the cursor and its column lie within `room` columns."""
        first, used = self.cursor, 1
        while first and used + columns(self.text[first - 1]) <= room:
            first -= 1
            used += columns(self.text[first])
        self._left = max(first, min(self._left, self.cursor))
        while self._left < self.cursor and not columns(self.text[self._left]):
            self._left += 1  # a mark without its base

    def _reach(self, start: int, room: int) -> int:
        """Return the index up to which the text from `start` on fits into `room` columns."""
        while start < len(self.text) and columns(self.text[start]) <= room:
            room -= columns(self.text[start])
            start += 1
        return start


def _is_typable(char: str) -> bool:
    """Tell whether a typed character is text; what is not assigned yet may be an emoji."""
    return unicodedata.category(char)[0] != "C" or (unicodedata.category(char) == "Cn" and char < "\U000e0000")


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


# --- The person's side ----------------------------------------------------------------------------------------------


class OwnLine(NamedTuple):
    """A line of one's own: how many rows were printed before it, its text, and the sign to set before it."""

    row: int
    text: str
    sign: str = ""


class Screen:
    """What a terminal shows around the row being typed, without I/O: each `paint` is one write.

    Lines go above the row, which is drawn again below them. A line of one's own begins with the first of `signs`
    (sent, delivered, lost), to be replaced later. `height` is the terminal's, in rows.
    """

    def __init__(self, editor: LineEditor, *, height: int, signs: str, has_color: bool = True) -> None:
        self.editor = editor
        self._dim = "\x1b[2m{}\x1b[m" if has_color else "{}"
        self.height = height
        self._signs = signs
        self._text = ""  # to be printed with the next paint
        self._rows = 0  # printed so far, those included
        self._under_way: Dict[int, OwnLine] = {}
        self._settled: List[OwnLine] = []
        self._row = b""  # as painted last

    def show(self, text: str, *, dim: str = "") -> None:
        """Print `text` above the row, behind the dim character, if any."""
        self._text += (self._dim.format(dim) if dim else "") + text + "\n"
        self._rows += sum(_rows(line, self.editor.width) for line in (dim + text).split("\n"))

    def show_own(self, ident: int, text: str) -> None:
        """Print a line that is under way."""
        self._under_way[ident] = OwnLine(self._rows, text)
        self.show(" " + text, dim=self._signs[0])

    def settle(self, ident: int, *, delivered: bool) -> None:
        """Set the sign of a line that is no longer under way."""
        line = self._under_way.pop(ident)
        self._settled.append(line._replace(sign=self._signs[1 if delivered else 2]))

    def forget_rows(self) -> None:
        """Nothing is where it was: the terminal was resized, cleared or used by somebody else."""
        self._rows += self.height
        self._row = b""

    def paint(self) -> bytes:
        """Return what brings the terminal up to date. A line that has left the screen is shown once more."""
        changes = ""
        for line in sorted(self._settled):
            up = self._rows - line.row
            if up < self.height:
                changes += f"\x1b[{up}A{line.sign}\r\x1b[{up}B"
            else:
                self.show(f"{line.sign} {line.text}")
        text = self._text + changes
        row, row_before = self.editor.paint(), self._row
        self._text, self._settled, self._row = "", [], row
        if not text and row == row_before:
            return b""
        return (f"\r\x1b[K{text}" if text else "").encode(self.editor.encoding, "replace") + row


def _rows(line: str, width: int) -> int:
    """Return how many rows of `width` columns a terminal needs for `line`."""
    rows, used = 1, 0
    for char in line:
        used += columns(char)
        if used > width:
            rows, used = rows + 1, columns(char)
    return rows


class Console:
    """Lines typed in, text shown, signals; with line editor and `Screen` where stdin and stdout are a terminal.

    A context manager: whatever happens inside, the terminal's mode and the signal handlers are put back. Inside,
    signals (and Ctrl-C, a key like others) take effect in `wait` and where output waits for its reader, nowhere else:
    as SystemExit with 128 + the signal's number. After that, output no longer waits for its reader.

    `as_json`: stdout is for `show_json`, nothing is edited or painted. `is_quiet`: of the notes only errors are shown.
    """

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False, has_color: bool = True) -> None:
        self.as_json = as_json
        self._is_quiet = is_quiet
        self.is_interactive = os.isatty(0)
        self.at_end = False  # nothing more will be typed
        self.screen: Optional[Screen] = None
        self._encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self._lines: Deque[Optional[str]] = deque()  # typed, not taken yet; None was too long
        self._splitter = LineSplitter(CHAT_LINE_BYTES)
        self._undo = contextlib.ExitStack()
        self._signals = -1
        self._leaving = False  # after a signal
        self._mode: List[Any] = []  # the terminal's, from before
        is_smart = os.environ.get("TERM", "dumb") != "dumb"
        if self.is_interactive and os.isatty(1) and is_smart and not as_json:
            signs = "\u00b7\u2713\u2717" if _can_encode("\u00b7\u2713\u2717", self._encoding) else ".+!"
            self.screen = Screen(LineEditor(80, encoding=self._encoding), height=24, signs=signs, has_color=has_color)

    def __enter__(self) -> "Console":
        with contextlib.ExitStack() as undo:
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

    def wait(self, network: int, *, reading: bool, timeout: Optional[float]) -> None:
        """Wait for the file descriptor `network`, a signal, typing (if `reading`), at most `timeout` seconds."""
        self._paint()
        reading = reading and not self.at_end
        ready = select.select([self._signals, network, *[0] * reading], [], [], timeout)[0]
        if self._signals in ready:
            self._take_signals()
        if reading and 0 in ready:
            self._read()

    def take_lines(self) -> List[Optional[str]]:
        """Return the lines typed since the last call; None stands for one that was too long."""
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def show(self, text: str) -> None:
        """Show a line of the talk."""
        if self.screen:
            self.screen.show(text)
        elif not self.as_json:
            self._write(1, text)

    def show_json(self, line: str) -> None:
        """Show an event to a program."""
        self._write(1, line)

    def note(self, text: str, *, is_error: bool = False) -> None:
        """Show what is not part of the talk."""
        if self._is_quiet and not is_error:
            return
        if self.screen and os.isatty(2):
            self.screen.show(text)
        else:
            self._write(2, text)

    def show_own(self, ident: int, text: str) -> None:
        """Show a line of one's own as sent; `settle` says later what became of it."""
        if self.screen:
            self.screen.show_own(ident, printable(text))

    def settle(self, ident: int, text: str, *, delivered: bool) -> None:
        """Show a line of one's own as delivered or not."""
        if self.screen:
            self.screen.settle(ident, delivered=delivered)
        elif self.is_interactive and delivered and not self.as_json:
            self._write(2, f"delivered: {printable(text)}")

    def set_prompt(self, prompt: str) -> None:
        """Set what stands before the text being typed."""
        if self.screen:
            self.screen.editor.prompt = prompt

    def _paint(self) -> None:
        if self.screen:
            self._write_bytes(1, self.screen.paint())

    def _write(self, descriptor: int, text: str) -> None:
        self._write_bytes(descriptor, (text + "\n").encode(self._encoding, "backslashreplace"))

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        """Write all, but stay open for signals while the reader takes his time."""
        while data:
            interrupting, writable, _ = select.select([self._signals], [descriptor], [], 0 if self._leaving else None)
            if interrupting:
                self._take_signals()
            if self._leaving and not writable:
                return
            if writable:  # it takes PIPE_BUF bytes at least
                data = data[os.write(descriptor, data if self.screen else data[: select.PIPE_BUF]) :]

    def _read(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
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
            self._write_bytes(1, b"\x1b[H\x1b[2J")
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

    def _measure(self) -> None:
        if self.screen:
            size = os.get_terminal_size(1)
            self.screen.editor.width = size.columns or 80  # a serial line knows no size
            self.screen.height = size.lines or 24
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
        for number in os.read(self._signals, READ_BYTES):
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._leaving = True
                raise SystemExit(128 + number)
            if number == signal.SIGCONT and self.screen:
                self._take_terminal()
            self._measure()


# --- What the chat says on a stream ---------------------------------------------------------------------------------


class Hello(NamedTuple):
    """Who the other is."""

    name: str


class Say(NamedTuple):
    """A message; `sender` is set where the server passes it on."""

    text: str
    ident: int = 0
    sender: str = ""


class Bye(NamedTuple):
    """The other leaves."""


class Malformed(NamedTuple):
    """A line that is none of these and not just unknown."""

    reason: str


Record = Union[Hello, Say, Bye, Malformed]


def encode_record(record: Record) -> bytes:
    """Return the record as one line of JSON; its length is not checked."""
    if isinstance(record, Hello):
        fields: Dict[str, Any] = {"type": "hello", "name": record.name}
    elif isinstance(record, Say):
        fields = {"type": "say", "id": record.ident, "text": record.text}
        if record.sender:
            fields["from"] = record.sender
    else:
        fields = {"type": "bye"}
    return json.dumps(fields, ensure_ascii=False).encode("utf-8") + b"\n"


def decode_record(line: bytes) -> Optional[Record]:
    """Return what a line says; None where its type is unknown, for the next version's sake. Never raises."""
    try:
        fields = json.loads(line.decode("utf-8", "replace"))
    except RecursionError:
        return Malformed("nested too deeply")
    except ValueError:
        return Malformed("not JSON")
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        return Malformed("not an object with a type")
    if fields["type"] == "hello" and isinstance(fields.get("name"), str):
        return Hello(_whole(fields["name"]))
    if fields["type"] == "say" and isinstance(fields.get("text"), str):
        sender, ident = fields.get("from", ""), fields.get("id", 0)
        if isinstance(sender, str) and isinstance(ident, int):
            return Say(_whole(fields["text"]), ident, _whole(sender))
    if fields["type"] == "bye":
        return Bye()
    return Malformed("wrong fields") if fields["type"] in ("hello", "say") else None


def _whole(text: str) -> str:
    """Return the text without halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Receipt(NamedTuple):
    """The offset in the stream behind a message: once the other node holds that much, it holds the message."""

    offset: int
    ident: int
    text: str


class Chat:
    """JSON lines over one stream: records in and out without waiting, and what the other node holds of them."""

    def __init__(self, stream: Stream, *, now: float) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.name = format_address(stream.peer)
        self.has_left = False  # said so, or was told to be gone
        self.at_end = False  # the other says nothing more
        self.is_hungry = False  # there may be more to read
        self.moved = now  # when it last took something, or had nothing to take (monotonic seconds)
        self._splitter = LineSplitter(CHAT_LINE_BYTES)
        self._queue = bytearray()
        self._offset = 0  # behind the last byte queued
        self._finishing = False
        self.receipts: Deque[Receipt] = deque()  # of what the other node does not hold yet

    @property
    def queued(self) -> int:
        """Bytes that the stream has not taken yet."""
        return len(self._queue)

    def put(self, record: Record) -> bool:
        """Queue a record; return False when nothing can be said any more."""
        if self._finishing or self.stream.ended:
            return False
        line = encode_record(record)
        self._queue += line
        self._offset += len(line)
        if isinstance(record, Say) and not record.sender:
            self.receipts.append(Receipt(self._offset, record.ident, record.text))
        return True

    def finish(self) -> None:
        """Say nothing more, once all that is queued is said."""
        self._finishing = True

    def flush(self, *, now: float) -> None:
        """Give the stream what it takes."""
        try:
            while self._queue:
                taken = self.stream.write(bytes(self._queue[:RECEIVE_BYTES]))
                if not taken:
                    break
                self.moved = now
                del self._queue[:taken]
            if self._finishing and not self._queue:
                self.stream.finish()
        except OSError:  # the stream has failed; it says so itself
            self._queue.clear()
        if len(self._queue) <= QUEUE_BYTES:
            self.moved = now

    def receive(self) -> List[Record]:
        """Return what arrived, at most RECEIVE_BYTES of it."""
        try:
            data = self.stream.read(RECEIVE_BYTES)
        except OSError:  # the stream has failed; it says so itself
            data = None
        self.is_hungry = bool(data)
        if data is None:
            return []
        self.at_end = not data
        records = []
        for line in self._splitter.feed(data) if data else self._splitter.finish():
            record = Malformed("longer than 64 KiB") if line is None else decode_record(line)
            if record is not None:
                records.append(record)
        return records

    def take_receipts(self) -> List[Receipt]:
        """Return the messages that the other node holds since the last call."""
        held = []
        while self.receipts and self.receipts[0].offset <= self.stream.delivered:
            held.append(self.receipts.popleft())
        return held


# --- Everybody, and the loop ----------------------------------------------------------------------------------------


class Room:
    """Everybody this program talks to, and the one loop that serves them, the person and the signals.

    As it stands it is the client's: over when the one chat in it is.
    """

    def __init__(
        self, node: Node, console: Console, *, name: str, linger: float = 0.0, is_verbose: bool = False
    ) -> None:
        self.node = node
        self._is_verbose = is_verbose
        self.console = console
        self.name = name
        self.chats: List[Chat] = []
        self.leave_at = INFINITY  # what is open then is left (monotonic seconds)
        self._linger = linger  # seconds to listen on after the last line of a pipe
        self._idents = itertools.count(1)
        self._missing: Dict[int, int] = {}  # message -> how many nodes do not hold it yet
        self._lingering = False
        self._undelivered = 0  # messages
        self._lost = 0  # streams
        if console.screen:
            console.screen.editor.words = lambda: ["exit", *(chat.name for chat in self.chats)]

    def join(self, stream: Stream) -> None:
        """Take up the talk on a new stream."""
        chat = Chat(stream, now=self.node.now())
        chat.put(Hello(self.name))
        self.chats.append(chat)

    def run(self) -> int:
        """Talk until it is over; return the exit status."""
        status = 0
        try:
            self._loop()
        except SystemExit as interruption:
            status = int(interruption.code or 0)
            self.leave()
            self._loop()  # a second interruption does not wait
        for chat in list(self.chats):
            self.part(chat)
            chat.stream.abort()
        return status or int(self.has_failed())

    def _loop(self) -> None:
        while not self.is_over():
            self.console.wait(self.node.fileno(), reading=self.wants_lines(), timeout=self._timeout())
            self.node.clear_wakeup()
            self.turn()

    def has_failed(self) -> bool:
        """Tell whether the exit status has to report a failure."""
        return self._lost > 0 or (self._undelivered > 0 and not self.console.is_interactive)

    def is_over(self) -> bool:
        """Tell whether there is nothing left to do."""
        return not self.chats or self.node.now() >= self.leave_at

    def wants_lines(self) -> bool:
        """Tell whether a typed line would find somebody who takes it. A person may type at any time."""
        return self.console.is_interactive or (bool(self.chats) and not self.is_congested())

    def is_congested(self) -> bool:
        """Tell whether somebody does not take what is queued for him."""
        return any(chat.queued > QUEUE_BYTES for chat in self.chats)

    def may_listen(self) -> bool:
        """Tell whether to take in what others say."""
        return True

    def _timeout(self) -> Optional[float]:
        if self.may_listen() and any(chat.is_hungry for chat in self.chats):
            return 0.0
        left = self.next_deadline() - self.node.now()
        return None if left == INFINITY else max(left, 0.0)

    def next_deadline(self) -> float:
        """Return when to look after everybody even if nothing happens."""
        return self.leave_at

    def turn(self) -> None:
        """Do what typing, the network and the clock ask for."""
        for line in self.console.take_lines():
            self._type(line)
        self._report_mesh()
        for chat in self.chats:
            if self.may_listen():
                self._listen(chat)
        for chat in list(self.chats):
            self.serve(chat)
        self.chats = self.chats[1:] + self.chats[:1]  # who is listened to first may be the only one in a turn
        stalled = [chat.name for chat in self.chats if chat.stream.stalled]
        self.console.set_prompt(f"{' '.join(stalled)}: link lost, retrying> " if stalled else "> ")
        if self.console.at_end:
            self.end_typing()

    def _report_mesh(self) -> None:
        """Show what concerns this node; who comes and goes in the mesh does not."""
        event = self.node.next_event(timeout=0)
        while event is not None:
            if isinstance(event, MessageReceived):
                self.console.note(f"message from {format_address(event.origin)}: {printable(event.data)}")
                self._tell("message", address=event.origin, data=event.data)
            elif self._is_verbose or not isinstance(event, (NodeFound, NodeLost)):
                self.console.note(describe_event(event, self.node.names))
            event = self.node.next_event(timeout=0)

    # -- what is typed

    def _type(self, line: Optional[str]) -> None:
        if line is None:
            self._refuse("a line of over 64 KiB")
        elif self.console.is_interactive and line.strip() == "exit":
            self.leave()
        elif self.leave_at == INFINITY:
            self._say(line)

    def _say(self, text: str) -> None:
        message = Say(text, next(self._idents))
        if len(encode_record(message)) > CHAT_LINE_BYTES - FROM_BYTES:
            self._refuse(f"a message of {len(text)} characters: too long")
            return
        takers = sum(chat.put(message) for chat in self.chats)
        if not takers:
            self._refuse(f"nobody is here: {printable(text)}")
            return
        self._missing[message.ident] = takers
        self.console.show_own(message.ident, text)

    def _refuse(self, what: str) -> None:
        self._undelivered += 1
        self.console.note(f"NOT delivered: {what}", is_error=True)
        self._tell("not delivered", reason=what)

    def end_typing(self) -> None:
        """Stdin has ended. A person leaves; after a pipe's last line is delivered, the others may go on for a while."""
        if self.console.is_interactive:
            self.leave()
            return
        for chat in self.chats:
            chat.finish()
            chat.flush(now=self.node.now())
        if self.leave_at == INFINITY and not any(chat.queued or chat.receipts for chat in self.chats):
            self._lingering = True
            self.leave_at = self.node.now() + self._linger

    def leave(self) -> None:
        """Say goodbye to everybody, and wait a little for their answer."""
        self._lingering = False
        self.leave_at = min(self.leave_at, self.node.now() + LEAVE_SECONDS)
        for chat in self.chats:
            chat.put(Bye())
            chat.finish()
            chat.flush(now=self.node.now())

    # -- what the others say

    def _listen(self, chat: Chat) -> None:
        """Act on what has arrived."""
        unreadable: List[Malformed] = []
        for record in chat.receive():
            if isinstance(record, Say):
                self.hear(chat, record)
            elif isinstance(record, Hello):
                self._greet(chat, record)
            elif isinstance(record, Bye):
                self._note_leaving(chat)
                chat.finish()
            else:
                unreadable.append(record)
            if self._lingering:
                self.leave_at = self.node.now() + self._linger
        if unreadable:  # one note for all: a peer that sends a million empty lines shall not own the screen
            more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
            self.console.note(f"{chat.name} sent a line that cannot be read: {unreadable[0].reason}{more}")

    def hear(self, chat: Chat, message: Say) -> None:
        """Show a message."""
        sender = _sender(message.sender) or chat.name
        self.console.show(f"{sender}: {printable(message.text)}")
        self._tell("line", name=sender, address=chat.stream.peer, text=message.text)

    def _greet(self, chat: Chat, hello: Hello) -> None:
        """Name the other as he says, once; with the tail of his address where it could be mistaken for another name."""
        name, address = printable_name(hello.name), format_address(chat.stream.peer)
        if name and chat.name == address:
            others = [self.name, *(other.name for other in self.chats if other is not chat)]
            is_plain = name not in others and all(char < "\x7f" for char in name)
            chat.name = name if is_plain else f"{name}~{address[-5:]}"
        self.console.note(f"{chat.name} is here" if chat.name == address else f"{chat.name} ({address}) is here")
        self._tell("joined", name=chat.name, address=chat.stream.peer)

    def _note_leaving(self, chat: Chat) -> None:
        if not chat.has_left:
            chat.has_left = True
            self.console.note(f"{chat.name} left")
            self._tell("left", name=chat.name, address=chat.stream.peer)

    def serve(self, chat: Chat) -> None:
        """Bring the other what is queued, the person what became of it, and see whether the stream is over."""
        chat.flush(now=self.node.now())
        for receipt in chat.take_receipts():
            self._settle(receipt, delivered=True)
        if chat.stream.ended and not chat.is_hungry:
            self.part(chat)

    def part(self, chat: Chat) -> None:
        """Take leave of one whose stream is over, and list what he will not get."""
        self.chats.remove(chat)
        error = chat.stream.error
        if error is not None and not chat.at_end and not chat.has_left:
            self._lost += 1
            self.console.note(f"{chat.name} is lost: {error}", is_error=True)
            self._tell("lost", name=chat.name, address=chat.stream.peer, reason=str(error))
        elif self.leave_at == INFINITY:
            self._note_leaving(chat)
        for receipt in chat.receipts:
            self._undelivered += 1
            self.console.note(f"NOT delivered to {chat.name}: {printable(receipt.text)}", is_error=True)
            self._settle(receipt, delivered=False)

    def _settle(self, receipt: Receipt, *, delivered: bool) -> None:
        """Show what became of a message: delivered if all have it, not delivered with the first who will not get it."""
        missing = self._missing.pop(receipt.ident, 0)
        if missing > 1 and delivered:
            self._missing[receipt.ident] = missing - 1
        elif missing:
            self.console.settle(receipt.ident, receipt.text, delivered=delivered)
            self._tell("delivered" if delivered else "not delivered", id=receipt.ident, text=receipt.text)

    def _tell(self, kind: str, **fields: object) -> None:
        """Tell a program, if one listens, what has happened."""
        if self.console.as_json:
            self.console.show_json(json_line(self.node, kind, fields))


def _sender(name: str) -> str:
    """Return how to show who said what the server passed on: a name or an address."""
    try:
        return format_address(parse_address(name))
    except ValueError:
        return printable_name(name)


# --- The program ----------------------------------------------------------------------------------------------------


def chat_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with what both ends of the chat share."""
    return argument_parser(prog, description, epilog)


def open_console(arguments: argparse.Namespace) -> Console:
    """Return a console that speaks as asked for."""
    colored = has_color(arguments, sys.stdout)
    return Console(as_json=arguments.json, is_quiet=arguments.quiet, has_color=colored)


def find_server(node: Node) -> bytes:
    """Return the address of the one chat server in the mesh.

    Raises SetupError with the commands to choose from if there are several, TimeoutError if there is none.
    """
    servers = [found for found in node.discover(DISCOVER_SECONDS) if PORT_CHAT in (found.ports or ())]
    if len(servers) == 1:
        return servers[0].address
    if not servers:
        raise TimeoutError(
            f"no chat server answers; to start one: sudo python3 alexchat_server.py {node.links[0].name}"
        )
    command = f"sudo python3 alexchat_client.py {','.join(link.name for link in node.links)}"
    lines = [
        f"  {command} {format_address(found.address)}  # {printable_name(found.name or '')}, {found.hops} hops"
        for found in servers
    ]
    raise SetupError("\n".join(["several chat servers answer, choose one:", *lines]))


TYPING = """\
typing: Enter sends; the sign before your line is a dot until the other node holds it, then a check mark.
  `exit` or Ctrl-D leaves; arrows, Home, End, Ctrl-A E K U W Y L, Tab and history work as in a shell.
names: without --name the others see the login name."""
EXAMPLES = f"""\
{TYPING}
pipes: every line of stdin is sent, incoming lines go to stdout as `name: text`, everything else to stderr.
--json: line, joined, left, lost, message, delivered, not delivered as objects on stdout.
examples:
  sudo python3 alexchat_client.py eth0                       # the only chat server there is
  sudo python3 alexchat_client.py eth0 6a:00:00:00:00:01
  uptime | sudo python3 alexchat_client.py eth0 --linger 0   # send and go
"""


def main() -> int:
    """Talk to one chat server."""
    parser = chat_parser("alexchat_client.py", "Chat with the people on an AlexChat server.", EXAMPLES)
    parser.add_argument(
        "node", metavar="NODE", nargs="?", help="the server's address or name; without it: the only server found"
    )
    parser.add_argument(
        "--linger",
        type=float,
        default=LINGER_SECONDS,
        metavar="SECONDS",
        help="after the last line of a pipe, listen until the other ends or is silent for so long (%(default)g; inf)",
    )
    arguments = parser.parse_args()
    if arguments.node:
        check_peer(arguments.node)
    with open_node(arguments) as node:
        peer = peer_address(arguments.node, node) if arguments.node else find_server(node)
        stream = open_stream(node, peer, PORT_CHAT, "alexchat_server.py")
        with open_console(arguments) as console:
            console.note(f"connected to {format_address(peer)}")
            room = Room(node, console, name=arguments.name, linger=arguments.linger, is_verbose=arguments.verbose)
            room.join(stream)
            return room.run()


if __name__ == "__main__":
    sys.exit(run(main))
