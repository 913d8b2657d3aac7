"""Several copies of a cluster are the cluster with larger pools."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.errors import CompileError, ConfigError

SPLIT = [
    "cluster=disaggregated",
    "pipeline=llm",
    "workload=synthetic",
    "workload.requests=50",
    "workload.rate_per_s=20",
]


def counts(*overrides: str) -> dict[str, int]:
    return {pool.name: pool.count for pool in hf.compile(hf.compose(list(overrides))).pools}


def test_every_pool_has_so_many_times_its_clients() -> None:
    split = ("cluster=disaggregated", "cluster.pools.prefill.count=3", "cluster.pools.decode.count=2")
    assert counts(*split, "cluster.copies=4") == {"host": 4, "prefill": 12, "decode": 8}


def test_two_copies_give_the_tables_of_pools_twice_as_large() -> None:
    copied = hf.simulate(hf.compile(hf.compose([*SPLIT, "cluster.copies=2"])))
    written = [f"cluster.pools.{pool}.count=2" for pool in ("prefill", "decode", "host")]
    large = hf.simulate(hf.compile(hf.compose([*SPLIT, *written])))
    assert copied.requests.equals(large.requests)
    assert copied.clients.equals(large.clients)


def test_groups_keep_their_size() -> None:
    program = hf.compile(
        hf.compose(
            [
                *SPLIT,
                "cluster.pools.decode.count=2",
                "cluster.pools.prefill.count=2",
                "cluster.groups=2",
                "cluster.copies=3",
            ]
        )
    )
    assert {pool.name: pool.groups for pool in program.pools}["prefill"] == 6


def test_the_load_per_client_follows() -> None:
    arrivals = ["pipeline=llm", "workload=synthetic", "workload.arrivals=constant", "workload.requests=9"]
    program = hf.compile(
        hf.compose([*arrivals, "workload.rate_per_s=2", "workload.rate_for=client", "cluster.copies=5"])
    )
    assert program.requests.arrival_ns[1] - program.requests.arrival_ns[0] == pytest.approx(1e9 / 10)


def test_a_pool_has_an_upper_limit() -> None:
    with pytest.raises(
        CompileError, match=r"cluster\.copies: 100,000 copies of 2 clients in cluster\.pools\.llm"
    ):
        hf.compile(hf.compose(["cluster.pools.llm.count=2", "cluster.copies=100000"]))


def test_a_plan_finds_the_number_itself() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.copies: a plan finds the number of clients"):
        hf.plan(hf.compose(["task=plan", "cluster.copies=2"]))


def test_a_pool_whose_clients_come_and_go_is_not_copied() -> None:
    scaled = (
        "cluster.pools.llm.autoscale={policy: target, metric: queued_per_client, target: 4, min: 1, max: 4}"
    )
    with pytest.raises(
        CompileError, match=r"cluster\.copies: 2, but the clients of cluster\.pools\.llm come and go"
    ):
        hf.compile(hf.compose(["cluster.copies=2", scaled]))
