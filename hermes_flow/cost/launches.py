"""The time in which the host launches the kernels of a rank's layers in steps without CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_flow.config.schema import EagerSteps
from hermes_flow.cost.engine_overhead import (
    LaunchedLayers,
    added_share,
    launched_us,
    waiting_us,
    with_gaps_us,
)
from hermes_flow.cost.operators import Floats
from hermes_flow.program.units import S_PER_US

if TYPE_CHECKING:
    from hermes_flow.cost.roofline_tables import RooflineTables


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


def _layers(tables: RooflineTables) -> LaunchedLayers:
    mixtures = tables.mixtures
    latent = 0.0 if tables.model.latent_attention is None else tables.attends
    return LaunchedLayers(
        tables.layers - mixtures, mixtures, latent, sum(each.layers for each in tables.deltas)
    )
