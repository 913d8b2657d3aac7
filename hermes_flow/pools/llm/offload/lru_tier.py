"""Keeps blocks of KV in one tier of memory, and drops the least recently used first.

Blocks are kept as spans: blocks of a chain that follow each other in content and in the order of use. The last block
of a span is the least recently used one, so a prefix is dropped from its end. Blocks whose content nobody can ask
for are counted under the chain None.
"""

from __future__ import annotations

from collections.abc import Hashable

from hermes_flow.pools.llm.prefix_cache import Run


class Span:
    """Blocks ``first`` … ``last − 1`` of a chain; ``before`` was used earlier, ``after`` later."""

    __slots__ = ("after", "before", "chain", "first", "last")

    def __init__(self, chain: Hashable, first: int, last: int) -> None:
        self.chain = chain
        self.first = first
        self.last = last
        self.before: Span = self
        self.after: Span = self


class LruTier:
    """At most ``capacity`` blocks in order of use; ``blocks`` are there now, ``peak`` were there at most.

    Between ``put`` and ``shed`` it may hold more.
    """

    __slots__ = ("_ring", "_spans", "blocks", "capacity", "peak")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.blocks = 0
        self.peak = 0
        self._ring = Span(None, 0, 0)  # after it the least recently used span, before it the most recent one
        self._spans: dict[Hashable, list[Span]] = {}  # by chain, in order of blocks

    def knows(self, chain: Hashable) -> bool:
        """Return whether it holds any block of a chain."""
        return chain in self._spans

    def covers(self, chain: Hashable, at: int) -> int:
        """Return up to which block it holds all blocks of a chain from ``at`` on; ``at`` where it lacks that."""
        for span in self._spans.get(chain, ()):
            if span.first > at:
                break
            if span.last > at:
                at = span.last
        return at

    def stretch(self, chain: Hashable, first: int, last: int) -> tuple[bool, int]:
        """Return whether block ``last − 1`` of a chain is there, and from where on the same is true of all blocks.

        Blocks before ``first`` are not looked at.
        """
        for span in reversed(self._spans.get(chain, ())):
            if span.first >= last:
                continue
            if span.last < last:
                return False, max(first, span.last)
            while span.first > first:
                before = self._ends_at(chain, span.first)
                if before is None:
                    break
                span = before
            return True, max(first, span.first)
        return False, first

    def take_out(self, chain: Hashable, first: int, last: int) -> int:
        """Remove blocks ``first`` … ``last − 1`` of a chain as far as they are there; return how many were."""
        spans = self._spans.get(chain)
        if spans is None:
            return 0
        kept: list[Span] = []
        removed = 0
        for span in spans:
            if span.last <= first or span.first >= last:
                kept.append(span)
                continue
            removed += min(span.last, last) - max(span.first, first)
            if span.first < first and span.last > last:
                rest = Span(chain, last, span.last)
                _enter(rest, span)  # the end of a span is less recently used
                span.last = first
                kept += [span, rest]
            elif span.first < first:
                span.last = first
                kept.append(span)
            elif span.last > last:
                span.first = last
                kept.append(span)
            else:
                _leave(span)
        if kept:
            self._spans[chain] = kept
        else:
            del self._spans[chain]
        self.blocks -= removed
        return removed

    def put(self, chain: Hashable, first: int, last: int) -> None:
        """Add blocks that are not there as the most recently used ones, the first of them last."""
        newest = self._ring.before
        self.blocks += last - first
        if chain is None:
            if newest.chain is None and newest is not self._ring:
                newest.last += last - first
            else:
                _enter(Span(None, 0, last - first), self._ring)
            return
        if newest.chain == chain and newest is not self._ring and newest.first == last:
            newest.first = first
            return
        span = Span(chain, first, last)
        _enter(span, self._ring)
        spans = self._spans.setdefault(chain, [])
        place = len(spans)
        while place and spans[place - 1].first > first:
            place -= 1
        spans.insert(place, span)

    def shed(self) -> list[Run]:
        """Remove what is above the capacity; return it in order, each run from its last block on."""
        out: list[Run] = []
        while self.blocks > self.capacity:
            span = self._ring.after
            count = min(span.last - span.first, self.blocks - self.capacity)
            self.blocks -= count
            span.last -= count
            out.append((span.chain, span.last, span.last + count))
            if span.first == span.last:
                _leave(span)
                if span.chain is not None:
                    self._forget(span)
        self.peak = max(self.peak, self.blocks)
        return out

    def _ends_at(self, chain: Hashable, last: int) -> Span | None:
        return next((span for span in self._spans[chain] if span.last == last), None)

    def _forget(self, span: Span) -> None:
        spans = self._spans[span.chain]
        spans.remove(span)
        if not spans:
            del self._spans[span.chain]


def _enter(span: Span, behind: Span) -> None:
    """Put a span into the ring, just before the span ``behind`` it."""
    before = behind.before
    before.after = behind.before = span
    span.before, span.after = before, behind


def _leave(span: Span) -> None:
    span.before.after = span.after
    span.after.before = span.before
    span.before = span.after = span
