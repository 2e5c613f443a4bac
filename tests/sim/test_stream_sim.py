"""The cells of the simulator's table, a few seeds each; `python tests/sim/stream_table.py` runs them at length."""

import os
from typing import Any, Dict

import pytest
import stream_table
import streamsim

CELLS = [
    pytest.param(cell, id=cell.name, marks=() if cell.seeds else pytest.mark.slow) for cell in stream_table.cells()
]
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stream_table.txt")
CHEAP = ("loss 5 %", "loss 10 %", "RTT 0.05 ms", "queue 32", "reorder 5 % by 5 RTT", "partition 1 s", "chat")


@pytest.mark.parametrize("cell", CELLS)
def test_cell(cell: stream_table.Cell) -> None:
    runs = [cell.run(seed) for seed in streamsim.seeds(cell.seeds or 1)]
    for bound in cell.bounds:
        assert bound.is_kept(runs), f"{bound.describe()}: {bound.measure(runs)}"


def test_the_table_is_the_one_that_was_written_down() -> None:
    """Same seeds, same figures: a change of any is a change of the protocol's behaviour, and is looked at.

    If it was meant: python tests/sim/stream_table.py --seeds 20 --golden
    """
    with open(GOLDEN) as file:
        written = file.read().splitlines()
    for cell in stream_table.cells():
        if cell.name.startswith(CHEAP):
            lines = stream_table.fingerprint(cell)
            assert lines == [line for line in written if line.startswith(f"{cell.name:24s} seed")]
            assert lines


@pytest.mark.parametrize("seconds", [0.2, 1, 10, 100])
def test_an_outage_that_swallows_the_last_fin_is_no_error(seconds: float) -> None:
    """All was said and acknowledged but one FIN; its sender may have given up repeating it, the other hears of it."""
    with streamsim.Simulator(1) as sim:
        one, other = sim.host(), sim.host()
        cable = sim.join(one, other)
        asker = one.open(other, stream_table.PORT, b"question")
        other.listen(
            stream_table.PORT, lambda session: streamsim.Program(other, session, b"answer", finish=False, partner=asker)
        )
        assert sim.run(5.0, until=lambda: asker.received == b"answer" and other.accepted[0].session.acked == 6)
        cable.set_up(False)
        answerer = other.accepted[0]
        answerer.session.finish()
        sim.after(0, other.step)
        sim.run(seconds)
        cable.set_up(True)
        assert sim.run(70.0, until=lambda: asker.is_over() and answerer.is_over())
        for program in (asker, answerer):
            assert program.closed is not None
            assert program.closed.reason == "finished", program.closed
        assert asker.ended_at is not None


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
