"""What holds on every node whose searches, embedders, stores and host links share bandwidth, whatever the load."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.pools.memory.schema import MemoryTier, TierBuffer

REQUESTS = 60
PIPELINES = ("rag", "kv_reuse", "rag_kv_reuse", "rag_rewrite_rerank")


@functools.cache
def composed(pipeline: str) -> Config:
    affine = ("cost=affine", "cost.fixed_us=500", "cost.per_token_us=3", "cost.per_context_us=0")
    load = ("workload=synthetic", f"workload.requests={REQUESTS}", "workload.input_tokens=200")
    return hf.compose(["cluster=hybrid", f"pipeline={pipeline}", "workload.output_tokens=20", *load, *affine])


def random_node(seed: int) -> Config:
    """Draw a node, what its pools share, and how hard it is pressed."""
    rng = random.Random(seed)
    config = composed(rng.choice(PIPELINES))
    pools: dict[str, Any] = dict(config.cluster.pools)
    clients = rng.randint(1, 4)
    pools["llm"] = replace(pools["llm"], count=clients, kv_blocks=rng.choice([None, 2000]))
    for name in ("embed", "retrieval"):
        pools[name] = replace(
            pools[name],
            count=rng.randint(1, 2),
            cores=rng.randint(1, 14),
            max_batch=rng.choice([1, 4, 32]),
            wait_ms=rng.choice([0.0, 0.0, 3.0]),
        )
    pools["embed"] = replace(pools["embed"], host=rng.choice([None, "retrieval"]))
    pools["store"] = replace(
        pools["store"],
        count=clients,
        host=rng.choice([None, "retrieval", "retrieval"]),
        host_link=rng.random() < 0.7,
        host_link_shared_by=rng.randint(1, 3),
        tiers={name: random_tier(rng) for name in ("dram", "drive")},
    )
    stages = dict(config.pipeline.stages)
    if "recall" in stages:
        stages["recall"] = {**stages["recall"], "contexts": rng.choice([2, 10, 50]), "context_tokens": 1000}
    if "search" in stages:
        stages["search"] = {**stages["search"], "vectors_per_probe": rng.choice([50, 5000, 50_000])}
    workload: Any = replace(config.workload, rate_per_s=rng.choice([5.0, 50.0, 500.0]))
    return replace(
        config,
        seed=seed,
        cluster=replace(config.cluster, pools=pools),
        pipeline=replace(config.pipeline, stages=stages),
        workload=workload,
    )


def random_tier(rng: random.Random) -> MemoryTier:
    return MemoryTier(
        capacity_gb=rng.choice([0.4, 2.0, 40.0]),
        bandwidth_gb_s=rng.choice([1.0, 20.0, 300.0]),
        lookup_us=rng.choice([0, 50]),
        buffer=rng.choice([None, None, TierBuffer(16.0, 40.0, read_ahead=True)]),
        shared_by=rng.randint(1, 2),
        in_host=rng.random() < 0.6,
    )


@functools.cache
def ran(seed: int) -> hf.Result:
    return hf.simulate(hf.compile(random_node(seed)))


every_node = pytest.mark.parametrize("seed", range(30))


@every_node
def test_every_request_is_completed_and_no_clock_goes_back(seed: int) -> None:
    result = ran(seed)
    assert result.summary["requests"] == {"submitted": REQUESTS, "completed": REQUESTS, "failed": 0}
    recording = result.recording
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        done = record.start_ns >= 0
        assert done.sum() == (REQUESTS if op.taken is None else op.taken.sum())
        assert (record.ready_ns[done] <= record.start_ns[done]).all()
        assert (record.start_ns[done] <= record.finish_ns[done]).all()
        for before in op.after:
            earlier = recording.ops[before].finish_ns
            both = done & (earlier >= 0)
            assert (earlier[both] <= record.ready_ns[both]).all()


@every_node
def test_what_was_read_and_written_is_what_went_over_memories_and_links(seed: int) -> None:
    """But for what came out of a buffer, which takes no bandwidth."""
    result = ran(seed)
    program = result.program
    store = program.pools[[pool.name for pool in program.pools].index("store")].client
    links = result.links.filter(pl.col("level") != "rack")
    moved = {row["link"]: row["bytes"] for row in links.iter_rows(named=True)}
    reads, writes, in_host = 0, 0, 0
    for tier, spec in zip(result.summary["memory"]["store"]["tiers"].values(), store.tiers, strict=True):
        streamed = tier["read_bytes"] - spec.buffer_bytes * tier["hits"]
        reads += streamed
        writes += tier["written_bytes"]
        own = sum(size for link, size in moved.items() if link.endswith(f" {spec.name} memory"))
        assert own == streamed + tier["written_bytes"]
        in_host += own if spec.in_host and store.hosts else 0
    to_devices = sum(size for link, size in moved.items() if link.endswith("host link to devices"))
    from_devices = sum(size for link, size in moved.items() if link.endswith("host link from devices"))
    assert (to_devices, from_devices) == ((reads, writes) if store.links else (0, 0))
    passes = sum(size for link, size in moved.items() if link.startswith("retrieval/")) - in_host
    assert passes >= 0 if any(pool.client.hosts for pool in batched(program)) else passes == 0


def batched(program: hf.Program) -> Iterator[Any]:
    yield from (pool for pool in program.pools if pool.name in ("embed", "retrieval"))


@every_node
def test_nothing_goes_faster_than_its_memory_or_link(seed: int) -> None:
    recording = ran(seed).recording
    for link in recording.links:
        assert link.bytes <= link.bytes_per_ns * (link.busy_ns + link.transfers)
        assert link.busy_ns <= link.until_ns
    for row in ran(seed).links.iter_rows(named=True):
        assert 0.0 <= row["utilization"] <= row["busy_fraction"] + 1e-6 <= 1.0 + 1e-6


@every_node
def test_a_batched_client_does_one_pass_at_a_time_and_is_never_idle_beside_work(seed: int) -> None:
    result = ran(seed)
    kinds = {"embed": ("embed",), "retrieval": ("vector_search", "rerank")}
    for pool in batched(result.program):
        tasks = result.stages.filter((pl.col("pool") == pool.name) & pl.col("finish_s").is_not_null())
        assert set(tasks["kind"]) <= {*kinds[pool.name], "rerank"}
        for (client,), own in tasks.group_by("client"):
            passes: dict[tuple[float, float], int] = defaultdict(int)
            for row in own.iter_rows(named=True):
                passes[row["start_s"], row["finish_s"]] += 1
            assert max(passes.values()) <= pool.client.max_batch, client
            ordered = sorted(passes)
            assert all(end <= start for (_, end), (start, _) in pairwise(ordered))
            if pool.client.wait_ns:
                continue
            for row in own.iter_rows(named=True):
                there = row["ready_s"] + row["transfer_s"]
                busy = sum(max(0.0, min(end, row["start_s"]) - max(start, there)) for start, end in ordered)
                assert busy == pytest.approx(row["start_s"] - there, abs=1e-9)


@every_node
def test_what_went_over_the_network_is_what_stages_received(seed: int) -> None:
    result = ran(seed)
    network = result.links.filter(pl.col("level") == "rack")
    received = result.stages.filter((pl.col("bytes") > 0) & (pl.col("kind") != "kv_retrieval"))
    for way in ("out", "in"):  # all figures are known: both ends have a link
        assert (
            network.filter(pl.col("link").str.ends_with(f"rack {way}"))["bytes"].sum()
            == received["bytes"].sum()
        )
    if not len(received):
        return
    stands = dict(zip(result.program.network.clients, result.program.network.nodes, strict=True))
    for row in received.iter_rows(named=True):
        before = result.stages.filter(
            (pl.col("request") == row["request"]) & (pl.col("finish_s") <= row["ready_s"] + 1e-12)
        )
        assert any(stands[client] != stands[row["client"]] for client in before["client"])


def test_equal_nodes_give_equal_tables() -> None:
    for seed in range(3):
        first, again = ran(seed), hf.simulate(hf.compile(random_node(seed)))
        for name in ("requests", "stages", "clients", "links"):
            assert_frame_equal(getattr(first, name), getattr(again, name))


def test_the_nodes_are_unlike_each_other() -> None:
    links = [ran(seed).links for seed in range(30)]
    assert {level for table in links for level in table["level"]} == {"memory", "host link", "rack"}
    shared = [
        table
        for table in links
        if any(name.startswith("retrieval/") and "memory" in name for name in table["link"])
    ]
    assert 5 <= len(shared) < 30
    waiting = [max(table["delay_s"], default=0.0) for table in links]
    assert sum(delay > 0.001 for delay in waiting) >= 8
