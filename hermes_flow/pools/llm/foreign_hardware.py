"""Warns where the engine of a pool does not run on its hardware in reality."""

from __future__ import annotations

from hermes_flow.pools.llm.schema import LLMPool

_ONLY_ON = {"tensorrt_llm": ("nvidia", "TensorRT-LLM runs on accelerators of NVIDIA only")}


def foreign_hardware(name: str, pool: LLMPool) -> list[str]:
    """Return a warning if the scheduler of the pool's engine is never used on accelerators of this maker."""
    maker, fact = _ONLY_ON.get(pool.engine.scheduler, (None, ""))
    made_by = pool.hardware.maker
    if maker is None or made_by in (None, maker):
        return []
    return [
        f"cluster.pools.{name}.engine: {fact}, and {pool.hardware.name} is made by {made_by}; what is simulated "
        "is its scheduler on this hardware, which nobody can run"
    ]
