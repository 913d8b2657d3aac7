"""The LLM client against the naive per-step oracle: every instant equal, preemption and cache hits included."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from oracles.llm_client import PLAIN, OraclePolicy, OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system, random_systems

from hermes_flow.batching import batching_policies
from hermes_flow.batching.packing import packing_orders
from hermes_flow.clients.llm import LLMClient
from hermes_flow.clients.tasks import LLMTasks
from hermes_flow.engine.loop import NEVER

BATCHINGS = ["chunked", "continuous", "mixed", "static"]
PACKINGS = ["shortest_prompt", "least_work_left", "priority", "earliest_deadline"]


def run_client(system: RandomSystem, *, looks: random.Random | None = None) -> tuple[LLMClient, LLMTasks]:
    """Run the fast client; with ``looks``, somebody reads its load at random instants in between."""
    requests = system.requests
    keys = {key: number for number, key in enumerate({key for r in requests for key in r.block_keys})}
    by_deadline = system.policy.packing == "earliest_deadline"
    tasks = LLMTasks(
        prompt=[r.prompt for r in requests],
        output=[r.output for r in requests],
        # A deadline belongs to a priority class: here every request is a class of its own.
        priority=list(range(len(requests))) if by_deadline else [r.priority for r in requests],
        block_keys=lambda task, size, prompt: [keys[key] for key in requests[task].block_keys],
    )
    policy = batching_policies.find(system.spec.batching, "batching")()
    client = LLMClient(0, full_spec(system), tasks, policy, lambda task, now: None, notify=False)
    for task, request in enumerate(requests):
        client.submit(task, request.arrival_ns)
        if looks is not None and looks.random() < 0.7:
            client.outstanding(request.arrival_ns)
            client.queued_tokens(request.arrival_ns)
    client.settle(NEVER)
    return client, tasks


def full_spec(system: RandomSystem) -> Any:
    policy = system.policy
    order: dict[str, Any] = {"order": policy.packing}
    if policy.packing == "priority":
        order["age_s"] = policy.age_ns / 1e9
    if policy.packing == "earliest_deadline":
        order["deadline_ms"] = {i: max(r.deadline_ns, 1e-3) / 1e6 for i, r in enumerate(system.requests)}
    return replace(
        system.spec,
        packing=None if policy.packing == "fcfs" else packing_orders.parse(order, "packing"),
        preemption=policy.preemption,
        swap_ps_per_block=policy.swap_ps_per_block,
        prefix_cache=policy.prefix_cache,
    )


def check_equal(system: RandomSystem, client: LLMClient, tasks: LLMTasks, expected: OracleResult) -> None:
    count = len(system.requests)
    assert tasks.start_ps == expected.start_ps
    assert tasks.first_ps == expected.first_ps
    assert tasks.finish_ps == expected.finish_ps
    assert [tasks.preemptions.get(task, 0) for task in range(count)] == expected.preemptions
    assert [tasks.cached.get(task, 0) for task in range(count)] == expected.cached_tokens
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
    systems = 1000 if batching in ("chunked", "continuous") else 400
    preempting = 0
    for _ in range(systems):
        system = random_system(rng, batching=batching, lookahead=lookahead)
        client, tasks = run_client(system)
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
        OraclePolicy(packing="shortest_prompt", preemption="swap", swap_ps_per_block=1),
    ],
    ids=lambda policy: f"{policy.packing}-{policy.preemption}{'-prefix' if policy.prefix_cache else ''}",
)
def test_equals_the_naive_oracle_under_every_policy(
    batching: str, lookahead: int, policy: OraclePolicy
) -> None:
    rng = random.Random(f"{batching}{lookahead}{policy}")
    hits = 0
    for _ in range(120):
        system = random_system(rng, batching=batching, lookahead=lookahead, policy=policy)
        if policy.preemption == "swap":  # a copy takes time: a step of copies alone is not instantaneous
            copying = replace(system.policy, swap_ps_per_block=system.policy.swap_ps_per_block or 1)
            system = replace(system, policy=copying)
        client, tasks = run_client(system)
        check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests, system.policy))
        hits += bool(tasks.cached)
    assert hits > 20 or not policy.prefix_cache


@pytest.mark.parametrize("packing", PACKINGS)
def test_gangs_form_in_packing_order(packing: str) -> None:
    rng = random.Random(5)
    for _ in range(100):
        system = random_system(rng, batching="static", policy=OraclePolicy(packing=packing))
        client, tasks = run_client(system)
        check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests, system.policy))


@settings(max_examples=150, deadline=None)
@given(system=random_systems())
def test_equals_the_naive_oracle(system: RandomSystem) -> None:
    assert system.policy == PLAIN
    client, tasks = run_client(system)
    check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests))


def test_looking_at_a_client_does_not_change_what_it_does() -> None:
    rng = random.Random(7)
    for _ in range(300):
        policy = OraclePolicy(prefix_cache=rng.random() < 0.5)
        system = random_system(rng, batching=rng.choice(BATCHINGS[:3]), policy=policy)
        unseen_client, unseen = run_client(system)
        seen_client, seen = run_client(system, looks=rng)
        assert seen.finish_ps == unseen.finish_ps
        assert seen.first_ps == unseen.first_ps
        assert seen_client.segments().tolist() == unseen_client.segments().tolist()
