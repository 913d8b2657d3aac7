"""Routed experts, whose kernels were measured apart, by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cost.catalog import hardware, model, roofline

import hermes_flow as hf
from hermes_flow.config.schema import GemmFit, Hardware, Model
from hermes_flow.config.shape import block_parameters, routed_gemms
from hermes_flow.cost.precision import experts_measured_as
from hermes_flow.errors import ConfigError

GPT_OSS = model("gpt_oss_120b")


def graphed(**changes: Any) -> Hardware:
    """An H100 whose steps all have CUDA graphs, with changed efficiencies."""
    device = hardware("h100_sxm")
    assert device.efficiency is not None
    assert device.engine is not None
    engine = dataclasses.replace(device.engine, eager=None)
    return dataclasses.replace(
        device, engine=engine, efficiency=dataclasses.replace(device.efficiency, **changes)
    )


def experts_us(tokens: int, fit: GemmFit, peak: float = 989e12, bandwidth: float = 3350e9) -> float:
    """The two products of gpt-oss's 36 layers of 128 experts, all of them read, four for each token."""
    total = 0.0
    for ins, outs in ((2880, 2 * 2880), (2880, 2880)):
        flops = 2.0 * (tokens * 4 + 128 * fit.tile_rows) * ins * outs / (peak * fit.compute)
        read = (tokens * 4 * 2 * (ins + outs) + 128 * ins * outs * 0.53125) / (bandwidth * fit.memory)
        moved = 0.0 if fit.quantize is None else tokens * 4 * (2 + 2) * ins / (bandwidth * fit.quantize)
        total += max(flops, read) + moved + fit.launch_us * 1e-6
    return 36 * total * 1e6


@pytest.mark.parametrize("tokens", [4000, 8000])
def test_a_step_takes_what_measured_kernels_of_its_experts_take(tokens: int) -> None:
    own = roofline(GPT_OSS, graphed(), 1, 8192).tokens_ps[tokens] / 1e6
    plain = roofline(GPT_OSS, graphed(experts={}), 1, 8192).tokens_ps[tokens] / 1e6
    measured = GemmFit(0.61, 0.75, 27.2, quantize=0.52, tile_rows=64, cast_elsewhere=0.35)
    slow, fast = experts_us(tokens, measured), experts_us(tokens, GemmFit(0.81, 0.87, 3.8))
    assert own - plain == pytest.approx(slow - fast, rel=1e-3)
    assert slow > 1.6 * fast


def test_the_kernels_of_an_engine_take_the_place_of_those_of_the_hardware() -> None:
    device, fit = graphed(), GemmFit(0.3, 0.5, 20.0, quantize=0.4, tile_rows=30)
    assert device.engine is not None
    of_engine = dataclasses.replace(device, engine=dataclasses.replace(device.engine, experts={"mxfp4": fit}))
    found, before = (roofline(GPT_OSS, each, 1, 8192).tokens_ps[6000] / 1e6 for each in (of_engine, device))
    measured = GemmFit(0.61, 0.75, 27.2, quantize=0.52, tile_rows=64)
    assert found - before == pytest.approx(experts_us(6000, fit) - experts_us(6000, measured), rel=1e-3)
    other = dataclasses.replace(device, engine=dataclasses.replace(device.engine, experts={"int4": fit}))
    assert roofline(GPT_OSS, other, 1, 8192).tokens_ps == roofline(GPT_OSS, device, 1, 8192).tokens_ps


NVFP4 = {
    "vllm": GemmFit(0.5, 0.87, 8.2, 0.48, 186, 1),
    "sglang": GemmFit(0.785, 0.917, 8.3, 0.406, 4, 1),
}


@pytest.mark.parametrize("engine", NVFP4)
def test_experts_in_nvfp4_are_those_that_were_measured_with_the_engine(engine: str) -> None:
    for gpu in ("b200_sxm", "gb200", "b300_sxm"):
        pool: Any = hf.compose([f"engine={engine}", f"hardware={gpu}", "pipeline=llm"]).cluster.pools["llm"]
        fits = {
            name: dataclasses.replace(fit, by_rows=None) for name, fit in pool.hardware.engine.experts.items()
        }
        assert fits["nvfp4"] == NVFP4[engine]
        longer = [name for name, fit in pool.hardware.engine.experts.items() if fit.by_rows is not None]
        assert longer == (["fp8", "mxfp4_fp8", "nvfp4"] if engine == "vllm" else [])


