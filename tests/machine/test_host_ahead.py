"""Text stages of a host that always has a free core are computed without events, with the tables of the events."""

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
from hermes_flow.machine import run
from hermes_flow.machine.host_ahead import host_ahead
from hermes_flow.pools.sequential.client import SequentialClient

pytestmark = pytest.mark.usefixtures("few_requests_too")
LOAD = ("workload=synthetic", "workload.requests=60", "workload.rate_per_s=20")


@pytest.fixture(scope="module")
def few_requests_too() -> Iterator[None]:
    with patch.object(module, "FEWEST_REQUESTS", 0):
        yield


def program(*overrides: str) -> hf.Program:
    pipeline = () if any(text.startswith("pipeline=") for text in overrides) else ("pipeline=chat",)
    return hf.compile(hf.compose([*pipeline, *LOAD, *overrides]))


def with_events(compiled: hf.Program) -> object:
    with patch.object(run, "host_ahead", lambda _: None):
        return fingerprints(hf.simulate(compiled), steps=True)


@settings(max_examples=tries(15, of=100))
@given(
    cores=st.integers(2, 8),
    rate=st.sampled_from([5, 100, 2000]),
    routing=st.sampled_from(["round_robin", "least_requests", "least_tokens", "random"]),
    engine=st.sampled_from(["vllm", "sglang"]),
    seed=st.integers(0, 99),
)
def test_tables_are_those_of_a_run_with_events(
    cores: int, rate: int, routing: str, engine: str, seed: int
) -> None:
    compiled = program(
        f"cluster.pools.host.cores={cores}",
        f"workload.rate_per_s={rate}",
        f"cluster.pools.llm.routing={routing}",
        "cluster.pools.llm.count=3",
        f"engine={engine}",
        "workload.output_tokens={distribution: uniform, min: 1, max: 60}",
        f"seed={seed}",
    )
    assert fingerprints(hf.simulate(compiled), steps=True) == with_events(compiled)


@settings(max_examples=tries(6, of=100))
@given(
    pipeline=st.sampled_from(
        ["chat_guarded", "rag", "rag_iterative", "kv_reuse", "reasoning_multi", "cascade", "agent", "fan_out"]
    ),
    layout=st.sampled_from(
        [
            ("cluster.pools.llm.count=2",),
            ("cluster.pools.llm.count=3", "cluster.routing=least_tokens", "cluster.routing_stale_ms=50"),
            ("cluster=disaggregated",),
        ]
    ),
    # Requests of one size at one distance reach the stages behind the host, and end, in the same nanoseconds.
    sizes=st.sampled_from([(), ("workload.arrivals=constant", "workload.input_tokens=64")]),
    rate=st.sampled_from([5, 100]),
    seed=st.integers(0, 99),
)
def test_tables_of_longer_pipelines_are_those_of_a_run_with_events(
    pipeline: str, layout: tuple[str, ...], sizes: tuple[str, ...], rate: int, seed: int
) -> None:
    load = ("workload.requests=30", f"workload.rate_per_s={rate}", f"seed={seed}")
    compiled = program(f"pipeline={pipeline}", *layout, *sizes, *load)
    assert host_ahead(compiled) is not None
    assert fingerprints(hf.simulate(compiled), steps=True) == with_events(compiled)


@needs_pure_core
def test_a_host_with_free_cores_is_never_asked_to_serve() -> None:
    with patch.object(SequentialClient, "submit", side_effect=AssertionError):
        result = hf.simulate(program())
    assert result.summary["requests"]["completed"] == 60


@needs_pure_core
def test_a_run_whose_host_had_no_free_core_is_repeated_with_events() -> None:
    """One core is enough for the prompts; the answers end in a few steps, and two cores are too few for them."""
    compiled = program(
        "cluster.pools.host.cores=2",
        "workload.arrivals=constant",
        "workload.rate_per_s=1000",
        "workload.requests=8",
        "workload.input_tokens=8",
        "workload.output_tokens=200",
        "+pipeline.stages.detokenize.per_token_us=50",
    )
    assert host_ahead(compiled) is not None
    with patch.object(
        SequentialClient, "submit", autospec=True, side_effect=SequentialClient.submit
    ) as submit:
        tables = fingerprints(hf.simulate(compiled), steps=True)
    assert submit.call_count == 16
    assert tables == with_events(compiled)


@pytest.mark.parametrize(
    "overrides",
    [
        ("cluster.pools.host.cores=1",),
        ("cluster.pools.host.count=2",),
        ("cluster.pools.host.serves=[tokenize,word_filter,detokenize,tool]", "pipeline=agent"),
        ("pipeline=chat_guarded_streaming",),
        ("pipeline=routed_by_load",),
        ("workload.arrivals={process: closed_loop, concurrency: 4}",),
        ("pipeline=llm",),
    ],
)
def test_hosts_of_programs_in_which_more_happens_run_with_events(overrides: tuple[str, ...]) -> None:
    ahead = host_ahead(program(*overrides))
    assert ahead is None or ahead.pool < 0
