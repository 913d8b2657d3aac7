"""Mistakes in loops, routes, branches and continuations are named by their full key."""

from __future__ import annotations

from typing import Any

import pytest
from compiler.configs import problems_of
from pipelines_by_hand import AGENT, config_of

from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline

CALL: dict[str, Any] = {
    "prefill": {"kind": "prefill"},
    "decode": {"kind": "decode", "after": ["prefill"]},
}


def parsing(stages: dict[str, Any], loops: Any = None, routes: Any = None) -> list[str]:
    problems: list[str] = []
    parse(Pipeline("test", stages, loops or {}, routes or {}), problems)
    return problems


def with_decode(**options: Any) -> dict[str, Any]:
    return CALL | {"decode": CALL["decode"] | options}


@pytest.mark.parametrize(
    ("stages", "loops", "problem"),
    [
        (
            AGENT,
            {"turn": {"times": 2}},
            "pipeline.stages.think.repeat: no loop is called 'turns'; did you mean 'turn'?",
        ),
        (
            CALL,
            {"turns": {"times": 2}},
            "pipeline.loops.turns: no stage is part of it; name it with 'repeat: turns'",
        ),
        (
            AGENT,
            {"turns": 3},
            "pipeline.loops.turns: 3 is not a mapping with the key 'times' alone, as in {times: 3}",
        ),
        (
            AGENT,
            {"turns": {"times": 0}},
            "pipeline.loops.turns.times: 0 is not valid; expected a whole number, at least 1",
        ),
        (
            CALL | {"prefill": {"kind": "prefill", "repeat": "turns"}},
            {"turns": {"times": 2}},
            "pipeline.stages.decode.repeat: expected the same loop as its prefill 'prefill'",
        ),
        (
            AGENT
            | {"tool": {**AGENT["tool"], "repeat": None}}
            | {"last": {**AGENT["tool"], "after": ["tool"]}},
            {"turns": {"times": 2}},
            "pipeline.stages.tool.repeat: it comes between stages of the loop 'turns' and is not part of it; "
            "expected 'turns'",
        ),
    ],
)
def test_a_loop_that_does_not_fit_is_named(stages: Any, loops: Any, problem: str) -> None:
    assert problem in parsing(stages, loops)


@pytest.mark.parametrize(
    ("outcomes", "problem"),
    [
        ({"a": 0.5, "b": 0.6}, "pipeline.routes.r: the shares 0.5, 0.6 do not add up to 1"),
        ({"a": 1.5, "b": -0.5}, "pipeline.routes.r: the shares 1.5, -0.5 do not add up to 1"),
        ({"a": float("nan"), "b": 0.5}, "pipeline.routes.r: the shares nan, 0.5 do not add up to 1"),
        ({"a": 0.5, "b": "else"}, "pipeline.routes.r: has shares and conditions; expected one or the other"),
        ({"a": "input_tokens > 5"}, "pipeline.routes.r: no outcome is 'else'; expected the last one to be"),
        ({"b": "else", "a": "input_tokens > 5"}, "pipeline.routes.r: 'else' comes last"),
        (
            {"a": [1]},
            "pipeline.routes.r: {'a': [1]}; expected a share or a condition for each outcome",
        ),
    ],
)
def test_outcomes_that_are_no_choice_are_named(outcomes: Any, problem: str) -> None:
    stages = CALL | {"prefill": {"kind": "prefill", "route": {"r": "a"}}}
    assert problem in parsing(stages, routes={"r": outcomes})


def test_a_route_or_outcome_that_does_not_exist_is_named_with_the_nearest() -> None:
    stages = {"a": {"kind": "tokenize", "route": {"modl": "small", "model": "smal"}}}
    assert parsing(stages, routes={"model": {"small": 0.5, "large": 0.5}}) == [
        "pipeline.stages.a.route: no route is called 'modl'; did you mean 'model'?",
        "pipeline.stages.a.route.model: it has no outcome 'smal'; did you mean 'small'?",
    ]


