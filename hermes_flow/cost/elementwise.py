"""The time of norms, activations and rotary embeddings, which compute little and move the values of all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.config.mixers import AttentionLayers
from hermes_flow.config.model import Model
from hermes_flow.config.shape import BYTES, Gemm, Module, PipelineRank, layer_parts, rank_modules
from hermes_flow.cost.operators import Floats
from hermes_flow.cost.small_kernels import small_kernels_us
from hermes_flow.program.units import S_PER_US

if TYPE_CHECKING:
    from hermes_flow.cost.roofline_tables import RooflineTables


def elementwise_s(tables: RooflineTables, tokens: Floats) -> Floats:
    """Return the seconds that a rank's layers take besides their operators, by the number of tokens.

    That is the engine's ``layer_us``, which was fitted to steps of few tokens, whose values stay in the caches. With
    many tokens it is the time to move their values, where the engine has a rate for it (``elementwise``).
    """
    engine = tables.engine
    rank = PipelineRank(tables.layers, tables.dense, tables.mixtures)
    few_us = 0.5 * tables.parts * (engine.layer_us or 0.0)
    few_us += small_kernels_us(engine.small_kernels, tables.model, rank)
    few = few_us * S_PER_US + 0.0 * tokens
    if engine.elementwise is None:
        return few
    moved = moved_bytes(tables.model, rank, tables.tensor_parallel)
    many: Floats = np.maximum(few, tokens * moved / (tables.operators.bandwidth * engine.elementwise))
    return many


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
