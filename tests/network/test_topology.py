"""Where clients stand and which links lie between two of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from compiler.configs import config, with_pool
from cost import catalog

import hermes_flow as hf
from hermes_flow.compiler.machines import place_clients
from hermes_flow.network.topology import Path, Topology
from hermes_flow.program.network import Network

Overrides = dict[str, Any]


def network(prefill: Overrides, decode: Overrides, base: hf.Config | None = None, **changes: Any) -> Network:
    """Return the network of a disaggregated cluster; racks reach each other at 20 GB/s unless told otherwise."""
    base = base or config("cluster=disaggregated", "pipeline=llm", "workload.requests=5")
    between = replace(base.network.datacenter, gb_s=20.0)
    base = replace(base, network=replace(base.network, **({"datacenter": between} | changes)))
    program = hf.compile(with_pool("decode", with_pool("prefill", base, **prefill), **decode))
    assert program.network is not None
    return program.network


def names(topology: Topology, path: Path) -> list[str]:
    return [topology.names[link] for link in path.links]


def rates(topology: Topology, path: Path) -> list[float]:
    return [topology.bytes_per_ns[link] for link in path.links]


@pytest.mark.parametrize(
    ("prefill", "decode", "nodes"),
    [
        ({}, {}, [0, 0]),
        ({"count": 3}, {"count": 5}, [0] * 8),  # eight devices fill a node
        ({"count": 3}, {"count": 6}, [0] * 8 + [1]),
        ({"tensor_parallel": 4, "count": 2}, {"tensor_parallel": 8}, [0, 0, 1]),
        ({"tensor_parallel": 2}, {"tensor_parallel": 8, "count": 2}, [0, 1, 2]),  # does not fit what is left
        ({"tensor_parallel": 2}, {"tensor_parallel": 4, "count": 3}, [0, 0, 1, 1]),
        ({"tensor_parallel": 8, "count": 5}, {"tensor_parallel": 1}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_clients_fill_nodes_in_the_order_of_the_pools(
    prefill: Overrides, decode: Overrides, nodes: list[int]
) -> None:
    placed = network(prefill, decode)
    assert list(placed.nodes[:-1]) == nodes
    assert placed.clients[-1] == "host/0"
    counts = (prefill.get("count", 1), decode.get("count", 1))
    assert placed.clients[:-1] == (
        *(f"prefill/{index}" for index in range(counts[0])),
        *(f"decode/{index}" for index in range(counts[1])),
    )


def test_a_client_larger_than_a_node_takes_several() -> None:
    placed = network({"tensor_parallel": 8}, {"tensor_parallel": 1, "count": 4}, devices_per_node=3)
    assert list(placed.nodes[:-1]) == [0, 2, 3, 3, 3]  # the third node has a device left


def test_a_host_takes_no_place_among_the_devices_and_is_a_node_of_its_own() -> None:
    base = config("cluster=disaggregated", "pipeline=llm", "workload.requests=5")
    pools = base.cluster.pools
    first = {name: pools[name] for name in ("host", "prefill", "decode")}
    base = replace(base, cluster=replace(base.cluster, pools=first))
    placed = network({"count": 4}, {"count": 4}, base)
    assert placed.nodes == (1, *[0] * 8)
    assert placed.clients[:2] == ("host/0", "prefill/0")


def test_unlike_hardware_never_shares_a_node() -> None:
    unlike = {"hardware": catalog.hardware("h200_sxm"), "count": 2}
    placed = network({"count": 3}, unlike)
    assert placed.nodes == (0, 0, 0, 1, 1, 2)
    topology = Topology(placed)
    assert names(topology, topology.path(0, 3)) == ["prefill/0 rack out", "decode/0 rack in"]
    faster = {"hardware": replace(catalog.hardware("h100_sxm"), bandwidth_gb_s=4000.0)}
    assert network({"count": 3}, faster).nodes == (
        0,
        0,
        0,
        0,
        1,
    )  # the same accelerator, with a figure changed


def test_machines_without_accelerators_stand_in_the_racks_in_turn() -> None:
    base = config("cluster=disaggregated", "pipeline=llm", "workload.requests=5")
    pools = dict(base.cluster.pools)
    pools["host"] = replace(pools["host"], count=5)
    base = replace(base, cluster=replace(base.cluster, pools=pools))
    placed = network({"tensor_parallel": 8, "count": 3}, {"tensor_parallel": 8}, base, nodes_per_rack=2)
    assert placed.nodes == (*range(4), *range(4, 9))
    assert placed.racks == (0, 0, 1, 1, 0, 1, 0, 1, 0)


def test_pools_on_one_machine_share_its_node() -> None:
    """On cluster=hybrid one CPU searches, embeds and keeps KV for four GPUs, and handles text."""
    base = config("cluster=hybrid", "pipeline=rag_kv_reuse")
    places = place_clients(base.cluster, devices_per_node=8, nodes_per_rack=4)
    stands = iter(places.nodes)
    nodes = {name: {next(stands) for _ in range(pool.count)} for name, pool in base.cluster.pools.items()}
    assert nodes.pop("host") == nodes["retrieval"]
    assert set(map(frozenset, nodes.values())) == {frozenset({0})}
    alone = replace(base.cluster.pools["retrieval"], host=None, count=2)
    apart = {"retrieval": alone, "llm": base.cluster.pools["llm"]}
    places = place_clients(replace(base.cluster, pools=apart), devices_per_node=8, nodes_per_rack=4)
    assert places.nodes == (1, 2, 0, 0, 0, 0)


def test_nothing_lies_between_a_client_and_itself() -> None:
    topology = Topology(network({}, {}))
    assert topology.path(1, 1) == Path((), 0)
    assert topology.names == []


def test_within_a_node_the_path_is_out_and_in() -> None:
    level: Overrides = {"node": replace(config("pipeline=llm").network.node, efficiency=0.5, latency_us=3.0)}
    topology = Topology(network({"tensor_parallel": 2}, {}, **level))
    path = topology.path(0, 1)
    assert names(topology, path) == ["prefill/0 node out", "decode/0 node in"]
    assert rates(topology, path) == [2 * 450 * 0.5, 450 * 0.5]  # two devices send, one receives
    assert path.latency_ns == 3000


def test_within_a_rack_nodes_are_left_over_the_network() -> None:
    level: Overrides = {"rack": replace(config("pipeline=llm").network.rack, efficiency=0.8, latency_us=1.5)}
    topology = Topology(network({"tensor_parallel": 8}, {"tensor_parallel": 4}, **level))
    path = topology.path(0, 1)
    assert names(topology, path) == ["prefill/0 rack out", "decode/0 rack in"]
    assert rates(topology, path) == [8 * 50 * 0.8, 4 * 50 * 0.8]
    assert path.latency_ns == 1500


def test_across_racks_the_path_leads_up_and_down() -> None:
    between = replace(config("pipeline=llm").network.datacenter, gb_s=25.0, efficiency=0.4)
    placed = network(
        {"tensor_parallel": 8, "count": 2}, {"tensor_parallel": 8}, nodes_per_rack=2, datacenter=between
    )
    topology = Topology(placed)
    path = topology.path(1, 2)
    assert names(topology, path) == [
        "prefill/1 rack out",
        "rack 0 datacenter up",
        "rack 1 datacenter down",
        "decode/0 rack in",
    ]
    assert rates(topology, path) == [400, 10, 10, 400]
    assert path.latency_ns == 20_000_000
    other = topology.path(0, 2)  # the rack's links are one for all of its clients
    assert other.links[1:] == path.links[1:]
    assert other.links[0] != path.links[0]


def test_each_end_has_the_links_of_its_own_hardware() -> None:
    slow = replace(catalog.hardware("h100_sxm"), scale_up_gb_s=32, network_gb_s=12.5)
    near = Topology(network({}, {"hardware": slow}))
    assert rates(near, near.path(0, 1)) == [450, 32]
    far = Topology(network({"tensor_parallel": 8}, {"hardware": slow, "tensor_parallel": 2}))
    assert rates(far, far.path(0, 1)) == [400, 25]


def test_a_link_out_and_a_link_in_are_two() -> None:
    topology = Topology(network({}, {}))
    assert not set(topology.path(0, 1).links) & set(topology.path(1, 0).links)
    assert topology.path(0, 1) == topology.path(0, 1)
    assert len(topology.names) == len(topology.bytes_per_ns) == 4


def test_a_program_in_which_nothing_moves_has_no_network() -> None:
    assert hf.compile(config("workload.requests=5")).network is None
