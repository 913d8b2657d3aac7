"""The oracle itself, chunked and continuous: worked examples and conservation laws."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from oracles.llm_client import simulate_llm_client
from oracles.random_systems import PS_PER_US, RandomSystem, build_affine_cost, random_systems
from oracles.worked_examples import LAST_TOKEN_IN_FLIGHT, TEN_PLUS_TOKENS, client, in_us, request, schedule

from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS


def test_chunked_cuts_the_last_prompt_to_what_the_budget_leaves() -> None:
    result = simulate_llm_client(client("chunked", 0), [request(0, 5, 3), request(0, 6, 2)])
    assert schedule(result) == [(0, 18, {0: 5, 1: 3}), (18, 32, {0: 1, 1: 3}), (32, 44, {0: 1, 1: 1})]
    assert in_us(result.start_ps) == [0, 0]
    assert in_us(result.first_ps) == [18, 32]
    assert in_us(result.finish_ps) == [44, 44]


def test_without_lookahead_an_arrival_joins_the_next_step() -> None:
    result = simulate_llm_client(client("chunked", 0), [request(0, 5, 3), request(1, 6, 2)])
    assert schedule(result) == [(0, 15, {0: 5}), (15, 32, {0: 1, 1: 6}), (32, 44, {0: 1, 1: 1})]


def test_with_lookahead_an_arrival_joins_the_step_after_the_next() -> None:
    result = simulate_llm_client(client("chunked", 1), [request(0, 5, 3), request(1, 6, 2)])
    assert schedule(result) == [
        (0, 15, {0: 5}),
        (15, 26, {0: 1}),
        (26, 43, {0: 1, 1: 6}),
        (43, 54, {1: 1}),
    ]


def test_with_lookahead_an_arrival_does_not_wait_longer_when_nothing_else_was_planned() -> None:
    result = simulate_llm_client(client("chunked", 1), [request(0, 5, 1), request(1, 6, 1)])
    assert schedule(result) == [(0, 15, {0: 5}), (15, 31, {1: 6})]


@pytest.mark.parametrize("batching", ["chunked", "continuous"])
@pytest.mark.parametrize(("arrival_us", "start_us"), [(15, 15), (16, 26)])
def test_an_arrival_at_the_very_end_of_a_step_counts_as_there(
    batching: str, arrival_us: int, start_us: int
) -> None:
    result = simulate_llm_client(client(batching, 0), [request(0, 5, 3), request(arrival_us, 2, 1)])
    assert in_us(result.start_ps) == [0, start_us]


@pytest.mark.parametrize("batching", ["chunked", "continuous"])
def test_a_request_is_seen_once_it_is_ingested(batching: str) -> None:
    spec = client(batching, 0, cost=replace(TEN_PLUS_TOKENS, ingest_ns=7000))
    result = simulate_llm_client(spec, [request(0, 5, 1), request(90, 5, 1)])
    assert schedule(result) == [(7, 22, {0: 5}), (97, 112, {1: 5})]


def test_a_last_chunk_of_one_token_is_a_prefill() -> None:
    cost = replace(TEN_PLUS_TOKENS, prefill_launch_ps=100 * PS_PER_US)
    result = simulate_llm_client(client("chunked", 0, cost=cost), [request(0, 9, 2)])
    assert schedule(result) == [(0, 118, {0: 8}), (118, 229, {0: 1}), (229, 240, {0: 1})]


def test_context_is_what_was_computed_before_the_step() -> None:
    cost = replace(TEN_PLUS_TOKENS, context_ps=1000 * PS_PER_US, prefill_context_ps=100 * PS_PER_US)
    result = simulate_llm_client(client("chunked", 0, cost=cost), [request(0, 9, 3)])
    durations = [end - start for start, end, _ in schedule(result)]
    assert durations == [18, 11 + 100 * 8, 11 + 1000 * 9, 11 + 1000 * 10]


def test_chunked_seats_limit_who_runs() -> None:
    spec = client("chunked", 0, max_num_seqs=1)
    result = simulate_llm_client(spec, [request(0, 2, 2), request(0, 2, 1)])
    assert schedule(result) == [(0, 12, {0: 2}), (12, 23, {0: 1}), (23, 35, {1: 2})]


def test_a_sequence_keeps_its_seat_and_blocks_while_its_last_token_is_in_flight() -> None:
    spec = client("chunked", 1, kv_blocks=3)
    result = simulate_llm_client(spec, [request(0, 2, 2), request(1, 4, 1)])
    assert schedule(result) == [(0, 12, {0: 2}), (12, 23, {0: 1}), (23, 37, {1: 4})]
    assert [step.used_blocks_after_planning for step in result.steps] == [1, 2, 2]


def test_a_prompt_is_admitted_only_when_all_its_blocks_are_free() -> None:
    spec = client("chunked", 0, kv_blocks=5)
    result = simulate_llm_client(spec, [request(0, 6, 2), request(0, 6, 1)])
    assert schedule(result) == [(0, 16, {0: 6}), (16, 27, {0: 1}), (27, 43, {1: 6})]


TIGHT = [request(0, 3, 4), request(0, 3, 3)]  # in 4 blocks of 2 tokens both start, and only one can go on

PREEMPTED = [*LAST_TOKEN_IN_FLIGHT, (50, 65, {1: 5})]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_chunked_preempts_the_last_and_recomputes_it_with_what_it_generated(lookahead: int) -> None:
    result = simulate_llm_client(client("chunked", lookahead, kv_blocks=4), TIGHT)
    assert schedule(result) == PREEMPTED
    assert [step.preempted for step in result.steps] == [[], [], [1], [], []]
    assert [step.used_blocks_after_planning for step in result.steps] == [4, 4, 3, 3, 3]
    assert result.preemptions == [0, 1]
    assert in_us(result.first_ps) == [16, 16]
    assert in_us(result.finish_ps) == [50, 65]


@pytest.mark.parametrize("batching", ["chunked", "continuous"])
def test_a_sequence_preempted_with_its_last_token_in_flight_just_finishes(batching: str) -> None:
    spec = client(batching, 1, kv_blocks=4)
    result = simulate_llm_client(spec, [request(0, 3, 4), request(0, 3, 2)])
    assert schedule(result) == LAST_TOKEN_IN_FLIGHT
    assert [step.preempted for step in result.steps] == [[], [], [1], []]
    assert in_us(result.finish_ps) == [50, 28]


@pytest.mark.parametrize("batching", ["chunked", "continuous"])
def test_preemptions_of_a_plan_that_came_out_empty_are_listed_with_the_next_step(batching: str) -> None:
    spec = client(batching, 1, kv_blocks=3)
    result = simulate_llm_client(spec, [request(0, 3, 2), request(0, 1, 3)])
    assert schedule(result) == [(0, 14, {0: 3, 1: 1}), (14, 26, {0: 1, 1: 1}), (26, 39, {1: 3})]
    assert [step.preempted for step in result.steps] == [[], [], [1]]
    assert [step.preempted_before for step in result.steps] == [0, 0, 1]
    assert result.preemptions == [0, 1]


def test_several_preempted_in_one_plan_keep_their_order_in_the_queue() -> None:
    # One block of 4 tokens each, until requests 0 and 1 need a second one and take those of 3 and 2.
    spec = client("chunked", 0, kv_blocks=4, block_size=4)
    result = simulate_llm_client(spec, [request(0, 2, 4) for _ in range(4)])
    assert [(step.tokens, step.preempted) for step in result.steps] == [
        ({0: 2, 1: 2, 2: 2, 3: 2}, []),
        ({0: 1, 1: 1, 2: 1, 3: 1}, []),
        ({0: 1, 1: 1, 2: 1, 3: 1}, []),
        ({0: 1, 1: 1}, [3, 2]),
        ({2: 5, 3: 3}, []),
        ({3: 2}, []),
    ]


def test_continuous_takes_whole_prompts_before_any_decode() -> None:
    result = simulate_llm_client(
        client("continuous", 0), [request(0, 5, 3), request(1, 6, 2), request(1, 7, 1)]
    )
    assert schedule(result) == [
        (0, 15, {0: 5}),
        (15, 31, {1: 6}),
        (31, 48, {2: 7}),
        (48, 60, {0: 1, 1: 1}),
        (60, 71, {0: 1}),
    ]


def test_continuous_packs_prompts_until_the_first_that_does_not_fit() -> None:
    result = simulate_llm_client(
        client("continuous", 0), [request(0, 3, 1), request(0, 6, 1), request(0, 2, 1), request(0, 1, 1)]
    )
    assert schedule(result) == [(0, 13, {0: 3}), (13, 31, {1: 6, 2: 2}), (31, 42, {3: 1})]


def test_continuous_runs_a_prompt_beyond_the_budget_alone() -> None:
    result = simulate_llm_client(
        client("continuous", 0), [request(0, 2, 1), request(0, 20, 1), request(0, 2, 1)]
    )
    assert schedule(result) == [(0, 12, {0: 2}), (12, 42, {1: 20}), (42, 54, {2: 2})]


def test_continuous_with_lookahead_plans_with_the_arrivals_at_the_start_of_a_step() -> None:
    result = simulate_llm_client(client("continuous", 1), [request(0, 5, 3), request(1, 6, 2)])
    assert schedule(result) == [
        (0, 15, {0: 5}),
        (15, 26, {0: 1}),
        (26, 42, {1: 6}),
        (42, 54, {0: 1, 1: 1}),
    ]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_continuous_preempts_the_last_and_prefills_it_again_when_its_blocks_are_free(lookahead: int) -> None:
    result = simulate_llm_client(client("continuous", lookahead, kv_blocks=4), TIGHT)
    assert schedule(result) == PREEMPTED
    assert [step.preempted for step in result.steps] == [[], [], [1], [], []]


def test_an_unknown_batching_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="gang"):
        simulate_llm_client(client("gang", 0), [request(0, 1, 1)])


@given(random_systems())
def test_every_token_is_scheduled_once_and_again_only_after_a_preemption(system: RandomSystem) -> None:
    result = simulate_llm_client(system.spec, system.requests)
    scheduled: Counter[int] = Counter()
    for step in result.steps:
        scheduled.update(step.tokens)
    for index, wanted in enumerate(system.requests):
        tokens = wanted.prompt + wanted.output - 1
        if result.preemptions[index] == 0:
            assert scheduled[index] == tokens
        else:
            assert scheduled[index] <= tokens * (1 + result.preemptions[index])
    assert sum(result.preemptions) == sum(len(step.preempted) for step in result.steps)


@given(random_systems())
def test_steps_follow_each_other_and_requests_start_in_order_of_arrival(system: RandomSystem) -> None:
    result = simulate_llm_client(system.spec, system.requests)
    visible_ps = [
        (request.arrival_ns + system.spec.cost.ingest_ns) * PS_PER_NS for request in system.requests
    ]
    for before, after in zip(result.steps, result.steps[1:], strict=False):
        assert after.start_ps == before.end_ps or after.start_ps in visible_ps
        assert after.start_ps >= before.end_ps
    assert result.start_ps == sorted(result.start_ps)
    for visible, start, first, finish in zip(
        visible_ps, result.start_ps, result.first_ps, result.finish_ps, strict=True
    ):
        assert visible <= start < first <= finish


@given(random_systems(batching="continuous"))
def test_continuous_never_mixes_prompts_with_decodes(system: RandomSystem) -> None:
    result = simulate_llm_client(system.spec, system.requests)
    seen: set[int] = set()
    for step in result.steps:
        seen -= set(step.preempted)
        joined_before = [index in seen for index in step.tokens]
        assert all(joined_before) or not any(joined_before)
        seen |= set(step.tokens)


@given(random_systems())
def test_a_request_alone_takes_the_sum_of_its_steps(system: RandomSystem) -> None:
    alone = system.requests[0]
    cost = system.spec.cost
    budget = system.spec.max_num_batched_tokens if system.spec.batching == "chunked" else alone.prompt
    now_ps = (alone.arrival_ns + cost.ingest_ns) * PS_PER_NS
    for computed in range(0, alone.prompt, budget):
        now_ps += cost.step_ps([(min(budget, alone.prompt - computed), computed)], 0, 0)
    result = simulate_llm_client(system.spec, [alone])
    assert result.first_ps == [now_ps]
    for computed in range(alone.prompt, alone.prompt + alone.output - 1):
        now_ps += cost.step_ps([], 1, computed)
    assert result.finish_ps == [now_ps]


def test_affine_cost_charges_fixed_per_token_and_per_context() -> None:
    cost: StepCost = build_affine_cost(20, 5, 0.5, max_tokens=8, max_seqs=4)
    assert cost.step_ps([(3, 10)], 2, 40) == (20 + 5 * 5) * PS_PER_US + 50 * PS_PER_US // 2
