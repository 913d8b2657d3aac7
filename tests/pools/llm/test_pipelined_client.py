"""A client with pipeline parallelism against the naive one: every step of every micro-batch in its place."""

from __future__ import annotations

import random
from itertools import compress, pairwise

import pytest
from hypothesis import given, settings
from oracles.client_runs import (
    check_prefilled_elsewhere,
    copying_takes_time,
    gaps_between,
    recorded_gaps,
    run_alone,
)
from oracles.llm_client import OraclePolicy, simulate_llm_client
from oracles.llm_pipeline import PipelineResult, simulate_pipeline
from oracles.random_pipelines import random_pipeline, random_pipelines
from oracles.random_systems import RandomSystem, random_system
from tries import tries

from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.llm.tasks import LLMTasks

BATCHINGS = ["chunked", "continuous", "mixed"]
PACKINGS = ["shortest_prompt", "least_work_left", "priority", "earliest_deadline"]
POLICIES = [
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="none"),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    *(OraclePolicy(packing=packing) for packing in PACKINGS),
    OraclePolicy(packing="priority", prefix_cache=True),
    OraclePolicy(preemption="none", prefix_cache=True),
    OraclePolicy(preemption="swap", swap_ps_per_block=1, prefix_cache=True),
    OraclePolicy(packing="priority", preemption="swap", swap_ps_per_block=1, prefix_cache=True),
    OraclePolicy(packing="least_work_left", preemption="swap", swap_ps_per_block=1),
]


def named(policy: OraclePolicy) -> str:
    return f"{policy.packing}-{policy.preemption}{'-prefix' if policy.prefix_cache else ''}"


def compare(system: RandomSystem) -> tuple[LLMTasks, PipelineResult]:
    """Run both and check that nothing differs."""
    client, tasks = run_alone(PipelinedClient, system)
    expected = simulate_pipeline(system.spec, system.requests, system.policy)
    check_steps(client, expected)
    check_requests(system, tasks, expected)
    assert recorded_gaps(client, system.spec.cost.context_ps) == gaps_between(system, expected.emitted_ps)
    assert client.busy_ps == expected.busy_ps // system.spec.pipeline_ranks
    assert max(batch.peak for batch in client.batches) == expected.peak_blocks
    check_nothing_is_left(client)
    return tasks, expected


def check_steps(client: PipelinedClient, expected: PipelineResult) -> None:
    for number, rows in enumerate(client.lanes()):
        steps = [row[:6] for row in rows.tolist() if row[2]]
        assert steps == [
            [
                passage.start_ps,
                passage.exit_ps,
                1,
                len(passage.plan.decode_contexts),
                sum(passage.plan.decode_contexts),
                sum(chunk for chunk, _ in passage.plan.prefills),
            ]
            for passage in expected.passages
            if passage.micro_batch == number
        ]


def check_requests(system: RandomSystem, tasks: LLMTasks, expected: PipelineResult) -> None:
    count = len(system.requests)
    came = [request.prefilled for request in system.requests]
    first_ps = [-1 if elsewhere else first for elsewhere, first in zip(came, tasks.first_ps, strict=True)]
    assert first_ps == expected.first_ps
    assert list(tasks.finish_ps) == expected.finish_ps
    if not any(came) or system.spec.batching != "continuous":  # there, who has entered waits for prompts
        assert list(tasks.start_ps) == expected.start_ps
    assert [tasks.preemptions.get(task, 0) for task in range(count)] == expected.preemptions
    here = [not elsewhere for elsewhere in came]
    cached = [tasks.cached.get(task, 0) for task in range(count)]
    assert [*compress(cached, here)] == [*compress(expected.cached_tokens, here)]


def check_nothing_is_left(client: PipelinedClient) -> None:
    assert not client.waiting
    assert not any(batch.running or batch.decodes or batch.context for batch in client.batches)
    assert sum(batch.backlog for batch in client.batches) == 0
    held = [batch.free for batch in client.batches if batch.free == batch.blocks]
    assert held, "the batch that planned last knows that all blocks are free"


def test_a_stage_serves_one_micro_batch_at_a_time_and_in_order() -> None:
    rng = random.Random(1)
    for _ in range(tries(25, of=40)):
        system = random_pipeline(rng)
        passages = simulate_pipeline(system.spec, system.requests).passages
        for earlier, later in pairwise(passages):
            for (_, leave_ps), (enter_ps, _) in zip(earlier.stages, later.stages, strict=True):
                assert leave_ps <= enter_ps
        for passage in passages:
            assert passage.planned_ps <= passage.start_ps
            for (_, leave_ps), (enter_ps, _) in pairwise(passage.stages):
                assert leave_ps + passage.hop_ps <= enter_ps


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("batching", BATCHINGS)
def test_equals_the_naive_pipeline_on_many_random_systems(batching: str, stages: int) -> None:
    rng = random.Random(f"{batching}{stages}")
    systems = tries(10, of=40)
    preempting = full = following = 0
    for _ in range(systems):
        tasks, expected = compare(random_pipeline(rng, batching, stages=stages))
        preempting += bool(tasks.preemptions)
        full += most_in_flight(expected) == stages
        following += chunks_follow_each_other(expected)
    assert preempting > systems // 4
    assert full > systems // 16
    assert following > systems // 8 or batching != "chunked"


