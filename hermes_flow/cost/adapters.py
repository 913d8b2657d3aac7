"""The size of a LoRA adapter, and the time that its matrices add to a step.

The two matrices of every target are computed by two kernels, which read the weights of every adapter of a step once:
Punica (arXiv 2310.18547, section 4, SGMV) and S-LoRA (arXiv 2311.03285). Their time is that of ordinary matrix
products of these shapes at the efficiencies of the hardware, which narrow kernels reach at best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hermes_flow.config.adapters import Adapters
from hermes_flow.config.schema import Efficiency, Hardware, Model
from hermes_flow.config.shape import BYTES, Gemm, rank_modules, whole
from hermes_flow.cost.operators import Operators
from hermes_flow.program.units import PS_PER_S

# Matrices that are fused in the model, and have an adapter each: queries, keys and values; gate and up.
_PARTS = {"qkv": 3, "gate_up": 2}


@dataclass(frozen=True, slots=True)
class AdapterTimes:
    """What adapters add to a step in ps: ``tokens_ps`` by its tokens, and ``each_ps`` for each after the first."""

    tokens_ps: list[int]
    each_ps: int


def adapter_bytes(model: Model, adapters: Adapters, tensor_parallel: int) -> float:
    """Return the bytes of one adapter on each of ``tensor_parallel`` devices.

    As in vLLM, the first matrix of a target whose outputs are cut is whole on every device, and so is the second one
    of a target whose inputs are cut.
    """
    return BYTES["bf16"] * math.fsum(
        layers * (down.parameters + up.parameters)
        for layers, down, up in _matrices(model, adapters, tensor_parallel)
    )


def adapter_times(
    model: Model,
    adapters: Adapters,
    tensor_parallel: int,
    hardware: Hardware,
    unmeasured: Efficiency,
    key: str,
    most_tokens: int,
) -> AdapterTimes:
    """Return what adapters add to a step of up to ``most_tokens`` tokens, all of which count as having one."""
    operators = Operators(hardware, unmeasured, key)
    tokens = np.arange(most_tokens + 1, dtype=np.float64)
    seconds, each = np.zeros_like(tokens), 0.0
    memory = operators.fit("gemm", operators.efficiency.gemm, "bf16").memory
    for layers, down, up in _matrices(model, adapters, tensor_parallel):
        for gemm in (down, up):
            seconds += layers * operators.gemm(gemm, tokens, "bf16", "bf16")
            each += layers * gemm.parameters * BYTES["bf16"] / (operators.bandwidth * memory)
    seconds[0] = 0.0
    return AdapterTimes(np.rint(seconds * PS_PER_S).astype(np.int64).tolist(), round(each * PS_PER_S))


def _matrices(model: Model, adapters: Adapters, tensor_parallel: int) -> list[tuple[float, Gemm, Gemm]]:
    """Return the two matrices that an adapter has for each target, with the number of layers."""
    found = []
    for module in rank_modules(model, whole(model), tensor_parallel):
        if module.name not in adapters.targets:
            continue
        for gemm in module.gemms:
            down = Gemm("lora_down", gemm.in_features, adapters.rank * _PARTS.get(gemm.name, 1))
            found.append((module.layers, down, Gemm("lora_up", adapters.rank, gemm.out_features)))
    return found
