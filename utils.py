"""Small tools that would make sense in another program: no clock, no I/O, no word of any protocol.

Addresses as text and their names, numbers that wrap, sets of ranges, memory that forgets, the one way in which text
from another machine may reach a terminal, and a line editor: bytes of keys in, actions and bytes that paint out.
"""

import codecs
import enum
import itertools
import json
import re
import unicodedata
import zlib
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Hashable,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

import constants as c

# --- Addresses ------------------------------------------------------------------------------------------------------


def format_address(address: bytes) -> str:
    """Return the address as lower-case hex pairs: `6a:00:00:00:00:01`."""
    return ":".join(f"{octet:02x}" for octet in address)


def parse_address(text: str) -> bytes:
    """Return the six bytes that `text` names; raise ValueError for anything else.

    Groups are separated by `:` or `-` and may lack their leading zero, as macOS prints them (`6a:0:0:0:0:1`).
    """
    groups = re.split("[:-]", text)
    if len(groups) != 6 or not all(re.fullmatch("[0-9a-fA-F]{1,2}", group) for group in groups):
        raise ValueError(f"{text!r} is not an address: six hex pairs such as 6a:00:00:00:00:01")
    return bytes(int(group, 16) for group in groups)


def is_unicast(address: bytes) -> bool:
    """Return whether the address names one station: not all zero, and the group bit (lowest of octet 0) clear."""
    return any(address) and not address[0] & 1


def parse_unicast(text: str) -> bytes:
    """Return the address of one station that `text` names, or b""."""
    try:
        address = parse_address(text)
    except ValueError:
        return b""
    return address if is_unicast(address) else b""


def parse_names(text: str) -> Tuple[Dict[bytes, str], List[Tuple[int, str]]]:
    """Read batman-adv's bat-hosts format: lines `ADDRESS NAME`; what follows a `#` is a comment.

    Return the name of each address, and (line number, what is wrong) for each line that is left out.
    """
    names: Dict[bytes, str] = {}
    faults: List[Tuple[int, str]] = []
    owners: Dict[str, bytes] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        try:
            if words:
                address, name = _parse_named(words)
                if address in names or name in owners:
                    raise ValueError(f"{words[0]} or {name} has been given already")
                names[address], owners[name] = name, address
        except ValueError as error:
            faults.append((number, str(error)))
    return names, faults


def _parse_named(words: List[str]) -> Tuple[bytes, str]:
    address = parse_address(words[0])
    if not is_unicast(address):
        raise ValueError(f"{words[0]} is not the address of one node")
    if len(words) != 2 or not is_name(words[1]):
        rule = f"one word of letters, digits and -_. and at most {c.NAME_CHARACTERS} characters"
        raise ValueError(f"{' '.join(words[1:])!r} is not a name: {rule}")
    return address, words[1]


def is_name(text: str) -> bool:
    """Return whether `text` can name a node: `printable_name` leaves it as it is."""
    return text != "" and printable_name(text) == text


def with_tail(name: str, address: str) -> str:
    """Return the name with the end of the address, `ann~00:07`: for one that could be mistaken for another."""
    return f"{name}~{address[-5:]}"


def label_names(said: Mapping[bytes, str], own: Mapping[bytes, str]) -> Dict[bytes, str]:
    """Return how to show each node of `said`, which maps addresses to the names that the nodes give themselves.

    `own` has the names that the user gave to addresses, and goes first. Another name is shown with the tail of its
    address (`ann~00:07`) if it is not plain ASCII or if somebody else has it too; empty stays empty.
    """
    shown = {address: own.get(address) or printable_name(name) for address, name in said.items()}
    owners = Counter({**own, **shown}.values())
    for address, name in shown.items():
        is_plain = name == said[address] and all(char < "\x7f" for char in name) and owners[name] == 1
        if name and address not in own and not is_plain:
            shown[address] = with_tail(name, format_address(address))
    return shown


# --- Numbers that wrap ----------------------------------------------------------------------------------------------


