"""LLM clients from which tasks are taken back at any moment, equal to the naive ones in every instant and block."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from oracles.client_runs import (
    copying_takes_time,
    full_spec,
    gaps_between,
    recorded_gaps,
    some_prefilled,
    tasks_of,
)
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.llm_pipeline import PipelineResult, simulate_pipeline
from oracles.random_pipelines import random_pipeline
from oracles.random_systems import RandomSystem, random_system
from tries import tries

from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.units import NEVER, PS_PER_NS

POLICIES = [
    PLAIN,
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    OraclePolicy(preemption="none"),
    OraclePolicy(preemption="none", prefix_cache=True),
    OraclePolicy(packing="shortest_prompt", preemption="swap", swap_ps_per_block=1, prefix_cache=True),
]


def named(policy: OraclePolicy) -> str:
    return f"{policy.packing}-{policy.preemption}{'-prefix' if policy.prefix_cache else ''}"


def impatient(system: RandomSystem, rng: random.Random) -> RandomSystem:
    """Return the system with half of its requests taken back: at once, on the grid of its clock, or in service."""
    unit = max(
        1, min((later.arrival_ns - one.arrival_ns for one, later in pairwise(system.requests)), default=1)
    )
    step_ns = max(1, system.spec.cost.tokens_ps[1] // PS_PER_NS)

    def some(request: OracleRequest) -> OracleRequest:
        if rng.random() < 0.5:
            return request
        wait_ns = rng.choice((0, unit, step_ns * rng.randint(0, 40), rng.randint(0, 60 * step_ns)))
        return replace(request, withdrawn_ns=request.arrival_ns + wait_ns)

    return replace(system, requests=[some(request) for request in system.requests])


def run_and_take_back(
    kind: type[LLMClient] | type[PipelinedClient], system: RandomSystem, rng: random.Random
) -> tuple[LLMClient | PipelinedClient, LLMTasks]:
    """Run a client, take back what is to be taken back, and look at what it has in hand now and then."""
    tasks = tasks_of(system)
    policy = batching_policies.parse(system.spec.batching, "batching")
    client = kind(0, full_spec(system), tasks, policy, lambda task, now: None, notify=False)
    client.keep_load()
    events = [(request.arrival_ns, 0, task) for task, request in enumerate(system.requests)]
    events += [
        (request.withdrawn_ns, 1, task)
        for task, request in enumerate(system.requests)
        if request.withdrawn_ns is not None
    ]
    here: set[int] = set()
    for now_ns, what, task in sorted(events):
        if what == 0:
            if system.requests[task].prefilled:
                client._inbox.expect(task)  # as if it had asked for blocks, which it takes later here
                client._inbox.load.take(task, generated=1)
            client.submit(task, now_ns)
            here.add(task)
        else:
            client.withdraw(task, now_ns)
            if not is_over(tasks, task, now_ns):
                here.remove(task)
        if rng.random() < 0.5:
            outstanding = client.outstanding(now_ns)
            assert outstanding == sum(not 0 <= tasks.finish_ps[one] < now_ns * PS_PER_NS for one in here)
            client.queued_tokens(now_ns)
            client.load(now_ns)
    client.settle(NEVER)
    load = client.load(NEVER // PS_PER_NS)
    assert (load.unfinished, load.input_tokens, load.kv_tokens, load.work_left_tokens) == (0, 0, 0, 0)
    return client, tasks


def is_over(tasks: LLMTasks, task: int, now_ns: int) -> bool:
    return 0 <= tasks.finish_ps[task] < (now_ns + 1) * PS_PER_NS


def until_taken_back(system: RandomSystem, at_ps: list[int]) -> list[int]:
    """The instants that come before a request is taken back: those after it happen to nobody."""
    return [
        -1 if request.withdrawn_ns is not None and at >= (request.withdrawn_ns + 1) * PS_PER_NS else at
        for request, at in zip(system.requests, at_ps, strict=True)
    ]


def check_equal(
    system: RandomSystem,
    client: LLMClient | PipelinedClient,
    tasks: LLMTasks,
    expected: OracleResult | PipelineResult,
) -> None:
    came = [request.prefilled for request in system.requests]
    assert until_taken_back(system, tasks.finish_ps) == until_taken_back(system, expected.finish_ps)
    if not any(came) or system.spec.batching != "continuous":  # there, who has entered waits for prompts
        assert until_taken_back(system, tasks.start_ps) == until_taken_back(system, expected.start_ps)
    first_ps = [-1 if elsewhere else at for elsewhere, at in zip(came, tasks.first_ps, strict=True)]
    assert until_taken_back(system, first_ps) == until_taken_back(system, expected.first_ps)
    if system.spec.batching != "static":
        assert recorded_gaps(client, system.spec.cost.context_ps) == gaps_between(system, expected.emitted_ps)
    assert not client.waiting
    assert not any(batch.running or batch.decodes or batch.context for batch in client.batches)
    assert sum(batch.backlog for batch in client.batches) == 0
    assert not client.tasks.kept
    assert any(batch.free == batch.blocks for batch in client.batches)


def taken_in_service(system: RandomSystem, expected: OracleResult | PipelineResult) -> int:
    return sum(
        request.withdrawn_ns is not None
        and start >= 0
        and not 0 <= finish < (request.withdrawn_ns + 1) * PS_PER_NS
        for request, start, finish in zip(system.requests, expected.start_ps, expected.finish_ps, strict=True)
    )


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed", "static"])
def test_a_client_equals_the_naive_one_when_tasks_are_taken_back(batching: str, lookahead: int) -> None:
    rng = random.Random(f"{batching}{lookahead}")
    taken = 0
    for turn in range(tries(14, of=400)):
        policy = POLICIES[turn % len(POLICIES)] if batching != "static" else PLAIN
        system = random_system(rng, batching=batching, lookahead=lookahead, policy=policy)
        if batching != "static" and turn % 3 == 0:
            system = some_prefilled(copying_takes_time(system), lambda: rng.random() < 0.3)
        system = impatient(system, rng)
        expected = simulate_llm_client(system.spec, system.requests, system.policy)
        client, tasks = run_and_take_back(LLMClient, system, rng)
        check_equal(system, client, tasks, expected)
        taken += taken_in_service(system, expected)
    assert taken > 8


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_a_pipeline_equals_the_naive_one_when_tasks_are_taken_back(batching: str) -> None:
    rng = random.Random(batching)
    taken = 0
    for turn in range(tries(12, of=300)):
        system = random_pipeline(rng, batching, policy=POLICIES[turn % len(POLICIES)], stages=2 + turn % 3)
        system = impatient(copying_takes_time(system), rng)
        expected = simulate_pipeline(system.spec, system.requests, system.policy)
        client, tasks = run_and_take_back(PipelinedClient, system, rng)
        check_equal(system, client, tasks, expected)
        taken += taken_in_service(system, expected)
    assert taken > 8
