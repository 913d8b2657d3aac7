"""Tells when loads from the tiers end: each waits for those before it, on its tiers and on the link to devices."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import PS_PER_NS


class LoadLinks:
    """The tiers and the link of one client, each of which serves one load after the other, in order.

    A load reads its blocks from all its tiers at once, and all of them cross the link; it is over when the slowest
    of these is. ``loads`` took ``load_ps`` in all, of which they waited ``waited_ps`` for others; the link was busy
    for ``busy_ps``.
    """

    __slots__ = ("_link_free_ps", "_spec", "_tier_free_ps", "busy_ps", "load_ps", "loads", "waited_ps")

    def __init__(self, spec: OffloadSpec) -> None:
        self._spec = spec
        self._tier_free_ps = [0] * len(spec.tiers)
        self._link_free_ps = 0
        self.busy_ps = 0
        self.load_ps = 0
        self.loads = 0
        self.waited_ps = 0

    def load(self, now_ps: int, blocks: Sequence[int]) -> int:
        """Begin a load of so many ``blocks`` from each tier; return when it is over."""
        spec, free_ps = self._spec, self._tier_free_ps
        over_ps = alone_ps = 0
        for place, count in enumerate(blocks):
            if not count:
                continue
            tier = spec.tiers[place]
            before_ns, streamed = tier.read_parts(count * spec.block_bytes)
            takes_ps = before_ns * PS_PER_NS + round(streamed / tier.bytes_per_ns * PS_PER_NS)
            looked_up_ps = now_ps + tier.lookup_ns * PS_PER_NS
            free_ps[place] = max(looked_up_ps, free_ps[place]) + takes_ps
            over_ps = max(over_ps, free_ps[place])
            alone_ps = max(alone_ps, looked_up_ps + takes_ps - now_ps)
        crosses_ps = max(1, round(sum(blocks) * spec.block_bytes / spec.link_bytes_per_ns * PS_PER_NS))
        self._link_free_ps = max(now_ps, self._link_free_ps) + crosses_ps
        over_ps = max(over_ps, self._link_free_ps)
        self.busy_ps += crosses_ps
        self.load_ps += over_ps - now_ps
        self.waited_ps += over_ps - now_ps - max(alone_ps, crosses_ps)
        self.loads += 1
        return over_ps
