"""Warns where nodes of the network are smaller or larger than what the scale-up link of their hardware connects."""

from __future__ import annotations

from hermes_flow.config.schema import Cluster, Network
from hermes_flow.pools.llm.schema import LLMPool

_BOARD = 8  # devices that one link connects where ``scale_up_devices`` of the hardware is null


def scale_up_warnings(
    name: str, pool: LLMPool, cluster: Cluster, network: Network, moves_kv: bool
) -> list[str]:
    """Return a warning if traffic of a pool takes another link than its hardware has between these devices.

    Devices of one scale-up domain on several nodes use their network cards, and those of several domains on one
    node use the scale-up link. That is so where a client has more devices than the smaller of both, or where KV moves
    between clients (``moves_kv``) and it does not hold all of them.
    """
    given, node = pool.hardware.scale_up_devices, network.devices_per_node
    within = given or _BOARD
    if node < within and given is not None:
        what = _crossing(pool, cluster, node, moves_kv)
        end = (
            f"between nodes of network.devices_per_node={node} over their network cards, but up to {within} "
            f"{pool.hardware.name} are one domain of its scale-up link; network=nvl72 has such nodes"
        )
    elif node > within and pool.hardware.scale_up_gb_s is not None and pool.hardware.torus is None:
        what = _crossing(pool, cluster, within, moves_kv and network.node.gb_s is None)
        end = (
            f"within nodes of network.devices_per_node={node} over the scale-up link of {pool.hardware.name}, but "
            f"this connects {within} of them; expected network.devices_per_node={within}, or "
            f"cluster.pools.{name}.hardware.scale_up_devices={node} where it connects so many"
        )
    else:
        return []
    return [f"cluster.pools.{name}: {what} {end}"] if what else []


def _crossing(pool: LLMPool, cluster: Cluster, devices: int, moves_kv: bool) -> str:
    """Return what goes on between more than so many devices, in words; nothing where nothing does."""
    own = _devices(pool)
    if own > devices:
        return f"a client of {own} devices exchanges data"
    everywhere = sum(
        each.count * _devices(each) for each in cluster.pools.values() if isinstance(each, LLMPool)
    )
    return "KV moves" if moves_kv and everywhere > devices else ""


def _devices(pool: LLMPool) -> int:
    return pool.tensor_parallel * pool.data_parallel * pool.pipeline_parallel
