"""Clients that are fired only when an answer may leave give the same tables as clients fired at every plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

import pytest
from heapdict import heapdict
from hypothesis import given, settings
from hypothesis import strategies as st
from pure_core import needs_pure_core
from tries import tries

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.pools.llm import build
from hermes_flow.pools.llm.earliest_end import EarliestEnd, ShortestSteps
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.step_cost import StepCost

LOADS = (
    "pipeline=chat",
    "pipeline=chat_guarded",
    "pipeline=agent",
    "pipeline=chat cluster=disaggregated",
    "pipeline=kv_reuse",
)
POOL = "cluster.pools.llm"


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """A pipeline whose LLM pool is anything from idle to overloaded, with few blocks or many."""
    pipeline = draw(st.sampled_from(LOADS))
    chosen = [
        *pipeline.split(),
        "workload=synthetic",
        "cluster.pools.host.cores=1",  # else the host needs no events, nor do the clients of a chat
        f"workload.requests={draw(st.integers(5, 40))}",
        f"workload.rate_per_s={draw(st.sampled_from([2, 20, 200]))}",
        "workload.input_tokens={distribution: uniform, min: 1, max: 600}",
        f"workload.output_tokens={{distribution: uniform, min: 1, max: {draw(st.sampled_from([3, 60, 300]))}}}",
        f"seed={draw(st.integers(0, 99))}",
    ]
    if "disaggregated" not in pipeline:
        policy = draw(st.sampled_from(["chunked", "continuous", "mixed", "static"]))
        chosen += [
            f"{POOL}.count={draw(st.integers(1, 3))}",
            f"{POOL}.batching={policy if 'kv_reuse' not in pipeline and 'agent' not in pipeline else 'chunked'}",
            f"{POOL}.lookahead={draw(st.integers(0, 1)) if policy == 'chunked' else 0}",
            f"{POOL}.max_num_seqs={draw(st.sampled_from([2, 8, 64]))}",
            f"{POOL}.long_prefill_token_threshold={draw(st.sampled_from([0, 40])) if policy == 'chunked' else 0}",
        ]
        if "agent" not in pipeline and "kv_reuse" not in pipeline:
            chosen.append(f"{POOL}.kv_blocks={draw(st.sampled_from([60, 90, 2000]))}")
    return chosen


def as_it_is(cost: StepCost) -> StepCost:
    return cost


def with_dips(cost: StepCost) -> StepCost:
    """An odd number of decodes takes half a millisecond more, so that one decode more is a shorter step."""
    table = [each + 500_000_000 * (count % 2) for count, each in enumerate(cost.decode_attention_ps)]
    return replace(cost, decode_attention_ps=table)


def less_beside_prompts(cost: StepCost) -> StepCost:
    """Decodes take half a millisecond less, and their context nothing, in a step with a prompt."""
    longer = [each + 500_000_000 for each in cost.decode_attention_ps]
    return replace(cost, decode_attention_ps=longer, mixed_attention_ps=cost.decode_attention_ps)


def costing(program: Program, change: Callable[[StepCost], StepCost]) -> Program:
    """The program with other costs of all its LLM pools."""
    pools = (
        replace(pool, client=replace(pool.client, cost=change(pool.client.cost)))
        if isinstance(pool.client, LLMClientSpec)
        else pool
        for pool in program.pools
    )
    return replace(program, pools=tuple(pools))


@settings(max_examples=tries(10, of=120))
@given(chosen=overrides(), cost=st.sampled_from([as_it_is, with_dips, less_beside_prompts]))
def test_bounds_change_no_table(chosen: list[str], cost: Callable[[StepCost], StepCost]) -> None:
    try:
        program = costing(hf.compile(hf.compose(chosen)), cost)
    except hf.ConfigError:
        return  # a combination that is refused
    bounded = fingerprints(hf.simulate(program), steps=True)
    with patch.object(build, "shortest_steps", lambda spec: None):
        assert fingerprints(hf.simulate(program), steps=True) == bounded


class Counted(heapdict):  # type: ignore[misc]
    """A heapdict that counts how often an entry is set."""

    sets: ClassVar[Counter[str]] = Counter()

    def __setitem__(self, key: object, value: object) -> None:
        Counted.sets["all"] += 1
        super().__setitem__(key, value)


def test_clients_that_are_fired_at_each_plan_are_re_keyed_in_the_heapdict() -> None:
    load = ("workload=synthetic", "workload.requests=100", "pipeline=llm", "cluster=disaggregated")
    program = hf.compile(hf.compose([*load, "cluster.kv_transfer=layerwise"]))
    Counted.sets.clear()
    with patch("hermes_flow.machine.engine.heapdict", Counted):
        hf.simulate(program)
    assert Counted.sets["all"] > 100


def test_bounds_need_no_re_keying() -> None:
    program = hf.compile(
        hf.compose(
            [
                "pipeline=chat",
                "workload=synthetic",
                "cluster.pools.host.cores=1",
                "workload.requests=2000",
                "workload.rate_per_s=80",
                "cluster.pools.llm.count=8",
            ]
        )
    )
    Counted.sets.clear()
    with patch("hermes_flow.machine.engine.heapdict", Counted):
        hf.simulate(program)
    assert Counted.sets["all"] == 0


@needs_pure_core
def test_bounds_are_used_where_they_hold() -> None:
    load = ["workload=synthetic", "workload.requests=50", "cluster.pools.host.cores=1"]
    program = hf.compile(hf.compose(["pipeline=chat", *load]))
    with patch.object(EarliestEnd, "fire", autospec=True, side_effect=EarliestEnd.fire) as fired:
        hf.simulate(program)
    assert 50 / 2 < fired.call_count <= 100


@needs_pure_core
@pytest.mark.parametrize("cost", [as_it_is, with_dips, less_beside_prompts])
def test_runs_end_at_once_where_steps_are_not_the_shortest_ones(cost: Callable[[StepCost], StepCost]) -> None:
    """Bounds before the end of a run of decodes were moved by a nanosecond each; fitted costs took an hour."""
    load = ["workload=synthetic", "workload.requests=8", "workload.rate_per_s=20"]
    lengths = ["workload.output_tokens={distribution: uniform, min: 1, max: 20}"]
    one_core = ["pipeline=chat", "cluster.pools.host.cores=1"]
    program = costing(hf.compile(hf.compose([*one_core, *load, *lengths])), cost)
    fired = 0
    fire = EarliestEnd.fire

    def counting(end: EarliestEnd, now_ns: int) -> int:
        nonlocal fired
        fired += 1
        assert fired <= 100
        return fire(end, now_ns)

    with patch.object(EarliestEnd, "fire", counting):
        bounded = fingerprints(hf.simulate(program), steps=True)
    assert fired >= 8
    with patch.object(build, "shortest_steps", lambda spec: None):
        assert fingerprints(hf.simulate(program), steps=True) == bounded


def test_an_answer_leaves_earlier_where_a_newcomer_makes_the_steps_shorter() -> None:
    load = [
        "workload=synthetic",
        "workload.requests=6",
        "workload.rate_per_s=2",
        "cluster.pools.host.cores=1",
    ]
    lengths = ["workload.input_tokens=20", "workload.output_tokens=200"]
    program = costing(hf.compile(hf.compose(["pipeline=chat", *load, *lengths])), with_dips)
    bounded = hf.simulate(program)
    with patch.object(build, "shortest_steps", lambda spec: None):
        assert fingerprints(hf.simulate(program), steps=True) == fingerprints(bounded, steps=True)


@pytest.mark.parametrize(
    ("change", "bounds"),
    [
        ({}, True),
        ({"context_ps": -1}, False),  # later steps could be shorter than earlier ones
        ({"attention_ranks": 2}, False),
        (
            {"tokens_ps": [0] * 9, "sequences_ps": [0] * 5},
            False,
        ),  # answers could leave in the instant of their plan
    ],
)
def test_costs_by_which_steps_have_no_least_time_bound_nothing(
    change: dict[str, object], bounds: bool
) -> None:
    terms: dict[str, object] = {
        "tokens_ps": [5000] * 9,
        "sequences_ps": [10] * 5,
        "decode_attention_ps": [0, 7, 5, 9, 8],
        "context_ps": 3,
    }
    cost = StepCost(**(terms | change))  # type: ignore[arg-type]
    assert ShortestSteps(cost).bound_steps(cost) is bounds


def test_a_step_with_more_decodes_is_never_taken_to_be_longer_than_the_shortest_one_with_as_many() -> None:
    cost = StepCost([9, 8, 7, 6, 8, 9, 9, 9, 9], [1, 1, 3, 2, 4], [0, 7, 5, 9, 8], 3)
    shortest = ShortestSteps(cost)
    assert shortest.decode_ps == [6 + 1 + 0, 6 + 1 + 5, 6 + 2 + 5, 6 + 2 + 8, 8 + 4 + 8]


def test_a_prompt_takes_at_least_the_step_of_its_tokens_and_its_attention() -> None:
    cost = StepCost(
        tokens_ps=[9, 8, 7, 6, 8, 9, 10, 11, 12],
        sequences_ps=[1, 1, 3, 2, 4],
        decode_attention_ps=[0, 7, 5, 9, 8],
        context_ps=3,
        prefill_launch_ps=20,
        prefill_pair_ps=0.7,
        prefill_half_length=3.0,
        prefill_token_ps=2,
    )
    least = [6, 6, 6, 6, 8, 9, 10, 10, 10]  # of so many tokens or more, of which a step has at most 6
    expected = [least[n] + 1 + 20 + cost.prefill_ps(n, 0) for n in range(1, 9)]
    assert ShortestSteps(cost, budget=6).prompt_ps[1:] == expected
