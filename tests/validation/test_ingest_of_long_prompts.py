"""Benchmark runs with long prompts wait for the tokenizer longer than the runs that the engine was fitted to."""

from __future__ import annotations

import pytest

from benchmarks.silicon import config
from hermes_flow.pools.llm.schema import LLMPool

ROW = {
    "backend": "vllm",
    "backend_version": None,
    "system": "b200_sxm",
    "precision": "fp8",
    "model_path": "meta-llama/Llama-3.1-70B",
    "silicon_data_source": "source_file=2026-04-06.csv; silicon_concurrency=4",
    "batch_size": 4,
    "osl": 1024,
    "tp_size": 2,
    "moe_tp_size": 2,
    "moe_ep_size": 1,
    "attention_dp_size": 1,
}


FITTED_US = 1.55 * 650  # of the prompts of the runs that 8 ms are fitted to


@pytest.mark.parametrize(
    ("stated", "published", "ingest_ms"),
    [
        (300, True, 8.0),
        (1024, True, 8.0 + 1e-3 * (3.0 * 0.9 * 1024 - FITTED_US)),
        (8192, True, 8.0 + 1e-3 * (3.0 * 0.9 * 8192 - FITTED_US)),
        (500, False, 8.0),
        (8192, False, 8.0 + 1e-3 * (1.55 * 0.9 * 8192 - FITTED_US)),
    ],
)
def test_tokens_above_those_of_the_fitted_runs_take_a_measured_time(
    stated: int, published: bool, ingest_ms: float
) -> None:
    source = ROW["silicon_data_source"] if published else "elsewhere; silicon_concurrency=4"
    pool = config({**ROW, "isl": stated, "silicon_data_source": source}).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert pool.hardware.engine is not None
    assert pool.hardware.engine.ingest_ms == pytest.approx(ingest_ms)
