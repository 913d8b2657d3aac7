"""The errors of groups of benchmark runs that the weak spots on the page of accuracy name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import silicon
from benchmarks.error_text import signed
from benchmarks.silicon_layouts import layout

_LONG, _SHORT = 8192, 1024  # tokens of a prompt
_HOPPER = ("h100_sxm", "h200_sxm")
_TTFT, _TPOT = 0, 1  # places of the errors of a run

Rows = Sequence[silicon.Found]


def figures(published: Rows) -> Mapping[str, str | int]:
    """Return the errors by their names in the text, from all runs whose method is published."""
    return {**_of_vllm(published), **_of_tensorrt_llm(published), **_of_sglang(published)}


def _of_vllm(published: Rows) -> dict[str, str]:
    mixtures = _rows(published, "vllm", "mixture")
    long = [each for each in mixtures if each.row["isl"] == _LONG]
    llama = _rows(published, "vllm", "dense", "b200_sxm")
    short = [each for each in llama if each.row["isl"] == _SHORT]
    marlin = _of_model(published, "gpt_oss_120b", "vllm", *_HOPPER)
    return {
        "small": _mean([each for each in mixtures if each.row["batch_size"] <= 8], _TPOT),
        "large": _mean([each for each in mixtures if each.row["batch_size"] > 32], _TPOT),
        "long_b200": _median_ttft([each for each in long if each.group[0] == "b200_sxm"]),
        "long_hopper": _median_ttft([each for each in long if each.group[0] in _HOPPER]),
        "prompts_vllm": _median_ttft([each for each in llama if each.row["isl"] == _LONG]),
        "short_four": _median_ttft([each for each in short if each.row["tp_size"] >= 4]),
        "short_two": _median_ttft([each for each in short if each.row["tp_size"] < 4]),
        "marlin": _mean([each for each in marlin if each.row["isl"] == _LONG], _TTFT),
        "oss_vllm": _mean(_of_model(published, "gpt_oss_120b", "vllm", "b200_sxm"), _TPOT),
        "h200_vllm": _mean(_rows(published, "vllm", "dense", "h200_sxm"), _TPOT),
    }


def _of_tensorrt_llm(published: Rows) -> dict[str, str | int]:
    on_h200 = _rows(published, "trtllm", "dense", "h200_sxm")
    waits = [
        each
        for each in on_h200
        if (each.row["isl"], each.row["osl"]) == (_SHORT, 1024) and each.row["tp_size"] < 8
    ]
    balance = [each for each in _rows(published, "trtllm", "mixture") if layout(each.row).data > 1]
    on_b200 = _rows(published, "trtllm", "dense", "b200_sxm")
    triton = _of_model(published, "gpt_oss_120b", "trtllm", *_HOPPER)
    deepseek = _of_model(published, "deepseek_v3", "trtllm", "b200_sxm")
    fp8 = [each for each in deepseek if layout(each.row).data == 1]
    long_deepgemm = [each for each in fp8 if layout(each.row).spread > 1 and each.row["isl"] == _LONG]
    on_hopper = _of_model(published, "deepseek_v3", "trtllm", "h200_sxm")
    unwarmed = [
        each
        for each in on_hopper
        if each.row["isl"] == _SHORT and silicon.measured(each.row) < silicon.WARMED_UP_SINCE
    ]
    return {
        "prompts_trt": _median_ttft([each for each in on_b200 if each.row["isl"] == _LONG]),
        "triton": _mean([each for each in triton if each.row["isl"] == _LONG], _TTFT),
        "oss_trt": _mean(_of_model(published, "gpt_oss_120b", "trtllm", "b200_sxm"), _TPOT),
        "oss_triton": _mean(_of_model(published, "gpt_oss_120b", "trtllm", "h200_sxm"), _TPOT),
        "deepgemm": _mean([each for each in fp8 if layout(each.row).spread > 1], _TPOT),
        "own_experts": _mean([each for each in fp8 if layout(each.row).spread == 1], _TPOT),
        "waits": _mean(waits, _TTFT),
        "waits_rows": len(waits),
        "rest": _mean([each for each in on_h200 if each not in waits], _TTFT),
        "balance": _median_ttft(balance),
        "balance_rows": len(balance),
        "h200_trt": _mean(on_h200, _TPOT),
        "unwarmed_rows": len(unwarmed),
        "unwarmed_ttft": _median_ttft(unwarmed),
        "unwarmed_tpot": _mean(unwarmed, _TPOT),
        "long_deepgemm_rows": len(long_deepgemm),
        "long_deepgemm_ttft": _median_ttft(long_deepgemm),
    }


def _of_sglang(published: Rows) -> dict[str, str]:
    qwen = _of_model(published, "qwen3_5_397b_a17b", "sglang", "b200_sxm", "h200_sxm")

    def deepseek(system: str) -> list[silicon.Found]:
        names = ("deepseek_v3", "deepseek_r1_nvfp4")
        return [each for name in names for each in _of_model(published, name, "sglang", system)]

    return {
        "qwen": _mean(qwen, _TPOT),
        "qwen_ttft": _median_ttft(qwen),
        "glm_b200": _mean(_of_model(published, "glm_5_fp8", "sglang", "b200_sxm"), _TPOT),
        "glm_h200": _mean(_of_model(published, "glm_5_fp8", "sglang", "h200_sxm"), _TPOT),
        "polls": _median_ttft(deepseek("b200_sxm")),
        "h200_sglang": _median_ttft(deepseek("h200_sxm")),
    }


def _rows(published: Rows, engine: str, kind: str, *systems: str) -> list[silicon.Found]:
    """Return the runs of an engine and a kind of model, on some GPUs or on all."""
    return [
        each
        for each in published
        if each.group[2:] == (engine, kind) and (not systems or each.group[0] in systems)
    ]


def _of_model(published: Rows, model: str, engine: str, *systems: str) -> list[silicon.Found]:
    mixtures = _rows(published, engine, "mixture", *systems)
    return [each for each in mixtures if silicon.model_of(each.row) == model]


def _mean(members: Rows, place: int) -> str:
    return signed(float(100 * np.mean([each.errors[place] for each in members])))


def _median_ttft(members: Rows) -> str:
    return signed(float(100 * np.median([each.errors[_TTFT] for each in members])))
