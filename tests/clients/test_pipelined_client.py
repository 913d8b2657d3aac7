"""A client with pipeline parallelism against the naive one, and against what can be worked on paper."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from clients.test_llm_client import full_spec
from hypothesis import given, settings
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest, simulate_llm_client
from oracles.llm_pipeline import PipelineResult, simulate_pipeline
from oracles.random_pipelines import random_pipeline, random_pipelines
from oracles.random_systems import RandomSystem, build_affine_cost, random_system

from hermes_flow.batching import batching_policies
from hermes_flow.clients.llm import LLMClient
from hermes_flow.clients.pipelined import PipelinedClient
from hermes_flow.clients.tasks import LLMTasks
from hermes_flow.compiler.program import PS_PER_NS, LLMClientSpec
from hermes_flow.engine.loop import NEVER
from hermes_flow.metrics.itl import client_gaps
from hermes_flow.metrics.recording import ClientRecord

BATCHINGS = ["chunked", "continuous", "mixed"]
PACKINGS = ["shortest_prompt", "least_work_left", "priority", "earliest_deadline"]
POLICIES = [
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="none"),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    *(OraclePolicy(packing=packing) for packing in PACKINGS),
    OraclePolicy(packing="shortest_prompt", prefix_cache=True),
    OraclePolicy(packing="least_work_left", preemption="swap", swap_ps_per_block=1),
]


def tasks_of(system: RandomSystem) -> LLMTasks:
    requests = system.requests
    keys = {key: number for number, key in enumerate({key for r in requests for key in r.block_keys})}
    by_deadline = system.policy.packing == "earliest_deadline"
    tasks = LLMTasks(
        prompt=[r.prompt for r in requests],
        output=[r.output for r in requests],
        priority=list(range(len(requests))) if by_deadline else [r.priority for r in requests],
        block_keys=lambda task, size, prompt: [keys[key] for key in requests[task].block_keys],
    )
    for task, request in enumerate(requests):
        if request.prefilled:  # its first token came from elsewhere, as its KV did
            tasks.kept[task], tasks.generated[task] = request.prompt, 1
            tasks.first_ps[task] = request.arrival_ns * PS_PER_NS
    return tasks


def run_client(
    system: RandomSystem, kind: type[PipelinedClient | LLMClient] = PipelinedClient
) -> tuple[PipelinedClient | LLMClient, LLMTasks]:
    tasks = tasks_of(system)
    policy = batching_policies.find(system.spec.batching, "batching")()
    client = kind(0, full_spec(system), tasks, policy, lambda task, now: None, notify=False)
    for task, request in enumerate(system.requests):
        client.submit(task, request.arrival_ns)
    client.settle(NEVER)
    return client, tasks


def gaps_of(client: PipelinedClient | LLMClient, context_ps: int) -> Counter[int]:
    """Every inter-token gap that can be worked out of what a client recorded."""
    lanes = client.lanes()
    record = ClientRecord(
        pool=0,
        client=0,
        capacity=1,
        tasks=0,
        busy_ns=0,
        segments=np.concatenate(lanes),
        resume_gaps_ps=np.array(client.batches[0].resume_gaps_ps, dtype=np.int64),
        lane_rows=tuple(len(rows) for rows in lanes),
    )
    counts: Counter[int] = Counter()
    for gaps in client_gaps(record, context_ps):
        columns = (gaps.first, gaps.step, gaps.count, gaps.weight)
        for first, step, count, weight in zip(*(column.tolist() for column in columns), strict=True):
            for index in range(count):
                counts[first + index * step] += weight
    return counts


def expected_gaps(system: RandomSystem, emitted_ps: list[list[int]]) -> Counter[int]:
    gaps: Counter[int] = Counter()
    for request, times in zip(system.requests, emitted_ps, strict=True):
        before = [request.arrival_ns * PS_PER_NS] if request.prefilled else []
        assert len(before + times) == request.output
        gaps.update(b - a for a, b in pairwise(before + times))
    return gaps


def check_equal(
    system: RandomSystem, client: PipelinedClient | LLMClient, tasks: LLMTasks, expected: PipelineResult
) -> None:
    count = len(system.requests)
    assert tasks.finish_ps == expected.finish_ps
    came = [request.prefilled for request in system.requests]
    ours = [-1 if prefilled else first for prefilled, first in zip(came, tasks.first_ps, strict=True)]
    assert ours == expected.first_ps
    if system.spec.batching != "continuous" or not any(came):  # there, who has entered waits for prompts
        assert tasks.start_ps == expected.start_ps
    assert [tasks.preemptions.get(task, 0) for task in range(count)] == expected.preemptions
    assert [tasks.cached.get(task, 0) for task in range(count)] == expected.cached_tokens
    assert client.busy_ps == expected.busy_ps // system.spec.stages
    assert max(batch.peak for batch in client.batches) == expected.peak_blocks
    assert not client.waiting
    assert not any(batch.running or batch.decodes or batch.context for batch in client.batches)
    assert sum(batch.backlog for batch in client.batches) == 0
    assert gaps_of(client, system.spec.cost.context_ps) == expected_gaps(system, expected.emitted_ps)


def check_steps(client: PipelinedClient, expected: PipelineResult) -> None:
    """Every step of every micro-batch is the naive one's."""
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


