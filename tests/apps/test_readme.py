"""The README says what the program does: its state diagram is the machine's table, its files and options exist."""

import importlib
import os
import re
import shlex
import sys
from typing import Any, Dict, List, Set, Tuple

import pytest
from paths import ROOT

from alexstream import MOVES

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
    README = file.read()
SCRIPTS = sorted(name for name in os.listdir(ROOT) if re.match("(node|send_|alex(chat|stream)_).*py$", name))


def test_states() -> None:
    listed: Set[Tuple[str, ...]] = set(re.findall("^    ([A-Z0-9-]+) -> ([A-Z0-9-]+): (.+)$", README, re.MULTILINE))
    table = {(state.value, after.value, what) for state, moves in MOVES.items() for what, after in moves.items()}
    assert listed == table


def test_every_state_is_in_the_picture() -> None:
    picture = README[README.index("**States.**") : README.index("    SYN-SENT -> ")]
    assert [state.value for state in MOVES if state.value not in picture] == []


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


class OpenedError(Exception):
    """A program has understood its arguments."""


def open_none(*_: Any, **__: Any) -> None:
    raise OpenedError


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage_in_readme(script: str) -> None:
    """What a program's paragraphs in the README call an option, it has."""
    section = README[README.index("## The programs") : README.index("**On their streams**")]
    paragraphs = [part for part in section.split("\n\n") if part.startswith("**`") and f"`{script} " in part]
    assert paragraphs
    usages = re.findall(rf"\*\*`{re.escape(script)} (.*?)`\*\*", "".join(paragraphs))
    assert usages
    assert set(re.findall("--[-a-z]+", "".join(usages))) <= options_in_table()[script]
