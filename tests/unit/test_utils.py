"""utils.py: addresses, wrapping numbers, range set, forgetting memory, and remote text on a terminal."""

import tracemalloc
import unicodedata
from typing import Any, Dict, List, Set, Tuple, Union
from unittest import mock

import pytest
from hypothesis import example, given, strategies as st

import constants
from utils import (
    ByteQueue,
    ByteWindow,
    Credit,
    Range,
    RangeSet,
    SeenSet,
    TokenBucket,
    decode_json,
    encode_json,
    format_address,
    format_size,
    format_table,
    is_name,
    is_unicast,
    label_names,
    parse_address,
    parse_names,
    parse_unicast,
    printable,
    printable_name,
    safe_file_name,
    unwrap,
)

# --- Addresses ------------------------------------------------------------------------------------------------------


def test_format_address() -> None:
    assert format_address(b"\x6a\x00\x0f\xf0\xab\x01") == "6a:00:0f:f0:ab:01"


@pytest.mark.parametrize(
    "text", ["6a:00:00:00:0b:01", "6A:00:00:00:0B:01", "6a-00-00-00-0b-01", "6a:0:0:0:b:1", "6A-0-00:0-b-1"]
)
def test_parse_address(text: str) -> None:
    assert parse_address(text) == b"\x6a\x00\x00\x00\x0b\x01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6a",
        "6a0000000b01",
        "6a:00:00:00:0b",
        "6a:00:00:00:0b:01:02",
        "6a:00:00:00:0b:",
        ":6a:00:00:00:0b:01",
        "6a:00:00:00:0b:001",
        "6a:00:00:00:0b:0g",
        "6a:00:00:00:0b:+1",
        "6a:00:00:00:0b: 1",
        "6a:00:00:00:0b:1\n",
        "6a:00:00:00:0b:\u0661",  # a digit to int(), not to us
        "10.0.0.1",
    ],
)
def test_parse_address_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address: six hex pairs such as 6a:00:00:00:00:01"):
        parse_address(text)


def test_names_in_bat_hosts_format() -> None:
    text = """
    # comment
    02:00:00:00:00:01 ann
    2-0-0-0-0-2\tb.o-b_2 # with a comment\r
    02:00:00:00:00:03 Jürgen"""
    names = {b"\2\0\0\0\0\1": "ann", b"\2\0\0\0\0\2": "b.o-b_2", b"\2\0\0\0\0\3": "Jürgen"}
    assert parse_names(text) == (names, [])
    assert parse_names("") == ({}, [])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("ann 02:00:00:00:00:01", "'ann' is not an address"),
        ("02:00:00:00:00:01", "'' is not a name: one word"),
        ("02:00:00:00:00:01 ann lee", "'ann lee' is not a name"),
        ("02:00:00:00:00:01 a\x1b[2J", r"'a\x1b[2J' is not a name"),
        ("02:00:00:00:00:01 " + "a" * 21, "at most 20"),
        ("ff:ff:ff:ff:ff:ff all", "not the address of one node"),
        ("02:00:00:00:00:09 zoe", "02:00:00:00:00:09 or zoe has been given already"),
        ("02:00:00:00:00:01 eve", "02:00:00:00:00:01 or eve has been given already"),
    ],
)
def test_a_bad_line_of_names_is_left_out_and_told(line: str, fault: str) -> None:
    names, ((number, told),) = parse_names(f"02:00:00:00:00:09 eve\n\n{line}\n02:00:00:00:00:08 dad\n")
    assert names == {b"\2\0\0\0\0\x09": "eve", b"\2\0\0\0\0\x08": "dad"}
    assert number == 3
    assert fault in told


@given(st.text())
def test_any_text_is_read_as_names(text: str) -> None:
    names, faults = parse_names(text)
    assert all(is_unicast(address) and is_name(name) for address, name in names.items())
    assert len(set(names.values())) == len(names) <= len(text.split("\n"))
    assert all("\n" not in fault and fault.isprintable() for _, fault in faults)


