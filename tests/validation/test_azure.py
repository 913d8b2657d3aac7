"""An hour of Azure's chat traffic on sixteen H100s: what any sound result must look like, whatever its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NS_PER_S, PS_PER_NS
from hermes_flow.recording.recording import STEP_FIELDS

pytestmark = pytest.mark.shared_data

REQUESTS = 19_366
CLIENTS = 4


def simulate_conv(folder: Path, *overrides: str) -> hf.Result:
    trace = folder / "azure" / "AzureLLMInferenceTrace_conv.csv"
    config = hf.compose(
        [
            "pipeline=llm",
            "model=llama3_70b",
            "hardware=h100_sxm",
            f"cluster.pools.llm.count={CLIENTS}",
            "cluster.pools.llm.tensor_parallel=4",
            "workload=trace",
            f"workload.path={trace}",
            *overrides,
        ]
    )
    return hf.simulate(hf.compile(config))


@pytest.fixture(scope="module")
def result(shared_data: Path) -> hf.Result:
    return simulate_conv(shared_data)


def mean(result: hf.Result, column: str) -> float:
    return float(result.requests[column].drop_nulls().to_numpy().mean())


def llm_spec(result: hf.Result) -> LLMClientSpec:
    (spec,) = (pool.client for pool in result.program.pools if pool.name == "llm")
    assert isinstance(spec, LLMClientSpec)
    return spec


def test_every_request_of_the_trace_is_completed(result: hf.Result) -> None:
    assert result.summary["requests"] == {"submitted": REQUESTS, "completed": REQUESTS, "failed": 0}
    requests = result.requests
    assert requests["status"].unique().to_list() == ["completed"]
    assert requests["arrival_s"].is_sorted()
    assert requests["arrival_s"][-1] == pytest.approx(3502, abs=1)
    assert requests["input_tokens"].mean() == pytest.approx(1155, abs=1)
    assert requests["output_tokens"].mean() == pytest.approx(211, abs=1)


def test_no_request_is_faster_than_its_own_work(result: hf.Result) -> None:
    cost = llm_spec(result).cost
    longest = llm_spec(result).max_num_batched_tokens
    requests = result.requests.filter(result.requests["input_tokens"] <= longest)  # all but a few
    prompts = requests["input_tokens"].to_list()
    prefill_ps = np.array([cost.step_ps([(prompt, 0)], 0, 0) for prompt in prompts])
    fastest_ttft_s = (cost.ingest_ns + prefill_ps / PS_PER_NS) / NS_PER_S
    assert (requests["ttft_s"].to_numpy() >= fastest_ttft_s - 1e-9).all()
    several = requests.filter(requests["output_tokens"] > 1)
    fastest_gap_ps = np.array([cost.step_ps([], 1, prompt) for prompt in several["input_tokens"].to_list()])
    assert (several["tpot_s"].to_numpy() >= fastest_gap_ps / PS_PER_NS / NS_PER_S - 1e-12).all()
    # Most of the time there is room: half of the requests wait for hardly more than the step in flight.
    assert np.median(requests["ttft_s"].to_numpy() / fastest_ttft_s) < 4.0


def test_the_clients_processed_every_token_once(result: hf.Result) -> None:
    requests = result.requests
    clients = result.clients.filter(result.clients["pool"] == "llm")
    assert requests["preemptions"].sum() == 0
    expected = int(requests["input_tokens"].sum()) + int(requests["output_tokens"].sum()) - REQUESTS
    assert clients["tokens"].sum() == expected
    assert clients.height == CLIENTS
    assert clients["busy_fraction"].is_between(0.5, 1.0).all()
    assert clients["kv_peak_fraction"].is_between(0.01, 0.9).all()


def test_the_mean_batch_is_what_littles_law_says(result: hf.Result) -> None:
    """Decoding sequences, averaged over time, are the rate of arrivals times the mean time of decoding."""
    requests = result.requests
    decoding_s = (requests["finish_s"] - requests["first_token_s"]).sum()
    sequence_s = 0.0
    for client in result.recording.clients:
        if client.segments is None:
            continue
        columns = dict(zip(STEP_FIELDS, client.segments.T, strict=True))
        duration_s = (columns["end_ps"] - columns["start_ps"]) / (PS_PER_NS * NS_PER_S)
        sequence_s += float((duration_s * columns["decodes"]).sum())
    assert sequence_s == pytest.approx(decoding_s, rel=1e-6)


def test_more_load_and_fewer_clients_make_it_slower(result: hf.Result, shared_data: Path) -> None:
    twice = simulate_conv(shared_data, "workload.rate_scale=2")
    half = simulate_conv(shared_data, "cluster.pools.llm.count=2")
    for slower in (twice, half):
        assert slower.requests["status"].unique().to_list() == ["completed"]
        for metric in ("ttft_s", "tpot_s", "e2e_s"):
            assert mean(slower, metric) > mean(result, metric)
    assert twice.recording.end_ns < 0.51 * result.recording.end_ns


def test_balancing_by_load_beats_chance(shared_data: Path) -> None:
    tail = {}
    for routing in ("random", "least_requests", "least_tokens"):
        busy = simulate_conv(
            shared_data, "workload.rate_scale=3", "workload.limit=8000", f"cluster.routing={routing}"
        )
        tail[routing] = np.quantile(busy.requests["ttft_s"].to_numpy(), 0.99)
    assert tail["least_requests"] < tail["random"]
    assert tail["least_tokens"] < tail["random"]
