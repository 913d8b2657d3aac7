"""Drift gives each part of a run its rate and its mean lengths; the rate and the lengths of the run stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError
from hermes_flow.workload.build import build_requests

PARTS = (
    "workload.drift=[{share: 1, rate: 1, input_tokens: 800}, {share: 2, rate: 3, input_tokens: 1300, "
    "output_tokens: 150}, {share: 1, rate: 0}, {share: 1, rate: 1, output_tokens: 300}]"
)
BASE = ["pipeline=llm", "workload=azure_conv", "workload.requests=20000", "workload.rate_per_s=10"]


def requests_of(*overrides: str):
    config = hf.compose([*BASE, *overrides])
    return build_requests(config.workload, config.workload.seed)


def test_every_part_has_its_rate_and_its_mean_lengths() -> None:
    steady, drifting = requests_of("workload.drift=[]"), requests_of(PARTS)
    at_s = drifting.arrival_ns / 1e9
    assert at_s[-1] == pytest.approx(2000, rel=0.02)  # 20,000 requests at 10 a second, as without a drift
    # The parts take 400, 800, 400 and 400 s. The mean of the factors over time is 1.6, so 1 stands for 6.25 a second.
    counts = np.histogram(at_s, [0, 400, 1200, 1600, 2100])[0]
    np.testing.assert_allclose(counts, [2500, 15000, 0, 2500], rtol=0.05, atol=1)
    first, second, last = at_s < 400, (at_s >= 400) & (at_s < 1200), at_s >= 1600
    assert drifting.input_tokens[first].mean() == pytest.approx(800, rel=0.1)
    assert drifting.input_tokens[second].mean() > 1.3 * drifting.input_tokens[first].mean()
    assert drifting.output_tokens[last].mean() > 1.6 * drifting.output_tokens[second].mean()
    for name in ("input_tokens", "output_tokens"):
        assert sorted(getattr(drifting, name)) == sorted(getattr(steady, name))


def test_arrivals_stay_a_poisson_process_within_a_part() -> None:
    gaps = np.diff(requests_of("workload.drift=[{share: 1, rate: 1}, {share: 1, rate: 4}]").arrival_ns[:3900])
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["workload.drift=[{share: 0, rate: 1}]"], "workload.drift.0.share: 0 is out of range"),
        (["workload.drift=[{share: 1, rate: 0}]"], "workload.drift: the rate is 0 in every part"),
        (
            ["workload.drift=[{share: 1, rate: 1, input_tokens: 90000}]"],
            "workload.drift.0.input_tokens: 90000 is out of reach of the lengths",
        ),
        (
            ["workload.arrivals={process: closed_loop, concurrency: 4}", "workload.rate_per_s=null"],
            "workload.drift: the arrival process sets the rate or the number of requests over time itself",
        ),
    ],
)
def test_a_drift_that_cannot_be_is_an_error(overrides: list[str], problem: str) -> None:
    with pytest.raises(HermesFlowError) as error:
        requests_of(*overrides)
    assert problem in str(error.value)


def test_the_result_says_what_a_stand_in_leaves_out() -> None:
    few = ["workload.requests=30"]
    left_out = hf.simulate(hf.compile(hf.compose([*BASE, *few]))).summary["workload"]["leaves_out"]
    assert any("drift of the whole hour" in text for text in left_out)
    synthetic = hf.simulate(hf.compile(hf.compose(["workload=synthetic", *few]))).summary
    assert "workload" not in synthetic


@pytest.mark.shared_data
def test_the_stand_in_for_azure_conversations_sizes_as_the_trace_does(shared_data: Path) -> None:
    path = shared_data / "azure" / "AzureLLMInferenceTrace_conv.csv"
    system = ["model=llama3_70b", "cluster.pools.llm.count=2", "cluster.pools.llm.tensor_parallel=4"]
    system += ["pipeline=llm", "slo=none"]
    loads = {
        "trace": ["workload=trace", f"workload.path={path}", "workload.rate_scale=2.17"],  # 12 requests/s
        "stand-in": ["workload=azure_conv", "workload.requests=19366", "workload.rate_per_s=12"],
        "steady": ["workload=azure_conv_10_per_s", "workload.requests=19366", "workload.rate_per_s=12"],
    }
    p90_s = {
        name: hf.simulate(hf.compile(hf.compose([*system, *load]))).summary["tpot_s"]["p90"]
        for name, load in loads.items()
    }
    assert p90_s["stand-in"] == pytest.approx(p90_s["trace"], rel=0.2)
    assert p90_s["steady"] < 0.7 * p90_s["trace"]
