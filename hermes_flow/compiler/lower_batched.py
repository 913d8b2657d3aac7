"""Pass 5, batched pools: what the passes of each op cost, and which clients share the memory of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from hermes_flow.compiler.parse import Graph, Stage
from hermes_flow.compiler.passes import Site, cut
from hermes_flow.compiler.program import BatchedClientSpec, HostMemory, Op, Pool
from hermes_flow.compiler.stages.kind import BatchedStage
from hermes_flow.compiler.stages.vector_search import VectorSearch
from hermes_flow.config.convert import child
from hermes_flow.config.schema import BatchedPool, Cluster
from hermes_flow.coordinator.routing import RoutingPolicy
from hermes_flow.cost import CostModel
from hermes_flow.cost.retrieval import Index
from hermes_flow.errors import ConfigError


def with_passes(
    ops: Sequence[Op], graph: Graph, cluster: Cluster, model: CostModel, problems: list[str]
) -> tuple[Op, ...]:
    """Return the ops with the cost of the passes of those on batched pools; problems are appended."""
    pools = list(cluster.pools.items())
    lowered = []
    for op in ops:
        name, pool = pools[op.pool]
        if isinstance(pool, BatchedPool) and op.tokens is not None:
            try:
                op = _with_pass(op, graph, Site(f"cluster.pools.{name}", pool, model, op.tokens))
            except ConfigError as error:
                if str(error) not in problems:
                    problems.append(str(error))
        lowered.append(op)
    return tuple(lowered)


def lower_batched(name: str, pool: BatchedPool, routing: RoutingPolicy, ops: Sequence[Op]) -> Pool:
    """Return the pool as the simulator sees it; ``ops`` are those that it serves."""
    price = pool.hardware.usd_per_hour
    waits = f", which waits up to {pool.wait_ms:g} ms for them" if pool.wait_ms else ""
    notes = [f"at most {pool.max_batch} tasks of a stage in a pass{waits}"]
    for op in ops:
        if op.cost is not None:
            notes += [note for note in op.cost.provenance if note not in notes]
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=BatchedClientSpec(
            max_batch=pool.max_batch,
            wait_ns=round(pool.wait_ms * 1e6),
            model=None if pool.model is None else pool.model.name,
            devices=pool.devices,
        ),
        usd_per_hour=None if price is None else price * max(1, pool.devices),
        notes=tuple(notes),
    )


def with_hosts(pools: Sequence[Pool], cluster: Cluster) -> tuple[tuple[Pool, ...], tuple[HostMemory, ...]]:
    """Return the pools with their clients told which memory they read, and the memories that several read.

    Client i of a pool with a ``host`` is on the machine of client i modulo the count of that pool.
    """
    memories: list[HostMemory] = []
    lowered = list(pools)
    for root, host in cluster.pools.items():
        readers = [
            index
            for index, (name, pool) in enumerate(cluster.pools.items())
            if isinstance(pool, BatchedPool) and not pool.devices and root in (name, pool.host)
        ]
        if sum(pools[index].count for index in readers) <= host.count:
            continue
        fit = host.hardware.retrieval
        rate = host.hardware.bandwidth_gb_s * (1.0 if fit is None else fit.bandwidth_fraction)
        first = len(memories)
        memories += [HostMemory(f"{root}/{machine}", rate) for machine in range(host.count)]
        for index in readers:
            client, count = pools[index].client, pools[index].count
            assert isinstance(client, BatchedClientSpec)
            places = tuple(first + number % host.count for number in range(count))
            others = " and ".join(pools[other].name for other in readers if other != index) or "each other"
            note = f"shares {rate:,.4g} GB/s of memory with {others} on the machines of {root}"
            lowered[index] = replace(
                pools[index], client=replace(client, hosts=places), notes=(*pools[index].notes, note)
            )
    return tuple(lowered), tuple(memories)


def memory_warnings(ops: Sequence[Op], graph: Graph, cluster: Cluster) -> list[str]:
    """Return a warning for each index that does not fit the memory of the hosts that search it."""
    pools = list(cluster.pools.items())
    found: dict[str, str] = {}
    for op in ops:
        name, pool = pools[op.pool]
        stage = graph.stages[op.stages[0]]
        if not isinstance(pool, BatchedPool) or not isinstance(stage.params, VectorSearch):
            continue
        size, memory = stage.params.index.memory_bytes / 1e9, pool.hardware.memory_gb
        if size > memory:
            found[stage.name] = (
                f"the index of {stage.name} takes {size:,.0f} GB, a host of {name} has {memory:,g} GB; it is "
                "searched as if it were in that memory"
            )
    return list(found.values())


def _with_pass(op: Op, graph: Graph, site: Site) -> Op:
    stage = graph.stages[op.stages[0]]
    tokens = site.tokens if op.taken is None else site.tokens[op.taken]
    site = replace(site, tokens=tokens, model=stage.options.model, searched=_searched(graph, stage))
    try:
        cost = cast(BatchedStage, stage.params).passes(site)
    except ConfigError as error:
        if error.key.startswith("cluster."):
            raise
        raise ConfigError(child(stage.key, error.key), error.problem) from None
    assert op.tokens is not None
    if cost.step is None:
        return replace(op, cost=cost, tokens=np.zeros_like(op.tokens))
    assert site.pool.model is not None
    return replace(op, cost=cost, tokens=cut(op.tokens, cost.sequences, site.pool.model))


def _searched(graph: Graph, stage: Stage) -> Index | None:
    """Return the index that was searched last before a stage."""
    found = [
        before.params.index for before in graph.before(stage.name) if isinstance(before.params, VectorSearch)
    ]
    return found[-1] if found else None
