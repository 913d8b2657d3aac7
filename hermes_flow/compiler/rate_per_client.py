"""Multiplies the load by the number of LLM clients, where ``workload.rate_for=client`` asks for it."""

from __future__ import annotations

from dataclasses import replace

from hermes_flow.config.schema import Config

_SERVED = {"prefill", "decode"}


def with_rate_per_client(config: Config) -> Config:
    """Return ``config`` with the load of all clients in place of a load per client.

    The clients of every pool that serves prefill or decode count: of one prefill and three decode clients, four.
    """
    workload = config.workload
    if workload.rate_for == "cluster":
        return config
    clients = sum(
        pool.count for pool in config.cluster.pools.values() if _SERVED & set(getattr(pool, "serves", ()))
    )
    return replace(config, workload=replace(workload, rate_scale=workload.rate_scale * clients))
