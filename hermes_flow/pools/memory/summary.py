"""Summarizes where contexts were found: hits, bytes and evictions of every tier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hermes_flow.pools.memory.record import StoreUse, TierRecord
from hermes_flow.recording.recording import ClientRecord


def memory_summary(records: Sequence[ClientRecord]) -> dict[str, Any]:
    """Return ``{"lookups", "misses", "hit_share", "tiers": {tier: {…}}}`` of a pool, from the records of its clients.

    Figures are summed over the clients; ``hits`` of an expectation are fractions. ``hit_share`` is the share of all
    lookups that the tier (or any of them) answered, ``peak_bytes`` the most that one such memory held.
    """
    uses: list[StoreUse] = [client.own for client in records]
    misses = math.fsum(use.misses for use in uses)
    hits = math.fsum(tier.hits for use in uses for tier in use.tiers)
    lookups = hits + misses
    return {
        "lookups": _count(lookups),
        "misses": _count(misses),
        "hit_share": hits / lookups if lookups else None,
        "tiers": {
            tier.name: _tier([use.tiers[level] for use in uses], lookups)
            for level, tier in enumerate(uses[0].tiers)
        },
    }


def _tier(records: list[TierRecord], lookups: float) -> dict[str, Any]:
    hits = math.fsum(record.hits for record in records)
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
