"""The small kernels of a decode step in layers that have more of them than a plain layer: what no product counts."""

from __future__ import annotations

import math

from hermes_flow.config.mixers import AttentionLayers, GatedDeltaNetLayers, KimiDeltaLayers
from hermes_flow.config.model import Model
from hermes_flow.config.schema import SmallKernels
from hermes_flow.config.shape import PipelineRank, attention_layers, share_of


def small_kernels_us(kernels: SmallKernels | None, model: Model, rank: PipelineRank) -> float:
    """Return the µs of these kernels in all layers of a rank; 0 where the engine's are not counted."""
    if kernels is None:
        return 0.0
    return kernels.us * math.fsum(kernels_of(kernels, model, rank).values())


def kernels_of(kernels: SmallKernels, model: Model, rank: PipelineRank) -> dict[str, float]:
    """Return how many kernels each feature of the model adds to the layers of a rank, by the key of its count."""
    own = attention_layers(model, rank.layers)
    attends, gated, deltas = own, own if model.output_gate else 0.0, 0.0
    for mixer in model.mixers.values():
        there = share_of(model, mixer.layers, rank.layers)
        match mixer:
            case AttentionLayers():
                attends += there
                gated += there if mixer.output_gate else 0.0
            case GatedDeltaNetLayers() | KimiDeltaLayers():
                deltas += there
            case _:
                pass
    experts = model.experts
    shared = rank.mixtures if experts is not None and experts.shared else 0.0
    return {
        "head_norms": kernels.head_norms * (attends if model.head_norms else 0.0),
        "latent_norms": kernels.latent_norms * (own if model.latent_attention is not None else 0.0),
        "output_gate": kernels.output_gate * gated,
        "delta_rule": kernels.delta_rule * deltas,
        "shared_experts": kernels.shared_experts * shared,
        "shared_gate": kernels.shared_gate * (shared if experts is not None and experts.shared_gate else 0.0),
    }
