"""A client with data-parallel attention against the naive one, and its promises: own limits, one step for all."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from oracles.client_runs import copying_takes_time, full_spec, gaps_between, some_prefilled, tasks_of
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest, simulate_llm_client
from oracles.llm_ranks import RankedResult, simulate_ranks
from oracles.random_systems import RandomSystem, build_affine_cost, random_system
from tries import tries

from hermes_flow.metrics.itl import client_gaps
from hermes_flow.pools.llm import rank_choice
from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.build import record_llm
from hermes_flow.pools.llm.ranked_client import RankedClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER
from hermes_flow.recording.recording import ClientRecord

POLICIES = [
    PLAIN,
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="none"),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    OraclePolicy(packing="priority", prefix_cache=True),
]


def on_ranks(
    system: RandomSystem,
    ranks: int,
    routing: str,
    experts_ps: list[int],
    launching_ps: list[int] | None = None,
) -> RandomSystem:
    """Return the system with as many ranks as it says, each like its client, and the time of shared experts."""
    spec = system.spec
    cost = replace(spec.cost.in_lockstep(ranks), experts_ps=experts_ps, launching_ps=launching_ps or [])
    return replace(
        system,
        spec=replace(
            spec, cost=cost, kv_blocks=ranks * spec.kv_blocks, attention_ranks=ranks, rank_routing=routing
        ),
    )


def run(system: RandomSystem, looks: random.Random | None = None) -> tuple[RankedClient, LLMTasks]:
    """Run the client to the end of all requests; nobody waits for them."""
    tasks, spec = tasks_of(system), full_spec(system)
    policies = [batching_policies.parse(spec.batching, "batching") for _ in range(spec.attention_ranks)]
    client = RankedClient(0, spec, tasks, policies, lambda task, now: None, notify=False)
    for task, request in enumerate(system.requests):
        if looks is not None and looks.random() < 0.5:
            client.outstanding(request.arrival_ns)
            client.kv_use(request.arrival_ns)
        client.submit(task, request.arrival_ns)
    client.settle(NEVER)
    return client, tasks


def compare(system: RandomSystem, of_rank: LLMClientSpec, looks: random.Random | None = None) -> RankedResult:
    """Run both and check that nothing differs."""
    client, tasks = run(system, looks)
    expected = simulate_ranks(
        system.spec, of_rank.cost, system.requests, system.policy, period_ps=rank_choice.REPORT_PS
    )
    rank_of = [client.ranks.index(client._rank_of[task]) for task in range(len(system.requests))]
    assert rank_of == expected.ranks
    first = [-1 if one.request.prefilled else one.first_ps for one in expected.sequences]
    here = [
        -1 if one.request.prefilled else at
        for one, at in zip(expected.sequences, tasks.first_ps, strict=True)
    ]
    assert here == first
    assert list(tasks.finish_ps) == [one.finish_ps for one in expected.sequences]
    if system.spec.batching != "continuous" or not any(one.prefilled for one in system.requests):
        assert list(tasks.start_ps) == [one.start_ps for one in expected.sequences]
    preemptions = [tasks.preemptions.get(task, 0) for task in range(len(system.requests))]
    assert preemptions == [one.preemptions for one in expected.sequences]
    check_record(system, record_llm(0, system.spec, client), expected)
    assert not any(rank.waiting or rank.batch.running or rank.batch.backlog for rank in client.ranks)
    assert all(rank.batch.free == rank.batch.blocks for rank in client.ranks)
    return expected


def check_record(system: RandomSystem, record: ClientRecord, expected: RankedResult) -> None:
    assert record.segments is not None
    rows = [row[:6] for row in record.segments.tolist() if row[2]]
    assert rows == [
        [step.start_ps, step.end_ps, 1, *(sum(column) for column in zip(*step.parts, strict=True))]
        for step in expected.steps
    ]
    for rank, own in enumerate(record.rank_segments):
        assert [row[:6] for row in own.tolist() if row[2]] == [
            [step.start_ps, step.end_ps, 1, *step.parts[rank]]
            for step in expected.steps
            if rank in step.worked
        ]
    counts: Counter[int] = Counter()
    for gaps in client_gaps(record, system.spec.cost.context_ps):
        columns = (gaps.first, gaps.step, gaps.count, gaps.weight)
        for first, step, count, weight in zip(*(column.tolist() for column in columns), strict=True):
            for index in range(count):
                counts[first + index * step] += weight
    assert counts == gaps_between(system, [one.emitted_ps for one in expected.sequences])
    assert record.kv_peak_blocks == system.spec.attention_ranks * max(expected.peaks)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.packing}-{policy.preemption}")
@pytest.mark.parametrize("routing", ["least_requests", "round_robin"])
def test_equals_the_naive_ranks_on_random_systems(
    policy: OraclePolicy, routing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{policy}{routing}")
    preempting = uneven = idle = 0
    systems = tries(12, of=200)
    for _ in range(systems):
        batching = rng.choice(["chunked", "chunked", "mixed", "continuous"])
        alone = copying_takes_time(random_system(rng, batching, policy=policy))
        if rng.random() < 0.3:
            alone = some_prefilled(alone, lambda: rng.random() < 0.5)
        ranks = rng.randint(2, 4)
        most = ranks * len(alone.spec.cost.tokens_ps)
        experts = (
            [rng.randint(0, 3) * 1000 + 7 * tokens for tokens in range(most)] if rng.random() < 0.5 else []
        )
        own = random.Random(f"{ranks} {most} {experts[:9]}")
        launching = [own.randint(0, 3000) for _ in alone.spec.cost.tokens_ps]
        if own.random() < 0.5:
            launching = []
        monkeypatch.setattr(rank_choice, "REPORT_PS", rng.choice([1, 7, 40]) * 10 ** rng.randint(3, 6))
        system = on_ranks(alone, ranks, routing, experts, launching if experts else [])
        expected = compare(system, alone.spec, rng if rng.random() < 0.5 else None)
        preempting += any(one.preemptions for one in expected.sequences)
        uneven += len({Counter(expected.ranks)[rank] for rank in range(ranks)}) > 1
        idle += any(len(step.worked) < ranks for step in expected.steps)
    assert preempting > systems // 8 or policy.preemption == "none"
    assert uneven
    assert idle > systems // 2


def test_ranks_with_the_same_requests_run_as_one_client_does() -> None:
    """Every request comes twice, so that both ranks do in each step what a single client does."""
    rng = random.Random(3)
    for _ in range(tries(10, of=100)):
        alone = random_system(rng, "chunked")
        one = simulate_llm_client(alone.spec, alone.requests)
        twice = [request for request in alone.requests for _ in range(2)]
        both = replace(on_ranks(alone, 2, "round_robin", []), requests=twice)
        _, tasks = run(both)
        for times, expected in ((tasks.finish_ps, one.finish_ps), (tasks.first_ps, one.first_ps)):
            assert list(times[::2]) == list(times[1::2]) == expected


def spec_of(ranks: int, routing: str = "least_requests", **limits: int) -> LLMClientSpec:
    """A client whose step takes 1 µs and 1 µs a token, with limits of each rank."""
    settings = {"kv_blocks": 100, "max_num_seqs": 2, "max_num_batched_tokens": 10} | limits
    settings["kv_blocks"] *= ranks
    return LLMClientSpec(
        model="any",
        devices=ranks,
        block_size=1,
        batching="chunked",
        lookahead=0,
        cost=build_affine_cost(1, 1, 0, 100, 100).in_lockstep(ranks),
        attention_ranks=ranks,
        rank_routing=routing,
        **settings,
    )


def test_each_rank_has_its_own_seats_and_budget_and_waits_for_the_slowest() -> None:
    requests = [OracleRequest(0, prompt, 1) for prompt in (10, 4, 3, 5)]
    system = RandomSystem(spec_of(2), requests)
    client, tasks = run(system)
    # Rank 0 gets the prompts of 10 and 3 tokens, rank 1 those of 4 and 5. Step 1: 10 | 4 + 5 tokens. Step 2: 3 | none
    assert list(tasks.first_ps) == [11_000_000, 11_000_000, 15_000_000, 11_000_000]
    (rows,) = client.lanes()
    assert [row[5] for row in rows.tolist()] == [19, 3]


def test_a_busy_rank_is_not_helped_by_an_idle_one() -> None:
    requests = [OracleRequest(0, 1, output) for output in (20, 1, 20, 1, 20, 1)]
    _, tasks = run(RandomSystem(spec_of(2, "round_robin"), requests))
    _, alone = run(RandomSystem(spec_of(2, "round_robin"), requests[:4]))
    # Two seats a rank: the third long answer waits for one of its own rank, though the other is idle.
    assert tasks.start_ps[4] >= alone.finish_ps[0]


def test_requests_go_to_the_rank_with_the_least_waiting_and_running() -> None:
    """Until the first report, at 100 ms, requests take turns; after it the rank that still runs gets fewer."""
    long = OracleRequest(0, 1, 60_000)
    later = [OracleRequest(100_000_000 + place, 1, 1) for place in range(4)]
    system = RandomSystem(
        spec_of(2, kv_blocks=70_000, max_num_seqs=8), [long, OracleRequest(1, 1, 1), *later]
    )
    client, _ = run(system)
    chosen = [client.ranks.index(client._rank_of[task]) for task in range(6)]
    # Scores at 100 ms: 1 and 0; each request given adds 4.
    assert chosen == [0, 1, 1, 0, 1, 0]


def test_steps_of_all_ranks_begin_where_the_last_ended() -> None:
    rng = random.Random(5)
    system = on_ranks(random_system(rng, "chunked"), 3, "least_requests", [])
    client, _ = run(system)
    (rows,) = client.lanes()
    assert all(later[0] >= before[1] for before, later in pairwise(rows[rows[:, 2] > 0].tolist()))
    starts = set(rows[:, 0].tolist())
    assert all(set(own[own[:, 2] > 0, 0].tolist()) <= starts for own in client.rank_rows())
    assert int(np.sum([own[:, 3].sum() for own in client.rank_rows()])) == int(rows[:, 3].sum())
