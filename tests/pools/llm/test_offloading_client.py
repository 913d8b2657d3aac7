"""The LLM client with tiers of memory below its prefix cache, against the naive one, block by block."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from oracles.client_runs import tasks_of
from oracles.llm_offload import OffloadingAdapterScheduler, SteppedOffloadingClient
from oracles.llm_sequence import OraclePolicy
from oracles.random_systems import RandomSystem, random_system
from pools.llm.test_adapters import with_adapters
from tries import tries

from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.batching.limited_chunks import LimitedChunks
from hermes_flow.pools.llm.offload.adapter_client import OffloadingAdapterClient
from hermes_flow.pools.llm.offload.batch import OffloadingBatch
from hermes_flow.pools.llm.offload.client import OffloadingClient
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.kv_store import TierSpec
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import NEVER, PS_PER_NS

CACHING = OraclePolicy(prefix_cache=True)


def with_tiers(system: RandomSystem, rng: random.Random, **settings: Any) -> RandomSystem:
    """Return the system with one or two small tiers, whose loads take about as long as a step, or far less."""
    size = 64
    step_ns = max(1, system.spec.cost.tokens_ps[1] // PS_PER_NS)
    speed = size / step_ns
    tiers = tuple(
        TierSpec(
            name,
            capacity_bytes=size * rng.randint(1, 3 * system.spec.kv_blocks) + rng.randint(0, size - 1),
            bytes_per_ns=speed * rng.choice([0.5, 3, 100]),
            lookup_ns=rng.choice([0, step_ns]),
            latency_ns=rng.choice([0, step_ns]),
        )
        for name in ("host", "disk")[: rng.randint(1, 2)]
    )
    offload = OffloadSpec(tiers, size, speed * rng.choice([1, 4, 1000]), **settings)
    return replace(system, spec=replace(system.spec, offload=offload, prefix_cache=True))


def run(
    system: RandomSystem, turns: int = 0, kind: type[OffloadingClient] = OffloadingClient
) -> tuple[OffloadingClient, LLMTasks]:
    tasks = tasks_of(system)
    tasks.requests = turns or len(system.requests)
    tasks.goes_on = bytearray([1] * turns + [0] * (len(system.requests) - turns))
    policy: BatchingPolicy = batching_policies.parse(system.spec.batching, "batching")
    if system.spec.longest_chunk:
        policy = LimitedChunks(system.spec.longest_chunk)
    client = kind(0, system.spec, tasks, policy, lambda task, now: None, notify=False)
    for task, request in enumerate(system.requests):
        client.submit(task, request.arrival_ns)
    client.settle(NEVER)
    return client, tasks


def run_naively(system: RandomSystem, turns: int = 0) -> SteppedOffloadingClient:
    client = SteppedOffloadingClient(system.spec, system.policy, system.requests)
    client.scheduler.goes_on = turns
    for index, request in enumerate(system.requests):
        client.run_until(request.arrival_ns * PS_PER_NS)
        client.submit(index, request.arrival_ns)
    client.run_until(NEVER)
    assert client.scheduler.idle
    return client


def check_equal(
    system: RandomSystem, client: OffloadingClient, tasks: LLMTasks, turns: int = 0
) -> SteppedOffloadingClient:
    expected = run_naively(system, turns)
    sequences, scheduler = expected.sequences, expected.scheduler
    assert list(tasks.start_ps) == [sequence.start_ps for sequence in sequences]
    assert list(tasks.first_ps) == [sequence.first_ps for sequence in sequences]
    assert list(tasks.finish_ps) == [sequence.finish_ps for sequence in sequences]
    count = range(len(sequences))
    assert [tasks.preemptions.get(task, 0) for task in count] == [one.preemptions for one in sequences]
    assert [tasks.cached.get(task, 0) for task in count] == [one.cached_tokens for one in sequences]
    batch = client.batch
    assert isinstance(batch, OffloadingBatch)
    for level, name in enumerate(batch.names):
        hits = tasks.tier_hits.get(name, {})
        assert [hits.get(task, 0) for task in count] == [
            scheduler.tier_hits.get(task, {}).get(level, 0) * system.spec.block_size for task in count
        ]
        assert batch.tiers.lru[level].blocks == len(scheduler.tiers.tiers[level])
    ours, theirs = batch.tiers, scheduler.tiers
    assert (ours.read, ours.written, ours.demoted, ours.dropped) == (
        theirs.read,
        theirs.written,
        theirs.demoted,
        theirs.dropped,
    )
    assert batch.free == system.spec.kv_blocks
    assert batch.peak == scheduler.peak
    assert batch.backlog == 0
    assert not client.waiting
    return expected


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_equals_the_naive_client_block_by_block(batching: str) -> None:
    rng = random.Random(batching)
    loads = preempting = waiting = 0
    count = tries(36, of=1600)
    for number in range(count):
        drawn = random_system(rng, batching, number % 2, policy=CACHING)
        settings = {"writes_computed": rng.random() < 0.5, "prefetch": rng.random() < 0.5}
        system = with_tiers(drawn, rng, **settings)
        client, tasks = run(system)
        expected = check_equal(system, client, tasks)
        loads += sum(expected.scheduler.tiers.read) > 0
        preempting += bool(tasks.preemptions)
        waiting += expected.scheduler.waiting_for_others
    assert loads > count // 4
    assert preempting > count // 10
    assert waiting


def test_equals_the_naive_client_where_the_chunks_of_prompts_are_limited() -> None:
    rng = random.Random(5)
    loads = preempting = 0
    for number in range(tries(16, of=800)):
        drawn = random_system(rng, "chunked", number % 2, policy=CACHING)
        settings = {"writes_computed": rng.random() < 0.5, "prefetch": rng.random() < 0.5}
        system = with_tiers(drawn, rng, **settings)
        system = replace(system, spec=replace(system.spec, longest_chunk=rng.randint(1, 6)))
        client, tasks = run(system)
        loads += sum(check_equal(system, client, tasks).scheduler.tiers.read) > 0
        preempting += bool(tasks.preemptions)
    assert loads > 2
    assert preempting


@pytest.mark.parametrize("gap", ["keep", "ttl", "offload", "drop"])
def test_tool_gaps_equal_those_of_the_naive_client(gap: str) -> None:
    rng = random.Random(gap)
    found = gave_way = 0
    count = tries(12, of=400)
    for number in range(count):
        drawn = random_system(rng, rng.choice(["chunked", "continuous", "mixed"]), number % 2, policy=CACHING)
        ttl_ps = drawn.spec.cost.tokens_ps[1] * rng.randint(1, 40) if gap == "ttl" else NEVER
        settings = {"writes_computed": rng.random() < 0.3, "prefetch": rng.random() < 0.5}
        system = with_tiers(drawn, rng, **settings, gap=gap, ttl_ps=ttl_ps)
        firsts = system.requests
        later_ns = firsts[-1].arrival_ns + 10**7 * rng.randint(1, 2)
        nexts = [replace(request, arrival_ns=later_ns + request.arrival_ns) for request in firsts]
        system = replace(system, requests=[*firsts, *nexts])
        client, tasks = run(system, len(firsts))
        check_equal(system, client, tasks, len(firsts))
        found += sum(tasks.cached.get(task, 0) > 0 for task in range(len(firsts), 2 * len(firsts)))
        assert isinstance(client.batch, OffloadingBatch)
        gave_way += client.batch.unpinned_early
    assert found or gap == "drop"
    assert gave_way or gap in ("offload", "drop")


def test_requests_that_are_taken_back_leave_nothing_behind() -> None:
    """They may wait, be loaded, wait with loaded blocks, wait for another one's load, or run."""
    rng = random.Random(11)
    while_loading = while_loaded = 0
    for number in range(tries(30, of=1500)):
        drawn = random_system(rng, rng.choice(["chunked", "continuous", "mixed"]), number % 2, policy=CACHING)
        settings = {"writes_computed": rng.random() < 0.5, "prefetch": rng.random() < 0.5}
        system = with_tiers(drawn, rng, **settings)
        tasks = tasks_of(system)
        tasks.requests = len(system.requests)
        policy = batching_policies.parse(system.spec.batching, "batching")
        client = OffloadingClient(0, system.spec, tasks, policy, lambda task, now: None, notify=True)
        batch = client.batch
        assert isinstance(batch, OffloadingBatch)
        step_ns = max(1, system.spec.cost.tokens_ps[1] // PS_PER_NS)
        arrivals = [(request.arrival_ns, 0, task) for task, request in enumerate(system.requests)]
        leaving = [
            (at + rng.randint(0, 30) * step_ns, 1, task) for at, _, task in arrivals if rng.random() < 0.5
        ]
        gone = set()
        for at, leaves, task in sorted(arrivals + leaving):
            client.settle(at)
            if not leaves:
                client.submit(task, at)
                continue
            while_loading += task in batch._loading
            while_loaded += task in batch._loaded
            if not 0 <= tasks.finish_ps[task] < (at + 1) * PS_PER_NS:
                gone.add(task)
            client.withdraw(task, at)
        client.settle(NEVER)
        assert all(tasks.finish_ps[task] >= 0 for task in range(len(system.requests)) if task not in gone)
        assert batch.free == system.spec.kv_blocks
        assert (batch.backlog, len(client.waiting), len(batch.running), len(client._inbox)) == (0, 0, 0, 0)
        assert not batch._loading
        assert not batch._loaded
        assert not tasks.reserved
        assert not tasks.since_ps
    assert while_loading
    assert while_loaded


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_equals_the_naive_client_with_adapters(batching: str) -> None:
    """Requests whose adapter has no place are passed over, also those that have loaded their blocks."""
    rng = random.Random(f"adapters {batching}")
    loads = adapters = 0
    for number in range(tries(16, of=900)):
        drawn = with_adapters(random_system(rng, batching, number % 2, policy=CACHING), rng)
        system = with_tiers(drawn, rng, writes_computed=rng.random() < 0.5, prefetch=False)
        client, tasks = run(system, kind=OffloadingAdapterClient)
        expected = check_equal(system, client, tasks)
        assert isinstance(client, OffloadingAdapterClient)
        assert isinstance(expected.scheduler, OffloadingAdapterScheduler)
        assert (client.adapters.slots.loads, client.adapters.slots.reads) == (
            expected.scheduler.loads,
            expected.scheduler.reads,
        )
        assert not client.adapters.slots.users
        loads += sum(expected.scheduler.tiers.read) > 0
        adapters += client.adapters.slots.loads
    assert loads > 3
    assert adapters > 10
