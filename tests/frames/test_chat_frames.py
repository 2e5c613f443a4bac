"""The chat as people use it: on terminals (tmux), driven by keys, on real Ethernet frames between namespaces.

ALEXCHAT_PYTHONS: interpreters to run it with, separated by `:` (that of the tests); each needs scapy.
ALEXCHAT_SCREENS: a file to which what the screens showed is appended.
"""

import os
import re
import signal
import subprocess
import sys
from typing import Any, Iterator, List, NamedTuple, Tuple

import pytest
from lab import Host, Lab, Terminal, call
from test_real_frames import ADDRESS, lab as lab_fixture, start

pytestmark = pytest.mark.root
lab = lab_fixture
PYTHONS = os.environ.get("ALEXCHAT_PYTHONS", sys.executable).split(":")


def version_of(python: str) -> str:
    """Python's and scapy's."""
    ask = "import sys, scapy; print('Python', sys.version.split()[0], 'scapy', scapy.VERSION)"
    return subprocess.check_output([python, "-c", ask], universal_newlines=True).strip()


@pytest.fixture(params=PYTHONS, ids=version_of)
def python(request: Any) -> str:
    """Each of the interpreters asked for."""
    return str(request.param)


@pytest.fixture(autouse=True)
def screens(request: Any, lab: Lab) -> Iterator[None]:
    """Keep what the screens showed at the end, where that is asked for."""
    yield
    path = os.environ.get("ALEXCHAT_SCREENS")
    if path:
        with open(path, "a", encoding="utf-8") as out:
            for terminal in lab.terminals:
                out.write(f"=== {request.node.name}: {terminal._name}\n{terminal.screen().rstrip()}\n\n")


class Chatter(NamedTuple):
    """Somebody at a terminal."""

    host: Host
    terminal: Terminal
    address: str


def sit_down(host: Host, python: str, script: str, *arguments: str) -> Chatter:
    """Start one end of the chat at a terminal."""
    environment = ["env", "PYTHONIOENCODING=utf-8", "LC_ALL=C.UTF-8"]
    if script != "-c":
        arguments = ("eth0", "--no-timestamps", *arguments)
    terminal = host.terminal([*environment, python, "-bb", script, *arguments])
    return Chatter(host, terminal, terminal.expect(f"^alexmesh: node {ADDRESS} on").group(1))


def room_of_three(lab: Lab, python: str, folder: str) -> Tuple[Chatter, Chatter, Chatter]:
    """A hub, and ann and bob in its room; ann by name from the list of servers, bob by its address."""
    hosts = lab.bridge(4)
    hub = sit_down(hosts[0], python, "alexchat_server.py", "--name", "hub")
    other = start(hosts[3], "alexchat_server.py", "eth0", "--name", "other")
    ann = sit_down(hosts[1], python, "alexchat_client.py", "--name", "ann", "--downloads", folder)
    ann.terminal.expect(r"^  \d  hub +02:\S+  1 hop  \d+\.\d\d ms$")
    ann.terminal.expect(r"^  \d  other +02:\S+  1 hop  \d+\.\d\d ms$")
    other.signal(signal.SIGTERM)
    ann.terminal.expect(r"^  \d  other  is gone$")
    ann.terminal.type("hub")
    hub.terminal.expect("^-- ann .* is here")
    bob = sit_down(hosts[2], python, "alexchat_client.py", hub.address, "--name", "bob")
    for one in (hub, ann):
        one.terminal.expect("^-- bob .* is here")
    bob.terminal.expect("^-- ann .* is here")
    return hub, ann, bob


