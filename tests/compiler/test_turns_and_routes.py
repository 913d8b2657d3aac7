"""What is drawn for loops, branches and routes: who takes what, and how prompts grow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines_by_hand import AGENT

from hermes_flow.compiler.materialize import StageTasks, materialize
from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints

COUNT = 4000
UP_TO_FIVE = {"distribution": "uniform", "min": 1, "max": 5}


def requests(count: int = COUNT) -> Requests:
    rng = np.random.default_rng(5)
    return Requests(np.arange(count), rng.integers(1, 3000, count), rng.integers(1, 300, count))


def tasks_of(
    stages: dict[str, Any],
    loops: Any = None,
    routes: Any = None,
    seed: int = 0,
    drawn: Requests | None = None,
) -> dict[str, StageTasks]:
    problems: list[str] = []
    graph = parse(Pipeline("test", stages, loops or {}, routes or {}), problems)
    tasks = materialize(graph, drawn or requests(), seed, problems)
    assert problems == []
    return tasks


def taken(own: StageTasks) -> Any:
    return np.ones(len(own.tokens), bool) if own.taken is None else own.taken


def adds(own: StageTasks) -> Ints:
    assert own.adds is not None
    return own.adds


@pytest.mark.parametrize("times", [1, 4, UP_TO_FIVE])
def test_who_takes_a_turn_has_taken_the_one_before(times: Any) -> None:
    tasks = tasks_of(AGENT, {"turns": {"times": times}})
    turns = sum(name.startswith("think") for name in tasks)
    for stage in ("think", "act", "tool"):
        masks = [taken(tasks[stage if turn == 0 else f"{stage}.{turn + 1}"]) for turn in range(turns)]
        assert masks[0].all()
        assert all((later <= earlier).all() for earlier, later in pairwise(masks))
    assert taken(tasks["prefill"]).all()


def test_turns_are_as_many_as_drawn() -> None:
    tasks = tasks_of(AGENT, {"turns": {"times": UP_TO_FIVE}})
    turns = sum(taken(own).astype(int) for name, own in tasks.items() if name.startswith("think"))
    assert (np.bincount(turns, minlength=6)[1:] > COUNT // 5 - 4 * np.sqrt(COUNT * 0.16)).all()
    assert turns.max() == 5


def test_a_prompt_is_the_one_before_with_its_answer_and_what_the_tool_found() -> None:
    stages = AGENT | {
        "tool": AGENT["tool"] | {"result_tokens": {"distribution": "uniform", "min": 1, "max": 99}},
        "act": AGENT["act"] | {"spread_cv": 0.5},
    }
    stages["think"] = stages["think"] | {"turn_tokens": 7}
    drawn = requests()
    tasks = tasks_of(stages, {"turns": {"times": UP_TO_FIVE}}, drawn=drawn)
    expected = drawn.input_tokens + 30
    assert (tasks["think"].tokens == expected).all()
    last = expected
    for turn in range(5):
        suffix = f".{turn + 1}" if turn else ""
        mask = taken(tasks[f"think{suffix}"])
        if turn:
            assert (tasks[f"think{suffix}"].tokens[mask] == (last + 7)[mask]).all()
            expected = last + 7
        grown = expected + tasks[f"act{suffix}"].tokens + adds(tasks[f"tool{suffix}"])
        last = np.where(mask, grown, last)
    assert (tasks["prefill"].tokens == last).all()


def test_a_turn_that_is_skipped_leaves_the_prompt_as_the_turn_before_it_did() -> None:
    drawn = requests()
    stages = AGENT | {"think": AGENT["think"] | {"share": 0.5}}
    tasks = tasks_of(stages, {"turns": {"times": 3}}, drawn=drawn)
    first, second = taken(tasks["think"]), taken(tasks["think.2"])
    assert (taken(tasks["act.2"]) == second).all()
    third_only = ~first & ~second & taken(tasks["think.3"])
    assert third_only.sum() > COUNT // 20
    assert (tasks["think.3"].tokens[third_only] == (drawn.input_tokens + 30 + 2 * 21)[third_only]).all()
    after_first = first & ~second & taken(tasks["think.3"])
    grown = drawn.input_tokens + 30 + tasks["act"].tokens + 2 * 21
    assert (tasks["think.3"].tokens[after_first] == grown[after_first]).all()


def test_a_prompt_holds_the_reports_it_reads_and_not_what_they_were_made_of() -> None:
    drawn = requests()
    tasks = tasks_of(
        {
            "ask": {"kind": "prefill"},
            "plan": {"kind": "decode", "after": ["ask"], "output_scale": 0.5},
            "brief": {"kind": "prefill", "after": ["plan"], "continues": "plan", "turn_tokens": 40},
            "call": {"kind": "decode", "after": ["brief"]},
            "tool": {"kind": "tool", "after": ["call"], "latency_ms": 1, "result_tokens": 500},
            "read": {"kind": "prefill", "after": ["tool"], "continues": "call"},
            "report": {"kind": "decode", "after": ["read"], "branches": 2, "spread_cv": 0.4},
            "join": {"kind": "prefill", "after": ["report"], "continues": "plan", "reads": ["report"]},
            "fresh": {"kind": "prefill", "after": ["report"], "reads": ["report"]},
        },
        drawn=drawn,
    )
    plan = drawn.input_tokens + tasks["plan"].tokens
    assert (tasks["brief"].tokens == plan + 40).all()
    assert (tasks["read"].tokens == plan + 40 + tasks["call"].tokens + 500).all()
    assert (tasks["read/2"].tokens == tasks["read"].tokens).all()
    reports = tasks["report"].tokens + tasks["report/2"].tokens
    assert (tasks["join"].tokens == plan + reports).all()
    assert (tasks["fresh"].tokens == drawn.input_tokens + reports).all()


def test_branches_vary_around_the_requests_answer() -> None:
    drawn = Requests(np.arange(COUNT), np.full(COUNT, 10), np.full(COUNT, 1000))
    tasks = tasks_of(
        {
            "prefill": {"kind": "prefill"},
            "decode": {
                "kind": "decode",
                "after": ["prefill"],
                "branches": 3,
                "spread_cv": 0.3,
                "output_scale": 2,
            },
        },
        drawn=drawn,
    )
    lengths = [tasks[name].tokens for name in ("decode", "decode/2", "decode/3")]
    for own in lengths:
        assert abs(own.mean() - 2000) < 4 * 600 / np.sqrt(COUNT)
        assert abs(own.std() / own.mean() - 0.3) < 0.02
    assert abs(np.corrcoef(lengths[0], lengths[1])).min() < 4 / np.sqrt(COUNT)


@pytest.mark.parametrize("vote", [1, 2, 4])
def test_a_vote_ends_every_branch_with_the_one_that_decides(vote: int) -> None:
    stages: dict[str, Any] = {
        "prefill": {"kind": "prefill"},
        "decode": {"kind": "decode", "after": ["prefill"], "branches": 4, "spread_cv": 0.5},
    }
    free = tasks_of(stages)
    stages["decode"]["vote"] = vote
    cut = tasks_of(stages)
    names = ["decode", "decode/2", "decode/3", "decode/4"]
    before = np.sort([free[name].tokens for name in names], axis=0)
    for name in names:
        assert (cut[name].tokens == np.minimum(free[name].tokens, before[vote - 1])).all()


def test_all_branches_of_a_stage_with_a_share_are_taken_by_the_same_requests() -> None:
    stages: dict[str, Any] = {
        "prefill": {"kind": "prefill", "share": 0.5},
        "decode": {"kind": "decode", "after": ["prefill"], "branches": 3, "share": 0.5},
    }
    tasks = tasks_of(stages)
    assert (taken(tasks["prefill/3"]) == taken(tasks["prefill"])).all()
    assert (taken(tasks["decode/2"]) == taken(tasks["decode"])).all()
    assert (taken(tasks["decode/3"]) == taken(tasks["decode"])).all()
    assert (taken(tasks["decode"]) <= taken(tasks["prefill"])).all()
    assert abs(taken(tasks["decode"]).mean() - 0.25) < 4 * np.sqrt(0.19 / COUNT)


ROUTED: dict[str, Any] = {
    name: {"kind": "tokenize", "route": {"model": name}} for name in ("small", "middle", "large")
}


def test_a_route_sends_each_request_one_way_and_the_shares_are_those_asked_for() -> None:
    tasks = tasks_of(ROUTED, routes={"model": {"small": 0.5, "middle": 0.2, "large": 0.3}})
    masks = [taken(tasks[name]) for name in ROUTED]
    assert (sum(mask.astype(int) for mask in masks) == 1).all()
    for mask, share in zip(masks, (0.5, 0.2, 0.3), strict=True):
        assert abs(mask.mean() - share) < 4 * np.sqrt(share * (1 - share) / COUNT)


def test_the_first_condition_that_holds_chooses_and_else_takes_the_rest() -> None:
    drawn = requests()
    conditions = {"small": "input_tokens < 500", "middle": "input_tokens < 1500", "large": "else"}
    tasks = tasks_of(ROUTED, routes={"model": conditions}, drawn=drawn)
    assert (taken(tasks["small"]) == (drawn.input_tokens < 500)).all()
    assert (taken(tasks["middle"]) == ((drawn.input_tokens >= 500) & (drawn.input_tokens < 1500))).all()
    assert (taken(tasks["large"]) == (drawn.input_tokens >= 1500)).all()


def test_a_condition_with_a_mistake_is_named_by_its_route() -> None:
    problems: list[str] = []
    graph = parse(
        Pipeline(
            "test",
            ROUTED,
            {},
            {"model": {"small": "size < 5", "middle": "output_tokens < 9", "large": "else"}},
        ),
        problems,
    )
    materialize(graph, requests(), 0, problems)
    assert problems == [
        "pipeline.routes.model: unknown attribute 'size'; expected one of: input_tokens, output_tokens"
    ]


def test_who_is_not_escalated_keeps_the_small_models_answer() -> None:
    cascade: dict[str, Any] = {
        "prefill": {"kind": "prefill"},
        "decode": {"kind": "decode", "after": ["prefill"], "output_tokens": 11},
        "escalate": {"kind": "prefill", "after": ["decode"], "route": {"answer": "poor"}},
        "answer": {"kind": "decode", "after": ["escalate"], "output_tokens": 77},
        "detokenize": {"kind": "detokenize", "after": ["answer"]},
    }
    tasks = tasks_of(cascade, routes={"answer": {"good": 0.7, "poor": 0.3}})
    poor = taken(tasks["escalate"])
    assert (taken(tasks["answer"]) == poor).all()
    assert (tasks["detokenize"].tokens == np.where(poor, 77, 11)).all()


def test_guards_read_the_prompt_or_the_answer_and_rewards_both() -> None:
    drawn = requests()
    tasks = tasks_of(
        {
            "before": {"kind": "guard", "template_tokens": 100, "max_tokens": 1000},
            "prefill": {"kind": "prefill", "after": ["before"], "extra_tokens": 50},
            "decode": {"kind": "decode", "after": ["prefill"], "branches": 2, "spread_cv": 0.5},
            "score": {"kind": "reward", "after": ["decode"], "template_tokens": 9},
            "after": {"kind": "guard", "of": "answer", "after": ["score"]},
            "words": {
                "kind": "word_filter",
                "of": "answer",
                "after": ["score"],
                "fixed_us": 1,
                "per_token_us": 1,
            },
            "pad": {"kind": "pad", "after": ["after", "words"], "fixed_us": 1, "per_token_us": 1},
        },
        drawn=drawn,
    )
    assert (tasks["before"].tokens == np.minimum(drawn.input_tokens, 1000) + 100).all()
    for branch in ("", "/2"):
        scored = drawn.input_tokens + 50 + tasks[f"decode{branch}"].tokens + 9
        assert (tasks[f"score{branch}"].tokens == scored).all()
    assert (tasks["after"].tokens == tasks["decode"].tokens).all()
    assert tasks["words"].service_ns is not None
    assert tasks["pad"].service_ns is not None
    assert (tasks["words"].service_ns == 1000 * (tasks["decode"].tokens + 1)).all()
    assert (tasks["pad"].service_ns == 1000 * (drawn.input_tokens + 1)).all()


def test_a_tools_latency_and_result_are_drawn_apart() -> None:
    def tool(**fields: Any) -> StageTasks:
        return tasks_of({"t": {"kind": "tool"} | fields})["t"]

    drawn = {"distribution": "lognormal", "mean": 200, "cv": 1.0}
    one = tool(latency_ms=drawn, result_tokens=drawn)
    fixed = tool(latency_ms=5, result_tokens=drawn)
    assert one.service_ns is not None
    assert fixed.service_ns is not None
    assert (fixed.service_ns == 5_000_000).all()
    assert (adds(one) == adds(fixed)).all()
    assert abs(one.service_ns.mean() - 200e6) < 4 * 200e6 / np.sqrt(COUNT)
    assert abs(np.corrcoef(one.service_ns, adds(one))[0, 1]) < 4 / np.sqrt(COUNT)
    assert (adds(tool(latency_ms=5)) == 0).all()


@settings(max_examples=25)
@given(
    most=st.integers(1, 6),
    share=st.sampled_from([0.3, 1.0]),
    branches=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_prompts_never_shrink_and_outgrow_what_they_go_on_from(
    most: int, share: float, branches: int, seed: int
) -> None:
    stages = AGENT | {
        "think": AGENT["think"] | {"share": share},
        "act": AGENT["act"] | {"branches": branches, "spread_cv": 0.5},
    }
    loop = {"turns": {"times": {"distribution": "uniform", "min": 1, "max": most}}}
    drawn = requests(200)
    tasks = tasks_of(stages, loop, seed=seed, drawn=drawn)
    longest = drawn.input_tokens
    for name, own in tasks.items():
        if own.instance.stage.kind == "prefill":
            assert (own.tokens[taken(own)] >= longest[taken(own)]).all()
        elif own.instance.stage.kind == "decode" and own.instance.branch == 0:
            sequence = tasks[own.instance.after[0]].tokens + own.tokens
            longest = np.where(taken(own), sequence, longest)
            assert (own.tokens >= 1).all(), name