def unwrap(wire: int, near: int) -> int:
    """Return the integer congruent to `wire` modulo 2**32 that is nearest to `near` (the idea of RFC 1982).

    It lies in [near - 2**31, near + 2**31) and may be negative. With unwrapped numbers `<` is safe again.
    """
    return near + (wire - near + 0x80000000) % 0x100000000 - 0x80000000


class Range(NamedTuple):
    """The integers from `start` up to, not including, `stop`."""

    start: int
    stop: int


class RangeSet:
    """A set of integers, kept as ascending ranges that neither overlap nor touch."""

    def __init__(self) -> None:
        # Two lists side by side, because bisect on Python 3.6 knows no key.
        self._starts: List[int] = []
        self._stops: List[int] = []

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self._starts)

    def __iter__(self) -> Iterator[Range]:
        return map(Range, self._starts, self._stops)

    def __contains__(self, number: int) -> bool:
        return self.range_at(number) is not None

    def range_at(self, number: int) -> Optional[Range]:
        """Return the range that holds `number`, or None."""
        index = bisect_right(self._stops, number)
        if index < len(self._starts) and self._starts[index] <= number:
            return Range(self._starts[index], self._stops[index])
        return None

    def total(self) -> int:
        """Return how many integers the set holds."""
        return sum(self._stops) - sum(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Add the integers of [start, stop); a range that ends before it begins is empty."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)  # first and last range that overlap or touch the new one
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def gaps(self, start: int, stop: int) -> Iterator[Range]:
        """Yield, ascending, the ranges of [start, stop) that the set does not hold; it may change meanwhile."""
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        edges = zip([start, *self._stops[first:last]], [*self._starts[first:last], stop])
        return (Range(left, right) for left, right in edges if left < right)

    def discard_below(self, number: int) -> None:
        """Remove every integer smaller than `number`."""
        passed = bisect_right(self._stops, number)
        del self._starts[:passed], self._stops[:passed]
        if self._starts and self._starts[0] < number:
            self._starts[0] = number


# --- Bytes that wait ------------------------------------------------------------------------------------------------


class ByteQueue:
    """Bytes in pieces, first in, first out. A bytearray would move what it holds whenever it grows.

    More than `pieces_max` pieces are joined to one, so that tiny ones cost no more memory than their bytes.
    """

    def __init__(self, pieces_max: int) -> None:
        self._pieces_max = pieces_max
        self._pieces: Deque[bytes] = deque()
        self._taken = 0  # bytes of the first piece that are gone
        self._length = 0

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self._length

    def append(self, piece: bytes) -> None:
        """Add bytes at the end."""
        self.extend((piece,))

    def extend(self, pieces: Sequence[bytes]) -> None:
        """Add bytes at the end, piece by piece."""
        self._pieces.extend(pieces)
        self._length += sum(map(len, pieces))
        if len(self._pieces) > self._pieces_max:
            whole = self.take(self._length)
            self._pieces.append(whole)
            self._length = len(whole)

    def take(self, count: int) -> bytes:
        """Remove and return up to `count` bytes."""
        if count >= self._length and not self._taken:  # the usual case
            whole = b"".join(self._pieces)
            self._pieces.clear()
            self._length = 0
            return whole
        taken: List[bytes] = []
        while count > 0 and self._pieces:
            first, at = self._pieces[0], self._taken
            part = first[at : at + count]
            self._taken += len(part)
            if self._taken == len(first):
                self._pieces.popleft()
                self._taken = 0
            count -= len(part)
            self._length -= len(part)
            taken.append(part)
        return b"".join(taken)


class ByteWindow:
    """A stretch of a stream of bytes: it grows at the end, is forgotten from the start, and can be read anywhere.

    Kept in the pieces that it came in, so that large ones are not copied; small ones are joined to be few.
    """

    def __init__(self, start: int) -> None:
        self.start = self.stop = start
        self._pieces: List[bytes] = []
        self._stops: List[int] = []  # position after each

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self.stop - self.start

    def append(self, piece: bytes) -> None:
        """Add bytes at the end."""
        self.stop += len(piece)
        if self._pieces and len(self._pieces[-1]) + len(piece) <= c.PIECE_BYTES:
            self._pieces[-1] += piece
            self._stops[-1] = self.stop
        elif piece:
            self._pieces.append(piece)
            self._stops.append(self.stop)

    def forget(self, position: int) -> None:
        """Remove what stands before the position."""
        self.start = position
        gone = bisect_right(self._stops, position)
        if gone:
            del self._pieces[:gone], self._stops[:gone]

    def clear(self) -> None:
        """Forget everything."""
        self.forget(self.stop)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes between two positions."""
        parts: List[bytes] = []
        at = bisect_right(self._stops, start)
        while start < stop:
            begin = self._stops[at] - len(self._pieces[at])
            parts.append(self._pieces[at][start - begin : stop - begin])
            start = self._stops[at]
            at += 1
        return b"".join(parts)

    def slices(self, start: int, stop: int, size: int) -> List[Union[bytes, memoryview]]:
        """Return the bytes between two positions, `size` at a time; views but for those that a piece ends in."""
        if stop - start <= size:  # the usual case of short messages
            return [self.read(start, stop)]
        found: List[Union[bytes, memoryview]] = []
        while start < stop:
            at = bisect_right(self._stops, start)
            begin = self._stops[at] - len(self._pieces[at])
            view = memoryview(self._pieces[at])[start - begin : stop - begin]
            found += [view[i : i + size] for i in range(0, len(view), size)]
            start += len(view)
            missing = -len(view) % size
            if missing and start < stop:
                start += missing
                found[-1] = self.read(start - size, min(start, stop))
        return found


# --- Memory that forgets --------------------------------------------------------------------------------------------


class SeenSet:
    """A set that forgets: two generations, swapped when the younger is full or old.

    A key is remembered for `seconds` to twice that after it was last added, unless more than `keys_max` others came
    in between; never are more than twice `keys_max` keys held.
    """

    def __init__(self, keys_max: int, seconds: float) -> None:
        self._keys_max = keys_max
        self._seconds = seconds
        self._young: Set[Hashable] = set()
        self._old: Set[Hashable] = set()
        self._since = 0.0

    def add(self, key: Hashable, *, now: float) -> bool:
        """Remember `key` from `now` on (monotonic seconds); return True if it was not known."""
        age = now - self._since
        if age >= self._seconds or len(self._young) >= self._keys_max:
            self._old = self._young if age < 2 * self._seconds else set()
            self._young = set()
            self._since = now
        known = key in self
        self._young.add(key)
        return not known

    def __contains__(self, key: Hashable) -> bool:
        return key in self._young or key in self._old


class TokenBucket:
    """A limit of `rate` events a second on average, and of `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled = 0.0

    def take(self, *, now: float) -> bool:
        """Return whether one more event is allowed at `now` (monotonic seconds), and count it if so."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = max(now, self._filled)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Credit:
    """Bytes that may be spent: those that were earned, and an `allowance` that comes back at `rate` a second."""

    def __init__(self, allowance: int, rate: float, *, least: int, most: int) -> None:
        self._allowance = allowance
        self._rate = rate
        self._least = least
        self._most = most
        self._left = float(allowance)
        self._filled = 0.0

    def earn(self, count: int) -> None:
        """Add bytes, up to `most` in all."""
        self._left = min(self._left + count, self._most)

    def owe(self, count: int) -> None:
        """Spend bytes in any case, down to `least` in all."""
        self._left = max(self._left - count, self._least)

    def afford(self, count: int, *, now: float) -> bool:
        """Return whether so many bytes are left at `now` (monotonic seconds), and spend them if so."""
        if self._left < self._allowance:
            self._left = min(self._allowance, self._left + max(0.0, now - self._filled) * self._rate)
        self._filled = max(now, self._filled)
        if self._left < count:
            return False
        self._left -= count
        return True


# --- Lines and columns ----------------------------------------------------------------------------------------------


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


def encode_json(fields: Mapping[str, object]) -> bytes:
    """Return the fields as an object in one line of JSON."""
    return json.dumps(fields, ensure_ascii=False).encode("utf-8") + b"\n"


def decode_json(line: bytes) -> Tuple[Dict[str, Any], str]:
    """Return the object that a line of JSON holds, empty if it holds another value, and ""; or else {} and a reason."""
    try:
        fields = json.loads(line.decode("utf-8", "replace"))
    except RecursionError:
        return {}, "nested too deeply"
    except ValueError:
        return {}, "not JSON"
    return (fields if isinstance(fields, dict) else {}), ""


def columns(text: str) -> int:
    """Return how many terminal columns `text` takes: marks and joiners none, East Asian wide characters two."""
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    category = unicodedata.category(char)
    if category in ("Mn", "Me", "Cf") or "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff":
        return 0  # jamo that join the one before
    # What is younger than this Python's tables is most likely an emoji
    return 2 if unicodedata.east_asian_width(char) in "WF" or (category == "Cn" and char >= "\U0001f000") else 1


def fit(text: str, width: int) -> int:
    """Return how many characters of `text` fit into `width` columns."""
    used = 0
    for index, char in enumerate(text):
        used += columns(char)
        if used > width:
            return index
    return len(text)


def wrap(text: str, width: int, first: int) -> List[str]:
    """Return `text`, which has no newline, in rows of `width` columns, the first one of `first`; broken at blanks."""
    rows: List[str] = []
    row, room = "", first
    for word in re.findall(r"\s*\S+|\s+$", text):
        if row.strip() and columns(row) + columns(word) > room:
            rows.append(row)
            row, word, room = "", word.lstrip(), width
        row += word
        while columns(row) > room:
            cut = max(fit(row, room), 1)
            rows.append(row[:cut])
            row, room = row[cut:], width
    return [*rows, row]


def format_table(rows: Sequence[Sequence[str]]) -> List[str]:
    """Return the rows as lines with aligned columns."""
    widths = [max(map(columns, column)) for column in zip(*rows)]
    return ["  ".join(cell + " " * (w - columns(cell)) for cell, w in zip(row, widths)).rstrip() for row in rows]


def can_encode(text: str, encoding: str) -> bool:
    """Return whether a character set has all characters of `text`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


# --- Text from another machine --------------------------------------------------------------------------------------

# Printable to Unicode, yet invisible: fillers and blanks, selectors of glyph variants.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0d]")
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # needed inside words and emoji; at any other place they only hide
_INDENT = "\n    "  # no line of a message can pass for a line of somebody else
_CUT = " [...]"
_UNSAFE_IN_FILES = "\n\"$&'*/:;<>?\\`|"


def printable(remote: Union[bytes, str], *, is_whole: bool = False) -> str:
    r"""Return text from another machine in a form that cannot act on a terminal. The only way to show such text.

    Bytes are decoded as UTF-8, invalid ones shown as `\xff`, trailing NULs (Ethernet padding) cut. A newline is the
    one character with an effect, and what follows it is indented. Visible characters pass, everything else is
    escaped: `^[` for the ASCII controls, `\x9b` for the 8-bit ones, `<U+202E>` for the others. More than
    SHOWN_CHARACTERS or SHOWN_LINES are cut, and ` [...]` says so, unless it `is_whole`, for a file.
    """
    text = (remote.decode("utf-8", "backslashreplace") if isinstance(remote, bytes) else remote).rstrip("\0")
    pieces: List[str] = []
    room, lines = c.SHOWN_CHARACTERS, c.SHOWN_LINES
    for piece in _safe_pieces(text):
        room -= len(piece)
        lines -= piece == "\n"
        if (room < 0 or lines < 1) and not is_whole:
            pieces.append(_CUT)
            break
        pieces.append(piece)
    return "".join(pieces).replace("\n", _INDENT)


def printable_name(remote: Union[bytes, str]) -> str:
    """Return a remote name for use inside a line: letters, digits and `-_.` pass, each other character becomes `?`.

    At most NAME_CHARACTERS of it; empty if the name is. It never looks like an address.
    """
    text = (remote.decode("utf-8", "replace") if isinstance(remote, bytes) else remote).rstrip("\0")
    name = "".join(char if _is_name_character(char) else "?" for char in text[: c.NAME_CHARACTERS])
    return name.replace("-", "?") if parse_unicast(name) else name  # only this program writes addresses


def safe_file_name(remote: str) -> str:
    """Return a name for a new file from what another machine calls it: no path, not hidden, nothing that deceives.

    What `printable` would escape, and what shells and other systems take for something else, becomes `_`. At most
    FILE_NAME_BYTES in UTF-8 with its ending kept; `file` where nothing is left.
    """
    last = re.split(r"[/\\]", remote)[-1][-c.FILE_NAME_BYTES :]
    pieces = _safe_pieces(unicodedata.normalize("NFC", last))
    name = "".join("_" if len(piece) > 1 or piece in _UNSAFE_IN_FILES else piece for piece in pieces)
    name = name.lstrip(" .-~").rstrip(" .") or "file"
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode("utf-8")) > c.FILE_NAME_BYTES // 4:
        stem, dot, ending = name, "", ""
    room = c.FILE_NAME_BYTES - len((dot + ending).encode("utf-8"))
    return stem.encode("utf-8")[:room].decode("utf-8", "ignore") + dot + ending


