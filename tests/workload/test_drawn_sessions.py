"""Sessions as they are drawn: who begins when, how prompts grow, what is refused."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from oracles.llm_client import OraclePolicy
from oracles.llm_prefix_cache import each_block
from oracles.random_sessions import random_sessions

import hermes_flow as hf
from hermes_flow.config.schema import SessionsWorkload
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import NS_PER_S
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.sessions import said_tokens

PLAIN = SessionsWorkload(
    kind="sessions",
    name="test",
    sessions=400,
    rate_per_s=2.0,
    arrivals="constant",
    turns={"distribution": "uniform", "min": 1, "max": 7},
    think_time_s={"distribution": "lognormal", "mean": 20, "cv": 1.0},
    input_tokens={"distribution": "uniform", "min": 1, "max": 50},
    output_tokens={"distribution": "uniform", "min": 1, "max": 90},
    system_prompt_tokens={"distribution": "uniform", "min": 100, "max": 999},
    system_prompts=5,
)
COLUMNS = ("arrival_ns", "input_tokens", "output_tokens", "session", "think_ns", "previous")


def drawn(seed: int = 0, **changes: Any) -> Requests:
    return build_requests(dataclasses.replace(PLAIN, **changes), seed)


def prefixes_of(requests: Requests) -> SessionPrefixes:
    assert isinstance(requests.prefixes, SessionPrefixes)
    return requests.prefixes


def previous_of(requests: Requests) -> np.ndarray:
    assert requests.previous is not None
    return requests.previous


def test_a_prompt_is_the_system_prompt_all_that_was_said_and_what_is_new() -> None:
    sizes = {"input_tokens": 10, "output_tokens": 5, "system_prompt_tokens": 100}
    requests = drawn(sessions=2, turns=3, think_time_s=1.5, **sizes)
    assert requests.input_tokens.tolist() == [110, 125, 140] * 2
    assert requests.output_tokens.tolist() == [5] * 6
    assert requests.session is not None
    assert requests.think_ns is not None
    assert requests.session.tolist() == [0, 0, 0, 1, 1, 1]
    assert previous_of(requests).tolist() == [-1, 0, 1, -1, 3, 4]
    assert (requests.think_ns / NS_PER_S).tolist() == [0, 1.5, 1.5] * 2
    assert (requests.arrival_ns / NS_PER_S).tolist() == [0.5] * 3 + [1.0] * 3
    assert requests.concurrency is None


def test_drawn_prompts_grow_by_what_was_said_and_at_least_one_token() -> None:
    requests = drawn()
    later = np.flatnonzero(previous_of(requests) >= 0)
    before = previous_of(requests)[later]
    new = requests.input_tokens[later] - requests.input_tokens[before] - requests.output_tokens[before]
    assert (new.min(), new.max()) == (1, 50)
    first = np.flatnonzero(previous_of(requests) < 0)
    asked = (requests.input_tokens - prefixes_of(requests).system_tokens)[first]
    assert (asked.min(), asked.max()) == (1, 50)
    assert len(first) == 400
    assert 3.5 < len(requests) / 400 < 4.5


def test_requests_are_numbered_by_session_and_then_by_turn() -> None:
    requests = drawn(arrivals="poisson")
    assert requests.session is not None
    assert (np.diff(requests.session) >= 0).all()
    assert (np.diff(requests.arrival_ns) >= 0).all()
    number = np.arange(len(requests))
    follows = np.concatenate(([False], np.diff(requests.session) == 0))
    assert (previous_of(requests) == np.where(follows, number - 1, -1)).all()


def test_one_turn_each_is_plain_requests_with_common_system_prompts() -> None:
    requests = drawn(turns=1)
    assert len(requests) == 400
    assert requests.previous is None
    assert requests.think_ns is None
    assert not requests.wait_for_answers
    assert (requests.input_tokens > prefixes_of(requests).system_tokens).all()


def test_the_rate_is_of_sessions_and_is_scaled() -> None:
    requests = drawn(rate_scale=2.0)
    assert requests.arrival_ns[-1] == 400 / (2.0 * 2.0) * NS_PER_S


def test_stages_end_the_sessions() -> None:
    stages = {"process": "stages", "stages": [{"rate_per_s": 3, "duration_s": 10, "process": "constant"}]}
    requests = drawn(arrivals=stages, rate_per_s=None)
    assert requests.session is not None
    assert requests.session[-1] == 29


def test_equal_seeds_give_equal_requests_and_others_do_not() -> None:
    for name in COLUMNS:
        assert np.array_equal(getattr(drawn(3), name), getattr(drawn(3), name))
    for name in ("input_tokens", "output_tokens", "think_ns"):
        assert not np.array_equal(getattr(drawn(3), name), getattr(drawn(4), name))


def test_fewer_sessions_are_the_beginning_of_more() -> None:
    few, many = drawn(sessions=37), drawn(sessions=400)
    for name in COLUMNS:
        assert np.array_equal(getattr(few, name), getattr(many, name)[: len(few)])
    for name in ("system_prompt", "system_tokens"):
        assert np.array_equal(getattr(prefixes_of(few), name), getattr(prefixes_of(many), name)[: len(few)])


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"rate_per_s": 5.0}, {"arrival_ns"}),
        ({"output_tokens": 9}, {"output_tokens", "input_tokens"}),
        ({"think_time_s": 3}, {"think_ns"}),
        ({"system_prompts": 3}, {"input_tokens"}),
        ({"system_prompt_tokens": 0}, {"input_tokens"}),
    ],
)
def test_a_change_leaves_the_other_draws_alone(change: dict[str, Any], changed: set[str]) -> None:
    before, after = drawn(), drawn(**change)
    found = {name for name in COLUMNS if not np.array_equal(getattr(before, name), getattr(after, name))}
    assert found == changed


def test_each_system_prompt_has_one_length_and_each_session_one_of_them() -> None:
    requests = drawn(system_prompts=4, sessions=3000, turns=2)
    prefixes = prefixes_of(requests)
    pairs = set(zip(prefixes.system_prompt.tolist(), prefixes.system_tokens.tolist(), strict=True))
    assert sorted(number for number, _ in pairs) == [0, 1, 2, 3]
    assert (prefixes.system_prompt[::2] == prefixes.system_prompt[1::2]).all()
    shares = np.bincount(prefixes.system_prompt[::2]) / 3000
    assert np.abs(shares - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 3000)


@pytest.mark.parametrize("skew", [0.5, 1.0, 2.0])
def test_skewed_system_prompts_follow_zipf(skew: float) -> None:
    requests = drawn(system_prompts=6, sessions=20_000, turns=1, system_prompt_skew=skew)
    shares = np.bincount(prefixes_of(requests).system_prompt, minlength=6) / 20_000
    weights = 1.0 / np.arange(1, 7) ** skew
    expected = weights / weights.sum()
    assert (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 20_000)).all()


def test_think_times_are_as_asked_and_never_below_zero() -> None:
    requests = drawn(sessions=5000, turns=4)
    assert requests.think_ns is not None
    thought = requests.think_ns[previous_of(requests) >= 0] / NS_PER_S
    assert abs(thought.mean() - 20) < 4 * 20 / np.sqrt(len(thought))
    shifted = {"distribution": "normal", "mean": 1.0, "std": 1.0}
    requests = drawn(think_time_s=shifted)
    assert requests.think_ns is not None
    assert requests.think_ns.min() == 0 < requests.think_ns.max()


@pytest.mark.parametrize("seed", range(20))
def test_keys_are_equal_where_and_only_where_all_tokens_so_far_are(seed: int) -> None:
    sessions = random_sessions(random.Random(seed), OraclePolicy(prefix_cache=True))
    requests = sessions.program().requests
    prefixes = prefixes_of(requests)
    for block_size in (1, 2, 3, 5, 16):
        named: dict[object, int] = {}
        for number, turn in enumerate(sessions.turns):
            prompt, output = turn.prompt, turn.output
            assert prefixes.full_blocks(number, block_size, prompt) == prompt // block_size
            blocks = prefixes.answer_blocks(number, block_size, prompt, output)
            keys = [*each_block(prefixes.runs(number, block_size, 0, blocks))]
            assert len({*prefixes.block_keys(number, block_size, prompt)}) == prompt // block_size
            contents = turn.block_keys(block_size)
            for key, content in zip(keys, contents, strict=True):
                assert named.setdefault(content, key) == key
        assert len(set(named.values())) == len(named)


def test_a_later_turn_finds_all_that_was_said_but_the_last_token_of_the_answer() -> None:
    """Prompts of 110, 125 and 140 tokens, and answers of 5, of which the last token is never computed."""
    sizes = {"input_tokens": 10, "output_tokens": 5, "system_prompt_tokens": 100}
    said = said_tokens(drawn(sessions=2, turns=3, **sizes))
    assert said is not None
    assert said.tolist() == [0, 110 + 5 - 1, 125 + 5 - 1] * 2
    alone = said_tokens(drawn(sessions=2, turns=1, **sizes))
    assert alone is not None
    assert alone.tolist() == [0, 0]


def test_what_a_stage_adds_is_no_part_of_the_session() -> None:
    sizes = {"input_tokens": 32, "output_tokens": 32, "system_prompt_tokens": 0}
    prefixes = prefixes_of(drawn(sessions=1, turns=2, **sizes))
    own = prefixes.block_keys(0, 16, 32)
    assert list(prefixes.block_keys(0, 16, 32 + 100)) == list(own)  # documents behind the prompt
    assert prefixes.answer_blocks(0, 16, 32, 32) == 4
    assert prefixes.answer_blocks(0, 16, 32 + 100, 32) == 0
    assert prefixes.answer_blocks(0, 16, 32, 64) == 0  # reasoning before the answer


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["workload.sessions=0"],
            "workload.sessions: 0 is out of range",
        ),
        (["workload.sessions=1000000000"], "workload.sessions: 1,000,000,000 is out of range"),
        (["workload.turns=0"], "workload.turns: 0 is out of range"),
        (
            ["workload.turns={distribution: fixed, value: 1.5}"],
            "workload.turns.value: 1.5 is not valid; expected a whole number, at least 1",
        ),
        (["workload.turns=100000000"], "workload.turns: 100,000,000 is out of range"),
        (["workload.turns=many"], "workload.turns: 'many' is not a mapping or an integer"),
        (
            ["workload.think_time_s=-1"],
            "workload.think_time_s: -1 is out of range",
        ),
        (["workload.think_time_s=1e11"], "workload.think_time_s: 1e+11 is out of range"),
        (
            ["workload.system_prompts=0"],
            "workload.system_prompts: 0 is out of range",
        ),
        (
            ["workload.system_prompt_tokens=-5"],
            "workload.system_prompt_tokens: -5 is out of range",
        ),
        (
            ["workload.system_prompt_skew=-1"],
            "workload.system_prompt_skew: -1 is out of range",
        ),
        (
            ["workload.rate_per_s=null"],
            "workload.rate_per_s: null; these arrivals need a rate in sessions per",
        ),
        (
            ["workload.rate_per_s=0"],
            "workload.rate_per_s: 0 is out of range",
        ),
        (
            ["workload.arrivals={process: closed_loop, concurrency: 4}"],
            "workload.arrivals: a closed loop; sessions begin by an open process such as poisson",
        ),
        (
            ["workload.turns=9", "workload.input_tokens=400000000000"],
            "workload.turns: gives a prompt of 3.6e+12 tokens; expected at most 1e+12",
        ),
        (["workload.requests=5"], "workload.requests: unknown key"),
    ],
)
def test_what_is_not_valid_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(hf.HermesFlowError) as caught:
        hf.compile(hf.compose(["workload=sessions", *overrides]))
    assert str(caught.value).startswith(message)
