"""The generator of random systems: reproducible, valid, and hard enough to be worth comparing on."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from oracles.llm_client import simulate_llm_client
from oracles.random_systems import RandomSystem, random_system, random_systems

from hermes_flow.compiler.program import PS_PER_NS


@settings(deadline=None)
@given(random_systems())
def test_a_drawn_system_is_valid(system: RandomSystem) -> None:
    spec, requests = system.spec, system.requests
    assert 1 <= spec.max_num_seqs <= min(16, spec.max_num_batched_tokens)
    assert 1 <= spec.block_size <= 16
    assert 1 <= len(requests) <= 40
    assert [request.arrival_ns for request in requests] == sorted(request.arrival_ns for request in requests)
    for request in requests:
        assert (request.prompt + request.output) <= spec.kv_blocks * spec.block_size
        assert request.prompt + request.output < len(spec.cost.tokens_ps)
    assert len(spec.cost.tokens_ps) > spec.max_num_batched_tokens
    assert len(spec.cost.sequences_ps) == len(spec.cost.decode_attention_ps) == spec.max_num_seqs + 1
    assert min(spec.cost.tokens_ps[1:]) > 0


def test_a_seed_gives_the_same_system_again() -> None:
    assert random_system(random.Random(3)) == random_system(random.Random(3))
    assert random_system(random.Random(3)) != random_system(random.Random(4))


@pytest.mark.parametrize("batching", ["chunked", "continuous"])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_policy_and_lookahead_can_be_fixed(batching: str, lookahead: int) -> None:
    specs = [random_system(random.Random(seed), batching, lookahead).spec for seed in range(20)]
    assert {(spec.batching, spec.lookahead) for spec in specs} == {(batching, lookahead)}


def test_many_random_systems_preempt_and_tie_and_idle() -> None:
    systems = 400
    counts: Counter[str] = Counter()
    for seed in range(systems):
        system = random_system(random.Random(seed))
        cost = system.spec.cost
        result = simulate_llm_client(system.spec, system.requests)
        arrivals = [request.arrival_ns for request in system.requests]
        visible_ps = {(arrival + cost.ingest_ns) * PS_PER_NS for arrival in arrivals}
        ends_ps = [step.end_ps for step in result.steps]
        starts_ps = [step.start_ps for step in result.steps]
        counts["preempts"] += any(result.preemptions)
        counts["arrivals tie"] += len(set(arrivals)) < len(arrivals)
        counts["an arrival ties with the end of a step"] += not visible_ps.isdisjoint(ends_ps)
        counts["idles between steps"] += any(
            start > end for end, start in zip(ends_ps, starts_ps[1:], strict=False)
        )
        counts["pairs cost"] += cost.prefill_pair_ps > 0
        counts["ingest"] += cost.ingest_ns > 0
    assert counts["preempts"] > 0.4 * systems
    assert counts["arrivals tie"] > 0.8 * systems
    assert counts["an arrival ties with the end of a step"] > 0.12 * systems
    assert counts["idles between steps"] > 0.2 * systems
    assert counts["pairs cost"] > 0.2 * systems
    assert counts["ingest"] > 0.3 * systems
