"""Keeps the prompts of different adapters apart where a pool serves adapters, and reports those that none serves."""

from __future__ import annotations

from hermes_flow.config.schema import Cluster
from hermes_flow.program.requests import Requests


def serving_adapters(cluster: Cluster) -> list[str]:
    """Return the pools that serve adapters."""
    return [name for name, pool in cluster.pools.items() if getattr(pool, "adapters", None) is not None]


def with_adapters(requests: Requests, cluster: Cluster) -> Requests:
    """Return the requests; where a pool serves adapters, no prefix is shared between prompts for different ones."""
    if requests.adapter is None or requests.prefixes is None or not serving_adapters(cluster):
        return requests
    from hermes_flow.workload.adapters import with_apart_prefixes

    return with_apart_prefixes(requests)


def unheeded_adapters(requests: Requests, cluster: Cluster) -> list[str]:
    """Return a warning if requests ask for adapters that no pool serves, or a pool has some that nobody asks for."""
    serving = serving_adapters(cluster)
    if requests.adapter is not None and not serving:
        return [
            "requests ask for adapters, but no pool has any: this has no effect; "
            "cluster.pools.NAME.adapters={slots: 8} serves them"
        ]
    if requests.adapter is None and serving:
        return [
            f"cluster.pools.{name}.adapters: no request asks for any (workload.adapters, or a column 'adapter' "
            "of a trace); the memory is set aside all the same"
            for name in serving
        ]
    return []
