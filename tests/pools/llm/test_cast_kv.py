"""Latent KV in fp8 has a warning where SGLang casts it, and nowhere else."""

from __future__ import annotations

import pytest

import hermes_flow as hf

KEY = "cluster.pools.llm.model.precision.kv_cache: fp8 with the latent attention of"
CASTS = {
    "engine": "sglang",
    "hardware": "h200_sxm",
    "model": "deepseek_v3",
    "model.precision.kv_cache": "fp8",
}
RUN = [
    "pipeline=llm",
    "slo=none",
    "workload=synthetic",
    "workload.requests=3",
    "cluster.pools.llm.tensor_parallel=8",
]


def warned(changed: dict[str, str], *others: str) -> list[str]:
    words = [f"{key}={value}" for key, value in (CASTS | changed).items()]
    found = hf.compile(hf.compose([*RUN, *words, *others])).warnings
    return [text for text in found if KEY in text]


def test_the_key_the_engine_the_hardware_and_the_direction_of_the_error_are_named() -> None:
    (text,) = warned({})
    assert text.startswith(f"{KEY} deepseek_v3 is not modelled for sglang on h200_sxm")
    assert "steps are too short here" in text
    assert "expected bf16, or a server with --attention-backend flashmla" in text


@pytest.mark.parametrize(
    "others",
    [
        {"hardware": "h100_sxm", "cluster.pools.llm.tensor_parallel": "16"},
        {"hardware.name": "h20_sxm", "hardware.efficiency": "null"},
        {"hardware.name": "GH200-480GB"},
        {"hardware.name": "mine", "+hardware.efficiency.kernels_of": "h200_sxm"},
    ],
)
def test_other_hopper_accelerators_have_it(others: dict[str, str]) -> None:
    assert len(warned(others)) == 1


@pytest.mark.parametrize(
    "others",
    [
        {"engine": "vllm"},
        {"engine": "tensorrt_llm"},
        {"hardware": "b200_sxm"},
        {"model.precision.kv_cache": "bf16"},
        {"model": "deepseek_v3_2"},  # sparse attention has kernels of its own
        {"model": "qwen3_30b_a3b"},
        {"hardware.name": "h2000", "hardware.efficiency": "null"},
    ],
)
def test_what_does_not_cast_has_none(others: dict[str, str]) -> None:
    assert warned(others) == []


def test_a_calibration_of_this_hardware_has_none() -> None:
    fitted = [
        "cost=hybrid",
        "cost.host_layer_us=20",
        "cost.token_work=1",
        "cost.prefill_layer_us=0",
        "cost.sequence_us=0",
        "cost.decode_attention=1",
        "cost.prefill_attention=1",
    ]
    assert warned({}, *fitted, "cost.measured_on=h200_sxm") == []
    assert len(warned({}, *fitted, "cost.measured_on=h100_sxm")) == 1


def test_steps_of_the_user_have_none() -> None:
    assert (
        warned({}, "cost=affine", "cost.fixed_us=100", "cost.per_token_us=1", "cost.per_context_us=1") == []
    )
