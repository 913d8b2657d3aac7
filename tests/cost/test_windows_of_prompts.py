"""Prompts in layers with a sliding window, whose kernels work on whole tiles of tokens."""

from __future__ import annotations

import dataclasses

import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import Model
from hermes_flow.program.step_cost import StepCost

# AIConfigurator's tables of attention over prompts (Apache-2.0; vLLM 0.24), µs of one layer: 64 query heads of 64,
# 8 KV heads, a window of 128, and one prompt of 8,192 tokens
MEASURED = {"h100_sxm": 196.0, "h200_sxm": 185.0, "b200_sxm": 145.0}
GPT_OSS = model("gpt_oss_120b")


def step(shape: Model, gpu: str, more: float | None = None) -> StepCost:
    device = hardware(gpu)
    assert device.efficiency is not None
    prefill = device.efficiency.prefill_attention
    if more is not None:
        prefill = dataclasses.replace(prefill, window_tokens=more)
    efficiency = dataclasses.replace(device.efficiency, prefill_attention=prefill)
    assert device.engine is not None
    engine = dataclasses.replace(device.engine, eager=None)
    device = dataclasses.replace(device, engine=engine, efficiency=efficiency, memory_gb=200)
    return roofline(shape, device, 1, 8192)


@pytest.mark.parametrize("gpu", sorted(MEASURED))
def test_a_window_takes_what_was_measured(gpu: str) -> None:
    assert GPT_OSS.sliding_window is not None
    none = dataclasses.replace(GPT_OSS, sliding_window=dataclasses.replace(GPT_OSS.sliding_window, tokens=1))
    # With a window of one token and no tiles, all that is left of it is one pair of a query and a key.
    found = (step(GPT_OSS, gpu).tokens_ps[8192] - step(none, gpu, 0.0).tokens_ps[8192]) / 18 / 1e6
    assert found == pytest.approx(MEASURED[gpu], rel=0.17)


def test_each_token_takes_the_window_and_what_its_tiles_have_more() -> None:
    tiled, plain = (step(GPT_OSS, "h200_sxm", more).tokens_ps[4000] for more in (300.0, 0.0))
    pairs = 4000 * 300
    # A head of 64 takes (64 + 52) / (128 + 52) of one of 128.
    each = 4 * 64 * 128 * (64 + 52) / (128 + 52) / (989e12 * 0.64)
    assert (tiled - plain) / 1e12 == pytest.approx(18 * pairs * each, rel=1e-3)


@pytest.mark.parametrize(
    ("gpu", "heads", "width", "measured_us"),
    [("h100_sxm", 64, 64, 1135.0), ("h200_sxm", 32, 64, 600.0), ("b200_sxm", 64, 64, 804.0)],
)
def test_narrow_heads_take_what_was_measured(gpu: str, heads: int, width: int, measured_us: float) -> None:
    """One prompt of 8,192 tokens in one layer, of the same tables."""
    narrow = model(
        "llama3_70b", layers=1, hidden_size=heads * width, heads=heads, kv_heads=heads // 8, head_dim=width
    )
    assert step(narrow, gpu).prefill_ps(8192, 0) / 1e6 == pytest.approx(measured_us, rel=0.15)


def test_heads_of_128_take_what_they_did() -> None:
    fit = hardware("b200_sxm").efficiency
    assert fit is not None
    assert fit.prefill_attention.longer(128) == 1.0
    assert fit.prefill_attention.longer(64) == pytest.approx((64 + 90) / 64 * 128 / (128 + 90))


def test_windows_of_other_layers_have_tiles_too() -> None:
    gemma = model("gemma_4_26b_a4b")
    tiled, plain = (step(gemma, "h200_sxm", more).tokens_ps[4000] for more in (300.0, 0.0))
    assert tiled > plain


def test_the_tokens_of_an_indexer_have_none() -> None:
    sparse = model("deepseek_v3_2", experts=None)
    tiled, plain = (step(sparse, "h200_sxm", more).tokens_ps[100] for more in (300.0, 0.0))
    assert tiled == plain
