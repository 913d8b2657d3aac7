"""Keeps contexts in tiers of memory; the least recently used context moves one tier down."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class Tier:
    """One memory: contexts by key as (tokens, bytes), the least recently used first; ``capacity`` in bytes.

    ``demoted`` and ``dropped`` count what was evicted, into the next tier or for good; ``peak`` is the most it held.
    """

    __slots__ = ("capacity", "contexts", "demoted", "dropped", "peak", "shared_by", "used")

    def __init__(self, capacity: int, shared_by: int = 1) -> None:
        self.capacity = capacity
        self.shared_by = shared_by
        self.contexts: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self.used = 0
        self.peak = 0
        self.demoted = 0
        self.dropped = 0

    def take(self, key: int) -> None:
        """Remove a context, if it is here."""
        held = self.contexts.pop(key, None)
        if held is not None:
            self.used -= held[1]


class TieredStore:
    """The tiers of one client, the fastest first; other clients may share some of them.

    A context lies in one tier. Where that is shared more widely than the first one, others want it there: it stays
    when it is copied up. ``remote`` are tiers of other stores, which come after its own and are only read.
    """

    __slots__ = ("_all", "tiers")

    def __init__(self, tiers: Sequence[Tier], remote: Sequence[Tier] = ()) -> None:
        self.tiers = tuple(tiers)
        self._all = (*tiers, *remote)

    def find(self, key: int) -> tuple[int, int, int]:
        """Return the first tier that has a context, and its tokens and bytes there: (−1, 0, 0) if none has.

        It becomes the one used last in that tier. Remote tiers are counted from the number of its own ones on.
        """
        for level, tier in enumerate(self._all):
            held = tier.contexts.get(key)
            if held is not None:
                tier.contexts.move_to_end(key)
                return level, *held
        return -1, 0, 0

    def remote_bytes(self, key: int) -> int | None:
        """Return the bytes of a context in the first remote tier that has it; None if none has."""
        far = self._all[len(self.tiers) :]
        return next((tier.contexts[key][1] for tier in far if key in tier.contexts), None)

    def kept(self, key: int) -> int:
        """Return the tokens of a context that the first tier that has it holds; 0 if none has."""
        return next((tier.contexts[key][0] for tier in self.tiers if key in tier.contexts), 0)

    def kept_first(self, key: int) -> int:
        """Return the bytes of a context in the first tier."""
        return self.tiers[0].contexts.get(key, (0, 0))[1]

    def put(self, key: int, tokens: int, size: int) -> None:
        """Put a context into the first tier as the most recently used; evicted contexts move down.

        Where the first tier has more of it already, that stays.
        """
        first = self.tiers[0]
        held = first.contexts.get(key)
        if held is not None and held[0] >= tokens:
            first.contexts.move_to_end(key)
            return
        for tier in self.tiers[1:]:
            if tier.shared_by <= first.shared_by:
                tier.take(key)
        self._insert(0, key, tokens, size)

    def _insert(self, level: int, key: int, tokens: int, size: int) -> None:
        tier = self.tiers[level]
        tier.take(key)
        tier.contexts[key] = (tokens, size)
        tier.used += size
        while tier.used > tier.capacity:
            evicted, (its_tokens, its_size) = tier.contexts.popitem(last=False)
            tier.used -= its_size
            if level + 1 < len(self.tiers):
                tier.demoted += 1
                self._insert(level + 1, evicted, its_tokens, its_size)
            else:
                tier.dropped += 1
        tier.peak = max(tier.peak, tier.used)
