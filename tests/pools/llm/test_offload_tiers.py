"""The tiers of an LLM client keep blocks in order of use, each in one place, and never above their capacity."""

from __future__ import annotations

import random

from oracles.llm_offload import KeyTiers
from tries import tries

from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.offload.tiers import Tiers
from hermes_flow.program.kv_store import TierSpec
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import PS_PER_NS


def spec(*blocks: int, **tier: int) -> OffloadSpec:
    pairs = zip(("host", "disk"), blocks, strict=False)
    tiers = tuple(TierSpec(name, 10 * count, bytes_per_ns=2.0, **tier) for name, count in pairs)
    return OffloadSpec(tiers, block_bytes=10, link_bytes_per_ns=5.0)


def tiers_of(*capacities: int) -> Tiers:
    return Tiers(spec(*capacities), LoadLinks(spec(*capacities)))


def test_a_run_loses_its_end_first_and_moves_on_to_the_next_tier() -> None:
    tiers = tiers_of(3, 2)
    tiers.put("a", 0, 3)
    tiers.put("b", 0, 2)
    assert tiers.find([("a", 0, 3)], 0, 3) == [(0, "a", 0, 1), (1, "a", 1, 3)]
    assert tiers.find([("b", 0, 2)], 0, 9) == [(0, "b", 0, 2)]
    tiers.put("c", 0, 1)
    assert tiers.find([("a", 0, 3)], 0, 3) == [(1, "a", 0, 2)]  # its last block is lost
    assert (tiers.written, tiers.demoted, tiers.dropped) == ([6, 3], [3, 0], [0, 1])


def test_what_is_loaded_comes_up_to_the_first_tier() -> None:
    tiers = tiers_of(2, 2)
    tiers.put("a", 0, 2)
    tiers.put("b", 0, 2)
    parts = tiers.find([("a", 0, 2)], 1, 2)
    assert parts == [(1, "a", 1, 2)]
    assert tiers.load(parts) == [0, 1]
    assert tiers.find([("a", 0, 2)], 1, 2) == [(0, "a", 1, 2)]
    assert tiers.find([("b", 0, 2)], 0, 2) == [(0, "b", 0, 1), (1, "b", 1, 2)]


def test_tiers_of_runs_equal_lists_of_single_blocks() -> None:
    rng = random.Random(3)
    for _ in range(tries(40, of=1000)):
        capacities = [rng.randint(1, 12) for _ in range(rng.randint(1, 2))]
        tiers, listed = tiers_of(*capacities), KeyTiers(capacities)
        unnamed = 0
        for _ in range(40):
            first = rng.randint(0, 6)
            last = first + rng.randint(1, 6)
            chain = rng.choice([None, "a", "b", "c"])
            if chain is None:
                tiers.put(None, first, last)
                keys: list[object] = list(range(unnamed, unnamed + last - first))
                unnamed += last - first
            else:
                tiers.put(chain, first, last)
                keys = [(chain, block) for block in range(first, last)]
            listed.put_row(keys)  # type: ignore[arg-type]
            for name in "abc":
                for block in range(12):
                    found = tiers.find([(name, 0, block + 1)], block, block + 1)
                    assert [part[0] for part in found] == [
                        place for place in [listed.place((name, block))] if place is not None
                    ]
            assert [tier.blocks for tier in tiers.lru] == [len(keys) for keys in listed.tiers]
            assert all(tier.peak <= tier.capacity for tier in tiers.lru)
        assert (tiers.written, tiers.demoted, tiers.dropped) == (
            listed.written,
            listed.demoted,
            listed.dropped,
        )


def test_loads_wait_for_each_other_on_the_tier_and_on_the_link() -> None:
    links = LoadLinks(spec(9, 9, lookup_ns=3, latency_ns=7))
    # 4 blocks of 10 bytes: 3 + 7 + 40 / 2 ns from the tier, 8 ns over the link from 110 ns on.
    assert links.load(100 * PS_PER_NS, [4, 0]) == 130 * PS_PER_NS
    # The tier is free at 130 ns; the other tier is free at once, and the link at 118 ns, and then at 120 ns.
    assert links.load(100 * PS_PER_NS, [1, 0]) == (130 + 7 + 5) * PS_PER_NS
    assert links.load(100 * PS_PER_NS, [0, 1]) == (118 + 2 + 2) * PS_PER_NS
    assert links.loads == 3
    assert links.waited_ps == (42 - 15 + 22 - 15) * PS_PER_NS


def test_bytes_cross_the_link_after_the_look_up_and_the_latency_of_their_tier() -> None:
    tier = TierSpec("host", 90, bytes_per_ns=1000.0, lookup_ns=30, latency_ns=7)
    links = LoadLinks(OffloadSpec((tier,), block_bytes=10, link_bytes_per_ns=5.0))
    # 4 blocks of 10 bytes take 8 ns over the link, and 0.04 ns from the tier.
    assert links.load(100 * PS_PER_NS, [4]) == (100 + 30 + 7 + 8) * PS_PER_NS
    assert links.waited_ps == 0
