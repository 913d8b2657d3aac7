from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline
from hermes_flow.stages.graph import Graph

CHAT = {
    "tokenize": {"kind": "tokenize"},
    "prefill": {"kind": "prefill", "after": ["tokenize"]},
    "decode": {"kind": "decode", "after": ["prefill"]},
    "detokenize": {"kind": "detokenize", "after": ["decode"]},
}


def parsed(stages: dict[str, Any]) -> tuple[Graph, list[str]]:
    problems: list[str] = []
    return parse(Pipeline("test", stages), problems), problems


def problems_of(stages: dict[str, Any]) -> list[str]:
    return parsed(stages)[1]


def test_a_chain_is_parsed_in_order() -> None:
    graph, problems = parsed(CHAT)
    assert problems == []
    assert list(graph.stages) == list(CHAT)
    assert graph.stages["decode"].options.after == ("prefill",)
    assert graph.stages["decode"].key == "pipeline.stages.decode"
    assert graph.successors("prefill") == ["decode"]


def test_stages_may_be_written_in_any_order() -> None:
    graph, problems = parsed(dict(reversed(CHAT.items())))
    assert problems == []
    assert list(graph.stages) == list(CHAT)


def test_stages_that_may_run_together_keep_the_order_they_were_written_in() -> None:
    graph, _ = parsed(
        {
            "z": {"kind": "tokenize"},
            "last": {"kind": "tokenize", "after": ["a", "z"]},
            "a": {"kind": "tokenize"},
        }
    )
    assert list(graph.stages) == ["z", "a", "last"]


def test_one_predecessor_needs_no_list() -> None:
    graph, problems = parsed({"a": {"kind": "tokenize"}, "b": {"kind": "tokenize", "after": "a"}})
    assert problems == []
    assert graph.stages["b"].options.after == ("a",)


def test_options_and_figures_of_a_stage_are_kept_apart() -> None:
    graph, problems = parsed(
        {"t": {"kind": "tokenize", "share": 0.5, "when": "input_tokens > 3", "pool": "host", "fixed_us": 7}}
    )
    assert problems == []
    options = graph.stages["t"].options
    assert (options.share, options.when, options.pool) == (0.5, "input_tokens > 3", "host")
    assert graph.stages["t"].params.fixed_us == 7.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ({}, "pipeline.stages: empty; a pipeline needs at least one stage"),
        ({"a": "tokenize"}, "pipeline.stages.a: 'tokenize' is not a mapping with the key 'kind'"),
        ({"a": {"after": []}}, "pipeline.stages.a.kind: missing; expected one of: "),
        (
            {"a": {"kind": "tokenise"}},
            "pipeline.stages.a.kind: unknown stage kind 'tokenise'; did you mean 'tokenize'?",
        ),
        (
            {"a": {"kind": "tokenize", "fixd_us": 1}},
            "pipeline.stages.a.fixd_us: unknown key; did you mean 'fixed_us'?",
        ),
        (
            {"a": {"kind": "tokenize", "output_scale": 2}},
            "pipeline.stages.a.output_scale: unknown key; it is a",
        ),
        ({"a": {"kind": "tokenize", "fixed_us": "x"}}, "pipeline.stages.a.fixed_us: 'x' is not a number"),
        ({"a": {"kind": "decode", "output_scale": 0}}, "pipeline.stages.a.output_scale: 0 is out of range"),
        (
            {"a": {"kind": "prefill", "extra_tokens": -1}},
            "pipeline.stages.a.extra_tokens: -1 is out of range",
        ),
        ({"a": {"kind": "tokenize", "share": 1.5}}, "pipeline.stages.a.share: 1.5 is out of range"),
        ({"a": {"kind": "tokenize", "share": -0.1}}, "pipeline.stages.a.share: -0.1 is out of range"),
        ({"a": {"kind": "tokenize", "when": 5}}, "pipeline.stages.a.when: 5 is not text"),
        ({"a": {"kind": "tokenize", "after": [1]}}, "pipeline.stages.a.after.0: 1 is not text"),
    ],
)
def test_a_mistake_in_a_stage_is_named_by_its_full_key(stages: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(stages)
    assert found.startswith(problem)


def test_a_predecessor_that_does_not_exist_is_named_with_the_nearest() -> None:
    assert problems_of({"first": {"kind": "tokenize"}, "b": {"kind": "tokenize", "after": ["frist"]}}) == [
        "pipeline.stages.b.after: no stage is called 'frist'; did you mean 'first'?"
    ]


def test_a_predecessor_that_is_broken_itself_is_not_called_unknown() -> None:
    assert problems_of({"a": {"kind": "x"}, "b": {"kind": "tokenize", "after": ["a"]}}) == [
        "pipeline.stages.a.kind: unknown stage kind 'x'"
        + problems_of({"a": {"kind": "x"}})[0].split("'x'")[1]
    ]


@pytest.mark.parametrize(
    "after", [{"a": ["a"]}, {"a": ["b"], "b": ["a"]}, {"a": ["c"], "b": ["a"], "c": ["b"]}]
)
def test_a_cycle_is_named(after: dict[str, list[str]]) -> None:
    stages = {name: {"kind": "tokenize", "after": before} for name, before in after.items()}
    (found,) = problems_of(stages)
    loop = found.removeprefix("pipeline.stages: a cycle: ").split(" → ")
    assert loop[0] == loop[-1]
    assert sorted(loop[1:]) == sorted(after)
    assert all(earlier in after[later] for earlier, later in pairwise(loop))


def test_what_hangs_on_a_cycle_is_not_part_of_it() -> None:
    stages = {
        "start": {"kind": "tokenize"},
        "a": {"kind": "tokenize", "after": ["start", "b"]},
        "b": {"kind": "tokenize", "after": ["a"]},
        "end": {"kind": "tokenize", "after": ["b"]},
    }
    graph, (problem,) = parsed(dict(reversed(stages.items())))
    assert "end" not in problem.split(": ")[2]
    assert "start" not in problem
    assert list(graph.stages) == ["start"]


def test_every_mistake_is_found_at_once() -> None:
    found = problems_of(
        {
            "a": {"kind": "tokenize", "share": 7},
            "b": {"kind": "prefil"},
            "c": {"kind": "tokenize", "after": ["d"]},
            "e": {"kind": "tokenize", "after": ["f"]},
            "f": {"kind": "tokenize", "after": ["e"]},
        }
    )
    assert [problem.split(":")[0] for problem in found] == [
        "pipeline.stages.a.share",
        "pipeline.stages.b.kind",
        "pipeline.stages.c.after",
        "pipeline.stages",
    ]
