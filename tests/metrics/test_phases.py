"""A load that is given in stages has the figures of each of its phases, by the requests that arrive in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hermes_flow as hf
from hermes_flow.report.console import run_summary

# 3 requests in 3 s, 20 in the next one, none for 2 s, then 4 in 4 s; every step takes 10 ms and a sequence at a time.
STAGES = [
    f"{{rate_per_s: {rate}, duration_s: {length}, process: constant}}"
    for rate, length in ((1, 3), (20, 1), (0, 2), (1, 4))
]
LOAD = [
    *("pipeline=llm", "workload=synthetic", "workload.requests=1000", "workload.input_tokens=100"),
    f"workload.arrivals={{process: stages, stages: [{', '.join(STAGES)}]}}",
    *("workload.output_tokens=8", "cost=affine", "cost.fixed_us=10000", "cost.per_token_us=0", "slo=none"),
    *(
        "cost.per_context_us=0",
        "cluster.pools.llm.max_num_seqs=1",
        "hardware.usd_per_hour=7.2",
    ),
    *("cluster.pools.llm.batching=continuous", "+slo.e2e_ms={p90: 100}"),
]


@pytest.fixture(scope="module")
def result() -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(LOAD)))


def test_the_requests_of_a_phase_are_those_that_arrive_in_it(result: hf.Result) -> None:
    phases = result.summary["phases"]
    assert [phase["requests"]["submitted"] for phase in phases.values()] == [3, 20, 0, 4]
    assert [(phase["begin_s"], phase["end_s"], phase["rate_per_s"]) for phase in phases.values()] == [
        *((0.0, 3.0, 1.0), (3.0, 4.0, 20.0), (4.0, 6.0, 0.0), (6.0, 10.0, 1.0))
    ]


def test_latencies_slo_and_throughput_are_those_of_its_requests(result: hf.Result) -> None:
    first, busy, pause, last = result.summary["phases"].values()
    e2e = result.requests["e2e_s"].to_numpy()
    for phase, own in ((first, e2e[:3]), (busy, e2e[3:23]), (last, e2e[23:])):
        assert phase["e2e_s"]["mean"] == pytest.approx(own.mean())
        assert phase["e2e_s"]["p99"] == pytest.approx(np.percentile(own, 99))
    assert first["e2e_s"]["p99"] < 0.1 < busy["e2e_s"]["p90"]  # 20 requests of 80 ms do not fit into a second
    assert (first["slo"]["met"], busy["slo"]["met"], last["slo"]["met"]) == (True, False, True)
    assert busy["slo"]["attainment"] == (e2e[3:23] <= 0.1).mean()
    assert busy["slo"]["bounds"]["e2e_p90_s"]["value_s"] == pytest.approx(np.percentile(e2e[3:23], 90))
    assert pause["e2e_s"]["p50"] is None
    finish = result.requests["finish_s"].to_numpy()
    assert busy["throughput"]["requests_per_s"] == ((finish > 3) & (finish <= 4)).sum()


def test_a_phase_costs_the_price_of_its_time_over_the_tokens_of_its_requests(result: hf.Result) -> None:
    first, busy, pause, _ = result.summary["phases"].values()
    assert first["cost"]["usd"] == pytest.approx(7.2 * 3 / 3600)
    assert first["cost"]["usd_per_million_output_tokens"] == pytest.approx(1e6 * 0.006 / (3 * 8))
    assert busy["cost"]["usd_per_million_output_tokens"] == pytest.approx(1e6 * 0.002 / (20 * 8))
    assert (pause["cost"]["usd"], pause["cost"]["usd_per_million_output_tokens"]) == (
        pytest.approx(0.004),
        None,
    )


def test_the_table_the_terminal_and_the_invariants_know_the_phases(result: hf.Result, tmp_path: Path) -> None:
    assert result.phases["requests.submitted"].to_list() == [3, 20, 0, 4]
    assert result.phases["e2e_s.p99"].to_list()[0] == result.summary["phases"]["1"]["e2e_s"]["p99"]
    lines = run_summary(result.summary, result.program).splitlines()
    (at,) = (place for place, line in enumerate(lines) if line.startswith("phase "))
    assert lines[at + 2].split()[:5] == ["2", "3–4", "s", "20.0", "20"]
    assert "!" in lines[at + 2]
    assert max(map(len, lines)) <= 80
    result.write(tmp_path)
    assert pl.read_parquet(tmp_path / "phases.parquet").equals(result.phases)
    assert not [each for run in hf.check_invariants(tmp_path) for each in run.violations]
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["phases"]["2"]["requests"]["submitted"] = 19
    summary["phases"]["1"]["e2e_s"]["p99"] = 0.5
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    found = [each.invariant.number for run in hf.check_invariants(tmp_path) for each in run.violations]
    assert found == [39, 39]


def test_a_load_without_stages_has_no_phases() -> None:
    result = hf.simulate(hf.compile(hf.compose(["pipeline=llm", "workload.requests=3"])))
    assert "phases" not in result.summary
    assert result.phases.is_empty()
