"""The mutation driver on a handful of mutants; the whole is a command: python tests/tools/mutate.py --help."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("coverage")  # the gate has it for one Python only

import mutate

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 9), reason="needs ast.unparse"),
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") == "quick", reason="once is enough, on one Python"),
]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, mutate.__file__, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, universal_newlines=True, env=environment, check=False)


@pytest.mark.slow  # a minute
def test_a_sample_of_mutants_dies_and_survivors_are_shown() -> None:
    """Of the receive window: most die; who is left is told with file, line, function and change."""
    only = ["--only", r"^Receiver\.(take|window|_advance|wants_update)", "--sample", "10", "--seed", "1"]
    result = run("alexstream", *only, "--tests", "stream/test_stream_receiver", "--least", "0.5")
    assert result.returncode == 0, result.stdout
    shown = re.findall(r"^\w+: alexstream\.py:\d+ Receiver\.\w+: .* -> .*", result.stdout, re.MULTILINE)
    alive = re.search(r"(\d+) alive", result.stdout)
    assert alive is not None
    assert len(shown) == int(alive.group(1))


def test_every_mutant_is_another_program() -> None:
    """What is listed differs from what it replaces, and the whole still compiles."""
    everything = mutate.Run(mutate.TARGETS["alexstream"], ())
    assert len(everything.mutants) > 1000
    assert all(mutant.before != mutant.after for mutant in everything.mutants)
    for mutant in everything.mutants[::300]:
        compile(mutate.apply(everything.tree, mutant), "alexstream.py", "exec")
