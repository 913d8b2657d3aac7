"""Contexts in tiers: what is found where, and what leaves, against lists that are searched one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lru_tiers import ListedTiers
from tries import tries

from hermes_flow.pools.memory.tiered_store import Tier, TieredStore

LARGEST = 10

lookups = st.lists(st.tuples(st.integers(0, 7), st.integers(1, LARGEST)), max_size=80)


def contents(store: TieredStore) -> list[list[tuple[int, int, int]]]:
    """Return each tier's contexts, the least recently used first."""
    return [[(key, *held) for key, held in tier.contexts.items()] for tier in store.tiers]


@settings(max_examples=tries(100, of=300))
@given(lookups, st.lists(st.integers(LARGEST, 40), min_size=1, max_size=4))
def test_hits_evictions_and_demotions_are_those_of_plain_lists(
    stream: list[tuple[int, int]], capacities: list[int]
) -> None:
    """A context grows when a longer one is kept under its key, as a conversation does."""
    store = TieredStore([Tier(capacity) for capacity in capacities])
    listed = ListedTiers(capacities)
    for key, size in stream:
        found = store.find(key)
        assert found == listed.find(key)
        kept = max(size, found[2])
        store.put(key, kept, kept)
        listed.put(key, kept, kept)
        assert contents(store) == listed.tiers
        assert [tier.used for tier in store.tiers] == [sum(held[2] for held in tier) for tier in listed.tiers]
        assert all(tier.used <= tier.capacity for tier in store.tiers)
    assert [tier.demoted for tier in store.tiers] == listed.demoted
    assert store.tiers[-1].dropped == listed.dropped


def test_a_context_found_below_moves_to_the_first_tier() -> None:
    store = TieredStore([Tier(10), Tier(10)])
    for key in (1, 2):
        store.put(key, 10, 10)
    assert contents(store) == [[(2, 10, 10)], [(1, 10, 10)]]
    assert store.find(1) == (1, 10, 10)
    store.put(1, 10, 10)
    assert contents(store) == [[(1, 10, 10)], [(2, 10, 10)]]


def test_a_tier_that_others_read_too_keeps_what_one_client_copies_up() -> None:
    shared = Tier(100, shared_by=2)
    one, other = TieredStore([Tier(10), shared]), TieredStore([Tier(10), shared])
    one.put(1, 10, 10)
    one.put(2, 10, 10)
    assert other.find(1) == (1, 10, 10)
    one.put(1, 10, 10)
    assert one.find(1)[0] == 0
    assert other.find(1) == (1, 10, 10)
    assert other.find(2) == (1, 10, 10)
