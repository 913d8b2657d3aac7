"""Decodes that share a step with a prompt take longer where one kernel attends for all sequences of a step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cost.catalog import hardware, model, roofline

import hermes_flow as hf
from hermes_flow.config.schema import Hardware
from hermes_flow.config.speculative import Speculative
from hermes_flow.program.step_cost import StepCost

A100, L40S = hardware("a100_sxm"), hardware("l40s")


def with_tile(gpu: Hardware, tile: Any) -> Hardware:
    assert gpu.engine is not None
    return dataclasses.replace(gpu, engine=dataclasses.replace(gpu.engine, tiled_decodes=tile))


def test_a_decode_beside_a_prompt_takes_a_tile_of_64_queries_for_each_query_head() -> None:
    cost = roofline(model("llama3_8b"), A100)
    pair_ps = (
        4 * 32 * 32 * 128 / (312e12 * 0.57) * 1e12
    )  # layers, heads and their size; peak and its fraction
    assert cost.mixed_context_ps == pytest.approx(64 * pair_ps, rel=1e-4)
    assert cost.mixed_attention_ps[10] == pytest.approx(10 * 200 * 64 * pair_ps, rel=1e-4)
    read_ps = 131_072 / (2039e9 * 0.74) * 1e12  # bytes of a token of KV
    assert cost.context_ps == pytest.approx(read_ps, rel=1e-4)
    alone, beside = cost.step_ps([], 10, 7_000), cost.step_ps([(16, 500)], 10, 7_000)
    chunk = cost.step_ps([(16, 500)], 0, 0) - cost.tokens_ps[16] - cost.sequences_ps[1]
    expected = cost.tokens_ps[26] - cost.tokens_ps[10] + cost.sequences_ps[11] - cost.sequences_ps[10] + chunk
    expected += 7_000 * (cost.mixed_context_ps - cost.context_ps)
    expected += cost.mixed_attention_ps[10] - cost.decode_attention_ps[10]
    assert beside - alone == expected


def test_reading_kv_limits_from_below_where_every_head_has_its_own() -> None:
    short = with_tile(L40S, dataclasses.replace(L40S.engine.tiled_decodes, rows=8))  # type: ignore[union-attr]
    cost = roofline(model("llama2_7b"), short)
    assert not cost.mixed_attention_ps
    assert not cost.mixed_context_ps


def test_heads_on_other_devices_and_layers_with_a_window_count_for_themselves() -> None:
    one, two = (roofline(model("llama3_8b"), A100, devices) for devices in (1, 2))
    assert two.mixed_context_ps == pytest.approx(one.mixed_context_ps / 2, rel=1e-4)
    # of gpt-oss's 36 layers every other one sees 128 tokens, whatever the context
    windowed = roofline(model("gpt_oss_120b"), A100)
    whole = roofline(model("gpt_oss_120b", sliding_window=None), A100)
    assert windowed.mixed_context_ps == pytest.approx(whole.mixed_context_ps / 2, rel=1e-3)
    assert windowed.mixed_attention_ps[8] > 0.5 * whole.mixed_attention_ps[8]


def test_tokens_that_are_verified_together_are_a_prompt_for_the_kernel() -> None:
    plain = roofline(model("llama3_8b"), A100)
    draft = model("llama3_8b", layers=1)
    drafted, alone = (
        roofline(model("llama3_8b"), with_tile(A100, tile), speculative=Speculative(draft=draft, tokens=2))
        for tile in (A100.engine.tiled_decodes, None)  # type: ignore[union-attr]
    )
    # in steps of decodes alone: the target's 32 layers, and not the draft's, whose passes have one token a sequence
    assert drafted.context_ps - alone.context_ps == plain.mixed_context_ps - plain.context_ps
    assert drafted.mixed_context_ps == drafted.context_ps


def test_latent_kv_has_kernels_of_its_own() -> None:
    assert not roofline(model("deepseek_v3"), A100, 8).mixed_attention_ps


def test_ranks_share_the_slope_and_each_has_its_own() -> None:
    one = roofline(model("llama3_8b"), A100)
    four = one.in_lockstep(4)
    assert four.mixed_context_ps == round(one.mixed_context_ps / 4)
    chunks, context = [(16, 0)], 3_000
    assert four.of_rank.step_ps(chunks, 5, context) == one.step_ps(chunks, 5, context)
    of_all = four.step_ps(4 * chunks, 20, 4 * context)
    assert of_all == pytest.approx(one.step_ps(chunks, 5, context), abs=4 * context)


@pytest.mark.parametrize("gpu", ["a100_sxm", "l40s", "rtx4090", "rtx_a6000", "rtx_pro_6000"])
def test_only_vllm_has_one_kernel_for_both_and_not_on_hopper_and_blackwell(gpu: str) -> None:
    def tile(hardware: str, engine: str) -> Any:
        found = hf.compose([f"hardware={hardware}", f"engine={engine}"]).hardware.engine
        assert found is not None
        return found.tiled_decodes

    assert tile(gpu, "vllm").rows == 64
    assert all(tile(gpu, engine) is None for engine in ("sglang", "tensorrt_llm"))
    assert tile("h100_sxm", "vllm") is None
    assert tile("b200_sxm", "vllm") is None


def test_compile_says_how_decodes_beside_a_prompt_are_counted() -> None:
    notes = roofline(model("llama3_8b"), A100).provenance
    assert "decodes beside a prompt in tiles of 64 queries" in notes[-1]
    assert not any(
        "tiles of" in note for note in roofline(model("llama3_8b"), hardware("h100_sxm")).provenance
    )


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("table", "served", "gpu", "devices", "off_percent"),
    [
        ("rtx4090_llama-3.1-8b_tp1", "llama3_8b", "rtx4090", 1, 16),
        ("rtxpro6000_llama-3.1-8b_tp1", "llama3_8b", "rtx_pro_6000", 1, 9),
        ("rtxpro6000_llama-3.1-8b_tp2", "llama3_8b", "rtx_pro_6000", 2, 14),
        ("rtxpro6000_qwen3-32b_tp1", "qwen3_32b", "rtx_pro_6000", 1, 7),
        ("rtxpro6000_qwen3-32b_tp2", "qwen3_32b", "rtx_pro_6000", 2, 10),
    ],
)
def test_measured_attention_over_prompts_and_decodes(
    table: str, served: str, gpu: str, devices: int, off_percent: float, shared_data: Path
) -> None:
    """LLMServingSim's tables of one layer (MIT): 16 tokens of a prompt and 8 to 128 decodes."""
    import polars as pl

    rows = pl.read_csv(shared_data / "kernels_rtx" / table / "attention.csv").filter(
        (pl.col("prefill_chunk") == 16)
        & (pl.col("kv_prefill") == 0)
        & pl.col("n_decode").is_between(8, 128)
        & pl.col("kv_decode").is_between(256, 2048)
    )
    device, layers = hardware(gpu), model(served).layers

    def error(cost: StepCost) -> float:
        attention = cost.mixed_attention_ps or cost.decode_attention_ps
        slope = cost.mixed_context_ps or cost.context_ps
        found = [
            (attention[n] + slope * n * context) / layers / 1e6 / measured - 1
            for n, context, measured in rows.select("n_decode", "kv_decode", "time_us").iter_rows()
        ]
        return 100 * float(np.mean(np.abs(found)))

    tiled, read = (
        roofline(model(served), each, devices, 256, 128) for each in (device, with_tile(device, None))
    )
    assert error(tiled) < off_percent
    assert error(read) > 40
