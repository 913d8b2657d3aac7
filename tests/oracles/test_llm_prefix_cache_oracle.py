"""The oracle's prefix cache: what is found, what is evicted, and what that spares."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from oracles.llm_client import OraclePolicy, simulate_llm_client
from oracles.llm_prefix_cache import Block, BlockPool
from oracles.random_systems import PS_PER_US, RandomSystem, random_system, random_systems
from oracles.worked_examples import TEN_PLUS_TOKENS, client, in_us, request, schedule
from tries import tries

CACHING = OraclePolicy(prefix_cache=True)


def numbers(blocks: list[Block]) -> list[int]:
    return [block.number for block in blocks]


def test_blank_blocks_are_taken_before_keyed_ones_and_the_end_of_a_sequence_before_its_beginning() -> None:
    pool = BlockPool(7)
    first, second = pool.take(3), pool.take(3)
    pool.remember(first[0], "a0")
    pool.remember(first[1], "a1")
    pool.remember(second[0], "b0")
    pool.release(first)
    assert numbers(pool.free) == [2, 6, 1, 0]
    pool.release(second)
    assert numbers(pool.free) == [5, 4, 2, 6, 1, 0, 3]


def test_a_block_is_found_until_it_is_taken() -> None:
    pool = BlockPool(2)
    blocks = pool.take(2)
    for block, key in zip(blocks, ["a0", "a1"], strict=True):
        pool.remember(block, key)
    pool.release(blocks)
    assert numbers(pool.find(["a0", "a1", "a2"])) == [0, 1]
    assert numbers(pool.take(1)) == [1]
    assert numbers(pool.find(["a0", "a1"])) == [0]
    assert pool.find(["a1"]) == []


def test_a_block_shared_by_two_sequences_is_free_when_both_released_it() -> None:
    pool = BlockPool(2)
    blocks = pool.take(1)
    pool.remember(blocks[0], "a0")
    pool.share(pool.find(["a0"]))
    pool.release(blocks)
    assert (pool.used, blocks[0].users) == (1, 1)
    pool.release(blocks)
    assert (pool.used, blocks[0].users) == (0, 0)
    pool.share(pool.find(["a0"]))
    assert numbers(pool.free) == [1]


def test_of_blocks_that_hold_the_same_the_one_keyed_first_is_found() -> None:
    pool = BlockPool(3)
    third, second, first = pool.take(3)
    for block in (first, second, third):
        pool.remember(block, "a0")
    assert pool.find(["a0"]) == [first]
    pool.release([first])
    pool.take(1)
    assert pool.find(["a0"]) == [second]


def test_a_prompt_admitted_earlier_in_the_same_plan_is_found() -> None:
    keys = ("a0", "a1", "a2")
    requests = [request(0, 6, 1, keys), request(0, 6, 1, keys), request(0, 5, 1, ("a0", "b1"))]
    result = simulate_llm_client(client("chunked", 0, max_num_batched_tokens=20), requests, CACHING)
    # The last token is computed, and blocks are spared whole: of 3 full blocks 2 are hits.
    assert schedule(result) == [(0, 21, {0: 6, 1: 2, 2: 3})]
    assert result.cached_tokens == [0, 4, 2]
    assert [step.used_blocks_after_planning for step in result.steps] == [3 + 1 + 2]


def test_only_what_is_scheduled_of_a_prompt_is_found() -> None:
    keys = tuple(range(6))
    requests = [request(0, 12, 1, keys), request(0, 12, 1, keys)]
    spec = client("chunked", 0, max_num_batched_tokens=7)
    result = simulate_llm_client(spec, requests, CACHING)
    assert [step.tokens for step in result.steps] == [{0: 7}, {0: 5, 1: 2}]
    assert result.cached_tokens == [0, 10]


def test_hits_are_context_of_the_prefill_and_cost_no_budget() -> None:
    cost = replace(TEN_PLUS_TOKENS, prefill_context_ps=100 * PS_PER_US)
    requests = [request(0, 8, 1, ("a0", "a1", "a2", "a3")), request(1, 12, 1, ("a0", "a1", "a2"))]
    result = simulate_llm_client(client("chunked", 0, cost=cost), requests, CACHING)
    assert schedule(result) == [(0, 18, {0: 8}), (18, 18 + 16 + 600, {1: 6})]


def test_a_hit_that_nobody_uses_takes_a_free_block_at_admission() -> None:
    # After request 0, 6 blocks are free, 2 of them keyed. Request 1 takes 2 and leaves 4: those of request 2,
    # were its 2 hits free of charge, would be 5 − 2; but they leave the free queue, and it must wait.
    requests = [request(0, 4, 1, ("a0", "a1")), request(1, 3, 4), request(1, 9, 1, ("a0", "a1"))]
    result = simulate_llm_client(client("chunked", 0, kv_blocks=6), requests, CACHING)
    assert [step.tokens for step in result.steps] == [{0: 4}, {1: 3}, {1: 1}, {1: 1}, {1: 1}, {2: 5}]
    assert result.cached_tokens == [0, 0, 4]


@pytest.mark.parametrize(("lookahead", "missing"), [(0, 1), (1, 3)])
def test_a_preempted_request_finds_its_generated_tokens_but_for_a_block_that_ended_in_flight(
    lookahead: int, missing: int
) -> None:
    # Request 1 is preempted with 4 tokens computed. With look-ahead the 4th was not known when it was
    # scheduled, and the plan that would have keyed the second block preempts.
    spec = client("chunked", lookahead, kv_blocks=5)
    result = simulate_llm_client(spec, [request(0, 3, 4), request(0, 3, 4)], CACHING)
    assert [(step.tokens, step.preempted) for step in result.steps] == [
        ({0: 3, 1: 3}, []),
        ({0: 1, 1: 1}, []),
        ({0: 1}, [1]),
        ({0: 1}, []),
        ({1: missing}, []),
        ({1: 1}, []),
    ]
    assert result.cached_tokens == [0, 0]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_next_turn_comes_after_the_answer_and_finds_all_its_full_blocks_but_of_the_last_token(
    lookahead: int,
) -> None:
    keys = ("a0", "a1", "a2", "a3", "a4", "a5")
    requests = [request(0, 5, 5, keys[:5]), replace(request(20, 13, 1, keys), after=0)]
    result = simulate_llm_client(client("chunked", lookahead), requests, CACHING)
    # 5 + 5 − 1 tokens were computed: 4 blocks of 2. It arrives 20 µs after 59 µs.
    assert schedule(result)[-2:] == [(48, 59, {0: 1}), (79, 94, {1: 5})]
    assert result.cached_tokens == [0, 8]


def test_what_a_preempted_request_left_is_lost_from_its_end_on() -> None:
    # As above, but request 0 grows by a 4th block meanwhile: the last one that request 1 left.
    result = simulate_llm_client(
        client("chunked", 0, kv_blocks=5), [request(0, 3, 6), request(0, 3, 4)], CACHING
    )
    assert [step.tokens for step in result.steps][-2:] == [{1: 3}, {1: 1}]


@given(random_systems(policy=CACHING))
def test_hits_are_whole_blocks_of_what_is_common_and_never_the_last_token(system: RandomSystem) -> None:
    result = simulate_llm_client(system.spec, system.requests, system.policy)
    for wanted, cached in zip(system.requests, result.cached_tokens, strict=True):
        assert cached < wanted.prompt
        assert cached % system.spec.block_size == 0
        assert cached <= len(wanted.block_keys) * system.spec.block_size


@settings(max_examples=60)
@given(random_systems(policy=CACHING))
def test_without_common_prompts_and_preemptions_the_cache_changes_nothing(system: RandomSystem) -> None:
    spec = system.with_ample_blocks()
    alike = [replace(wanted, block_keys=()) for wanted in system.requests]
    result = simulate_llm_client(spec, alike, system.policy)
    assert result == simulate_llm_client(spec, alike)
    assert not any(result.preemptions)


@settings(max_examples=60)
@given(random_systems(policy=CACHING))
def test_with_blocks_for_all_a_request_on_its_own_finds_all_that_was_ever_computed(
    system: RandomSystem,
) -> None:
    spec = replace(system.with_ample_blocks(), max_num_seqs=1)
    result = simulate_llm_client(spec, system.requests, system.policy)
    seen: set[object] = set()
    for wanted, cached in zip(system.requests, result.cached_tokens, strict=True):
        common = sum(key in seen for key in wanted.block_keys)
        assert cached == min(common, (wanted.prompt - 1) // spec.block_size) * spec.block_size
        seen.update(wanted.block_keys)


@given(random_systems(policy=CACHING))
def test_every_token_is_computed_or_found(system: RandomSystem) -> None:
    result = simulate_llm_client(system.spec, system.requests, system.policy)
    scheduled: Counter[int] = Counter()
    for step in result.steps:
        scheduled.update(step.tokens)
    for index, wanted in enumerate(system.requests):
        tokens = wanted.prompt + wanted.output - 1
        if result.preemptions[index] == 0:
            assert scheduled[index] + result.cached_tokens[index] == tokens
    assert in_us(result.start_ps) == sorted(in_us(result.start_ps))


def test_many_random_systems_hit_evict_and_resume_from_the_cache() -> None:
    systems = tries(80, of=150)
    counts: Counter[str] = Counter()
    for seed in range(systems):
        system = random_system(random.Random(seed), policy=CACHING)
        result = simulate_llm_client(system.spec, system.requests, system.policy)
        ample = system.with_ample_blocks()
        counts["hits"] += any(result.cached_tokens)
        counts["preempts"] += any(result.preemptions)
        everything = simulate_llm_client(ample, system.requests, system.policy)
        counts["evicts"] += sum(result.cached_tokens) < sum(everything.cached_tokens)
        scheduled = sum(sum(step.tokens.values()) for step in result.steps)
        uncached = simulate_llm_client(system.spec, system.requests)
        recomputed = sum(sum(step.tokens.values()) for step in uncached.steps)
        counts["spares"] += scheduled < recomputed
    assert counts["hits"] > 0.7 * systems
    assert counts["preempts"] > 0.4 * systems
    assert counts["evicts"] > 0.3 * systems
    assert counts["spares"] > 0.7 * systems