def _safe_pieces(text: str) -> Iterator[str]:
    """Yield what to show for each character of `text`: itself or its escape."""
    after_kept = False
    marks = 0  # since the last base character
    for char in text:
        is_joiner = char in _JOINERS
        is_mark = is_joiner or unicodedata.category(char)[0] == "M"
        marks = marks + 1 if is_mark else 0
        after_kept = (after_kept if is_joiner else _is_visible(char)) and marks <= c.MARKS_PER_BASE
        yield char if after_kept or char == "\n" else _escape(char)


def _is_visible(char: str) -> bool:
    """Return whether `char` shows itself and does nothing else.

    Unassigned characters pass: emoji younger than this Python's tables. Controls, direction marks and tags were all
    assigned before the oldest of those tables (Unicode 9), so that what is dangerous is escaped by every version.
    From U+E0000 on there are only tags, selectors and private characters.
    """
    if char >= "\U000e0000" or _INVISIBLE.match(char):
        return False
    return char.isprintable() or unicodedata.category(char) == "Cn"


def _is_name_character(char: str) -> bool:
    return char in "-_." or (_is_visible(char) and unicodedata.category(char) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd"))


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return "^" + chr(code ^ 0x40)
    if 0x80 <= code < 0xA0:
        return f"\\x{code:02x}"
    return f"<U+{code:04X}>"


def format_size(size: int) -> str:
    """Return a number of bytes as people read it."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"


def format_rate(count: int, seconds: float, left: int) -> str:
    """Return how fast bytes go, and how long those left will take: `, 3.4 MB/s, 0:23 left`; empty in the beginning."""
    if seconds < 1 or count <= 0:
        return ""
    wait = int(left * seconds / count)
    return f", {format_size(int(count / seconds))}/s, {wait // 60}:{wait % 60:02d} left"


# --- The line editor ------------------------------------------------------------------------------------------------


class Act(enum.Enum):
    """What a key asks of the program."""

    SUBMIT = "this line is complete"
    INTERRUPT = "Ctrl-C on an empty line"
    LEAVE = "Ctrl-D on an empty line"
    SUSPEND = "Ctrl-Z"
    LIST = "what Tab may choose from"
    CLEAR = "Ctrl-L"


class Action(NamedTuple):
    """An `Act`, and the line it is about."""

    act: Act
    text: str = ""


_TOKEN = re.compile(
    r"(?P<plain>[^\x00-\x1f\x7f]+)"
    r"|(?P<answer>\x1b[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\))"  # of the terminal: OSC, DCS, APC, PM, SOS
    r"|(?P<mouse>\x1b\[M[^\x1b]{3})"
    r"|(?P<sequence>\x1b(?:\[\[.|\[[0-?]*[ -/]*[@-LN-Z\\-~]|O[ -~]|[^\[O\]P_^X\x00-\x1f]))"
    r"|(?P<broken>\x1b(?:\[\[?[0-?]*[ -/]*|O)?(?=[\x00-\x1f\x7f-\U0010ffff]))"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f])"
)
_BEGUN = re.compile(r"\x1b(?:[\]P_^X]|\[M)")  # what may be long
_PASTE_END = re.compile("\x1b\\[201~|\x03")  # Ctrl-C: the way out when the terminal's own mark got lost


class LineEditor:
    """One row of typing without any I/O: bytes of keys in, actions out, and the bytes that draw the row.

    `width` is the terminal's, in columns; set it anew after a resize. `completions` returns, for the text before
    the cursor, all that Tab can make of it.
    """

    def __init__(self, width: int, *, encoding: str = "utf-8") -> None:
        self.width = width
        self.prompt = "> "
        self.text = ""
        self.cursor = 0  # index into text
        self.column = 0  # of the cursor, as painted
        self._left = 0  # index of the first character shown
        self.completions: Callable[[str], Iterable[str]] = lambda _: ()
        self.encoding = encoding
        self._newline = "\u21b5" if can_encode("\u21b5", encoding) else "|"
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._keys = ""  # decoded, not yet understood
        self._pasting = False
        self._pasted: List[str] = []  # pieces of a paste under way
        self._killed = ""
        self._history: List[str] = []
        self._recalled = 0  # index into the history; its length = the line being written
        self._draft = ""
        self._actions = self._make_actions()
        self._found: List[str] = []  # what Tab may choose from
        self._chosen = -1

    # -- keys in

    def feed(self, data: bytes) -> List[Action]:
        """Take the bytes that the terminal sent, any bytes, however cut; return what they ask of the program."""
        self._keys += self._decoder.decode(data)
        actions: List[Action] = []
        while self._keys and (self._feed_paste() if self._pasting else self._feed_token(actions)):
            pass
        return actions

    @property
    def patience(self) -> Optional[float]:
        """How many seconds to wait for more input before `give_up`; None: for ever."""
        if self._keys == "\x1b" and not self._pasting:
            return c.ESCAPE_SECONDS
        return c.PASTE_SECONDS if self._keys or self._pasting else None

    def give_up(self) -> None:
        """Nothing more came: a lone Esc is none of a sequence, and the end of a paste got lost."""
        pasted, self._keys = "".join([*self._pasted, self._keys]) if self._pasting else "", ""
        self._pasting, self._pasted = False, []
        self._insert(pasted)

    def _feed_token(self, actions: List[Action]) -> bool:
        """Act on the next key or run of characters; return False when it is not complete yet."""
        token = _TOKEN.match(self._keys)
        if token is None:
            if len(self._keys) <= (c.ANSWER_MAX if _BEGUN.match(self._keys) else c.SEQUENCE_MAX):
                return False
            self._keys = self._keys[1:]  # no sequence: forget its escape character
            return True
        self._keys = self._keys[token.end() :]
        if token.group() != "\t":
            self._found = []
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
        text = "".join(char for char in text if char in "\n\u200c\u200d" or is_typable(char))
        text = text[: c.CHAT_LINE_BYTES - len(self.text)]  # a text of that length is refused as a whole when submitted
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
            self._history = [*self._history, text][-c.HISTORY_MAX :]
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

    def _complete(self) -> Optional[Action]:
        """Complete as far as all candidates agree; where they do not, list them, and with the next Tab try each."""
        before = self.text[: self.cursor]
        if self._found:
            self._chosen = (self._chosen + 1) % len(self._found)
            self._replace(0, self.cursor, self._found[self._chosen])
            return None
        found = sorted({word for word in self.completions(before) if word.lower().startswith(before.lower())})
        if not found:
            return None
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(found[0].lower(), found[-1].lower()))
        common = found[0][: sum(1 for _ in alike)] if len(found) > 1 else found[0]
        if len(found) == 1 or len(common) > len(before):
            self._replace(0, self.cursor, common + " " * (len(found) == 1 and common[-1] not in "/ "))
            return None
        self._found, self._chosen = found, -1
        start = before.rfind(" ") + 1
        return Action(Act.LIST, "  ".join(word[start:].rstrip() for word in found))

    def _move(self, index: int) -> None:
        self.cursor = index

    def _before(self) -> int:
        """Return where the character before the cursor starts, with all that belongs to it."""
        start = index = max(self.cursor - c.CLUSTER_MAX, 0)
        while index < self.cursor:
            start, index = index, cluster_end(self.text, index)
        return start

    def _after(self) -> int:
        """Return where the character at the cursor ends, with all that belongs to it."""
        return cluster_end(self.text, self.cursor)

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
            ("\t", self._complete),
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
        prompt, half = self.prompt, self.width // 2
        if columns(prompt) >= half:
            prompt = prompt[: max(fit(prompt, half - 3), 1)] + ".> "
            prompt = prompt if columns(prompt) <= half else ""
        room = max(self.width - 1 - columns(prompt), 1)
        marks = room > 4 and fit(self.text, room - 1) < len(self.text)  # `<` and `>` where a part is hidden
        room -= 2 * marks
        self._scroll(room)
        stop = self._left + fit(self.text[self._left :], room)
        before, after = (
            text.replace("\n", self._newline)
            for text in (self.text[self._left : self.cursor], self.text[self.cursor : stop])
        )
        start = prompt + "<" * (marks and self._left > 0) + before
        self.column = columns(start)
        after += ">" * (marks and stop < len(self.text))
        row = "\x1b[?7l\r" + start + after + "\x1b[K" + ("\r" + start if after else "") + "\x1b[?7h"
        return row.encode(self.encoding, "replace")

    def _scroll(self, room: int) -> None:
        """Move the first character shown so that the cursor lies within `room` columns, and none are wasted."""
        widest = self._reach_back(len(self.text), room - 1)
        self._left = max(self._reach_back(self.cursor, room - 1), min(self._left, self.cursor, widest))
        while self._left < self.cursor and not columns(self.text[self._left]):
            self._left += 1  # a mark without its base

    def _reach_back(self, stop: int, room: int) -> int:
        """Return the index from which on the text up to `stop` fits into `room` columns."""
        while stop and columns(self.text[stop - 1]) <= room:
            stop -= 1
            room -= columns(self.text[stop])
        return stop


def cluster_end(text: str, index: int) -> int:
    """Return where what is one character to a reader ends: with marks, joined emoji, skin tone, half of a flag."""
    if index >= len(text):
        return len(text)
    is_flag = _REGIONAL.match(text, index)
    index += 2 if is_flag else 1
    while index < len(text):
        if text[index - 1] != "\u200d" and columns(text[index]) and not "\U0001f3fb" <= text[index] <= "\U0001f3ff":
            break
        index += 1
    return index


_REGIONAL = re.compile("[\U0001f1e6-\U0001f1ff]{2}")


def is_typable(char: str) -> bool:
    """Return whether a typed character is text; what is not assigned yet may be an emoji."""
    return unicodedata.category(char)[0] != "C" or (unicodedata.category(char) == "Cn" and char < "\U000e0000")


# --- What paints ----------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Text and how it looks: what stands between ESC [ and m, empty for plain."""

    text: str
    look: str = ""


class OwnLine(NamedTuple):
    """A line of one's own: how many rows were printed before it, what it is made of, and the sign to set in it."""

    row: int
    clock: Piece
    name: Piece
    text: str
    room: int  # columns for the sign
    sign: str = ""
    is_settled: bool = False


DIM, BOLD, RED = "2", "1", "31"
NICK_LOOKS = ("32", "35", "36", "33", "34;1", "32;1", "35;1", "36;1")  # can be read on dark and on light


def nick_look(name: str) -> str:
    """Return the look of a name: always the same for the same one."""
    return NICK_LOOKS[zlib.crc32(name.encode("utf-8", "replace")) % len(NICK_LOOKS)]


class Screen:
    """What a terminal shows around the row being typed, without I/O: each `paint` is one write.

    Lines go above the row, which is drawn again below them: a head (clock, sign, name), and text that is broken at
    blanks and indented under itself. A line of one's own has the first of `signs` (sent, delivered, lost), to be
    replaced later. The terminal breaks no row itself, so that rows are counted right also where it has another opinion
    of a character's width. `height` is the terminal's, in rows.
    """

    def __init__(
        self, editor: LineEditor, *, height: int, signs: str, has_color: bool = True, reflows: bool = True
    ) -> None:
        """`reflows`: a terminal that becomes narrower breaks the row being typed into several, as most do."""
        self.editor = editor
        self._reflows = reflows
        self._clearing = ""  # to be printed first
        self.height = height
        self._has_color = has_color
        self._signs = signs
        self._text = ""  # to be printed with the next paint
        self._rows = 0  # printed so far, those included
        self._bell = ""
        self._under_way: Dict[int, OwnLine] = {}
        self._changed: Dict[int, OwnLine] = {}
        self._row = b""  # as painted last

    def show(self, *pieces: Piece) -> None:
        """Print a line above the row; the last piece is its text."""
        *head, body = pieces
        width = max(self.editor.width - 1, 1)
        used = sum(columns(piece.text) for piece in head)
        indent = used if 2 * used <= width else min(4, width // 2)
        first = width - used if width - used >= width // 4 else width - indent
        lines = [
            row
            for number, part in enumerate(body.text.split("\n"))
            for row in wrap(part, width - indent, width - indent if number else first)
        ]
        lead = "".join(map(self._paint_piece, head))
        if first != width - used:  # no room for text beside it
            lines[:0] = [""]
        for number, line in enumerate(lines):
            start = " " * indent if number else lead
            self._text += (start + self._paint_piece(body._replace(text=line))).rstrip(" ") + "\n"
        self._rows += len(lines)

    def _paint_piece(self, piece: Piece) -> str:
        return f"\x1b[{piece.look}m{piece.text}\x1b[m" if self._has_color and piece.look and piece.text else piece.text

    def ring(self) -> None:
        """Ring the terminal's bell with the next paint."""
        self._bell = "\a"

    def show_own(self, ident: int, text: str, *, name: str = "", clock: str = "", room: int = 1) -> None:
        """Print a line that is under way, with room for signs of so many columns."""
        line = OwnLine(self._rows, Piece(clock, DIM), Piece(name, BOLD), text, room)
        self._under_way[ident] = line
        self._show_own(line, Piece(self._signs[0].ljust(room) + " ", DIM))

    def _show_own(self, line: OwnLine, sign: Piece) -> None:
        self.show(line.clock, sign, line.name, Piece(line.text))

    def progress(self, ident: int, sign: str) -> None:
        """Set the sign of a line that is still under way."""
        self._changed[ident] = self._under_way[ident]._replace(sign=sign)

    def settle(self, ident: int, *, delivered: bool) -> None:
        """Set the sign of a line that is no longer under way."""
        line = self._under_way.pop(ident)
        self._changed[ident] = line._replace(sign=self._signs[1 if delivered else 2], is_settled=True)

    def resize(self, width: int, height: int) -> None:
        """Nothing is where it was: the terminal was resized, cleared or used by somebody else."""
        up = self.editor.column // width if self._reflows else 0  # to the first of the pieces of the row
        self._clearing = f"\x1b[{up}A" * (up > 0) + "\r\x1b[J"
        self.editor.width, self.height = width, height
        self._rows += height
        self._row = b""

    def paint(self) -> bytes:
        """Return what brings the terminal up to date. A line that has left the screen is shown once more."""
        changes, text, bottom = "", self._text, self._rows
        for line in sorted(self._changed.values()):
            up, across = bottom - line.row, columns(line.clock.text)
            if up < self.height:
                move = f"\x1b[{across}C" if across else ""
                changes += f"\x1b[{up}A\r{move}{line.sign.ljust(line.room)}\r\x1b[{up}B"
            elif line.is_settled:
                self._show_own(line, Piece(line.sign + " "))
        again = self._text[len(text) :]
        text, clearing = self._bell + text + changes + again, self._clearing
        row, row_before = self.editor.paint(), self._row
        self._clearing, self._bell, self._text, self._changed, self._row = "", "", "", {}, row
        if not text and row == row_before:
            return b""
        above = f"\r\x1b[K\x1b[?7l{text}\x1b[?7h" if text else ""
        return (clearing + above).encode(self.editor.encoding, "replace") + row
