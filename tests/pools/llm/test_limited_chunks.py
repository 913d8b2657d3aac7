"""Prompts get at most long_prefill_token_threshold tokens in a step, exactly as in the naive scheduler."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from oracles.client_runs import (
    copying_takes_time,
    gaps_between,
    recorded_gaps,
    run_alone,
    some_loaded,
    some_prefilled,
)
from oracles.llm_client import OraclePolicy, OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system
from oracles.worked_examples import client, request, schedule
from tries import tries

import hermes_flow as hf
from hermes_flow.pools.llm.client import LLMClient

POLICIES = [
    OraclePolicy(),
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="none"),
    OraclePolicy(preemption="none", prefix_cache=True),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    OraclePolicy(packing="priority", preemption="swap", swap_ps_per_block=1, prefix_cache=True),
    OraclePolicy(packing="shortest_prompt"),
]


def limited(system: RandomSystem, rng: random.Random) -> RandomSystem:
    """Limit chunks to a few tokens; half of the systems have budgets that do not last for everybody."""
    spec = replace(system.spec, longest_chunk=rng.randint(1, 12))
    if rng.random() < 0.5:
        spec = replace(spec, max_num_batched_tokens=spec.max_num_seqs + rng.randint(0, 3))
    return replace(system, spec=spec)


def in_progress_together(result: OracleResult, system: RandomSystem) -> bool:
    """Whether a step had the limit's worth of two prompts, with somebody else's single token in the same step."""
    limit = system.spec.longest_chunk
    shares = [sorted(step.tokens.values()) for step in result.steps]
    return limit > 1 and any(len(share) > 2 and share[-2] == limit and share[0] == 1 for share in shares)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_equals_the_naive_oracle_to_the_picosecond(policy: OraclePolicy, lookahead: int) -> None:
    rng = random.Random(f"limited{lookahead}{policy}")
    together = preempting = 0
    for _ in range(tries(16, of=400)):
        system = copying_takes_time(limited(random_system(rng, "chunked", lookahead, policy), rng))
        if rng.random() < 0.3:
            system = some_loaded(some_prefilled(system, lambda: rng.random() < 0.5), rng)
        ours, tasks = run_alone(LLMClient, system, looks=rng)
        expected = simulate_llm_client(system.spec, system.requests, system.policy)
        assert list(tasks.finish_ps) == expected.finish_ps
        here = [task for task, each in enumerate(system.requests) if not each.prefilled]
        assert [tasks.start_ps[task] for task in here] == [expected.start_ps[task] for task in here]
        assert [tasks.first_ps[task] for task in here] == [expected.first_ps[task] for task in here]
        assert [tasks.cached.get(task, 0) for task in here] == [expected.cached_tokens[task] for task in here]
        count = len(system.requests)
        assert [tasks.preemptions.get(task, 0) for task in range(count)] == expected.preemptions
        rows = ours.segments().tolist()
        assert sum(row[2] for row in rows) == len(expected.steps)
        tokens = sum(row[2] * row[3] + row[5] for row in rows)
        assert tokens == sum(sum(step.tokens.values()) for step in expected.steps)
        assert recorded_gaps(ours, system.spec.cost.context_ps) == gaps_between(system, expected.emitted_ps)
        assert ours.batch.peak == max(step.used_blocks_after_planning for step in expected.steps)
        assert ours.batch.free == system.spec.kv_blocks
        assert not ours.batch.running
        assert ours.batch.backlog == 0
        together += in_progress_together(expected, system)
        preempting += sum(expected.preemptions) > 0
    assert together
    assert preempting > 2 or policy.preemption == "none"


def test_a_long_prompt_leaves_budget_for_those_behind_it() -> None:
    spec = replace(client("chunked", 0), longest_chunk=3)  # a budget of 8 tokens
    expected = [(0, 18, {0: 3, 1: 3, 2: 2}), (18, 32, {0: 3, 1: 1})]
    requests = [request(0, 6, 1), request(0, 4, 1), request(0, 2, 1)]
    assert schedule(simulate_llm_client(spec, requests)) == expected


def test_a_decode_between_prompts_in_progress_goes_on() -> None:
    spec = replace(client("chunked", 0), longest_chunk=4)
    requests = [request(0, 12, 1), request(0, 3, 3), request(1, 20, 1)]
    steps = schedule(simulate_llm_client(spec, requests))
    assert [tokens for _, _, tokens in steps] == [
        {0: 4, 1: 3},
        {0: 4, 1: 1, 2: 3},
        {0: 4, 1: 1, 2: 3},
        {2: 4},
        {2: 4},
        {2: 4},
        {2: 2},
    ]


KEY = "cluster.pools.llm.long_prefill_token_threshold"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{KEY}=-1"], KEY),
        ([f"{KEY}=64", "engine=sglang"], rf"{KEY}: 64, but the scheduler of engine 'sglang'"),
        ([f"{KEY}=64", "engine=tensorrt_llm"], rf"{KEY}: 64, but the scheduler of engine 'tensorrt_llm'"),
        ([f"{KEY}=64", "cluster.pools.llm.batching=mixed"], rf"{KEY}: 64, but .* batching=chunked only"),
        ([f"{KEY}=64", "cluster.pools.llm.pipeline_parallel=2"], rf"{KEY}: 64 is not modelled with pipeline"),
        (
            [f"{KEY}=64", "+model@cluster.pools.llm.speculative.draft=llama3_8b"],
            rf"{KEY}: 64 is not modelled",
        ),
        (
            [
                "cluster=disaggregated",
                "cluster.kv_transfer=layerwise",
                "cluster.pools.prefill.long_prefill_token_threshold=64",
            ],
            r"cluster\.pools\.prefill\.long_prefill_token_threshold: 64 with cluster.kv_transfer=layerwise",
        ),
    ],
)
def test_settings_that_it_does_not_go_with_are_errors_of_its_key(overrides: list[str], message: str) -> None:
    with pytest.raises(hf.HermesFlowError, match=message):
        hf.compile(hf.compose(overrides))
