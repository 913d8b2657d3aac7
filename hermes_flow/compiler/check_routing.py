"""Phase 2, routing: can each pool's policy work with what the pool has?"""

from __future__ import annotations

import math

from hermes_flow.config.convert import child
from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster
from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import kind_of
from hermes_flow.routing import PartingPolicy, RoutingPolicy, needs_of, routing_policies


def check_routing(
    pool: PoolConfig, cluster: Cluster, key: str, problems: list[str], clients: int | None = None
) -> None:
    """Append what is wrong with the routing of ``pool``, whose full key is ``key``; with the cluster's only once.

    ``clients`` are those of all pools that share its router (None: its own).
    """
    clients = pool.count if clients is None else clients
    where = f"{key}.routing" if pool.routing else "cluster.routing"
    try:
        policy = _policy(pool, cluster, where)
        if clients > 1:
            _check_needs(policy, pool, key, where)
            _check_parts(policy, pool, clients, cluster, where)
    except ConfigError as error:
        if str(error) not in problems:
            problems.append(str(error))


def check_staleness(cluster: Cluster, problems: list[str]) -> None:
    """Append a problem where the period of scrapes is none."""
    period_ms = cluster.routing_stale_ms
    if not 0.0 <= period_ms < math.inf:
        problems.append(
            f"cluster.routing_stale_ms: {period_ms:g} is not valid; expected a finite number, 0 or more"
        )


def _policy(pool: PoolConfig, cluster: Cluster, where: str) -> RoutingPolicy:
    return routing_policies.parse(pool.routing or cluster.routing, where)


def _check_needs(policy: RoutingPolicy, pool: PoolConfig, key: str, where: str) -> None:
    if kind_of(pool).prompts or not needs_of(policy):
        return
    name = routing_policies.describe(policy).partition(" ")[0]
    raise ConfigError(
        where,
        f"{name} looks at prompts in the hands of LLM clients, and the {pool.count} clients of {key} are of kind "
        f"{pool.kind!r}; "
        f"set {key}.routing to a policy that does not, such as least_requests",
    )


def _check_parts(policy: RoutingPolicy, pool: PoolConfig, clients: int, cluster: Cluster, where: str) -> None:
    receives = "decode" in pool.serves and "prefill" not in pool.serves
    clients = clients // cluster.groups if receives and cluster.groups > 1 else clients
    if clients < 2 or not isinstance(policy, PartingPolicy):
        return
    try:
        policy.check_parts(clients)
    except ConfigError as error:
        raise ConfigError(child(where, error.key), error.problem) from None
