#!/usr/bin/env python3
"""The pictures and the sample capture of the README, made from the real programs (root, tmux, tshark).

sudo python3 tests/tools/pictures.py                  all of them
sudo python3 tests/tools/pictures.py sample chat      tests/tools/sample.pcap and tests/tools/pictures/chat.svg
"""

import argparse
import html
import itertools
import os
import signal
import sys
import tempfile
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import pyte

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
import paths  # noqa: F401  # the folders of the tests
from lab import Host, Lab, Program, Terminal

SAMPLE = os.path.join(HERE, "sample.pcap")
FOLDER = os.path.join(HERE, "pictures")

# --- traffic ---------------------------------------------------------------------------------------------------------


def start(host: Host, script: str, *arguments: str) -> Program:
    """Start a script of ours on all interfaces of a host and wait until its node is up."""
    program = host.start([sys.executable, script, host.interfaces, *arguments])
    program.expect("^alexmesh: node", where="err")
    return program


def finish(program: Program) -> None:
    """Wait for the end of a program, which must be a good one."""
    if program.wait(30):
        raise RuntimeError(str(program))


def record_traffic(lab: Lab, on_cable: str, in_relay: str, *, data: bytes, loss: float, mtu: int) -> None:
    """A chat, a stream of `data`, a ping and a message over one relay; the last cable loses `loss` per cent of frames.

    The file `on_cable` is what dumpcap sees on the first cable, `in_relay` what the relay's own --pcap writes.
    """
    left, relay, right = lab.line(3)
    for port in left.ports + relay.ports + right.ports:
        lab.set_mtu(port, mtu)
    sniffer = left.start(["dumpcap", "-q", "-P", "-i", "eth0", "-w", on_cable])
    sniffer.expect("^File: ", where="err")
    node = start(relay, "node.py", "--name", "relay", "--pcap", in_relay)
    bob = start(right, "alexchat_server.py", "--name", "bob")
    lab.lose(right.ports[0], loss)
    address = right.ports[0].address

    alice = start(left, "alexchat_client.py", address, "--name", "alice", "--linger", "0")
    alice.send("Hello! No IP between us.\n")
    bob.expect("alice: Hello")
    bob.send("And no TCP either.\n")
    alice.expect("bob: And no TCP")
    alice.close_stdin()
    finish(alice)
    finish(start(left, "send_handshake.py", address, "--count", "3", "--interval", "0.1"))
    bob.signal(signal.SIGINT)
    bob.wait()

    sink = start(right, "alexstream_server.py", "--once")
    source = start(left, "alexstream_client.py", address, "-")
    source.send(data)
    source.close_stdin()
    finish(source)
    finish(sink)
    finish(start(left, "send_message.py", relay.ports[0].address, "supper is ready"))
    node.signal(signal.SIGTERM)
    node.wait()
    sniffer.signal(signal.SIGINT)
    finish(sniffer)


def make_sample() -> None:
    """Write tests/tools/sample.pcap: what the first cable of `record_traffic` carried."""
    with Lab() as lab:
        data = b"".join(b"line %d of the stream\n" % number for number in range(1, 200))
        record_traffic(lab, SAMPLE, os.devnull, data=data, loss=15, mtu=600)
    os.chmod(SAMPLE, 0o644)  # dumpcap makes it private


# --- drawing ---------------------------------------------------------------------------------------------------------

FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
FONT_SIZE, CELL_WIDTH, CELL_HEIGHT = 14, 8.4, 18
MARGIN, TITLE_HEIGHT = 12, 28
INK, PAPER, FRAME, DIM = "d4d4d4", "1b1f24", "30363d", "8b949e"
COLOURS = {
    "black": "484f58", "red": "ff7b72", "green": "7ee787", "brown": "e3b341", "blue": "79c0ff", "magenta": "d2a8ff",
    "cyan": "76e3ea", "white": "d4d4d4", "brightblack": DIM,
}  # fmt: skip


class Pane(NamedTuple):
    """A terminal to be drawn, under a title."""

    title: str
    terminal: Terminal
    columns: int
    rows: int


class Style(NamedTuple):
    """How a run of characters looks; colours as in CSS, without the #."""

    ink: str
    paper: str
    bold: bool


def read_screen(pane: Pane) -> pyte.Screen:
    """The terminal's screen as an emulator sees it. (tmux says dim; pyte knows bright black.)"""
    text, column, row = pane.terminal.styled_screen()
    screen = pyte.Screen(pane.columns, pane.rows)
    lines = text.replace("\x1b[2m", "\x1b[90m").rstrip("\n").split("\n")
    pyte.Stream(screen).feed("\r\n".join(lines))
    screen.cursor.x, screen.cursor.y = column, row
    return screen


