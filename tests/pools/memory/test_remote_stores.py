"""Stores that read what other stores have, and reads that share no bandwidth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from compiler.configs import problems_of
from kv_configs import SLOW, TOKEN_BYTES, config_of

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.pools.memory.schema import MemoryTier, RemoteTier
from hermes_flow.pools.memory.tiered_store import Tier, TieredStore

READ_NS = 1000 * TOKEN_BYTES // 10  # 1,000 tokens at 10 GB/s
LOOKUP_NS = 200_000  # of the tier
FAR_NS = 20_000_000 + 5_000  # to look into the other stores, and until the first byte
FAR = RemoteTier("slow", lookup_us=20_000, latency_us=5)
RECALL: dict[str, Any] = {"context_tokens": 1000, "contexts": 40}
STORES: dict[str, Any] = {"count": 4, "beside": "llm", "write_back": False, "begins_with": "spread"}
LOAD: dict[str, Any] = {
    "requests": 60,
    "rate_per_s": 2.0,
    "arrivals": "constant",
    "input_tokens": 20,
    "output_tokens": 3,
}
SHARED = {"slow": replace(SLOW, shared_by=2)}


def configured(
    store: dict[str, Any],
    tiers: dict[str, MemoryTier] = SHARED,
    routing: str = "round_robin",
    recall: dict[str, Any] = RECALL,
    **workload: Any,
) -> Config:
    """Return four clients with stores beside them, of which two share a memory."""
    llm = {"count": 4, "routing": routing}
    return config_of(recall, tiers=tiers, llm=llm, store=STORES | store, **LOAD | workload)


def run(store: dict[str, Any], **changes: Any) -> hf.Result:
    return hf.simulate(hf.compile(configured(store, **changes)))


def recalls(result: hf.Result) -> pl.DataFrame:
    return result.stages.filter(pl.col("stage") == "recall").sort("request")


def test_what_no_tier_of_its_own_has_is_read_from_the_other_stores() -> None:
    result = run({"remote": FAR})
    stores = result.summary["memory"]["store"]
    near, far = (stores["tiers"][name] for name in ("slow", "remote"))
    assert stores["misses"] == 0
    assert near["hits"] + far["hits"] == 60
    assert far["hits"] == pytest.approx(30, abs=12)  # half of the contexts are in the other memory
    assert far["read_bytes"] == far["hits"] * 1000 * TOKEN_BYTES
    took = recalls(result)["service_s"].to_list()
    assert {round(seconds * 1e9) for seconds in took} == {
        LOOKUP_NS + READ_NS,
        LOOKUP_NS + FAR_NS + READ_NS,
    }
    assert sum(seconds > 0.02 for seconds in took) == far["hits"]


def test_remote_reads_share_the_bandwidth_of_the_memory_that_they_read() -> None:
    pair = {"requests": 8, "arrivals": {"process": "closed_loop", "concurrency": 8}}
    result = run({"remote": FAR}, **pair)
    links = result.links.filter(pl.col("level") == "memory")
    assert links["bytes"].sum() == 8 * 1000 * TOKEN_BYTES
    assert links["link"].to_list() == ["store/0 slow memory", "store/2 slow memory"]
    assert links["delay_s"].sum() > 0


def test_a_context_of_another_store_comes_to_ones_own_only_with_write_back() -> None:
    stays = run({"remote": FAR}).summary["memory"]["store"]["tiers"]
    comes = run({"remote": FAR, "write_back": True}).summary["memory"]["store"]["tiers"]
    assert stays["slow"]["peak_bytes"] == 20 * 1000 * TOKEN_BYTES
    assert comes["slow"]["peak_bytes"] > stays["slow"]["peak_bytes"]
    assert comes["remote"]["hits"] < stays["remote"]["hits"]


def test_a_router_that_knows_prefers_the_store_that_is_near() -> None:
    tiers = run({"remote": FAR}, routing="context_affinity").summary["memory"]["store"]["tiers"]
    assert (tiers["slow"]["hits"], tiers["remote"]["hits"]) == (60, 0)


def test_without_contention_every_read_has_the_whole_bandwidth() -> None:
    at_once = {"requests": 40, "arrivals": {"process": "closed_loop", "concurrency": 40}}
    alone = recalls(run({"remote": FAR, "contention": False}, **at_once))
    far_ns = LOOKUP_NS + FAR_NS + READ_NS
    assert {round(seconds * 1e9) for seconds in alone["service_s"]} == {LOOKUP_NS + READ_NS, far_ns}
    shared = recalls(run({"remote": FAR}, **at_once))
    assert shared["service_s"].sum() * 1e9 > 5 * 40 * far_ns  # 20 share each memory at first


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ({"remote": RemoteTier("slwo")}, "no tier is called 'slwo'"),
        ({"remote": RemoteTier("rack")}, "all clients share one 'rack' (count 4, shared_by 4)"),
        ({"contention": False, "write_back": True}, "store.write_back: true, but without contention"),
    ],
)
def test_remote_stores_that_cannot_be_are_refused(store: dict[str, Any], problem: str) -> None:
    tiers = {"slow": SLOW, "rack": replace(SLOW, shared_by=4)}
    assert any(problem in text for text in problems_of(configured(store, tiers)))


def test_remote_stores_with_given_probabilities_are_refused() -> None:
    given = configured({"remote": FAR}, recall={"context_tokens": 1000, "hits": {"slow": 0.5}})
    expected = "store.remote: given, but pipeline.stages.recall.hits says where contexts are found"
    assert any(expected in text for text in problems_of(given))


def test_remote_tiers_come_after_all_of_its_own() -> None:
    near, far, farther = Tier(2), Tier(2), Tier(2)
    store = TieredStore([near], [far, farther])
    farther.contexts[7] = (70, 1)
    assert store.find(7) == (2, 70, 1)
    assert (store.remote_bytes(7), store.kept(7)) == (1, 0)
    far.contexts[7] = (60, 2)
    assert store.find(7) == (1, 60, 2)
    assert store.remote_bytes(8) is None
