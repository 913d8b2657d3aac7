"""The time of norms, activations and rotary embeddings, which compute little and move the values of all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.config.mixers import AttentionLayers
from hermes_flow.config.model import Model
from hermes_flow.config.schema import EngineOverhead
from hermes_flow.config.shape import BYTES, Gemm, Module, PipelineRank, layer_parts, rank_modules
from hermes_flow.cost.operators import Floats
from hermes_flow.cost.small_kernels import small_kernels_us
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import S_PER_US

if TYPE_CHECKING:
    from hermes_flow.cost.roofline_tables import RooflineTables

# The kernels of a layer in a CUDA graph. source: modules/attention.py and gated_mlp.py of TensorRT-LLM 1.2. There are
# an all-reduce with its norm, queries and keys, rotation with the writing of KV, two kernels of attention, and the
# output, then an all-reduce with its norm, two products and the activation. Latent attention (MLA) has six more:
# two norms, a second product of queries, the preparation of its kernels, and two products with weights of the heads
KERNELS = 10.0
LATENT_KERNELS = 6.0


def elementwise_s(tables: RooflineTables, tokens: Floats) -> Floats:
    """Return the seconds that a rank's layers take besides their operators, by the number of tokens.

    That is the engine's ``layer_us``, which was fitted to steps of few tokens, whose values stay in the caches. With
    many tokens it is the time to move their values, where the engine has a rate for it (``elementwise``).
    """
    engine = tables.engine
    few = few_us(tables) * S_PER_US + 0.0 * tokens
    if engine.elementwise is None:
        return few
    rank = PipelineRank(tables.layers, tables.dense, tables.mixtures)
    moved = moved_bytes(tables.model, rank, tables.tensor_parallel)
    many: Floats = np.maximum(few, tokens * moved / (tables.operators.bandwidth * engine.elementwise))
    return many


def few_us(tables: RooflineTables) -> float:
    """Return the µs that a rank's layers take besides their operators in steps of few tokens.

    ``layer_us`` was fitted to steps whose kernels wait for each other. Where they do not, the gaps are taken out. A
    layer of latent attention has more kernels, and more gaps where these wait.
    """
    engine = tables.engine
    layers, gap_us = 0.5 * tables.parts, engine.kernel_gap_us
    total = layers * ((engine.layer_us or 0.0) - (KERNELS * gap_us if engine.dependent_launches else 0.0))
    if tables.model.latent_attention is not None and not engine.dependent_launches:
        total += tables.attends * LATENT_KERNELS * gap_us
    rank = PipelineRank(tables.layers, tables.dense, tables.mixtures)
    return max(0.0, total) + small_kernels_us(engine.small_kernels, tables.model, rank)


def check_gaps(engine: EngineOverhead, key: str) -> None:
    """Raise ConfigError where launches that hide gaps, or the gaps, which ``key`` holds, would have no effect."""
    if engine.dependent_launches and not engine.kernel_gap_us:
        raise ConfigError(
            f"{key}.dependent_launches",
            "true, but kernel_gap_us is 0, so that nothing is hidden; expected false",
        )
    if engine.kernel_gap_us and engine.layer_us is None:
        raise ConfigError(f"{key}.kernel_gap_us", "has no effect where layer_us is null; expected 0")


def moved_bytes(model: Model, rank: PipelineRank, tensor_parallel: int) -> float:
    """Return the bytes that a token's elementwise kernels read and write on one device, in all layers of a rank.

    Values have two bytes. The norm before each mixer and MLP reads the hidden state and the residual, and writes both
    anew; every device does it for whole states. Queries, keys and values are read and written once more: rotated, or
    written into the KV. The activation of an MLP reads what the first matrix gave and writes what the last one takes.
    Routed experts have their activations in their own measured kernels, layers with states in their scans, and casts
    count with the products that need them.
    """
    values = 4.0 * layer_parts(model, rank) * model.hidden_size
    for module in rank_modules(model, rank, tensor_parallel):
        values += module.layers * _of_a_layer(model, module)
    return values * BYTES["bf16"]


def _of_a_layer(model: Model, module: Module) -> float:
    mixer = model.mixers.get(module.name)
    if module.name == "attention" or isinstance(mixer, AttentionLayers):
        return 2.0 * _results(module.gemms[:-1])
    if module.name in ("mlp", "shared_experts", *model.mlps) and len(module.gemms) > 1:
        return float(_results(module.gemms[:-1]) + module.gemms[-1].in_features)
    return 0.0


def _results(gemms: tuple[Gemm, ...]) -> int:
    return sum(gemm.out_features for gemm in gemms)
