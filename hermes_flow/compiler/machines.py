"""Places the clients of a cluster on nodes and the nodes in racks."""

from __future__ import annotations

from hermes_flow.config.schema import Cluster
from hermes_flow.pools.device_sharing import device_of
from hermes_flow.pools.kind import kind_of
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """The node of each client, numbered over all pools, and the rack of each node."""

    nodes: tuple[int, ...]
    racks: tuple[int, ...]


def place_clients(cluster: Cluster, devices_per_node: int, nodes_per_rack: int) -> Places:
    """Return the places of the clients.

    Clients on one machine, because a pool names its ``host`` or the pool ``beside`` it, stand on one node. Others
    fill nodes in the order of the pools, each node with accelerators of one kind: a client that does not fit what is
    left, or is of another kind, begins a new node, and one larger than a node takes several: the first counts.
    Machines without accelerators are nodes of their own: they come last, one by one in each rack in turn. Each site
    has nodes and racks of its own.
    """
    nodes: dict[int, int] = {}
    racks: list[int] = []
    site_of = sites_of(cluster)
    by_site: dict[str, list[list[int]]] = {}
    for machine in _machines(cluster):
        by_site.setdefault(site_of[machine[0]], []).append(machine)
    accelerators = _accelerators(cluster)
    for machines in by_site.values():
        own = _fill(machines, accelerators, devices_per_node, nodes_per_rack, nodes, first=len(racks))
        begin = max(racks, default=-1) + 1
        racks += [begin + rack for rack in own]
    return Places(tuple(nodes[client] for client in range(len(nodes))), tuple(racks))


def sites_of(cluster: Cluster) -> list[str]:
    """Return the site of each client, numbered over all pools; "" where the cluster has none."""
    if not cluster.sites:
        return [""] * sum(pool.count for pool in cluster.pools.values())
    return [
        site
        for pool in cluster.pools.values()
        for site, count in getattr(pool, "site", {}).items()
        for _ in range(count)
    ]


def _fill(
    machines: list[list[int]],
    accelerators: list[tuple[str, int]],
    devices_per_node: int,
    nodes_per_rack: int,
    nodes: dict[int, int],
    first: int,
) -> list[int]:
    """Note the ``nodes`` of the clients of ``machines``, counted from ``first`` on; return the racks of the nodes."""
    hosts: list[list[int]] = []
    node, used = first, 0
    kind_of_node: frozenset[str] = frozenset()
    for machine in machines:
        kinds = frozenset(accelerators[client][0] for client in machine if accelerators[client][1])
        devices = sum(accelerators[client][1] for client in machine)
        if not devices:
            hosts.append(machine)
            continue
        if used and (used + devices > devices_per_node or kinds != kind_of_node):
            node, used = node + 1, 0
        kind_of_node = kinds
        nodes.update(dict.fromkeys(machine, node))
        full, used = divmod(used + devices, devices_per_node)
        node += full
    filled = node + (used > 0)
    racks = [number // nodes_per_rack for number in range(filled - first)]
    spanned = max(racks, default=0) + 1
    for number, machine in enumerate(hosts):
        nodes.update(dict.fromkeys(machine, filled + number))
        racks.append(number % spanned)
    return racks


def _accelerators(cluster: Cluster) -> list[tuple[str, int]]:
    """Return the kind and the number of each client's accelerators."""
    return [
        ("" if pool.hardware is None else pool.hardware.name, pool.devices)
        for pool in cluster.pools.values()
        for _ in range(pool.count)
    ]


def _machines(cluster: Cluster) -> list[list[int]]:
    """Return the clients of each machine, in order of the first of them."""
    first: dict[str, int] = {}
    count = 0
    for name, pool in cluster.pools.items():
        first[name] = count
        count += pool.count
    above = list(range(count))  # a client of the same machine with a smaller number, at last itself

    def root(client: int) -> int:
        while above[client] != client:
            client = above[client]
        return client

    for name, pool in cluster.pools.items():
        for other in {pool.host, device_of(pool), kind_of(pool).beside(pool)} - {None}:
            assert other is not None
            for index in range(pool.count):
                ends = root(first[name] + index), root(first[other] + index % cluster.pools[other].count)
                above[max(ends)] = min(ends)
    machines: dict[int, list[int]] = {}
    for client in range(count):
        machines.setdefault(root(client), []).append(client)
    return list(machines.values())
