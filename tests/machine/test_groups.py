"""Fixed groups of prefill and decode clients: KV stays within its group, and groups do not meet."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from compiler.configs import problems_of
from oracles.watched_run import WatchedRun, watch
from pools.llm.deployments import (
    affine,
    check_invariants,
    random_deployment,
    with_cluster,
    with_pool,
    with_workload,
)

import hermes_flow as hf
from hermes_flow.errors import ConfigError
from hermes_flow.machine.run import run
from hermes_flow.program.network import Network
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import Recording
from hermes_flow.routing import Choose, RoutedPool

KV_TRANSFERS: list[Literal["full", "layerwise"]] = ["full", "layerwise"]


def deployment(prefills: int, decodes: int, groups: int, routing: str = "round_robin") -> hf.Config:
    config = with_workload(affine(), requests=120, rate_per_s=3000.0, input_tokens=50, output_tokens=20)
    config = with_pool(config, "prefill", count=prefills, routing="random")
    config = with_pool(config, "decode", count=decodes, routing=routing)
    return with_cluster(config, groups=groups)


def grouped(recording: Recording) -> list[list[tuple[int, int]]]:
    """Return (prefill client, decode client) of every request, by the group it was prefilled in."""
    program = recording.program
    size = program.pools[0].count // program.pools[0].groups
    by_group: list[list[tuple[int, int]]] = [[] for _ in range(program.pools[0].groups)]
    prefill, decode = recording.ops
    for request in np.flatnonzero(decode.client >= 0):
        sender = int(prefill.client[request])
        by_group[sender // size].append((sender, int(decode.client[request])))
    return by_group


@pytest.mark.parametrize("kv_transfer", KV_TRANSFERS)
@pytest.mark.parametrize("closed", [False, True])
def test_a_request_decodes_in_the_group_in_which_it_was_prefilled(
    kv_transfer: Literal["full", "layerwise"], closed: bool
) -> None:
    rng = random.Random(f"{kv_transfer}{closed}")
    used = set()
    for _ in range(40):
        groups = rng.randint(2, 4)
        watched = watch(hf.compile(random_deployment(rng, closed, kv_transfer, groups)))
        check_invariants(watched)
        program, recording = watched.program, watched.recording
        sizes = [pool.count // groups for pool in program.pools[:2]]
        moved = recording.ops[1].client >= 0
        ours, theirs = (
            record.client[moved] // size for record, size in zip(recording.ops, sizes, strict=True)
        )
        np.testing.assert_array_equal(ours, theirs)
        used |= set(ours.tolist())
    assert used == {0, 1, 2, 3}


def test_unlike_pools_are_cut_into_as_many_parts_in_order() -> None:
    recording = run(hf.compile(deployment(prefills=2, decodes=6, groups=2)))
    first, second = grouped(recording)
    assert {sender for sender, _ in first} == {0}
    assert {receiver for _, receiver in first} == {0, 1, 2}
    assert {sender for sender, _ in second} == {1}
    assert {receiver for _, receiver in second} == {3, 4, 5}


def test_as_many_groups_as_clients_are_fixed_pairs() -> None:
    for routing in ("round_robin", "random", "least_requests", "least_tokens"):
        for index, pairs in enumerate(grouped(run(hf.compile(deployment(4, 4, 4, routing))))):
            assert set(pairs) == {(index, index)}


def test_one_group_lets_any_client_send_to_any() -> None:
    recording = run(hf.compile(deployment(2, 4, groups=1)))
    (pairs,) = grouped(recording)
    assert set(pairs) == {(sender, receiver) for sender in range(2) for receiver in range(4)}


def test_a_pool_that_takes_no_part_is_not_cut() -> None:
    config = with_pool(deployment(2, 2, groups=2), "host", count=3)
    config = replace(config, pipeline=affine("pipeline=chat").pipeline)
    program = hf.compile(config)
    assert {pool.name: pool.groups for pool in program.pools} == {"prefill": 2, "decode": 2, "host": 1}
    text = str(program)
    assert "random routing, in 2 groups" in text
    assert text.count("groups") == 2
    stages = hf.simulate(program).stages
    assert set(stages.filter(stages["pool"] == "host")["client"]) == {"host/0", "host/1", "host/2"}


# The policy of the pool decides within the group.


def test_each_group_takes_its_clients_in_turn() -> None:
    for pairs in grouped(run(hf.compile(deployment(2, 6, groups=2)))):
        receivers = [receiver for _, receiver in pairs]
        assert len(receivers) > 20
        assert receivers == [receivers[0] + k % 3 for k in range(len(receivers))]


def test_least_requests_looks_at_its_own_group_only() -> None:
    config = with_pool(deployment(2, 6, 2, "least_requests"), "prefill", routing="round_robin")
    config = with_workload(config, rate_per_s=160.0, arrivals="constant", output_tokens=100)
    recording = run(hf.compile(config))
    ready, finish = recording.ops[1].ready_ns, recording.ops[1].finish_ns
    assert (ready[1:] < finish[:-1]).all()  # there is always somebody in the other group,
    assert (ready[2:] > finish[:-2]).all()  # and nobody in one's own
    assert [set(pairs) for pairs in grouped(recording)] == [{(0, 0)}, {(1, 3)}]


def test_every_group_draws_from_a_stream_of_its_own() -> None:
    config = deployment(2, 10, 2, "random")
    first, second = ([receiver % 5 for _, receiver in pairs] for pairs in grouped(run(hf.compile(config))))
    common = min(len(first), len(second))
    assert common > 40
    assert sum(a == b for a, b in zip(first, second, strict=False)) < 0.4 * common
    # Another share of the requests for either group does not touch what each one draws.
    turned = with_pool(config, "prefill", routing="round_robin")
    for before, pairs in zip((first, second), grouped(run(hf.compile(turned))), strict=True):
        after = [receiver % 5 for _, receiver in pairs]
        assert len(after) != len(before)
        assert all(a == b for a, b in zip(before, after, strict=False))


# A group is a cluster of its own.


@dataclass(frozen=True)
class Replayed:
    """A policy that was told its choices beforehand."""

    chosen: list[int]
    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        left = iter(self.chosen)
        return lambda task, now_ns: next(left)


@pytest.mark.parametrize("kv_transfer", KV_TRANSFERS)
@pytest.mark.parametrize("routing", ["round_robin", "least_requests", "least_tokens"])
def test_a_group_does_what_it_would_do_by_itself(
    routing: str, kv_transfer: Literal["full", "layerwise"]
) -> None:
    rng = random.Random(f"{routing}{kv_transfer}")
    compared = 0
    for _ in range(15):
        config = random_deployment(rng, False, kv_transfer, groups=3)
        # Racks have one link for all their clients, so all stand in one.
        network = replace(config.network, nodes_per_rack=1000)
        config = replace(with_pool(config, "decode", routing=routing), network=network)
        watched = watch(hf.compile(config))
        for group in range(3):
            alone = only_group(watched, group)
            mine = [request for request in range(len(alone.requests)) if request not in alone.rejected]
            compared += len(mine)
            for ours, theirs in zip(watched.recording.ops, run(alone).ops, strict=True):
                for column in ("ready_ns", "start_ns", "finish_ns", "transfer_ns"):
                    times, expected = getattr(ours, column), getattr(theirs, column)
                    if times is not None:
                        # What else moves at the same time may round the end of a transfer to another nanosecond.
                        np.testing.assert_allclose(
                            times[mine], expected[mine], rtol=0, atol=1, err_msg=column
                        )
    assert compared > 200


def only_group(watched: WatchedRun, group: int) -> Program:
    """Return the program with one group's clients and requests only, its prefills routed as they were."""
    program, recording = watched.program, watched.recording
    sizes = [pool.count // pool.groups for pool in program.pools]
    senders = recording.ops[0].client
    pools = []
    for pool, size in zip(program.pools, sizes, strict=True):
        changes: dict[str, Any] = {"count": size, "groups": 1}
        if pool.name == "prefill":
            mine = senders[(senders >= 0) & (senders // size == group)]
            changes["routing"] = Replayed((mine % size).tolist())
        pools.append(replace(pool, **changes))
    assert program.network is not None
    others = np.flatnonzero(senders // sizes[0] != group).tolist()
    return replace(
        program,
        pools=tuple(pools),
        network=_network_of(program.network, program, group),
        rejected=dict.fromkeys(others, "served by another group"),
    )


def _network_of(network: Network, program: Program, group: int) -> Network:
    kept, first = [], 0
    for pool in program.pools:
        size = pool.count // pool.groups
        begin = first + (group * size if pool.groups > 1 else 0)
        kept += list(range(begin, begin + size))
        first += pool.count
    return replace(
        network,
        clients=tuple(network.clients[client] for client in kept),
        nodes=tuple(network.nodes[client] for client in kept),
        node_bytes_per_ns=tuple(network.node_bytes_per_ns[client] for client in kept),
        rack_bytes_per_ns=tuple(network.rack_bytes_per_ns[client] for client in kept),
    )


# What cannot be.


@pytest.mark.parametrize("groups", [0, -2])
def test_there_is_at_least_one_group(groups: int) -> None:
    assert problems_of(deployment(2, 2, groups)) == [
        f"cluster.groups: {groups} is out of range; expected an integer from 1 to 100,000"
    ]


def test_groups_divide_both_pools() -> None:
    assert problems_of(deployment(3, 4, 2)) == [
        "cluster.groups: 2 does not divide the 3 clients of pool 'prefill'"
    ]
    assert problems_of(deployment(2, 5, 4)) == [
        "cluster.groups: 4 does not divide the 2 clients of pool 'prefill'",
        "cluster.groups: 4 does not divide the 5 clients of pool 'decode'",
    ]


def test_there_are_no_groups_where_no_kv_moves() -> None:
    config = hf.compose(["workload.requests=5", "+cluster.groups=2"])
    assert problems_of(config) == ["cluster.groups: 2, but no KV moves between pools; expected 1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.groups=1.5", "cluster.groups: 1.5 is not an integer"),
        ("cluster.groups=two", "cluster.groups: 'two' is not an integer"),
        (
            "cluster.kv_transfer=bogus",
            "cluster.kv_transfer: 'bogus' is not valid; expected one of: full, layerwise",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hf.compose(["cluster=disaggregated", override])
    assert str(caught.value) == message


@pytest.mark.parametrize("override", ["cluster.groups=2", "cluster.kv_transfer=layerwise"])
def test_a_cluster_of_one_kind_of_client_has_no_such_key(override: str) -> None:
    key = override.split("=")[0]
    with pytest.raises(ConfigError, match=f"^{key}: unknown key; it is a key of cluster=disaggregated$"):
        hf.compose(["cluster=replicas", override])


def test_what_brings_no_kv_chooses_among_all_clients() -> None:
    config = deployment(prefills=2, decodes=4, groups=2)
    config = with_pool(config, "decode", serves=("prefill", "decode"))
    stages = {
        "first": {"kind": "prefill", "pool": "prefill"},
        "answer": {"kind": "decode", "pool": "decode", "after": ["first"]},
        "again": {"kind": "prefill", "pool": "decode", "after": ["answer"]},
        "final": {"kind": "decode", "pool": "decode", "after": ["again"]},
    }
    recording = run(hf.compile(replace(config, pipeline=replace(config.pipeline, stages=stages))))
    again = recording.ops[-1].client
    assert sorted(set(again[again >= 0].tolist())) == [0, 1, 2, 3]
