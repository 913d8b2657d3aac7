"""The generator of random systems: reproducible, valid, and hard enough to be worth comparing on."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from oracles.llm_client import OraclePolicy, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system, random_systems
from tries import tries

from hermes_flow.program.units import PS_PER_NS


@given(random_systems())
def test_a_drawn_system_is_valid(system: RandomSystem) -> None:
    assert_valid(system)


def assert_valid(system: RandomSystem) -> None:
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


@given(random_systems(policy=OraclePolicy(packing="priority", preemption="swap", prefix_cache=True)))
def test_a_system_drawn_for_a_policy_is_valid_and_has_what_the_policy_asks_for(system: RandomSystem) -> None:
    for request in system.requests:
        assert len(request.block_keys) * system.spec.block_size <= request.prompt
        assert request.block_keys in [
            tuple((family, block) for block in range(len(request.block_keys))) for family in range(1, 5)
        ]
    assert system.policy.swap_ps_per_block >= 0
    assert_valid(system)


@pytest.mark.parametrize("prefix_cache", [False, True])
@pytest.mark.parametrize("preemption", ["recompute", "swap", "none"])
@pytest.mark.parametrize("batching", ["chunked", "mixed", "continuous"])
def test_every_combination_of_policies_serves_every_request_one_step_after_the_other(
    batching: str, preemption: str, prefix_cache: bool
) -> None:
    packings = ["fcfs", "shortest_prompt", "least_work_left", "priority", "earliest_deadline"]
    preempting = 0
    for seed in range(40):
        policy = OraclePolicy(packings[seed % 5], preemption, prefix_cache=prefix_cache)
        system = random_system(random.Random(seed), batching, policy=policy)
        result = simulate_llm_client(system.spec, system.requests, system.policy)
        for before, after in pairwise(result.steps):
            assert after.start_ps >= before.end_ps
        for start, first, finish in zip(result.start_ps, result.first_ps, result.finish_ps, strict=True):
            assert start < first <= finish <= result.steps[-1].end_ps
        preempting += any(result.preemptions)
    assert preempting == 0 if preemption == "none" else preempting > 10


def test_many_random_systems_swap_in_every_way() -> None:
    systems = tries(80, of=150)
    counts: Counter[str] = Counter()
    for seed in range(systems):
        system = random_system(random.Random(seed), policy=OraclePolicy(preemption="swap"))
        result = simulate_llm_client(system.spec, system.requests, system.policy)
        copied = [step for step in result.steps if step.copied_blocks]
        counts["copies"] += bool(copied)
        counts["copies cost"] += bool(copied) and system.policy.swap_ps_per_block > 0
        counts["nothing but copies"] += any(not step.tokens for step in copied)
        counts["copies beside tokens"] += any(step.tokens for step in copied)
    assert counts["copies"] > 0.3 * systems
    assert counts["copies cost"] > 0.2 * systems
    # Only look-ahead plans such a step, while every other running sequence has its last token in flight.
    assert counts["nothing but copies"] > 0.03 * systems
    assert counts["copies beside tokens"] > 0.3 * systems


def test_many_random_systems_preempt_and_tie_and_idle() -> None:
    systems = tries(150, of=400)
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