@pytest.mark.parametrize(
    ("said", "own", "shown"),
    [
        ("ann", {}, "ann"),
        ("", {}, ""),
        ("Jürgen", {}, "Jürgen~00:01"),
        ("an n", {}, "an?n~00:01"),
        ("a" * 30, {}, "a" * 20 + "~00:01"),
        ("bob", {}, "bob~00:01"),  # number 2 says so too
        ("ann", {3: "ann"}, "ann~00:01"),  # the user gave that name to another
        ("eve", {1: "Jürgen"}, "Jürgen"),
        ("", {1: "ann"}, "ann"),
    ],
)
def test_how_a_node_is_shown(said: str, own: Dict[int, str], shown: str) -> None:
    def address(number: int) -> bytes:
        return bytes((2, 0, 0, 0, 0, number))

    names = {address(number): name for number, name in own.items()}
    assert label_names({address(1): said, address(2): "bob"}, names)[address(1)] == shown


def test_parse_address_names_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"^'al\\x1bice' is not an address"):
        parse_address("al\x1bice")


@given(st.binary(min_size=6, max_size=6))
def test_address_round_trip(address: bytes) -> None:
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize(
    ("address", "unicast"),
    [
        ("00:00:00:00:00:00", False),
        ("ff:ff:ff:ff:ff:ff", False),
        ("01:00:00:00:00:00", False),
        ("33:33:00:00:00:01", False),
        ("02:00:00:00:00:00", True),
        ("6a:00:00:00:00:01", True),
        ("00:00:00:00:00:01", True),
        ("fe:ff:ff:ff:ff:ff", True),
    ],
)
def test_is_unicast(address: str, unicast: bool) -> None:
    assert is_unicast(parse_address(address)) is unicast


@pytest.mark.parametrize("text", ["", "ann", "01:00:00:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"])
def test_text_that_names_no_one_station(text: str) -> None:
    assert parse_unicast(text) == b""
    assert parse_unicast("6a:0:0:0:b:1") == b"\x6a\0\0\0\x0b\1"


# --- Numbers that wrap ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "near", "number"),
    [
        (0, 0, 0),
        (5, 3, 5),
        (3, 5, 3),
        (0, 0xFFFFFFFF, 1 << 32),
        (0xFFFFFFFF, 0, -1),
        (0xFFFFFFF0, 0x100000010, 0xFFFFFFF0),
        (0x10, 0x2FFFFFFF0, 0x300000010),
        (0x7FFFFFFF, 0, 0x7FFFFFFF),
        (0x80000000, 0, -0x80000000),  # as far up as down: the older one
        (0x80000001, 0, -0x7FFFFFFF),
    ],
)
def test_unwrap(wire: int, near: int, number: int) -> None:
    assert unwrap(wire, near) == number


@given(st.integers(0, 0xFFFFFFFF), st.integers(-(1 << 40), 1 << 70))
def test_unwrap_is_congruent_and_near(wire: int, near: int) -> None:
    number = unwrap(wire, near)
    assert number % (1 << 32) == wire
    assert -(1 << 31) <= number - near < 1 << 31


# --- RangeSet -------------------------------------------------------------------------------------------------------


def ranges_of(numbers: Set[int]) -> List[Range]:
    """The model: ascending ranges of a plain set, found by walking it."""
    ranges: List[Range] = []
    for number in sorted(numbers):
        if ranges and ranges[-1].stop == number:
            ranges[-1] = Range(ranges[-1].start, number + 1)
        else:
            ranges.append(Range(number, number + 1))
    return ranges


