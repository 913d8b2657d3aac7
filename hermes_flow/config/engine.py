"""Keys of the group engine: the defaults of a serving engine, which a pool takes where its own key is null."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Engine:
    """One serving engine. ``batching`` to ``preemption`` are its defaults for the keys of an LLM pool."""

    name: str = "vllm"
    batching: dict[str, Any] | str = "chunked"
    lookahead: Literal[0, 1] = 1
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    memory_utilization: float = 0.9
    preemption: Literal["recompute", "swap", "none"] = "recompute"


# Keys of an LLM pool that are null for the engine's own default.
ENGINE_DEFAULTS = tuple(field.name for field in fields(Engine) if field.name != "name")
