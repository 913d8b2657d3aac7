"""A store with room for all contexts need not be told of the ends of requests whose context it has already."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from pure_core import needs_pure_core
from tries import tries

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.machine.context_handover import Contexts
from hermes_flow.pools.llm.earliest_end import EarliestEnd

# Without text stages nothing follows the answers.
STAGES = "recall: {kind: kv_retrieval, context_tokens: %s, contexts: 12, overlap: %s}"
PIPELINE = f"pipeline={{name: reuse, stages: {{{STAGES}, prefill: {{kind: prefill, after: [recall]}}, %s}}}}"
DECODE = "decode: {kind: decode, after: [prefill]}"
LOAD = (
    *("workload=synthetic", "workload.requests=60", "+pool@cluster.pools.store=store"),
    "workload.output_tokens={distribution: uniform, min: 1, max: 80}",
)


def program(*overrides: str, tokens: str = "300", overlap: bool = False) -> hf.Program:
    pipeline = PIPELINE % (tokens, str(overlap).lower(), DECODE)
    return hf.compile(hf.compose([pipeline, *LOAD, *overrides]))


def tables(compiled: hf.Program) -> tuple[object, int]:
    with patch.object(EarliestEnd, "fire", autospec=True, side_effect=EarliestEnd.fire) as fired:
        return fingerprints(hf.simulate(compiled), steps=True), fired.call_count


def told_of_all(compiled: hf.Program) -> tuple[object, int]:
    with patch.object(Contexts, "prepare", lambda _: None):
        return tables(compiled)


@needs_pure_core
@settings(max_examples=tries(4, of=100))
@given(
    layout=st.sampled_from(
        [
            ("cluster.pools.llm.count=2",),
            ("cluster.pools.llm.count=2", "cluster.pools.llm.kv_blocks=60"),
            ("cluster.pools.llm.count=3", "cluster.routing=least_tokens"),
            ("cluster.pools.llm.count=2", "cluster.routing=least_requests", "engine=sglang"),
            ("cluster.pools.llm.count=2", "cluster.pools.store.count=2", "cluster.pools.store.beside=llm"),
            ("cluster=disaggregated",),
        ]
    ),
    # All contexts are 0.47 GB, so the first tier of 0.3 GB moves some of them down.
    room=st.sampled_from([0.3, 1000]),
    first=st.sampled_from(["nothing", "most_asked"]),
    cached=st.booleans(),
    overlap=st.booleans(),
    rate=st.sampled_from([5, 50, 400]),
    seed=st.integers(0, 99),
)
def test_tables_are_those_of_a_store_that_is_told_of_all_ends(
    layout: tuple[str, ...], room: float, first: str, cached: bool, overlap: bool, rate: int, seed: int
) -> None:
    pools = ("prefill", "decode") if "cluster=disaggregated" in layout else ("llm",)
    compiled = program(
        *layout,
        *(f"cluster.pools.{pool}.prefix_cache={str(cached).lower()}" for pool in pools),
        f"cluster.pools.store.tiers.dram.capacity_gb={room}",
        f"cluster.pools.store.begins_with={first}",
        f"workload.rate_per_s={rate}",
        f"seed={seed}",
        overlap=overlap,
    )
    assert tables(compiled)[0] == told_of_all(compiled)[0]


@needs_pure_core
def test_clients_are_fired_for_new_contexts_alone() -> None:
    compiled = program("workload.rate_per_s=5", "cluster.pools.store.begins_with=most_asked")
    of_none, fired = tables(compiled)
    of_all, all_fired = told_of_all(compiled)
    assert of_none == of_all
    assert fired == 0
    assert all_fired >= 60


@needs_pure_core
def test_contexts_of_several_lengths_stay_too() -> None:
    compiled = program("workload.rate_per_s=20", tokens="{distribution: uniform, min: 200, max: 400}")
    of_new, fired = tables(compiled)
    of_all, all_fired = told_of_all(compiled)
    assert of_new == of_all
    assert fired < all_fired


@needs_pure_core
def test_a_store_that_forgets_is_told_of_all_ends() -> None:
    compiled = program(
        *(f"cluster.pools.store.tiers.{tier}.capacity_gb=0.1" for tier in ("dram", "platform", "rack")),
        "workload.rate_per_s=20",
    )
    with patch.object(Contexts, "_forgetting", side_effect=AssertionError("a context may be dropped")):
        assert tables(compiled) == told_of_all(compiled)
