"""Attention of decodes in a step with a prompt, where the engine has one kernel for all sequences of a step.

FlashAttention 2 gives each query head of each sequence a block of its own, which works on a tile of queries. In a
step of decodes alone vLLM lays the heads that share KV side by side in a tile, and cuts long contexts over several
blocks. In a step that also has a prompt it does neither: every query head reads the KV for itself, and its tile holds
one query. FlashAttention 3, on Hopper, does both in every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.cost.operators import Floats

if TYPE_CHECKING:
    from hermes_flow.cost.roofline_tables import RooflineTables


def tiled_s(
    tables: RooflineTables, sequences: Floats, attention_s: Floats, context_s: float
) -> tuple[Floats, float]:
    """Return the seconds of decode attention beside a prompt: by sequences, and per token of their context.

    ``attention_s`` and ``context_s`` are those of a step without a prompt, which limit them from below. Latent KV and
    layers with a state have other kernels, and no such difference.
    """
    tile = tables.engine.tiled_decodes
    if tile is None or tables.model.latent_attention is not None:
        return attention_s.copy(), context_s
    pair_s = tile.rows * tables.prompt_attention.pair_s()
    each_s = tile.extra_tokens * pair_s + tile.rows * tables.prompt_attention.windows_s()
    longer: Floats = np.maximum(attention_s, sequences * each_s)
    return longer, max(context_s, pair_s)


def tile_terms(tables: RooflineTables) -> list[str]:
    """Say how decodes beside a prompt are counted, where they take longer."""
    tile = tables.engine.tiled_decodes
    if tile is None or tables.model.latent_attention is not None:
        return []
    return [f"decodes beside a prompt in tiles of {tile.rows} queries"]
