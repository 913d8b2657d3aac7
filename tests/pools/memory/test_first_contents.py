"""Stores that hold contexts when the run begins, and the router that knows which store has one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from compiler.configs import problems_of

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.memory.first_contents import fill
from hermes_flow.pools.memory.tiered_store import Tier, TieredStore
from hermes_flow.program.kv_store import KVLookup

CONTEXTS = 40
RECALL = "pipeline.stages.recall"
STORE = "cluster.pools.store"
LOAD = (
    "pipeline=kv_reuse",
    "cluster=kv_tiers",
    "workload=synthetic",
    "workload.requests=300",
    "workload.rate_per_s=30",
    "workload.input_tokens=20",
    "workload.output_tokens=3",
    f"{RECALL}.contexts={CONTEXTS}",
    f"{RECALL}.context_tokens=1000",
    "cluster.pools.llm.count=4",
    f"{STORE}.count=4",
    f"{STORE}.beside=llm",
)
ROOM_FOR_TEN = (  # a context has 0.131 GB
    f"{STORE}.tiers.dram.capacity_gb=1.4",
    f"~{STORE}.tiers.platform",
    f"~{STORE}.tiers.rack",
)


def lookup(sizes: Sequence[int]) -> KVLookup:
    none = np.zeros(0, dtype=np.int64)
    return KVLookup(none, none, all_tokens=np.array(sizes) * 10, all_bytes=np.array(sizes))


def held(store: TieredStore) -> list[list[int]]:
    """Return the contexts of each tier, the one used last first."""
    return [list(reversed(tier.contexts)) for tier in store.tiers]


def test_each_store_holds_the_most_asked_for_in_its_fastest_tiers() -> None:
    rack = Tier(capacity=5, shared_by=2)
    stores = [TieredStore([Tier(3), rack]) for _ in range(2)]
    fill(stores, "most_asked", [lookup([1, 1, 2, 2, 1, 1, 1])])
    assert [held(store) for store in stores] == [[[0, 1], [2, 3, 4]]] * 2
    assert rack.used == rack.peak == 5


def test_contexts_that_are_spread_are_in_one_store_each() -> None:
    stores = [TieredStore([Tier(2), Tier(1)]) for _ in range(2)]
    fill(stores, "spread", [lookup([1] * 8)])
    assert [held(store) for store in stores] == [[[0, 2], [4]], [[1, 3], [5]]]


def result(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*LOAD, *overrides])))


def test_a_router_that_knows_the_stores_finds_every_context_that_is_somewhere() -> None:
    spread = [*ROOM_FOR_TEN, f"{STORE}.begins_with=spread", f"{RECALL}.skew=0", f"{STORE}.write_back=false"]
    blind = result(*spread, "cluster.pools.llm.routing=round_robin")
    knowing = result(*spread, "cluster.pools.llm.routing=context_affinity")
    assert knowing.summary["memory"]["store"]["misses"] == 0
    # Each store holds a fourth of the contexts.
    assert blind.summary["memory"]["store"]["hit_share"] == pytest.approx(0.25, abs=0.08)
    assert knowing.summary["ttft_s"]["mean"] < blind.summary["ttft_s"]["mean"]


def test_what_the_most_asked_for_contexts_hit_is_their_share() -> None:
    begins = [
        *ROOM_FOR_TEN,
        f"{STORE}.begins_with=most_asked",
        f"{STORE}.write_back=false",
        f"{RECALL}.skew=1",
    ]
    found = result(*begins, "workload.requests=2000", "workload.rate_per_s=60")
    weights = 1 / np.arange(1, CONTEXTS + 1)
    assert found.summary["memory"]["store"]["hit_share"] == pytest.approx(
        weights[:10].sum() / weights.sum(), abs=0.03
    )
    assert found.summary["memory"]["store"]["tiers"]["dram"]["dropped"] == 0


def test_stores_without_neighbours_are_chosen_by_their_contents() -> None:
    alone = [f"{STORE}.beside=null", f"{STORE}.routing=context_affinity", f"{STORE}.begins_with=spread"]
    found = result(*alone, *ROOM_FOR_TEN, f"{RECALL}.skew=0", f"{STORE}.write_back=false")
    assert found.summary["memory"]["store"]["misses"] == 0
    text = str(hf.compile(hf.compose([*LOAD, *alone, *ROOM_FOR_TEN])))
    assert "when the run begins: all contexts, each in one store" in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster.routing=context_affinity", "cluster.pools.host.count=2"],
            "cluster.routing: context_affinity compares what stores of KV hold, but the 2 clients of",
        ),
        (
            [
                f"{RECALL}.contexts=null",
                f"{RECALL}.skew=0",
                f"{RECALL}.hits={{dram: 0.5}}",
                "cluster.pools.llm.routing=context_affinity",
            ],
            "pipeline.stages.recall.hits: what it finds is drawn, and cluster.pools.llm.routing goes by what",
        ),
        (
            [
                f"{RECALL}.contexts=null",
                f"{RECALL}.skew=0",
                f"{RECALL}.hits={{dram: 0.5}}",
                f"{STORE}.begins_with=spread",
            ],
            "cluster.pools.store.begins_with: spread, but requests share no contexts of 'recall'",
        ),
        (
            [f"{STORE}.write_back=false"],
            "cluster.pools.store.write_back: false, but 'recall' finds only what",
        ),
    ],
)
def test_what_cannot_be_known_is_refused(overrides: list[str], message: str) -> None:
    assert any(message in problem for problem in problems_of(hf.compose([*LOAD, *overrides])))


def test_what_a_store_begins_with_is_one_of_three() -> None:
    with pytest.raises(HermesFlowError, match="begins_with"):
        hf.compose([*LOAD, f"{STORE}.begins_with=full"])
