"""Names the features of an LLM pool that several of its settings are not modelled with."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.pools.llm.schema import LLMPool


def used_features(pool: LLMPool) -> Iterator[str]:
    """Yield a phrase for every rank, draft, adapter and offload setting in use, and what is expected instead."""
    for name in ("pipeline_parallel", "data_parallel"):
        if getattr(pool, name) > 1:
            yield f"is not modelled with {name}={getattr(pool, name)}; expected 1"
    if pool.drafter is not None:
        yield "is not modelled with speculative decoding; expected no draft, no head"
    if pool.adapters is not None:
        yield "is not modelled with adapters; expected adapters: null"
    if pool.offload is not None and pool.offload.tiers:
        yield "is not modelled with offload; expected no tiers"
