"""The chat's line editor and screen, without I/O: keys in, a painted row out, checked with a terminal emulator."""

import re
import unicodedata
from typing import List, Tuple

import pytest
from hypothesis import given, strategies as st

from utils import BOLD, DIM, Act, Action, LineEditor, LineSplitter, Piece, Screen, columns, nick_look, wrap

pyte = pytest.importorskip("pyte")

LEFT, RIGHT, UP, DOWN, HOME, END, DELETE = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B", b"\x1b[H", b"\x1b[F", b"\x1b[3~"
PASTE, PASTED = b"\x1b[200~", b"\x1b[201~"
ESCAPES = re.compile("\x1b\\[\\??[0-9;]*[A-Za-z]")


def editor_with(text: str, *, width: int = 40) -> LineEditor:
    editor = LineEditor(width)
    editor.feed(text.encode())
    return editor


def submitted(actions: List[Action]) -> List[str]:
    assert {action.act for action in actions} <= {Act.SUBMIT}
    return [action.text for action in actions]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_empty_enter() -> None:
    assert LineEditor(40).feed(b"\r\n") == []


@pytest.mark.parametrize("enter", [b"\r", b"\n"])
def test_typed_enter(enter: bytes) -> None:
    editor = editor_with("grüße")
    assert submitted(editor.feed(enter)) == ["grüße"]
    assert (editor.text, editor.cursor) == ("", 0)


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        (LEFT * 2 + b"X", "one tXwo", 6),
        (LEFT * 99 + b"X", "Xone two", 1),
        (LEFT + RIGHT * 99 + b"X", "one twoX", 8),
        (HOME + b"X", "Xone two", 1),
        (b"\x01X\x05Y", "Xone twoY", 9),
        (b"\x1bOHX\x1bOFY", "Xone twoY", 9),
        (b"\x1b[1~X\x1b[4~Y", "Xone twoY", 9),
        (b"\x7f\x08", "one t", 5),
        (HOME + b"\x7f", "one two", 0),
        (HOME + DELETE, "ne two", 0),
        (DELETE, "one two", 7),
        (HOME + b"\x04", "ne two", 0),
        (LEFT * 3 + b"\x0b", "one ", 4),
        (LEFT * 3 + b"\x15", "two", 0),
        (b"\x17", "one ", 4),
        (b" \x17", "one ", 4),
        (b"\x17\x17\x17", "", 0),
        (b"\x1b\x7f", "one ", 4),
        (b"\x15\x19\x19", "one twoone two", 14),
        (b"\x17\x01\x19", "twoone ", 3),
        (b"\x1bbX", "one Xtwo", 5),
        (b"\x1b[1;5D\x1b[1;5DX", "Xone two", 1),
        (HOME + b"\x1bf\x1bd", "one", 3),
        (b"\x03", "", 0),
        (b"\x1b[5~\x1b[[A\x1bOP\x1b[15~\x1bz", "one two", 7),
        (b"\x1b[\xc3\xa9", "one twoé", 8),
        (b"\x1b\x1b[DX", "one twXo", 7),
    ],
)
def test_typed_key(keys: bytes, text: str, cursor: int) -> None:
    editor = editor_with("one two")
    assert editor.feed(keys) == []
    assert (editor.text, editor.cursor) == (text, cursor)


@pytest.mark.parametrize(
    ("key", "act"), [(b"\x03", Act.INTERRUPT), (b"\x04", Act.LEAVE), (b"\x1a", Act.SUSPEND), (b"\x0c", Act.CLEAR)]
)
def test_empty_control_key(key: bytes, act: Act) -> None:
    assert LineEditor(40).feed(key) == [Action(act)]


def test_typed_character_cut_anywhere() -> None:
    editor = LineEditor(40)
    for byte in "aé漢🎉\u0301".encode() + LEFT + b"X":
        assert editor.feed(bytes([byte])) == []
    assert editor.text == "aé漢X🎉\u0301"


def test_marked_character_backspace() -> None:
    """A base goes with its marks, an emoji with its selector."""
    editor = editor_with("e\u0301\u0323x\u2764\ufe0f")
    editor.feed(b"\x7f")
    assert editor.text == "e\u0301\u0323x"
    editor.feed(LEFT * 2 + b"\x04")
    assert editor.text == "x"


def test_typed_control_characters_of_eight_bits() -> None:
    assert editor_with("a\x9b\x85\u202e\ue000b\u200dc").text == "ab\u200dc"


def test_sequence_that_never_ends_is_typed() -> None:
    """Else everything that follows would be held back."""
    assert editor_with("\x1b[" + "0" * 200).text == "[" + "0" * 200


def test_submitted_history() -> None:
    editor = editor_with("one\rtwo\rtwo\rdraft")
    seen = []
    for key in (UP, UP, UP, DOWN, DOWN, DOWN):
        editor.feed(key)
        seen.append(editor.text)
    assert seen == ["two", "one", "one", "two", "draft", "draft"]
    assert submitted(editor.feed(UP + UP + b"!\r")) == ["one!"]


def test_recalled_interrupt() -> None:
    editor = editor_with("one\rtwo\r")
    editor.feed(UP + UP + b"\x03" + UP)
    assert editor.text == "two"


def test_pasted_lines_enter() -> None:
    editor = editor_with("before ")
    assert editor.feed(PASTE + b"a\rb\r\nc\n\td" + PASTED) == []
    assert editor.text == "before a\nb\nc\n    d"
    assert submitted(editor.feed(b"\r")) == ["before a\nb\nc\n    d"]


@pytest.mark.parametrize("cut", range(1, 21))
def test_paste_cut_anywhere(cut: int) -> None:
    editor = LineEditor(40)
    data = PASTE + b"exit\r\x1b[A" + PASTED + b"!"
    assert editor.feed(data[:cut]) == []
    assert editor.feed(data[cut:]) == []
    assert editor.text == "exit\n[A!"


def test_endless_paste_interrupt() -> None:
    editor = LineEditor(40)
    editor.feed(PASTE + b"lost\r\x03typed")
    assert submitted(editor.feed(b"\r")) == ["typed"]


def test_word_tab() -> None:
    editor = LineEditor(40)
    editor.completions = lambda before: [before[: before.rfind(" ") + 1] + name for name in ("alice", "albert", "bob")]
    editor.feed(b"b\t")
    assert editor.text == "bob "
    editor.feed(b"a\t")
    assert editor.text == "bob al"
    editor.feed(b"i\t!\t")
    assert editor.text == "bob alice !"


def test_huge_paste() -> None:
    """What does not fit a message is cut so that it still does not fit: refused as a whole, and memory is bounded."""
    editor = LineEditor(40)
    editor.feed(PASTE + b"x" * 200000 + PASTED)
    assert len(editor.text) == 65536
    editor.paint()


# --- any bytes -------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [LEFT, RIGHT, UP, DOWN, HOME, END, DELETE, PASTE, PASTED, b"\x1b", b"\x1b[", b"\x1bO", b"\r", b"\t"]
    + [bytes([code]) for code in range(32)]
)
TEXT = st.text(alphabet=st.sampled_from("ab c\u0301\u200d\ufe0f漢\uff57🎉é\u202e\x9b"), max_size=8).map(str.encode)
INPUT = st.lists(st.one_of(KEYS, TEXT, st.binary(max_size=5)), max_size=40).map(b"".join)


