"""Warns where an engine casts the KV of its whole memory in each layer, which is not simulated."""

from __future__ import annotations

import re

from hermes_flow.cost.model import CostModel, cost_models
from hermes_flow.pools.llm.evidence import kernels_of
from hermes_flow.pools.llm.schema import LLMPool

# Accelerators of the architecture Hopper: those of the catalog, and how names of others begin.
_HOPPER = ("h20", "h100", "h200", "h800", "gh200")


def cast_kv(name: str, pool: LLMPool, cost: CostModel) -> list[str]:
    """Return a warning for latent KV in fp8 with SGLang on Hopper.

    Its default there, FA3, has no kernel for latent KV in fp8, and casts that of the whole pool to bf16 in each layer
    of each step. Source: sgl-project/sglang, issue 35291 (DeepSeek-R1 on eight H200, 131,072 tokens of KV: 31.52 ms a
    step, 13.77 ms of them for casts, and 17.68 ms with flashmla) and pull requests 36087 (FA3) and 35322
    (flashinfer_mla), which were open in September 2026. AIConfigurator's tables of SGLang agree: its decodes read
    such KV at 0.06 to 0.08 of the bandwidth. Sparse attention has kernels of its own, which read fp8.
    """
    model = pool.model
    if pool.engine.scheduler != "sglang" or model.precision.kv_cache != "fp8":
        return []
    if model.latent_attention is None or model.sparse_attention is not None or not _is_hopper(pool):
        return []
    if not _by_roofline(cost, pool.hardware.name):
        return []
    key = f"cluster.pools.{name}.model.precision.kv_cache"
    return [
        f"{key}: fp8 with the latent attention of {model.name} is not modelled for {pool.engine.name} on "
        f"{pool.hardware.name}, so steps are too short here: SGLang's default there (FA3) casts the KV of its "
        "whole memory to bf16 in each layer of each step, and DeepSeek-R1 on eight H200 with 131,072 tokens of "
        "KV took 31.5 ms a step in place of 17.7 ms; expected bf16, or a server with --attention-backend "
        "flashmla, which does not cast"
    ]


def _by_roofline(cost: CostModel, hardware: str) -> bool:
    """Return whether steps have the times of the roofline; other costs were measured on a system of the user's."""
    kind = cost_models.name_of(cost)
    return kind == "roofline" or (kind == "hybrid" and getattr(cost, "measured_on", None) != hardware)


def _is_hopper(pool: LLMPool) -> bool:
    """Return whether the hardware, or that whose kernels it has, is named as Hopper's accelerators are."""
    names = (pool.hardware.name, kernels_of(pool.hardware))
    return any(each is not None and re.split(r"[^a-z0-9]", each.lower())[0] in _HOPPER for each in names)
