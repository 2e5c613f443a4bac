"""A slice of the exhaustive search, the whole of its closings; all of it: `python tests/sim/explore_stream.py`."""

import itertools
from typing import Tuple

import explore_stream
import pytest
from explore_stream import Budget, closings, expected, plans


@pytest.mark.parametrize(
    ("segments", "budget"), [((2, 0), Budget(1, 0, 0)), ((1, 1), Budget(2, 0, 0)), ((1, 0), Budget(1, 1, 0))], ids=str
)
def test_every_schedule_of_a_short_stream(segments: Tuple[int, int], budget: Budget) -> None:
    count = explore_stream.schedules(segments, budget)
    assert count["states"] > 80
    assert count["ends"] > 40


def test_every_plan_of_one_fault_and_some_of_three() -> None:
    for plan in itertools.chain(plans(20, 1), itertools.islice(plans(20, 3), 61, None, 150)):
        assert explore_stream.run_plan(plan) < 2.0, plan


def test_there_are_32551_plans() -> None:
    """The sum over k <= 3 of C(20, k) * 3**k."""
    assert sum(1 for _ in plans(20, 3)) == 32551


@pytest.mark.parametrize(("one", "other", "order"), list(closings()))
def test_every_closing(one: str, other: str, order: str) -> None:
    told = explore_stream.close(one, other, order)
    assert told[0] in expected(one, other, order, 0)
    assert told[1] in expected(other, one, order, 1)
