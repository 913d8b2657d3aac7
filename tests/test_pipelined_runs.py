"""Pipeline parallelism through the public contract: what users write runs, and runs as the naive client does."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from oracles.random_programs import Wanted, random_program, random_programs
from oracles.symmetries_in_time import (
    check_a_later_start,
    check_same_times,
    check_what_has_happened_without_who_comes_later,
)
from oracles.watched_client import simulate_given
from oracles.watched_run import Submission, WatchedRun, watch
from pools.llm.deployments import random_deployment
from waiting_workloads import check_all_were_served, every_waiting_workload

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.recording.recording import STEP_FIELDS

START, END, STEPS, DECODES, CONTEXT, PREFILL, JOINED = range(len(STEP_FIELDS))

SYNTHETIC = ("pipeline=llm", "workload=synthetic", "slo=none", "workload.requests=200")
EVEN = ("cost=affine", "cost.fixed_us=1000")
TWO_STAGES = "cluster.pools.llm.pipeline_parallel=2"
CUT = Wanted(stages=(1, 2, 2, 3, 4))

any_program = settings(max_examples=30)


@cache
def composed(*overrides: str) -> hf.Config:
    return hf.compose(overrides)


def simulate(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(composed(*overrides)))


def llm_client(result: hf.Result) -> dict[str, Any]:
    return result.clients.row(by_predicate=pl.col("client") == "llm/0", named=True)


# The commands that users write.


def test_a_lone_request_takes_the_sum_of_the_stages_for_each_token() -> None:
    lone = (*SYNTHETIC, *EVEN, "workload.requests=1", "workload.output_tokens=11")
    plain, cut = simulate(*lone), simulate(*lone, "cluster.pools.llm.pipeline_parallel=4")
    assert plain.summary["itl_s"]["mean"] == cut.summary["itl_s"]["mean"] == pytest.approx(1e-3, abs=1e-12)
    assert plain.summary["ttft_s"]["mean"] == cut.summary["ttft_s"]["mean"]
    busy = [llm_client(result)["busy_fraction"] for result in (plain, cut)]
    working = 11e-3 / plain.requests["finish_s"].item()
    assert busy == pytest.approx([working, working / 4])  # one of four stages works at a time


def test_two_stages_serve_twice_the_load_of_one_device_with_the_whole_model() -> None:
    load = ("workload.rate_per_s=1000", "workload.input_tokens=100", "workload.output_tokens=200")
    seats = "cluster.pools.llm.max_num_seqs=8"
    one = simulate(*SYNTHETIC, *EVEN, *load, seats)
    two = simulate(*SYNTHETIC, *EVEN, *load, "cluster.pools.llm.max_num_seqs=16", TWO_STAGES)
    ratio = (
        two.summary["throughput"]["output_tokens_per_s"] / one.summary["throughput"]["output_tokens_per_s"]
    )
    assert 1.8 < ratio <= 2.0


def test_with_the_default_cost_model_every_table_adds_up() -> None:
    result = simulate(*SYNTHETIC, TWO_STAGES)
    assert result.summary["requests"]["completed"] == 200
    client = llm_client(result)
    steps = result.steps
    assert client["steps"] == len(steps)
    assert client["tokens"] == steps.select(pl.col("decodes") + pl.col("prefill_tokens")).sum().item()
    assert 0 < client["busy_fraction"] < 1
    assert 0 < client["kv_peak_fraction"] < 1
    assert steps["start_s"].is_sorted()  # of both micro-batches, as they start
    assert (steps["start_s"][1:] < steps["end_s"][:-1]).any()  # and overlap
    tpot = result.requests.select((pl.col("finish_s") - pl.col("first_token_s")).sum()).item()
    gaps = result.requests.select((pl.col("output_tokens") - 1).sum()).item()
    assert result.summary["itl_s"]["mean"] == pytest.approx(tpot / gaps, rel=1e-9)


@pytest.mark.parametrize("transfer", ["full", "layerwise"])
def test_a_prefill_pool_may_be_a_pipeline(transfer: str) -> None:
    result = simulate(
        *SYNTHETIC,
        "cluster=disaggregated",
        f"cluster.kv_transfer={transfer}",
        "cluster.pools.prefill.pipeline_parallel=2",
        "cluster.pools.decode.pipeline_parallel=2",
        "network.node.efficiency=0.05",
    )
    assert result.summary["requests"]["completed"] == 200
    stages = result.stages
    decode = stages.filter(pl.col("stage") == "decode")
    assert (decode["transfer_s"] > 0).all()
    assert (decode["queue_s"] >= 0).all()
    sent = result.links.filter(pl.col("link").str.ends_with("out"))["bytes"].sum()
    assert sent == decode["bytes"].sum() > 0


def test_layers_leave_a_pipeline_while_it_still_prefills() -> None:
    lone = (
        *SYNTHETIC,
        *EVEN,
        "workload.requests=1",
        "cluster=disaggregated",
        "cluster.pools.prefill.pipeline_parallel=2",
    )
    full, early = (simulate(*lone, f"cluster.kv_transfer={mode}") for mode in ("full", "layerwise"))
    waits = [
        result.stages.filter(pl.col("stage") == "decode")["transfer_s"].item() for result in (full, early)
    ]
    assert waits[1] < waits[0]


@every_waiting_workload
def test_who_waits_for_answers_is_served_by_a_pipeline(workload: tuple[str, ...]) -> None:
    result = simulate("pipeline=chat", *workload, TWO_STAGES)
    check_all_were_served(result, workload)
    again = simulate("pipeline=chat", *workload, TWO_STAGES)
    assert again.requests.equals(result.requests)


def test_each_micro_batch_is_a_row_of_the_trace(tmp_path: Path) -> None:
    config = hf.compose([*SYNTHETIC, "cluster.pools.llm.count=2", TWO_STAGES, "output.trace=true"])
    result = hf.simulate(hf.compile(config))
    result.write(tmp_path, trace=True)
    with gzip.open(tmp_path / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == "thread_name"
    }
    assert list(threads.values()) == [f"llm/{c} micro-batch {m}" for c in range(2) for m in range(2)]
    ends: dict[Any, float] = {}
    for event in events:
        if event["ph"] == "X":
            thread = event["pid"], event["tid"]
            assert thread in threads
            assert event["ts"] >= ends.get(thread, 0) - 1e-6
            ends[thread] = event["ts"] + event["dur"]
    assert len(ends) == 4


# What is exact: every client, against the naive one given what it was given and when.


def clients_of(watched: WatchedRun) -> Iterator[tuple[LLMClientSpec, Any, list[Submission]]]:
    """Yield every LLM client with what it was given, in order."""
    for (pool, index), client in watched.clients.items():
        spec = watched.program.pools[pool].client
        if isinstance(spec, LLMClientSpec):
            yield spec, client, watched.given(pool, index)


def check_against_the_naive(watched: WatchedRun) -> tuple[int, int]:
    """Check all clients; return how many are pipelines that got work, and how many requests they preempted."""
    pipelines = preempted = 0
    for (pool, index), client in watched.clients.items():
        spec, entries = watched.program.pools[pool].client, watched.given(pool, index)
        if not isinstance(spec, LLMClientSpec) or not entries:
            continue
        assert isinstance(client, LLMClient if spec.pipeline_ranks == 1 else PipelinedClient)
        expected = simulate_given(watched, pool, index)
        numbers = [entry.task for entry in entries]
        tasks = client.tasks
        assert [tasks.finish_ps[task] for task in numbers] == expected.finish_ps
        assert [tasks.preemptions.get(task, 0) for task in numbers] == expected.preemptions
        assert [tasks.cached.get(task, 0) for task in numbers] == expected.cached_tokens
        if spec.batching != "continuous" or not any(request.prefilled for request in expected.requests):
            assert [tasks.start_ps[task] for task in numbers] == expected.start_ps
        if isinstance(client, PipelinedClient):
            pipelines += 1
            preempted += sum(expected.preemptions)
            assert client.busy_ps == expected.busy_ps // spec.pipeline_ranks
    return pipelines, preempted


def test_every_client_of_a_random_program_does_what_the_naive_one_does() -> None:
    rng = random.Random(4)
    pipelines = preempted = 0
    for _ in range(75):
        found, victims = check_against_the_naive(watch(random_program(rng, CUT)))
        pipelines += found
        preempted += victims
    assert pipelines > 50
    assert preempted > 25


@pytest.mark.parametrize("kv_transfer", ["full", "layerwise"])
@pytest.mark.parametrize("closed", [False, True])
def test_every_client_of_a_disaggregated_cluster_does_what_the_naive_one_does(
    closed: bool, kv_transfer: Any
) -> None:
    rng = random.Random(f"{closed}{kv_transfer}")
    pipelines = 0
    for _ in range(12):
        config = random_deployment(rng, closed, kv_transfer, groups=rng.choice([1, 2]))
        for name in ("prefill", "decode"):
            config = with_stages(config, name, rng.choice([1, 2, 3]))
        watched = watch(hf.compile(config))
        assert (watched.recording.status == 0).all()
        pipelines += check_against_the_naive(watched)[0]
    assert pipelines > 12


def with_stages(config: hf.Config, name: str, stages: int) -> hf.Config:
    pool = config.cluster.pools[name]
    assert isinstance(pool, LLMPool)
    pools = dict(config.cluster.pools) | {name: replace(pool, pipeline_parallel=stages)}
    return replace(config, cluster=replace(config.cluster, pools=pools))


# What holds in every run.


@pytest.mark.filterwarnings("error")
@any_program
@given(program=random_programs(CUT))
def test_nothing_is_lost_and_nothing_goes_back_in_time(program: hf.Program) -> None:
    result = hf.simulate(program)
    recording = result.recording
    for op, record in zip(program.ops, recording.ops, strict=True):
        done = record.start_ns >= 0
        ready, start, finish = (
            column[done] for column in (record.ready_ns, record.start_ns, record.finish_ns)
        )
        assert (recording.arrival_ns[done] <= ready).all()
        assert (ready <= start).all()
        assert (start <= finish).all()
        if record.first_ns is not None and op.kv is None:
            assert (start <= record.first_ns[done]).all()
            assert (record.first_ns[done] <= finish).all()
    assert (
        (recording.status == 1) == np.isin(np.arange(len(program.requests)), list(program.rejected))
    ).all()
    assert (recording.finish_ns >= 0).all() == (not program.rejected)


@any_program
@given(program=random_programs(CUT))
def test_a_micro_batch_is_in_one_place_and_a_stage_works_no_longer_than_the_run(program: hf.Program) -> None:
    recording = run(program)
    for record in recording.clients:
        spec = program.pools[record.pool].client
        if not isinstance(spec, LLMClientSpec):
            continue
        lanes = record.lanes()
        assert len(lanes) == spec.pipeline_ranks
        for rows in lanes:
            steps = rows[rows[:, STEPS] > 0]
            assert (steps[:, START] < steps[:, END]).all()
            assert (steps[:-1, END] <= steps[1:, START]).all()
            assert (steps[:, STEPS] == 1).all() or spec.pipeline_ranks == 1
        assert record.busy_ns <= recording.end_ns
        starts = [start for rows in lanes for start in rows[rows[:, STEPS] > 0][:, START].tolist()]
        assert len(set(starts)) == len(starts)  # stage 1 takes them one after the other


@any_program
@given(program=random_programs(CUT))
def test_tokens_are_computed_once_and_again_only_after_a_preemption(program: hf.Program) -> None:
    watched = watch(program)
    for spec, client, entries in clients_of(watched):
        if spec.batching == "static":  # pads
            continue
        rows = np.concatenate(client.lanes())
        computed = int((rows[:, STEPS] * rows[:, DECODES] + rows[:, PREFILL]).sum())
        tasks, needed, again = client.tasks, 0, 0
        for entry in entries:
            op, _ = watched.op_and_request(entry)
            prompt, answer = tasks.prompt[entry.task], tasks.output[entry.task] - 1
            elsewhere = program.ops[op].kv is not None
            needed += answer + (0 if elsewhere else prompt - tasks.cached.get(entry.task, 0))
            again += (prompt + answer) * tasks.preemptions.get(entry.task, 0)
        assert needed <= computed <= needed + again
        assert rows[:, DECODES].max(initial=0) <= spec.max_num_seqs
        assert not any(batch.running or batch.decodes or batch.context for batch in client.batches)
        assert sum(batch.backlog for batch in client.batches) == 0
        assert client.outstanding(watched.recording.end_ns + 1) == 0


@settings(max_examples=20)
@given(program=random_programs(CUT))
def test_equal_programs_give_equal_tables(program: hf.Program) -> None:
    first, second = hf.simulate(program), hf.simulate(program)
    for table in ("requests", "stages", "clients", "steps"):
        assert getattr(first, table).equals(getattr(second, table))


@settings(max_examples=25)
@given(program=random_programs(replace(CUT, closed=False)))
def test_a_later_start_moves_everything_by_as_much(program: hf.Program) -> None:
    check_a_later_start(program)


@settings(max_examples=25)
@given(program=random_programs(replace(CUT, closed=False)))
def test_what_has_happened_does_not_depend_on_who_comes_later(program: hf.Program) -> None:
    check_what_has_happened_without_who_comes_later(program)


def test_a_closed_loop_played_back_as_open_arrivals_is_the_same_run() -> None:
    rng = random.Random(12)
    compared = 0
    for _ in range(40):
        program = random_program(rng, replace(CUT, pipeline="llm", closed=True))
        closed = run(program)
        if (np.diff(closed.arrival_ns) < 0).any():  # a long think time lets a later request overtake
            continue
        requests = replace(program.requests, arrival_ns=closed.arrival_ns, concurrency=None, think_ns=None)
        check_same_times(closed, run(replace(program, requests=requests)))
        compared += 1
    assert compared > 13


def test_a_start_is_no_earlier_than_the_scheduler_knows_of_the_request() -> None:
    rng = random.Random(13)
    for _ in range(40):
        watched = watch(random_program(rng, CUT))
        for spec, client, entries in clients_of(watched):
            for entry in entries:
                seen_ps = (entry.at_ns + spec.cost.ingest_ns) * PS_PER_NS
                assert client.tasks.start_ps[entry.task] >= seen_ps
