"""The mutation driver on a handful of mutants; the whole is a command: python tests/mutate.py --help."""

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
def test_a_sample_of_mutants_dies() -> None:
    """Of the rules for the receive window, and of who is a survivor when nobody looks."""
    only = ["alexstream", "--only", r"^Receiver\.(take|window|_advance)", "--sample", "6", "--seed", "1"]
    result = run(*only, "--tests", "test_stream_edges", "test_stream_scripts", "--least", "0.75")
    assert result.returncode == 0, result.stdout
    result = run(*only, "--tests", "test_stream_edges")
    assert len(re.findall(r"^\w+: alexstream\.py:\d+ Receiver\.\w+: .* -> ", result.stdout, re.M)) >= 1


def test_every_mutant_is_another_program() -> None:
    """What is listed differs from what it replaces, and the whole still compiles."""
    for name, target in mutate.TARGETS.items():
        mutants = mutate.Run(target, ()).mutants
        assert len(mutants) > 1000, name
        assert all(mutant.before != mutant.after for mutant in mutants)
    run_of_router = mutate.Run(mutate.TARGETS["router"], ())
    for mutant in run_of_router.mutants[::100]:
        compile(mutate.apply(run_of_router.tree, mutant), "node.py", "exec")
