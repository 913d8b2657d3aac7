"""The specification of offloading: the tiers below the KV cache of an LLM client, and the link to them."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.program.kv_store import TierSpec


@dataclass(frozen=True, slots=True)
class OffloadSpec:
    """The tiers of one LLM client, the first of which takes what leaves the devices.

    A block has ``block_bytes`` on all devices together, and the links between host and devices move
    ``link_bytes_per_ns`` in one direction. ``writes_computed`` writes blocks as they are computed, otherwise they are
    written as they are evicted. With ``prefetch`` a load begins as a request comes.
    """

    tiers: tuple[TierSpec, ...]
    block_bytes: int
    link_bytes_per_ns: float
    writes_computed: bool = False
    prefetch: bool = True

    def blocks_in(self, tier: TierSpec) -> int:
        """Return how many blocks fit into a tier."""
        return tier.capacity_bytes // self.block_bytes
