"""The oracle's preemption modes: swapping to the host, and reserving so that nobody is preempted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from oracles.llm_client import OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.random_systems import PS_PER_US, RandomSystem, random_systems
from oracles.worked_examples import LAST_TOKEN_IN_FLIGHT, Schedule, client, in_us, request, schedule

RESERVING = OraclePolicy(preemption="none")
SWAPPING = OraclePolicy(preemption="swap", swap_ps_per_block=5 * PS_PER_US)

TIGHT = [request(0, 3, 4), request(0, 3, 3)]  # in 4 blocks of 2 tokens both start, and only one can go on


@pytest.mark.parametrize("batching", ["chunked", "mixed", "continuous"])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_whole_sequences_are_reserved_where_nobody_may_be_preempted(batching: str, lookahead: int) -> None:
    result = simulate_llm_client(client(batching, lookahead, kv_blocks=6), TIGHT, RESERVING)
    assert schedule(result) == [
        (0, 13, {0: 3}),
        (13, 24, {0: 1}),
        (24, 35, {0: 1}),
        (35, 46, {0: 1}),
        (46, 59, {1: 3}),
        (59, 70, {1: 1}),
        (70, 81, {1: 1}),
    ]
    assert [step.used_blocks_after_planning for step in result.steps] == [4] * 4 + [3] * 3


def test_reserved_blocks_count_hits_once() -> None:
    keys = ("a0", "a1")
    requests = [request(0, 5, 3, keys), request(0, 5, 3, keys)]
    policy = replace(RESERVING, prefix_cache=True)
    result = simulate_llm_client(client("chunked", 0, kv_blocks=6), requests, policy)
    assert schedule(result)[0] == (0, 16, {0: 5, 1: 1})
    assert {step.used_blocks_after_planning for step in result.steps} == {6}


@pytest.mark.parametrize("batching", ["chunked", "mixed", "continuous"])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_swapped_sequence_is_copied_out_and_back_and_computes_nothing_again(
    batching: str, lookahead: int
) -> None:
    result = simulate_llm_client(client(batching, lookahead, kv_blocks=4), TIGHT, SWAPPING)
    assert schedule(result) == [
        (0, 16, {0: 3, 1: 3}),
        (16, 28, {0: 1, 1: 1}),
        (28, 49, {0: 1}),  # and 2 blocks to the host
        (49, 60, {0: 1}),
        (60, 81, {1: 1}),  # and 2 blocks back, into 3
    ]
    assert [step.preempted for step in result.steps] == [[], [], [1], [], []]
    assert [step.copied_blocks for step in result.steps] == [0, 0, 2, 0, 2]
    assert [step.used_blocks_after_planning for step in result.steps] == [4, 4, 3, 3, 3]
    assert result.preemptions == [0, 1]
    assert in_us(result.finish_ps) == [60, 81]


@pytest.mark.parametrize("batching", ["chunked", "mixed", "continuous"])
def test_a_sequence_whose_last_token_is_in_flight_is_not_copied(batching: str) -> None:
    # Planned at 16, while the step runs that gives request 1 its last token.
    spec = client(batching, 1, kv_blocks=4)
    result = simulate_llm_client(spec, [request(0, 3, 4), request(0, 3, 2)], SWAPPING)
    assert schedule(result) == LAST_TOKEN_IN_FLIGHT
    assert [step.preempted for step in result.steps] == [[], [], [1], []]
    assert [step.copied_blocks for step in result.steps] == [0, 0, 0, 0]
    assert [step.used_blocks_after_planning for step in result.steps] == [4, 4, 3, 3]
    assert in_us(result.finish_ps) == [50, 28]


@pytest.mark.parametrize("batching", ["chunked", "mixed", "continuous"])
def test_copies_without_tokens_are_a_step_of_their_own(batching: str) -> None:
    # At 16 request 0 has nothing left to plan and still holds 2 blocks: request 1 preempts itself.
    spec = client(batching, 1, kv_blocks=4)
    result = simulate_llm_client(spec, [request(0, 3, 2), request(0, 3, 3)], SWAPPING)
    assert schedule(result) == [
        (0, 16, {0: 3, 1: 3}),
        (16, 28, {0: 1, 1: 1}),
        (28, 38, {}),
        (38, 59, {1: 1}),
    ]
    assert [step.preempted for step in result.steps] == [[], [], [1], []]
    assert [step.copied_blocks for step in result.steps] == [0, 0, 2, 2]
    assert [step.used_blocks_after_planning for step in result.steps] == [4, 4, 2, 3]


THREE = [request(0, 3, 5), request(0, 3, 3), request(0, 3, 3)]  # in 7 blocks, the third goes to the host


@pytest.mark.parametrize("batching", ["chunked", "mixed"])
def test_a_copy_back_shares_its_step_with_decodes_and_prompts(batching: str) -> None:
    spec = client(batching, 0, kv_blocks=7, max_num_batched_tokens=9)
    result = simulate_llm_client(spec, [*THREE, request(33, 2, 1)], SWAPPING)
    assert schedule(result) == [
        (0, 19, {0: 3, 1: 3, 2: 3}),
        (19, 32, {0: 1, 1: 1, 2: 1}),
        (32, 54, {0: 1, 1: 1}),
        (54, 78, {0: 1, 2: 1, 3: 2}),
        (78, 89, {0: 1}),
    ]
    assert [step.preempted for step in result.steps] == [[], [], [2], [], []]


def test_under_continuous_batching_what_is_copied_back_decodes_at_once_if_no_prompt_is_admitted() -> None:
    spec = client("continuous", 0, kv_blocks=7, max_num_batched_tokens=9)
    start = [(0, 19, {0: 3, 1: 3, 2: 3}), (19, 32, {0: 1, 1: 1, 2: 1}), (32, 54, {0: 1, 1: 1})]
    alone = simulate_llm_client(spec, THREE, SWAPPING)
    assert schedule(alone) == [*start, (54, 76, {0: 1, 2: 1}), (76, 87, {0: 1})]
    with_a_prompt = simulate_llm_client(spec, [*THREE, request(33, 2, 1)], SWAPPING)
    assert schedule(with_a_prompt) == [*start, (54, 76, {3: 2}), (76, 88, {0: 1, 2: 1}), (88, 99, {0: 1})]


def test_copies_are_of_the_blocks_that_computed_tokens_fill_and_not_of_a_reserved_one() -> None:
    # Request 2 comes back beside the prompt of request 3, into 3 blocks for its 4 tokens, and goes again
    # before it decodes.
    requests = [
        OracleRequest(0, 4, 5),
        OracleRequest(0, 3, 3),
        OracleRequest(0, 3, 3, priority=2),
        OracleRequest(40_000, 2, 2, priority=1),
    ]
    spec = client("continuous", 0, kv_blocks=7, max_num_batched_tokens=10)
    policy = replace(SWAPPING, packing="priority", age_ns=100_000)
    result = simulate_llm_client(spec, requests, policy)
    assert schedule(result) == [
        (0, 20, {0: 4, 1: 3, 2: 3}),
        (20, 33, {0: 1, 1: 1, 2: 1}),
        (33, 55, {0: 1, 1: 1}),
        (55, 77, {3: 2}),
        (77, 99, {0: 1, 3: 1}),
        (99, 121, {0: 1, 2: 1}),
    ]
    assert [step.preempted for step in result.steps] == [[], [], [2], [], [2], []]
    assert [step.copied_blocks for step in result.steps] == [0, 0, 2, 2, 2, 2]
    assert [step.used_blocks_after_planning for step in result.steps] == [6, 7, 6, 7, 6, 7]


def test_under_continuous_batching_one_plan_may_copy_a_sequence_back_and_out_again() -> None:
    # Request 2 takes the last 3 blocks, and request 0 needs one of them to decode: 2 blocks back, 2 out.
    spec = client("continuous", 0, kv_blocks=6)
    result = simulate_llm_client(spec, [request(0, 4, 5), request(0, 1, 3), request(0, 3, 3)], SWAPPING)
    assert schedule(result) == [
        (0, 18, {0: 4, 1: 1, 2: 3}),
        (18, 31, {0: 1, 1: 1, 2: 1}),
        (31, 53, {0: 1, 1: 1}),
        (53, 84, {0: 1}),
        (84, 95, {0: 1}),
        (95, 116, {2: 1}),
    ]
    assert [step.preempted for step in result.steps] == [[], [], [2], [2], [], []]
    assert [step.copied_blocks for step in result.steps] == [0, 0, 2, 4, 0, 2]


URGENT = [  # in 5 blocks, request 1 goes to the host, and request 2 overtakes it with the whole budget
    OracleRequest(0, 2, 5, priority=0),
    OracleRequest(0, 2, 4, ("b0",), priority=2),
    OracleRequest(60_000, 4, 1, priority=1),
]


@pytest.mark.parametrize(
    ("batching", "end"),
    [
        ("chunked", [(70, 84, {2: 4}), (84, 105, {1: 1})]),
        ("mixed", [(70, 84, {2: 4}), (84, 105, {1: 1})]),
        ("continuous", [(70, 94, {2: 4}), (94, 105, {1: 1})]),
    ],
)
def test_a_copy_back_needs_token_budget_where_it_decodes_beside_prompts(batching: str, end: Schedule) -> None:
    spec = client(batching, 0, kv_blocks=5, max_num_batched_tokens=4)
    policy = replace(SWAPPING, packing="priority", age_ns=100_000)
    assert schedule(simulate_llm_client(spec, URGENT, policy)) == [
        (0, 14, {0: 2, 1: 2}),
        (14, 26, {0: 1, 1: 1}),
        (26, 38, {0: 1, 1: 1}),
        (38, 59, {0: 1}),
        (59, 70, {0: 1}),
        *end,
    ]


def test_what_was_copied_back_is_found_in_the_prefix_cache() -> None:
    # Request 2 takes the 2 blocks that request 1 left, and request 1 comes back into the other 3: request 3
    # finds the copy.
    spec = client("chunked", 0, kv_blocks=5, max_num_batched_tokens=4)
    policy = replace(SWAPPING, packing="priority", age_ns=100_000, prefix_cache=True)
    late = OracleRequest(100_000, 3, 1, ("b0",))
    result = simulate_llm_client(spec, [*URGENT, late], policy)
    assert result.cached_tokens == [0, 0, 0, 2]
    assert schedule(result)[-1] == (105, 116, {3: 1})


def test_a_sequence_preempted_while_prefilling_is_recomputed() -> None:
    spec = client("chunked", 0, kv_blocks=6, max_num_batched_tokens=4)
    result = simulate_llm_client(spec, [request(0, 2, 6), request(0, 10, 1)], SWAPPING)
    assert schedule(result) == [
        (0, 14, {0: 2, 1: 2}),
        (14, 28, {0: 1, 1: 3}),
        (28, 42, {0: 1, 1: 3}),
        (42, 53, {0: 1}),
        (53, 64, {0: 1}),
        (64, 75, {0: 1}),
        (75, 89, {1: 4}),
        (89, 103, {1: 4}),
        (103, 115, {1: 2}),
    ]
    assert [step.preempted for step in result.steps][3] == [1]


@given(random_systems(policy=RESERVING))
def test_where_all_is_reserved_nobody_is_preempted_and_no_token_computed_twice(system: RandomSystem) -> None:
    result = simulate_llm_client(system.spec, system.requests, system.policy)
    assert not any(result.preemptions)
    assert_no_token_computed_twice(system, result)


@pytest.mark.parametrize("batching", ["mixed", "continuous"])
@given(system=random_systems(policy=SWAPPING))
def test_swapping_computes_no_token_twice(batching: str, system: RandomSystem) -> None:
    # Prompts are never cut here: nobody is preempted while prefilling.
    result = simulate_llm_client(replace(system.spec, batching=batching), system.requests, system.policy)
    assert_no_token_computed_twice(system, result)


@given(random_systems())
def test_the_modes_agree_where_blocks_last(system: RandomSystem) -> None:
    spec = system.with_ample_blocks()
    result = simulate_llm_client(spec, system.requests)
    assert simulate_llm_client(spec, system.requests, SWAPPING) == result
    reserving = simulate_llm_client(spec, system.requests, RESERVING)
    assert (reserving.first_ps, reserving.finish_ps) == (result.first_ps, result.finish_ps)


def assert_no_token_computed_twice(system: RandomSystem, result: OracleResult) -> None:
    scheduled: Counter[int] = Counter()
    for step in result.steps:
        scheduled.update(step.tokens)
    for index, wanted in enumerate(system.requests):
        assert scheduled[index] == wanted.prompt + wanted.output - 1
