"""Random programs for routing: disaggregated ones among them, in groups, layer by layer, far apart, with sessions."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
from oracles.random_programs import Wanted, random_program

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.routing import RoutingPolicy, routing_policies

SEVERAL = Wanted(clients=(2, 4), stages=(1, 1, 2), drafting=True)

# Every policy, with the settings that it has no default for.
POLICIES: dict[str, str | dict[str, Any]] = {name: name for name in routing_policies.names} | {
    "heavy_light": {"policy": "heavy_light", "threshold_tokens": 7},
    "weighted": {
        "policy": "weighted",
        "weights": {"least_requests": 1, "prefix_affinity": 2, "nearest": 0.5},
    },
}


def routed_program(rng: random.Random, moves_kv: bool) -> hf.Program:
    """Draw a program with pools of several clients; with ``moves_kv`` some KV moves between pools."""
    program = random_program(rng, SEVERAL)
    while moves_kv and not any(op.kv is not None for op in program.ops):
        program = random_program(rng, SEVERAL)
    program = _with_something_to_compare(program, rng)
    if moves_kv:
        program = _layer_by_layer(_far_apart(_in_groups(program, rng), rng), rng)
    return program


def with_routing(program: hf.Program, policy: RoutingPolicy, stale_ns: int = 0) -> hf.Program:
    """Let all LLM pools be routed by ``policy``, and all pools be scraped."""
    return replace(
        program,
        pools=tuple(
            replace(
                pool,
                routing=policy if isinstance(pool.client, LLMClientSpec) else pool.routing,
                routing_stale_ns=stale_ns,
            )
            for pool in program.pools
        ),
    )


def period_ns(program: hf.Program, rng: random.Random) -> int:
    """Draw a period of scrapes: a few to some hundred in a run, at instants of arrivals or at odd ones."""
    recording = run(program)
    span_ns = recording.end_ns - int(recording.arrival_ns.min())
    period = span_ns // rng.choice([2, 9, 50, 400]) + rng.choice([1, 2])
    return period // 500 * 500 if period > 1000 and rng.random() < 0.5 else period


def _with_something_to_compare(program: hf.Program, rng: random.Random) -> hf.Program:
    """Give requests sessions, some of them none, and prompts that begin alike."""
    requests = program.requests
    count = len(requests)
    if requests.session is None:
        several = rng.randint(1, 8)
        session = np.array([rng.randint(-1, several) for _ in range(count)], dtype=np.int64)
        requests = replace(requests, session=session)
    if requests.prefixes is None and rng.random() < 0.9:
        (size,) = {pool.client.block_size for pool in program.pools if isinstance(pool.client, LLMClientSpec)}
        families = rng.randint(1, 3)
        rows = []
        for request in range(count):
            family = 1000 * rng.randint(1, families)
            rows.append([family + block for block in range(rng.choice([0, 1, 3, 8]))] + [10**6 + request])
        ids = np.array([key for row in rows for key in row], dtype=np.int64)
        offsets = np.cumsum([0, *(len(row) for row in rows)])
        requests = replace(requests, prefixes=Prefixes(ids, offsets, size))
    pools = tuple(
        replace(pool, client=replace(pool.client, prefix_cache=True))
        if isinstance(pool.client, LLMClientSpec) and _may_cache(program, index) and rng.random() < 0.7
        else pool
        for index, pool in enumerate(program.pools)
    )
    return replace(program, requests=requests, pools=pools)


def _may_cache(program: hf.Program, pool: int) -> bool:
    spec = program.pools[pool].client
    assert isinstance(spec, LLMClientSpec)
    receives = any(op.kv is not None for op in program.ops if op.pool == pool)
    return spec.preemption == "recompute" and spec.batching != "static" and not receives


def _in_groups(program: hf.Program, rng: random.Random) -> hf.Program:
    """Cut the pools between which KV moves into two groups, where that is possible."""
    linked = {
        pool for op in program.ops if op.kv is not None for pool in (op.pool, program.ops[op.kv.source].pool)
    }
    if rng.random() < 0.5 or any(program.pools[pool].count % 2 for pool in linked):
        return program
    pools = (replace(pool, groups=2) if i in linked else pool for i, pool in enumerate(program.pools))
    return replace(program, pools=tuple(pools))


def _far_apart(program: hf.Program, rng: random.Random) -> hf.Program:
    """Spread the clients over nodes and racks."""
    network = program.network
    assert network is not None
    nodes = tuple(rng.randint(0, 5) for _ in network.nodes)
    between = replace(
        network.datacenter, bytes_per_ns=rng.choice([0.5, 50.0]), latency_ns=rng.choice([0, 900])
    )
    return replace(
        program, network=replace(network, nodes=nodes, racks=(0, 0, 1, 1, 2, 2), datacenter=between)
    )


def _layer_by_layer(program: hf.Program, rng: random.Random) -> hf.Program:
    """Let KV leave while it is computed, in some programs."""
    if rng.random() < 0.6:
        return program
    layers = rng.choice([1, 2, 7])
    early = {program.ops[op.kv.source].pool for op in program.ops if op.kv is not None}
    if any(
        op.pool in early and op.generate is not None and (op.generate.output > 1).any() for op in program.ops
    ):
        return program  # layers leave only pools that do not decode
    pools = tuple(
        replace(pool, client=replace(pool.client, kv_layers=layers))
        if index in early and isinstance(pool.client, LLMClientSpec)
        else pool
        for index, pool in enumerate(program.pools)
    )
    ops = tuple(
        op
        if op.kv is None
        else replace(op, kv=replace(op.kv, early_bytes=op.kv.bytes * (layers - 1) // layers))
        for op in program.ops
    )
    return replace(program, pools=pools, ops=ops)
