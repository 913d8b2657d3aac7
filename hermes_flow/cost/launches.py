"""The time in which the host launches the kernels of a rank's layers in steps without CUDA graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_flow.config.schema import EagerSteps, EngineOverhead
from hermes_flow.config.shape import routed_gemms
from hermes_flow.cost.engine_overhead import (
    LaunchedLayers,
    added_share,
    launched_us,
    waiting_us,
    with_gaps_us,
)
from hermes_flow.cost.operators import Floats
from hermes_flow.cost.precision import experts_measured_as
from hermes_flow.program.units import S_PER_US

if TYPE_CHECKING:
    from hermes_flow.cost.roofline_tables import RooflineTables

_TRITON = ("bf16", "fp8", "mxfp4")  # experts that vLLM gives its kernels in Triton, where no others are named


def launched_s(tables: RooflineTables, eager: EagerSteps, kernels_s: Floats) -> tuple[Floats, Floats]:
    """Return seconds by number of tokens with gaps and launches, and those of them in which others can run.

    Experts that have a table of their own run while the host launches. Elsewhere scans over prompts do, unless the
    launches of their layers add to the kernels.
    """
    most, layers = tables.deployment.max_sequences, _layers(tables)
    gapped = with_gaps_us(kernels_s / S_PER_US, eager, tables.layers, most)
    launched = launched_us(gapped, eager, layers, most)
    idle = waiting_us(gapped, eager, layers, most)
    if added_share(eager, layers) and not tables.experts_apart:
        idle = 0.0 * launched
    return launched * S_PER_US, idle * S_PER_US


def with_launches_of_experts(tables: RooflineTables) -> EngineOverhead:
    """Return the engine with the launches of the kernels that the rank's experts have as its ``experts_us``."""
    engine, eager = tables.engine, tables.engine.eager
    if eager is None or eager.triton_us is None or not _has_triton(tables):
        return engine
    return replace(engine, eager=replace(eager, experts_us=eager.triton_us))


def _has_triton(tables: RooflineTables) -> bool:
    """Return whether most of the routed experts have vLLM's kernels in Triton.

    source: the kernels in AIConfigurator's tables of vLLM 0.24, and vLLM's choice of them for fp8 in blocks
    (fused_moe/oracle/fp8.py): on Hopper Triton's where devices cut experts, and FlashInfer's where they are spread.
    """
    model = tables.model
    experts = model.experts
    if experts is None or not tables.mixtures:
        return False
    first = routed_gemms(model, 1)[0]
    part = max(tables.portions("experts", first, tables.mixtures), key=lambda each: each.layers)
    name = experts_measured_as(part.weights, tables.compute_of(part), experts.kernels)
    if name in (tables.engine.experts or {}) or (name == "fp8" and tables.deployment.expert_group > 1):
        return False
    return name in _TRITON


def _layers(tables: RooflineTables) -> LaunchedLayers:
    mixtures = tables.mixtures
    latent = 0.0 if tables.model.latent_attention is None else tables.attends
    return LaunchedLayers(
        tables.layers - mixtures, mixtures, latent, sum(each.layers for each in tables.deltas)
    )
