"""A slow client takes all durations of a step times the same factor: each figure of its cost is scaled."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest

from hermes_flow.program.scan_cost import ScanCost
from hermes_flow.program.step_cost import StepCost

NOT_OF_A_STEP = {"drift_ps"}  # the length of a window of the clock


def full_cost(ranks: int) -> StepCost:
    """Return a cost in which every duration has a value of its own."""
    rng = random.Random(3)

    def table(entries: int) -> list[int]:
        return sorted(rng.randrange(1, 10**9) for _ in range(entries))

    return StepCost(
        tokens_ps=table(200),
        sequences_ps=table(40),
        decode_attention_ps=table(20),
        context_ps=1_001,
        prefill_launch_ps=70_003,
        prefill_context_ps=503,
        prefill_token_ps=907,
        attention_ranks=ranks,
        rank_context_ps=2_003 if ranks > 1 else 0,
        experts_ps=table(400) if ranks > 1 else [],
        launching_ps=[5 * max(0, 90 - tokens) for tokens in range(200)] if ranks > 1 else [],
        mixed_attention_ps=table(20),
        mixed_context_ps=3_001,
        rank_mixed_context_ps=5_003 if ranks > 1 else 0,
        scans=(ScanCost(*(11 + each for each in range(len(fields(ScanCost))))),),
        idle_ps=[7 * tokens for tokens in range(200)],
        replayed_ps=((5, 7), (11,)),
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_steps_of_a_slow_client_take_so_many_times_as_long(ranks: int) -> None:
    cost, rng = full_cost(ranks), random.Random(4)
    slow = cost.scaled(3.0)
    for _ in range(200):
        decodes = rng.randrange(20)
        prefills = [(rng.randrange(1, 30), rng.randrange(90)) for _ in range(rng.randrange(3))]
        context = rng.randrange(2000) if decodes else 0
        assert slow.step_ps(prefills, decodes, context) == 3 * cost.step_ps(prefills, decodes, context)
        alone, slow_alone = cost.of_rank, slow.of_rank  # of one rank, whose context has a slope of its own
        few = decodes // 2
        assert slow_alone.step_ps([], few, context) == 3 * alone.step_ps([], few, context)


@pytest.mark.parametrize(
    "name",
    [one.name for one in fields(StepCost) if one.name.endswith("_ps") and one.name not in NOT_OF_A_STEP],
)
def test_every_duration_of_a_cost_is_scaled(name: str) -> None:
    cost = replace(full_cost(2), prefill_pair_ps=17.0)
    before, after = getattr(cost, name), getattr(cost.scaled(3.0), name)
    if name == "replayed_ps":
        assert after == tuple(tuple(3 * one for one in steps) for steps in before)
    elif isinstance(before, list):
        assert any(before)
        assert after == [3 * one for one in before]
    else:
        assert before
        assert after == 3 * before
