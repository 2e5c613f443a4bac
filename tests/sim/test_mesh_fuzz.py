"""A sample of the loop fuzzer in every test run; thousands of seeds: python tests/sim/fuzz_mesh.py --seeds 1000."""

import pytest
from fuzz_mesh import KINDS, outcome, run


@pytest.mark.parametrize("seed", range(20))
def test_random_mesh_keeps_the_invariants(seed: int) -> None:
    assert run(seed) > 500


@pytest.mark.parametrize("without", [kind for kind in KINDS if kind])
def test_the_fuzzer_sees_that_a_rule_is_missing(without: str) -> None:
    assert any(outcome(seed, without)[1] for seed in range(60))
