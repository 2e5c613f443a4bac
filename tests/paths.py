"""Where the tests lie: importing this module makes those of all folders here, and of the project, importable."""

import os
import sys

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)
FOLDERS = ("unit", "stream", "mesh", "apps", "sim", "frames", "bench", "tools")
sys.path[:0] = [ROOT, *(os.path.join(TESTS, name) for name in FOLDERS)]
