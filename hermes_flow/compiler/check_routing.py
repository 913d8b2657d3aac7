"""Phase 2, routing: checks that each pool has what its routing policy needs."""

from __future__ import annotations

from hermes_flow.config.convert import child
from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster
from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import kind_of
from hermes_flow.routing import PartingPolicy, RoutingPolicy, needs_of, routing_policies


class Routings:
    """The routing policies of a cluster's pools; each setting is parsed once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._policies: dict[str, RoutingPolicy] = {}

    def key(self, name: str) -> str:
        """Return the full key of the setting for pool ``name``: its own, or the cluster's."""
        own = self._cluster.pools[name].routing
        return f"cluster.pools.{name}.routing" if own else "cluster.routing"

    def of(self, name: str) -> RoutingPolicy:
        """Return the policy of pool ``name``; raises ConfigError where its setting is not valid."""
        if name not in self._policies:
            setting = self._cluster.pools[name].routing or self._cluster.routing
            self._policies[name] = routing_policies.parse(setting, self.key(name))
        return self._policies[name]


def check_routing(
    name: str, cluster: Cluster, routings: Routings, problems: list[str], clients: int | None = None
) -> None:
    """Append the problems of the routing of pool ``name``; those of the cluster's setting only once.

    ``clients`` are those of all pools that share its router (None: its own).
    """
    pool, key, where = cluster.pools[name], f"cluster.pools.{name}", routings.key(name)
    clients = pool.count if clients is None else clients
    try:
        policy = routings.of(name)
        if clients > 1:
            _check_needs(policy, pool, key, where)
            _check_parts(policy, pool, clients, cluster, where)
    except ConfigError as error:
        if str(error) not in problems:
            problems.append(str(error))


def _check_needs(policy: RoutingPolicy, pool: PoolConfig, key: str, where: str) -> None:
    if kind_of(pool).prompts or not needs_of(policy):
        return
    name = routing_policies.describe(policy).partition(" ")[0]
    raise ConfigError(
        where,
        f"{name} compares the prompts of LLM clients, but the {pool.count} clients of {key} are of kind "
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