@pytest.mark.parametrize("tokens", [300, 8000])
def test_an_expert_computes_whole_tiles(tokens: int) -> None:
    mixtral = model("mixtral_8x7b")
    fit = GemmFit(compute=0.5, memory=0.9, launch_us=10.0, tile_rows=100.0)
    found = roofline(mixtral, graphed(experts={"bf16": fit}), 1, 8192).tokens_ps[tokens] / 1e6
    none = GemmFit(compute=1.0, memory=1.0, launch_us=0.0)
    fast = roofline(mixtral, graphed(experts={"bf16": none}), 1, 8192).tokens_ps[tokens] / 1e6

    def by_hand(fit: GemmFit) -> float:
        total = 0.0
        for ins, outs in ((4096, 2 * 14336), (14336, 4096)):
            flops = 2.0 * (tokens * 2 + 8 * fit.tile_rows) * ins * outs / (989e12 * fit.compute)
            read = (tokens * 2 * 2 * (ins + outs) + 8 * ins * outs * 2) / (3350e9 * fit.memory)
            total += max(flops, read) * 1e6 + fit.launch_us
        return 32 * total

    assert found - fast == pytest.approx(by_hand(fit) - by_hand(none), rel=1e-3)


def test_which_fit_holds_depends_on_what_is_computed() -> None:
    assert experts_measured_as("mxfp4", "bf16") == "mxfp4"
    assert experts_measured_as("nvfp4", "bf16") == "mxfp4"  # widened in the kernel, as mxfp4 is
    assert experts_measured_as("nvfp4", "nvfp4") == "nvfp4"
    assert experts_measured_as("int4", "bf16") == "int4"
    assert experts_measured_as("mxfp4", "fp8") == "mxfp4_fp8"  # activations in mxfp8
    assert experts_measured_as("bf16", "bf16") == "bf16"
    assert experts_measured_as("fp8", "fp8") == "fp8"
    for weights, compute in (("fp8", "bf16"), ("bf16", "fp8"), ("mxfp4", "mxfp4"), ("int4", "int4")):
        assert experts_measured_as(weights, compute) is None  # type: ignore[arg-type]


def test_experts_of_other_hardware_take_the_fit_of_other_products() -> None:
    device = dataclasses.replace(hardware("a100_sxm"), memory_gb=160)
    assert device.efficiency is not None
    assert set(device.efficiency.experts) == {"bf16"}
    assert "as fitted to measured kernels" not in " ".join(roofline(GPT_OSS, device, 1, 64).provenance)


def test_dense_products_in_nvfp4_have_a_fit_on_b200() -> None:
    device = hardware("b200_sxm")
    assert device.efficiency is not None
    assert device.efficiency.gemm["nvfp4"] == GemmFit(0.49, 0.76, 7.8, 0.75)
    dense = dataclasses.replace(
        model("llama3_8b"),
        precision=dataclasses.replace(
            GPT_OSS.precision, weights="nvfp4", activations="nvfp4", unquantized=()
        ),
    )
    assert not any("stands in" in note for note in roofline(dense, device, 1, 64).provenance)


def notes(llm: Model | str, *overrides: str) -> str:
    chosen = ["pipeline=llm", "workload.requests=40", "workload.rate_per_s=0.5", f"model={llm}", *overrides]
    return str(hf.simulate(hf.compile(hf.compose(chosen))).summary["error"]["tpot_s"]["kind"])


def test_error_bars_name_what_no_measured_run_has() -> None:
    on_b200 = "hardware=b200_sxm", "cluster.pools.llm.tensor_parallel=8"
    assert notes("glm_5_fp8", *on_b200).endswith("no run with sparse attention")
    assert "no run with" not in notes("gpt_oss_120b")
    speculation = notes("llama3_8b", "cluster.pools.llm.speculative.head=eagle")
    assert speculation.endswith("no run with speculative decoding")
    assert "no run with" not in notes("llama3_8b")


