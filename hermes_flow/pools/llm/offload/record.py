"""Records what an LLM client has moved between its devices and its tiers, and sums it up for a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from hermes_flow.pools.llm.offload.batch import OffloadingBatch
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import NS_PER_S, PS_PER_NS
from hermes_flow.recording.recording import ClientRecord

if TYPE_CHECKING:
    from hermes_flow.pools.llm.adapter_use import AdapterUse


@dataclass(frozen=True, slots=True)
class OffloadTier:
    """Blocks of one tier of a client: those read, written, moved on, lost, and the most that it held at a time."""

    name: str
    read: int
    written: int
    demoted: int
    dropped: int
    peak: int
    capacity: int
    bytes_per_ns: float


@dataclass(frozen=True, slots=True)
class OffloadUse:
    """The tiers of a client, the number of its ``loads``, their time, and the part of it that they waited.

    Blocks of turns were ``pinned`` so often; those of ``expired`` ones for their time, and ``unpinned_early`` ones
    gave way to others.
    """

    tiers: tuple[OffloadTier, ...]
    block_bytes: int
    loads: int
    load_ps: int
    waited_ps: int
    pinned: int
    expired: int
    unpinned_early: int
    adapters: AdapterUse | None = None

    def joined(self, uses: Sequence[OffloadUse]) -> OffloadUse:
        """Return the sums of clients that followed each other in one place."""
        tiers = tuple(
            replace(
                own[0],
                read=sum(tier.read for tier in own),
                written=sum(tier.written for tier in own),
                demoted=sum(tier.demoted for tier in own),
                dropped=sum(tier.dropped for tier in own),
                peak=max(tier.peak for tier in own),
            )
            for own in zip(*(use.tiers for use in uses), strict=True)
        )
        adapters = [use.adapters for use in uses if use.adapters is not None]
        counts = ("loads", "load_ps", "waited_ps", "pinned", "expired", "unpinned_early")
        return replace(
            self,
            tiers=tiers,
            adapters=_added(adapters) if adapters else None,
            **{name: sum(getattr(use, name) for use in uses) for name in counts},
        )


def _added(uses: Sequence[AdapterUse]) -> AdapterUse:
    names = [field.name for field in fields(uses[0])]
    return replace(uses[0], **{name: sum(getattr(use, name) for use in uses) for name in names})


def offload_use(batch: OffloadingBatch, spec: OffloadSpec, adapters: AdapterUse | None = None) -> OffloadUse:
    """Return what a client has moved, and what it did for ``adapters``."""
    moved, links = batch.tiers, batch.links
    tiers = tuple(
        OffloadTier(
            name=tier.name,
            read=moved.read[place],
            written=moved.written[place],
            demoted=moved.demoted[place],
            dropped=moved.dropped[place],
            peak=moved.lru[place].peak,
            capacity=moved.lru[place].capacity,
            bytes_per_ns=tier.bytes_per_ns,
        )
        for place, tier in enumerate(spec.tiers)
    )
    return OffloadUse(
        tiers,
        spec.block_bytes,
        links.loads,
        links.load_ps,
        links.waited_ps,
        batch.pinned,
        batch.expired,
        batch.unpinned_early,
        adapters,
    )


def offload_summary(records: Sequence[ClientRecord], block_size: int) -> dict[str, Any]:
    """Return ``{"loads", "load_mean_s", "load_wait_mean_s", "tiers": {tier: {…}}}`` of a pool.

    Figures are summed over the clients; ``peak_fraction`` is of the fullest tier.
    """
    uses: list[OffloadUse] = [record.own for record in records]
    loads = sum(use.loads for use in uses)
    seconds = PS_PER_NS * NS_PER_S
    gaps = {
        "held_turns": sum(use.pinned for use in uses),
        "expired_turns": sum(use.expired for use in uses),
        "gave_way_turns": sum(use.unpinned_early for use in uses),
    }
    return {
        **(gaps if gaps["held_turns"] else {}),
        "loads": loads,
        "load_mean_s": sum(use.load_ps for use in uses) / loads / seconds if loads else None,
        "load_wait_mean_s": sum(use.waited_ps for use in uses) / loads / seconds if loads else None,
        "tiers": {
            tier.name: _tier([use.tiers[place] for use in uses], uses[0].block_bytes, block_size)
            for place, tier in enumerate(uses[0].tiers)
        },
    }


def _tier(tiers: Sequence[OffloadTier], block_bytes: int, block_size: int) -> dict[str, Any]:
    read = sum(tier.read for tier in tiers)
    return {
        "loaded_tokens": read * block_size,
        "read_bytes": read * block_bytes,
        "written_bytes": sum(tier.written for tier in tiers) * block_bytes,
        "demoted_blocks": sum(tier.demoted for tier in tiers),
        "dropped_blocks": sum(tier.dropped for tier in tiers),
        "peak_bytes": max(tier.peak for tier in tiers) * block_bytes,
        "peak_fraction": max(tier.peak / tier.capacity for tier in tiers),
    }


def write_warnings(pool: str, records: Sequence[ClientRecord], end_ns: int) -> list[str]:
    """Return a warning for each tier that is written faster than it can be: what it is to do piles up."""
    found = []
    for place, tier in enumerate(records[0].own.tiers if records and end_ns else ()):
        most = max(record.own.tiers[place].written * record.own.block_bytes / end_ns for record in records)
        if most > tier.bytes_per_ns:
            found.append(
                f"cluster.pools.{pool}.offload.{tier.name} is written at {most:,.1f} GB/s on average, and has "
                f"{tier.bytes_per_ns:,g} GB/s: its writes pile up, and loads wait for them longer and longer"
            )
    return found
