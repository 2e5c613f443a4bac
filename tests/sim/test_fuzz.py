"""A few thousand inputs of each fuzzer in every test run, the corpus; for hours: python tests/sim/fuzz_stream.py."""

import random

import pytest
from fuzz_stream import RULES, TARGETS, run_randomly, scramble, starting_inputs
from test_stream_machine import StreamMachine

import alexstream
import protocol

COUNTS = {"segment": 4000, "frame": 4000, "endpoint": 1000, "router": 1000, "schedule": 100}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_random_inputs_do_no_harm(name: str) -> None:
    assert run_randomly(name, seed=1, count=COUNTS[name]) == COUNTS[name]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_corpus_does_no_harm(name: str) -> None:
    for data in starting_inputs(name):
        TARGETS[name].run(data)


def test_schedule_knows_every_rule_of_the_state_machine() -> None:
    marked = [name for name, rule in vars(StreamMachine).items() if hasattr(rule, "hypothesis_stateful_rule")]
    assert sorted(marked) == sorted(RULES)


@pytest.mark.parametrize("name", ["endpoint", "router"])
def test_mutated_inputs_reach_what_is_behind_the_checksum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If none were valid, nothing would be tested: half of the mutated conversations still move the machine."""
    target, rng = TARGETS[name], random.Random(1)
    reached = []
    if name == "endpoint":
        monkeypatch.setattr(alexstream.Session, "_hear", lambda self, now: reached.append(now))
    else:
        monkeypatch.setattr(protocol.Neighbours, "_update", lambda self, n, h, now: reached.append(now))
    inputs = starting_inputs(name)
    for _ in range(200):
        target.run(target.mutate(rng.choice(inputs), rng, lambda part: scramble(part, rng)))
    assert len(reached) > 100
