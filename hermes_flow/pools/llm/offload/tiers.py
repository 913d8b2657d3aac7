"""The tiers below the KV cache of one LLM client: what they hold, and what moves into and out of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.offload.lru_tier import LruTier
from hermes_flow.pools.llm.prefix_cache import Run
from hermes_flow.program.offload import OffloadSpec

# Blocks ``first`` … ``last − 1`` of a chain in a tier: (place of the tier, chain, first, last)
Part: TypeAlias = tuple[int, Hashable, int, int]


class Tiers:
    """The tiers of one client, each in order of use. A block is in at most one of them.

    By place of the tier, ``written`` blocks came into it, ``read`` blocks were loaded from it, ``demoted`` blocks
    moved on to the next one, and ``dropped`` blocks were lost; each of them as a count since the beginning.
    """

    __slots__ = ("_links", "demoted", "dropped", "loading", "lru", "now_ps", "read", "written")

    def __init__(self, spec: OffloadSpec, links: LoadLinks) -> None:
        """``links`` take the time of what is written; ``now_ps`` must be the instant of it."""
        self._links = links
        self.now_ps = 0
        self.loading = False  # what enters the first tier comes from another one
        self.lru = [LruTier(spec.blocks_in(tier)) for tier in spec.tiers]
        self.written = [0] * len(self.lru)
        self.read = [0] * len(self.lru)
        self.demoted = [0] * len(self.lru)
        self.dropped = [0] * len(self.lru)

    def put(self, chain: Hashable, first: int, last: int) -> None:
        """Make blocks the most recently used ones of the first tier, one after the other, the last of them first.

        What the first tier has no room for moves on. Blocks of the chain None are new, and nobody can find them.
        """
        if not self.lru:
            return
        if chain is None or not self._knows(chain):
            self._enter(chain, first, last)
            return
        while first < last:  # blocks that lie together move together
            begin = first
            for tier in self.lru:
                there, since = tier.stretch(chain, first, last)
                if there:
                    begin = since
                    tier.take_out(chain, since, last)
                    break
                begin = max(begin, since)
            self._enter(chain, begin, last, new=not there or tier is not self.lru[0])
            last = begin

    def _knows(self, chain: Hashable) -> bool:
        return any(tier.knows(chain) for tier in self.lru)

    def _enter(self, chain: Hashable, first: int, last: int, *, new: bool = True) -> None:
        """Put blocks that no tier has now into the first one, and move on what this leaves no room for.

        Blocks that are not ``new`` were there just before, and are not written.
        """
        if new:
            self.written[0] += last - first
            self._links.write(last - first, self.now_ps, from_devices=not self.loading)
        moving: list[Run] = [(chain, first, last)]
        end = len(self.lru) - 1
        for place, tier in enumerate(self.lru):
            for chain, first, last in moving:
                tier.put(chain, first, last)
            moving = tier.shed()
            if not moving:
                return
            count = sum([last - first for _, first, last in moving])
            if place < end:
                self.demoted[place] += count
                self.written[place + 1] += count
                self._links.move_on(place, count, self.now_ps)
            else:
                self.dropped[place] += count

    def find(self, runs: Sequence[Run], begin: int, limit: int) -> list[Part]:
        """Return the tiers' blocks of a content from its block ``begin`` on, up to the first that none of them has.

        At most the first ``limit`` blocks of the content are looked up.
        """
        found: list[Part] = []
        start = 0
        for chain, first, last in runs:
            stop = min(start + last - first, limit)
            at = first + max(begin - start, 0)
            end = first + stop - start
            if at < end:
                at = self._find(chain, at, end, found)
                if at < end:
                    break
            start += last - first
        return found

    def load(self, parts: Sequence[Part]) -> list[int]:
        """Count the reading of found blocks, which move to the first tier; return the blocks by tier."""
        counts = [0] * len(self.lru)
        for place, _, first, last in parts:
            counts[place] += last - first
        for place, count in enumerate(counts):
            self.read[place] += count
        self.loading = True
        for _, chain, first, last in reversed(parts):
            self.put(chain, first, last)
        self.loading = False
        return counts

    def _find(self, chain: Hashable, at: int, end: int, found: list[Part]) -> int:
        """Add the parts of a chain from ``at`` on; return up to where there are any."""
        while at < end:
            for place, tier in enumerate(self.lru):
                upto = min(tier.covers(chain, at), end)
                if upto > at:
                    found.append((place, chain, at, upto))
                    at = upto
                    break
            else:
                break
        return at
