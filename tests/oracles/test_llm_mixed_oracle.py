"""The oracle's mixed batching: whole prompts and decodes share a step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from oracles.llm_client import simulate_llm_client
from oracles.random_systems import RandomSystem, random_systems, reaching
from oracles.worked_examples import client, request, schedule


def test_mixed_waits_with_a_prompt_until_it_fits_whole_beside_the_decodes() -> None:
    requests = [request(0, 5, 3), request(0, 8, 2), request(0, 1, 1)]
    result = simulate_llm_client(client("mixed", 0), requests)
    # Request 1 fits 8 tokens, but not 7; request 2 does not overtake it.
    assert schedule(result) == [
        (0, 15, {0: 5}),
        (15, 26, {0: 1}),
        (26, 37, {0: 1}),
        (37, 55, {1: 8}),
        (55, 67, {1: 1, 2: 1}),
    ]


def test_mixed_packs_prompts_and_decodes() -> None:
    result = simulate_llm_client(client("mixed", 0), [request(0, 5, 3), request(1, 4, 2), request(1, 3, 1)])
    assert schedule(result) == [(0, 15, {0: 5}), (15, 33, {0: 1, 1: 4, 2: 3}), (33, 45, {0: 1, 1: 1})]


def test_mixed_admits_a_prompt_beyond_the_budget_as_the_only_prompt_of_its_step() -> None:
    requests = [request(0, 2, 3), request(0, 20, 2), request(0, 9, 1), request(0, 2, 1)]
    assert schedule(simulate_llm_client(client("mixed", 0), requests)) == [
        (0, 12, {0: 2}),
        (12, 43, {0: 1, 1: 20}),
        (43, 64, {0: 1, 1: 1, 2: 9}),
        (64, 76, {3: 2}),
    ]


def test_mixed_admits_a_prompt_beyond_the_budget_though_decodes_use_it_up() -> None:
    spec = client("mixed", 0, max_num_seqs=4, max_num_batched_tokens=2)
    requests = [request(0, 1, 3), request(0, 1, 3), request(0, 3, 1)]
    assert schedule(simulate_llm_client(spec, requests)) == [
        (0, 12, {0: 1, 1: 1}),
        (12, 27, {0: 1, 1: 1, 2: 3}),
        (27, 39, {0: 1, 1: 1}),
    ]


def test_mixed_with_lookahead_plans_with_the_arrivals_at_the_start_of_a_step() -> None:
    result = simulate_llm_client(client("mixed", 1), [request(0, 5, 3), request(1, 6, 2)])
    assert schedule(result) == [
        (0, 15, {0: 5}),
        (15, 26, {0: 1}),
        (26, 43, {0: 1, 1: 6}),
        (43, 54, {1: 1}),
    ]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_mixed_preempts_the_last_and_admits_nobody_in_that_plan(lookahead: int) -> None:
    spec = client("mixed", lookahead, kv_blocks=4)
    result = simulate_llm_client(spec, [request(0, 3, 4), request(0, 3, 3), request(0, 1, 1)])
    assert [(step.tokens, step.preempted) for step in result.steps] == [
        ({0: 3, 1: 3}, []),
        ({0: 1, 1: 1}, []),
        ({0: 1}, [1]),
        ({0: 1}, []),
        ({1: 5, 2: 1}, []),
    ]


@given(random_systems(batching="mixed"))
def test_mixed_cuts_nothing(system: RandomSystem) -> None:
    result = simulate_llm_client(system.spec, system.requests)
    computed = [0] * len(system.requests)
    generated = [0] * len(system.requests)
    for step in result.steps:
        for index in step.preempted:
            computed[index] = 0
        for index, tokens in step.tokens.items():
            assert tokens == system.requests[index].prompt + generated[index] - computed[index]
            computed[index] += tokens
            generated[index] += 1


@given(random_systems(batching="mixed"))
def test_mixed_is_chunked_where_no_prompt_is_ever_cut(system: RandomSystem) -> None:
    longest = len(system.spec.cost.tokens_ps)
    tokens_ps = [tokens * 1000 for tokens in range(16 * longest)]
    cost = reaching(system.spec.cost, tokens_ps)
    spec = replace(system.spec, max_num_batched_tokens=16 * longest - 1, cost=cost)
    chunked = simulate_llm_client(replace(spec, batching="chunked"), system.requests)
    assert simulate_llm_client(spec, system.requests) == chunked