def test_range_set_merges() -> None:
    ranges = RangeSet()
    assert list(ranges) == []
    assert (len(ranges), ranges.total(), 0 in ranges, ranges.range_at(0)) == (0, 0, False, None)
    ranges.add(10, 20)
    ranges.add(30, 40)
    ranges.add(25, 25)  # empty
    ranges.add(26, 24)  # ends before it begins
    assert list(ranges) == [Range(10, 20), Range(30, 40)]
    assert (len(ranges), ranges.total()) == (2, 20)
    assert [ranges.range_at(n) for n in (9, 10, 19, 20, 40)] == [None, Range(10, 20), Range(10, 20), None, None]
    assert list(ranges.gaps(0, 50)) == [Range(0, 10), Range(20, 30), Range(40, 50)]
    assert list(ranges.gaps(12, 35)) == [Range(20, 30)]
    assert list(ranges.gaps(20, 30)) == [Range(20, 30)]
    assert list(ranges.gaps(10, 20)) == list(ranges.gaps(25, 24)) == []
    filled = RangeSet()
    filled.add(2, 3)
    for gap in filled.gaps(0, 5):
        filled.add(*gap)
    assert list(filled) == [Range(0, 5)]
    ranges.add(20, 30)  # touches both
    assert list(ranges) == [Range(10, 40)]
    ranges.discard_below(10)
    assert list(ranges) == [Range(10, 40)]
    ranges.discard_below(39)
    assert list(ranges) == [Range(39, 40)]
    ranges.discard_below(40)
    assert list(ranges) == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(-5, 60), st.integers(-5, 60)),
            st.tuples(st.just("discard"), st.integers(-5, 60), st.just(0)),
        ),
        max_size=40,
    )
)
def test_range_set_is_a_set(steps: List[Tuple[str, int, int]]) -> None:
    ranges, model = RangeSet(), set()  # type: RangeSet, Set[int]
    for step, start, stop in steps:
        if step == "add":
            ranges.add(start, stop)
            model.update(range(start, stop))
        else:
            ranges.discard_below(start)
            model = {number for number in model if number >= start}
        expected = ranges_of(model)
        assert list(ranges) == expected
        assert (len(ranges), ranges.total()) == (len(expected), len(model))
        for number in range(-6, 62):
            assert (number in ranges) == (number in model)
            assert ranges.range_at(number) == next((r for r in expected if r.start <= number < r.stop), None)
        assert list(ranges.gaps(start, stop)) == ranges_of(set(range(start, stop)) - model)
        assert list(ranges.gaps(-9, 70)) == ranges_of(set(range(-9, 70)) - model)


# --- Memory that forgets --------------------------------------------------------------------------------------------


def test_seen_set_forgets_between_one_and_two_periods() -> None:
    seen = SeenSet(100, 10.0)
    assert seen.add("a", now=1000.0)
    assert not seen.add("a", now=1000.0)
    assert seen.add("b", now=1009.9)
    assert not seen.add("b", now=1010.0)  # swapped: known from the older generation
    assert seen.add("c", now=1019.9)
    assert seen.add("a", now=1020.0)
    assert not seen.add("b", now=1020.0)


def test_seen_set_remembers_what_keeps_coming() -> None:
    seen = SeenSet(100, 10.0)
    assert seen.add("a", now=0.0)
    assert not any(seen.add("a", now=9.0 * step) for step in range(1, 20))


def test_seen_set_forgets_all_after_silence() -> None:
    seen = SeenSet(100, 10.0)
    assert seen.add("a", now=0.0)
    assert seen.add("a", now=20.0)


def test_seen_set_forgets_the_oldest_when_full() -> None:
    seen = SeenSet(3, 10.0)
    assert all(seen.add(key, now=1.0) for key in range(6))
    assert not any(seen.add(key, now=1.0) for key in (3, 4, 5))
    assert seen.add(0, now=1.0)


def test_seen_set_is_bounded() -> None:
    """A million in one second."""
    seen = SeenSet(50, 10.0)
    for key in range(1000000):
        assert seen.add(key, now=5.0 + key * 1e-6)
        assert len(seen._young) + len(seen._old) <= 100


