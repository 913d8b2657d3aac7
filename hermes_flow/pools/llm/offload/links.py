"""Tells when loads from the tiers end: each waits for what moved before it, on its tiers and on the link."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import NEVER, PS_PER_NS
from hermes_flow.recording.links import LinkRecord


class Use:
    """What has moved over one tier or one direction of the link: times in picoseconds, until ``free_ps``."""

    __slots__ = ("blocks", "busy_ps", "free_ps", "moves", "taken_ps", "waited_ps")

    def __init__(self) -> None:
        self.free_ps = 0
        self.busy_ps = 0
        self.moves = 0
        self.blocks = 0
        self.taken_ps = 0  # with waiting, the sum over the moves
        self.waited_ps = 0

    def move(self, now_ps: int, from_ps: int, takes_ps: int, blocks: int) -> int:
        """Move blocks after what moves already, from ``from_ps`` on at the earliest; return when that is over."""
        begin_ps = max(from_ps, self.free_ps)
        self.free_ps = begin_ps + takes_ps
        self.busy_ps += takes_ps
        self.moves += 1
        self.blocks += blocks
        self.taken_ps += self.free_ps - now_ps
        self.waited_ps += begin_ps - from_ps
        return self.free_ps

    def record(self, name: str, level: str, bytes_per_ns: float, block_bytes: int) -> LinkRecord:
        """Return the totals as those of a link."""
        times = (self.busy_ps, self.taken_ps, self.waited_ps, self.free_ps)
        busy, taken, waited, until = (-(-one // PS_PER_NS) for one in times)
        return LinkRecord(
            name=name,
            level=level,
            bytes_per_ns=bytes_per_ns,
            busy_ns=busy,
            transfers=self.moves,
            bytes=self.blocks * block_bytes,
            transfer_ns=taken,
            delay_ns=waited,
            until_ns=until,
        )


class LoadLinks:
    """The tiers and the link of one client, each of which serves one move after the other, in order.

    A load reads its blocks from all its tiers at once, and all of them cross the link to the devices, from the first
    byte of a tier on, after its look-up and latency; it is over when the slowest of these is. Blocks that are written
    cross the link the other way, and occupy the tier into which they go and, where they move on, the one from which
    they come; nobody waits for them but what moves later. ``loads`` took ``load_ps`` in all, of which they waited
    ``waited_ps`` for others. ``now_ps`` is no later than the present instant.
    """

    __slots__ = (
        "_block_ps",
        "_into",
        "_out",
        "_out_ps",
        "_spec",
        "_tiers",
        "load_ps",
        "loads",
        "now_ps",
        "waited_ps",
    )

    def __init__(self, spec: OffloadSpec) -> None:
        self._spec = spec
        self._tiers = [Use() for _ in spec.tiers]
        self._into, self._out = Use(), Use()
        size = spec.block_bytes
        self._block_ps = [max(1, round(size / tier.bytes_per_ns * PS_PER_NS)) for tier in spec.tiers]
        self._out_ps = max(1, round(size / spec.link_bytes_per_ns * PS_PER_NS)) if spec.tiers else 0
        self.now_ps = 0
        self.load_ps = 0
        self.loads = 0
        self.waited_ps = 0

    def load(self, now_ps: int, blocks: Sequence[int]) -> int:
        """Begin a load of so many ``blocks`` from each tier; return when it is over."""
        spec = self._spec
        over_ps = alone_ps = 0
        first_ps = NEVER
        for place, count in enumerate(blocks):
            if not count:
                continue
            tier = spec.tiers[place]
            size = count * spec.block_bytes
            before_ns, streamed = tier.read_parts(size)
            takes_ps = before_ns * PS_PER_NS + round(streamed / tier.bytes_per_ns * PS_PER_NS)
            first_ps = min(first_ps, now_ps + tier.first_byte_ns(size) * PS_PER_NS)
            looked_up_ps = now_ps + tier.lookup_ns * PS_PER_NS
            over_ps = max(over_ps, self._tiers[place].move(now_ps, looked_up_ps, takes_ps, count))
            alone_ps = max(alone_ps, looked_up_ps + takes_ps - now_ps)
        total = sum(blocks)
        crosses_ps = max(1, round(total * spec.block_bytes / spec.link_bytes_per_ns * PS_PER_NS))
        over_ps = max(over_ps, self._into.move(now_ps, first_ps, crosses_ps, total))
        self.load_ps += over_ps - now_ps
        self.waited_ps += over_ps - now_ps - max(alone_ps, first_ps - now_ps + crosses_ps)
        self.loads += 1
        return over_ps

    def read(self, now_ps: int, blocks: Sequence[int]) -> int:
        """Read so many ``blocks`` from each tier, not over the link; return when that is over."""
        spec, over_ps = self._spec, now_ps
        for place, count in enumerate(blocks):
            if count:
                tier = spec.tiers[place]
                before_ns, streamed = tier.read_parts(count * spec.block_bytes)
                takes_ps = before_ns * PS_PER_NS + round(streamed / tier.bytes_per_ns * PS_PER_NS)
                begin_ps = now_ps + tier.lookup_ns * PS_PER_NS
                over_ps = max(over_ps, self._tiers[place].move(now_ps, begin_ps, takes_ps, count))
        return over_ps

    def write(self, blocks: int, now_ps: int, *, from_devices: bool) -> int:
        """Write blocks into the first tier, over the link if they come from the devices; return when it is over."""
        over_ps = self._tiers[0].move(now_ps, now_ps, blocks * self._block_ps[0], blocks)
        if from_devices:
            over_ps = max(over_ps, self._out.move(now_ps, now_ps, blocks * self._out_ps, blocks))
        return over_ps

    def move_on(self, place: int, blocks: int, now_ps: int) -> int:
        """Move blocks from a tier to the next one; return when that is over."""
        over_ps = now_ps
        for tier in (place, place + 1):
            moved_ps = self._tiers[tier].move(now_ps, now_ps, blocks * self._block_ps[tier], blocks)
            over_ps = max(over_ps, moved_ps)
        return over_ps

    def fetch(self, now_ps: int, blocks: int) -> int:
        """Move blocks from the second tier to the first one; return when that is over."""
        over_ps = self.read(now_ps, (0, blocks))
        return max(over_ps, self._tiers[0].move(now_ps, now_ps, blocks * self._block_ps[0], blocks))

    def records(self) -> tuple[LinkRecord, ...]:
        """Return what has moved over each tier and each direction of the link."""
        spec = self._spec
        found = [
            use.record(tier.name, tier.name, tier.bytes_per_ns, spec.block_bytes)
            for use, tier in zip(self._tiers, spec.tiers, strict=True)
        ]
        for use, name in ((self._out, "to host"), (self._into, "from host")):
            found.append(use.record(name, "host link", spec.link_bytes_per_ns, spec.block_bytes))
        return tuple(record for record in found if record.transfers)
