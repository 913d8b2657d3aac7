"""The requests of each client, and the places of instants in their order, are those that a plain search finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.metrics import client_rows
from hermes_flow.metrics.client_rows import ClientRows
from hermes_flow.metrics.why.llm_timeline import _places

RUN = ["pipeline=chat", "workload=synthetic", "workload.requests=120", "cluster.pools.llm.count=3"]


@pytest.mark.parametrize("many", [10, 1000])
def test_requests_of_a_client_are_found_in_long_and_short_runs(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_rows, "MANY_REQUESTS", many)
    recording = hf.simulate(hf.compile(hf.compose([*RUN, "cluster.pools.llm.kv_blocks=30"]))).recording
    assert 0 < len(recording.failures) < 120  # some requests never reach a client
    rows = ClientRows(recording)
    for number, (op, record) in enumerate(zip(recording.program.ops, recording.ops, strict=True)):
        for client in range(recording.program.pools[op.pool].count):
            expected = [request for request, own in enumerate(record.client.tolist()) if own == client]
            assert rows.of(number, client).tolist() == expected


@pytest.mark.parametrize("scale", [1.0, 1e18, -1.0])
def test_places_are_those_of_a_search_for_short_long_and_negative_times(scale: float) -> None:
    drawn = np.random.default_rng(3).integers(0, 50, (3, 40)) * scale
    times, places = _places(list(drawn))
    assert times.tolist() == sorted(set(drawn.ravel().tolist()))
    for column, own in zip(drawn, places, strict=True):
        assert own.tolist() == [times.tolist().index(value) for value in column.tolist()]


def test_without_instants_there_are_no_times() -> None:
    times, places = _places([np.zeros(0), np.zeros(0)])
    assert len(times) == 0
    assert [len(own) for own in places] == [0, 0]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm"])
def test_a_step_in_vain_after_the_last_answer_is_no_busy_time(engine: str, tmp_path: Path) -> None:
    """Engines that overlap plan it before they know that the answer is over, below its limit."""
    row = {"arrival_s": 0, "input_tokens": 50, "output_tokens": 30, "output_limit": 90}
    (tmp_path / "trace.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    run = hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *("pipeline=llm", f"engine={engine}", "slo=none", "workload=trace"),
                    f"workload.path={tmp_path}/trace.jsonl",
                    "cost={kind: affine, fixed_us: 8000, per_token_us: 40, per_context_us: 0}",
                ]
            )
        )
    )
    assert run.clients.filter(run.clients["pool"] == "llm")["busy_fraction"].item() == 1
    steps = 1 + 29 + (engine != "vllm")
    assert run.summary["engine"]["steps"] == steps  # the step itself stays, as the engine ran it
    assert run.summary["e2e_s"]["mean"] == pytest.approx(29 * 0.00816 + 0.016)


@pytest.mark.parametrize("engine", ["sglang", "tensorrt_llm"])
def test_the_power_of_a_step_in_vain_ends_with_the_run(engine: str, tmp_path: Path) -> None:
    joules = {}
    for limit in (30, 90):
        row = {"arrival_s": 0, "input_tokens": 50, "output_tokens": 30, "output_limit": limit}
        (tmp_path / f"{limit}.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
        given = [
            "pipeline=llm",
            f"engine={engine}",
            "workload=trace",
            f"workload.path={tmp_path}/{limit}.jsonl",
        ]
        run = hf.simulate(hf.compile(hf.compose(given)))
        joules[limit] = run.clients.filter(run.clients["pool"] == "llm")["energy_j"].item()
    assert joules[90] == pytest.approx(joules[30], rel=1e-9)


def test_a_pass_that_nobody_waits_for_any_more_is_no_busy_time_after_the_run() -> None:
    given = [
        *("pipeline=rag_rewrite_rerank", "cluster=hybrid", "model=qwen3_vl_8b", "hardware=h200_sxm"),
        *("workload=synthetic", "workload.requests=24", "workload.rate_per_s=8", "workload.timeout_s=1"),
    ]
    run = hf.simulate(hf.compile(hf.compose(given)))
    assert set(run.requests["status"].unique()) == {"timed_out"}
    busy = run.clients.filter(run.clients["pool"] == "embed")["busy_fraction"].item()
    assert 0.9 < busy <= 1
    energy = run.summary["energy"]
    assert run.requests["energy_j"].sum() + energy["idle_j"] == pytest.approx(energy["total_j"], rel=1e-9)