def test_token_bucket() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(now=100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(now=100.05)  # half a token
    assert bucket.take(now=100.125)
    assert not bucket.take(now=100.125)
    assert not bucket.take(now=99.0)  # a clock that goes back gives nothing ...
    assert not bucket.take(now=100.125)  # ... not even on its way forward again
    assert [bucket.take(now=200.0) for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_token_bucket_keeps_its_rate(gaps: List[float]) -> None:
    bucket, now, taken = TokenBucket(rate=20, burst=5), 50.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now=now)
        assert taken <= 5 + (now - 50.0) * 20 + 1e-6


# --- Remote text ----------------------------------------------------------------------------------------------------

# What must be escaped on every version of Python, whatever its Unicode tables say.
INVISIBLE = [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0]
INVISIBLE += list(range(0x180B, 0x1810)) + list(range(0xFE00, 0xFE0E)) + list(range(0xE0100, 0xE01F0))
BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
OTHER_CONTROLS = [0x00AD, 0x200B, *range(0x2060, 0x2065), *range(0x206A, 0x2070), 0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB]
SEPARATORS = [0x2028, 0x2029]
BEYOND = [0xE0001, *range(0xE0020, 0xE0080), 0xE0000, 0xE0FFF, 0xF0000, 0xFFFFF, 0x100000, 0x10FFFF]
JOINERS = [0x200C, 0x200D, 0xFE0E, 0xFE0F]
HIDDEN = frozenset(INVISIBLE + JOINERS)
NOT_SHOWN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"}


def expected_alone(code: int) -> str:
    """The rule for one character at the start of a text, in numbers and categories."""
    if code == 0:
        return ""  # trailing: padding
    if code == 0x0A:
        return "\n    "
    if code < 0x20 or code == 0x7F:
        return "^" + "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"[code] if code < 0x20 else "^?"
    if 0x80 <= code <= 0x9F:
        return "\\x" + format(code, "02x")
    hidden = code >= 0xE0000 or code in HIDDEN
    if code == 0x20 or not (hidden or unicodedata.category(chr(code)) in NOT_SHOWN):
        return chr(code)
    return "<U+" + format(code, "04X") + ">"


def test_every_code_point() -> None:
    """At the beginning of a line and after a letter; 45 lines at a time."""
    for first in range(0, 0x110000, 45):
        codes = range(first, min(first + 45, 0x110000))
        alone = ["^@" if code == 0 else expected_alone(code) for code in codes]  # only trailing zeros are padding
        after = [chr(code) if code in JOINERS else shown for code, shown in zip(codes, alone)]
        text = "".join([f"\n{chr(code)}a{chr(code)}" for code in codes])
        assert printable(text + "a") == "".join([f"\n    {x}a{y}" for x, y in zip(alone, after)]) + "a"


@pytest.mark.parametrize("code", INVISIBLE + BIDI + OTHER_CONTROLS + SEPARATORS + BEYOND)
def test_dangerous_on_every_version(code: int) -> None:
    assert printable("a" + chr(code)) == f"a<U+{code:04X}>"


def test_emoji_newer_than_python_passes() -> None:
    unassigned = [code for code in range(0x1F000, 0x20000) if unicodedata.category(chr(code)) == "Cn"]
    assert unassigned
    assert all(printable(chr(code)) == chr(code) for code in unassigned)


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        (b"", ""),
        (b"hello", "hello"),
        (b"hello\0\0\0\0", "hello"),
        (b"\0a\0b\0", "^@a^@b"),
        ("text\0", "text"),
        ("na\u00efve \u65e5\u672c\u8a9e \U0001f600", "na\u00efve \u65e5\u672c\u8a9e \U0001f600"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"caf\xe9 \xc3", "caf\\xe9 \\xc3"),
        (b"\xc0\x80", "\\xc0\\x80"),  # overlong NUL
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),  # an encoded surrogate
        (b"\xc2\x9b31m", "\\x9b31m"),  # 8-bit CSI
        (b"\x9b31m", "\\x9b31m"),
        (b"\x1b]0;title\x07", "^[]0;title^G"),
        (b"\x1b]52;c;cm0gLXJm\x1b\\", "^[]52;c;cm0gLXJm^[\\"),
        (b"\x1b[?1049h", "^[[?1049h"),
        (b"harmless\rAlice: forged", "harmless^MAlice: forged"),
        (b"a\tb\x08\x7f", "a^Ib^H^?"),
        (b"one\ntwo\r\n\nfour", "one\n    two^M\n    \n    four"),
        (b"invoice\xe2\x80\xaefdp.exe", "invoice<U+202E>fdp.exe"),
        ("\ud800\udc9b", "<U+D800><U+DC9B>"),
        ("a\u00a0b\u3000c", "a<U+00A0>b<U+3000>c"),
        ("\ue000", "<U+E000>"),
    ],
)
def test_printable(remote: Union[bytes, str], shown: str) -> None:
    assert printable(remote) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # Joiners and emoji selectors: only after what is shown.
        ("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525"),  # burning heart
        ("\U0001f469\U0001f3fd\u200d\U0001f680", "\U0001f469\U0001f3fd\u200d\U0001f680"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),  # Devanagari, after a mark
        ("\u200da", "<U+200D>a"),
        ("a\n\u200db", "a\n    <U+200D>b"),
        ("\x1b\u200d", "^[<U+200D>"),
        ("\u202e\ufe0f\u200d", "<U+202E><U+FE0F><U+200D>"),
        ("a\u2800\u200d", "a<U+2800><U+200D>"),
        # At most four marks on a base, joiners counted: invisible text hides nothing.
        ("e\u0301", "e\u0301"),
        ("a" + "\u0300" * 4 + "b", "a" + "\u0300" * 4 + "b"),
        ("a" + "\u0300" * 6 + "b", "a" + "\u0300" * 4 + "<U+0300><U+0300>b"),
        ("a" + "\u20dd" * 5, "a" + "\u20dd" * 4 + "<U+20DD>"),  # enclosing
        ("a" + "\u0903" * 5, "a" + "\u0903" * 4 + "<U+0903>"),  # spacing
        ("a" + "\u200d" * 6, "a" + "\u200d" * 4 + "<U+200D><U+200D>"),
        ("a\u0300\u0301\u0302\u200d\u0303b", "a\u0300\u0301\u0302\u200d<U+0303>b"),
        ("a" + "\u0300" * 4 + "b" + "\u0300" * 4, "a" + "\u0300" * 4 + "b" + "\u0300" * 4),
        ("\u0300" * 5, "\u0300" * 4 + "<U+0300>"),
        ("\n" + "\u0300" * 5, "\n    " + "\u0300" * 4 + "<U+0300>"),
    ],
)
def test_printable_in_context(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_keeps_what_just_fits() -> None:
    assert printable("x" * 8192) == "x" * 8192
    assert printable("x" * 8193) == "x" * 8192 + " [...]"
    assert printable("x" * 8191 + "\x1b") == "x" * 8191 + " [...]"  # no half escapes
    assert printable(b"\x1b" * 100000) == "^[" * 4096 + " [...]"
    assert printable(b"x" * 8192 + bytes(1000)) == "x" * 8192


def test_printable_keeps_fifty_lines() -> None:
    assert printable("\n".join("x" * 50)) == "\n    ".join("x" * 50)
    assert printable("\n".join("x" * 51)) == "\n    ".join("x" * 50) + " [...]"
    assert printable("\n" * 100000) == "\n    " * 49 + " [...]"


ANY_CHARACTER = st.one_of(
    st.characters(), st.sampled_from("\0\n\r\x1b\x9b\u200d\ufe0f\u0300\u202e\u2800\udc80\U000e0041"), st.just("a")
)


@given(st.one_of(st.binary(), st.text(ANY_CHARACTER)))
@example(b"\xf0\x9f\x98")
def test_printable_is_harmless(remote: Union[bytes, str]) -> None:
    shown = printable(remote)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert shown.replace("\n    ", "").count("\n") == 0
    for char in shown.replace("\n", ""):
        code = ord(char)
        assert code in JOINERS or expected_alone(code) == char


@given(st.text(ANY_CHARACTER))
def test_printable_of_bytes_and_of_text_agree(text: str) -> None:
    text = "".join(char for char in text if not "\ud800" <= char <= "\udfff")
    assert printable(text.encode("utf-8")) == printable(text)


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("", ""),
        ("alice", "alice"),
        (b"alice\0\0", "alice"),
        ("Alice-2_b.c", "Alice-2_b.c"),
        ("Zo\u00eb\u65e5\u672c\u0661", "Zo\u00eb\u65e5\u672c\u0661"),
        ("a b\nc\td", "a?b?c?d"),
        ("\x1b[31m", "??31m"),
        (b"\xffbob", "?bob"),
        ("<bob>: @&/\\'\"$", "?bob??????????"),
        ("\u202ebob", "?bob"),
        ("a\u0301\u200d", "a??"),
        ("\u3164\u115f\u1160\uffa0", "????"),  # letters to Unicode, blank to the eye
        ("\u00b2\u2167\u00bd", "???"),  # numeric, but no digits
        ("\U0001f600\ud800", "??"),
        ("x" * 21, "x" * 20),
        ("\n" * 21, "?" * 20),
    ],
)
def test_printable_name(remote: Union[bytes, str], shown: str) -> None:
    assert printable_name(remote) == shown


