"""The README says what the program does: its state diagram is the machine's table, its files and options exist."""

import os
import re
import subprocess
import sys
from typing import Set, Tuple

import pytest

from alexstream import MOVES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_options(script: str) -> None:
    """Each option of a script stands in its paragraph, or in the one about all of them."""
    shown = subprocess.check_output([sys.executable, os.path.join(ROOT, script), "--help"], universal_newlines=True)
    section = README[README.index("## The programs") : README.index("**On their streams**")]
    common = section.split("\n\n")[1]
    own = "".join(
        paragraph for paragraph in section.split("\n\n") if paragraph.startswith("**") and script in paragraph
    )
    assert own
    options = set(re.findall("--[a-z]+", shown)) - {"--help"}
    assert [option for option in options if option not in own + common] == []
