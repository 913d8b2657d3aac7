"""A GPU that is left out has the means of the others, and what its datasheet and its engine say of it."""

from __future__ import annotations

from typing import Any

import pytest

import hermes_flow as hf
from benchmarks.left_out import EXPECTED, FITTED_ON, MEASURED, without


def left_out(name: str, engine: str = "vllm") -> tuple[Any, Any]:
    config = hf.compose([f"hardware={name}", f"engine={engine}", "pipeline=llm"])
    return tuple(each.cluster.pools["llm"].hardware for each in (config, without(config)))  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm"])
@pytest.mark.parametrize("name", MEASURED)
def test_the_sampler_moves_its_logits_at_the_bandwidth_of_the_datasheet(name: str, engine: str) -> None:
    own, without_it = left_out(name, engine)
    for rate in ("us_per_million", "sort_us_per_million"):
        found, catalog = (getattr(gpu.engine.sampler, rate) for gpu in (without_it, own))
        if name == FITTED_ON and rate == "sort_us_per_million":  # fitted there; a published benchmark has 125
            assert found < catalog
            catalog = 125.0
        assert found == pytest.approx(catalog, rel=0.01)
    assert without_it.engine.sampler.sort_us == own.engine.sampler.sort_us


def test_a_gpu_keeps_the_kind_of_its_kernels_and_none_of_their_times() -> None:
    own, without_it = left_out("a100_sxm")
    assert without_it.engine.tiled_decodes == own.engine.tiled_decodes
    assert without_it.engine.tiled_decodes is not None
    assert left_out("h100_sxm")[1].engine.tiled_decodes is None
    assert without_it.efficiency.gemm["bf16"].memory > own.efficiency.gemm["bf16"].memory + 0.05


def test_factors_by_rows_of_one_gpu_are_not_those_of_the_others() -> None:
    assert left_out("a100_sxm")[0].efficiency.gemm["bf16"].by_rows
    assert left_out("h100_sxm")[1].efficiency.gemm["bf16"].by_rows is None


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm"])
def test_the_h100_left_out_has_nothing_that_was_fitted_to_its_decodes(engine: str) -> None:
    own, without_it = (gpu.engine for gpu in left_out(FITTED_ON, engine))
    for name in ("layer_us", "all_reduce_wait"):
        expected, _ = EXPECTED[f"hardware.engine.{name}"]
        assert getattr(without_it, name) == expected != getattr(own, name)
    assert without_it.small_kernels.us == pytest.approx(20 / 6)
    assert left_out("h200_sxm", engine)[1].engine.layer_us == own.layer_us
