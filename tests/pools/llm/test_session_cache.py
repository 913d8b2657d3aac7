"""A client with a prefix cache serves sessions as the naive client does: what later turns find, and when."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from oracles.llm_client import OraclePolicy, OracleResult, simulate_llm_client
from oracles.random_sessions import RandomSessions, random_sessions
from oracles.watched_run import watch
from tries import tries

from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.program.units import PS_PER_NS

CACHING = OraclePolicy(prefix_cache=True)
STEPS = 2  # of STEP_FIELDS


def check_same_as_naive(sessions: RandomSessions) -> OracleResult:
    expected = simulate_llm_client(sessions.spec, sessions.requests(), sessions.policy)
    watched = watch(sessions.program())
    client = watched.clients[0, 0]
    assert isinstance(client, LLMClient)
    tasks, every = client.tasks, range(len(sessions.turns))
    assert [tasks.cached.get(task, 0) for task in every] == expected.cached_tokens
    assert list(tasks.start_ps) == expected.start_ps
    assert list(tasks.first_ps) == expected.first_ps
    assert list(tasks.finish_ps) == expected.finish_ps
    assert [tasks.preemptions.get(task, 0) for task in every] == expected.preemptions
    assert client.segments()[:, STEPS].sum() == len(expected.steps)
    assert client.batch.free == client.batch.blocks
    arrival_ns = watched.recording.arrival_ns.tolist()
    for number, turn in enumerate(sessions.turns):
        since = expected.finish_ps[number - 1] // PS_PER_NS if turn.number else 0
        assert arrival_ns[number] == since + turn.wait_ns
    return expected


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_sessions_hit_preempt_and_lose_blocks_as_on_the_naive_client(batching: str) -> None:
    rng = random.Random(17)
    counts: Counter[str] = Counter()
    systems = tries(80, of=250)
    for _ in range(systems):
        sessions = random_sessions(rng, CACHING, batching)
        result = check_same_as_naive(sessions)
        size = sessions.spec.block_size
        found_all = missed = in_answer = 0
        for number, turn in enumerate(sessions.turns):
            if turn.number:
                before = sessions.turns[number - 1]
                most = (before.prompt + before.output - 1) // size * size
                cached = result.cached_tokens[number]
                assert cached <= most or most < turn.system_tokens
                found_all += cached == most > 0
                missed += cached < most
                in_answer += cached > before.prompt
        counts["finds all"] += found_all > 0
        counts["misses"] += missed > 0
        counts["finds answers"] += in_answer > 0
        counts["preempts"] += any(result.preemptions)
        counts["preempts and finds answers"] += any(result.preemptions) and in_answer > 0
    assert counts["finds all"] > 0.4 * systems
    assert counts["misses"] > 0.16 * systems
    assert counts["finds answers"] > 0.4 * systems
    assert counts["preempts"] > 0.16 * systems
    assert counts["preempts and finds answers"] > 0.08 * systems


@pytest.mark.parametrize("packing", ["shortest_prompt", "least_work_left"])
def test_sessions_in_any_packing_order(packing: str) -> None:
    rng = random.Random(5)
    for _ in range(tries(40, of=100)):
        check_same_as_naive(random_sessions(rng, replace(CACHING, packing=packing)))


def test_without_a_cache_nothing_is_found() -> None:
    rng = random.Random(23)
    for _ in range(tries(25, of=60)):
        result = check_same_as_naive(random_sessions(rng, OraclePolicy()))
        assert not any(result.cached_tokens)
