"""A host and its accelerators: stores, searches and host links that share bandwidth, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from kv_configs import CHAT, TOKEN_BYTES, config_of, run

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError
from hermes_flow.metrics.result import Result
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.memory.schema import MemoryTier
from hermes_flow.program.work import Passes

# Four fifths of 307 GB/s: conf/hardware/sapphire_rapids.yaml. A store's own tier is no limit here.
MACHINE_GB_S = 0.8 * 307
DRAM = MemoryTier(capacity_gb=100, bandwidth_gb_s=MACHINE_GB_S, in_host=True)
RECALL: dict[str, Any] = {"context_tokens": 1000, "hits": {"dram": 1.0}}
PAIR: dict[str, Any] = {
    "requests": 2,
    "arrivals": {"process": "closed_loop", "concurrency": 2},
    "input_tokens": 50,
    "output_tokens": 3,
}
ALONE_NS = 1000 * TOKEN_BYTES / MACHINE_GB_S


def reading_ns(result: Result) -> list[float]:
    """Return how long each request's retrieval took."""
    rows = result.stages.filter(pl.col("stage") == "recall").sort("request")
    return [1e9 * seconds for seconds in rows["service_s"]]


def two_stores(tier: MemoryTier, **store: Any) -> Result:
    """Run two requests at once, each on a store and an LLM client of its own."""
    pools = {"llm": {"count": 2}, "store": {"count": 2, "beside": "llm", **store}}
    return run(RECALL, tiers={"dram": tier}, **pools, **PAIR)


def test_two_stores_on_one_machine_share_its_memory() -> None:
    result = two_stores(DRAM, host="host")
    assert reading_ns(result) == pytest.approx([2 * ALONE_NS] * 2, abs=1)
    machine = result.links.filter(pl.col("link") == "host/0 memory").row(0, named=True)
    assert (machine["level"], machine["transfers"], machine["bytes"]) == ("memory", 2, 2000 * TOKEN_BYTES)


def test_tiers_of_their_own_and_machines_of_their_own_are_not_shared() -> None:
    apart = replace(DRAM, in_host=False)
    assert reading_ns(two_stores(apart, host="host")) == pytest.approx([ALONE_NS] * 2, abs=1)
    assert reading_ns(two_stores(DRAM)) == pytest.approx([ALONE_NS] * 2, abs=1)


def test_what_is_loaded_takes_the_host_link_of_its_client() -> None:
    """An H100's link lets 64 GB/s through, four of them four times as much; two clients may have one in common."""
    alone = 1000 * TOKEN_BYTES / 64
    assert reading_ns(two_stores(DRAM, host_link=True)) == pytest.approx([alone] * 2, abs=1)
    shared = two_stores(DRAM, host_link=True, host_link_shared_by=2)
    assert reading_ns(shared) == pytest.approx([2 * alone] * 2, abs=1)
    link = shared.links.filter(pl.col("level") == "host link").row(0, named=True)
    assert (link["link"], link["transfers"]) == ("store/0 host link to devices", 2)
    wide = run(
        RECALL,
        tiers={"dram": DRAM},
        llm={"tensor_parallel": 2},
        store={"beside": "llm", "host_link": True},
        **{**PAIR, "requests": 1},
    )
    assert reading_ns(wide) == pytest.approx([alone / 2], abs=1)


def test_writing_back_takes_the_link_the_other_way() -> None:
    """The second request reads what the first has written, and a third context is written meanwhile: no delay."""
    result = run(
        {"context_tokens": 1000, "contexts": 1},
        tiers={"dram": DRAM},
        store={"beside": "llm", "host_link": True},
        **{**PAIR, "requests": 3, "arrivals": "constant", "rate_per_s": 1.0},
    )
    rows = {row["link"]: row for row in result.links.iter_rows(named=True)}
    assert rows["store/0 host link from devices"]["bytes"] == 1000 * TOKEN_BYTES
    assert rows["store/0 host link to devices"]["bytes"] == 2000 * TOKEN_BYTES
    assert reading_ns(result)[1:] == pytest.approx([1000 * TOKEN_BYTES / 64] * 2, abs=1)