@given(INPUT, st.lists(st.integers(1, 7), max_size=60), st.integers(0, 30))
def test_anything_any_bytes(data: bytes, cuts: List[int], width: int) -> None:
    """Nothing raises, the row stays within the width, and how the bytes are cut makes no difference."""
    editor, whole = LineEditor(width), LineEditor(width)
    actions: List[Action] = []
    rest = data
    for cut in [*cuts, len(data)]:
        actions += editor.feed(rest[:cut])
        rest = rest[cut:]
        assert 0 <= editor.cursor <= len(editor.text)
        for part in ESCAPES.sub("", editor.paint().decode()).split("\r"):
            assert columns(part) <= max(width - 1, 1)
    assert actions == whole.feed(data)
    assert (editor.text, editor.cursor) == (whole.text, whole.cursor)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab 漢")), max_size=60))
def test_anything_keys_of_a_simple_model(keys: List[Tuple[int, str]]) -> None:
    editor = LineEditor(20)
    before, after, killed = "", "", ""
    for kind, char in keys:
        if kind == 0:
            before, after, key = before[:-1], before[-1:] + after, LEFT
        elif kind == 1:
            before, after, key = before + after[:1], after[1:], RIGHT
        elif kind == 2:
            before, key = before[:-1], b"\x7f"
        elif kind == 3:
            after, key = after[1:], DELETE
        elif kind == 4:
            before, after, key = "", before + after, b"\x01"
        elif kind == 5 and after:
            killed, after, key = after, "", b"\x0b"
        elif kind == 6 and before:
            killed, before, key = before, "", b"\x15"
        elif kind == 7:
            before, key = before + killed, b"\x19"
        else:
            before, key = before + char, char.encode()
        editor.feed(key)
        assert (editor.text, editor.cursor) == (before + after, len(before))


