"""Kernels of experts that take longer tiles for more rows, by factors on their time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from cost.by_hand import us
from cost.catalog import alike, hardware, model, roofline

import hermes_flow as hf
from hermes_flow.config.schema import GemmFit, Hardware
from hermes_flow.config.shape import Gemm
from hermes_flow.cost.operators import Operators
from hermes_flow.errors import ConfigError

GPT_OSS = alike(model("gpt_oss_120b"))  # 36 layers of 128 experts, of which a token has 4
PLAIN = GemmFit(compute=0.5, memory=0.8, launch_us=10.0, quantize=0.4, tile_rows=20.0)
LONG = dataclasses.replace(PLAIN, by_rows={16: 1.5, 8: 1.1})


@pytest.mark.parametrize(("rows", "factor"), [(1, 1.1), (8, 1.1), (10, 1.2), (14, 1.4), (16, 1.5), (90, 1.5)])
def test_the_time_without_its_launch_has_the_factor_of_an_experts_rows(rows: int, factor: float) -> None:
    device = hardware("b200_sxm")
    assert device.efficiency is not None
    operators, experts = Operators(device, device.efficiency, "hardware"), 32
    matrix, every = Gemm("up", 4096, 2048), np.array([0.0, float(rows * experts)])
    copies = np.array([0.0, float(experts)])  # all experts have rows, or none
    long, plain = (
        operators.gemm(matrix, every, "fp8", "fp8", copies, fit=fit)[1] * 1e6 for fit in (LONG, PLAIN)
    )
    assert long - 10.0 == pytest.approx(factor * (plain - 10.0), rel=1e-12)
    assert operators.gemm(matrix, every, "fp8", "fp8", copies, fit=LONG)[0] == pytest.approx(1e-5)


def uneven(device: Hardware, *, by_rows: bool) -> Hardware:
    """The device with all graphs, and its engine's factors or none."""
    engine = device.engine
    assert engine is not None
    assert engine.experts is not None
    experts = engine.experts
    if not by_rows:
        experts = {name: dataclasses.replace(fit, by_rows=None) for name, fit in experts.items()}
    engine = dataclasses.replace(engine, eager=None, experts=experts)
    return dataclasses.replace(device, engine=engine)


@pytest.mark.parametrize("gpu", ["b200_sxm", "b300_sxm", "gb200"])
@pytest.mark.parametrize(("tokens", "factor"), [(512, 1.42), (1024, 1.28), (8192, 0.8)])
def test_experts_of_gpt_oss_on_vllm_and_blackwell_have_those_of_the_tables(
    gpu: str, tokens: int, factor: float
) -> None:
    device = hardware(gpu)
    fp8 = dataclasses.replace(
        GPT_OSS, precision=dataclasses.replace(GPT_OSS.precision, weights="mxfp4", activations="fp8")
    )
    own, plain = (
        us(roofline(fp8, uneven(device, by_rows=each), 1, 8192).tokens_ps[tokens]) for each in (True, False)
    )
    rows = tokens * 4 / 128
    assert rows in (16, 32, 256)
    assert (own - plain) * (factor - 1.0) > 0.0
    measured = uneven(device, by_rows=False).engine
    assert measured is not None
    assert measured.experts is not None
    fit = measured.experts["mxfp4_fp8"]
    assert device.peak_tflops_fp8 is not None
    peak, bandwidth, total = device.peak_tflops_fp8 * 1e12, device.bandwidth_gb_s * 1e9, 0.0
    for ins, outs in ((2880, 2 * 2880), (2880, 2880)):
        flops = 2.0 * 128 * (rows + fit.tile_rows) * ins * outs / (peak * fit.compute)
        read = 128 * (rows * (ins + 2 * outs) + ins * outs * 0.53125) / (bandwidth * fit.memory)
        assert fit.quantize is not None
        total += max(flops, read) + 128 * rows * 3 * ins / (bandwidth * fit.quantize)
    assert own - plain == pytest.approx(36 * (factor - 1.0) * total * 1e6, rel=1e-3)


@pytest.mark.parametrize("engine", ["sglang", "tensorrt_llm"])
def test_other_engines_have_no_factors(engine: str) -> None:
    pool: Any = hf.compose([f"engine={engine}", "hardware=b200_sxm", "pipeline=llm"]).cluster.pools["llm"]
    fits = pool.hardware.engine.experts or {}
    assert not any(fit.by_rows for fit in fits.values())
    fp8 = fits.get("fp8")
    assert fp8 in (None, pool.hardware.efficiency.experts["fp8"])  # that of the hardware


@pytest.mark.parametrize(("factors", "problem"), [("{0: 1}", "by_rows"), ("{8: 0}", "by_rows.8")])
def test_rows_and_factors_are_positive(factors: str, problem: str) -> None:
    with pytest.raises(ConfigError) as found:
        hf.compose(
            [f"hardware.engine.experts={{fp8: {{compute: 1, memory: 1, launch_us: 0, by_rows: {factors}}}}}"]
        )
    assert problem in str(found.value)
