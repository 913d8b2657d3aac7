"""The requests of each client, and the places of instants in their order, are those that a plain search finds."""

from __future__ import annotations

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
def test_a_step_in_vain_after_the_last_answer_is_no_part_of_the_run(engine: str) -> None:
    run = hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *("pipeline=llm", f"engine={engine}", "slo=none", "workload=synthetic"),
                    *("workload.requests=40", "workload.arrivals=constant", "workload.rate_per_s=10000"),
                    *("workload.output_tokens=30", "workload.input_tokens=50"),
                    "cost={kind: affine, fixed_us: 8000, per_token_us: 40, per_context_us: 0}",
                ]
            )
        )
    )
    client = run.clients.filter(run.clients["pool"] == "llm")
    end_ms = run.recording.end_ns / 1e6
    assert client["busy_fraction"].item() * end_ms == pytest.approx(
        end_ms - 0.1
    )  # the first request comes then
    ends = [int(one.segments[:, 1].max()) for one in run.recording.clients if one.segments is not None]
    assert ends == [1000 * run.recording.end_ns]
