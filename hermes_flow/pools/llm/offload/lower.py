"""Lowers the tiers of an LLM client: the sizes of blocks, the rates of tiers and link, and a note on them."""

from __future__ import annotations

from typing import Literal

from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.capacity import KVCapacity
from hermes_flow.pools.llm.offload.schema import Offload
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.memory.lower import tier_spec
from hermes_flow.program.offload import FetchSpec, OffloadSpec
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import NEVER, PS_PER_S, bytes_to_gb, gb_to_bytes
from hermes_flow.routing import RoutingPolicy, routing_policies

FETCHED_TOKENS = 256  # source: SGLang 0.5, prefetch_threshold of HiRadixCache
FETCHED_SHARE = 0.8  # source: SGLang 0.5, prefetch_capacity_limit, of what the host has more than the devices
_GAPS = {
    "keep": "held until the next turn",
    "ttl": "held for",
    "offload": "moved to the tiers",
    "drop": "freed",
}


def write_policy(pool: LLMPool, offload: Offload) -> Literal["evicted", "computed", "reused"]:
    """Return when blocks are written; where the user leaves it open, as SGLang does, and for vLLM as they leave."""
    if offload.write is not None:
        return offload.write
    # source: SGLang 0.5, hicache_write_policy of its server arguments: write_through
    return "computed" if pool.engine.scheduler == "sglang" else "evicted"


def block_bytes(pool: LLMPool, capacity: KVCapacity) -> int:
    """Return the bytes of one block on all devices of a client."""
    return max(1, round(capacity.block_bytes * pool.devices))


def check_kept_turns(name: str, pool: LLMPool, routing: RoutingPolicy, requests: Requests) -> None:
    """Raise ConfigError where blocks that are kept until the next turn might be kept for good."""
    if pool.tool_gap.policy != "keep":
        return
    key = f"cluster.pools.{name}.tool_gap.policy"
    router = routing_policies.name_of(routing)
    if pool.count > 1 and router != "session_affinity":
        raise ConfigError(
            key,
            f"keep needs turns that come back to their client, and routing is {router}; expected session_affinity",
        )
    if requests.timeout_ns is not None:
        raise ConfigError(key, "keep is not modelled with users that give up between turns; expected ttl")


def offload_spec(pool: LLMPool, capacity: KVCapacity) -> OffloadSpec | None:
    """Return the tiers of a client and what it does in tool gaps.

    None where it has no tiers and leaves the KV of turns in the cache, or where no prompt can be found again.
    """
    offload, gap = pool.offload or Offload(), pool.tool_gap
    if not pool.prefix_cache or not (offload.tiers or gap.policy != "cache"):
        return None
    tiers = {"host": offload.host, "disk": offload.disk}
    write = write_policy(pool, offload)
    return OffloadSpec(
        tiers=tuple(tier_spec(tier, own) for tier in offload.tiers if (own := tiers[tier]) is not None),
        block_bytes=block_bytes(pool, capacity),
        link_bytes_per_ns=(pool.hardware.host_link_gb_s or 0.0) * pool.devices,
        writes_computed=write == "computed",
        prefetch=_prefetches(pool, offload),
        writes_reused=write == "reused",
        layers=pool.model.layers,
        fetch=_fetch_spec(pool, offload, capacity),
        gap=gap.policy,
        survives=tuple(
            pool.failures is not None and tier in pool.failures.tiers_survive for tier in offload.tiers
        ),
        ttl_ps=NEVER if gap.ttl_s is None else round(gap.ttl_s * PS_PER_S),
    )


def _fetch_spec(pool: LLMPool, offload: Offload, capacity: KVCapacity) -> FetchSpec | None:
    """Return how SGLang reads from the disk behind the host."""
    if pool.engine.scheduler != "sglang" or offload.tiers != ("host", "disk"):
        return None
    assert offload.host is not None
    in_host = gb_to_bytes(offload.host.capacity_gb) // block_bytes(pool, capacity)
    return FetchSpec(
        offload.prefetch_policy or "best_effort",
        FETCHED_TOKENS if offload.prefetch_tokens is None else offload.prefetch_tokens,
        int(FETCHED_SHARE * pool.block_size * (in_host - capacity.blocks)),
    )


def _prefetches(pool: LLMPool, offload: Offload) -> bool:
    """Return whether loads begin as a request comes, the default with vLLM where no adapter may lack a place."""
    if offload.prefetch is not None or not offload.tiers:
        return bool(offload.tiers and offload.prefetch)
    return pool.engine.scheduler == "vllm" and pool.adapters is None


def offload_notes(spec: OffloadSpec | None, block_size: int, *, along: bool = False) -> list[str]:
    """Return what the compiled program says about the tiers of a pool, whose loads may run ``along`` with steps."""
    if spec is None:
        return []
    notes = [] if spec.gap == "cache" else [f"KV during tool gaps: {_GAPS[spec.gap]}"]
    if spec.ttl_ps < NEVER:
        notes = [f"{notes[0]} {spec.ttl_ps / PS_PER_S:g} s"]
    if not spec.tiers:
        return notes
    tiers = "; ".join(
        f"{tier.name} {bytes_to_gb(tier.capacity_bytes):,g} GB = {spec.blocks_in(tier) * block_size:,} tokens at "
        f"{tier.bytes_per_ns:,g} GB/s"
        for tier in spec.tiers
    )
    written = "reused" if spec.writes_reused else "computed" if spec.writes_computed else "evicted"
    begins = "as a request comes" if spec.prefetch else "as its turn comes"
    begins += ", along with its first step, layer by layer" if along else ""
    fetch = spec.fetch
    read = f"; the disk is read for {fetch.least_tokens:,} tokens or more ({fetch.policy})" if fetch else ""
    return [
        *notes,
        f"offload: {tiers}; blocks are written as they are {written}, and loads begin {begins}, over "
        f"{spec.link_bytes_per_ns:,g} GB/s{read}",
    ]
