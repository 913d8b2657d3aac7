"""Clusters of prefill and decode clients for tests: composed once, changed in place; random small ones under load."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from oracles.watched_run import WatchedRun

import hermes_flow as hf
from hermes_flow.config.schema import SyntheticWorkload
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.recording.recording import Recording

BATCHINGS = ["chunked", "continuous", "mixed"]


@functools.cache
def composed(*overrides: str) -> hf.Config:
    common = ["cluster=disaggregated", "pipeline=llm", "workload=synthetic", "slo=none"]
    return hf.compose([*common, *overrides])


def affine(*overrides: str) -> hf.Config:
    return composed("cost=affine", "cost.fixed_us=100", "cost.per_token_us=1", *overrides)


def with_pool(config: hf.Config, name: str, **changes: Any) -> hf.Config:
    pool = config.cluster.pools[name]
    pools = dict(config.cluster.pools) | {name: replace(pool, **changes)}
    return replace(config, cluster=replace(config.cluster, pools=pools))


def with_cluster(config: hf.Config, **changes: Any) -> hf.Config:
    return replace(config, cluster=replace(config.cluster, **changes))


def with_workload(config: hf.Config, **changes: Any) -> hf.Config:
    workload = config.workload
    assert isinstance(workload, SyntheticWorkload)
    return replace(config, workload=replace(workload, **changes))


def one_request(config: hf.Config, prompt: int = 100, output: int = 5) -> hf.Config:
    return with_workload(config, requests=1, input_tokens=prompt, output_tokens=output)


def replayed(folder: Path, requests: Sequence[tuple[float, int, int]], *overrides: str) -> hf.Config:
    """Return the affine deployment with requests of (arrival in µs, prompt, output) tokens from a trace."""
    path = folder / "requests.csv"
    rows = [f"{at_us},{prompt},{output}" for at_us, prompt, output in requests]
    path.write_text("\n".join(["arrival_us,input_tokens,output_tokens", *rows]) + "\n")
    cost = ["cost=affine", "cost.fixed_us=100", "cost.per_token_us=1"]
    common = ["cluster=disaggregated", "pipeline=llm", "workload=trace", "slo=none"]
    return hf.compose([*common, f"workload.path={path}", *cost, *overrides])


def spec_of(program: hf.Program, pool: str) -> LLMClientSpec:
    spec = next(p.client for p in program.pools if p.name == pool)
    assert isinstance(spec, LLMClientSpec)
    return spec


def llm_client(watched: WatchedRun, pool: int, index: int = 0) -> LLMClient:
    client = watched.clients[pool, index]
    assert isinstance(client, LLMClient)
    return client


def random_deployment(
    rng: random.Random,
    closed: bool,
    kv_transfer: Literal["full", "layerwise"] = "full",
    groups: int = 1,
) -> hf.Config:
    """Draw a few small clients that contend for their links; steps take whole µs."""
    config = with_cluster(affine(), kv_transfer=kv_transfer, groups=groups)
    for name in ("prefill", "decode"):
        seats = rng.choice([2, 4, 8])
        config = with_pool(
            config,
            name,
            count=groups * rng.randint(1, 3),
            tensor_parallel=rng.choice([1, 2, 8]),
            routing=rng.choice(["round_robin", "least_requests", "random"]),
            max_num_seqs=seats,
            max_num_batched_tokens=seats + rng.choice([0, 20, 60]),
            block_size=rng.choice([1, 4, 16]),
            kv_blocks=None,
            lookahead=rng.choice([0, 1]),
            batching=rng.choice(BATCHINGS),
            preemption=rng.choice(["recompute", "recompute", "none"]),
        )
        pool = config.cluster.pools[name]
        assert isinstance(pool, LLMPool)
        config = with_pool(config, name, kv_blocks=-(-90 // pool.block_size) + rng.choice([0, 2, 9]))
    arrivals: Any = "poisson"
    if closed:
        arrivals = {"process": "closed_loop", "concurrency": rng.choice([2, 9, 20]), "think_time_s": 3.337e-6}
    network = replace(
        config.network,
        devices_per_node=8,
        nodes_per_rack=rng.choice([1, 4]),
        node=replace(config.network.node, efficiency=rng.choice([0.01, 0.7]), latency_us=0.013),
        datacenter=replace(config.network.datacenter, gb_s=20.0, latency_us=77.7),
    )
    return with_workload(
        replace(config, network=network),
        requests=rng.choice([1, 20, 40]),
        rate_per_s=rng.choice([2000.0, 10000.0]),
        arrivals=arrivals,
        input_tokens={"distribution": "choice", "values": [1, 15, 16, 30, 50]},
        output_tokens={"distribution": "choice", "values": [1, 2, 17, 40]},
        seed=rng.randint(0, 99),
    )


def check_invariants(watched: WatchedRun) -> None:
    """What holds in every run of two pools: nothing is lost, nothing is left behind, every byte arrives."""
    program, recording = watched.program, watched.recording
    assert (recording.status == 0).all()
    decodes = program.requests.output_tokens > 1
    for record, mask in zip(recording.ops, (np.ones_like(decodes), decodes), strict=True):
        assert ((record.client >= 0) == mask).all()
        moved = 0 if record.transfer_ns is None else record.transfer_ns[mask]
        assert (np.asarray(moved) >= 0).all()
        assert (record.ready_ns[mask] + moved <= record.start_ns[mask]).all()
        assert (record.start_ns[mask] <= record.finish_ns[mask]).all()
    for spec, client in zip((p.client for p in program.pools), (0, 1), strict=False):
        assert isinstance(spec, LLMClientSpec)
        for index in range(program.pools[client].count):
            batch = llm_client(watched, client, index).batch
            assert batch.free == batch.blocks == spec.kv_blocks
            assert not batch.running
            assert batch.backlog == 0
            assert batch.peak <= batch.blocks
            assert llm_client(watched, client, index).outstanding(recording.end_ns + 1) == 0
    assert {link.name: link.bytes for link in recording.links} == moved_by_link(recording)


def moved_by_link(recording: Recording) -> dict[str, int]:
    """Return the bytes that must have passed each link, from who prefilled and who decoded each request."""
    program, (prefill, decode) = recording.program, recording.ops
    network = program.network
    assert network is not None
    assert decode.bytes is not None
    moved: Counter[str] = Counter()
    for request in np.flatnonzero(decode.client >= 0):
        sender, receiver = f"prefill/{prefill.client[request]}", f"decode/{decode.client[request]}"
        here, there = (network.nodes[network.clients.index(client)] for client in (sender, receiver))
        racks = [network.racks[node] for node in (here, there)]
        level = "node" if here == there else "rack"
        links = [f"{sender} {level} out", f"{receiver} {level} in"]
        if racks[0] != racks[1]:
            links += [f"rack {racks[0]} datacenter up", f"rack {racks[1]} datacenter down"]
        moved.update(dict.fromkeys(links, int(decode.bytes[request])))
    return dict(moved)
