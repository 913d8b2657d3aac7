"""Lowers the tiers of an LLM client: the sizes of blocks, the rates of tiers and link, and a note on them."""

from __future__ import annotations

from hermes_flow.pools.llm.capacity import KVCapacity
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.memory.lower import tier_spec
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import bytes_to_gb


def block_bytes(pool: LLMPool, capacity: KVCapacity) -> int:
    """Return the bytes of one block on all devices of a client."""
    return max(1, round(capacity.block_bytes * pool.devices))


def offload_spec(pool: LLMPool, capacity: KVCapacity) -> OffloadSpec | None:
    """Return the tiers of a client, or None where it has none or no prompt can be found again."""
    offload = pool.offload
    if offload is None or not offload.tiers or not pool.prefix_cache:
        return None
    tiers = {"host": offload.host, "disk": offload.disk}
    return OffloadSpec(
        tiers=tuple(tier_spec(tier, own) for tier in offload.tiers if (own := tiers[tier]) is not None),
        block_bytes=block_bytes(pool, capacity),
        link_bytes_per_ns=(pool.hardware.host_link_gb_s or 0.0) * pool.devices,
        writes_computed=offload.write == "computed",
        prefetch=offload.prefetch,
    )


def offload_notes(spec: OffloadSpec | None, block_size: int) -> list[str]:
    """Return what the compiled program says about the tiers of a pool."""
    if spec is None:
        return []
    tiers = "; ".join(
        f"{tier.name} {bytes_to_gb(tier.capacity_bytes):,g} GB = {spec.blocks_in(tier) * block_size:,} tokens at "
        f"{tier.bytes_per_ns:,g} GB/s"
        for tier in spec.tiers
    )
    written = "computed" if spec.writes_computed else "evicted"
    begins = "as a request comes" if spec.prefetch else "as its turn comes"
    return [
        f"offload: {tiers}; blocks are written as they are {written}, and loads begin {begins}, over "
        f"{spec.link_bytes_per_ns:,g} GB/s"
    ]