def test_a_room_of_three(lab: Lab, python: str, tmp_path: Any) -> None:
    """Servers listed, lines kept while others arrive, marks, /who, /msg, /ignore, a file, and leaving."""
    folder = tmp_path / "down"
    folder.mkdir()
    hub, ann, bob = room_of_three(lab, python, str(folder))
    ann.terminal.type("half a li", enter=False)
    ann.terminal.expect("^> half a li$")
    ann.terminal.keys("Left", "Left")
    for number in range(5):
        bob.terminal.type(f"line {number}")
    ann.terminal.expect(r"^bob: line 4\n(.|\n)*^> half a li$")
    ann.terminal.keys("End")
    ann.terminal.type("ne")
    for one in (hub, bob):
        one.terminal.expect("^ann: half a line$")
    ann.terminal.expect("^✓ +ann: half a line$")
    bob.terminal.expect("^✓ +bob: line 4$")

    ann.terminal.keys("Up", "Up", "Down", "Enter")
    ann.terminal.expect(r"^✓ +ann: half a line\n(.|\n)*^✓ +ann: half a line$")
    ann.terminal.type("/wh\t")
    who = ann.terminal.expect(r"^name +address +hops +round trip +state\n(.*\n)*?ann \(you\) .*$").group()
    for one in (hub, bob):
        assert re.search(rf"^\w+ +{one.address} +1 +\d+\.\d\d ms +here$", who, re.MULTILINE), who

    bob.terminal.type("/msg ann between us")
    ann.terminal.expect(r"^bob \(to you alone\): between us$")
    bob.terminal.expect(r"^✓ bob: \(to ann alone\) between us$")
    ann.terminal.type("/ignore bob")
    ann.terminal.expect("^bob is ignored")
    bob.terminal.type("anybody?")
    hub.terminal.expect("^bob: anybody")
    hub.terminal.type("no")
    ann.terminal.expect("^hub: no$")
    assert "anybody" not in ann.terminal.screen()
    assert "between us" not in hub.terminal.screen()
    ann.terminal.type("/ignore bob")

    photo = tmp_path / "photo.jpg"
    photo.write_bytes(os.urandom(3000000))
    (folder / "photo.jpg").write_bytes(b"precious")
    bob.terminal.type(f"/send {photo}")
    ann.terminal.expect(r"^-- bob offers photo\.jpg \(3\.0 MB\): /accept 1")
    ann.terminal.type("/accept")
    ann.terminal.expect(r"photo\.jpg from bob: received, 3\.0 MB, SHA-256 checked:\s+.*photo-1\.jpg", timeout=30)
    bob.terminal.expect(r"^-- ann holds all of photo\.jpg, SHA-256 checked$")
    assert (folder / "photo-1.jpg").read_bytes() == photo.read_bytes()
    assert (folder / "photo.jpg").read_bytes() == b"precious"

    bob.terminal.type("/quit")
    ann.terminal.expect("^-- bob left$")
    assert bob.terminal.wait() == 0
    ann.terminal.keys("C-d")
    assert ann.terminal.wait() == 0
    hub.terminal.expect("^-- ann left$")


def test_a_cable_pulled_and_a_program_started_anew(lab: Lab, python: str, tmp_path: Any) -> None:
    """Lines wait, the prompt says so, and all arrive in order, once; a new program gets what the old one had not."""
    left, right = lab.line(2)
    hub = sit_down(right, python, "alexchat_server.py", "--name", "hub")
    ann = sit_down(left, python, "alexchat_client.py", hub.address, "--name", "ann")
    ann.terminal.type("before")
    hub.terminal.expect("^ann: before$")
    lab.set_up(right.ports[0], False)
    ann.terminal.type("one")
    ann.terminal.expect("^hub: link lost, retrying>")
    ann.terminal.type("two")
    ann.terminal.expect("^· ann: two$")
    lab.set_up(right.ports[0], True)
    hub.terminal.expect(r"^ann: one\n(.|\n)*^ann: two$", timeout=20)
    ann.terminal.expect("^✓ ann: two$")

    os.kill(hub.terminal.pid, signal.SIGKILL)
    hub.terminal.wait()
    ann.terminal.type("three")
    ann.terminal.expect("^hub: link lost, retrying>")
    again = sit_down(right, python, "alexchat_server.py", "--name", "hub")
    assert again.address == hub.address
    again.terminal.expect("^ann: three$", timeout=20)
    ann.terminal.type("four")
    again.terminal.expect("^ann: four$")
    ann.terminal.expect(r"hub .* is back\n(.|\n)*^✓ ann: four$")
    assert re.findall("^ann: (.*)$", hub.terminal.screen(), re.MULTILINE) == ["before", "one", "two"]
    assert re.findall("^ann: (.*)$", again.terminal.screen(), re.MULTILINE) == ["three", "four"]

    os.kill(ann.terminal.pid, signal.SIGKILL)
    again.terminal.type("missed")
    again.terminal.expect("^ann: link lost, retrying>")
    ann = sit_down(left, python, "alexchat_client.py", hub.address, "--name", "ann")
    ann.terminal.expect("^hub: missed$", timeout=20)
    again.terminal.expect("^✓ hub: missed$")

    os.kill(again.terminal.pid, signal.SIGKILL)
    ann.terminal.type("into the void")
    ann.terminal.keys("C-c")
    assert ann.terminal.wait() == 130
    ann.terminal.expect("^-- NOT delivered to hub: into the void$")


