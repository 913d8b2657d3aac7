"""Kernels of experts that the scripts of benchmark runs choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import silicon


@pytest.mark.shared_data
@pytest.mark.parametrize(("release", "triton"), [("0.17", True), ("0.19", False)])
def test_minimax_in_fp8_on_b200_had_triton_s_experts_before_vllm_0_19(
    shared_data: Path, release: str, triton: bool
) -> None:
    rows = [
        row
        for row in silicon.covered(silicon.read(shared_data))[0]
        if (row["system"], row["model_path"], row["precision"])
        == ("b200_sxm", "MiniMaxAI/MiniMax-M2.5", "fp8")
        and str(row["backend_version"]).startswith(release)
    ]
    assert rows
    pools: list[Any] = [silicon.config(row).cluster.pools["llm"] for row in rows]
    for pool in pools:
        fp8 = pool.hardware.engine.experts["fp8"]
        assert (fp8.by_rows is None) is triton
        assert fp8.compute == (0.145 if triton else 0.23)
        assert (pool.expert_parallel and pool.memory_utilization == 0.95) or not triton


@pytest.mark.shared_data
@pytest.mark.parametrize(("release", "first"), [("0.16", True), ("0.18", False)])
def test_the_first_script_of_minimax_on_h200_cuts_experts_which_had_cutlass_s_kernels(
    shared_data: Path, release: str, first: bool
) -> None:
    rows = [
        row
        for row in silicon.covered(silicon.read(shared_data))[0]
        if (row["system"], row["model_path"], row["backend"])
        == ("h200_sxm", "MiniMaxAI/MiniMax-M2.5", "vllm")
        and str(row["backend_version"]).startswith(release)
    ]
    assert rows
    for row in rows:
        pool: Any = silicon.config(row).cluster.pools["llm"]
        assert pool.expert_parallel is not first
        assert ("fp8" in (pool.hardware.engine.experts or {})) is first
        if first:
            assert pool.hardware.engine.experts["fp8"].launch_us == 38.5


@pytest.mark.shared_data
def test_the_script_of_kimi_in_nvfp4_on_vllm_never_spreads_experts_and_has_long_graphs_on_b200_since_april(
    shared_data: Path,
) -> None:
    rows = [
        row
        for row in silicon.covered(silicon.read(shared_data))[0]
        if (row["model_path"], row["precision"], row["backend"]) == ("moonshotai/Kimi-K2.5", "fp4", "vllm")
        and silicon.is_recorded(row)
    ]
    graphs = set()
    for row in rows:
        pool: Any = silicon.config(row).cluster.pools["llm"]
        assert silicon.layout(row).spread == 1
        assert not pool.expert_parallel
        long = pool.hardware.engine.eager.above_tokens == 2048
        assert (pool.max_num_batched_tokens == 2 * row["isl"]) is long
        graphs.add((row["system"], silicon.measured(row) >= "2026-04-20", long))
    assert graphs == {
        ("b200_sxm", False, False),
        ("b200_sxm", True, True),
        ("b300_sxm", False, False),
        ("b300_sxm", True, False),
    }


@pytest.mark.shared_data
def test_qwen_on_sglang_reduces_in_two_stages_until_its_norms_were_fused_after_0_5_9(
    shared_data: Path,
) -> None:
    found = set()
    for row in silicon.covered(silicon.read(shared_data))[0]:
        if row["backend"] == "sglang" and silicon.is_recorded(row):
            pool: Any = silicon.config(row).cluster.pools["llm"]
            kernels = pool.hardware.engine.kernels
            reduces = {} if kernels is None else kernels.all_reduce
            staged = {devices: fit.two_stage.from_kb for devices, fit in reduces.items() if fit.two_stage}
            of_qwen = "Qwen" in row["model_path"]
            assert of_qwen or not staged
            if of_qwen:
                recent = row["backend_version"] == "0.5.10.post1"
                found.add((row["system"], recent, tuple(sorted(staged.items()))))
    assert found == {
        ("b200_sxm", False, ((4, 512), (8, 256))),
        ("b300_sxm", False, ((4, 512), (8, 256))),
        ("b300_sxm", True, ()),
        ("h200_sxm", False, ((8, 256),)),
    }


@pytest.mark.shared_data
def test_qwen_in_fp8_on_blackwell_has_the_products_of_flashinfer_until_its_script_of_b300(
    shared_data: Path,
) -> None:
    found = set()
    for row in silicon.covered(silicon.read(shared_data))[0]:
        if row["backend"] == "sglang" and silicon.is_recorded(row) and "Qwen" in row["model_path"]:
            pool: Any = silicon.config(row).cluster.pools["llm"]
            kernels = pool.hardware.engine.kernels
            slow = kernels is not None and "fp8" in kernels.gemm
            found.add((row["system"], row["precision"], row["backend_version"] == "0.5.10.post1", slow))
    assert found == {
        ("b200_sxm", "bf16", False, False),
        ("b200_sxm", "fp8", False, True),
        ("b300_sxm", "bf16", True, False),
        ("b300_sxm", "fp8", False, True),
        ("b300_sxm", "fp8", True, False),
        ("h200_sxm", "fp8", False, False),
    }


@pytest.mark.shared_data
def test_qwen_in_fp8_keeps_states_in_bf16_as_the_scripts_say_and_six_workers_tokenize(
    shared_data: Path,
) -> None:
    found = set()
    for row in silicon.covered(silicon.read(shared_data))[0]:
        if row["backend"] == "sglang" and silicon.is_recorded(row) and "Qwen" in row["model_path"]:
            config = silicon.config(row)
            pool: Any = config.cluster.pools["llm"]
            states = pool.model.mixers["gated_delta_net"].state_precision
            early = silicon.measured(row) < "2026-03-24"
            assert silicon.settings(row, 16).tokenizers == 6
            found.add((row["system"], row["precision"], early, states))
    assert found == {
        ("b200_sxm", "bf16", True, "fp32"),
        ("b200_sxm", "fp8", True, "fp32"),
        ("b200_sxm", "fp8", False, "bf16"),
        ("b300_sxm", "bf16", False, "fp32"),
        ("b300_sxm", "fp8", False, "bf16"),
        ("h200_sxm", "fp8", True, "bf16"),
    }
