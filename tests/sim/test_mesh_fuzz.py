"""A sample of the loop fuzzer in every test run; thousands of seeds: python tests/sim/fuzz_mesh.py --seeds 1000."""

import pytest
from fuzz_mesh import KINDS, outcome, run


@pytest.mark.parametrize("seed", range(20))
def test_random_mesh_keeps_the_invariants(seed: int) -> None:
    assert run(seed) > 500


FIRST_SEEN = {"transit": 12, "exact next hops": 5}  # the seed that shows it; the others are seen by one of the first


@pytest.mark.parametrize("without", [kind for kind in KINDS if kind])
def test_the_fuzzer_sees_that_a_rule_is_missing(without: str) -> None:
    first = FIRST_SEEN.get(without, 0)
    assert any(outcome(seed, without)[1] for seed in range(first, first + 60))
