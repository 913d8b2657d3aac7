"""The LLM client with tiers of memory below its prefix cache, against the naive one, block by block."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from oracles.client_runs import tasks_of
from oracles.llm_offload import SteppedOffloadingClient
from oracles.llm_sequence import OraclePolicy
from oracles.random_systems import RandomSystem, random_system
from tries import tries

from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.offload.batch import OffloadingBatch
from hermes_flow.pools.llm.offload.client import OffloadingClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.kv_store import TierSpec
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import NEVER, PS_PER_NS

CACHING = OraclePolicy(prefix_cache=True)


def with_tiers(system: RandomSystem, rng: random.Random, **settings: bool) -> RandomSystem:
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


def run(system: RandomSystem) -> tuple[OffloadingClient, LLMTasks]:
    tasks = tasks_of(system)
    policy = batching_policies.parse(system.spec.batching, "batching")
    client = OffloadingClient(0, system.spec, tasks, policy, lambda task, now: None, notify=False)
    for task, request in enumerate(system.requests):
        client.submit(task, request.arrival_ns)
    client.settle(NEVER)
    return client, tasks


def run_naively(system: RandomSystem) -> SteppedOffloadingClient:
    client = SteppedOffloadingClient(system.spec, system.policy, system.requests)
    for index, request in enumerate(system.requests):
        client.run_until(request.arrival_ns * PS_PER_NS)
        client.submit(index, request.arrival_ns)
    client.run_until(NEVER)
    assert client.scheduler.idle
    return client


def check_equal(system: RandomSystem, client: OffloadingClient, tasks: LLMTasks) -> SteppedOffloadingClient:
    expected = run_naively(system)
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


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("computed", [True, False])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_equals_the_naive_client_block_by_block(batching: str, computed: bool, prefetch: bool) -> None:
    rng = random.Random(f"{batching}{computed}{prefetch}")
    loads = preempting = waiting = 0
    count = tries(14, of=400)
    for number in range(count):
        drawn = random_system(rng, batching, number % 2, policy=CACHING)
        system = with_tiers(drawn, rng, writes_computed=computed, prefetch=prefetch)
        client, tasks = run(system)
        expected = check_equal(system, client, tasks)
        loads += sum(expected.scheduler.tiers.read) > 0
        preempting += bool(tasks.preemptions)
        waiting += expected.scheduler.waiting_for_others
    assert loads > count // 4
    assert preempting > count // 10
    assert waiting
