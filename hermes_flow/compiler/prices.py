"""Gives the hardware of every pool its list price, unless the user has set another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from hermes_flow.config.schema import Cluster, Prices


def with_prices(cluster: Cluster, prices: Prices) -> Cluster:
    """Return the cluster with a price for all hardware that ``prices`` lists and that has no other price."""
    pools = {}
    for name, pool in cluster.pools.items():
        hardware = getattr(pool, "hardware", None)
        if hardware is None or hardware.usd_per_hour is not None or hardware.name not in prices.usd_per_hour:
            pools[name] = pool
            continue
        priced = replace(hardware, usd_per_hour=prices.usd_per_hour[hardware.name])
        pools[name] = replace(cast(Any, pool), hardware=priced)
    return replace(cluster, pools=pools)
