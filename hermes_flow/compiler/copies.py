"""Multiplies every pool of a cluster, where ``cluster.copies`` asks for several of the whole deployment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hermes_flow.config.quantities import MOST_CLIENTS
from hermes_flow.config.schema import Cluster


def with_copies(cluster: Cluster, problems: list[str]) -> Cluster:
    """Return ``cluster`` with ``copies`` times the clients in every pool, and with ``copies`` = 1.

    Groups between which no KV moves (``cluster.groups`` above 1) multiply too, so that each keeps its size. A pool
    that would be larger than a pool may be is one of the ``problems``.
    """
    copies = cluster.copies
    if copies == 1:
        return cluster
    pools: dict[str, Any] = {}
    for name, built in cluster.pools.items():
        pool: Any = built
        count = getattr(pool, "count", None)
        if count is None:  # an API behind which no client is ours
            pools[name] = pool
        elif getattr(pool, "autoscale", None) is not None:
            problems.append(
                f"cluster.copies: {copies:,}, but the clients of cluster.pools.{name} come and go; expected 1"
            )
            pools[name] = pool
        elif count * copies > MOST_CLIENTS:
            problems.append(
                f"cluster.copies: {copies:,} copies of {count:,} clients in cluster.pools.{name} are more than"
                f" {MOST_CLIENTS:,}, the most that a pool can have"
            )
            pools[name] = pool
        else:
            pools[name] = replace(pool, count=count * copies)
    groups = cluster.groups * copies if cluster.groups > 1 else 1
    return replace(cluster, pools=pools, copies=1, groups=groups)
