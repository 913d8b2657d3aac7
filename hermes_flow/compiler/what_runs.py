"""Leaves out of a program what it says and no run reads, so that keys without an effect are found."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise, product

from hermes_flow.program.network import Network, NetworkLevel
from hermes_flow.program.pools import Pool, SequentialClientSpec
from hermes_flow.program.power import BusyPower
from hermes_flow.program.program import Program

_UNUSED = NetworkLevel(efficiency=1.0, latency_ns=0)


def what_runs(program: Program) -> Program:
    """Return a program without the clients of pools that serve no stage, and levels of links that carry nothing.

    Pools that serve no stage have a price and a power only.
    """
    serving = {op.pool for op in program.ops}
    serving |= {index for index, pool in enumerate(program.pools) if pool.joins in serving or pool.fleet}
    serving |= {pool.device for pool in program.pools if pool.device is not None}
    pools = [pool if index in serving else _idle(pool) for index, pool in enumerate(program.pools)]
    network = program.network
    if network is not None and not network.changes:
        network = _without_unused_levels(network, program)
    return replace(program, pools=tuple(pools), network=network)


def _idle(pool: Pool) -> Pool:
    power = pool.energy
    if isinstance(power, BusyPower):
        power = replace(power, busy_w=power.idle_w)
    return replace(pool, client=SequentialClientSpec(cores=1), energy=power, notes=())


def _without_unused_levels(network: Network, program: Program) -> Network:
    """Return the network with figures only of levels that lie between clients of pools with a route."""
    ends = list(accumulate((pool.count for pool in program.pools), initial=0))
    nodes = [network.nodes[first:end] for first, end in pairwise(ends)]
    node = rack = between = False
    for source, target in _routes(program):
        together = set(nodes[source]) | set(nodes[target])
        beside = set(nodes[source]) & set(nodes[target])
        if source == target:
            beside = {one for one in beside if nodes[source].count(one) > 1}
        node |= bool(beside)
        rack |= len(together) > 1
        between |= len({network.racks[one] for one in together}) > 1
    none = (0.0,) * len(network.clients)
    return replace(
        network,
        node=network.node if node else _UNUSED,
        rack=network.rack if rack else _UNUSED,
        datacenter=network.datacenter if between else _UNUSED,
        node_bytes_per_ns=network.node_bytes_per_ns if node else none,
        rack_bytes_per_ns=network.rack_bytes_per_ns if rack else none,
    )


def _routes(program: Program) -> set[tuple[int, int]]:
    """Return the pairs of pools of which one sends something to the other."""
    ops = program.ops
    sent = {(ops[op.kv.source].pool, op.pool) for op in ops if op.kv is not None}
    sent |= {(ops[edge.source].pool, op.pool) for op in ops for edge in op.data}
    routes = {
        route
        for source, target in sent
        for route in product(program.sharing(source), program.sharing(target))
    }
    for index, pool in enumerate(program.pools):
        if pool.count > 1 and pool.fleet is not None and pool.fleet.failing is not None:
            routes.add((index, index))  # its KV may move to another client
    return routes