# --- the row, seen by a terminal -------------------------------------------------------------------------------------


class Emulator:
    """A terminal; the mode of the line discipline that turns newlines into carriage return and newline included."""

    def __init__(self, width: int, height: int) -> None:
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)

    def write(self, data: bytes) -> None:
        self._stream.feed(data.replace(b"\n", b"\r\n"))

    @property
    def rows(self) -> List[str]:
        return [unicodedata.normalize("NFC", row).rstrip() for row in self.screen.display]


def shown(editor: LineEditor) -> Tuple[str, int]:
    """The row as a terminal shows it, and the cursor's column."""
    emulator = Emulator(editor.width, 3)
    emulator.write(editor.paint())
    assert emulator.rows[1:] == ["", ""]
    return emulator.rows[0], emulator.screen.cursor.x


def test_typed_paint() -> None:
    editor = editor_with("hello")
    assert shown(editor) == ("> hello", 7)
    editor.feed(LEFT * 2)
    assert shown(editor) == ("> hello", 5)


def test_wide_and_marked_paint() -> None:
    editor = editor_with("漢字e\u0301x")
    editor.feed(LEFT * 2)
    row, cursor = shown(editor)
    assert row == "> 漢字\u00e9x"
    assert cursor == 6


def test_long_line_cursor_keys() -> None:
    """The row scrolls sideways, only as far as the cursor asks, and marks the side where something is hidden."""
    editor = editor_with("0123456789abcdefghij", width=12)
    assert shown(editor) == ("> <efghij", 9)
    editor.feed(LEFT * 3)
    assert shown(editor) == ("> <efghij", 6)
    editor.feed(LEFT * 4)
    assert shown(editor) == ("> <defghij", 3)
    editor.feed(HOME)
    assert shown(editor) == ("> 0123456>", 2)
    editor.feed(END)
    assert shown(editor) == ("> <efghij", 9)


def test_line_that_just_fits_has_no_marks() -> None:
    editor = editor_with("01234567", width=12)
    assert shown(editor) == ("> 01234567", 10)
    editor.feed(b"8")
    assert shown(editor) == ("> <345678", 9)


def test_long_line_deleted_from_its_end() -> None:
    """What was scrolled out comes back as room for it appears."""
    editor = editor_with("0123456789abcdefghij", width=12)
    editor.paint()
    editor.feed(b"\x7f" * 10)
    assert shown(editor) == ("> <456789", 9)


def test_long_line_resize() -> None:
    editor = editor_with("0123456789abcdefghij", width=12)
    assert shown(editor) == ("> <efghij", 9)
    editor.width = 40
    assert shown(editor) == ("> 0123456789abcdefghij", 22)
    editor.width = 8
    assert shown(editor) == ("> <ij", 5)


def test_tiny_terminal_paint() -> None:
    """Where prompt and text do not both fit, the text is shown."""
    editor = editor_with("abc", width=4)
    editor.paint()
    assert shown(editor) == ("bc", 2)


def test_pasted_lines_paint() -> None:
    assert shown(editor_with((PASTE + b"a\nb" + PASTED).decode())) == ("> a↵b", 5)


def test_ascii_terminal_paint() -> None:
    editor = LineEditor(40, encoding="ascii")
    editor.feed(PASTE + "é\nb".encode() + PASTED)
    assert b"|b" in editor.paint()


def completing(*words: str) -> LineEditor:
    editor = LineEditor(40)
    editor.completions = lambda before: [before[: before.rfind(" ") + 1] + word for word in words]
    return editor


def test_tab_completes_what_all_candidates_share_then_lists_them_then_tries_each() -> None:
    editor = completing("alice", "alina", "bob: ")
    assert editor.feed(b"AL\t") == []
    assert editor.text == "ali"
    assert editor.feed(b"\t") == [Action(Act.LIST, "alice  alina")]
    assert editor.text == "ali"
    for expected in ("alice", "alina", "alice"):
        assert editor.feed(b"\t") == []
        assert editor.text == expected
    editor.feed(b" hi al\t")
    assert editor.text == "alice hi ali"
    assert editor.feed(b"\t") == [Action(Act.LIST, "alice  alina")]
    editor.feed(b"x\t")
    assert editor.text == "alice hi alix"


