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
    pool, where = cluster.pools[name], routings.key(name)
    clients = pool.count if clients is None else clients
    try:
        policy = routings.of(name)
        if clients > 1:
            _check_needs(policy, name, cluster, where)
            _check_parts(policy, pool, clients, cluster, where)
    except ConfigError as error:
        if str(error) not in problems:
            problems.append(str(error))


def _check_needs(policy: RoutingPolicy, name: str, cluster: Cluster, where: str) -> None:
    pool, needs, key = cluster.pools[name], needs_of(policy), f"cluster.pools.{name}"
    clients = f"the {pool.count} clients of {key}"
    called = routing_policies.describe(policy).partition(" ")[0]
    if "prompts" in needs and not kind_of(pool).prompts:
        raise ConfigError(
            where,
            f"{called} compares the prompts of LLM clients, but {clients} are of kind {pool.kind!r}; "
            f"set {key}.routing to a policy that does not, such as least_requests",
        )
    beside = any(kind_of(other).beside(other) == name for other in cluster.pools.values())
    if "contexts" in needs and not kind_of(pool).keeps_contexts and not beside:
        raise ConfigError(
            where,
            f"{called} compares what stores of KV hold, but {clients} are no stores and have none beside them; "
            f"set {key}.routing to another policy, such as least_requests",
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
