"""Warns where devices leave a node although their hardware connects more of them than the network's nodes have."""

from __future__ import annotations

from hermes_flow.config.schema import Cluster, Network
from hermes_flow.pools.llm.schema import LLMPool


def split_domains(name: str, pool: LLMPool, cluster: Cluster, network: Network, moves_kv: bool) -> list[str]:
    """Return a warning if devices that one scale-up domain holds use their network cards here.

    That is so where a client has more devices than a node, or where KV moves between clients (``moves_kv``) and one
    node does not hold all of them.
    """
    within, node = pool.hardware.scale_up_devices, network.devices_per_node
    if within is None or node >= within:
        return []
    own = _devices(pool)
    everywhere = sum(
        each.count * _devices(each) for each in cluster.pools.values() if isinstance(each, LLMPool)
    )
    if own > node:
        what = f"a client of {own} devices spans nodes"
    elif moves_kv and everywhere > node:
        what = "KV moves between nodes"
    else:
        return []
    return [
        f"cluster.pools.{name}: {what} of network.devices_per_node={node} over their network cards, but up to "
        f"{within} {pool.hardware.name} are one domain of its scale-up link; network=nvl72 has such nodes"
    ]


def _devices(pool: LLMPool) -> int:
    return pool.tensor_parallel * pool.data_parallel * pool.pipeline_parallel