@pytest.mark.parametrize("plane", range(17))
def test_every_code_point_in_a_name(plane: int) -> None:
    for first in range(plane << 16, (plane + 1) << 16, 8):
        shown = ""
        for code in range(first, first + 8):
            category = unicodedata.category(chr(code))
            passes = chr(code) in "-_." or category[0] == "L" or category == "Nd"
            shown += "a" + (chr(code) if passes and code not in INVISIBLE and code < 0xE0000 else "?")
        assert printable_name("".join("a" + chr(code) for code in range(first, first + 8))) == shown


@pytest.mark.parametrize(
    ("remote", "name"),
    [
        ("photo.jpg", "photo.jpg"), ("../a\\b/.hidden", "hidden"), ("", "file"), ("a\x1b*b", "a__b"),
        ("noending", "noending"),
        ("x" * 300 + ".txt", "x" * (constants.FILE_NAME_BYTES - 4) + ".txt"),
        ("a." + "y" * 300, "y" * constants.FILE_NAME_BYTES),
        ("a." + "y" * 100, "a." + "y" * 100),
    ],
)  # fmt: skip
def test_safe_file_name(remote: str, name: str) -> None:
    assert safe_file_name(remote) == name


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2560000, "2.6 MB"), (3 * 10**12, "3000.0 GB")],
)
def test_format_size(size: int, shown: str) -> None:
    assert format_size(size) == shown


