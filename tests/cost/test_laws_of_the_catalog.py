"""What no cost may break, whatever its constants are: on every accelerator of the catalog, with every engine.

Exceptions are named: where the last CUDA graph ends, the second token of a mixture (which reads other experts), GPUs
whose products have measured factors by rows, and all-reduces over PCIe.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cost.catalog import deployment, model, roofline_model

import hermes_flow as hf
from hermes_flow.config.schema import Hardware, Model
from hermes_flow.program.step_cost import StepCost

ENGINES = ("vllm", "sglang", "tensorrt_llm")
GENERATIONS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm")
OTHERS = (
    "gb200",
    "gb300",
    "l40s",
    "rtx4090",
    "rtx_a6000",
    "rtx_pro_6000",
    "mi300x",
    "mi355x",
    "tpu_v6e",
    "tpu_v7",
)
DENSE, MIXTURES = (
    ("llama3_8b", "qwen3_14b"),
    ("mixtral_8x7b", "gpt_oss_120b", "deepseek_v3", "qwen3_5_122b_a10b"),
)
BY_ROWS = ("a100_sxm", "l40s")  # a product of 182 rows is 3 % faster than one of 160 in their tables
PROMPT, SEQUENCES, CONTEXT = 4096, 256, 2000


@functools.cache
def accelerator(name: str, engine: str) -> Hardware:
    found = hf.compose([f"hardware={name}", f"engine={engine}"]).hardware
    assert found is not None
    return found


@functools.cache
def cost(name: str, engine: str, of: str, devices: int = 1, weights: str = "") -> StepCost:
    served = in_precision(model(of), weights) if weights else model(of)
    return roofline_model().lower(deployment(served, accelerator(name, engine), devices, PROMPT, SEQUENCES))


def in_precision(served: Model, weights: Any) -> Model:
    return replace(served, precision=replace(served.precision, weights=weights, activations=weights))


def prompt_ms(step: StepCost) -> float:
    return (step.tokens_ps[PROMPT] + step.prefill_launch_ps + step.prefill_ps(PROMPT, 0)) / 1e9


def decodes_ms(step: StepCost) -> float:
    return (step.decode_ps[SEQUENCES] + step.context_ps * SEQUENCES * CONTEXT) / 1e9


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GENERATIONS + OTHERS)
def test_more_work_takes_longer_and_no_step_jumps_without_a_cause(name: str, engine: str) -> None:
    eager = getattr(accelerator(name, engine).engine, "eager", None)
    for of in DENSE + MIXTURES:
        step = cost(name, engine, of)
        tokens, decodes = np.array(step.tokens_ps[1:], float), np.array(step.decode_ps[1:], float)
        assert min(tokens.min(), decodes.min(), step.context_ps) > 0
        parts = (
            *step.sequences_ps,
            *step.decode_attention_ps,
            step.prefill_launch_ps,
            step.prefill_context_ps,
        )
        assert min(parts) >= 0
        allowed = 1.05 if name in BY_ROWS else 1.0005
        for times in (tokens, decodes):
            assert (np.maximum.accumulate(times) / times).max() < allowed, of
        jumps = tokens[1:] / tokens[:-1]
        if eager is not None:  # beyond the last CUDA graph the host launches kernel by kernel
            jumps[min(eager.above_tokens, eager.above_per_sequence * SEQUENCES) - 1] = 1.0
        second = 1 if of in MIXTURES else 0
        assert jumps[second:].max() < 1.5, of
        assert (decodes[1:] / decodes[:-1])[second:].max() < 1.5, of


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("of", DENSE)
def test_a_later_generation_is_faster(of: str, engine: str) -> None:
    """H200 is H100 with other memory, and its measured products are 1 % slower."""
    for measure in (prompt_ms, decodes_ms):
        times = [measure(cost(name, engine, of)) for name in GENERATIONS]
        for earlier, later in pairwise(times):
            assert later < 1.02 * earlier, (measure.__name__, times)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*GENERATIONS, "gb200", "gb300", "mi300x", "mi355x"])
def test_two_devices_on_fast_links_are_faster_than_one_and_not_twice_as_fast(name: str, engine: str) -> None:
    for of in ("llama3_8b", "mixtral_8x7b"):
        for measure in (prompt_ms, decodes_ms):
            one, two = (measure(cost(name, engine, of, devices)) for devices in (1, 2))
            assert one / 2.2 < two < one, of


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*GENERATIONS[1:], "gb200", "gb300", "l40s", "mi300x", "mi355x"])
def test_fp8_is_not_slower_than_bf16_where_steps_are_large(name: str, engine: str) -> None:
    for measure in (prompt_ms, decodes_ms):
        bf16, fp8 = (measure(cost(name, engine, "qwen3_14b", 1, weights)) for weights in ("bf16", "fp8"))
        assert fp8 < bf16
