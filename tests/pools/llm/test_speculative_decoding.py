"""Speculative decoding: the client against the naive one, and against what can be worked on paper."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import compress
from math import floor

import pytest
from hypothesis import given, settings
from oracles.client_runs import (
    check_prefilled_elsewhere,
    copying_takes_time,
    gaps_between,
    recorded_gaps,
    run_alone,
)
from oracles.llm_client import OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.random_speculations import random_speculation, random_speculations
from oracles.random_systems import RandomSystem, build_affine_cost, random_system
from oracles.small_clients import small_client
from tries import tries

from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.speculative_decoding import Speculation
from hermes_flow.pools.llm.tasks import LLMTasks

US = 1_000_000  # in ps
BATCHINGS = ["chunked", "continuous", "mixed"]
POLICIES = [
    OraclePolicy(),
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="none"),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    OraclePolicy(packing="least_work_left"),
    OraclePolicy(packing="priority", prefix_cache=True),
    OraclePolicy(preemption="none", prefix_cache=True),
    OraclePolicy(preemption="swap", swap_ps_per_block=1, prefix_cache=True),
    OraclePolicy(packing="priority", preemption="swap", swap_ps_per_block=1, prefix_cache=True),
    OraclePolicy(packing="shortest_prompt", preemption="swap", swap_ps_per_block=1),
]


def named(policy: OraclePolicy) -> str:
    return f"{policy.packing}-{policy.preemption}{'-prefix' if policy.prefix_cache else ''}"


def compare(system: RandomSystem) -> tuple[LLMTasks, OracleResult]:
    """Run both and check that nothing differs."""
    client, tasks = run_alone(LLMClient, system)
    expected = simulate_llm_client(system.spec, system.requests, system.policy)
    count = len(system.requests)
    came = [request.prefilled for request in system.requests]
    first_ps = [-1 if elsewhere else first for elsewhere, first in zip(came, tasks.first_ps, strict=True)]
    assert first_ps == expected.first_ps
    assert list(tasks.finish_ps) == expected.finish_ps
    if not any(came) or system.spec.batching != "continuous":  # there, who has entered waits for prompts
        assert list(tasks.start_ps) == expected.start_ps
    assert [tasks.preemptions.get(task, 0) for task in range(count)] == expected.preemptions
    here = [not elsewhere for elsewhere in came]
    cached = [tasks.cached.get(task, 0) for task in range(count)]
    assert [*compress(cached, here)] == [*compress(expected.cached_tokens, here)]
    assert recorded_gaps(client, system.spec.cost.context_ps) == gaps_between(system, expected.emitted_ps)
    check_steps(client, expected)
    assert client.batch.peak == max(step.used_blocks_after_planning for step in expected.steps)
    assert client.batch.free == system.spec.kv_blocks
    assert not client.batch.running
    assert client.batch.backlog == 0
    return tasks, expected


def check_steps(client: LLMClient, expected: OracleResult) -> None:
    steps = [row[:2] for row in client.segments().tolist() if row[2]]
    assert steps == [[step.start_ps, step.end_ps] for step in expected.steps]
    assert client.busy_ps == sum(step.end_ps - step.start_ps for step in expected.steps)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("policy", POLICIES, ids=named)
def test_equals_the_naive_client_under_every_policy(
    batching: str, lookahead: int, policy: OraclePolicy
) -> None:
    rng = random.Random(f"{batching}{lookahead}{policy}")
    systems = tries(12, of=24)
    hits = preempting = several = 0
    for _ in range(systems):
        tasks, expected = compare(copying_takes_time(random_speculation(rng, batching, lookahead, policy)))
        hits += bool(tasks.cached)
        preempting += bool(tasks.preemptions)
        several += any(len(set(times)) < len(times) for times in expected.emitted_ps)
    assert hits > systems // 10 or not policy.prefix_cache
    assert (preempting == 0) if policy.preemption == "none" else (preempting > systems // 5)
    assert several > systems // 4


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("preemption", ["recompute", "none", "swap"])
@pytest.mark.parametrize("cached", [False, True], ids=["", "prefix"])
def test_sequences_that_were_prefilled_elsewhere_join_as_in_the_naive_client(
    batching: str, preemption: str, cached: bool
) -> None:
    rng = random.Random(f"{batching}{preemption}")
    policy = OraclePolicy(preemption=preemption, prefix_cache=cached)
    check_prefilled_elsewhere(lambda: random_speculation(rng, batching, policy=policy), compare, rng, 25)


@settings(max_examples=40)
@given(system=random_speculations())
def test_equals_the_naive_client(system: RandomSystem) -> None:
    tasks, expected = compare(system)
    assert list(tasks.finish_ps) == expected.finish_ps
    assert list(tasks.first_ps) == expected.first_ps


@pytest.mark.parametrize("batching", BATCHINGS)
def test_one_token_a_step_is_no_speculation(batching: str) -> None:
    rng = random.Random(batching)
    for _ in range(tries(30, of=70)):
        policy = rng.choice(POLICIES)
        system = copying_takes_time(random_system(rng, batching, policy=policy))
        one = replace(system, spec=replace(system.spec, speculation=(1, 1)))
        plain, expected = run_alone(LLMClient, system)
        client, tasks = run_alone(LLMClient, one)
        for column in ("start_ps", "first_ps", "finish_ps", "preemptions", "cached"):
            assert getattr(tasks, column) == getattr(expected, column)
        context_ps = system.spec.cost.context_ps
        assert recorded_gaps(client, context_ps) == recorded_gaps(plain, context_ps)
        assert client.batch.peak == plain.batch.peak


# On paper.


def speculating(expected: Fraction, requests: list[OracleRequest], **changes: object) -> RandomSystem:
    """Return a client whose steps take 100 µs and 1 µs a token, with four drafted tokens a decode."""
    cost = replace(build_affine_cost(100, 1, 0, max_tokens=200, max_seqs=20), tokens_per_decode=5)
    return RandomSystem(small_client(cost, speculation=expected.as_integer_ratio(), **changes), requests)


@pytest.mark.parametrize("expected", [Fraction(1), Fraction(5, 3), Fraction(277, 100), Fraction(5)])
def test_the_gains_of_any_number_of_steps_are_the_mean_rounded_down(expected: Fraction) -> None:
    speculation = Speculation(expected.as_integer_ratio())
    total = 0
    for step in range(1, 1000):
        gain = speculation.gain()
        assert gain >= 1
        total += gain
        assert total == floor(step * expected)


@pytest.mark.parametrize("expected", [Fraction(1), Fraction(3, 2), Fraction(277, 100), Fraction(5)])
@pytest.mark.parametrize("output", [2, 7, 2001])
def test_a_lone_answer_takes_a_step_for_every_expected_number_of_tokens(
    expected: Fraction, output: int
) -> None:
    client, tasks = run_alone(LLMClient, speculating(expected, [OracleRequest(0, 10, output)]))
    step = (100 + 5) * US  # one sequence: the token before the drafted ones, and these
    steps = -(-(output - 1) // expected)
    assert list(tasks.first_ps) == [110 * US]
    assert list(tasks.finish_ps) == [110 * US + steps * step]
    tpot = Fraction(tasks.finish_ps[0] - tasks.first_ps[0], output - 1)
    assert 0 <= tpot - step / expected < Fraction(step, output - 1)
    assert recorded_gaps(client, 0) == +Counter({step: steps, 0: output - 1 - steps})


def test_all_sequences_gain_alike_and_end_with_what_they_need() -> None:
    requests = [OracleRequest(0, 1, 1 + need) for need in (2, 3, 4)]
    _, tasks = run_alone(LLMClient, speculating(Fraction(3), requests))
    prefill, three, one = 103, 100 + 3 * 5, 100 + 5
    assert list(tasks.finish_ps) == [(prefill + us) * US for us in (three, three, three + one)]


def test_a_prefill_that_ends_in_the_step_gains_its_one_token() -> None:
    requests = [OracleRequest(0, 1, 9), OracleRequest(105_000, 1, 2)]
    client, tasks = run_alone(LLMClient, speculating(Fraction(4), requests))
    second = 101 + 105 + 106  # a prefill, four tokens, four tokens beside the other's prefill
    assert list(tasks.finish_ps) == [second * US, (second + 105) * US]
    assert list(tasks.first_ps) == [101 * US, second * US]
    assert recorded_gaps(client, 0) == Counter({0: 6, 105 * US: 2, 106 * US: 1})


def test_a_step_gains_no_more_than_blocks_are_free_for_and_the_mean_goes_on() -> None:
    # From its first decode on each holds two blocks of four tokens, which leaves one of seven. The steps would gain
    # two, three and two tokens. The third of the second step is the ninth of two sequences: it needs two blocks.
    requests = [OracleRequest(0, 4, 8), OracleRequest(0, 4, 8), OracleRequest(0, 4, 4)]
    client, tasks = run_alone(LLMClient, speculating(Fraction(5, 2), requests, kv_blocks=7))
    prefill, three, two = 112, 100 + 3 * 5, 100 + 2 * 5
    assert list(tasks.finish_ps[:2]) == [(prefill + 2 * three + 2 * two) * US] * 2
    assert tasks.finish_ps[2] == (prefill + 2 * three) * US
    assert recorded_gaps(client, 0) == Counter({three * US: 6, two * US: 4, 0: 7})
    assert not tasks.preemptions
    _, roomy = run_alone(LLMClient, speculating(Fraction(5, 2), requests, kv_blocks=8))
    assert list(roomy.finish_ps[:2]) == [(prefill + 2 * three + two) * US] * 2


@pytest.mark.parametrize("batching", ["chunked", "mixed"])
def test_a_sequence_enters_only_where_its_drafted_tokens_fit_the_step(batching: str) -> None:
    requests = [OracleRequest(0, 93, 9), OracleRequest(0, 4, 9, prefilled=True)]
    _, tasks = run_alone(LLMClient, speculating(Fraction(2), requests, batching=batching))
    assert list(tasks.start_ps) == [0, 0]
    one_less = [
        replace(requests[0], prompt=96),
        requests[1],
    ]  # four tokens of the budget are left, five are needed
    _, tasks = run_alone(LLMClient, speculating(Fraction(2), one_less, batching=batching))
    assert list(tasks.start_ps) == [0, 196 * US]
