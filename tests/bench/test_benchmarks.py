"""The benchmarks still run: very short ones, of which only the form is looked at (root, Linux)."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from lab import namespaces

HERE = os.path.dirname(os.path.abspath(__file__))

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        (os.geteuid() != 0 or not shutil.which("ip")) and os.environ.get("ALEXCHAT_ROOT_TESTS") != "required",
        reason="network namespaces need Linux, root and ip",
    ),
]


def measure(command: str) -> str:
    """What a benchmark prints; nothing of it stays."""
    name, *words = command.split()
    argv = [sys.executable, os.path.join(HERE, name), *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, universal_newlines=True) as bench:
        printed = bench.communicate(timeout=200)[0]
    assert bench.returncode == 0
    assert not [name for name in namespaces() if name.startswith(f"ax{bench.pid}-")]
    return printed


def test_goodput_and_ceiling_are_measured() -> None:
    table = measure("bench_stream.py pair --runs 1 --seconds 0.1 --with=")
    found = re.search(r"^\| AlexStream goodput \| [^|]+ \| ([\d.]+) \([\d.]+-[\d.]+\) \| \d+ .* MB/s \|$", table, re.M)
    assert found, table
    assert 0 < float(found.group(1)) < 1


@pytest.mark.parametrize(
    ("command", "figure"),
    [
        (
            "bench_stream.py line pingpong --runs 1 --trips 100",
            r"beyond the ping \| under 2 ms \| -?[\d.]+ ms \| [\d.]+",
        ),
        ("bench_mesh.py outage diamond --runs 1", r"longest silence, ms: worst \d+, median \d+"),
    ],
)
def test_other_figures_are_printed(command: str, figure: str) -> None:
    printed = measure(command)
    assert re.search(figure, printed), printed
