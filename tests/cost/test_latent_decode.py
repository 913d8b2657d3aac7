"""Decode attention over latent KV: reading it, or the products of all heads with it, whichever takes longer."""

from __future__ import annotations

import dataclasses

import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import Model, Speculative

DEEPSEEK = model("deepseek_v3")
# AIConfigurator's tables of latent attention (vLLM 0.24), ns a token of context in one layer, 128 heads, by KV
MEASURED = {
    "h100_sxm": {"bf16": 0.40, "fp8": 0.36},
    "h200_sxm": {"bf16": 0.385, "fp8": 0.365},
    "b200_sxm": {"bf16": 0.20, "fp8": 0.10},
}


def with_kv(kv: str) -> Model:
    return dataclasses.replace(
        DEEPSEEK,
        precision=dataclasses.replace(DEEPSEEK.precision, kv_cache=kv),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("gpu", sorted(MEASURED))
@pytest.mark.parametrize("kv", ["bf16", "fp8"])
def test_a_token_of_context_takes_what_was_measured_with_all_heads(gpu: str, kv: str) -> None:
    cost = roofline(with_kv(kv), hardware(gpu))
    assert cost.context_ps / 61 / 1000 == pytest.approx(MEASURED[gpu][kv], rel=0.05)


def test_a_few_heads_are_limited_by_reading() -> None:
    # 576 bytes at 79 % of 3,350 GB/s
    cost = roofline(with_kv("fp8"), hardware("h100_sxm"), 8)
    assert cost.context_ps / 61 == pytest.approx(576 / (3350e9 * 0.79) * 1e12, rel=1e-3)


def test_all_heads_are_limited_by_their_products() -> None:
    # 2 · 128 heads · (512 + 64 + 512) at 78 % of 989 teraflops
    cost = roofline(with_kv("fp8"), hardware("h100_sxm"))
    assert cost.context_ps / 61 == pytest.approx(2 * 128 * 1088 / (989e12 * 0.78) * 1e12, rel=1e-3)


def test_verified_tokens_have_products_of_their_own() -> None:
    speculative = Speculative(draft=model("llama3_8b"), tokens=1)
    alone, verified = (
        roofline(with_kv("fp8"), hardware("h100_sxm"), 8, speculative=each)
        for each in (Speculative(), Speculative(draft=speculative.draft, tokens=7))
    )
    draft = roofline(model("llama3_8b"), hardware("h100_sxm"), 8, part="draft")
    products = 8 * 2 * 16 * 1088 / (989e12 * 0.78) * 1e12  # eight tokens of sixteen heads
    assert (verified.context_ps - 7 * draft.context_ps) / 61 == pytest.approx(products, rel=1e-3)
    assert products > alone.context_ps / 61


def test_hardware_without_the_figure_reads_only() -> None:
    cost = roofline(with_kv("bf16"), hardware("a100_sxm"))
    assert cost.context_ps / 61 == pytest.approx(1152 / (2039e9 * 0.74) * 1e12, rel=0.02)