# --- Lines and columns ----------------------------------------------------------------------------------------------


def test_json_line_round_trip() -> None:
    fields = {"type": "say", "text": "é\n", "id": 7}
    assert encode_json(fields) == '{"type": "say", "text": "é\\n", "id": 7}\n'.encode()
    assert decode_json(encode_json(fields)) == (fields, "")


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"[]", ""), (b"null", ""), (b"", "not JSON"), (b'{"a": 1', "not JSON"), (b"[" * 60000, "nested too deeply")],
)
def test_line_without_a_json_object(line: bytes, reason: str) -> None:
    assert decode_json(line) == ({}, reason)


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        ([("name", "hops"), ("日本", "1"), ("e\u0301a", "")], ["name  hops", "日本  1", "e\u0301a"]),
        ([("", "x"), ("ab", "y")], ["    x", "ab  y"]),
    ],
)
def test_format_table_aligns_by_columns_of_the_terminal(rows: List[Tuple[str, ...]], lines: List[str]) -> None:
    assert format_table(rows) == lines


# --- Bytes that wait ------------------------------------------------------------------------------------------------


def test_byte_queue_gives_back_what_it_got_in_order() -> None:
    queue = ByteQueue(3)
    for piece in (b"one", b"two", b"three", b"four", b"five"):
        queue.append(piece)
    assert len(queue) == 19
    assert queue.take(0) == b""
    assert queue.take(4) == b"onet"
    queue.append(b"six")
    assert queue.take(100) == b"wothreefourfivesix"
    assert (len(queue), queue.take(1)) == (0, b"")