def test_the_program_says_where_the_experts_times_come_from() -> None:
    text = " ".join(roofline(GPT_OSS, hardware("h100_sxm"), 1, 64).provenance)
    assert "routed experts in mxfp4: as fitted to measured kernels of such experts" in text


def test_experts_in_int4_have_launches_tiles_and_moves_of_rows_as_measured() -> None:
    device = hardware("h200_sxm")
    assert device.efficiency is not None
    fit = GemmFit(0.3, 0.68, 23.5, quantize=0.154, tile_rows=23, cast_elsewhere=1)
    assert device.efficiency.experts["int4"] == fit
    whole = dataclasses.replace(
        model("mixtral_8x7b"),
        precision=dataclasses.replace(GPT_OSS.precision, weights="int4", activations="bf16", unquantized=()),
    )
    none = GemmFit(compute=1.0, memory=1.0, launch_us=0.0)
    found, free = (
        roofline(whole, graphed(experts={"int4": each}), 1, 8192).tokens_ps[8000] / 1e6
        for each in (fit, none)
    )
    products = moved = 0.0  # 8 experts compute the rows of 8,000 tokens, two for each, and 23 more each
    for ins, outs in ((4096, 2 * 14336), (14336, 4096)):
        products += 2.0 * ins * outs / 989e12 * ((16000 + 8 * 23) / 0.3 - 16000)
        moved += 16000 * ins * (2 + 2) / (3350e9 * 0.154)
    assert found - free == pytest.approx(32 * ((products + moved) * 1e6 + 2 * 23.5), rel=1e-3)


MARLIN = dataclasses.replace(
    GPT_OSS,
    experts=dataclasses.replace(GPT_OSS.experts, kernels="marlin"),  # type: ignore[type-var]
)


@pytest.mark.parametrize(("devices", "width"), [(1, 2944), (2, 1536), (4, 768), (8, 384)])
def test_marlin_pads_experts_to_its_tiles(devices: int, width: int) -> None:
    assert [(gemm.in_features, gemm.out_features) for gemm in routed_gemms(MARLIN, devices)] == [
        (3072, 2 * width),
        (width, 3072),
    ]
    padded, plain = (block_parameters(each, devices) for each in (MARLIN, GPT_OSS))
    assert padded - plain == 36 * 128 * 3 * (3072 * width - 2880 * 2880 // devices)


def test_prompts_take_twice_as_long_with_marlin() -> None:
    tokens = 8000
    fits = {
        "mxfp4": GemmFit(compute=1.0, memory=1.0, launch_us=0.0),
        "mxfp4_marlin": GemmFit(compute=0.2, memory=0.7, launch_us=10.0, tile_rows=18.0),
    }
    found = roofline(MARLIN, graphed(experts=fits), 2, 8192).tokens_ps[tokens] / 1e6
    none = roofline(GPT_OSS, graphed(experts=fits), 2, 8192).tokens_ps[tokens] / 1e6
    # All 128 experts have rows; 1,440 columns of an expert lie on each device, padded to 1,536.
    rows = 2.0 * (tokens * 4 + 128 * 18)
    marlin = sum(rows * size / (989e12 * 0.2) for size in (3072 * 2 * 1536, 1536 * 3072))
    fast = sum(2.0 * tokens * 4 * size / 989e12 for size in (2880 * 2 * 1440, 1440 * 2880))
    assert found - none == pytest.approx(36 * (marlin - fast) * 1e6 + 36 * 2 * 10.0, rel=1e-3)


def test_marlin_is_for_experts_in_mxfp4_computed_in_bf16() -> None:
    assert experts_measured_as("mxfp4", "bf16", "marlin") == "mxfp4_marlin"
    whole = dataclasses.replace(MARLIN, precision=dataclasses.replace(MARLIN.precision, weights="bf16"))
    with pytest.raises(
        ConfigError, match=r"model\.experts\.kernels: marlin is modelled for experts in mxfp4"
    ):
        roofline(whole, graphed(), 8, 64)
    notes = " ".join(roofline(MARLIN, graphed(), 2, 64).provenance)
    assert "with Marlin's kernels, padded to 3,072 × 2,944" in notes
