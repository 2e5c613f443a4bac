"""The README says what the program does: its state diagram is the machine's table, its files and options exist."""

import importlib
import os
import re
import shlex
import sys
from typing import Any, Dict, List, Set, Tuple

import pytest
from paths import ROOT

import alexstream
from alexchat_client import COMMAND_NAMES
from alexstream import MOVES

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
    README = file.read()
SCRIPTS = sorted(name for name in os.listdir(ROOT) if re.match("(node|send_|alex(chat|stream)_).*py$", name))


def test_every_state_and_move_is_in_the_picture_of_the_stream() -> None:
    picture = alexstream.__doc__[alexstream.__doc__.index("STATES") : alexstream.__doc__.index("LOSS.")]
    moves = {what for after in MOVES.values() for what in after}
    assert [word for word in [*(state.value for state in MOVES), *moves] if word not in picture] == []


def test_readme_is_no_book() -> None:
    assert 150 < README.count("\n") < 260


@pytest.mark.parametrize("name", ["README.md", "tests/README.md"])
def test_files_that_a_readme_names_exist(name: str) -> None:
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        named = set(re.findall(r"\b(tests/[a-z0-9_]+/[a-zA-Z0-9_.]+\w)", file.read()))
    assert len(named) > 5
    assert [path for path in named if not os.path.exists(os.path.join(ROOT, path))] == []


def test_linked_files_exist() -> None:
    links = set(re.findall(r"\]\(([^)#:]+)\)", README))
    assert links
    assert [link for link in links if not os.path.exists(os.path.join(ROOT, link))] == []


def test_every_file_is_listed() -> None:
    modules = [name for name in os.listdir(ROOT) if name.endswith(".py")]
    assert [name for name in modules if f"]({name})" not in README] == []


def options_in_table() -> Dict[str, Set[str]]:
    """The options that README's table gives to each program."""
    rows = re.findall(r"^\| (`-.*?) \| (.*?) \| .* \|$", README, re.MULTILINE)
    assert rows
    listed: Dict[str, Set[str]] = {script: set() for script in SCRIPTS}
    for options, programs in rows:
        for script in SCRIPTS if programs == "all" else re.findall("`(.*?)`", programs):
            listed[script] |= set(re.findall("`(-[-a-z]+)", options))
    return listed


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_manual_page(script: str, monkeypatch: Any, capsys: Any) -> None:
    """The options are those of README's table, and each example is one that the program understands."""
    module = importlib.import_module(script[:-3])
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    shown = capsys.readouterr().out
    assert re.match(f"usage: {script} ", shown)
    assert "exit status: 0 done" in shown
    options = set(re.findall("(?:^  |, )(-[-a-z]+)", shown, re.MULTILINE)) - {"-h", "--help"}
    assert options == options_in_table()[script]
    examples = re.findall(f"^  .*sudo python3 {re.escape(script)} ([^<>|#\n]*)", shown, re.MULTILINE)
    assert len(examples) > 1
    monkeypatch.setattr(module, "open_node", open_none)
    monkeypatch.setattr("os.path.isdir", lambda path: True)
    for example in examples:
        monkeypatch.setattr(sys, "argv", [script, *shlex.split(example)])
        with pytest.raises(OpenedError):
            module.main()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "the following arguments are required: IFACE"),
        (["eth0", "node", "text", "--color", "pink"], "argument --color: invalid choice: 'pink'"),
        (["eth0", "node", "text", "-q", "-v"], "not allowed with argument"),
        (["eth0", "node", "text", "more", "--nonsense"], "unrecognized arguments: "),
    ],
)
def test_misuse(script: str, options: List[str], says: str, monkeypatch: Any, capsys: Any) -> None:
    module = importlib.import_module(script[:-3])
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit, match="2"):
        module.main()
    *usage, last = capsys.readouterr().err.splitlines()
    assert usage[0].startswith(f"usage: {script} ")
    assert last.startswith(f"{script}: error: ")
    assert says in last


@pytest.mark.parametrize(
    ("script", "words", "says"),
    [
        ("send_handshake.py", "--count -1", "argument --count: '-1' is not a whole number from 0 on"),
        ("send_handshake.py", "--wait 0", "argument --wait: '0' is not a number of seconds above 0"),
        (
            "send_message.py",
            "node text --timeout soon",
            "argument --timeout: 'soon' is not a number of seconds above 0",
        ),
        ("alexchat_client.py", "--linger -1", "argument --linger: '-1' is not a number of seconds from 0 to inf"),
    ],
)
def test_numbers_out_of_range_are_told_the_range(
    script: str, words: str, says: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "eth0", *words.split()])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(script[:-3]).main()
    assert capsys.readouterr().err.splitlines()[-1] == f"{script}: error: {says}"


class OpenedError(Exception):
    """A program has understood its arguments."""


def open_none(*_: Any, **__: Any) -> None:
    raise OpenedError


def commands_in_readme() -> List[Tuple[str, str]]:
    """Every command of ours in a sample of the README: the script, and its arguments."""
    found = re.findall(r"^    .*python3 ((?:node|send_|alex)\w*\.py) ([^|>#;\n]*)", README, re.MULTILINE)
    return [(script, words) for script, words in found if "reach it with" not in words]


def test_every_script_has_a_sample_in_the_readme() -> None:
    assert {script for script, _ in commands_in_readme()} == set(SCRIPTS)


@pytest.mark.parametrize(("script", "words"), commands_in_readme())
def test_commands_in_the_readme_are_understood(script: str, words: str, monkeypatch: Any) -> None:
    module = importlib.import_module(script[:-3])
    monkeypatch.setattr(module, "open_node", open_none)
    monkeypatch.setattr(sys, "argv", [script, *shlex.split(words)])
    with pytest.raises(OpenedError):
        module.main()


def test_chat_commands_in_the_readme_are_those_of_the_chat() -> None:
    listed = set(re.findall(r"`(/[a-z?]+)", "".join(re.findall(r"^\| (`/.*?) \|", README, re.MULTILINE))))
    assert listed
    assert listed == set(COMMAND_NAMES)