def searching(cores: int, **store: Any) -> Config:
    """Return a config whose one request searches and loads its context at once, on one machine."""
    stages = {
        "search": {
            "kind": "vector_search", "index": "ivf_pq", "centroids": 1000, "probes": 50, "vectors_per_probe": 50_000,
            "dim": 768, "code_bytes": 96, "neighbors": 20,
        },
        "prefill": {"kind": "prefill", "after": ["recall", "search"]},
        "decode": CHAT["decode"],
    }  # fmt: skip
    tiers = {"dram": replace(DRAM, bandwidth_gb_s=1000.0)}
    one = {**PAIR, "requests": 1}
    config = config_of({**RECALL, "context_tokens": 3000}, tiers=tiers, store=store, stages=stages, **one)
    pools: dict[str, Any] = dict(config.cluster.pools)
    pools["search"] = BatchedPool("batched", ("vector_search",), pools["host"].hardware, cores=cores)
    return replace(config, cluster=replace(config.cluster, pools=pools))


def took_ns(result: Result, stage: str) -> float:
    (row,) = result.stages.filter(pl.col("stage") == stage).iter_rows(named=True)
    return 1e9 * float(row["service_s"])


def test_a_search_and_the_loading_of_kv_slow_each_other() -> None:
    """Fifty-six cores ask for more than half of the memory: each has half of it until the shorter one is done."""
    read = 3000 * TOKEN_BYTES
    apart = hf.simulate(hf.compile(searching(56)))
    (cost,) = (op.work.cost for op in apart.program.ops if isinstance(op.work, Passes))
    searched = cost.bytes[1]
    assert MACHINE_GB_S / 2 < searched / took_ns(apart, "search") < MACHINE_GB_S
    assert took_ns(apart, "recall") == pytest.approx(read / 1000, abs=1)
    together = hf.simulate(hf.compile(searching(56, host="search")))
    assert searched < read
    assert took_ns(together, "search") == pytest.approx(2 * searched / MACHINE_GB_S, rel=1e-6)
    assert took_ns(together, "recall") == pytest.approx((read + searched) / MACHINE_GB_S, rel=1e-6)


def test_a_search_that_its_cores_limit_leaves_the_rest_to_the_loading_of_kv() -> None:
    """Two cores read 36 GB/s of codes."""
    read = 3000 * TOKEN_BYTES
    alone = hf.simulate(hf.compile(searching(2)))
    together = hf.simulate(hf.compile(searching(2, host="search")))
    assert took_ns(together, "search") == pytest.approx(took_ns(alone, "search"), rel=1e-6)
    assert took_ns(together, "recall") == pytest.approx(read / (MACHINE_GB_S - 36), rel=0.01)


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ({"host": "hots"}, "cluster.pools.store.host: no pool is called 'hots'; did you mean 'host'?"),
        ({"host_link": True}, "cluster.pools.store.host_link: true, but no devices are named; expected the name of "
                              "an LLM pool in beside"),
        ({"host_link_shared_by": 0}, "cluster.pools.store.host_link_shared_by: 0 is out of range; expected "
                                     "an integer from 1 to 100,000"),
        ({"host": "llm"}, "cluster.pools.store.host: 'llm' is on h100_sxm, which is not a CPU"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(store: dict[str, Any], problem: str) -> None:
    with pytest.raises(CompileError) as caught:
        run(RECALL, tiers={"dram": DRAM}, store=store, **PAIR)
    assert caught.value.problems == (problem,)


def test_what_a_machine_has_no_room_for_is_said() -> None:
    with pytest.raises(CompileError) as caught:
        two_stores(replace(DRAM, capacity_gb=300), host="host")
    assert caught.value.problems == (
        "cluster.pools.store.tiers: those in_host would take 600 GB of a machine of 'host', and sapphire_rapids has "
        "512 GB",
    )


def test_devices_without_a_figure_for_their_link_are_named() -> None:
    config = config_of(RECALL, "hardware=tpu_v6e", "model=qwen2_5_7b", tiers={"dram": DRAM}, **PAIR)
    pools: dict[str, Any] = dict(config.cluster.pools)
    pools["store"] = replace(pools["store"], beside="llm", host_link=True)
    with pytest.raises(CompileError) as caught:
        hf.compile(replace(config, cluster=replace(config.cluster, pools=pools)))
    assert caught.value.problems == (
        "cluster.pools.llm.hardware.host_link_gb_s: null; cluster.pools.store.host_link needs it of tpu_v6e",
    )