def test_a_file_goes_on_after_a_break(lab: Lab, python: str, tmp_path: Any) -> None:
    """The receiver's program is killed half-way and started anew: the rest is fetched, and only that."""
    left, right = lab.line(2)
    folder, big = tmp_path / "down", tmp_path / "big file"
    folder.mkdir()
    big.write_bytes(os.urandom(1 << 20) * 60)
    hub = sit_down(right, python, "alexchat_server.py", "--name", "hub")
    options = [hub.address, "--name", "ann", "--downloads", str(folder)]
    ann = sit_down(left, python, "alexchat_client.py", *options)
    hub.terminal.expect("^-- ann .* is here")
    hub.terminal.type(f"/send {big}")
    ann.terminal.expect("^-- hub offers big file", timeout=20)
    ann.terminal.type("/accept")
    ann.terminal.expect(r"^big file [1-9]\d? %>", timeout=20)
    os.kill(ann.terminal.pid, signal.SIGKILL)
    (part,) = folder.iterdir()
    assert 0 < part.stat().st_size < big.stat().st_size
    ann = sit_down(left, python, "alexchat_client.py", *options)
    ann.terminal.expect("^-- hub .* is here")
    hub.terminal.type(f"/send {big}")
    ann.terminal.expect("^-- hub offers big file", timeout=20)
    ann.terminal.type("/accept")
    ann.terminal.expect("^-- big file from hub: received, 62.9 MB, SHA-256 checked", timeout=60)
    assert (folder / "big file").read_bytes() == big.read_bytes()


def test_two_who_call_each_other(lab: Lab, python: str) -> None:
    """At once: one conversation, with every line once."""
    hosts = lab.line(2)
    names = ("ann", "bob")
    both = [
        sit_down(host, python, "alexchat_client.py", other.ports[0].address, "--name", name)
        for host, other, name in zip(hosts, hosts[::-1], names)
    ]
    for one, other in zip(both, names[::-1]):
        one.terminal.expect(f"^-- {other} .* is here")
    for one, name in zip(both, names):
        one.terminal.type(f"I am {name}")
    for one, other in zip(both, names[::-1]):
        one.terminal.expect(f"^{other}: I am {other}$")
        one.terminal.expect("^✓ ...: I am")
    both[0].terminal.type("/quit")
    both[1].terminal.expect("^-- ann left$")
    both[1].terminal.type("exit")
    for one, name, other in zip(both, names, names[::-1]):
        assert one.terminal.wait() == 0
        screen = one.terminal.screen()
        assert screen.count("is here") == screen.count(f"{other}: I am") == screen.count(f"✓ {name}: I am {name}") == 1


def test_stopped_resized_and_pasted(lab: Lab, python: str) -> None:
    """As a job of a shell: Ctrl-Z and fg, another width, wide characters, and lines that are pasted."""
    left, right = lab.line(2)
    hub = sit_down(right, python, "alexchat_server.py", "--name", "hub")
    shell = left.terminal(["env", "PYTHONIOENCODING=utf-8", "LC_ALL=C.UTF-8", "PS1=$ ", "bash", "--norc", "-i"])
    shell.type(f"{python} -bb alexchat_client.py eth0 {hub.address} --name ann --no-timestamps")
    shell.expect("^-- hub .* is here")
    shell.type("漢字 e\u0301 typed", enter=False)
    shell.expect("^> 漢字 é typed$|^> 漢字 e\u0301 typed$")
    shell.keys("C-z")
    shell.expect("Stopped")
    shell.type("echo shell works")
    shell.expect("^shell works$")
    shell.type("fg")
    shell.expect("^> 漢字 .* typed$")
    call(*shell._tmux, "resize-window", "-t", shell._name, "-x", "12")
    hub.terminal.type("hello")
    shell.expect("^hub: hello$")
    assert not re.search("^> 漢字 .* typed$", shell.screen(), re.MULTILINE)
    call(*shell._tmux, "resize-window", "-t", shell._name, "-x", "60")
    shell.expect("^> 漢字 .* typed$")
    shell.keys("Enter")
    hub.terminal.expect("^ann: 漢字 .* typed$")
    shell.expect("^✓ ann: 漢字 .* typed$")
    call(*shell._tmux, "set-buffer", "first line\nexit\nlast line\n", ";", "paste-buffer", "-p", "-t", shell._name)
    shell.expect("first line↵exit↵last line↵")
    assert "first line" not in hub.terminal.screen()
    shell.keys("Enter")
    hub.terminal.expect("^ann: first line\n         exit\n         last line$")
    shell.keys("C-c")
    shell.expect(r"\$ $")
    hub.terminal.expect("^-- ann left$")


