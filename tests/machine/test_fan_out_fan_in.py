"""Pipelines as DAGs: a stage is ready when all before it are done, and one that is skipped holds nobody up."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from oracles import pipeline_dag
from oracles.random_programs import base_config, random_program, random_programs
from tries import tries

import hermes_flow as hf
from hermes_flow.config.schema import Pipeline
from hermes_flow.machine.run import run

Stages = dict[str, dict[str, Any]]
Times = dict[str, tuple[float, float, float]]  # stage → ready, start, finish, in µs

US_PER_S = 1e6


@settings(max_examples=tries(50, of=150))
@given(program=random_programs())
def test_every_task_is_ready_the_moment_all_before_it_are_done(program: hf.Program) -> None:
    recording = run(program)
    for index, record in enumerate(recording.ops):
        assert record.ready_ns.tolist() == pipeline_dag.ready_ns(recording, index)
    assert recording.finish_ns.tolist() == pipeline_dag.finish_ns(recording)


def test_random_pipelines_do_fan_out_and_in_and_skip() -> None:
    rng = random.Random(1)
    seen = {"fan in": 0, "fan out": 0, "skip": 0, "several ends": 0, "several beginnings": 0}
    for _ in range(200):
        ops = random_program(rng).ops
        follow = [[index for index, op in enumerate(ops) if before in op.after] for before in range(len(ops))]
        seen["fan in"] += any(len(op.after) > 1 for op in ops)
        seen["fan out"] += any(len(after) > 1 for after in follow)
        seen["skip"] += any(op.taken is not None for op in ops)
        seen["several ends"] += sum(not after for after in follow) > 1
        seen["several beginnings"] += sum(not op.after for op in ops) > 1
    assert min(seen.values()) > 20


def host_stage(fixed_us: float, *after: str, **options: Any) -> dict[str, Any]:
    return {"kind": "tokenize", "fixed_us": fixed_us, "per_token_us": 0.0, "after": list(after)} | options


def config_of(stages: Stages, requests: int = 1, cores: int = 8, **pool: Any) -> hf.Config:
    base: Any = base_config("affine")
    pools = dict(base.cluster.pools)
    pools["host"] = replace(pools["host"], cores=cores)
    pools["llm"] = replace(pools["llm"], **pool)
    config: hf.Config = replace(
        base,
        pipeline=Pipeline("handmade", stages),
        cluster=replace(base.cluster, pools=pools),
        workload=replace(
            base.workload,
            requests=requests,
            arrivals="constant",
            rate_per_s=1.0,
            input_tokens=8,
            output_tokens=4,
        ),
        cost={"kind": "affine", "fixed_us": 10.0, "per_token_us": 0.0, "per_context_us": 0.0},
    )
    return config


def times_of(result: hf.Result, request: int = 0) -> Times:
    """Return each stage's times since the request's arrival."""
    arrival = result.requests["arrival_s"][request]
    rows = result.stages.filter(result.stages["request"] == request)
    return {
        row["stage"]: tuple(
            round((row[column] - arrival) * US_PER_S, 3) for column in ("ready_s", "start_s", "finish_s")
        )
        for row in rows.iter_rows(named=True)
    }


def simulate_stages(stages: Stages, **options: Any) -> hf.Result:
    return hf.simulate(hf.compile(config_of(stages, **options)))


def test_a_fan_in_waits_for_the_slowest_branch() -> None:
    diamond = {
        "top": host_stage(3),
        "quick": host_stage(5, "top"),
        "slow": host_stage(50, "top"),
        "bottom": host_stage(2, "quick", "slow"),
    }
    assert times_of(simulate_stages(diamond)) == {
        "top": (0, 0, 3),
        "quick": (3, 3, 8),
        "slow": (3, 3, 53),
        "bottom": (53, 53, 55),
    }


def test_branches_that_share_one_core_take_turns() -> None:
    diamond = {
        "top": host_stage(3),
        "left": host_stage(5, "top"),
        "right": host_stage(7, "top"),
        "bottom": host_stage(2, "left", "right"),
    }
    assert times_of(simulate_stages(diamond, cores=1)) == {
        "top": (0, 0, 3),
        "left": (3, 3, 8),
        "right": (3, 8, 15),
        "bottom": (15, 15, 17),
    }


def test_a_skipped_branch_holds_nobody_up_and_has_no_row() -> None:
    diamond = {
        "top": host_stage(3),
        "quick": host_stage(5, "top"),
        "slow": host_stage(50, "top", when="input_tokens > 100"),
        "bottom": host_stage(2, "quick", "slow"),
    }
    assert times_of(simulate_stages(diamond)) == {"top": (0, 0, 3), "quick": (3, 3, 8), "bottom": (8, 8, 10)}


def test_a_chain_of_skipped_stages_passes_the_request_on_at_once() -> None:
    never = {"when": "input_tokens > 100"}
    chain = {
        "first": host_stage(3),
        "second": host_stage(5, "first", **never),
        "third": host_stage(5, "second", **never),
        "last": host_stage(2, "third"),
    }
    assert times_of(simulate_stages(chain)) == {"first": (0, 0, 3), "last": (3, 3, 5)}


def test_a_request_that_takes_no_stage_is_complete_when_it_arrives() -> None:
    result = simulate_stages({"only": host_stage(3, when="input_tokens > 100")}, requests=3)
    assert result.stages.height == 0
    assert result.requests["status"].to_list() == ["completed"] * 3
    assert result.requests["e2e_s"].to_list() == [0.0] * 3
    assert result.requests["ttft_s"].to_list() == [None] * 3


def test_two_beginnings_start_together_and_a_request_ends_with_its_last_end() -> None:
    stages = {
        "a": host_stage(3),
        "b": host_stage(4),
        "join": host_stage(2, "a", "b"),
        "long": host_stage(90, "b"),
    }
    result = simulate_stages(stages)
    assert times_of(result) == {"a": (0, 0, 3), "b": (0, 0, 4), "join": (4, 4, 6), "long": (4, 4, 94)}
    assert result.requests["e2e_s"][0] * US_PER_S == pytest.approx(94)


def test_two_answers_run_side_by_side_on_one_client() -> None:
    stages: Stages = {
        "one": {"kind": "prefill"},
        "one_answer": {"kind": "decode", "after": ["one"]},
        "other": {"kind": "prefill"},
        "other_answer": {"kind": "decode", "after": ["other"], "output_scale": 2.0},
        "join": host_stage(1, "one_answer", "other_answer"),
    }
    # Steps of 10 µs: both prompts in the first, the answers of 4 and 8 tokens in the following ones.
    assert times_of(simulate_stages(stages)) == {
        "one": (0, 0, 10),
        "one_answer": (10, 10, 40),
        "other": (0, 0, 10),
        "other_answer": (10, 10, 80),
        "join": (80, 80, 81),
    }


def test_one_answer_after_the_other_on_one_client() -> None:
    stages: Stages = {
        "draft": {"kind": "prefill"},
        "draft_answer": {"kind": "decode", "after": ["draft"]},
        "final": {"kind": "prefill", "after": ["draft_answer"], "extra_tokens": 4},
        "final_answer": {"kind": "decode", "after": ["final"]},
    }
    result = simulate_stages(stages)
    assert times_of(result) == {
        "draft": (0, 0, 10),
        "draft_answer": (10, 10, 40),
        "final": (40, 40, 50),
        "final_answer": (50, 50, 80),
    }
    # The user reads the last answer.
    assert result.requests["ttft_s"][0] * US_PER_S == pytest.approx(50)


def test_a_prefill_without_decode_is_over_with_its_first_token() -> None:
    assert times_of(simulate_stages({"score": {"kind": "prefill"}, "end": host_stage(1, "score")})) == {
        "score": (0, 0, 10),
        "end": (10, 10, 11),
    }


def test_a_share_is_drawn_once_per_stage_and_a_condition_decides_exactly() -> None:
    stages = {
        "all": host_stage(1),
        "some": host_stage(1, "all", share=0.3),
        "long": host_stage(1, "all", when="input_tokens > 500 and output_tokens < 200"),
    }
    config: Any = config_of(stages)
    lengths = {"distribution": "choice", "values": [100, 500, 501, 900]}
    workload = replace(
        config.workload,
        requests=4000,
        input_tokens=lengths,
        output_tokens={"distribution": "choice", "values": [1, 199, 200]},
    )
    result = hf.simulate(hf.compile(replace(config, workload=workload)))
    by_stage = {
        stage: set(result.stages.filter(result.stages["stage"] == stage)["request"]) for stage in stages
    }
    assert by_stage["all"] == set(range(4000))
    assert len(by_stage["some"]) == pytest.approx(1200, abs=4 * np.sqrt(4000 * 0.3 * 0.7))
    requests = result.requests
    expected = requests.filter((requests["input_tokens"] > 500) & (requests["output_tokens"] < 200))
    assert by_stage["long"] == set(expected["request"])
    # Another stage's draw, or another seed of the workload, does not change who takes this one.
    reseeded = replace(config, workload=replace(workload, seed=9))
    more = replace(reseeded, pipeline=Pipeline("more", stages | {"new": host_stage(1, "all", share=0.5)}))
    again = hf.simulate(hf.compile(more)).stages
    assert set(again.filter(again["stage"] == "some")["request"]) == by_stage["some"]


def test_a_request_that_skips_its_decode_gets_the_token_of_the_prefill() -> None:
    stages: Stages = {
        "prefill": {"kind": "prefill"},
        "decode": {"kind": "decode", "after": ["prefill"], "when": "input_tokens > 100"},
        "end": host_stage(1, "decode"),
    }
    times = times_of(simulate_stages(stages))
    assert times["prefill"] == (0, 0, 10)
    assert times["end"] == (10, 10, 11)


def test_a_request_that_skips_the_answer_has_no_tokens_of_it() -> None:
    stages: Stages = {
        "top": host_stage(1),
        "prefill": {"kind": "prefill", "after": ["top"], "share": 0.5},
        "decode": {"kind": "decode", "after": ["prefill"]},
    }
    result = simulate_stages(stages, requests=400)
    decodes = result.stages.filter(result.stages["kind"] == "decode")
    assert 100 < decodes.height < 300
    answered = result.requests.filter(result.requests["first_token_s"].is_not_null())
    assert answered["request"].to_list() == decodes["request"].to_list()
    assert result.requests["output_tokens"].sum() == decodes["tokens"].sum() == 4 * decodes.height
    per_second = result.summary["throughput"]
    ratio = per_second["output_tokens_per_s"] / per_second["requests_per_s"]
    assert ratio == pytest.approx(4 * decodes.height / 400)