def styled_runs(screen: pyte.Screen, row: int) -> Iterator[Tuple[int, int, str, Style]]:
    """Column, number of cells, text and style of each stretch of a row that looks alike."""

    def style(column: int) -> Style:
        cell = screen.buffer[row][column]
        ink, paper = (COLOURS.get(c, c) for c in (cell.fg.replace("default", INK), cell.bg.replace("default", PAPER)))
        turned = cell.reverse != ((column, row) == (screen.cursor.x, screen.cursor.y))
        return Style(paper, ink, cell.bold) if turned else Style(ink, paper, cell.bold)

    for look, columns in itertools.groupby(range(screen.columns), style):
        cells = list(columns)
        text = "".join(screen.buffer[row][column].data for column in cells)
        blanks = len(text) - len(text.rstrip()) if look.paper == PAPER else 0
        if blanks < len(text):
            yield cells[0], len(cells) - blanks, text[: len(text) - blanks], look


def draw_row(screen: pyte.Screen, row: int, left: float, top: float) -> Iterator[str]:
    """The SVG elements of one row of a terminal."""
    for column, cells, text, look in styled_runs(screen, row):
        x, y, width = left + column * CELL_WIDTH, top + row * CELL_HEIGHT, cells * CELL_WIDTH
        if look.paper != PAPER:
            yield f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{CELL_HEIGHT}" fill="#{look.paper}"/>'
        bold = ' font-weight="bold"' if look.bold else ""
        yield (
            f'<text x="{x:.1f}" y="{y + FONT_SIZE}" fill="#{look.ink}"{bold} textLength="{width:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{html.escape(text)}</text>'
        )


def draw(panes: Sequence[Pane]) -> str:
    """An SVG of terminals, one below the other."""
    width = max(pane.columns for pane in panes) * CELL_WIDTH + 4 * MARGIN
    top = float(MARGIN)
    shapes: List[str] = []
    for pane in panes:
        screen = read_screen(pane)
        height = TITLE_HEIGHT + pane.rows * CELL_HEIGHT + MARGIN
        shapes.append(
            f'<rect x="{MARGIN}" y="{top}" width="{width - 2 * MARGIN:.1f}" height="{height}" rx="6" '
            f'fill="#{PAPER}" stroke="#{FRAME}"/>'
        )
        middle = f'x="{width / 2:.1f}" y="{top + 19}" text-anchor="middle"'
        shapes.append(f'<text {middle} fill="#{DIM}">{html.escape(pane.title)}</text>')
        for row in range(pane.rows):
            shapes.extend(draw_row(screen, row, 2 * MARGIN, top + TITLE_HEIGHT))
        top += height + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{top:.0f}" '
    head += f'viewBox="0 0 {width:.0f} {top:.0f}" font-family="{FONT}" font-size="{FONT_SIZE}">'
    return "\n".join([head, *shapes, "</svg>", ""])


# --- scenes ----------------------------------------------------------------------------------------------------------


PROMPT = r"^#\s*\Z"  # of a shell that waits for its next command


def open_shell(host: Host, title: str, columns: int, rows: int) -> Pane:
    """A shell on a terminal of that size, where `python3` is the one that runs this."""
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    argv = ["env", "PS1=# ", "PATH=" + path, "bash", "--norc", "--noprofile"]
    pane = Pane(title, host.terminal(argv, columns=columns, rows=rows), columns, rows)
    pane.terminal.expect(PROMPT)
    return pane


def play_chat(lab: Lab) -> List[Pane]:
    """Two people; what one says arrives while the other is typing."""
    left, right = lab.line(2)
    address = right.ports[0].address
    bob, alice = open_shell(right, "bob", 110, 10), open_shell(left, "alice", 110, 10)
    bob.terminal.type("python3 alexchat_server.py eth0 --name bob")
    bob.terminal.expect("^alexmesh: node")
    alice.terminal.type(f"python3 alexchat_client.py eth0 {address} --name alice")
    bob.terminal.expect("alice .*is here")
    bob.terminal.type("Hello! No IP between us.")
    alice.terminal.expect("bob: Hello")
    alice.terminal.type("And no TCP either.")
    bob.terminal.expect("alice: And")
    alice.terminal.type("This half of a line st", enter=False)
    alice.terminal.expect("> This half of a line st")
    bob.terminal.type("Nothing that arrives damages what you are typing.")
    alice.terminal.expect("bob: Nothing")
    bob.terminal.expect("✓ bob: Nothing")
    return [alice, bob]