def test_an_empty_route_is_named() -> None:
    assert parsing(CALL, routes={"r": {}}) == [
        "pipeline.routes.r: empty; expected outcomes with shares or conditions"
    ]


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        (
            with_decode(branches=0),
            "pipeline.stages.decode.branches: 0 is out of range; expected an integer from 1 to 4,096",
        ),
        (
            CALL | {"prefill": {"kind": "prefill", "branches": 2}},
            "pipeline.stages.prefill.branches: a prefill has no branches; only a decode has them",
        ),
        (
            with_decode(branches=3, vote=4),
            "pipeline.stages.decode.vote: 4 is above the number of branches, 3",
        ),
        (
            CALL | {"prefill": {"kind": "prefill", "vote": 1}},
            "pipeline.stages.prefill.vote: a prefill has no branches; it is a key of the decode",
        ),
        (
            with_decode(spread_cv=-1),
            "pipeline.stages.decode.spread_cv: -1 is out of range; expected a number from 0 to 100",
        ),
        (
            with_decode(continues="decode"),
            "pipeline.stages.decode.continues: a decode has no prompt; it is a key of a prefill",
        ),
        (
            CALL | {"more": {"kind": "prefill", "after": ["decode"], "continues": "decoed"}},
            "pipeline.stages.more.continues: no decode is called 'decoed'; did you mean 'decode'?",
        ),
        (
            CALL | {"more": {"kind": "prefill", "continues": "decode"}},
            "pipeline.stages.more.continues: 'decode' does not come before it",
        ),
        (
            with_decode(reads=["decode"]),
            "pipeline.stages.decode.reads: a decode has no prompt; it is a key of a prefill",
        ),
        (
            CALL | {"more": {"kind": "prefill", "after": ["decode"], "reads": ["prefill"]}},
            "pipeline.stages.more.reads: no decode is called 'prefill'; expected one of: decode",
        ),
        (
            CALL | {"more": {"kind": "prefill", "reads": ["decode"]}},
            "pipeline.stages.more.reads: 'decode' does not come before it",
        ),
        (
            CALL
            | {"more": {"kind": "prefill", "after": ["decode"], "reads": ["decode"], "continues": "decode"}},
            "pipeline.stages.more.reads: its prompt begins with the answer of 'decode' already",
        ),
        (
            {"a.2": {"kind": "tokenize"}},
            "pipeline.stages.a.2: the name has '.', which separates turns, branches and models of a stage",
        ),
        (
            {"t": {"kind": "tool"}},
            "pipeline.stages.t.latency_ms: missing; expected a mapping or a number",
        ),
        (
            {"t": {"kind": "tool", "latency_ms": -1}},
            "pipeline.stages.t.latency_ms: -1 is out of range; expected a number from 0 to 1e9",
        ),
        (
            {"t": {"kind": "tool", "latency_ms": 1, "result_tokens": 1.5}},
            "pipeline.stages.t.result_tokens: 1.5 is not a mapping or an integer",
        ),
        (
            {"g": {"kind": "guard", "of": "output"}},
            "pipeline.stages.g.of: 'output' is not valid; expected one of: answer, input",
        ),
        (
            {"g": {"kind": "guard", "template_tokens": -1}},
            "pipeline.stages.g.template_tokens: -1 is out of range; expected an integer from 0 to 1e12",
        ),
        (
            {"g": {"kind": "guard", "max_tokens": 0}},
            "pipeline.stages.g.max_tokens: 0 is out of range; expected an integer from 1 to 1e12",
        ),
        (
            {"p": {"kind": "prefill", "turn_tokens": -3}},
            "pipeline.stages.p.turn_tokens: -3 is out of range; expected an integer from 0 to 1e12",
        ),
    ],
)
def test_an_option_that_does_not_fit_its_stage_is_named(stages: Any, problem: str) -> None:
    assert parsing(stages) == [problem]


