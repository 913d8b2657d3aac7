"""Experts of unevenly spread tokens take as long as measured kernels, also on a GPU to which nothing is fitted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.config.schema import Experts
from hermes_flow.config.shape import Gemm
from hermes_flow.cost.expert_routing import on_fullest_device
from hermes_flow.cost.operators import Operators

# AIConfigurator's tables of routed experts (Apache-2.0; SGLang 0.5.14, TensorRT-LLM 1.3.0rc20), tokens by a power law
# of 1.2, experts cut over four devices: hidden size, width, experts, tokens, µs. A token chooses 8 experts
MEASURED = [
    ("sglang", "b200_sxm", "nvfp4", 6144, 2048, 256, 8192, 780.3),
    ("sglang", "b300_sxm", "nvfp4", 6144, 2048, 256, 8192, 764.0),
    ("sglang", "b300_sxm", "nvfp4", 7168, 2048, 384, 8192, 972.1),
    ("sglang", "b300_sxm", "nvfp4", 4096, 1536, 128, 8192, 426.3),
    ("tensorrt_llm", "h200_sxm", "fp8", 4096, 1536, 128, 1024, 598.5),
    ("tensorrt_llm", "h200_sxm", "fp8", 7168, 2048, 384, 1024, 1800.1),
    ("tensorrt_llm", "h100_sxm", "fp8", 6144, 2048, 256, 8192, 5814.7),
    ("tensorrt_llm", "h100_sxm", "fp8", 7168, 2048, 384, 8192, 7223.8),
]


@pytest.mark.parametrize(("engine", "gpu", "precision", "hidden", "width", "count", "tokens", "us"), MEASURED)
def test_they_take_what_was_measured(
    engine: str, gpu: str, precision: Any, hidden: int, width: int, count: int, tokens: int, us: float
) -> None:
    pool: Any = hf.compose([f"engine={engine}", f"hardware={gpu}", "pipeline=llm"]).cluster.pools["llm"]
    figures = dataclasses.replace(pool.hardware.efficiency, kernels_of=None)
    operators, fit = Operators(pool.hardware, figures, "hardware"), pool.hardware.engine.experts[precision]
    experts = Experts(count=count, per_token=8, intermediate_size=width)
    rows, distinct = on_fullest_device(experts, np.arange(tokens + 1.0), 1)
    products = Gemm("up", hidden, 2 * width // 4), Gemm("down", width // 4, hidden)
    found = sum(
        operators.gemm(each, rows, precision, precision, distinct, fit=fit)[tokens] for each in products
    )
    assert found * 1e6 == pytest.approx(us, rel=0.08)
