"""The block ids of a trace fall into chains that say the same about common beginnings as the ids do."""

from __future__ import annotations

import random

import numpy as np
import pytest
from oracles.llm_prefix_cache import each_block

from hermes_flow.pools.llm.trace_chains import TraceChains
from hermes_flow.program.prefixes import Prefixes


def prefixes(rows: list[list[int]], block_tokens: int) -> Prefixes:
    ids = np.array([each for row in rows for each in row], dtype=np.int64)
    return Prefixes(ids, np.cumsum([0, *map(len, rows)]), block_tokens)


def test_ids_that_only_ever_follow_each_other_are_one_chain() -> None:
    chains = TraceChains(prefixes([[1, 2, 3, 4], [1, 2, 5], [6, 7]], 32), 16)
    assert chains.runs(0, 1000) == [(1, 0, 4), (3, 0, 4)]
    assert chains.runs(1, 1000) == [(1, 0, 4), (5, 0, 2)]
    assert chains.runs(2, 1000) == [(6, 0, 4)]


def test_a_prompt_may_end_within_a_chain() -> None:
    chains = TraceChains(prefixes([[1, 2, 3], [1]], 16), 16)
    assert chains.runs(0, 47) == [(1, 0, 2)]
    assert chains.runs(1, 1000) == [(1, 0, 1)]
    assert chains.runs(0, 15) == []


@pytest.mark.parametrize(("block_tokens", "block_size"), [(16, 16), (32, 8), (8, 24)])
@pytest.mark.parametrize("seed", range(5))
def test_equal_blocks_are_those_with_equal_keys(seed: int, block_tokens: int, block_size: int) -> None:
    """Trees of ids, with a few that stand where they should not: twice in a prompt, or behind several others."""
    rng = random.Random(seed)
    tree: dict[int, list[int]] = {0: []}
    for node in range(1, 60):
        tree[node] = [*tree[rng.randrange(node)], node]
    rows = [tree[rng.randrange(60)] for _ in range(40)]
    rows += [[rng.randrange(60) for _ in range(rng.randrange(6))] for _ in range(seed)]
    given = prefixes(rows, block_tokens)
    chains = TraceChains(given, block_size)
    named: dict[object, int] = {}
    for request, row in enumerate(rows):
        prompt = rng.randint(0, (len(row) + 1) * block_tokens)
        blocks = each_block(chains.runs(request, prompt))
        for block, key in zip(blocks, given.block_keys(request, block_size, prompt), strict=True):
            assert named.setdefault(block, key) == key
    assert len(set(named.values())) == len(named)
