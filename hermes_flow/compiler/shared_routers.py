"""Joins pools of the same model that serve the same stages behind one router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from hermes_flow.config.schema import Cluster
from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import kind_of

Routers: TypeAlias = Mapping[str, tuple[str, ...]]  # the first of pools that share a router → all of them


class RouterPools:
    """Collects the pools that share a router while stages are placed, as disjoint sets."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._group_of: dict[str, tuple[str, ...]] = {}
        self._stage_of: dict[tuple[str, ...], str] = {}

    def place(self, key: str, kind: str, pools: Sequence[str]) -> str:
        """Return the pool that represents all pools that serve the stage ``key``. Raises ConfigError."""
        group = tuple(pools)
        for name in group:
            known = self._group_of.setdefault(name, group)
            if known != group:
                raise ConfigError(
                    f"{key}.pool",
                    f"{' and '.join(group)} serve {kind!r}, but {' and '.join(known)} serve {self._stage_of[known]}; "
                    "pools that share a stage must share all of them: change their serves, or name one pool",
                )
        if group not in self._stage_of:
            self._stage_of[group] = repr(kind)
            self._check_alike(group)
        return group[0]

    def routers(self) -> dict[str, tuple[str, ...]]:
        """Return the pools that share a router, by the first of each set."""
        return {group[0]: group for group in self._stage_of if len(group) > 1}

    def _check_alike(self, group: tuple[str, ...]) -> None:
        """Pools behind one router have one routing policy, and what a request finds or moves fits all of them."""
        first = self._cluster.pools[group[0]]
        for name in group[1:]:
            pool = self._cluster.pools[name]
            if pool.routing != first.routing:
                raise ConfigError(
                    f"cluster.pools.{name}.routing",
                    f"{pool.routing!r}, but pool {group[0]!r} has {first.routing!r}, and one router serves both; "
                    "expected the same",
                )
            problem = kind_of(pool).unlike(first, pool)
            if problem is not None:
                raise ConfigError(
                    f"cluster.pools.{name}.{problem}",
                    f"differs from pool {group[0]!r}, which serves the same stages behind the same router; expected "
                    "the same, or stages that name a pool",
                )
        for name, pool in self._cluster.pools.items():
            beside = kind_of(pool).beside(pool)
            if len(group) > 1 and beside in group:
                others = " and ".join(other for other in group if other != beside)
                raise ConfigError(
                    f"cluster.pools.{name}.beside",
                    f"{beside!r} shares its router with {others}, whose clients have no store beside them; expected "
                    "null",
                )
        if len(group) > 1 and self._cluster.groups > 1:
            raise ConfigError(
                "cluster.groups",
                f"{self._cluster.groups}, but {' and '.join(group)} share a router; expected 1",
            )


def side_by_side(cluster: Cluster, routers: Routers) -> Cluster:
    """Return the cluster with pools that share a router next to each other, so that their clients are, too."""
    later = {name for group in routers.values() for name in group[1:]}
    pools = {}
    for name in cluster.pools:
        if name not in later:
            pools.update({member: cluster.pools[member] for member in routers.get(name, (name,))})
    return replace(cluster, pools=pools)