def test_tab_with_one_candidate_or_none() -> None:
    editor = completing("alice", "bob: ", "folder/")
    for keys, text in ((b"B\t", "bob: "), (b"al\t", "bob: alice "), (b"f\t", "bob: alice folder/"), (b"x\t", None)):
        editor.feed(keys)
        assert editor.text == (text or "bob: alice folder/x")


@pytest.mark.parametrize(
    "answer",
    [b"\x1b]11;rgb:0000/0000/0000\x07", b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\", b"\x1bP>|XTerm(379)\x1b\\",
     b"\x1b_Gi=31;OK\x1b\\", b"\x1b[?64;1;2;4;6;9;15;16;17;18;21;22;28;29c", b"\x1b[M #!", b"\x1b^x\x1b\\"],
)  # fmt: skip
def test_answers_of_the_terminal_are_not_typed(answer: bytes) -> None:
    """However they are cut."""
    for cut in range(len(answer) + 1):
        editor = LineEditor(40)
        editor.feed(b"a" + answer[:cut])
        editor.feed(answer[cut:] + b"b")
        assert editor.text == "ab"


def test_answer_that_never_ends_is_bounded() -> None:
    editor = LineEditor(40)
    for _ in range(100):
        editor.feed(b"\x1b]" + b"x" * 1000)
    assert len(editor._keys) <= 5100


def test_lone_escape_ends_after_a_moment() -> None:
    editor = LineEditor(40)
    editor.feed(b"ab\x1b")
    assert editor.patience == 0.05
    editor.give_up()
    editor.feed(b"b")  # no Alt-B
    assert (editor.text, editor.cursor) == ("abb", 3)
    editor.feed(b"\x1b[20")  # the mark of a paste, over a slow line
    assert editor.patience == 1.0
    editor.feed(b"0~c")
    assert editor.text == "abb"
    assert LineEditor(40).patience is None


def test_paste_whose_end_got_lost_ends_after_a_moment() -> None:
    editor = LineEditor(40)
    editor.feed(PASTE + b"one two")
    assert editor.text == ""
    assert editor.patience == 1.0
    editor.give_up()
    editor.feed(b"!")
    assert editor.text == "one two!"


@pytest.mark.parametrize(
    "cluster",
    ["a", "e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd",
     "\u1112\u1161\u11ab", "\u2764\ufe0f"],
)  # fmt: skip
def test_what_is_one_character_to_a_reader_is_one_step(cluster: str) -> None:
    editor = editor_with(f"x{cluster}{cluster}y")
    editor.feed(LEFT + b"\x7f")
    assert editor.text == f"x{cluster}y"
    editor.feed(LEFT + RIGHT + LEFT)
    assert editor.cursor == 1
    editor.feed(DELETE)
    assert editor.text == "xy"


def test_prompt_that_is_too_long_is_shortened() -> None:
    editor = LineEditor(40)
    editor.prompt = "a-long-file-name.tar.gz 12 %; bob carol dave: link lost> "
    editor.feed(b"text")
    row = shown(editor)[0]
    assert row == "a-long-file-name..> text"


def test_columns_as_a_table_of_the_field_has_them() -> None:
    """But for marks that take a place of their own, of which terminals make various things, and younger symbols."""
    wcwidth = pytest.importorskip("wcwidth")
    other = [
        char
        for char in map(chr, [*range(0x20, 0xD800), *range(0xE000, 0x20000)])
        if unicodedata.category(char) not in ("Mc", "Cn", "Cc", "Cf", "Co") and wcwidth.wcwidth(char) != columns(char)
    ]
    assert len(other) < 250


# --- the screen around the row ---------------------------------------------------------------------------------------


class Terminal(Emulator):
    """An emulator and the screen that is painted on it."""

    def __init__(self, width: int = 30, height: int = 6) -> None:
        super().__init__(width, height)
        self.editor = LineEditor(width)
        self.top = Screen(self.editor, height=height, signs=".+!")

    def paint(self) -> List[str]:
        self.write(self.top.paint())
        return [row for row in self.rows if row]


def test_typing_line_arrives() -> None:
    terminal = Terminal()
    terminal.editor.feed(b"half a li" + LEFT)
    assert terminal.paint() == ["> half a li"]
    terminal.top.show(Piece("bob: hello"))
    terminal.top.show(Piece("bob: again"))
    assert terminal.paint() == ["bob: hello", "bob: again", "> half a li"]
    assert terminal.screen.cursor.x == 10


