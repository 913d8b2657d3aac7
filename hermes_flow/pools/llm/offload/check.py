"""Checks that the clients of an LLM pool can offload prefix blocks, and names what is not modelled."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.pools.llm.batching import policy_name
from hermes_flow.pools.llm.capacity import KVCapacity
from hermes_flow.pools.llm.offload.lower import block_bytes
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.memory.schema import MemoryTier
from hermes_flow.program.units import bytes_to_gb, gb_to_bytes

_BATCHING = ("chunked", "continuous", "mixed")


def offloads(pool: LLMPool) -> bool:
    """Return whether the pool has tiers of memory below its KV cache."""
    return pool.offload is not None and bool(pool.offload.tiers)


def moves_blocks(pool: LLMPool) -> str | None:
    """Return the key with its value by which a pool has more to do with its blocks than a prefix cache, if it has."""
    if offloads(pool):
        assert pool.offload is not None
        return f"offload.tiers: [{', '.join(pool.offload.tiers)}]"
    return None if pool.tool_gap.policy == "cache" else f"tool_gap.policy: {pool.tool_gap.policy}"


def check_offload(pool: LLMPool, key: str, problems: list[str], capacity: KVCapacity | None) -> None:
    """Append the problems of the pool's tiers; ``capacity`` is None where it is not known."""
    _check_gap(pool, key, problems, capacity)
    if not offloads(pool):
        return
    problems.extend(f"{key}.offload: {text}" for text in _not_modelled(pool, capacity))
    assert pool.offload is not None
    tiers = pool.offload.tiers
    if pool.offload.write == "reused" and pool.engine.scheduler == "vllm":
        problems.append(
            f"{key}.offload.write: reused is a policy of engine=sglang; expected evicted or computed with "
            f"{pool.engine.name}"
        )
    for name in ("prefetch_policy", "prefetch_tokens"):
        given = getattr(pool.offload, name)
        if given is not None and (pool.engine.scheduler != "sglang" or tiers != ("host", "disk")):
            problems.append(
                f"{key}.offload.{name}: {given} is a setting of engine=sglang with tiers=[host, disk]; expected null"
            )
    if tiers not in (("host",), ("disk",), ("host", "disk")):
        problems.append(
            f"{key}.offload.tiers: {', '.join(tiers)}; expected [host], [disk] or [host, disk], the fastest first"
        )
        return
    for name in tiers:
        tier: MemoryTier | None = getattr(pool.offload, name)
        _check_tier(pool, tier, f"{key}.offload.{name}", problems, capacity)
    if pool.hardware.host_link_gb_s is None:
        problems.append(
            f"{key}.hardware.host_link_gb_s: null; {key}.offload needs the bandwidth between {pool.hardware.name} "
            "and its host"
        )


def _check_gap(pool: LLMPool, key: str, problems: list[str], capacity: KVCapacity | None) -> None:
    """Append the problems of what the pool does with KV during tool gaps."""
    gap, key = pool.tool_gap, f"{key}.tool_gap"
    if (gap.ttl_s is None) == (gap.policy == "ttl"):
        given = "null" if gap.ttl_s is None else f"{gap.ttl_s:g}"
        problems.append(
            f"{key}.ttl_s: {given} with policy={gap.policy}; expected a time with policy=ttl, else null"
        )
    if gap.policy == "cache":
        return
    if gap.policy == "offload" and not offloads(pool):
        problems.append(f"{key}.policy: offload, but there are no tiers; expected tiers in offload.tiers")
    if gap.policy == "keep" and pool.autoscale is not None:
        problems.append(
            f"{key}.policy: keep is not modelled with autoscale; expected ttl, or autoscale: null"
        )
    if not offloads(pool):
        problems.extend(f"{key}.policy: {gap.policy}: {text}" for text in _not_modelled(pool, capacity))


