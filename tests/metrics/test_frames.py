"""The tables of a run hold the public columns and the figures worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from metrics.handmade import (
    MS,
    four_requests,
    host_op,
    in_ms,
    ints,
    llm_run,
    segments_ms,
    single_stage_run,
    with_program,
)

from hermes_flow.metrics.tables.clients import clients_frame
from hermes_flow.metrics.tables.requests import requests_frame
from hermes_flow.metrics.tables.stages import stages_frame
from hermes_flow.metrics.tables.steps import steps_frame
from hermes_flow.program.ops import ServedStage
from hermes_flow.program.program import SLOBounds
from hermes_flow.recording.recording import OpRecord

REQUESTS = (
    "request, pipeline, model, session, arrival_s, input_tokens, cached_tokens, output_tokens, "
    "first_token_s, finish_s, ttft_s, tpot_s, e2e_s, preemptions, status, slo_met, energy_j"
)
STAGES = (
    "request, stage, kind, pool, client, ready_s, start_s, finish_s, queue_s, transfer_s, service_s, tokens, "
    "bytes, energy_j"
)
CLIENTS = (
    "client, pool, hardware, model, busy_fraction, steps, mean_batch, kv_peak_fraction, tokens, energy_j, "
    "cost_usd"
)
STEPS = "client, start_s, end_s, decodes, decode_context, prefill_tokens"


def column(frame: pl.DataFrame, name: str) -> list[object]:
    return frame[name].to_list()


@pytest.mark.parametrize(
    ("build", "names"),
    [(requests_frame, REQUESTS), (stages_frame, STAGES), (clients_frame, CLIENTS), (steps_frame, STEPS)],
)
def test_tables_have_the_public_columns_in_order(build, names):
    frame = build(four_requests())
    assert frame.columns == names.split(", ")


@pytest.mark.parametrize("build", [requests_frame, stages_frame, clients_frame, steps_frame])
def test_column_types_do_not_depend_on_the_data(build):
    busy, idle = build(four_requests()), build(llm_run(segments_ms([])))
    assert busy.schema == idle.schema
    for name, kind in busy.schema.items():
        if name.endswith(("_s", "_j", "_usd", "_fraction")):
            assert kind == pl.Float64, name
        assert kind in (pl.Float64, pl.Int64, pl.String, pl.Boolean), name


def test_request_latencies_are_those_worked_by_hand():
    frame = requests_frame(four_requests())
    assert column(frame, "arrival_s") == [0.0, 0.01, 0.02, 0.03]
    assert column(frame, "first_token_s") == [0.011, 0.031, 0.041, None]
    assert column(frame, "finish_s") == [0.042, 0.062, 0.042, None]
    assert column(frame, "ttft_s") == [0.011, 0.021, 0.021, None]
    assert column(frame, "tpot_s") == [0.01, 0.015, None, None]
    assert column(frame, "e2e_s") == [0.042, 0.052, 0.022, None]


def test_request_sizes_and_status_are_those_of_the_program():
    frame = requests_frame(four_requests())
    assert column(frame, "request") == [0, 1, 2, 3]
    assert column(frame, "pipeline") == ["chat"] * 4
    assert column(frame, "model") == ["llama3_8b"] * 4
    assert column(frame, "session") == [7, 7, 8, 8]
    assert column(frame, "input_tokens") == [100, 50, 30, 900]
    assert column(frame, "cached_tokens") == [16, 0, 0, 0]
    assert column(frame, "output_tokens") == [4, 3, 1, 10]
    assert column(frame, "preemptions") == [0, 2, 0, 0]
    assert column(frame, "status") == ["completed", "completed", "completed", "failed"]
    assert column(frame, "slo_met") == [None] * 4
    assert column(frame, "energy_j") == [None] * 4


def test_a_request_meets_the_slo_within_the_loosest_bound_of_each_metric():
    bounds = {"ttft": {50.0: 0.001, 99.0: 0.02}, "tpot": {50.0: 0.012}}
    frame = requests_frame(four_requests(SLOBounds("chat", bounds)))
    # 0: 11 ms and 10 ms; 1: TTFT of 21 ms is late; 2: late too; 3 failed.
    assert column(frame, "slo_met") == [True, False, False, False]


def test_an_undefined_tpot_counts_as_met():
    frame = requests_frame(four_requests(SLOBounds("chat", {"tpot": {50.0: 0.012}})))
    assert column(frame, "slo_met") == [True, False, True, False]


def test_a_bound_is_met_at_its_very_value():
    frame = requests_frame(four_requests(SLOBounds("chat", {"e2e": {99.0: 0.042}})))
    assert column(frame, "slo_met") == [True, False, True, False]


def test_without_an_llm_there_is_no_token_latency_model_or_cache():
    frame = requests_frame(single_stage_run([0, 1], [0, 5], [5, 9]))
    for name in ("model", "session", "first_token_s", "ttft_s", "tpot_s", "cached_tokens", "preemptions"):
        assert column(frame, name) == [None, None], name
    assert column(frame, "e2e_s") == [0.005, 0.008]


def test_stages_come_by_request_in_pipeline_order_with_the_fused_op_taken_apart():
    frame = stages_frame(four_requests())
    names = ["tokenize", "prefill", "decode", "detokenize"]
    assert column(frame, "request") == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2
    assert column(frame, "stage") == names * 3 + names[:2]
    assert column(frame, "kind") == column(frame, "stage")
    assert column(frame, "pool")[:4] == ["host", "llm", "llm", "host"]
    assert column(frame, "client")[:4] == ["host/0", "llm/0", "llm/0", "host/0"]


def test_stage_times_are_those_worked_by_hand():
    frame = stages_frame(four_requests()).filter(pl.col("request") == 1)
    assert column(frame, "ready_s") == [0.01, 0.011, 0.031, 0.061]
    assert column(frame, "start_s") == [0.01, 0.021, 0.031, 0.061]
    assert column(frame, "finish_s") == [0.011, 0.031, 0.061, 0.062]
    assert column(frame, "queue_s") == [0.0, 0.01, 0.0, 0.0]
    assert column(frame, "service_s") == [0.001, 0.01, 0.03, 0.001]
    assert column(frame, "transfer_s") == [0.0] * 4
    assert column(frame, "bytes") == [0] * 4
    assert column(frame, "tokens") == [50, 50, 3, 3]


def test_stages_of_a_completed_request_add_up_to_its_latency():
    recording = four_requests()
    spent = (
        stages_frame(recording)
        .filter(pl.col("request") < 3)
        .group_by("request", maintain_order=True)
        .agg((pl.col("queue_s") + pl.col("transfer_s") + pl.col("service_s")).sum().alias("spent_s"))
    )
    e2e = requests_frame(recording)["e2e_s"].drop_nulls()
    assert spent["spent_s"].to_list() == pytest.approx(e2e.to_list(), abs=1e-12)


def test_a_stage_that_never_started_has_a_ready_time_only():
    waiting = stages_frame(four_requests()).row(-1, named=True)
    assert (waiting["request"], waiting["stage"], waiting["ready_s"]) == (3, "prefill", 0.031)
    assert [waiting[name] for name in ("client", "start_s", "finish_s", "queue_s", "service_s")] == [None] * 5


def test_requests_that_do_not_take_an_op_have_no_row_for_it():
    recording = single_stage_run([0, 1, 2], [0, 5, 9], [5, 9, 12])
    op = host_op("guard", "guard", ints([0, 0, 0]), (0,), taken=np.array([False, True, False]))
    record = OpRecord(ints([-1, 0, -1]), in_ms([-1, 9, -1]), in_ms([-1, 9, -1]), in_ms([-1, 11, -1]))
    recording = with_program(recording, ops=(*recording.program.ops, op))
    recording = replace(recording, ops=(*recording.ops, record))
    frame = stages_frame(recording)
    assert list(zip(frame["request"], frame["stage"], strict=True)) == [
        (0, "tool"),
        (1, "tool"),
        (1, "guard"),
        (2, "tool"),
    ]
    assert column(frame, "tokens") == [0] * 4


def test_client_totals_are_those_worked_by_hand():
    host, llm = clients_frame(four_requests()).to_dicts()
    assert (llm["client"], llm["pool"], llm["hardware"], llm["model"]) == (
        "llm/0",
        "llm",
        "h100_sxm",
        "llama3_8b",
    )
    assert llm["busy_fraction"] == pytest.approx(60 / 62)
    assert llm["steps"] == 5
    assert llm["mean_batch"] == pytest.approx((0 + 1 + 1 + 2 + 1 + 2) / 5)  # decodes, and two that joined
    assert llm["kv_peak_fraction"] == 0.5
    assert llm["tokens"] == 100 + 50 + 30 + 5
    assert llm["cost_usd"] == pytest.approx(3.6 * 0.062 / 3600)
    assert host["busy_fraction"] == pytest.approx(7 / (2 * 62))
    assert host["tokens"] == (100 + 50 + 30 + 900) + (4 + 3 + 1)
    assert [host[name] for name in ("model", "steps", "mean_batch", "kv_peak_fraction", "cost_usd")] == [
        None
    ] * 5


def test_the_mean_batch_counts_those_whose_prefill_ends_and_not_those_who_came_computed():
    rows = [(0, 1, 1, 0, 0, 50, 2), (1, 1, 0, 0, 0, 0, 1), (1, 3, 2, 3, 90, 0, 0)]
    (client,) = clients_frame(llm_run(segments_ms(rows))).to_dicts()
    assert client["steps"] == 3
    assert client["mean_batch"] == pytest.approx((2 + 3 + 3) / 3)
    assert client["tokens"] == 50 + 6


def test_tokens_gained_by_speculation_count_and_make_no_steps():
    # Two sequences gain three tokens, beside a prefill that ends; then all three gain two.
    rows = [(0, 2, 1, 2, 20, 9, 0), (2, 2, 0, 2, 22, 0, 0), (2, 2, 0, 2, 24, 0, 1), (2, 3, 1, 3, 35, 0, 0)]
    rows += [(3, 3, 0, 3, 38, 0, 0)]
    recording = llm_run(segments_ms(rows))
    (client,) = clients_frame(recording).to_dicts()
    assert (client["steps"], client["tokens"]) == (2, 6 + 9 + 6)
    assert client["mean_batch"] == pytest.approx((2 + 1 + 3) / 2)
    steps = steps_frame(recording)
    assert steps["end_s"].to_list() == [0.002, 0.003]
    assert steps["decodes"].to_list() == [2, 3]


def test_an_idle_llm_client_has_no_mean_batch():
    (client,) = clients_frame(llm_run(segments_ms([]))).to_dicts()
    assert (client["steps"], client["mean_batch"], client["tokens"]) == (0, None, 0)
    assert client["busy_fraction"] is None  # the run took no time


def test_a_segment_expands_to_steps_that_grow_with_their_context():
    # Two decodes, 3 ps per context token: each step is 6 ps longer than the one before: 100 + 106 + 112.
    segments = ints([[1000, 1318, 3, 2, 40, 0, 0], [1318, 1400, 1, 0, 0, 9, 1]])
    frame = steps_frame(llm_run(segments, context_ps=3))
    assert column(frame, "client") == ["llm/0"] * 4
    starts = [round(value * 1e12) for value in frame["start_s"]]
    ends = [round(value * 1e12) for value in frame["end_s"]]
    assert starts == [1000, 1100, 1206, 1318]
    assert ends == [1100, 1206, 1318, 1400]
    assert column(frame, "decodes") == [2, 2, 2, 0]
    assert column(frame, "decode_context") == [40, 42, 44, 0]
    assert column(frame, "prefill_tokens") == [0, 0, 0, 9]


def test_the_steps_of_micro_batches_overlap_and_are_in_order_of_their_starts():
    recording = llm_run(segments_ms([(0, 4, 1, 0, 0, 7, 1), (4, 9, 1, 1, 7, 0, 0), (2, 6, 1, 0, 0, 8, 1)]))
    (client,) = recording.clients
    frame = steps_frame(replace(recording, clients=(replace(client, lane_rows=(2, 1)),)))
    assert frame["start_s"].to_list() == [0.0, 0.002, 0.004]
    assert frame["end_s"].to_list() == [0.004, 0.006, 0.009]
    assert column(frame, "prefill_tokens") == [7, 8, 0]


def test_steps_hold_all_clients_of_all_llm_pools():
    frame = steps_frame(four_requests())
    assert len(frame) == 5
    assert frame["end_s"].to_list() == [0.011, 0.021, 0.031, 0.041, 0.061]


def test_times_keep_nanoseconds_over_long_runs():
    late = 30 * 24 * 3_600_000  # a month, in ms
    recording = single_stage_run([late], [late], [late + 1])
    assert requests_frame(recording)["e2e_s"].item() == 0.001
    assert recording.arrival_ns[0] == late * MS


def test_a_prefill_without_a_decode_keeps_its_name_and_counts_its_prompt():
    recording = four_requests()
    tokenize, generate, detokenize = recording.program.ops
    alone = replace(generate, name="embed", serves=(ServedStage("embed", "prefill"),))
    frame = stages_frame(with_program(recording, ops=(tokenize, alone, detokenize)))
    row = frame.filter(pl.col("stage") == "embed").row(0, named=True)
    assert (row["kind"], row["tokens"], row["start_s"], row["finish_s"]) == ("prefill", 100, 0.001, 0.041)