def test_painted_nothing_new() -> None:
    """No bytes where nothing has changed; the same line twice is something new."""
    terminal = Terminal()
    terminal.top.show(Piece("again"))
    assert terminal.paint() == ["again", ">"]
    assert terminal.top.paint() == b""
    terminal.top.show(Piece("again"))
    assert terminal.paint() == ["again", "again", ">"]


def test_bell_rings_with_the_next_paint_alone() -> None:
    terminal = Terminal()
    terminal.paint()
    terminal.top.ring()
    assert terminal.top.paint().count(b"\a") == 1
    assert terminal.top.paint() == b""


def test_under_way_delivered() -> None:
    terminal = Terminal()
    terminal.top.show_own(1, "one")
    terminal.top.show_own(2, "two, which needs more than a single row")
    terminal.top.show(Piece("bob: hello"))
    first = terminal.paint()
    assert first == [". one", ". two, which needs more than", "  a single row", "bob: hello", ">"]
    terminal.top.settle(1, delivered=True)
    terminal.top.settle(2, delivered=False)
    assert terminal.paint() == ["+ one", "! two, which needs more than", "  a single row", "bob: hello", ">"]
    assert terminal.screen.cursor.x == 2


def test_under_way_printed_and_delivered_at_once() -> None:
    terminal = Terminal()
    terminal.top.show_own(1, "one")
    terminal.top.settle(1, delivered=True)
    assert terminal.paint() == ["+ one", ">"]


def test_under_way_delivered_after_it_left_the_screen() -> None:
    terminal = Terminal()
    terminal.top.show_own(1, "one")
    for number in range(8):
        terminal.top.show(Piece(f"bob: {number}"))
    terminal.paint()
    terminal.top.settle(1, delivered=True)
    assert terminal.paint() == ["bob: 4", "bob: 5", "bob: 6", "bob: 7", "+ one", ">"]


def test_under_way_held_by_some_after_it_left_the_screen() -> None:
    terminal = Terminal()
    terminal.top.show_own(1, "one", room=3)
    for number in range(8):
        terminal.top.show(Piece(f"bob: {number}"))
    terminal.paint()
    terminal.top.progress(1, "1/2")
    assert terminal.top.paint() == b""
    terminal.top.settle(1, delivered=True)
    assert terminal.paint()[-2:] == ["+ one", ">"]


def test_under_way_delivered_after_a_resize() -> None:
    terminal = Terminal()
    terminal.top.show_own(1, "one")
    terminal.paint()
    terminal.top.resize(30, 6)
    terminal.top.settle(1, delivered=False)
    assert terminal.paint() == [". one", "! one", ">"]


@pytest.mark.parametrize("reflows", [True, False])
def test_nothing_is_left_of_the_row_when_the_terminal_becomes_narrower(reflows: bool) -> None:
    """Neither where it has broken the row into several, nor where it has cut it; and no line above is lost."""
    before = Terminal(width=40)
    before.editor.feed(b"a row of more than twenty columns")
    before.paint()
    terminal = Terminal(width=12, height=8)
    terminal.top = Screen(before.editor, height=6, signs=".+!", reflows=reflows)
    row = before.rows[0]
    pieces = [row[start : start + 12] for start in range(0, len(row), 12)]
    terminal.write(("bob: hello\n" + ("\n".join(pieces) if reflows else pieces[0])).encode())
    terminal.top.resize(12, 8)
    assert terminal.paint() == ["bob: hello", "> <olumns"]


def test_of_many_lines_that_are_delivered_at_once_those_that_are_seen_are_not_shown_again() -> None:
    terminal = Terminal(height=6)
    for number in range(8):
        terminal.top.show_own(number, f"line {number}")
    terminal.paint()
    for number in range(8):
        terminal.top.settle(number, delivered=True)
    terminal.write(terminal.top.paint())
    assert terminal.rows == [
        "+ line 6", "+ line 7", "+ line 0", "+ line 1", "+ line 2", ">",
    ]  # fmt: skip