def _not_modelled(pool: LLMPool, capacity: KVCapacity | None) -> Iterator[str]:
    """Yield the settings with which offloading does not go together."""
    batching = policy_name(pool.batching)
    if pool.engine.scheduler == "sglang" and offloads(pool):
        yield from _not_modelled_by_sglang(pool, capacity)
    elif pool.engine.scheduler != "vllm":
        also = " or engine=sglang" if offloads(pool) else ""
        yield f"it is not modelled with the scheduler of {pool.engine.name}; expected engine=vllm{also}"
    elif batching not in _BATCHING:
        yield f"it is not modelled with batching={batching}; expected {', '.join(_BATCHING)}"
    if pool.prefix_cache is False:
        yield "it moves blocks of the prefix cache, and prefix_cache is false; expected true or null"
    for name in ("pipeline_parallel", "data_parallel"):
        if getattr(pool, name) > 1:
            yield f"it is not modelled with {name}={getattr(pool, name)}; expected 1"
    if pool.adapters is not None and not offloads(pool):
        yield "it is not modelled with adapters; expected adapters: null"
    elif pool.adapters is not None and pool.tool_gap.policy != "cache":
        yield f"tool_gap.policy={pool.tool_gap.policy} is not modelled with adapters; expected cache"
    elif pool.adapters is not None and pool.offload is not None and pool.offload.prefetch:
        yield "prefetch: true is not modelled with adapters; expected null or false"
    if pool.preemption != "recompute":
        yield f"it is not modelled with preemption={pool.preemption}; expected recompute"
    if capacity is not None and (capacity.window_bytes or capacity.sequence_blocks or capacity.state_slots):
        yield f"it is not modelled for the sliding windows or states of {pool.model.name}"


def _not_modelled_by_sglang(pool: LLMPool, capacity: KVCapacity | None) -> Iterator[str]:
    """Yield what SGLang's hierarchical cache does not have, or what of it is not modelled."""
    assert pool.offload is not None
    tiers = pool.offload.tiers
    if tiers not in (("host",), ("host", "disk")):
        yield f"tiers of {pool.engine.name} are {', '.join(tiers)}; [host] and [host, disk] are modelled with it"
    if tiers == ("host", "disk") and capacity is not None and pool.offload.host is not None:
        most = capacity.blocks * block_bytes(pool, capacity)
        if gb_to_bytes(pool.offload.host.capacity_gb) <= most:
            yield (
                f"host.capacity_gb: {pool.offload.host.capacity_gb:g} is not above the {bytes_to_gb(most):.3g} GB "
                f"for KV on the devices, and {pool.engine.name} would never read from the disk; expected more"
            )
    if pool.offload.prefetch is not None:
        yield (
            f"prefetch: {pool.offload.prefetch} is a setting of engine=vllm; {pool.engine.name} loads from the host "
            "as it admits a request; expected null"
        )
    if pool.tool_gap.policy != "cache":
        yield f"tool_gap.policy={pool.tool_gap.policy} is not modelled with {pool.engine.name}; expected cache"
    if pool.failures is not None and pool.failures.tiers_survive:
        yield (
            f"tiers that survive a failure are not modelled with {pool.engine.name}; expected "
            "failures.tiers_survive: []"
        )


def _check_tier(
    pool: LLMPool, tier: MemoryTier | None, key: str, problems: list[str], capacity: KVCapacity | None
) -> None:
    if tier is None:
        problems.append(f"{key}: null; expected a tier, for instance tier@{key}=ddr4")
        return
    if tier.shared_by > 1:
        problems.append(
            f"{key}.shared_by: {tier.shared_by}, but every client has a tier of its own; expected 1"
        )
    if tier.in_host:
        problems.append(
            f"{key}.in_host: true, but what else reads the memory of the host is not modelled here; expected false"
        )
    if capacity is None or capacity.block_bytes <= 0:
        return
    size = block_bytes(pool, capacity)
    if gb_to_bytes(tier.capacity_gb) < size:
        problems.append(
            f"{key}.capacity_gb: {tier.capacity_gb:g} is below one block of {bytes_to_gb(size):.3g} GB"
        )