def play_room(lab: Lab) -> List[Pane]:
    """Three people in one room, one of whom is away; one asks who is here."""
    left, middle, right = lab.bridge(3)
    alice = open_shell(left, "alice", 110, 17)
    alice.terminal.type("python3 alexchat_server.py eth0 --name alice")
    alice.terminal.expect("the room is open")
    bob = start(middle, "alexchat_client.py", left.ports[0].address, "--name", "bob")
    carol = start(right, "alexchat_client.py", left.ports[0].address, "--name", "carol")
    for name in ("bob", "carol"):
        alice.terminal.expect(f"{name} .*is here")
    bob.expect("carol .*is here", where="err")
    bob.send("good morning; there is no server in this room, is there?\n")
    alice.terminal.expect("bob: good")
    alice.terminal.type("No. I may go, and you two stay.")
    alice.terminal.expect("✓   alice: No")
    carol.send("Alice, may I have the photo?\n")
    alice.terminal.expect("carol: Alice")
    carol.signal(signal.SIGSTOP)
    alice.terminal.type("/me looks for it")
    alice.terminal.expect("1/2 .* alice looks")
    alice.terminal.expect("carol is gone", timeout=20)
    alice.terminal.type("/who")
    alice.terminal.expect(r"^bob\s+02:", timeout=20)
    return [alice]


def play_file(lab: Lab) -> List[Pane]:
    """A file on its way, over a cable that is slow enough to be watched."""
    left, right = lab.line(2)
    lab.police(right.ports[0], 2)
    folder = tempfile.mkdtemp()
    photo = os.path.join(folder, "sunset.jpg")
    with open(photo, "wb") as file:
        file.write(os.urandom(16 << 20))
    alice, bob = open_shell(left, "alice", 110, 8), open_shell(right, "bob", 110, 8)
    alice.terminal.type("python3 alexchat_server.py eth0 --name alice")
    alice.terminal.expect("the room is open")
    bob.terminal.type(f"python3 alexchat_client.py eth0 {left.ports[0].address} --name bob --downloads {folder}")
    alice.terminal.expect("bob .*is here")
    alice.terminal.type(f"/send {photo}")
    bob.terminal.expect("alice offers sunset.jpg", timeout=30)
    bob.terminal.type("/accept")
    for one in (alice, bob):
        one.terminal.expect(r"sunset.jpg [3-9]\d %.*left>", timeout=30)
    bob.terminal.type("/files")
    bob.terminal.expect("^comes ")
    return [alice, bob]


def play_dissector(lab: Lab) -> List[Pane]:
    """The stream in the sample where it lost something, and one acknowledgement in full."""
    shell = open_shell(lab.host(), "tests/tools/sample.pcap", 116, 54)
    read = "tshark -n -X lua_script:tests/tools/alexchat.lua -r tests/tools/sample.pcap 2>/dev/null"
    lines = "-T fields -e frame.number -e frame.time_relative -e _ws.col.Info"
    shell.terminal.type(f"{read} -Y 'alexstream.option.sack_le or alexstream.retransmission' {lines} | head")
    shell.terminal.expect(r"SLE=\d")
    shell.terminal.expect(PROMPT)
    shell.terminal.type(f"{read} -Y alexstream.option.sack_le -O alexstream | sed -n '/^AlexStream/,/^$/p;/^$/q'")
    shell.terminal.expect("Time since then")
    shell.terminal.expect(PROMPT)
    return [shell]


SCENES: Dict[str, Callable[[Lab], List[Pane]]] = {
    "chat": play_chat,
    "dissector": play_dissector,
    "file": play_file,
    "room": play_room,
}


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    everything = ["sample", *SCENES]
    parser = argparse.ArgumentParser(prog="pictures.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {' '.join(everything)} (all)")
    names = parser.parse_args(arguments).names or everything
    unknown = set(names) - set(everything)
    if unknown:
        parser.error(f"no such picture: {' '.join(sorted(unknown))}")
    if os.geteuid():
        parser.error("network namespaces need root: sudo python3 tests/tools/pictures.py ...")
    os.makedirs(FOLDER, exist_ok=True)
    for name in names:
        if name == "sample":
            make_sample()
            print(SAMPLE)
            continue
        path = os.path.join(FOLDER, name + ".svg")
        with Lab() as lab:
            picture = draw(SCENES[name](lab))
        with open(path, "w", encoding="utf-8") as file:
            file.write(picture)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
