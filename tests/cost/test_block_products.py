"""Products in fp8 whose scales are those of blocks, and experts with DeepGEMM's and CUTLASS's kernels."""

from __future__ import annotations

import dataclasses

import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import Efficiency, EngineOverhead, GemmFit, Hardware
from hermes_flow.cost.precision import experts_measured_as
from hermes_flow.errors import ConfigError

H200 = hardware("h200_sxm")
DEEPSEEK, NVFP4 = model("deepseek_v3"), model("deepseek_r1_nvfp4")
SLOW = GemmFit(compute=0.5, memory=0.5, launch_us=6.0)


def measured(
    hardware_of: Hardware = H200, gemm: dict[str, GemmFit] | None = None, **experts: GemmFit
) -> Hardware:
    efficiency, engine = hardware_of.efficiency, hardware_of.engine
    assert isinstance(efficiency, Efficiency)
    assert isinstance(engine, EngineOverhead)
    changed = dataclasses.replace(
        efficiency,
        gemm={**efficiency.gemm, **(gemm or {})},
        experts={**efficiency.experts, **experts},  # type: ignore[dict-item]
    )
    return dataclasses.replace(
        hardware_of, efficiency=changed, engine=dataclasses.replace(engine, experts=None)
    )


def step_us(on: Hardware, blocks: bool = True) -> float:
    precision = dataclasses.replace(DEEPSEEK.precision, fp8_blocks=blocks)
    return roofline(dataclasses.replace(DEEPSEEK, precision=precision), on, 8, 64).tokens_ps[1] / 1e6


def test_products_of_blocks_take_the_fit_that_was_measured_for_them() -> None:
    fast = GemmFit(compute=0.5, memory=0.5, launch_us=2.0)
    on = measured(gemm={"fp8": fast, "fp8_block": SLOW})
    # five products of attention in 61 layers and two of MLPs in three; shared experts launch beside the routed ones
    assert step_us(on) - step_us(on, False) == pytest.approx((61 * 5 + 3 * 2) * 4.0, rel=1e-6)


def test_without_a_fit_of_blocks_they_take_that_of_fp8() -> None:
    assert step_us(H200) == step_us(H200, False)


@pytest.mark.parametrize(
    ("kernels", "weights", "fit"),
    [("deepgemm", "fp8", "fp8_deepgemm"), ("cutlass", "nvfp4", "nvfp4_cutlass")],
)
def test_other_kernels_of_experts_have_a_fit_of_their_own(kernels: str, weights: str, fit: str) -> None:
    assert experts_measured_as(weights, weights, kernels) == fit  # type: ignore[arg-type]
    base = {"fp8": DEEPSEEK, "nvfp4": NVFP4}[weights]
    assert base.experts is not None
    asked = dataclasses.replace(base, experts=dataclasses.replace(base.experts, kernels=kernels))  # type: ignore[type-var]
    plain, slow = GemmFit(0.5, 0.5, 10.0), GemmFit(0.5, 0.5, 30.0)
    on = measured(hardware("b200_sxm"), None, **{weights: plain, fit: slow})
    found, default = (roofline(each, on, 8, 64) for each in (asked, base))
    assert (found.tokens_ps[1] - default.tokens_ps[1]) / 1e6 == pytest.approx(58 * 2 * 20.0, rel=1e-6)
    name = {"deepgemm": "DeepGEMM", "cutlass": "CUTLASS"}[kernels]
    assert f"with the kernels of {name}" in " ".join(found.provenance)


def test_kernels_for_other_weights_are_refused_by_name() -> None:
    assert DEEPSEEK.experts is not None
    asked = dataclasses.replace(DEEPSEEK, experts=dataclasses.replace(DEEPSEEK.experts, kernels="cutlass"))
    with pytest.raises(
        ConfigError, match=r"kernels: cutlass is modelled for experts in nvfp4 computed in nvfp4"
    ):
        roofline(asked, H200, 8, 64)
