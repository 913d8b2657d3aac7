"""Phase 6: lowers pools to clients with capacities and step tables, and finds requests that cannot be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hermes_flow.compiler.check import Checked
from hermes_flow.config.schema import Cluster, Config
from hermes_flow.cost import CostModel, cost_models
from hermes_flow.errors import ConfigError
from hermes_flow.pools.device_sharing import with_shared_devices
from hermes_flow.pools.hosts import with_hosts
from hermes_flow.pools.kind import Asked, AskedWork, Lowering, at_pool, kind_of
from hermes_flow.program.network import HostMemory
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.routing import RoutingPolicy
from hermes_flow.program.units import ms_to_ns
from hermes_flow.routing import routing_policies
from hermes_flow.stages.placed import PlacedStage


def parse_costs(config: Config, problems: list[str]) -> dict[str, CostModel]:
    """Return the cost model of each pool by its name: its own, or that of the whole configuration.

    A pool whose cost model has problems, which are appended, is left out.
    """
    common = _parse_cost(config.cost, "cost", problems)
    costs = {}
    for name, pool in config.cluster.pools.items():
        own = getattr(pool, "cost", None)
        model = common if own is None else _parse_cost(own, f"cluster.pools.{name}.cost", problems)
        if model is not None:
            costs[name] = model
    return costs


def _parse_cost(cost: dict[str, Any], key: str, problems: list[str]) -> CostModel | None:
    try:
        model: CostModel = cost_models.parse(cost, key)
    except ConfigError as error:
        problems.append(str(error))
        return None
    return model


def lower_pools(
    lowering: Lowering,
    placed: Sequence[PlacedStage],
    asked: AskedWork,
    checked: Checked,
    groups: Mapping[str, int],
) -> tuple[Pool, ...]:
    """Return the cluster's pools for the simulator, divided into ``groups``; a pool with problems is left out."""
    names = list(lowering.cluster.pools)
    joins = {name: names.index(first) for first, group in checked.routers.items() for name in group[1:]}
    cluster, pools = lowering.cluster, []
    shared = {name for group in checked.routers.values() for name in group}
    for index, (name, pool) in enumerate(cluster.pools.items()):
        routing = checked.routings.of(name)
        own = [
            _asked(place, placed, asked)
            for place in asked.work
            if placed[place].pool == joins.get(name, index)
        ]
        try:
            lowered = kind_of(pool).lower(name, pool, routing, own, lowering)
        except ConfigError as error:
            lowering.problems.append(str(at_pool(error, name, pool)))
            continue
        label = routing_policies.describe(routing)
        pools.append(
            replace(
                lowered,
                routing_label=label,
                routing_stale_ns=_stale_ns(lowering, routing, one=pool.count == 1 and name not in shared),
                joins=joins.get(name),
                groups=groups.get(name, lowered.groups),
            )
        )
    return tuple(pools)


def _stale_ns(lowering: Lowering, routing: RoutingPolicy, one: bool) -> int:
    """Return the period after which the loads of a pool's clients are recorded; 0 where nothing reads them.

    A policy among sites, and a route by load, read them too. ``one`` client has no other to choose.
    """
    cluster = lowering.cluster
    unread = one or getattr(routing, "ignores_loads", False)
    if not cluster.routing_stale_ms or (unread and not cluster.sites and not lowering.graph.load_routes):
        return 0
    return max(1, ms_to_ns(cluster.routing_stale_ms))


def _asked(place: int, placed: Sequence[PlacedStage], asked: AskedWork) -> Asked:
    context = asked.contexts.get(place)
    retrieval = None if context is None else _asked(context.source, placed, asked)
    source = placed[place].kv_from
    prefill = None if source is None else _asked(source, placed, asked)
    return Asked(placed[place], asked.work[place], retrieval, prefill)


def place_pools(pools: Sequence[Pool], cluster: Cluster) -> tuple[tuple[Pool, ...], tuple[HostMemory, ...]]:
    """Return the pools with the memories that they read, and all memories, shared or not."""
    lowered, memories = with_hosts(pools, cluster)
    placed = [
        kind_of(config).place(pool, memories)
        for pool, config in zip(lowered, cluster.pools.values(), strict=True)
    ]
    return with_shared_devices(placed, cluster), tuple(memories)


def unservable(ops: Sequence[Op], pools: Sequence[Pool], cluster: Cluster) -> dict[int, str]:
    """Return the requests that none of their clients can ever hold, each with the reason.

    A router does not know what fits: where pools share one, requests must fit the clients of all.
    """
    rejected: dict[int, str] = {}
    for op in ops:
        for index, pool in enumerate(pools):
            if op.pool in (index, pool.joins):
                config = cluster.pools[pool.name]
                rejected = kind_of(config).unservable(pool.name, config, pool, op) | rejected
    return rejected


def rejecting_pool(
    ops: Sequence[Op], pools: Sequence[Pool], cluster: Cluster, request: int, reason: str
) -> str | None:
    """Return the name of the pool that rejects ``request`` for this ``reason``; None where no pool does."""
    for index, pool in enumerate(pools):
        config = cluster.pools[pool.name]
        for op in (each for each in ops if each.pool in (index, pool.joins)):
            if kind_of(config).unservable(pool.name, config, pool, op).get(request) == reason:
                return pool.name
    return None