def compare(system: RandomSystem) -> tuple[LLMTasks, PipelineResult]:
    client, tasks = run_client(system)
    assert isinstance(client, PipelinedClient)
    expected = simulate_pipeline(system.spec, system.requests, system.policy)
    check_steps(client, expected)
    check_equal(system, client, tasks, expected)
    return tasks, expected


def copying_takes_time(system: RandomSystem) -> RandomSystem:
    """A step of copies alone is not instantaneous."""
    if system.policy.preemption != "swap":
        return system
    copying = replace(system.policy, swap_ps_per_block=system.policy.swap_ps_per_block or 1)
    return replace(system, policy=copying)


# What is exact: every step of every micro-batch, against the naive client.


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("batching", BATCHINGS)
def test_equals_the_naive_pipeline_on_many_random_systems(batching: str, stages: int) -> None:
    rng = random.Random(f"{batching}{stages}")
    preempting = full = cut = 0
    for _ in range(300):
        system = random_pipeline(rng, batching, stages=stages)
        tasks, expected = compare(system)
        preempting += bool(tasks.preemptions)
        full += most_in_flight(expected) == stages
        cut += chunks_in_flight(expected)
    assert preempting > 75
    assert full > 75
    assert cut > 30 or batching != "chunked"


def most_in_flight(expected: PipelineResult) -> int:
    passages = expected.passages
    return max(sum(b.planned_ps < a.exit_ps <= c.exit_ps for c in passages if c.planned_ps <= b.planned_ps) if False else 0 for a in passages for b in passages[:1]) or max(
        sum(other.planned_ps <= passage.planned_ps < other.exit_ps for other in passages)
        for passage in passages
    )


def chunks_in_flight(expected: PipelineResult) -> bool:
    """Tell whether a chunk of a prompt was ever planned while the one before it was still on its way."""
    last_exit_ps: dict[int, int] = {}
    for passage in expected.passages:
        for index in passage.plan.tokens:
            if passage.planned_ps < last_exit_ps.get(index, 0):
                return True
            last_exit_ps[index] = passage.exit_ps
    return False


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_equals_the_naive_pipeline_under_every_policy(batching: str, policy: OraclePolicy) -> None:
    rng = random.Random(f"{batching}{policy}")
    hits = preempting = 0
    for _ in range(100):
        tasks, _ = compare(copying_takes_time(random_pipeline(rng, batching, policy)))
        hits += bool(tasks.cached)
        preempting += bool(tasks.preemptions)
    assert hits > 15 or not policy.prefix_cache
    assert preempting > 20 or policy.preemption == "none"
