"""Throughput counts every generated token, and its steady window leaves out ramp and drain."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import hermes_flow as hf

BASE = ["pipeline=llm", "cost=affine", "cost.fixed_us=1000", "cost.per_token_us=0", "cost.per_context_us=0"]


def result_of(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*BASE, *overrides])))


def test_all_branches_of_an_answer_count_and_its_first_one_alone_is_the_answer() -> None:
    stages = (
        "pipeline={name: p, stages: {prefill: {kind: prefill}, "
        "decode: {kind: decode, after: [prefill], branches: 3}}}"
    )
    workload = ["workload=synthetic", "workload.requests=30", "workload.output_tokens=7"]
    found = result_of(stages, *workload).summary["throughput"]
    assert found["output_tokens_per_s"] == pytest.approx(3 * found["answer_tokens_per_s"])
    assert found["answer_tokens_per_s"] == pytest.approx(7 * found["requests_per_s"])


@pytest.mark.parametrize("output_tokens", [1, 5])
@pytest.mark.parametrize("cluster", ["replicas", "disaggregated"])
def test_a_token_counts_once_wherever_prefill_and_decode_run(cluster: str, output_tokens: int) -> None:
    workload = ["workload=synthetic", "workload.requests=40", f"workload.output_tokens={output_tokens}"]
    found = result_of(f"cluster={cluster}", *workload).summary["throughput"]
    assert found["output_tokens_per_s"] == pytest.approx(output_tokens * found["requests_per_s"])


def test_a_steady_system_has_the_rate_of_its_arrivals_between_ramp_and_drain() -> None:
    arrivals = ["workload=synthetic", "workload.requests=401", "workload.arrivals=constant"]
    arrivals += ["workload.rate_per_s=10", "workload.output_tokens=2001", "workload.input_tokens=10"]
    run = result_of(*arrivals)  # each answer takes 2 s, so the ramp and the drain do, too
    whole, steady = (run.summary["throughput"][key] for key in ("requests_per_s", "steady"))
    arrival_s = np.sort(run.requests["arrival_s"].to_numpy())
    assert steady["from_s"] == pytest.approx(arrival_s[40])
    assert steady["to_s"] == pytest.approx(arrival_s[-1])
    assert steady["requests_per_s"] == pytest.approx(10, rel=0.01)
    assert steady["output_tokens_per_s"] == pytest.approx(20010, rel=0.01)
    assert whole < 9.7


def test_the_error_of_the_steady_rate_is_that_of_ten_batch_means() -> None:
    run = result_of("workload=synthetic", "workload.requests=300", "workload.output_tokens=1")
    steady = run.summary["throughput"]["steady"]
    edges = np.linspace(steady["from_s"], steady["to_s"], 11)
    counts = [
        int(((run.requests["finish_s"] >= low) & (run.requests["finish_s"] < high)).sum())
        for low, high in itertools.pairwise(edges)
    ]
    rates = np.array(counts) / (edges[1] - edges[0])
    assert steady["requests_per_s"] == pytest.approx(rates.mean(), rel=0.01)
    assert steady["requests_per_s_error"] == pytest.approx(2.262 * rates.std(ddof=1) / 10**0.5, rel=0.02)