TITLE, CLIPBOARD, ALTERNATE = "\x1b]0;pwned\x07", "\x1b]52;c;cHduZWQ=\x07", "\x1b[?1049h"
MESSAGES = [f"title {TITLE}", f"clipboard {CLIPBOARD}", f"alternate {ALTERNATE}", "nice\rhub: forged", "8 bit \x9b2J",
            "two\u2028lines", "bidi \u202eevil"]  # fmt: skip

LIAR = f"""
import sys, alexchat_client as chat
honest = chat.Files.next_offer
def lying(self):
    offer = honest(self)
    return offer and offer._replace(file="../photo\\u202egpj.{TITLE!a}exe".replace("'", ""))
chat.Files.next_offer = lying
sys.argv[0] = "alexchat_client.py"
sys.exit(chat.run(chat.main))
"""


def state_of(terminal: Terminal) -> List[str]:
    """What messages like those would change: title, alternate screen, clipboard."""
    shown = call(*terminal._tmux, "display", "-p", "-t", terminal._name, "#{pane_title}\n#{alternate_on}")
    buffers = subprocess.run([*terminal._tmux, "list-buffers"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return [*shown.splitlines(), buffers.stdout.decode()]


def test_messages_that_would_act_on_the_terminal(lab: Lab, tmp_path: Any) -> None:
    """They are seen, and do nothing; printed as they are they would, which is tried on the same terminal first."""
    left, right = lab.line(2)
    raw = right.terminal(["sh", "-c", f"printf '{TITLE}{CLIPBOARD}{ALTERNATE}'; read line"])
    call(*raw._tmux, "set-option", "-g", "set-clipboard", "on")
    raw = right.terminal(["sh", "-c", f"printf '{TITLE}{CLIPBOARD}{ALTERNATE}'; read line"])
    raw.expect(r"\A\s*\Z")
    deadline = [state_of(raw) for _ in range(100) if state_of(raw)[:2] != ["pwned", "1"]]
    assert len(deadline) < 100
    title, alternate, clipboard = state_of(raw)
    assert (title, alternate) == ("pwned", "1")
    assert "pwned" in clipboard
    call(*raw._tmux, "delete-buffer")

    hub = sit_down(right, sys.executable, "alexchat_server.py", "--name", "hub")
    before = state_of(hub.terminal)
    eve = left.start(
        [sys.executable, "alexchat_client.py", "eth0", hub.address, "--name", "e\x1bv\u202ee", "--linger", "0"]
    )
    for text in MESSAGES:
        eve.send(text + "\n")
    eve.close_stdin()
    assert eve.wait() == 0, str(eve)
    hub.terminal.expect(r"^-- e\?v\?e~00:01 left$")
    for shown in (r"title \^\[\]0;pwned\^G", r"clipboard \^\[\]52;c;cHduZWQ=\^G", r"alternate \^\[\[\?1049h",
                  r"nice\^Mhub: forged", r"8 bit \\x9b2J", r"two<U\+2028>lines", r"bidi <U\+202E>evil"):  # fmt: skip
        hub.terminal.expect(rf"^e\?v\?e~00:01: {shown}$")

    harmless, folder = tmp_path / "harmless", tmp_path / "down"
    harmless.write_bytes(b"MZ")
    folder.mkdir()
    hub.terminal.type("/quit")
    hub = sit_down(right, sys.executable, "alexchat_server.py", "--name", "hub", "--downloads", str(folder))
    before = state_of(hub.terminal)
    mallory = sit_down(left, sys.executable, "-c", LIAR, "eth0", hub.address, "--name", "mallory")
    hub.terminal.expect("^-- mallory .* is here")
    mallory.terminal.type(f"/send {harmless}")
    hub.terminal.expect(r"^-- mallory offers photo_gpj\._\]0_pwned_exe \(2 bytes\)")
    hub.terminal.type("/accept")
    hub.terminal.expect("SHA-256 checked")
    assert [path.name for path in folder.iterdir()] == ["photo_gpj._]0_pwned_exe"]
    assert state_of(hub.terminal) == before
    hub.terminal.keys("C-d")
    assert hub.terminal.wait() == 0
