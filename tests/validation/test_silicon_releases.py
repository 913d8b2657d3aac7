"""Benchmark runs of SGLang have the small kernels of the release that they were measured with."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from benchmarks.silicon_engines import with_scheduler
from benchmarks.silicon_settings import Settings
from hermes_flow.pools.llm.schema import LLMPool

SETTINGS = Settings(batching="chunked", sequences=16, tokens=8192, kv="bf16")


@pytest.mark.parametrize(
    ("release", "delta_rule", "output_gate"),
    [
        ("0.5.9", 2, 4),
        ("0.5.8.post1", 2, 4),
        ("0.5.10.post1", 0, 4),
        ("nightly-dev-20260216-d3bae71e", 2, 4),
        ("glm5-hopper", 2, 4),
        (None, 2, 4),
        ("0.5.23", 0, 0),
    ],
)
def test_a_run_has_the_kernels_of_its_release(release: str | None, delta_rule: int, output_gate: int) -> None:
    pool = hf.compose(["model=qwen3_5_397b_a17b", "hardware=b200_sxm", "pipeline=llm"]).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    row = {
        "backend": "sglang",
        "backend_version": release,
        "system": "b200_sxm",
        "silicon_data_source": "another collection",
    }
    engine = with_scheduler(pool, row, SETTINGS, 16).hardware.engine
    assert engine is not None
    assert engine.small_kernels is not None
    assert (engine.small_kernels.delta_rule, engine.small_kernels.output_gate) == (delta_rule, output_gate)
    assert engine.small_kernels.shared_gate == 1
