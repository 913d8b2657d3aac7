"""The block store counts, finds and evicts as the naive one does, which keeps every block as an object."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from oracles.llm_prefix_cache import Block, BlockPool, each_block

from hermes_flow.pools.llm.prefix_cache import BlockStore, Held, Run


@dataclass
class Holder:
    """One sequence in both stores: what it holds of which content."""

    content: list[Run]
    held: Held
    blocks: list[Block] = field(default_factory=list)


def contents(rng: random.Random) -> list[list[Run]]:
    """Draw paths through a tree of chains, of which each begins where the one before it ends."""
    chains: list[tuple[list[Run], int]] = [([], 0)]
    for number in range(rng.randint(1, 6)):
        before, start = rng.choice(chains)
        length = rng.randint(1, 7)
        chains.append(([*before, (number, start, start + length)], start + length))
    return [runs for runs, _ in chains[1:]]


@pytest.mark.parametrize("seed", range(150))
def test_random_holders_find_what_the_naive_store_has(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(4, 40)
    store, naive = BlockStore(count), BlockPool(count)
    known = contents(rng)
    holders: list[Holder] = []
    for step in range(60):
        if rng.random() < 0.5 or not holders:
            _admit(rng, store, naive, rng.choice(known), holders)
        elif rng.random() < 0.5:
            _go_on(rng, store, naive, rng.choice(holders))
        else:
            _leave(rng, store, naive, holders.pop(rng.randrange(len(holders))), step)
        assert store.free == len(naive.free)
        for content in known:
            assert store.hits(content, 99).blocks == len(naive.find(each_block(content)))
    while holders:
        _leave(rng, store, naive, holders.pop(), -1)
    assert store.free == count


def test_random_holders_meet_copies_of_the_same_blocks() -> None:
    copies: Counter[int] = Counter()
    for seed in range(150):
        rng = random.Random(seed)
        store, naive = BlockStore(40), BlockPool(40)
        known = contents(rng)
        holders: list[Holder] = []
        for _ in range(30):
            _admit(rng, store, naive, rng.choice(known), holders)
            _go_on(rng, store, naive, rng.choice(holders)) if holders else None
            copies[max(map(len, naive.holders.values()), default=0)] += 1
    assert sum(seen for most, seen in copies.items() if most > 1) > 500


def _admit(
    rng: random.Random, store: BlockStore, naive: BlockPool, content: list[Run], holders: list[Holder]
) -> None:
    limit = rng.randint(0, 12)
    hits, found = store.hits(content, limit), naive.find(each_block(content)[:limit])
    assert hits.blocks == len(found)
    assert store.idle(hits) == sum(block.users == 0 for block in found)
    if store.idle(hits) > store.free:
        return
    store.share(hits)
    naive.share(found)
    holder = Holder(content, hits, list(found))
    holders.append(holder)
    _go_on(rng, store, naive, holder)


def _go_on(rng: random.Random, store: BlockStore, naive: BlockPool, holder: Holder) -> None:
    """Take some more blocks, and let some of what is held be found."""
    more = rng.randint(0, min(6, store.free))
    store.take(more)
    holder.blocks += naive.take(more)
    keys = each_block(holder.content)
    full = rng.randint(0, len(holder.blocks))
    store.remember(holder.held, holder.content, full)
    for block, key in zip(holder.blocks[:full], keys, strict=False):
        if block.key is None:
            naive.remember(block, key)


def _leave(rng: random.Random, store: BlockStore, naive: BlockPool, holder: Holder, step: int) -> None:
    """Release everything; full blocks that nobody asks for have keys of their own in the naive store."""
    named = holder.held.blocks
    unnamed = rng.randint(0, len(holder.blocks) - named)
    for place, block in enumerate(holder.blocks[named : named + unnamed]):
        naive.remember(block, ("own", step, id(holder), place))
    store.release(holder.held, unnamed, len(holder.blocks) - named - unnamed)
    naive.release(holder.blocks)
