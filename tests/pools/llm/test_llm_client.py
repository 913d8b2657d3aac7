"""The LLM client against the naive per-step oracle: every instant equal, preemption and cache hits included."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import compress

import pytest
from hypothesis import given, settings
from oracles.client_runs import copying_takes_time, run_alone, some_loaded, some_prefilled
from oracles.llm_client import PLAIN, OraclePolicy, OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system, random_systems
from tries import tries

from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.tasks import LLMTasks

BATCHINGS = ["chunked", "continuous", "mixed", "static"]
PACKINGS = ["shortest_prompt", "least_work_left", "priority", "earliest_deadline"]


def check_equal(system: RandomSystem, client: LLMClient, tasks: LLMTasks, expected: OracleResult) -> None:
    count = len(system.requests)
    here = [
        not request.prefilled for request in system.requests
    ]  # the others had their first token elsewhere
    for ours, theirs in (
        (tasks.start_ps, expected.start_ps),
        (tasks.first_ps, expected.first_ps),
        ([tasks.cached.get(task, 0) for task in range(count)], expected.cached_tokens),
    ):
        assert [*compress(ours, here)] == [*compress(theirs, here)]
    assert list(tasks.finish_ps) == expected.finish_ps
    assert [tasks.preemptions.get(task, 0) for task in range(count)] == expected.preemptions
    rows = client.segments().tolist()
    assert sum(row[2] for row in rows) == len(expected.steps)
    assert client.batch.free == system.spec.kv_blocks
    assert not client.batch.running
    assert not client.waiting
    assert client.batch.backlog == 0
    if system.spec.batching != "static":
        tokens = sum(row[2] * row[3] + row[5] for row in rows)
        assert tokens == sum(sum(step.tokens.values()) for step in expected.steps)
        assert client.batch.peak == max(step.used_blocks_after_planning for step in expected.steps)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", BATCHINGS)
def test_equals_the_naive_oracle_on_many_random_systems(batching: str, lookahead: int) -> None:
    rng = random.Random(20_000 + lookahead)
    systems = tries(80, of=250) if batching in ("chunked", "continuous") else tries(40, of=100)
    preempting = 0
    for _ in range(systems):
        system = random_system(rng, batching=batching, lookahead=lookahead)
        client, tasks = run_alone(LLMClient, system)
        check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests))
        preempting += bool(tasks.preemptions)
    assert preempting > systems // 4 or batching == "static"  # the draw does exercise preemption


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize(
    "policy",
    [
        OraclePolicy(prefix_cache=True),
        OraclePolicy(preemption="none"),
        OraclePolicy(preemption="swap", swap_ps_per_block=1),
        *(OraclePolicy(packing=packing) for packing in PACKINGS),
        OraclePolicy(packing="priority", prefix_cache=True),
        OraclePolicy(preemption="none", prefix_cache=True),
        OraclePolicy(preemption="swap", swap_ps_per_block=1, prefix_cache=True),
        OraclePolicy(packing="priority", preemption="swap", swap_ps_per_block=1, prefix_cache=True),
        OraclePolicy(packing="shortest_prompt", preemption="swap", swap_ps_per_block=1),
    ],
    ids=lambda policy: f"{policy.packing}-{policy.preemption}{'-prefix' if policy.prefix_cache else ''}",
)
def test_equals_the_naive_oracle_under_every_policy(
    batching: str, lookahead: int, policy: OraclePolicy
) -> None:
    rng = random.Random(f"{batching}{lookahead}{policy}")
    systems = tries(10, of=40)
    hits = 0
    for _ in range(systems):
        system = random_system(rng, batching=batching, lookahead=lookahead, policy=policy)
        system = copying_takes_time(system)
        client, tasks = run_alone(LLMClient, system)
        check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests, system.policy))
        hits += bool(tasks.cached)
    assert hits > systems // 6 or not policy.prefix_cache


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("preemption", ["recompute", "none", "swap"])
@pytest.mark.parametrize("packing", ["fcfs", "priority"])
def test_what_came_from_elsewhere_and_what_is_found_share_blocks_as_in_the_naive_client(
    batching: str, lookahead: int, preemption: str, packing: str
) -> None:
    """Whole prompts that another client has computed, and beginnings that were retrieved."""
    rng = random.Random(f"{batching}{lookahead}{preemption}{packing}")
    policy = OraclePolicy(preemption=preemption, packing=packing, prefix_cache=True)
    spared = 0
    for _ in range(tries(16, of=60)):
        system = copying_takes_time(random_system(rng, batching, lookahead, policy=policy))
        system = some_loaded(some_prefilled(system, lambda: rng.random() < 0.5), rng)
        client, tasks = run_alone(LLMClient, system)
        expected = simulate_llm_client(system.spec, system.requests, system.policy)
        check_equal(system, client, tasks, expected)
        alone = [replace(request, block_keys=()) for request in system.requests]
        apart = simulate_llm_client(system.spec, alone, system.policy)
        used, unshared = (
            sum(step.used_blocks_after_planning for step in run.steps) for run in (expected, apart)
        )
        spared += used < unshared
    assert spared > 4  # blocks are shared


@pytest.mark.parametrize("packing", PACKINGS)
def test_gangs_form_in_packing_order(packing: str) -> None:
    rng = random.Random(5)
    for _ in range(tries(12, of=50)):
        system = random_system(rng, batching="static", policy=OraclePolicy(packing=packing))
        client, tasks = run_alone(LLMClient, system)
        check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests, system.policy))


@settings(max_examples=tries(24, of=100))
@given(system=random_systems())
def test_equals_the_naive_oracle(system: RandomSystem) -> None:
    assert system.policy == PLAIN
    client, tasks = run_alone(LLMClient, system)
    check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests))


def test_looking_at_a_client_does_not_change_what_it_does() -> None:
    rng = random.Random(7)
    for _ in range(tries(24, of=100)):
        policy = OraclePolicy(prefix_cache=rng.random() < 0.5)
        system = random_system(rng, batching=rng.choice(BATCHINGS[:3]), policy=policy)
        unseen_client, unseen = run_alone(LLMClient, system)
        seen_client, seen = run_alone(LLMClient, system, looks=rng)
        assert seen.finish_ps == unseen.finish_ps
        assert seen.first_ps == unseen.first_ps
        assert seen_client.segments().tolist() == unseen_client.segments().tolist()
