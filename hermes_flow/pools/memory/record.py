"""Records a store after the run: the use of its tiers, and their content."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_flow.pools.memory.client import MemoryClient
from hermes_flow.program.kv_store import REMOTE, MemoryClientSpec


@dataclass(frozen=True, slots=True)
class TierRecord:
    """What one memory client has asked of a tier: ``hits`` (expected ones may be fractions) and bytes.

    ``demoted`` and ``dropped`` contexts were evicted from the tier, into the next one or for good; ``peak_bytes`` is
    the most it held. Of a tier that several clients share these three are given with the first of them.
    """

    name: str
    hits: float
    read_bytes: int
    written_bytes: int
    demoted: int = 0
    dropped: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoreUse:
    """The tiers that one store has asked, the fastest first, and the ``misses``: lookups that none could answer."""

    tiers: tuple[TierRecord, ...]
    misses: float


def tier_records(client: MemoryClient, spec: MemoryClientSpec) -> tuple[TierRecord, ...]:
    """Return what a store has asked of each tier; what a shared tier held is told with its first store."""
    records = []
    own = client.totals[: len(spec.tiers)]
    for tier, held, totals in zip(spec.tiers, client.tiers(), own, strict=True):
        record = TierRecord(tier.name, totals.hits, totals.read, totals.written)
        if client.index % tier.shared_by == 0:
            record = replace(record, demoted=held.demoted, dropped=held.dropped, peak_bytes=held.peak)
        records.append(record)
    records += [TierRecord(REMOTE, far.hits, far.read, 0) for far in client.totals[len(spec.tiers) :]]
    return tuple(records)
