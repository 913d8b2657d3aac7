"""What the rows of the collection of benchmark runs say of layouts, drafting and checkpoints."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.silicon import covered
from benchmarks.silicon_checkpoints import checkpoint
from benchmarks.silicon_drafting import may_draft
from benchmarks.silicon_layouts import Layout, layout, users
from benchmarks.silicon_settings import settings

ROW = {
    "id": 0,
    "mode": "agg",
    "backend": "trtllm",
    "backend_version": "1.2.0rc6.post2",
    "model_path": "deepseek-ai/DeepSeek-R1",
    "system": "b200_sxm",
    "precision": "fp4",
    "isl": 1024,
    "osl": 1024,
    "batch_size": 64,
    "tp_size": 8,
    "attention_dp_size": 1,
    "moe_tp_size": 8,
    "moe_ep_size": 1,
    "silicon_ttft_ms": 500.0,
    "silicon_tpot_ms": 20.0,
    "silicon_data_source": "source_file=2026-04-06.csv; silicon_concurrency=64; measured=2026-02-03T00:00:00.000Z",
}


def row(**changes: Any) -> dict[str, Any]:
    return ROW | changes


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        # The devices of a script are those that an expert is cut over
        ({"tp_size": 64, "moe_tp_size": 8, "moe_ep_size": 8}, Layout(8, 1, 8)),
        ({"tp_size": 1, "attention_dp_size": 16, "moe_tp_size": 4, "moe_ep_size": 4}, Layout(1, 4, 4)),
        ({"tp_size": 1, "attention_dp_size": 4, "moe_tp_size": 4, "moe_ep_size": 1}, Layout(1, 4, 4)),
        # vLLM states as many replicas as devices where experts are spread; its scripts start one
        (
            {
                "backend": "vllm",
                "tp_size": 4,
                "attention_dp_size": 4,
                "moe_tp_size": 1,
                "moe_ep_size": 16,
            },
            Layout(4, 1, 4),
        ),
        # Files of other origin, and earlier ones, state what was run
        (
            {
                "silicon_data_source": "source_file=2026-03-25.csv; silicon_concurrency=64",
                "moe_tp_size": 1,
                "moe_ep_size": 8,
            },
            Layout(8, 1, 8),
        ),
        ({"silicon_data_source": "source_file=other.csv; silicon_concurrency=64"}, Layout(8, 1, 1)),
    ],
)
def test_products_of_a_row_are_the_devices_of_its_script(stated: dict[str, Any], expected: Layout) -> None:
    assert layout(row(**stated)) == expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        # dsr1_fp4_b200_trt_slurm.sh of October 2025, line by line
        ({}, Layout(8, 1, 8)),
        ({"load": 8}, Layout(8, 1, 1)),
        ({"load": 16, "osl": 8192}, Layout(8, 1, 1)),
        ({"load": 256}, Layout(1, 8, 8)),
        ({"load": 32, "isl": 8192, "moe_tp_size": 4}, Layout(4, 1, 1)),
        ({"load": 64, "isl": 8192, "moe_tp_size": 4}, Layout(1, 4, 4)),
        # dsr1_fp8_b200_trt_slurm.sh and dsr1_fp8_h200_trt_slurm.sh
        ({"load": 32, "precision": "fp8"}, Layout(8, 1, 8)),
        ({"load": 64, "precision": "fp8"}, Layout(1, 8, 8)),
        ({"load": 64, "precision": "fp8", "isl": 8192}, Layout(8, 1, 8)),
        ({"load": 64, "precision": "fp8", "system": "h200_sxm"}, Layout(8, 1, 8)),
        ({"load": 64, "precision": "fp8", "system": "h200_sxm", "isl": 8192}, Layout(1, 8, 8)),
        # gptoss_fp4_b200_trt_slurm.sh and gptoss_fp4_h200_trt_slurm.sh
        ({"load": 16, "model_path": "openai/gpt-oss-120b"}, Layout(8, 1, 8)),
        ({"load": 16, "model_path": "openai/gpt-oss-120b", "isl": 8192}, Layout(8, 1, 1)),
        ({"load": 4, "model_path": "openai/gpt-oss-120b", "system": "h200_sxm"}, Layout(8, 1, 8)),
    ],
)
def test_the_first_scripts_of_tensorrt_llm_chose_the_layout_themselves(
    stated: dict[str, Any], expected: Layout
) -> None:
    source = f"db-dump/1; silicon_concurrency={stated.pop('load', 64)}; measured=2025-11-02T00:00:00.000Z"
    assert layout(row(**stated, silicon_data_source=source)) == expected


def test_tensorrt_llm_took_one_prompt_of_deepseek_a_step_until_january_2026() -> None:
    before = row(silicon_data_source="db-dump/1; silicon_concurrency=64; measured=2025-12-15T00:00:00.000Z")
    assert settings(before, 64).tokens == 1152  # 64 + 1,024 + 64, in whole units of 64
    assert settings(row(), 64).tokens == 8192
    assert settings(row(isl=8192), 64).tokens == 8320
    assert settings(row(precision="fp8"), 64).captured == 8192  # piecewise CUDA graphs
    assert settings(row(precision="fp8"), 32).captured is None
    assert settings(row(), 64).captured is None


def test_users_are_those_that_the_source_states() -> None:
    assert users(row()) == 64
    assert users(row(silicon_data_source="source_file=2026-04-06.csv")) is None


def test_a_run_that_drafted_is_left_out_unless_the_latest_file_has_it() -> None:
    drafted = row(backend_version="1.2.0rc6.post3")
    again = row(silicon_data_source="db-dump/1; silicon_concurrency=64", backend_version="1.2.0rc6.post3")
    assert may_draft(drafted)
    assert not may_draft(again)
    assert not may_draft(row())
    assert covered([drafted]) == ([], {"tokens drafted, acceptance not recorded": 1})
    assert covered([drafted, again])[0] == [drafted]


@pytest.mark.parametrize("system", ["b200_sxm", "b300_sxm"])
def test_qwen_in_the_layout_of_drafting_alone_is_left_out_on_both_gpus(system: str) -> None:
    qwen = {
        "backend": "sglang",
        "backend_version": "0.5.9",
        "model_path": "Qwen/Qwen3.5-397B-A17B",
        "precision": "fp8",
        "system": system,
        "tp_size": 4,
        "moe_ep_size": 1,
    }
    assert may_draft(row(**qwen))
    assert not may_draft(row(**qwen | {"moe_ep_size": 4}))
    assert not may_draft(row(**qwen | {"tp_size": 8}))
    assert not may_draft(row(**qwen | {"silicon_data_source": "db-dump/1; silicon_concurrency=4"}))


def test_a_published_checkpoint_is_taken_with_the_parts_that_it_leaves_wide() -> None:
    quantized = checkpoint(row())
    assert quantized is not None
    assert quantized.model == "deepseek_r1_nvfp4"
    oss = checkpoint(row(model_path="openai/gpt-oss-120b"))
    assert oss is not None
    assert oss.precision_on("b200_sxm") == ("activations=fp8",)
    assert oss.precision_on("h100_sxm") == ()
    assert checkpoint(row(model_path="zhipuai/GLM-5")) is None