def test_words_are_wrapped_and_indented_under_the_text() -> None:
    terminal = Terminal(width=30, height=12)
    terminal.top.show(
        Piece("12:34 ", DIM), Piece("bob", "32"), Piece(": "), Piece("one two three four five six\nseven")
    )
    terminal.top.show(Piece("12:34 "), Piece("a name of over fifteen: "), Piece("and what it says in words"))
    terminal.top.show_own(1, "mine is wrapped too, of course", name="me: ", clock="12:35 ", room=3)
    assert terminal.paint() == [
        "12:34 bob: one two three four", "           five six", "           seven",
        "12:34 a name of over fifteen:", "    and what it says in words",
        "12:35 .   me: mine is wrapped", "              too, of course", ">",
    ]  # fmt: skip
    terminal.top.progress(1, "1/2")
    assert "12:35 1/2 me: mine is wrapped" in terminal.paint()
    terminal.top.settle(1, delivered=True)
    assert "12:35 +   me: mine is wrapped" in terminal.paint()


def test_looks() -> None:
    terminal = Terminal()
    terminal.top.show(Piece("bob", nick_look("bob")), Piece(": "), Piece("hello", BOLD))
    painted = terminal.top.paint()
    assert f"\x1b[{nick_look('bob')}mbob\x1b[m: \x1b[1mhello\x1b[m".encode() in painted
    plain = Screen(LineEditor(30), height=6, signs=".+!", has_color=False)
    plain.show(Piece("bob", nick_look("bob")), Piece(": "), Piece("hello", BOLD))
    assert b"bob: hello\n" in plain.paint()
    assert len({nick_look(f"n{number}") for number in range(99)}) == 8


def test_a_row_is_one_row_whatever_the_terminal_makes_of_a_character() -> None:
    """The terminal breaks no row itself: the sign is set in the right one."""
    terminal = Terminal(width=20, height=8)
    terminal.top.show_own(1, "mine")
    terminal.top.show(Piece("\u1112\u1161\u11ab" * 12))
    terminal.top.show(Piece("\U0001fae8" * 12))
    terminal.paint()
    terminal.top.settle(1, delivered=True)
    assert terminal.paint()[0] == "+ mine"


@given(st.text(alphabet="ab  \u0301\u6f22", max_size=60), st.integers(2, 12), st.integers(1, 12))
def test_wrapped(text: str, width: int, first: int) -> None:
    rows = wrap(text, width, first)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")
    for number, row in enumerate(rows):
        room = width if number else first
        assert columns(row) <= max(room, 2)
    words = text.split()
    if all(columns(word) <= width for word in words) and first >= width:
        assert [word for row in rows for word in row.split()] == words


@given(st.lists(st.tuples(st.sampled_from("sod"), st.text(alphabet="ab \n", max_size=25)), max_size=25))
def test_anything_lines_and_deliveries(steps: List[Tuple[str, str]]) -> None:
    """Whatever is shown and delivered in between: every sign stands at its own line, and nothing else changes."""
    terminal = Terminal(12, 8)
    rows: List[str] = []
    open_lines: List[Tuple[int, int, str]] = []  # number, row, text

    def add(lead: str, text: str) -> None:
        room = 11 - len(lead)
        pieces = [row for part in text.split("\n") for row in wrap(part, room, room)]
        rows.extend((" " * len(lead) * bool(n) + lead * (not n) + row).rstrip() for n, row in enumerate(pieces))

    for number, (kind, text) in enumerate(steps):
        label = f"{number}{text}"
        if kind == "s":
            terminal.top.show(Piece(label))
            add("", label)
        elif kind == "o":
            terminal.top.show_own(number, label)
            open_lines.append((number, len(rows), label))
            add(". ", label)
        elif open_lines:
            line, row, label = open_lines.pop(0)
            terminal.top.settle(line, delivered=True)
            if len(rows) - row < 8:
                rows[row] = "+" + rows[row][1:]
            else:
                add("+ ", label)
        terminal.write(terminal.top.paint())
    terminal.write(terminal.top.paint())
    expected = [*rows, ">"][-8:]
    assert terminal.rows[: len(expected)] == expected


# --- lines -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\r", b"bc", b"d" * 9]), max_size=40), st.integers(1, 9))
def test_anything_split_into_lines(pieces: List[bytes], cut: int) -> None:
    data = b"".join(pieces)
    whole = data.split(b"\n")
    rest = whole.pop()
    expected = [None if len(line) >= 8 else line[:-1] if line.endswith(b"\r") else line for line in whole]
    splitter = LineSplitter(8)
    lines = [line for start in range(0, len(data), cut) for line in splitter.feed(data[start : start + cut])]
    assert lines == expected
    last = splitter.finish()
    assert last == ([] if not rest else [None if len(rest) >= 8 else rest[:-1] if rest.endswith(b"\r") else rest])
