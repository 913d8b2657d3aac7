"""Kernels of experts are refused where no server has them, and named where they were not measured."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError

KEY = "cluster.pools.llm.model.experts.kernels: marlin"
GPT_OSS = ["pipeline=llm", "slo=none", "workload=synthetic", "workload.requests=3", "model=gpt_oss_120b"]
MARLIN = [*GPT_OSS, "model.experts.kernels=marlin", "cluster.pools.llm.tensor_parallel=2"]
DRAFT = "cluster.pools.llm.speculative.draft"


def warnings(*overrides: str) -> list[str]:
    found = hf.compile(hf.compose([*MARLIN, *overrides])).warnings
    return [text for text in found if text.startswith(KEY)]


@pytest.mark.parametrize("engine", ["sglang", "tensorrt_llm"])
def test_another_engine_has_no_such_setting(engine: str) -> None:
    with pytest.raises(HermesFlowError, match=f"{KEY} is a setting of vLLM.*the engine is {engine}"):
        warnings("hardware=h200_sxm", f"engine={engine}")


@pytest.mark.parametrize(("hardware", "maker"), [("mi300x", "amd"), ("tpu_v7", "google")])
def test_another_maker_has_no_such_kernels(hardware: str, maker: str) -> None:
    with pytest.raises(HermesFlowError, match=f"{KEY} is for accelerators of NVIDIA.*made by {maker}"):
        warnings(f"hardware={hardware}")


@pytest.mark.parametrize("hardware", ["a100_sxm", "l40s"])
def test_hardware_where_they_were_not_measured_has_a_warning(hardware: str) -> None:
    (text,) = warnings(f"hardware={hardware}")
    assert text.startswith(f"{KEY} was not measured on {hardware}")


@pytest.mark.parametrize("hardware", ["gb200", "b300_sxm", "gb300"])
def test_hardware_with_the_kernels_of_another_has_a_warning_that_names_it(hardware: str) -> None:
    (text,) = warnings(f"hardware={hardware}")
    assert text.startswith(f"{KEY} was not measured on {hardware}; ")
    assert "take the time of these kernels on b200_sxm" in text
    fit = "{compute: 0.2, memory: 0.5, launch_us: 12, tile_rows: 17}"
    assert warnings(f"hardware={hardware}", f"+hardware.engine.experts.mxfp4_marlin={fit}") == []


def test_hardware_where_they_were_measured_has_none() -> None:
    assert warnings("hardware=b200_sxm") == []
    fit = "{compute: 0.2, memory: 0.5, launch_us: 12, tile_rows: 17}"
    assert warnings("hardware=a100_sxm", f"+hardware.efficiency.experts.mxfp4_marlin={fit}") == []


def test_a_draft_model_is_checked_by_its_own_key() -> None:
    words = [*GPT_OSS, "hardware=mi300x", f"+model@{DRAFT}=gpt_oss_20b", f"{DRAFT}.experts.kernels=marlin"]
    with pytest.raises(
        HermesFlowError, match=f"{DRAFT}.experts.kernels: marlin is for accelerators of NVIDIA"
    ):
        hf.compile(hf.compose(words))


def test_operator_tables_have_no_times_of_them(tmp_path: Path) -> None:
    with pytest.raises(HermesFlowError, match=r"model\.experts\.kernels: cost=kernels has no tables of it"):
        hf.compile(
            hf.compose(
                [
                    *MARLIN,
                    "model.sliding_window=null",
                    "model.precision.unquantized=[]",
                    "hardware=h200_sxm",
                    "cost=kernels",
                    f"cost.path={tmp_path}",
                ]
            )
        )


DEEPSEEK = [*GPT_OSS[:-1], "model=deepseek_v3", "cluster.pools.llm.tensor_parallel=8"]


def test_kernels_of_tensorrt_llm_are_refused_with_another_engine_and_named_where_not_measured() -> None:
    setting = "model.experts.kernels: deepgemm"
    words = [*DEEPSEEK, "model.experts.kernels=deepgemm"]
    with pytest.raises(HermesFlowError, match=f"{setting} is a setting of TensorRT-LLM.*the engine is vllm"):
        hf.compile(hf.compose([*words, "hardware=b200_sxm"]))

    def warned(hardware: str) -> bool:
        compiled = hf.compile(hf.compose([*words, "engine=tensorrt_llm", f"hardware={hardware}"]))
        return any(f"{setting} was not measured on {hardware}" in text for text in compiled.warnings)

    assert not warned("b200_sxm")
    assert warned("h200_sxm")
