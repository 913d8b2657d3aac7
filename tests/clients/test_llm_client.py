"""The LLM client against the naive per-step oracle: every instant equal, preemption included."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from oracles.llm_client import OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system, random_systems

from hermes_flow.batching import batching_policies
from hermes_flow.clients.batch import LLMTasks
from hermes_flow.clients.llm import LLMClient
from hermes_flow.engine.loop import NEVER

SYSTEMS_PER_POLICY = 1500


def run_client(system: RandomSystem, *, looks: random.Random | None = None) -> tuple[LLMClient, LLMTasks]:
    """Run the fast client; with ``looks``, somebody reads its load at random instants in between."""
    tasks = LLMTasks([r.prompt for r in system.requests], [r.output for r in system.requests])
    policy = batching_policies.find(system.spec.batching, "batching")()
    client = LLMClient(0, system.spec, tasks, policy, lambda task, now: None, notify=False)
    for task, request in enumerate(system.requests):
        client.submit(task, request.arrival_ns)
        if looks is not None and looks.random() < 0.7:
            client.outstanding(request.arrival_ns)
            client.queued_tokens(request.arrival_ns)
    client.settle(NEVER)
    return client, tasks


def sorted_steps(client: LLMClient) -> list[list[int]]:
    return client.segments().tolist()


def check_equal(system: RandomSystem, client: LLMClient, tasks: LLMTasks, expected: OracleResult) -> None:
    assert tasks.start_ps == expected.start_ps
    assert tasks.first_ps == expected.first_ps
    assert tasks.finish_ps == expected.finish_ps
    preemptions = [tasks.preemptions.get(task, 0) for task in range(len(system.requests))]
    assert preemptions == expected.preemptions
    rows = client.segments().tolist()
    assert sum(row[2] for row in rows) == len(expected.steps)
    assert sum(row[2] * row[3] + row[5] for row in rows) == sum(
        sum(step.tokens.values()) for step in expected.steps
    )
    assert client.batch.peak == max(step.used_blocks_after_planning for step in expected.steps)
    assert client.batch.free == system.spec.kv_blocks
    assert not client.batch.running
    assert client.batch.backlog == 0


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous"])
def test_equals_the_naive_oracle_on_thousands_of_random_systems(batching: str, lookahead: int) -> None:
    rng = random.Random(20_000 + lookahead)
    preempting = 0
    for _ in range(SYSTEMS_PER_POLICY):
        system = random_system(rng, batching=batching, lookahead=lookahead)
        expected = simulate_llm_client(system.spec, system.requests)
        client, tasks = run_client(system)
        check_equal(system, client, tasks, expected)
        preempting += bool(tasks.preemptions)
    assert preempting > SYSTEMS_PER_POLICY // 4  # the draw does exercise preemption


@settings(max_examples=150, deadline=None)
@given(system=random_systems())
def test_equals_the_naive_oracle(system: RandomSystem) -> None:
    client, tasks = run_client(system)
    check_equal(system, client, tasks, simulate_llm_client(system.spec, system.requests))


def test_looking_at_a_client_does_not_change_what_it_does() -> None:
    rng = random.Random(7)
    for _ in range(300):
        system = random_system(rng)
        unseen_client, unseen = run_client(system)
        seen_client, seen = run_client(system, looks=rng)
        assert seen.finish_ps == unseen.finish_ps
        assert seen.first_ps == unseen.first_ps
        assert sorted_steps(seen_client) == sorted_steps(unseen_client)
