"""ALEXCHAT_PLATFORM=darwin: the programs that these tests start run on the Darwin of fakebsd.py, the tests on Linux."""

import os
from typing import Any, List

import pytest
from paths import ROOT

ON_DARWIN = os.environ.get("ALEXCHAT_PLATFORM") == "darwin"
# `lo` (it is called lo0 there, and is refused), `ip link`, capabilities, and sudo, which lets no PYTHONPATH through.
SCRIPTS = [name for name in os.listdir(ROOT) if name.startswith(("node", "send_", "alex"))]
LINUX_ONLY = ("[lo", "-lo", "cannot_be_used", "without_the_right", "as_nobody", "signals_end_what_waits")


@pytest.fixture(autouse=True, scope="session")
def platform(tmp_path_factory: Any) -> None:
    """Put the emulation where every Python looks when it starts."""
    if ON_DARWIN:
        folder = tmp_path_factory.mktemp("darwin")
        (folder / "sitecustomize.py").symlink_to(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fakebsd.py"))
        os.environ.update(PYTHONPATH=str(folder), FAKEBSD_DIR=str(folder), FAKEBSD_ONLY=",".join(SCRIPTS))


def pytest_collection_modifyitems(items: List[Any]) -> None:
    """Leave out what Darwin does not have."""
    for item in items if ON_DARWIN else ():
        if any(mark in item.name for mark in LINUX_ONLY):
            item.add_marker(pytest.mark.skip(reason="Linux's alone"))