def test_a_repeated_decode_cannot_be_read_from_outside_its_loop() -> None:
    stages = AGENT | {"sum": {"kind": "prefill", "after": ["decode"], "reads": ["act"]}}
    assert parsing(stages, {"turns": {"times": 2}}) == [
        "pipeline.stages.sum.reads: 'act' is repeated and writes several answers; expected a decode after the loop"
    ]


def test_branches_need_the_prefix_cache_of_their_pool() -> None:
    broken = config_of(with_decode(branches=4), pool={"prefix_cache": False}, requests=3)
    assert problems_of(broken) == [
        "cluster.pools.llm.prefix_cache: false, but the 4 branches of pipeline.stages.decode share their prompt "
        "through it; expected true or null"
    ]


def test_a_reward_comes_after_the_decode_that_it_scores() -> None:
    guarded = config_of(CALL | {"r": {"kind": "reward", "after": ["prefill"]}}, "cluster=guarded", requests=3)
    found = problems_of(guarded)
    assert "pipeline.stages.r.after: a reward comes directly after the one decode that it scores" in found


def test_a_loop_of_too_many_turns_is_an_error_and_not_a_wait() -> None:
    broken = config_of(AGENT, loops={"turns": {"times": 1_000_000_000}}, requests=3)
    assert problems_of(broken) == [
        "pipeline.loops.turns.times: gives 1,000,000,000 iterations; expected at most 256 (a distribution takes "
        "'max')"
    ]


@pytest.mark.parametrize(
    "stages",
    [
        {"decode": {"kind": "decode"}, "p": {"kind": "prefill", "after": ["decode"], "continues": "decode"}},
        AGENT | {"think": {"kind": "prefill", "repeat": "turns", "when": "f("}},
        AGENT | {"act": {**AGENT["act"], "branches": 3, "vote": 2, "after": ["nobody"]}},
    ],
)
def test_what_depends_on_a_mistake_is_not_a_traceback(stages: Any) -> None:
    loops = {"turns": {"times": 2}} if "think" in stages else {}
    assert all(
        problem.startswith(("pipeline.", "cluster."))
        for problem in problems_of(config_of(stages, loops=loops))
    )


@pytest.mark.parametrize(
    ("loop", "problem"),
    [
        (3, "pipeline.loops.turns: 3 is not a mapping with the key 'times' alone, as in {times: 3}"),
        ({"times": 0}, "pipeline.loops.turns.times: 0 is not valid; expected a whole number, at least 1"),
    ],
)
def test_a_loop_with_a_mistake_is_told_once(loop: Any, problem: str) -> None:
    assert problems_of(config_of(AGENT, loops={"turns": loop})) == [problem]


def test_a_route_with_a_mistake_is_told_once() -> None:
    stages = CALL | {"prefill": {"kind": "prefill", "route": {"r": "a"}}}
    assert problems_of(config_of(stages, routes={"r": {"a": [1]}})) == [
        "pipeline.routes.r: {'a': [1]}; expected a share or a condition for each outcome"
    ]


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_a_vote_of_more_than_there_are_is_told_and_not_taken(kind: str) -> None:
    stages = {name: fields | ({"vote": 2} if name == kind else {}) for name, fields in CALL.items()}
    (problem,) = problems_of(config_of(stages))
    assert problem.startswith(f"pipeline.stages.{kind}.vote: ")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"output_scale": 1e30}, "pipeline.stages.decode.output_scale: 1e+30 is out of range"),
        (
            {"kind": "prefill", "extra_tokens": 1e30},
            "pipeline.stages.decode.extra_tokens: 1e+30 is out of range",
        ),
        (
            {"kind": "tool", "latency_ms": 1e30},
            "pipeline.stages.decode.latency_ms: 1e+30 is out of range",
        ),
    ],
)
def test_figures_beyond_all_reason_are_refused(fields: dict[str, Any], problem: str) -> None:
    config = config_of(with_decode(**fields), "cluster.pools.tools.serves=[tool]")
    assert problems_of(config)[0].startswith(problem)
