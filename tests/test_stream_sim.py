"""The cells of the simulator's table, a few seeds each; `python tests/stream_table.py` runs them at length."""

from typing import Any, Dict

import pytest
import stream_table
import streamsim

CELLS = stream_table.cells()


@pytest.mark.parametrize("cell", CELLS, ids=[cell.name for cell in CELLS])
def test_cell(cell: stream_table.Cell) -> None:
    runs = [cell.run(seed) for seed in streamsim.seeds(cell.seeds)]
    for bound in cell.bounds:
        assert bound.is_kept(runs), f"{bound.describe()}: {bound.measure(runs)}"


@pytest.mark.parametrize(
    "link",
    [
        {"loss": 0.1},
        {"loss": 0.3},
        {"reorder": 0.2, "reorder_by": 0.002},
        {"duplicate": 0.5, "loss": 0.1},
        {"corrupt": 0.2},
        {"bursts": (0.01, 0.003), "queue": 20},
    ],
    ids=str,
)
def test_every_step_keeps_the_invariants(link: Dict[str, Any]) -> None:
    for seed in streamsim.seeds(2):
        stream_table.transfer(seed, size=200000, checked=True, **link)