def most_in_flight(expected: PipelineResult) -> int:
    exits_ps: list[int] = []  # of those in flight, in order
    most = 0
    for passage in expected.passages:
        exits_ps = [exit_ps for exit_ps in exits_ps if exit_ps > passage.planned_ps] + [passage.exit_ps]
        most = max(most, len(exits_ps))
    return most


def chunks_follow_each_other(expected: PipelineResult) -> bool:
    """Tell whether a chunk of a prompt was ever planned while the one before it was still on its way."""
    last_exit_ps: dict[int, int] = {}
    for passage in expected.passages:
        for index in passage.plan.tokens:
            if passage.planned_ps < last_exit_ps.get(index, 0):
                return True
            last_exit_ps[index] = passage.exit_ps
    return False


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("policy", POLICIES, ids=named)
def test_equals_the_naive_pipeline_under_every_policy(batching: str, policy: OraclePolicy) -> None:
    rng = random.Random(f"{batching}{policy}")
    systems = tries(7, of=16)
    hits = preempting = 0
    for _ in range(systems):
        tasks, _ = compare(copying_takes_time(random_pipeline(rng, batching, policy)))
        hits += bool(tasks.cached)
        preempting += bool(tasks.preemptions)
    assert hits > systems // 8 or not policy.prefix_cache
    assert (preempting == 0) if policy.preemption == "none" else (preempting > systems // 4)


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("preemption", ["recompute", "none", "swap"])
@pytest.mark.parametrize("cached", [False, True], ids=["", "prefix"])
def test_sequences_that_were_prefilled_elsewhere_join_as_in_the_naive_pipeline(
    batching: str, preemption: str, cached: bool
) -> None:
    rng = random.Random(f"{batching}{preemption}")
    policy = OraclePolicy(preemption=preemption, prefix_cache=cached)
    check_prefilled_elsewhere(lambda: random_pipeline(rng, batching, policy), compare, rng, 20)


@settings(max_examples=40)
@given(system=random_pipelines())
def test_equals_the_naive_pipeline(system: RandomSystem) -> None:
    tasks, expected = compare(system)
    assert list(tasks.finish_ps) == expected.finish_ps
    assert list(tasks.first_ps) == expected.first_ps


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("policy", [OraclePolicy(), *POLICIES[:3]], ids=named)
def test_a_pipeline_of_one_stage_is_a_client_without_look_ahead(batching: str, policy: OraclePolicy) -> None:
    rng = random.Random(f"{batching}{policy}")
    for _ in range(20):
        system = copying_takes_time(random_system(rng, batching, lookahead=0, policy=policy))
        plain, expected = run_alone(LLMClient, system)
        client, tasks = run_alone(PipelinedClient, system)
        for column in ("start_ps", "first_ps", "finish_ps", "preemptions", "cached"):
            assert getattr(tasks, column) == getattr(expected, column)
        assert client.busy_ps == plain.busy_ps
        assert client.batches[0].peak == plain.batch.peak
        context_ps = system.spec.cost.context_ps
        assert recorded_gaps(client, context_ps) == recorded_gaps(plain, context_ps)


def test_the_naive_pipeline_of_one_stage_is_the_naive_client() -> None:
    rng = random.Random(8)
    for _ in range(tries(12, of=50)):
        policy = rng.choice([OraclePolicy(), *POLICIES])
        system = random_system(rng, rng.choice(BATCHINGS), lookahead=0, policy=policy)
        system = copying_takes_time(system)
        one = simulate_pipeline(system.spec, system.requests, system.policy)
        plain = simulate_llm_client(system.spec, system.requests, system.policy)
        assert one.emitted_ps == plain.emitted_ps
        assert one.start_ps == plain.start_ps
        assert one.preemptions == plain.preemptions
        assert one.cached_tokens == plain.cached_tokens
        assert [passage.plan.tokens for passage in one.passages] == [step.tokens for step in plain.steps]


def test_looking_at_a_pipeline_does_not_change_what_it_does() -> None:
    rng = random.Random(7)
    for _ in range(tries(25, of=40)):
        policy = OraclePolicy(prefix_cache=rng.random() < 0.5)
        system = random_pipeline(rng, policy=policy)
        unseen, tasks = run_alone(PipelinedClient, system)
        seen, seen_tasks = run_alone(PipelinedClient, system, looks=rng)
        assert seen_tasks.finish_ps == tasks.finish_ps
        assert [rows.tolist() for rows in seen.lanes()] == [rows.tolist() for rows in unseen.lanes()]
