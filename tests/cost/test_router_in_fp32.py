"""The router of a mixture of experts in fp32: MiniMax-M2.5 on H200 and others, by hand."""

from __future__ import annotations

import dataclasses

import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.model import RouterPrecision
from hermes_flow.program.step_cost import StepCost

MINIMAX = model("minimax_m2_5")  # 62 layers of 3,072 values, 256 experts
H200 = hardware("h200_sxm")
assert H200.engine is not None
GRAPHS = dataclasses.replace(
    H200, engine=dataclasses.replace(H200.engine, eager=None)
)  # for steps of all sizes
LAYERS, WIDTH, EXPERTS = 62, 3072, 256


def steps(precision: RouterPrecision, tokens: int = 8192) -> StepCost:
    assert MINIMAX.experts is not None
    experts = dataclasses.replace(MINIMAX.experts, router_precision=precision)
    return roofline(dataclasses.replace(MINIMAX, experts=experts), GRAPHS, 4, tokens)


def router_us(cost: StepCost, bf16: StepCost, tokens: int) -> float:
    """The router of a layer, from what a step takes more than with a router in bf16."""
    bandwidth = 4800e9 * 0.83
    plain = max(
        2 * tokens * WIDTH * EXPERTS / (989e12 * 0.80),
        2 * (tokens * (WIDTH + EXPERTS) + WIDTH * EXPERTS) / bandwidth,
    )
    more = (cost.tokens_ps[tokens] - bf16.tokens_ps[tokens]) / 1e6 / LAYERS
    return more + plain * 1e6


def cast_us(tokens: int) -> float:
    """Read in bf16, written in fp32, read again."""
    return 10 * tokens * WIDTH / (4800e9 * 0.83) * 1e6


def test_minimax_has_its_router_in_fp32_and_other_mixtures_do_not() -> None:
    assert MINIMAX.experts is not None
    assert MINIMAX.experts.router_precision == "fp32"
    mixtral = model("mixtral_8x7b").experts
    assert mixtral is not None
    assert mixtral.router_precision == "bf16"


@pytest.mark.parametrize(
    ("precision", "rows", "measured_us"),
    [("fp32", 16, 22.3), ("fp32", 64, 65.233), ("fp32", 512, 96.8), ("tf32", 32, 19.9), ("tf32", 1024, 32.8)],
)
def test_with_few_rows_it_takes_as_long_as_measured_for_each_value_summed(
    precision: RouterPrecision, rows: int, measured_us: float
) -> None:
    # measured with sums over 6,144 values, twice those of MiniMax; 64 rows lie a third between 32 and 128
    found = router_us(steps(precision), steps("bf16"), rows)
    assert found == pytest.approx(measured_us / 2 + cast_us(rows), rel=2e-3)


def test_with_many_rows_it_is_bound_by_the_peak_of_its_precision() -> None:
    flops = 2 * 8192 * WIDTH * EXPERTS
    fp32 = router_us(steps("fp32"), steps("bf16"), 8192)
    assert fp32 == pytest.approx(flops / (67e12 * 0.80) * 1e6 + cast_us(8192), rel=2e-3)
    tf32 = router_us(steps("tf32"), steps("bf16"), 8192)
    assert tf32 == pytest.approx(flops / (989e12 / 2 * 0.80) * 1e6 + cast_us(8192), rel=2e-3)


def test_hardware_without_a_peak_for_fp32_has_it_in_bf16_and_says_so() -> None:
    told = dataclasses.replace(GRAPHS, peak_tflops_fp32=None)
    wide = roofline(MINIMAX, told, 4)
    assert wide.tokens_ps == steps("bf16", tokens=128).tokens_ps
    assert any("router of the experts as bf16" in note for note in wide.provenance)
    assert any("router of the experts in fp32" in note for note in roofline(MINIMAX, GRAPHS, 4).provenance)
