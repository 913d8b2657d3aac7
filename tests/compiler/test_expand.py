"""Loops and branches become instances, each after all that it needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_flow.compiler.expand import Instance, ancestors, expand
from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline

LOOP: dict[str, Any] = {
    "in": {"kind": "tokenize"},
    "think": {"kind": "prefill", "after": ["in"], "repeat": "turns"},
    "act": {"kind": "decode", "after": ["think"], "repeat": "turns"},
    "tool": {"kind": "tool", "after": ["act"], "repeat": "turns", "latency_ms": 1},
    "prefill": {"kind": "prefill", "after": ["tool"], "continues": "act"},
    "decode": {"kind": "decode", "after": ["prefill"]},
}


def instances(stages: dict[str, Any], **turns: int) -> dict[str, Instance]:
    problems: list[str] = []
    graph = parse(Pipeline("test", stages, {loop: {"times": most} for loop, most in turns.items()}), problems)
    assert problems == []
    found = expand(graph, turns)
    assert len({instance.name for instance in found}) == len(found)
    return {instance.name: instance for instance in found}


def test_a_pipeline_without_loops_is_as_it_was_written() -> None:
    stages = {"a": {"kind": "tokenize"}, "b": {"kind": "prefill", "after": ["a"]}}
    assert {name: own.after for name, own in instances(stages).items()} == {"a": (), "b": ("a",)}


def test_turns_follow_each_other_and_the_end_follows_the_last() -> None:
    assert {name: own.after for name, own in instances(LOOP, turns=3).items()} == {
        "in": (),
        "think": ("in",),
        "act": ("think",),
        "tool": ("act",),
        "think.2": ("tool",),
        "act.2": ("think.2",),
        "tool.2": ("act.2",),
        "think.3": ("tool.2",),
        "act.3": ("think.3",),
        "tool.3": ("act.3",),
        "prefill": ("tool.3",),
        "decode": ("prefill",),
    }


def test_prompts_go_on_from_the_latest_answer_and_know_the_ones_before() -> None:
    found = instances(LOOP, turns=3)
    assert found["think"].continues == ()
    assert found["think.3"].continues == ("act.2", "act")
    assert found["prefill"].continues == ("act.3", "act.2", "act")


def test_a_second_answer_of_a_turn_goes_on_from_the_first() -> None:
    stages = {
        "think": {"kind": "prefill", "repeat": "turns"},
        "draft": {"kind": "decode", "after": ["think"], "repeat": "turns"},
        "look": {"kind": "prefill", "after": ["draft"], "repeat": "turns"},
        "mend": {"kind": "decode", "after": ["look"], "repeat": "turns"},
    }
    found = instances(stages, turns=2)
    assert found["look"].continues == ("draft",)
    assert found["think.2"].continues == ("mend",)
    assert found["look.2"].continues == ("draft.2", "mend")


def test_agents_side_by_side_in_a_loop_go_on_from_their_own_answers() -> None:
    stages = {
        "ask": {"kind": "prefill", "repeat": "turns"},
        "say": {"kind": "decode", "after": ["ask"], "repeat": "turns"},
        "question": {"kind": "prefill", "repeat": "turns"},
        "reply": {"kind": "decode", "after": ["question"], "repeat": "turns"},
    }
    found = instances(stages, turns=2)
    assert found["ask.2"].continues == ("say",)
    assert found["question.2"].continues == ("reply",)
    assert set(found["ask.2"].after) == {"say", "reply"}


def test_branches_prefill_and_decode_side_by_side_and_meet_again() -> None:
    stages = {
        "prefill": {"kind": "prefill"},
        "decode": {"kind": "decode", "after": ["prefill"], "branches": 3},
        "score": {"kind": "reward", "after": ["decode"]},
        "out": {"kind": "detokenize", "after": ["score"]},
    }
    found = instances(stages)
    assert found["decode/2"].after == ("prefill/2",)
    assert found["score/3"].after == ("decode/3",)
    assert found["out"].after == ("score", "score/2", "score/3")
    assert [found[name].twin for name in ("prefill", "prefill/2", "prefill/3")] == [
        None,
        "prefill",
        "prefill",
    ]
    assert found["decode/3"].first_branch == "decode"


def test_the_next_turn_waits_for_all_branches_and_goes_on_from_the_first() -> None:
    stages = {
        "expand": {"kind": "prefill", "repeat": "search"},
        "step": {"kind": "decode", "after": ["expand"], "repeat": "search", "branches": 2},
        "score": {"kind": "reward", "after": ["step"], "repeat": "search"},
    }
    found = instances(stages, search=2)
    assert found["expand.2/2"].after == ("score", "score/2")
    assert found["expand.2"].continues == ("step",)
    assert found["score.2/2"].after == ("step.2/2",)


def test_a_prompt_reads_the_answers_of_all_branches() -> None:
    stages = {
        "prefill": {"kind": "prefill"},
        "decode": {"kind": "decode", "after": ["prefill"], "branches": 2},
        "judge": {"kind": "prefill", "after": ["decode"], "reads": "decode"},
    }
    assert instances(stages)["judge"].reads == ("decode", "decode/2")


@given(turns=st.integers(1, 7), branches=st.integers(1, 4), outer=st.integers(1, 3))
def test_every_instance_comes_after_all_before_it(turns: int, branches: int, outer: int) -> None:
    stages = LOOP | {"act": LOOP["act"] | {"branches": branches}}
    stages |= {"again": {"kind": "tokenize", "after": ["decode"], "repeat": "outer"}}
    found = instances(stages, turns=turns, outer=outer)
    seen: set[str] = set()
    for instance in found.values():
        needed = {*instance.after, *instance.continues, *instance.reads, instance.twin} - {None}
        assert needed <= seen
        seen.add(instance.name)
    assert len(found) == 4 + turns * (2 * branches + 1) + outer - 1
    before = ancestors(list(found.values()))
    assert {f"act.{turn + 1}" for turn in range(1, turns)} <= before["prefill"]
    for turn in range(1, turns):
        assert "tool" in before[f"think.{turn + 1}"]


@pytest.mark.parametrize("most", [1, 2, 256])
def test_a_loop_has_as_many_copies_as_its_longest_request_asks_for(most: int) -> None:
    found = instances(LOOP, turns=most)
    assert sum(own.stage.name == "think" for own in found.values()) == most
