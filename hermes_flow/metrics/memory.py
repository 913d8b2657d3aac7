"""Where contexts were found: hits, bytes and evictions of every tier of the memory pools."""

from __future__ import annotations

from typing import Any

from hermes_flow.program.kv_store import MemoryClientSpec
from hermes_flow.recording.recording import Recording, TierRecord


def memory_summary(recording: Recording) -> dict[str, Any]:
    """Return ``{"memory": {pool: {"lookups", "misses", "hit_share", "tiers": {tier: {…}}}}}``; {} without such pools.

    Figures are summed over the pool's clients; ``hits`` of an expectation are fractions. ``hit_share`` is the share
    of all lookups that the tier (or any of them) answered, ``peak_bytes`` the most that one such memory held.
    """
    pools: dict[str, Any] = {}
    for index, pool in enumerate(recording.program.pools):
        if not isinstance(pool.client, MemoryClientSpec):
            continue
        own = [client for client in recording.clients if client.pool == index]
        misses = sum(client.misses for client in own)
        hits = sum(tier.hits for client in own for tier in client.tiers)
        lookups = hits + misses
        pools[pool.name] = {
            "lookups": _count(lookups),
            "misses": _count(misses),
            "hit_share": hits / lookups if lookups else None,
            "tiers": {
                tier.name: _tier([client.tiers[level] for client in own], lookups)
                for level, tier in enumerate(pool.client.tiers)
            },
        }
    return {"memory": pools} if pools else {}


def _tier(records: list[TierRecord], lookups: float) -> dict[str, Any]:
    hits = sum(record.hits for record in records)
    return {
        "hits": _count(hits),
        "hit_share": hits / lookups if lookups else None,
        "read_bytes": sum(record.read_bytes for record in records),
        "written_bytes": sum(record.written_bytes for record in records),
        "demoted": sum(record.demoted for record in records),
        "dropped": sum(record.dropped for record in records),
        "peak_bytes": max(record.peak_bytes for record in records),
    }


def _count(figure: float) -> float:
    """Return a whole number as such, so that JSON shows it as one; sums of fractions without the noise of adding."""
    figure = round(figure, 6)
    return int(figure) if figure.is_integer() else figure
