"""The oracle's static batching: gangs, padding, and waiting for the last member."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from oracles.llm_client import OraclePolicy, OracleRequest, simulate_llm_client
from oracles.random_systems import PS_PER_US, RandomSystem, random_systems
from oracles.worked_examples import TEN_PLUS_TOKENS, client, in_us, request, schedule


@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_gang_is_padded_and_ends_with_its_last_member(lookahead: int) -> None:
    requests = [request(0, 4, 2), request(0, 2, 4), request(1, 3, 1)]
    result = simulate_llm_client(client("static", lookahead), requests)
    assert schedule(result) == [
        (0, 18, {0: 4, 1: 4}),
        (18, 30, {0: 1, 1: 1}),
        (30, 42, {0: 1, 1: 1}),
        (42, 54, {0: 1, 1: 1}),
        (54, 67, {2: 3}),
    ]
    assert in_us(result.first_ps) == [18, 18, 67]
    assert in_us(result.finish_ps) == [54, 54, 67]
    assert [step.used_blocks_after_planning for step in result.steps] == [3 + 4] * 4 + [2]


def test_decode_steps_read_the_padded_context_of_all_members() -> None:
    cost = replace(TEN_PLUS_TOKENS, context_ps=100 * PS_PER_US)
    result = simulate_llm_client(client("static", 0, cost=cost), [request(0, 4, 1), request(0, 2, 3)])
    durations = [end - start for start, end, _ in schedule(result)]
    assert durations == [18, 12 + 100 * 2 * 4, 12 + 100 * 2 * 5]


def test_a_gang_of_one_token_each_is_one_step() -> None:
    result = simulate_llm_client(client("static", 0), [request(0, 4, 1), request(0, 2, 1)])
    assert schedule(result) == [(0, 18, {0: 4, 1: 4})]
    assert in_us(result.finish_ps) == [18, 18]


def test_seats_end_a_gang() -> None:
    spec = client("static", 0, max_num_seqs=2)
    result = simulate_llm_client(spec, [request(0, 1, 1), request(0, 1, 1), request(0, 1, 1)])
    assert [step.tokens for step in result.steps] == [{0: 1, 1: 1}, {2: 1}]


def test_padded_prompts_beyond_the_budget_end_a_gang_and_nobody_overtakes() -> None:
    requests = [request(0, 3, 1), request(0, 2, 1), request(0, 4, 1), request(0, 1, 1)]
    result = simulate_llm_client(client("static", 0), requests)
    assert [step.tokens for step in result.steps] == [{0: 3, 1: 3}, {2: 4, 3: 4}]


def test_a_prompt_beyond_the_budget_is_a_gang_of_its_own() -> None:
    result = simulate_llm_client(client("static", 0), [request(0, 20, 2), request(0, 1, 1)])
    assert [step.tokens for step in result.steps] == [{0: 20}, {0: 1}, {1: 1}]


@pytest.mark.parametrize(("kv_blocks", "gang"), [(4, {0: 2}), (5, {0: 3, 1: 3})])
def test_a_longer_prompt_raises_the_blocks_of_all_members(kv_blocks: int, gang: dict[int, int]) -> None:
    # Alone request 0 needs 2 blocks; beside request 1, which needs 2 itself, it needs 3.
    spec = client("static", 0, kv_blocks=kv_blocks)
    result = simulate_llm_client(spec, [request(0, 2, 2), request(0, 3, 1)])
    assert result.steps[0].tokens == gang


def test_a_gang_forms_in_the_order_of_the_queue() -> None:
    spec = client("static", 0, max_num_seqs=2)
    requests = [request(0, 4, 1), request(0, 1, 1), request(0, 3, 1)]
    result = simulate_llm_client(spec, requests, OraclePolicy(packing="shortest_prompt"))
    assert [step.tokens for step in result.steps] == [{1: 3, 2: 3}, {0: 4}]


def test_static_batching_refuses_a_prefix_cache() -> None:
    with pytest.raises(ValueError, match="prefix cache"):
        simulate_llm_client(client("static", 0), [request(0, 1, 1)], OraclePolicy(prefix_cache=True))


@given(random_systems(batching="static"))
def test_gangs_follow_each_other_and_each_has_one_prefill_and_its_longest_output(
    system: RandomSystem,
) -> None:
    result = simulate_llm_client(system.spec, system.requests)
    served: list[int] = []
    steps = iter(result.steps)
    for step in steps:
        members = list(step.tokens)
        outputs = [system.requests[index].output for index in members]
        longest = max(system.requests[index].prompt for index in members)
        assert set(step.tokens.values()) == {longest}
        last = step
        for _ in range(max(outputs) - 1):
            last = next(steps)
            assert list(last.tokens.items()) == [(index, 1) for index in members]
        assert [result.first_ps[index] for index in members] == [step.end_ps] * len(members)
        assert [result.finish_ps[index] for index in members] == [last.end_ps] * len(members)
        served += members
    assert served == list(range(len(system.requests)))


@given(random_systems(batching="static", lookahead=1))
def test_lookahead_does_not_matter_to_gangs(system: RandomSystem) -> None:
    without = replace(system.spec, lookahead=0)
    assert simulate_llm_client(system.spec, system.requests) == simulate_llm_client(without, system.requests)


@given(random_systems(batching="static"))
def test_a_request_alone_takes_its_prefill_and_its_decodes(system: RandomSystem) -> None:
    alone: OracleRequest = system.requests[0]
    cost = system.spec.cost
    now_ps = (alone.arrival_ns + cost.ingest_ns) * 1000 + cost.step_ps([(alone.prompt, 0)], 0, 0)
    result = simulate_llm_client(system.spec, [alone])
    assert result.first_ps == [now_ps]
    for step in range(alone.output - 1):
        now_ps += cost.step_ps([], 1, alone.prompt + step)
    assert result.finish_ps == [now_ps]
