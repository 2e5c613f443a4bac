"""The benchmark of streams still runs: a very short one, of which only the form is looked at (root, Linux)."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from lab import namespaces

pytestmark = pytest.mark.root

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_stream.py")


@pytest.mark.skipif(
    (os.geteuid() != 0 or not shutil.which("ip")) and os.environ.get("ALEXCHAT_ROOT_TESTS") != "required",
    reason="network namespaces need Linux, root and ip",
)
def test_goodput_and_ceiling_are_measured_and_nothing_stays() -> None:
    command = [sys.executable, BENCH, "pair", "--runs", "1", "--seconds", "0.1", "--with", ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True) as bench:
        table = bench.communicate(timeout=60)[0]
    assert bench.returncode == 0
    found = re.search(r"^\| AlexStream goodput \| [^|]+ \| ([\d.]+) \([\d.]+-[\d.]+\) \| \d+ .* MB/s \|$", table, re.M)
    assert found, table
    assert 0 < float(found.group(1)) < 1
    assert not [name for name in namespaces() if name.startswith(f"ax{bench.pid}-")]
