"""What all tests share: the path to the modules, and how hypothesis chooses its examples."""

import os

import paths  # noqa: F401  # pytest put this folder on the path
from hypothesis import HealthCheck, settings

for name in ("SUDO_UID", "SUDO_GID", "SUDO_USER"):
    os.environ.pop(name, None)  # `sudo pytest`: the programs under test would become that user

# `quick`, the default: a few examples. `ci`: more, the same in every run, so that a red run means a changed program.
# `search`: new ones each time; `deep`: as many as a night takes, each far longer.
QUIET = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", QUIET, derandomize=True, max_examples=200)
settings.register_profile("quick", QUIET, derandomize=True, max_examples=20)
settings.register_profile("search", QUIET, max_examples=5000)
settings.register_profile("deep", QUIET, max_examples=20000, stateful_step_count=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

pytest_plugins = ["desk", "darwin"]  # fixtures of the mesh tests; the platform of those on real frames
