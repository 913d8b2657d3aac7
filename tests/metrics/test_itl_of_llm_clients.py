"""The inter-token gaps of real LLM clients are those the naive oracle sees, token by token."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from oracles.llm_client import OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system

from hermes_flow.batching import batching_policies
from hermes_flow.clients.llm import LLMClient
from hermes_flow.clients.tasks import LLMTasks
from hermes_flow.engine.loop import NEVER
from hermes_flow.metrics.itl import client_gaps
from hermes_flow.metrics.recording import ClientRecord

SYSTEMS = 400


def recorded_gaps(system: RandomSystem) -> tuple[Counter[int], bool]:
    """The gaps computed from what a client recorded, and whether it preempted."""
    tasks = LLMTasks([r.prompt for r in system.requests], [r.output for r in system.requests])
    policy = batching_policies.find(system.spec.batching, "batching")()
    client = LLMClient(0, system.spec, tasks, policy, lambda task, now: None, notify=False)
    for task, request in enumerate(system.requests):
        client.submit(task, request.arrival_ns)
    client.settle(NEVER)
    segments = client.segments()
    resumed = np.array(client.batch.resume_gaps_ps, dtype=np.int64)
    record = ClientRecord(0, 0, 1, len(system.requests), 0, segments, resumed)
    counts: Counter[int] = Counter()
    for gaps in client_gaps(record, system.spec.cost.context_ps):
        rows = zip(
            *(column.tolist() for column in (gaps.first, gaps.step, gaps.count, gaps.weight)), strict=True
        )
        for first, step, count, weight in rows:
            for index in range(count):
                counts[first + index * step] += weight
    return counts, bool(tasks.preemptions)


def oracle_gaps(system: RandomSystem, result: OracleResult) -> Counter[int]:
    """The time between each two tokens of a request, by the oracle's schedule."""
    computed = [0] * len(system.requests)
    emitted_ps: list[list[int]] = [[] for _ in system.requests]
    for step in result.steps:
        for index in step.preempted:
            computed[index] = 0
        for index, tokens in step.tokens.items():
            computed[index] += tokens
            if computed[index] == system.requests[index].prompt + len(emitted_ps[index]):
                emitted_ps[index].append(step.end_ps)
    assert [len(times) for times in emitted_ps] == [request.output for request in system.requests]
    return Counter(b - a for times in emitted_ps for a, b in pairwise(times))


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous"])
def test_gaps_equal_those_of_the_oracle(batching: str, lookahead: int) -> None:
    rng = random.Random(31 + lookahead)
    preempting = 0
    for _ in range(SYSTEMS):
        system = random_system(rng, batching=batching, lookahead=lookahead)
        found, preempted = recorded_gaps(system)
        assert found == oracle_gaps(system, simulate_llm_client(system.spec, system.requests))
        preempting += preempted
    assert 0 < preempting < SYSTEMS
