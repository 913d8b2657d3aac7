"""Fills stores with contexts before the run begins, as those of a system that has run for long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hermes_flow.pools.memory.tiered_store import Tier, TieredStore
from hermes_flow.program.kv_store import KVLookup

Context = tuple[int, int, int]  # (key, tokens, bytes), the most asked for first


def fill(stores: Sequence[TieredStore], begins_with: str, lookups: Iterable[KVLookup]) -> None:
    """Put contexts into the fastest tier with room; the most asked for counts as the one used last.

    ``most_asked``: every store holds as many as it can. ``spread``: context k is in store k modulo their number, and
    only there.
    """
    for lookup in lookups:
        if lookup.all_tokens is None or lookup.all_bytes is None:
            continue
        contexts = list(
            zip(
                range(len(lookup.all_tokens)),
                lookup.all_tokens.tolist(),
                lookup.all_bytes.tolist(),
                strict=True,
            )
        )
        for place, store in enumerate(stores):
            _fill_store(store, contexts if begins_with == "most_asked" else contexts[place :: len(stores)])
    for tier in {id(tier): tier for store in stores for tier in store.tiers}.values():
        for key in reversed(list(tier.contexts)):  # so far the most asked for is first
            tier.contexts.move_to_end(key)


def _fill_store(store: TieredStore, contexts: Sequence[Context]) -> None:
    """Put contexts into a store, from its first tier on; a tier in which one has no room is full."""
    level = 0
    for key, tokens, size in contexts:
        there = [place for place, tier in enumerate(store.tiers) if key in tier.contexts]
        if there:  # in a tier that it shares with another store
            level = max(level, there[0])
            continue
        while level < len(store.tiers) and not _put(store.tiers[level], key, tokens, size):
            level += 1
        if level == len(store.tiers):
            return


def _put(tier: Tier, key: int, tokens: int, size: int) -> bool:
    if tier.used + size > tier.capacity:
        return False
    tier.contexts[key] = (tokens, size)
    tier.used += size
    tier.peak = max(tier.peak, tier.used)
    return True
