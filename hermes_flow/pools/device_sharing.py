"""Checks and places pools whose clients take turns on the devices of another pool (``shares_device_with``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster
from hermes_flow.errors import did_you_mean
from hermes_flow.pools.kind import kind_of
from hermes_flow.program.pools import Pool


def device_of(pool: PoolConfig) -> str | None:
    """Return the pool on whose devices the clients of a pool take turns; None: on their own."""
    root: str | None = getattr(pool, "shares_device_with", None)
    return root


def check_device_sharing(cluster: Cluster, problems: list[str]) -> None:
    """Append the problems of pools that take turns on the devices of another pool."""
    for name, pool in cluster.pools.items():
        root = device_of(pool)
        if root is not None:
            problems += _problems(name, pool, root, cluster)


def with_shared_devices(pools: Sequence[Pool], cluster: Cluster) -> tuple[Pool, ...]:
    """Return the pools, those that take turns on the devices of another pool with its number."""
    names = list(cluster.pools)
    placed = []
    for pool, config in zip(pools, cluster.pools.values(), strict=True):
        root = device_of(config)
        if root is not None:
            note = f"takes turns on the devices of {root}, one task or step at a time; tasks go before steps"
            pool = replace(pool, device=names.index(root), notes=(*pool.notes, note))
        placed.append(pool)
    return tuple(placed)


def _problems(name: str, pool: Any, root: str, cluster: Cluster) -> list[str]:
    key = f"cluster.pools.{name}"
    at = f"{key}.shares_device_with"
    other: Any = cluster.pools.get(root)
    if other is None:
        others = [each for each in cluster.pools if each != name]
        return [f"{at}: no pool is called {root!r}{did_you_mean(root, others)}"]
    if root == name:
        return [f"{at}: its own name; expected another pool, or null"]
    if device_of(other) is not None:
        return [f"{at}: {root!r} itself takes turns on the devices of {device_of(other)!r}; name that pool"]
    if not kind_of(other).takes_turns:
        return [f"{at}: {root!r} is a pool of kind {other.kind!r}, whose devices cannot be shared"]
    found = []
    if pool.host is not None:
        found.append(f"{key}.host: {pool.host!r}; the machine is that of {root!r}, expected null")
    if pool.cores not in (None, 1):
        found.append(
            f"{key}.cores: {pool.cores}, but it has the one device of a client of {root!r}; expected 1"
        )
    if other.hardware is not None and pool.hardware.name != other.hardware.name:
        found.append(
            f"{key}.hardware: {pool.hardware.name}, but {root!r} is on {other.hardware.name}; expected the same"
        )
    return [*found, *kind_of(other).sharing_problems(root, other, name)]
