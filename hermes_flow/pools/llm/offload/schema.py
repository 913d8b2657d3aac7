"""The keys of offloading: the tiers of memory to which an LLM client moves prefix blocks."""

from __future__ import annotations

from typing import Literal

from hermes_flow.config.quantities import PositiveSeconds, PositiveTokens
from hermes_flow.pools.memory.schema import MemoryTier
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ToolGap:
    """What becomes of the KV of a turn whose request comes back to the pool with a next turn, as agents do.

    It is about stages whose prompt begins with prompt and answer of an earlier stage of the same request.
    """

    policy: Literal["cache", "keep", "ttl", "offload", "drop"] = "cache"
    """``cache`` leaves the blocks in the prefix cache, where others may evict them; ``keep`` holds them until the
    next turn; ``ttl`` holds them for ``ttl_s``; ``offload`` moves them to the tiers at once; ``drop`` frees them.
    """
    ttl_s: PositiveSeconds | None = None
    """How long ``ttl`` holds the blocks after the end of a turn."""


@dataclass(frozen=True, slots=True)
class Offload:
    """Prefix blocks in tiers of memory below the KV cache of each client, as engines keep them.

    Full blocks go to the first tier, which moves the least recently used ones on to the next. What a prompt has
    there is loaded over the host links of the devices, and need not be computed. Every client has tiers of its own.
    """

    tiers: tuple[Literal["host", "disk"], ...] = ()
    """The tiers in use, the fastest first; empty switches offloading off."""
    write: Literal["evicted", "computed", "reused"] | None = None
    """When blocks are written: as the devices evict them (write-back), as they are computed (write-through), or with
    SGLang as they are used a second time (write-through-selective). null means computed with SGLang, which is its own
    default, and evicted with vLLM.
    """
    prefetch: bool | None = None
    """True begins a load as a request reaches the client, if blocks are free; false as its turn comes; null means
    true with vLLM. SGLang loads as a request is admitted.
    """
    prefetch_policy: Literal["best_effort", "wait_complete", "timeout"] | None = None
    """With SGLang, what a request does at its turn while pages come from the disk: it goes on with what has come,
    waits for all, or waits for 1 s and 0.25 s for each 1,024 tokens. null means best_effort.
    """
    prefetch_tokens: PositiveTokens | None = None
    """With SGLang, the least tokens of a prompt for which the disk is read; null means 256."""
    host: MemoryTier | None = None
    """The memory of the host that one client may use."""
    disk: MemoryTier | None = None
    """The drive that one client may use."""
