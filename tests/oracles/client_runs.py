"""One LLM client run on its own, and the gaps between tokens: as it recorded them, and as the naive one saw them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from oracles.random_systems import RandomSystem

from hermes_flow.metrics.itl import client_gaps
from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.batching.limited_chunks import LimitedChunks
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.encoder_cache import ImagesOfTasks
from hermes_flow.pools.llm.packing import packing_orders
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.trace_chains import TraceChains
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.units import NEVER, PS_PER_NS
from hermes_flow.recording.recording import ClientRecord

Client = TypeVar("Client", LLMClient, PipelinedClient)


def run_alone(
    kind: type[Client],
    system: RandomSystem,
    *,
    looks: random.Random | None = None,
    policy: BatchingPolicy | None = None,
) -> tuple[Client, LLMTasks]:
    """Run a client of that kind to the end of all requests; nobody waits for them.

    With ``looks``, somebody reads its load as every other request arrives. ``policy`` takes the place of the
    system's own.
    """
    tasks = tasks_of(system)
    policy = policy or batching_policies.parse(system.spec.batching, "batching")
    if system.spec.longest_chunk:
        policy = LimitedChunks(system.spec.longest_chunk)
    client = kind(0, full_spec(system), tasks, policy, lambda task, now: None, notify=False)
    for task, request in enumerate(system.requests):
        client.submit(task, request.arrival_ns)
        if looks is not None and looks.random() < 0.5:
            client.outstanding(request.arrival_ns)
            client.queued_tokens(request.arrival_ns)
    client.settle(NEVER)
    return client, tasks


def tasks_of(system: RandomSystem) -> LLMTasks:
    """The requests as columns; those that come prefilled or loaded had their KV, and first token, on arrival."""
    requests = system.requests
    numbers: dict[Hashable, int] = {}
    ids = [[numbers.setdefault(key, len(numbers)) for key in request.block_keys] for request in requests]
    offsets = np.cumsum([0, *map(len, ids)])
    size = system.spec.block_size
    known = Prefixes(np.array([each for row in ids for each in row], dtype=np.int64), offsets, size)
    chains = TraceChains(known, size)
    by_deadline = system.policy.packing == "earliest_deadline"
    tasks = LLMTasks(
        prompt=[r.prompt for r in requests],
        output=[r.output for r in requests],
        # A deadline belongs to a priority class: here every request is a class of its own.
        priority=list(range(len(requests))) if by_deadline else [r.priority for r in requests],
        block_runs=lambda task, size, prompt: chains.runs(task, prompt),
    )
    for task, request in enumerate(requests):
        if request.prefilled:
            tasks.kept[task], tasks.generated[task] = request.prompt, 1
            tasks.first_ps[task] = request.arrival_ns * PS_PER_NS
    if system.spec.adapters is not None:
        tasks.adapter = [request.adapter for request in requests]
    images = system.policy.images
    if images is not None:
        known = (images.tokens, images.pass_ps, images.kept_tokens, images.step_tokens)
        tasks.images = ImagesOfTasks([request.images for request in requests], *known)
    tasks.preloaded = {task: request.loaded for task, request in enumerate(requests) if request.loaded}
    return tasks


def full_spec(system: RandomSystem) -> LLMClientSpec:
    """The client with the scheduler's choices of the system's policy."""
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


def recorded_gaps(client: LLMClient | PipelinedClient, context_ps: int) -> Counter[int]:
    """Every inter-token gap, in ps, as metrics work it out of what a client recorded."""
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


def gaps_between(system: RandomSystem, emitted_ps: list[list[int]]) -> Counter[int]:
    """The time between each two tokens of a request, by when the naive client delivered them."""
    gaps: Counter[int] = Counter()
    for request, times in zip(system.requests, emitted_ps, strict=True):
        before = [request.arrival_ns * PS_PER_NS] if request.prefilled else []
        assert len(before + times) == request.output or request.withdrawn_ns is not None
        gaps.update(later - earlier for earlier, later in pairwise(before + times))
    return gaps


def copying_takes_time(system: RandomSystem) -> RandomSystem:
    """Return the system with a price for swapping: a step of copies alone is not instantaneous."""
    if system.policy.preemption != "swap":
        return system
    price = system.policy.swap_ps_per_block or 1
    return replace(system, policy=replace(system.policy, swap_ps_per_block=price))


def some_prefilled(system: RandomSystem, flip: Callable[[], bool]) -> RandomSystem:
    """Return the system with every request of several tokens prefilled elsewhere for which ``flip()`` holds.

    Without a prefix cache nobody asks what their blocks hold.
    """
    kept = system.policy.prefix_cache
    requests = [
        replace(request, prefilled=True, block_keys=request.block_keys if kept else ())
        if request.output > 1 and flip()
        else request
        for request in system.requests
    ]
    return replace(system, requests=requests)


def some_loaded(system: RandomSystem, rng: random.Random) -> RandomSystem:
    """Return the system with the beginnings of some prompts retrieved: some tokens of them, but not the last one."""
    requests = [
        replace(request, loaded=rng.randint(1, request.prompt - 1))
        if request.prompt > 1 and not request.prefilled and rng.random() < 0.5
        else request
        for request in system.requests
    ]
    return replace(system, requests=requests)


def check_prefilled_elsewhere(
    draw: Callable[[], RandomSystem],
    compare: Callable[[RandomSystem], tuple[LLMTasks, object]],
    rng: random.Random,
    count: int,
) -> None:
    """Compare ``count`` drawn systems in which most prompts come computed, and see that they are hard enough."""
    joined = preempting = 0
    for _ in range(count):
        system = some_prefilled(copying_takes_time(draw()), lambda: rng.random() < 0.6)
        tasks, _ = compare(system)
        joined += sum(request.prefilled for request in system.requests)
        preempting += bool(tasks.preemptions)
        preemption = system.policy.preemption
    assert joined > 100
    assert (preempting == 0) if preemption == "none" else (preempting > count // 5)
