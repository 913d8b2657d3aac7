"""Speculative decoding through the public contract: what users write runs, and runs as the naive client does."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from oracles.random_programs import Wanted, random_program, random_programs
from oracles.watched_client import simulate_given
from oracles.watched_run import watch
from tries import tries
from waiting_workloads import check_all_were_served, every_waiting_workload

import hermes_flow as hf
from hermes_flow.config.schema import Speculative
from hermes_flow.cost.draft_model import expected_tokens
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.recording.recording import STEP_FIELDS

START, END, STEPS, DECODES, CONTEXT, PREFILL, JOINED = range(len(STEP_FIELDS))

SYNTHETIC = ("pipeline=llm", "workload=synthetic", "slo=none", "workload.requests=200")
EVEN = ("cost=affine", "cost.fixed_us=1000")
LARGE = ("model=llama3_70b", "cluster.pools.llm.tensor_parallel=4")
DRAFT = "+model@cluster.pools.llm.speculative.draft=llama3_8b"
DRAFTING = Wanted(drafting=True)


def simulate(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(overrides)))


def llm_client(result: hf.Result) -> dict[str, Any]:
    return result.clients.row(by_predicate=pl.col("client") == "llm/0", named=True)


# The commands that users write.


@pytest.mark.parametrize(("tokens", "acceptance"), [(4, 0.7), (2, 0.9), (1, 0.5)])
def test_tokens_come_as_often_as_the_expected_tokens_of_a_step_say(tokens: int, acceptance: float) -> None:
    output = 3000
    lone = (*SYNTHETIC, *EVEN, *LARGE, "workload.requests=1", f"workload.output_tokens={output}")
    key = "cluster.pools.llm.speculative"
    result = simulate(*lone, DRAFT, f"{key}.tokens={tokens}", f"{key}.acceptance={acceptance}")
    expected = float(expected_tokens(Speculative(None, tokens, acceptance)))
    assert result.summary["tpot_s"]["mean"] == pytest.approx(1e-3 / expected, abs=1e-3 / output)
    assert llm_client(result)["steps"] == 1 + -(-(output - 1) // expected)
    assert llm_client(result)["tokens"] == result.requests["input_tokens"].item() + output - 1


def test_a_draft_that_is_never_right_changes_nothing_where_drafting_is_free() -> None:
    plain = simulate(*SYNTHETIC, *EVEN, *LARGE)
    wrong = simulate(*SYNTHETIC, *EVEN, *LARGE, DRAFT, "cluster.pools.llm.speculative.acceptance=0")
    assert wrong.requests.equals(plain.requests)
    assert wrong.stages.equals(plain.stages)
    assert wrong.summary["itl_s"] == plain.summary["itl_s"]


def test_with_the_default_cost_model_a_draft_helps_where_the_batch_is_small() -> None:
    light = (*SYNTHETIC, *LARGE, "workload.rate_per_s=0.2")
    plain, drafted = simulate(*light), simulate(*light, DRAFT)
    assert drafted.summary["tpot_s"]["mean"] < 0.8 * plain.summary["tpot_s"]["mean"]
    assert drafted.summary["requests"]["completed"] == 200
    spent = drafted.requests.select((pl.col("finish_s") - pl.col("first_token_s")).sum()).item()
    gaps = drafted.requests.select((pl.col("output_tokens") - 1).sum()).item()
    assert drafted.summary["itl_s"]["mean"] == pytest.approx(spent / gaps, rel=1e-9)
    assert drafted.summary["itl_s"]["p50"] == 0.0  # most tokens come with the one before them
    assert llm_client(drafted)["steps"] == len(drafted.steps) < len(plain.steps)


@every_waiting_workload
def test_who_waits_for_answers_is_served_with_a_draft(workload: tuple[str, ...]) -> None:
    result = simulate("pipeline=chat", *LARGE, *workload, DRAFT)
    check_all_were_served(result, workload)


@pytest.mark.parametrize("transfer", ["full", "layerwise"])
def test_a_decode_pool_may_draft(transfer: str) -> None:
    overrides = (*SYNTHETIC, *EVEN, "cluster=disaggregated", f"cluster.kv_transfer={transfer}")
    plain = simulate(*overrides)
    drafted = simulate(*overrides, "+model@cluster.pools.decode.speculative.draft=llama3_8b")
    assert drafted.summary["requests"]["completed"] == 200
    assert drafted.summary["ttft_s"] == plain.summary["ttft_s"]
    assert drafted.summary["tpot_s"]["mean"] < 0.5 * plain.summary["tpot_s"]["mean"]
    mean_batch = drafted.clients.filter(pl.col("pool") == "decode")["mean_batch"].item()
    assert mean_batch == pytest.approx(drafted.steps.filter(pl.col("client") == "decode/0")["decodes"].mean())


def test_a_trace_shows_steps_and_not_the_tokens_they_gain(tmp_path: Path) -> None:
    result = simulate(*SYNTHETIC, *EVEN, DRAFT)
    result.write(tmp_path, trace=True)
    with gzip.open(tmp_path / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert sum(event["args"]["steps"] for event in slices) == llm_client(result)["steps"]
    assert all(event["dur"] > 0 for event in slices)
    joined = sum(event["args"]["joined"] for event in slices)
    assert result.requests["preemptions"].sum() == 0
    assert joined == (result.requests["output_tokens"] > 1).sum() > 0


# What is exact: every client, against the naive one given what it was given and when.


def test_every_client_of_a_random_program_does_what_the_naive_one_does() -> None:
    rng = random.Random(6)
    drafting = preempted = 0
    programs = tries(80, of=200)
    for _ in range(programs):
        watched = watch(random_program(rng, DRAFTING))
        for (pool, index), client in watched.clients.items():
            spec, entries = watched.program.pools[pool].client, watched.given(pool, index)
            if not isinstance(spec, LLMClientSpec) or not entries:
                continue
            assert isinstance(client, LLMClient)
            expected = simulate_given(watched, pool, index)
            tasks = client.tasks
            numbers = [entry.task for entry in entries]
            assert [tasks.finish_ps[task] for task in numbers] == expected.finish_ps
            assert [tasks.preemptions.get(task, 0) for task in numbers] == expected.preemptions
            assert [tasks.cached.get(task, 0) for task in numbers] == expected.cached_tokens
            drafting += spec.speculation is not None
            preempted += any(expected.preemptions) and spec.speculation is not None
    assert drafting > 0.75 * programs
    assert preempted > 0.1 * programs


# What holds in every run.


@pytest.mark.filterwarnings("error")
@settings(max_examples=tries(25, of=50))
@given(program=random_programs(DRAFTING))
def test_tokens_are_computed_once_and_again_only_after_a_preemption(program: hf.Program) -> None:
    watched = watch(program)
    for (pool, index), client in watched.clients.items():
        spec, entries = watched.program.pools[pool].client, watched.given(pool, index)
        if not isinstance(spec, LLMClientSpec) or spec.batching == "static":  # pads
            continue
        assert isinstance(client, LLMClient)
        rows = client.segments()
        passes = np.maximum(rows[:, STEPS], rows[:, DECODES] > 0)  # a further token is a row of no steps
        computed = int((passes * rows[:, DECODES] + rows[:, PREFILL]).sum())
        tasks = client.tasks
        needed = again = 0
        for entry in entries:
            op, _ = watched.op_and_request(entry)
            prompt, answer = tasks.prompt[entry.task], tasks.output[entry.task] - 1
            elsewhere = program.ops[op].kv is not None
            needed += answer + (0 if elsewhere else prompt - tasks.cached.get(entry.task, 0))
            again += (prompt + answer) * tasks.preemptions.get(entry.task, 0)
        assert needed <= computed <= needed + again
        batch = client.batch
        assert batch.free == batch.blocks
        assert (batch.backlog, batch.decodes, batch.context, len(batch.running)) == (0, 0, 0, 0)


@settings(max_examples=30)
@given(program=random_programs(DRAFTING))
def test_equal_programs_give_equal_tables(program: hf.Program) -> None:
    first, second = hf.simulate(program), hf.simulate(program)
    for table in ("requests", "stages", "clients", "steps"):
        assert getattr(first, table).equals(getattr(second, table))
