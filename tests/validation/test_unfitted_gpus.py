"""Benchmark runs on GB200 and B300, which nothing was fitted to: their settings, layouts and constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import elementwise_times, engine_constants, silicon, silicon_apart
from benchmarks.left_out_rows import read
from benchmarks.silicon_apart_layouts import Side
from benchmarks.silicon_gpus import SIBLINGS
from hermes_flow.pools.llm.schema import LLMPool

QWEN: dict[str, Any] = {
    "mode": "agg",
    "backend": "sglang",
    "backend_version": "0.5.10.post1",
    "system": "b300_sxm",
    "precision": "fp8",
    "isl": 1024,
    "osl": 1024,
    "model_path": "Qwen/Qwen3.5-397B-A17B",
    "silicon_data_source": "db-dump/2026-04-27; silicon_concurrency=64; measured=2026-04-17",
    "batch_size": 64,
    "tp_size": 4,
    "attention_dp_size": 1,
    "moe_tp_size": 4,
    "moe_ep_size": 1,
}
APART: dict[str, Any] = {
    "mode": "disagg",
    "backend": "trtllm",
    "system": "gb200",
    "precision": "fp4",
    "isl": 1024,
    "osl": 1024,
    "model_path": "deepseek-ai/DeepSeek-R1",
    "silicon_data_source": "silicon_concurrency=666; measured=2026-03-23; tensorrtllm-runtime:0.8.1.post2",
    "silicon_ttft_ms": 3670.0,
    "silicon_tpot_ms": 12.6,
    "prefill_num_workers": None,
    "decode_num_workers": None,
    "prefill_tp_size": 4,
    "decode_tp_size": 32,
}


def pool_of(row: dict[str, Any]) -> LLMPool:
    pool = silicon.config(row).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool


def longest_of(row: dict[str, Any]) -> tuple[int, int, int]:
    workload: Any = silicon.config(row).workload
    return workload.input_tokens["min"], workload.input_tokens["max"], workload.output_tokens["max"]


def test_b300_has_the_scripts_of_b200_but_for_one() -> None:
    own, of_b200 = pool_of(QWEN), pool_of({**QWEN, "system": "b200_sxm"})
    assert (own.max_num_seqs, own.chunked_prefill_size, own.scheduler_recv_interval) == (64, 16384, 10)
    assert (of_b200.max_num_seqs, of_b200.chunked_prefill_size, of_b200.scheduler_recv_interval) == (
        128,
        32768,
        30,
    )
    older = {
        **QWEN,
        "silicon_data_source": "source_file=2026-03; silicon_concurrency=64; measured=2026-04-03",
    }
    assert pool_of(older).max_num_seqs == 128
    assert own.block_size == of_b200.block_size == 64


def test_servers_with_another_tokenizer_than_the_client_read_longer_prompts() -> None:
    row = {**QWEN, "model_path": "deepseek-ai/DeepSeek-R1", "tp_size": 8, "moe_tp_size": 8}
    assert longest_of(row) == (4121, 5152, 1024)
    assert silicon.config(row).pipeline.stages["tokenize"]["per_token_us"] == 1.1
    mended = row["silicon_data_source"].replace("2026-04-17", "2026-05-20")
    for as_meant in (
        {**row, "backend_version": "0.5.9"},
        {**row, "backend_version": "0.5.10.post1", "silicon_data_source": mended},
        {**row, "backend": "vllm", "backend_version": "0.19.0"},
        QWEN,
    ):
        assert longest_of(as_meant) == (819, 1024, 1024)


def test_deepseek_in_fp8_on_blackwell_has_the_products_that_its_script_chooses() -> None:
    row = {**QWEN, "model_path": "deepseek-ai/DeepSeek-R1", "tp_size": 8, "moe_tp_size": 8}

    def products(of: dict[str, Any]) -> Any:
        engine = pool_of(of).hardware.engine
        assert engine is not None
        return None if engine.kernels is None else engine.kernels.gemm.get("fp8")

    own = products(row)
    # 2,048 rows of 24,576 × 7,168 took 1,633 µs, 8 rows 47 µs (sgl-project/sglang, pull request 13528)
    assert 2e6 * 2048 * 24576 * 7168 / (own.compute * 4500e12) == pytest.approx(1633, rel=0.02)
    assert 1e6 * 24576 * 7168 / (own.memory * 7700e9) + 15 == pytest.approx(47, rel=0.02)
    for other in (QWEN, {**row, "precision": "fp4"}, {**row, "system": "h200_sxm"}):
        assert products(other) is None


def test_the_layout_of_a_run_on_gb200_is_that_of_its_image_and_its_devices() -> None:
    assert silicon_apart.covered([APART]) == [APART]
    assert silicon_apart.layout(APART).decode == Side(1, 1, 32, True)
    before = {**APART, "silicon_data_source": "silicon_concurrency=666; measured=2025-12-19; x:0.5.1"}
    drafting = {**APART, "decode_tp_size": 16}
    assert silicon_apart.sorted_out([before, drafting]) == ([], {"layout not stated": 2})


def test_ranks_of_one_rack_are_one_node() -> None:
    network = silicon_apart.config(APART).network
    assert network.devices_per_node == 72
    pools: Any = silicon_apart.config(APART).cluster.pools
    assert pools["decode"].data_parallel == 32
    assert pools["decode"].max_num_seqs == 16  # ..._batch16_... in the name of the recipe


def test_a_run_of_gpt_oss_with_two_possible_layouts_is_left_out() -> None:
    of_oss = {**APART, "model_path": "openai/gpt-oss-120b", "decode_tp_size": 4}
    four = {**of_oss, "silicon_data_source": "silicon_concurrency=1536; x"}
    assert silicon_apart.layout(four).decode == Side(1, 1, 4, True)
    two = {**of_oss, "silicon_data_source": "silicon_concurrency=1024; x", "decode_tp_size": 2}
    assert silicon_apart.covered([two]) == []


def test_vllm_on_gb200_has_the_ranks_of_its_recipe() -> None:
    stated = {f"{pool}_num_workers": 1 for pool in ("prefill", "decode")}
    row = {
        **APART,
        **stated,
        "backend": "vllm",
        "model_path": "moonshotai/Kimi-K2.5",
        "prefill_tp_size": 4,
        "decode_tp_size": 16,
        "prefill_moe_ep_size": 4,
        "decode_moe_ep_size": 16,
        **{f"{pool}_attention_dp_size": 1 for pool in ("prefill", "decode")},
    }
    placed = silicon_apart.layout(row)
    assert (placed.prefill, placed.decode) == (Side(1, 1, 4, True), Side(1, 1, 16, True))
    tensor = silicon_apart.layout(
        {**row, "decode_num_workers": 4, "decode_tp_size": 4, "decode_moe_ep_size": 4}
    )
    assert tensor.decode == Side(4, 4, 1, True)


@pytest.mark.shared_data
def test_no_constant_is_fitted_to_them(shared_data: Path) -> None:
    rows = silicon.read(shared_data)
    kept = [row for row in silicon.covered(rows)[0] if row["system"] in SIBLINGS]
    assert len(kept) > 100
    chosen = [*elementwise_times.chosen(rows)]
    for engine in engine_constants.ENGINES:
        chosen += engine_constants.chosen(rows, engine)
    assert not [row for row in chosen if row["system"] in SIBLINGS]
    assert {row["system"] for row in chosen} == {"b200_sxm", "h100_sxm", "h200_sxm"}


def test_they_are_compared_as_runs_with_the_kernels_of_another_gpu() -> None:
    rows = [row for row in read() if row.hardware in SIBLINGS]
    assert {row.left_out for row in rows} == {"sibling", "gpu", "never"}
    together = [row for row in rows if row.left_out == "sibling"]
    assert {row.hardware for row in together} == {"b300_sxm"}
    off = sorted(abs(row.errors["tpot"] - 1.0) for row in together)
    assert off[len(off) // 2] < 0.16
