from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_flow.compiler.materialize import StageTasks, materialize
from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline
from hermes_flow.program.requests import Requests

COUNT = 20_000


def requests(priority: bool = False) -> Requests:
    rng = np.random.default_rng(3)
    return Requests(
        arrival_ns=np.arange(COUNT, dtype=np.int64),
        input_tokens=rng.integers(1, 4000, COUNT),
        output_tokens=rng.integers(1, 500, COUNT),
        priority=rng.integers(0, 3, COUNT) if priority else None,
    )


def tasks_of(
    stages: dict[str, Any], seed: int = 0, drawn: Requests | None = None
) -> tuple[dict[str, StageTasks], list[str]]:
    problems: list[str] = []
    graph = parse(Pipeline("test", stages), problems)
    assert problems == []
    return materialize(graph, requests() if drawn is None else drawn, seed, problems), problems


def taken_by(fields: dict[str, Any], seed: int = 0, drawn: Requests | None = None, name: str = "t") -> Any:
    tasks, problems = tasks_of({name: {"kind": "tokenize", **fields}}, seed, drawn)
    assert problems == []
    return tasks[name].taken


def test_a_stage_without_conditions_is_taken_by_all() -> None:
    assert taken_by({}) is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.97])
def test_the_drawn_share_is_the_one_asked_for(share: float) -> None:
    taken = taken_by({"share": share})
    deviation = np.sqrt(share * (1 - share) / COUNT)
    assert abs(taken.mean() - share) <= 4 * deviation


def test_a_share_of_one_is_everybody() -> None:
    assert taken_by({"share": 1.0}) is None


def test_equal_seeds_give_equal_shares_and_others_do_not() -> None:
    first, again, other = (taken_by({"share": 0.5}, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert 0.4 < (first != other).mean() < 0.6


def test_the_shares_of_two_stages_are_independent() -> None:
    tasks, _ = tasks_of({"a": {"kind": "tokenize", "share": 0.5}, "b": {"kind": "tokenize", "share": 0.5}})
    a, b = tasks["a"].taken, tasks["b"].taken
    assert a is not None
    assert b is not None
    assert abs((a & b).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / COUNT)


def test_the_share_of_a_stage_does_not_depend_on_what_stands_beside_it() -> None:
    alone = taken_by({"share": 0.3})
    tasks, _ = tasks_of(
        {
            "first": {"kind": "tokenize", "share": 0.9},
            "t": {"kind": "tokenize", "share": 0.3, "after": ["first"]},
        }
    )
    assert (tasks["t"].taken == alone).all()


def test_a_larger_share_takes_the_same_requests_and_more() -> None:
    small, large = taken_by({"share": 0.2}), taken_by({"share": 0.4})
    assert (large | small).sum() == large.sum()


def test_a_condition_picks_requests_by_their_sizes() -> None:
    drawn = requests()
    taken = taken_by({"when": "input_tokens > 2048 and output_tokens < 100"}, drawn=drawn)
    assert (taken == ((drawn.input_tokens > 2048) & (drawn.output_tokens < 100))).all()


def test_a_condition_may_name_the_priority_where_the_workload_has_one() -> None:
    drawn = requests(priority=True)
    assert (taken_by({"when": "priority == 2"}, drawn=drawn) == (drawn.priority == 2)).all()
    _, problems = tasks_of({"t": {"kind": "tokenize", "when": "priority == 2"}})
    assert problems == [
        "pipeline.stages.t.when: unknown attribute 'priority'; expected one of: input_tokens, output_tokens"
    ]


def test_share_and_condition_must_both_hold() -> None:
    drawn = requests()
    both = taken_by({"share": 0.5, "when": "input_tokens > 2000"}, drawn=drawn)
    share = taken_by({"share": 0.5}, drawn=drawn)
    assert (both == (share & (drawn.input_tokens > 2000))).all()


def test_sizes_follow_the_kind_of_the_stage() -> None:
    drawn = Requests(*(np.array(column, dtype=np.int64) for column in ([0, 1], [100, 7], [10, 1])))
    tasks, problems = tasks_of(
        {
            "tokenize": {"kind": "tokenize", "fixed_us": 10, "per_token_us": 2},
            "prefill": {"kind": "prefill", "extra_tokens": 50, "after": ["tokenize"]},
            "decode": {"kind": "decode", "output_scale": 0.25, "after": ["prefill"]},
            "detokenize": {"kind": "detokenize", "fixed_us": 1, "per_token_us": 0.5, "after": ["decode"]},
        },
        drawn=drawn,
    )
    assert problems == []
    assert tasks["tokenize"].tokens.tolist() == [100, 7]
    assert tasks["tokenize"].service_ns is not None
    assert tasks["tokenize"].service_ns.tolist() == [210_000, 24_000]
    assert tasks["prefill"].tokens.tolist() == [150, 57]
    assert tasks["prefill"].service_ns is None
    assert tasks["decode"].tokens.tolist() == [2, 1]  # 2.5 to the even neighbour, and never below one
    assert tasks["detokenize"].service_ns is not None
    assert tasks["detokenize"].service_ns.tolist() == [2_000, 1_500]  # of what the decode has written


def test_every_mistake_is_found_at_once_with_its_full_key() -> None:
    _, problems = tasks_of(
        {
            "a": {"kind": "tokenize", "when": "f()"},
            "b": {"kind": "tokenize", "when": "color == 1"},
            "c": {"kind": "tokenize", "when": "output_token > 5"},
        }
    )
    assert [problem.split(":")[0] for problem in problems] == [
        "pipeline.stages.a.when",
        "pipeline.stages.b.when",
        "pipeline.stages.c.when",
    ]


def test_a_reward_model_reads_the_answer_of_its_own_branch() -> None:
    stages = {
        "prefill": {"kind": "prefill"},
        "decode": {"kind": "decode", "after": ["prefill"], "branches": 3, "spread_cv": 0.5},
        "score": {"kind": "reward", "after": ["decode"]},
    }
    tasks, problems = tasks_of(stages)
    assert problems == []
    decodes = [own for own in tasks.values() if own.instance.stage.name == "decode"]
    scores = [own for own in tasks.values() if own.instance.stage.name == "score"]
    assert len(scores) == len(decodes) == 3
    for score, decode in zip(scores, decodes, strict=True):
        assert (score.tokens == tasks["prefill"].tokens + decode.tokens).all()
    assert (scores[0].tokens != scores[1].tokens).any()
