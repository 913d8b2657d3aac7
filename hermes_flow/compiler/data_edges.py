"""Phase 7, data: the bytes of queries, vectors, documents and contexts that stages send to other machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from hermes_flow.compiler.machines import place_clients
from hermes_flow.compiler.shared_routers import Routers
from hermes_flow.config.schema import Cluster, Network
from hermes_flow.program.ops import ContextEdge, DataEdge
from hermes_flow.program.units import Ints
from hermes_flow.stages.kind import SendingStage
from hermes_flow.stages.placed import PlacedStage


def data_edges(
    placed: Sequence[PlacedStage],
    contexts: Mapping[int, ContextEdge],
    cluster: Cluster,
    routers: Routers,
    network: Network,
) -> dict[int, tuple[DataEdge, ...]]:
    """Return the data that each placed stage receives from other machines, by its place.

    ``contexts`` are those that prompts begin with, by the place of the prefill. A stage takes what it needs from the
    nearest stages before it that have it, as their kinds say. Nothing moves between stages whose clients stand on one
    node, or whose pool has no machine.
    """
    if network.devices_per_node < 1 or network.nodes_per_rack < 1:
        return {}  # reported with the rest of the network
    nodes = _nodes(cluster, routers, network)
    edges: dict[int, tuple[DataEdge, ...]] = {}
    for place, own in enumerate(placed):
        sizes: dict[int, Ints | None] = {
            source: _bytes(placed[source], own) for source in _sources(placed, place)
        }
        if place in contexts:
            sizes[contexts[place].source] = None
        found = []
        for source, size in sizes.items():
            here, there = nodes[placed[source].pool], nodes[own.pool]
            apart = any(one != other for one, other in product(here, there))
            if apart and (size is None or size.any()):
                found.append(DataEdge(source, size))
        if found:
            edges[place] = tuple(found)
    return edges


def _sources(placed: Sequence[PlacedStage], place: int) -> list[int]:
    """Return the nearest stages before one that send it anything, not looking behind another of its kind."""
    own, found, seen = placed[place], [], {place}
    left = list(own.after)
    while left:
        before = left.pop()
        if before in seen:
            continue
        seen.add(before)
        if _bytes(placed[before], own) is not None:
            found.append(before)
        elif placed[before].stage.kind != own.stage.kind:
            left += placed[before].after
    return sorted(found)


def _bytes(source: PlacedStage, target: PlacedStage) -> Ints | None:
    """Return the bytes that a stage leaves for another, per request; None where that takes nothing of it."""
    stage = source.stages[-1]
    if not isinstance(stage.params, SendingStage):
        return None
    tokens = source.tokens if source.output is None else source.output
    size = stage.params.sends(target.stage, tokens)
    if size is None or stage.options.bytes_out is None:
        return size
    return np.full_like(tokens, stage.options.bytes_out)


def _nodes(cluster: Cluster, routers: Routers, network: Network) -> list[set[int]]:
    """Return the nodes on which the clients of each pool stand, and of those that share its router.

    It is empty where a pool has no machine.
    """
    left = iter(place_clients(cluster, network.devices_per_node, network.nodes_per_rack).nodes)
    own = {name: {next(left) for _ in range(pool.count)} for name, pool in cluster.pools.items()}
    for name, pool in cluster.pools.items():
        if pool.hardware is None:
            own[name] = set()
    return [set().union(*(own[member] for member in routers.get(name, (name,)))) for name in cluster.pools]
