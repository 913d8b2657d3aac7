"""Stages that depend on the arrivals alone are computed before the run, with the tables of a run with events."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pure_core import needs_pure_core
from tries import tries

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.machine import arrivals, run
from hermes_flow.machine import host_ahead as module
from hermes_flow.machine.moves import Moves
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.known_transfers import move_known
from hermes_flow.network.topology import Path, Topology
from hermes_flow.pools.batched.client import PassEnds
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.program.network import HostMemory
from hermes_flow.program.units import NEVER

pytestmark = pytest.mark.usefixtures("few_requests_too")
RAG = ("pipeline=rag", "workload=synthetic", "workload.requests=40", "cluster.pools.llm.count=3")


@pytest.fixture(scope="module")
def few_requests_too() -> Iterator[None]:
    with patch.object(module, "FEWEST_REQUESTS", 0):
        yield


def program(*overrides: str) -> hf.Program:
    return hf.compile(hf.compose([*RAG, *overrides]))


def with_events(compiled: hf.Program) -> object:
    with patch.object(run, "host_ahead", lambda _: None):
        return fingerprints(hf.simulate(compiled), steps=True)


@settings(max_examples=tries(3, of=100))
@given(
    # At the highest rate, passes are full and tasks of two stages wait; on the slow network transfers overlap.
    rate=st.sampled_from([5, 40, 2000]),
    seats=st.sampled_from([1, 3, 32]),
    network=st.sampled_from([(), ("network.rack.gb_s=0.01",)]),
    layout=st.sampled_from([(), ("cluster.routing=least_tokens",), ("cluster=disaggregated",)]),
    # Requests of one size at one distance meet in the same nanoseconds.
    sizes=st.sampled_from([(), ("workload.arrivals=constant", "workload.input_tokens=64")]),
    seed=st.integers(0, 99),
)
def test_tables_are_those_of_a_run_with_events(
    rate: int,
    seats: int,
    network: tuple[str, ...],
    layout: tuple[str, ...],
    sizes: tuple[str, ...],
    seed: int,
) -> None:
    batches = (f"cluster.pools.embed.max_batch={seats}", f"cluster.pools.retrieval.max_batch={seats}")
    load = (f"workload.rate_per_s={rate}", f"seed={seed}")
    compiled = program(*batches, *network, *layout, *sizes, *load)
    assert fingerprints(hf.simulate(compiled), steps=True) == with_events(compiled)


@needs_pure_core
def test_no_event_is_fired_for_a_pass_or_a_transfer_before_the_llm() -> None:
    compiled = program("workload.rate_per_s=4")
    with (
        patch.object(PassEnds, "fire", side_effect=AssertionError),
        patch.object(Moves, "moved", side_effect=AssertionError),
    ):
        result = hf.simulate(compiled)
    assert result.summary["requests"]["completed"] == 40


@needs_pure_core
def test_a_client_that_waits_for_a_full_pass_is_served_by_events() -> None:
    compiled = program("workload.rate_per_s=4", "cluster.pools.embed.wait_ms=5")
    with patch.object(Moves, "moved", autospec=True, side_effect=Moves.moved) as moved:
        tables = fingerprints(hf.simulate(compiled), steps=True)
    assert moved.call_count == 80  # a vector to the search and documents to the LLM, for each request
    assert tables == with_events(compiled)


@settings(max_examples=tries(3, of=60))
@given(
    pipeline=st.sampled_from(["llm", "chat", "rag"]),
    clients=st.sampled_from([1, 3]),
    rate=st.sampled_from([5, 300]),
    room=st.sampled_from([(), ("cluster.pools.llm.max_num_seqs=3",), ("cluster.pools.llm.kv_blocks=300",)]),
    engine=st.sampled_from(["vllm", "sglang"]),
    seed=st.integers(0, 99),
)
def test_tables_of_clients_that_know_their_tasks_are_those_of_a_run_with_events(
    pipeline: str, clients: int, rate: int, room: tuple[str, ...], engine: str, seed: int
) -> None:
    load = (f"workload.rate_per_s={rate}", f"seed={seed}", "workload.requests=30", f"engine={engine}")
    compiled = program(f"pipeline={pipeline}", f"cluster.pools.llm.count={clients}", *room, *load)
    with patch.object(arrivals, "KNOWN_AT_ONCE", 7):
        assert fingerprints(hf.simulate(compiled), steps=True) == with_events(compiled)


@needs_pure_core
def test_a_client_that_is_chosen_in_turn_is_told_of_its_tasks_ahead_and_each_counts_as_an_event() -> None:
    compiled = program("pipeline=llm", "workload.rate_per_s=4")
    with patch.object(LLMClient, "submit", side_effect=AssertionError):
        result = hf.simulate(compiled)
    assert result.summary["requests"]["completed"] == 40
    with patch.object(run, "host_ahead", lambda _: None):
        told_as_they_come = hf.simulate(compiled)
    assert result.summary["engine"]["events"] == told_as_they_come.summary["engine"]["events"]


def memory(bytes_per_ns: float) -> tuple[Fabric, Path]:
    topology = Topology(None, (HostMemory("dram", bytes_per_ns),))
    return Fabric(topology, lambda payload, now_ns: None), topology.memory_path(0)


def test_transfers_that_meet_share_their_link_and_others_have_it_alone() -> None:
    """Two of 1,000 bytes at 1 byte/ns, 500 ns apart, end after 1,500 and 2,000 ns; a later one takes 1,000."""
    fabric, path = memory(1.0)
    assert move_known(fabric, [0, 500, 9000], [path] * 3, [1000] * 3) == [1500, 2000, 10_000]
    (link,) = fabric.records()
    assert (link.transfers, link.bytes, link.busy_ns, link.until_ns) == (3, 3000, 3000, 10_000)
    assert (link.transfer_ns, link.delay_ns) == (1500 + 1500 + 1000, 1000)


def test_what_was_known_does_not_stand_once_another_transfer_takes_its_link() -> None:
    fabric, path = memory(1.0)
    move_known(fabric, [0], [path], [1000])
    fabric.close_known()
    assert fabric.was_known
    fabric.send(path, 1, 0, 0)
    assert not fabric.was_known


def test_what_was_known_does_not_stand_where_an_end_lies_between_two_nanoseconds() -> None:
    """Half a nanosecond goes to the even one, counted from the last change of any transfer."""
    fabric, path = memory(2.0)
    move_known(fabric, [0], [path], [1001])
    fabric.close_known()
    assert not fabric.was_known
    assert fabric.next_ns() == NEVER
