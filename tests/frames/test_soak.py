"""The soak of soak_stream.py, for some seconds only (root, Linux)."""

import pytest
import soak_stream
from lab import Lab
from test_real_frames import lab as lab_fixture

pytestmark = pytest.mark.root
lab = lab_fixture


def test_streams_survive_every_fault_at_once(lab: Lab) -> None:
    assert soak_stream.soak(lab, 10, seed=2) == []