@given(st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 30))), st.integers(1, 5))
def test_byte_queue_against_a_plain_string(steps: List[Union[bytes, int]], pieces_max: int) -> None:
    queue, model = ByteQueue(pieces_max), b""
    for step in steps:
        if isinstance(step, bytes):
            queue.append(step)
            model += step
        else:
            assert queue.take(step) == model[:step]
            model = model[step:]
        assert len(queue) == len(model)
    assert queue.take(1000) == model


@given(
    st.lists(st.one_of(st.binary(max_size=20), st.tuples(*[st.integers(0, 60)] * 3))),
    st.sampled_from([0, 8, 1000]),
    st.integers(-5, 5),
)
def test_byte_window_against_a_plain_string(steps: List[Any], piece_bytes: int, origin: int) -> None:
    window, model, begin = ByteWindow(origin), b"", origin
    kept: List[Tuple[bytes, List[Any]]] = []
    with mock.patch.object(constants, "PIECE_BYTES", piece_bytes):
        for step in steps:
            if isinstance(step, bytes):
                window.append(step)
                model += step
            else:
                gone, offset, count = step
                gone = min(gone, len(model))
                window.forget(begin + gone)
                model, begin = model[gone:], begin + gone
                offset = min(offset, len(model))
                wanted = model[offset : offset + count]
                start, stop = begin + offset, begin + offset + len(wanted)
                assert window.read(start, stop) == wanted
                size = gone % 7 + 1
                slices = window.slices(start, stop, size)
                expected = [wanted[i : i + size] for i in range(0, len(wanted), size)]
                assert [bytes(piece) for piece in slices if len(piece)] == expected
                kept.append((wanted, slices))
            assert (len(window), window.start, window.stop) == (len(model), begin, begin + len(model))
    assert window.read(window.start, window.stop) == model
    for wanted, slices in kept:  # what was handed out stays as it was
        assert b"".join(slices) == wanted
    window.clear()
    assert (len(window), window.start) == (0, begin + len(model))


def test_byte_window_holds_tiny_pieces_in_few() -> None:
    window = ByteWindow(1)
    tracemalloc.start()
    try:
        for number in range(200_000):
            window.append(b"x")
            window.forget(number - 99_998)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(window) == 100_000
    assert held < 200_000


def test_byte_window_slices_are_views_but_where_a_piece_ends() -> None:
    window = ByteWindow(5)
    for piece in (b"a" * constants.PIECE_BYTES, b"b" * constants.PIECE_BYTES, b"c"):
        window.append(piece)
    size = constants.PIECE_BYTES // 2 + 1
    whole = window.read(5, window.stop)
    slices = window.slices(5, window.stop, size)
    assert b"".join(slices) == whole
    assert {len(one) for one in slices[:-1]} == {size}
    assert [type(one) for one in slices] == [memoryview, bytes, memoryview, bytes]


def test_byte_window_copies_no_large_piece() -> None:
    window, block = ByteWindow(1), bytes(range(256)) * 256
    window.append(block)
    views = window.slices(5, 5 + 3000, 1000)
    assert [isinstance(view, memoryview) and view.obj is block for view in views] == [True] * 3


# --- Credit ---------------------------------------------------------------------------------------------------------


def test_credit_is_what_was_earned_and_an_allowance_that_comes_back() -> None:
    credit = Credit(100, 10, least=-50, most=1000)
    assert credit.afford(100, now=5.0)
    assert not credit.afford(1, now=5.0)
    assert credit.afford(30, now=8.0)
    assert not credit.afford(1, now=7.0)  # a clock that goes back gives nothing
    credit.earn(250)
    assert credit.afford(250, now=8.0)
    assert not credit.afford(101, now=1000.0)  # it grows to the allowance and no further
    assert credit.afford(100, now=1000.0)
    credit.earn(5000)
    assert credit.afford(1000, now=1000.0)
    assert not credit.afford(1, now=1000.0)


def test_credit_can_be_overdrawn_by_what_is_owed_in_any_case() -> None:
    credit = Credit(100, 10, least=-50, most=1000)
    credit.owe(10000)
    assert not credit.afford(1, now=0.0)
    assert not credit.afford(1, now=5.0)
    assert credit.afford(50, now=10.0)
