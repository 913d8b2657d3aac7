"""Phase 7, network: lowers the places of clients, the speed of links and the sizes of moving KV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from hermes_flow.compiler.machines import Places, place_clients, sites_of
from hermes_flow.compiler.shared_routers import Routers
from hermes_flow.config.schema import Cluster
from hermes_flow.config.schema import Network as NetworkConfig
from hermes_flow.config.schema import NetworkLevel as NetworkLevelConfig
from hermes_flow.pools.kind import Handovers, kind_of
from hermes_flow.program.network import Network, NetworkLevel
from hermes_flow.program.ops import KVEdge, Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.units import us_to_ns, us_to_ps
from hermes_flow.stages.placed import PlacedStage

_UNUSED = NetworkLevel(efficiency=1.0, latency_ns=0)


def kv_edges(placed: Sequence[PlacedStage], cluster: Cluster) -> dict[int, KVEdge]:
    """Return the KV that each decode receives from another pool, by its place: that of the whole prompt.

    Layer by layer, all layers but the last may leave before the prefill is over.
    """
    pools = list(cluster.pools.values())
    edges = {}
    for place, own in enumerate(placed):
        pool = pools[own.pool]
        shape = kind_of(pool).kv_shape(pool)
        if own.kv_from is None or shape is None:
            continue
        states = shape.bytes_per_sequence
        size = np.ceil(own.tokens * shape.bytes_per_token + states).astype(np.int64)
        layers = shape.layers
        early = size * (layers - 1) // layers if cluster.kv_transfer == "layerwise" and layers > 1 else None
        edges[place] = KVEdge(own.kv_from, size, early, emits_first=cluster.first_token == "decode")
    return edges


def with_shared_prompts(ops: Sequence[Op], pools: Sequence[Pool]) -> tuple[Op, ...]:
    """Return the ops with the branches of an answer on one client, where that finds their common prompt."""
    decodes = {(op.kv.source, op.pool): number for number, op in enumerate(ops) if op.kv is not None}
    shared = []
    for op in ops:
        generate = None if op.kv is None else op.generate
        if op.kv is not None and generate is not None and generate.branch:
            beside = ops[op.kv.source].with_op
            first = None if beside is None else decodes.get((beside, op.pool))
            if first is not None and getattr(pools[op.pool].client, "prefix_cache", False):
                op = replace(op, with_op=first)
        shared.append(op)
    return tuple(shared)


def kv_groups(
    placed: Sequence[PlacedStage], edges: Mapping[int, KVEdge], cluster: Cluster, problems: list[str]
) -> dict[str, int]:
    """Return the number of groups of each pool between which KV moves, where the cluster has groups."""
    groups, names = cluster.groups, list(cluster.pools)
    linked = {names[placed[own].pool] for place, edge in edges.items() for own in (place, edge.source)}
    if not linked:
        given = {
            "kv_transfer": "full",
            "first_token": "prefill",
            "kv_handover_us": 0.0,
            "kv_notice": "at_once",
        }
        problems.extend(
            f"cluster.{key}: {getattr(cluster, key)!r}, but no KV moves between pools; expected {default!r}"
            for key, default in given.items()
            if getattr(cluster, key) != default
        )
    _check_progress(placed, edges, cluster, problems)
    if groups == 1:
        return {}
    if not linked:
        problems.append(f"cluster.groups: {groups}, but no KV moves between pools; expected 1")
    problems.extend(
        f"cluster.groups: {groups} does not divide the {cluster.pools[name].count} clients of pool {name!r}"
        for name in names
        if name in linked and cluster.pools[name].count % groups
    )
    return dict.fromkeys(linked, groups)


def _check_progress(
    placed: Sequence[PlacedStage], edges: Mapping[int, KVEdge], cluster: Cluster, problems: list[str]
) -> None:
    """Append a problem where KV that waits for blocks of another client could wait for ever.

    A client gets its blocks back as its own answers end, if KV of other clients never waits for them in a circle. A
    prompt must not be preempted after another client has reserved blocks for its layers: it would wait for blocks
    that are held by KV that waits for these.
    """
    names = list(cluster.pools)
    sends = {(names[placed[edge.source].pool], names[placed[place].pool]) for place, edge in edges.items()}
    left = set(sends)
    while ends := {pair for pair in left if not any(pair[1] == other[0] for other in left)}:
        left -= ends
    if left:
        circle = " and ".join(sorted(f"{source} to {target}" for source, target in left))
        problems.append(
            f"cluster.pools: KV moves from {circle}: full clients could wait for each other for ever; expected no "
            "pool that gets KV back from those it sends KV to"
        )
    decoding = {names[own.pool] for own in placed if own.output is not None and (own.output > 1).any()}
    problems.extend(
        f"cluster.kv_transfer: layerwise, but pool {name!r} also decodes: its prompts may be preempted after their "
        "first layers have left; expected full, or a pool that only prefills"
        for name in sorted({source for source, _ in sends} & decoding)
        if cluster.kv_transfer == "layerwise"
    )
    limits = {
        source: getattr(cluster.pools[source], "long_prefill_token_threshold", 0)
        for source, _ in sorted(sends)
    }
    problems.extend(
        f"cluster.pools.{name}.long_prefill_token_threshold: {tokens} with cluster.kv_transfer=layerwise: prompts "
        "may be preempted after their first layers have left; expected 0, or cluster.kv_transfer=full"
        for name, tokens in limits.items()
        if cluster.kv_transfer == "layerwise" and tokens
    )


def kv_handovers(
    placed: Sequence[PlacedStage],
    edges: Mapping[int, KVEdge],
    cluster: Cluster,
    routers: Routers,
    problems: list[str],
) -> dict[str, Handovers]:
    """Return, for each pool, whether it sends or receives KV, the time of each handover, and whether by layers."""
    names = list(cluster.pools)
    first = {member: name for name, group in routers.items() for member in group}
    sending = {names[placed[edge.source].pool] for edge in edges.values()}
    early = {names[placed[edge.source].pool] for edge in edges.values() if edge.early_bytes is not None}
    receiving = {names[placed[place].pool] for place in edges}
    return {
        name: Handovers(
            sends=first.get(name, name) in sending,
            receives=first.get(name, name) in receiving,
            early=first.get(name, name) in early,
            first_tokens=cluster.first_token == "decode",
            handover_ps=us_to_ps(cluster.kv_handover_us),
            polled=cluster.kv_notice == "each_step",
        )
        for name in names
    }


def lower_network(
    config: NetworkConfig,
    cluster: Cluster,
    pools: Sequence[Pool],
    ops: Sequence[Op],
    carrying: frozenset[str],
    problems: list[str],
    warnings: list[str],
) -> Network | None:
    """Return the network for the simulator, or None if nothing moves between clients.

    KV moves among the clients of each of the pools ``carrying``.

    KV is large: figures that it needs and that are not known are problems. Other data passes a link whose rate is not
    known in no time, with a warning.
    """
    if all(op.kv is None and not op.data for op in ops) and not carrying:
        return None
    levels = {name: getattr(config, name) for name in ("node", "rack", "datacenter")}
    if problems:
        return None
    places = place_clients(cluster, config.devices_per_node, config.nodes_per_rack)
    clients: list[str] = []
    speeds: dict[str, list[float]] = {"scale_up_gb_s": [], "network_gb_s": []}
    links = {"scale_up_gb_s": config.node.gb_s, "network_gb_s": config.rack.gb_s}
    for name, pool in cluster.pools.items():
        clients += [f"{name}/{client}" for client in range(pool.count)]
        for key, column in speeds.items():
            one = getattr(pool.hardware, key, None) if links[key] is None else links[key]
            column += [(one or 0.0) * max(1, pool.devices)] * pool.count
    sharing = [[i for i, pool in enumerate(pools) if first in (i, pool.joins)] for first in range(len(pools))]
    routes = {
        route
        for op in ops
        if op.kv is not None
        for route in product(sharing[ops[op.kv.source].pool], sharing[op.pool])
    }
    routes |= {(index, index) for index, pool in enumerate(pools) if pool.name in carrying and pool.count > 1}
    _check_links(config, cluster, routes, places, problems)
    exchanging = {
        member
        for op in ops
        for edge in op.data
        for first in (ops[edge.source].pool, op.pool)
        for member in sharing[first]
    }
    warnings.extend(
        f"cluster.pools.{pools[index].name}.hardware.network_gb_s: null, so that transfers of contexts, documents, "
        "vectors and queries over the links of its clients take no time"
        for index in sorted(exchanging)
        if not speeds["network_gb_s"][sum(pool.count for pool in pools[:index])]
    )
    spanned = _spanned(places)
    lowered = {name: _level(level) if name in spanned else _UNUSED for name, level in levels.items()}
    return Network(
        name=config.name,
        clients=tuple(clients),
        nodes=places.nodes,
        racks=places.racks,
        node_bytes_per_ns=tuple(speeds["scale_up_gb_s"]),
        rack_bytes_per_ns=tuple(speeds["network_gb_s"]),
        node=lowered["node"],
        rack=lowered["rack"],
        datacenter=lowered["datacenter"],
    )


def _spanned(places: Places) -> set[str]:
    """Return the levels that lie between any two clients. The figures of others belong to no link of the cluster."""
    nodes = set(places.nodes)
    return {
        *(("node",) if len(nodes) < len(places.nodes) else ()),
        *(("rack",) if len(nodes) > 1 else ()),
        *(("datacenter",) if len({places.racks[node] for node in nodes}) > 1 else ()),
    }


def _check_links(
    config: NetworkConfig,
    cluster: Cluster,
    routes: set[tuple[int, int]],
    places: Places,
    problems: list[str],
) -> None:
    """Append a problem for every figure that is null, of the links that KV moves over between two pools."""
    names = list(cluster.pools)
    needed: set[tuple[int, str]] = set()
    racks: set[int] = set()
    site_of = sites_of(cluster)
    for site, route in product(dict.fromkeys(site_of), routes):  # nothing moves from one site to another
        left = iter(zip(places.nodes, site_of, strict=True))
        placed = [[next(left) for _ in range(cluster.pools[name].count)] for name in names]
        every = [[node for node, at in own if at == site] for own in placed]
        stands = [set(nodes) for nodes in every]
        nodes = stands[route[0]] | stands[route[1]]
        beside = stands[route[0]] & stands[route[1]]
        if route[0] == route[1]:
            beside = {node for node in beside if every[route[0]].count(node) > 1}
        if beside:
            needed |= {(pool, "scale_up_gb_s") for pool in route}
        if len(nodes) > 1:
            needed |= {(pool, "network_gb_s") for pool in route}
        spanned = {places.racks[node] for node in nodes}
        if len(spanned) > 1:
            racks |= spanned
    problems.extend(
        f"cluster.pools.{names[pool]}.hardware.{key}: null; moving KV to or from pool {names[pool]!r} needs it"
        for pool, key in sorted(needed, key=lambda need: (need[0], need[1] != "scale_up_gb_s"))
        if getattr(cluster.pools[names[pool]].hardware, key) is None
        and (config.node if key == "scale_up_gb_s" else config.rack).gb_s is None
    )
    if racks and config.datacenter.gb_s is None:
        problems.append(
            f"network.datacenter.gb_s: null, and the clients span {len(racks)} racks of "
            f"{config.nodes_per_rack} nodes; give one rack's link to the others"
        )


def _level(level: NetworkLevelConfig) -> NetworkLevel:
    return NetworkLevel(
        efficiency=level.efficiency,
        latency_ns=us_to_ns(level.latency_us),
        bytes_per_ns=(level.gb_s or 0.0) * level.efficiency,
    )
