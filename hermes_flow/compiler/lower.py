"""Pass 5: pools to clients with capacities and step tables; requests that can never be served are set apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hermes_flow.compiler.lower_energy import with_power
from hermes_flow.config.physical_values import check_figures
from hermes_flow.config.schema import BatchedPool, Cluster, LLMPool, MemoryPool, SequentialPool
from hermes_flow.cost import CostModel, cost_models
from hermes_flow.errors import ConfigError
from hermes_flow.pools.batched.lower import lower_batched
from hermes_flow.pools.llm.lower import lower_llm
from hermes_flow.pools.memory.lower import lower_memory
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec, Pool, SequentialClientSpec
from hermes_flow.routing import RoutingPolicy, routing_policies


def parse_cost(cost: dict[str, Any], problems: list[str]) -> CostModel | None:
    """Return the cost model that ``cost`` describes, or None with its problems appended."""
    try:
        model: CostModel = cost_models.parse(cost, "cost")
    except ConfigError as error:
        problems.append(str(error))
        return None
    check_figures(model, "cost", problems)
    return model


def lower_pools(
    cluster: Cluster, model: CostModel, ops: Sequence[Op], problems: list[str]
) -> tuple[Pool, ...]:
    """Return the cluster's pools as the simulator sees them; problems are appended, their pools left out."""
    pools = []
    for index, (name, pool) in enumerate(cluster.pools.items()):
        key = f"cluster.pools.{name}.routing" if pool.routing else "cluster.routing"
        routing = routing_policies.parse(pool.routing or cluster.routing, key)
        if isinstance(pool, SequentialPool):
            pools.append(_sequential(name, pool, routing))
            continue
        if isinstance(pool, BatchedPool):
            pools.append(lower_batched(name, pool, routing, [op for op in ops if op.pool == index]))
            continue
        if isinstance(pool, MemoryPool):
            pools.append(lower_memory(name, pool, routing, cluster))
            continue
        longest = max((_longest(op) for op in ops if op.pool == index and op.prompt is not None), default=1)
        try:
            pools.append(lower_llm(name, pool, routing, model, longest))
        except ConfigError as error:
            problems.append(str(error))
    pools = [replace(pool, routing_label=routing_policies.describe(pool.routing)) for pool in pools]
    if cluster.routing_stale_ms:
        stale_ns = max(1, round(cluster.routing_stale_ms * 1e6))
        pools = [replace(pool, routing_stale_ns=stale_ns) for pool in pools]
    return with_power(pools, cluster, problems)


def unservable(ops: Sequence[Op], pools: Sequence[Pool], cluster: Cluster) -> dict[int, str]:
    """Return the requests that no client of their pool can ever hold, each with the reason."""
    rejected: dict[int, str] = {}
    for op in ops:
        pool = pools[op.pool]
        if op.prompt is None or op.output is None or not isinstance(pool.client, LLMClientSpec):
            continue
        spec = cluster.pools[pool.name]
        assert isinstance(spec, LLMPool)
        total = op.prompt + op.output
        reserved = spec.preemption == "none" or spec.batching == "static"
        place = pool.name if spec.data_parallel == 1 else f"a rank of {pool.name}"
        limits = (
            (spec.model.max_context, total, f"longer than the context of {spec.model.name}"),
            (
                pool.client.kv_blocks // spec.data_parallel * pool.client.block_size,
                total if reserved else total - 1,  # the last token is never computed
                f"larger than the KV cache of {place}",
            ),
        )
        for limit, tokens, reason in limits:
            too_long = tokens > limit
            if op.taken is not None:
                too_long &= op.taken
            for request in np.flatnonzero(too_long).tolist():
                rejected.setdefault(request, f"{reason} ({limit:,} tokens)")
    return rejected


def _longest(op: Op) -> int:
    assert op.prompt is not None
    assert op.output is not None
    return int((op.prompt + op.output).max(initial=1))


def _sequential(name: str, pool: SequentialPool, routing: RoutingPolicy) -> Pool:
    cores = pool.cores or pool.hardware.cores or 1
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=SequentialClientSpec(cores),
        usd_per_hour=pool.hardware.usd_per_hour,
        notes=(f"{cores} cores, first come first served",),
    )
