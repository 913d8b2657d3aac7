"""Contexts that meet nobody on their way are read and moved at once, with the tables of a run that waits for each."""

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
from hermes_flow.machine import host_ahead as module
from hermes_flow.machine.engine import Engine
from hermes_flow.network.fabric import Fabric

pytestmark = [needs_pure_core, pytest.mark.usefixtures("few_requests_too")]
LOAD = (
    *("pipeline=kv_reuse", "workload=synthetic", "workload.requests=60"),
    "workload.output_tokens={distribution: uniform, min: 1, max: 60}",
)


@pytest.fixture(scope="module")
def few_requests_too() -> Iterator[None]:
    with patch.object(module, "FEWEST_REQUESTS", 0):
        yield


def delivered(program: hf.Program) -> tuple[object, int]:
    """Return the tables, and how often the network delivered something."""
    with patch.object(Fabric, "deliver", autospec=True, side_effect=Fabric.deliver) as deliveries:
        return fingerprints(hf.simulate(program), steps=True), deliveries.call_count


def waiting_for_each(program: hf.Program) -> tuple[object, int]:
    with patch.object(Engine, "look_ahead", lambda _: None):
        return delivered(program)


@settings(max_examples=tries(3, of=100))
@given(
    layout=st.sampled_from(
        [
            ("cluster.pools.llm.count=3",),
            ("cluster.pools.llm.count=3", "cluster.routing=least_tokens"),
            ("cluster.pools.llm.count=2", "cluster.pools.store.count=2", "cluster.pools.store.beside=llm"),
            ("cluster.pools.llm.count=2", "cluster.pools.store.count=2", "cluster.routing=least_requests"),
            ("cluster=disaggregated",),
        ]
    ),
    store=st.sampled_from(
        [
            (),
            (
                *("cluster.pools.store.contention=false", "cluster.pools.store.write_back=false"),
                "cluster.pools.store.begins_with=most_asked",
            ),
            ("cluster.pools.store.begins_with=most_asked", "cluster.pools.store.tiers.dram.latency_us=300"),
            ("cluster.pools.store.tiers.dram.capacity_gb=1", "cluster.pools.store.tiers.dram.lookup_us=50"),
        ]
    ),
    overlap=st.booleans(),
    # Requests at one distance reach the stores at the instants at which others leave them.
    arrivals=st.sampled_from(["poisson", "constant"]),
    rate=st.sampled_from([3, 30, 300]),
    seed=st.integers(0, 99),
)
def test_tables_are_those_of_a_run_that_waits_for_each_transfer(
    layout: tuple[str, ...], store: tuple[str, ...], overlap: bool, arrivals: str, rate: int, seed: int
) -> None:
    compiled = hf.compile(
        hf.compose(
            [
                *(*LOAD, *layout, *store),
                f"pipeline.stages.recall.overlap={str(overlap).lower()}",
                "pipeline.stages.recall.contexts=10",
                f"workload.arrivals={arrivals}",
                f"workload.rate_per_s={rate}",
                f"seed={seed}",
            ]
        )
    )
    assert delivered(compiled)[0] == waiting_for_each(compiled)[0]


def test_a_context_that_meets_nobody_needs_no_events() -> None:
    few = (
        "cluster.pools.store.begins_with=most_asked",
        "workload.arrivals=constant",
        "workload.rate_per_s=2",
    )
    compiled = hf.compile(hf.compose([*LOAD, *few]))
    tables, deliveries = delivered(compiled)
    of_all, of_each = waiting_for_each(compiled)
    assert tables == of_all
    assert deliveries == 0
    assert of_each == 2 * 60


def test_a_context_that_is_kept_and_meets_nobody_needs_no_events() -> None:
    """At one request a second nothing else moves while a context is brought to its prompt, or to the store."""
    few = ("cluster.pools.llm.count=3", "workload.arrivals=constant", "workload.rate_per_s=1")
    compiled = hf.compile(hf.compose([*LOAD, *few]))
    tables, deliveries = delivered(compiled)
    of_all, of_each = waiting_for_each(compiled)
    assert tables == of_all
    assert deliveries == 0
    assert of_each == 2 * 60  # over the network, and in the memory of the store
