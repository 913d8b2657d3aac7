"""Sparse attention takes what measured modules take longer than those of latent attention, on the same GPU."""

from __future__ import annotations

import dataclasses

import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.cost.windows import SPARSE_HEADS, window_pair_flops

SPARSE, LATENT = model("deepseek_v3_2"), model("deepseek_v3")
LAYERS = 61
# AIConfigurator's tables (vLLM 0.24, bf16 KV, fp8 in blocks): ms of one layer with 16 heads, sparse less latent
LONGER = {"h100_sxm": {8192: 5.28, 16384: 11.12}, "h200_sxm": {8192: 5.2, 16384: 11.23}}


def prompt_ms(name: str, gpu: str, tokens: int) -> float:
    cost = roofline(model(name), hardware(gpu), 8, tokens, 4)
    return cost.step_ps([(tokens, 0)], 0, 0) / LAYERS / 1e9


@pytest.mark.parametrize("gpu", sorted(LONGER))
@pytest.mark.parametrize("tokens", [8192, 16384])
def test_a_long_prompt_takes_longer_by_what_was_measured(gpu: str, tokens: int) -> None:
    longer = prompt_ms("deepseek_v3_2", gpu, tokens) - prompt_ms("deepseek_v3", gpu, tokens)
    assert longer == pytest.approx(LONGER[gpu][tokens], rel=0.13)


def test_few_heads_cost_as_many_as_the_kernels_work_on() -> None:
    # 2 · 64 heads · (512 + 64 + 512), and with all 128 heads twice as much
    assert window_pair_flops(SPARSE, 8) == window_pair_flops(SPARSE, 4) == 2 * SPARSE_HEADS * 1088
    assert window_pair_flops(SPARSE, 1) == 2 * 128 * 1088
    assert window_pair_flops(LATENT, 8) == 4 * 16 * (192 + 128) / 2


def test_choosing_the_tokens_takes_its_time_in_every_layer() -> None:
    gpu = hardware("h200_sxm")
    assert gpu.efficiency is not None
    longer = dataclasses.replace(
        gpu, efficiency=dataclasses.replace(gpu.efficiency, index_us=gpu.efficiency.index_us + 10)
    )
    before, after = (roofline(SPARSE, each, 8).step_ps([], 4, 4000) for each in (gpu, longer))
    assert after - before == pytest.approx(LAYERS * 10e6, rel=1e-6)
    without = (roofline(LATENT, each, 8).step_ps([], 4, 4000) for each in (gpu, longer))
    assert len(set(without)) == 1
