"""The summary has the public shape and the figures worked by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from metrics.handmade import (
    four_requests,
    host_pool,
    llm_pool,
    llm_run,
    segments_ms,
    single_stage_run,
    with_program,
)
from summary_keys import SUMMARY_KEYS

from hermes_flow.metrics.result import Result
from hermes_flow.program.program import SLOBounds
from hermes_flow.recording.recording import Recording

SHAPE = {
    **{key: SUMMARY_KEYS[key] for key in SUMMARY_KEYS if key != "throughput"},
    "error": None,
    "throughput": SUMMARY_KEYS["throughput"],
    "slo": {"name", "met", "attainment", "goodput_requests_per_s", "bounds"},
    "stages": {"tokenize", "prefill", "decode", "detokenize"},
    "critical_path": {"mean", "p99"},
    "pools": {"host", "llm"},
    "limits": {"pool", "stage", "share_of_e2e", "cause", "saturated", "text"},
    "why": {"bound", "requests", "causes", "resource", "headroom", "text"},
    "energy": {"total_j", "j_per_output_token", "idle_j", "unmetered"},
    "cost": {
        "usd_per_hour",
        "usd_per_request",
        "usd_per_million_input_tokens",
        "usd_per_million_output_tokens",
        "output_tokens_per_usd",
        "accelerators",
        "accelerator_hours_per_million_output_tokens",
        "unpriced",
    },
    "engine": {"events", "steps", "wall_s", "cpu_s"},
    "warnings": None,
}


def summary(recording: Recording) -> dict:
    return Result(recording).summary


def near(**values: float) -> object:
    return pytest.approx(values, rel=1e-12)


def failing_all(recording: Recording) -> Recording:
    status = np.ones(len(recording.status), np.int8)
    return replace(recording, status=status, finish_ns=np.full(len(status), -1))


def test_the_summary_has_the_public_shape():
    found = summary(four_requests())
    assert list(found) == list(SHAPE)
    for key, names in SHAPE.items():
        if names is not None:
            assert set(found[key]) == names, key
    for stage in found["stages"].values():
        assert set(stage) == {"mean_s", "p99_s", "share_of_e2e", "queue_mean_s", "service_mean_s"}


def test_latencies_interpolate_linearly_over_completed_requests():
    found = summary(four_requests())
    assert found["requests"] == {"submitted": 4, "completed": 3, "failed": 1}
    # TTFT 11, 21, 21 ms; TPOT 10, 15 ms (one output has none); E2E 22, 42, 52 ms.
    assert found["ttft_s"] == near(mean=0.053 / 3, p50=0.021, p90=0.021, p99=0.021)
    assert found["tpot_s"] == near(mean=0.0125, p50=0.0125, p90=0.0145, p99=0.01495)
    assert found["e2e_s"] == near(mean=0.116 / 3, p50=0.042, p90=0.050, p99=0.0518)


def test_inter_token_latency_counts_every_gap():
    # 10, 10, 10, 10, 20 ms
    assert summary(four_requests())["itl_s"] == near(mean=0.012, p50=0.010, p90=0.020, p99=0.020)


def test_rates_are_over_the_span_from_first_arrival_to_last_completion():
    found = summary(four_requests())["throughput"]
    steady = found.pop("steady")
    assert found == near(
        requests_per_s=3 / 0.062, output_tokens_per_s=8 / 0.062, answer_tokens_per_s=8 / 0.062
    )
    assert set(steady.values()) == {None}  # three arrivals make no window
    late = summary(single_stage_run([1000, 1500], [1000, 1500], [1400, 2000]))["throughput"]
    assert late["requests_per_s"] == pytest.approx(2.0)


def test_stage_times_are_split_into_waiting_and_service():
    stages = summary(four_requests())["stages"]
    assert list(stages) == ["tokenize", "prefill", "decode", "detokenize"]
    # Prefill waits 0, 10, 10 ms and takes 10 ms each; E2E adds up to 116 ms.
    assert stages["prefill"] == near(
        mean_s=0.05 / 3, p99_s=0.02, share_of_e2e=50 / 116, queue_mean_s=0.02 / 3, service_mean_s=0.01
    )
    assert stages["tokenize"]["mean_s"] == pytest.approx(0.001)
    assert sum(stage["share_of_e2e"] for stage in stages.values()) == pytest.approx(1)


def test_a_stage_nobody_took_has_no_times():
    recording = failing_all(four_requests())
    assert summary(recording)["stages"]["decode"] == {
        "mean_s": None,
        "p99_s": None,
        "share_of_e2e": None,
        "queue_mean_s": None,
        "service_mean_s": None,
    }


def test_pools_show_their_load():
    pools = summary(four_requests())["pools"]
    # Until the last arrival of a request that completes, at 20 ms, one sequence of up to 256 runs for 19 ms.
    full = pools["llm"].pop("saturation")
    assert full["seats"] == pytest.approx(19 / 20 / 256)
    assert pools["llm"] == near(
        clients=1,
        busy_fraction=60 / 62,
        busiest_client_fraction=60 / 62,
        queue_mean_s=0.02 / 6,  # three prefills and three decodes, of which two prefills waited 10 ms
        mean_batch=7 / 5,
        kv_peak_fraction=0.5,
    )
    assert pools["host"]["busy_fraction"] == pytest.approx(7 / 124)
    assert pools["host"]["mean_batch"] is None
    # The host works for 7 ms of the 2 × 20 ms that its cores have in this time.
    assert pools["host"]["saturation"] == {"seats": None, "kv_memory": None, "work": pytest.approx(7 / 40)}


def test_slo_bounds_are_checked_on_percentiles_and_attainment_on_requests():
    bounds = {"ttft": {50.0: 0.02, 75.0: 0.03}, "tpot": {50.0: 0.0125}}
    slo = summary(four_requests(SLOBounds("chat", bounds)))["slo"]
    assert slo["name"] == "chat"
    assert slo["bounds"]["ttft_p50_s"] == {"limit_s": 0.02, "value_s": pytest.approx(0.021), "met": False}
    assert slo["bounds"]["ttft_p75_s"] == {"limit_s": 0.03, "value_s": pytest.approx(0.021), "met": True}
    assert slo["bounds"]["tpot_p50_s"]["value_s"] == pytest.approx(0.0125)
    # TTFT within 30 ms: 0, 1, 2. TPOT within 12.5 ms: 0, and 2 which has none. The fourth failed.
    assert slo["attainment"] == 2 / 4
    assert slo["goodput_requests_per_s"] == pytest.approx(2 / 0.062)


def test_failed_requests_break_bounds_on_high_percentiles():
    # One of four failed: at most the 75th percentile can be met, however fast the others were.
    bounds = {"ttft": {75.0: 9.0, 90.0: 9.0, 99.9: 9.0}}
    slo = summary(four_requests(SLOBounds("chat", bounds)))["slo"]
    met = {name: bound["met"] for name, bound in slo["bounds"].items()}
    assert met == {"ttft_p75_s": True, "ttft_p90_s": False, "ttft_p99.9_s": False}


def test_without_bounds_there_is_no_attainment():
    slo = summary(four_requests())["slo"]
    assert slo == {
        "name": "none",
        "met": None,
        "attainment": None,
        "goodput_requests_per_s": None,
        "bounds": {},
    }


def test_cost_is_the_price_of_the_cluster_over_its_tokens():
    cost = summary(four_requests())["cost"]
    tokens_per_hour = 3600 * 8 / 0.062
    assert cost["usd_per_hour"] == 3.6
    assert cost["usd_per_million_output_tokens"] == pytest.approx(1e6 * 3.6 / tokens_per_hour)
    usd = 3.6 * 0.062 / 3600
    assert cost["usd_per_request"] == pytest.approx(usd / 3)
    assert cost["usd_per_million_input_tokens"] == pytest.approx(1e6 * usd / (100 + 50 + 30))
    assert cost["accelerators"] == 1
    each = cost["accelerator_hours_per_million_output_tokens"]
    assert each == pytest.approx(1e6 * 0.062 / 3600 / 8)
    assert cost["output_tokens_per_usd"] == pytest.approx(tokens_per_hour / 3.6)
    assert cost["unpriced"] == ["host"]


@pytest.mark.parametrize(
    ("pools", "usd_per_hour", "unpriced"),
    [
        ((host_pool(usd_per_hour=0.5, count=3), llm_pool(usd_per_hour=2.0)), 3.5, []),
        ((host_pool(), llm_pool(usd_per_hour=None)), None, ["host", "llm"]),
        ((host_pool(usd_per_hour=0.5), llm_pool(usd_per_hour=None)), None, ["llm"]),
        ((host_pool(), host_pool("other")), None, ["host", "other"]),
    ],
)
def test_an_accelerator_without_a_price_leaves_the_cost_unknown(pools, usd_per_hour, unpriced):
    cost = summary(with_program(four_requests(), pools=pools))["cost"]
    assert (cost["usd_per_hour"], cost["unpriced"]) == (usd_per_hour, unpriced)
    assert (cost["usd_per_million_output_tokens"] is None) == (usd_per_hour is None)


def test_warnings_are_those_of_the_compiler_and_the_reasons_of_failures():
    assert summary(four_requests())["warnings"] == [
        "the kernel table was extrapolated",
        "1 request failed: needs 57 KV blocks of 12",
    ]


def test_many_reasons_of_failure_are_counted_together():
    failures = {request: f"reason {request % 7}" for request in range(100)}
    warnings = summary(replace(four_requests(), failures=failures))["warnings"][1:]
    assert warnings[0] == "15 requests failed: reason 0"
    assert warnings[-1] == "28 requests failed for other reasons"
    assert len(warnings) == 6


def test_engine_figures_are_kept():
    assert summary(four_requests())["engine"] == {"events": 19, "steps": 5, "wall_s": 0.25, "cpu_s": 0.24}


@pytest.mark.parametrize(
    "recording",
    [
        four_requests(),
        failing_all(four_requests(SLOBounds("chat", {"ttft": {50.0: 1.0}}))),
        llm_run(segments_ms([])),
        single_stage_run([0], [0], [0]),
    ],
    ids=["some failed", "all failed", "no requests", "no time passed"],
)
def test_the_summary_is_plain_json_whatever_happened(recording):
    found = summary(recording)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_equal_recordings_give_equal_summaries():
    assert summary(four_requests()) == summary(four_requests())
