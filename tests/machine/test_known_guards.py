"""Prompts that reach a guard at known instants, amid answers that it reads, give the tables of a run with events."""

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
from hermes_flow.errors import InternalError
from hermes_flow.machine import arrivals, run, wiring
from hermes_flow.machine import host_ahead as module
from hermes_flow.pools.llm import build
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.pools.llm.forward_client import ForwardClient
from hermes_flow.pools.llm.forward_ends import ForwardEnds
from hermes_flow.pools.llm.plain_client import PlainClient

pytestmark = pytest.mark.usefixtures("few_requests_too")
GUARDED = ("pipeline=chat_guarded", "workload=synthetic", "workload.requests=40")
GUARD, LLM = "cluster.pools.guard", "cluster.pools.llm"


@pytest.fixture(scope="module")
def few_requests_too() -> Iterator[None]:
    with patch.object(module, "FEWEST_REQUESTS", 0), patch.object(arrivals, "KNOWN_AT_ONCE", 15):
        yield


def program(*overrides: str) -> hf.Program:
    return hf.compile(hf.compose([*GUARDED, *overrides]))


def tables(compiled: hf.Program) -> object:
    return fingerprints(hf.simulate(compiled), steps=True)


def with_events(compiled: hf.Program) -> object:
    """The tables of a run in which each client is fired at each of its plans, and calls its policy for it."""
    with (
        patch.object(run, "host_ahead", lambda _: None),
        patch.object(build, "shortest_steps", lambda spec: None),
        patch.object(build, "is_plain", lambda *_: False),
    ):
        return tables(compiled)


@settings(max_examples=tries(3, of=200))
@given(
    rate=st.sampled_from([3, 20, 60, 2000]),
    # Few seats, few tokens a step (prompts are cut), few blocks, and a cache that finds the template again.
    room=st.sampled_from(
        [
            (),
            (f"{GUARD}.max_num_seqs=2",),
            (f"{GUARD}.max_num_batched_tokens=256", f"{GUARD}.max_num_seqs=200"),
            (f"{GUARD}.kv_blocks=300",),
            (f"{GUARD}.max_num_batched_tokens=256", f"{GUARD}.kv_blocks=280"),
            (f"{GUARD}.prefix_cache=true",),
            (f"{GUARD}.lookahead=0",),
        ]
    ),
    clients=st.sampled_from(
        [("count=1",), ("count=3",), ("count=3", "routing=least_tokens"), ("count=2", "kv_blocks=700")]
    ),
    # Requests of one size at one distance reach the guard, and end, in the same nanoseconds.
    sizes=st.sampled_from(
        [
            (),
            ("workload.arrivals=constant", "workload.input_tokens=64", "workload.output_tokens=9"),
            ("workload.output_tokens={distribution: uniform, min: 1, max: 3}",),
        ]
    ),
    seed=st.integers(0, 99),
)
def test_tables_are_those_of_a_run_with_events(
    rate: int, room: tuple[str, ...], clients: tuple[str, ...], sizes: tuple[str, ...], seed: int
) -> None:
    layout = [f"{LLM}.{setting}" for setting in clients]
    compiled = program(*room, *layout, *sizes, f"workload.rate_per_s={rate}", f"seed={seed}")
    assert tables(compiled) == with_events(compiled)


@needs_pure_core
def test_the_guard_is_told_of_prompts_ahead_and_fired_for_their_ends_alone() -> None:
    compiled = program("workload.rate_per_s=4", f"{LLM}.count=2")
    with (
        patch.object(ForwardEnds, "fire", autospec=True, side_effect=ForwardEnds.fire) as fired,
        patch.object(ForwardClient, "submit", autospec=True, side_effect=ForwardClient.submit) as submitted,
    ):
        result = hf.simulate(compiled)
    assert result.summary["requests"]["completed"] == 40
    assert submitted.call_count == 0  # answers are told of ahead, too
    assert fired.call_count <= 60


@needs_pure_core
def test_an_llm_client_behind_the_guard_is_advanced_as_its_tasks_come_and_not_for_their_ends() -> None:
    compiled = program("workload.rate_per_s=4", f"{LLM}.count=2")
    (llm,) = (place for place, pool in enumerate(compiled.pools) if pool.name == "llm")
    machine = wiring.Machine(compiled, module.host_ahead(compiled))
    with patch.object(
        PlainClient, "advance_to_end", autospec=True, side_effect=PlainClient.advance_to_end
    ) as advanced:
        machine.engine.run()
    assert sum(client.served for client in machine.clients[llm]) == 40
    assert (
        0 < advanced.call_count <= 10
    )  # where an end comes before the next task, and after it could have come


def test_a_task_that_comes_earlier_than_promised_is_an_internal_error() -> None:
    compiled = program("workload.rate_per_s=4", f"{LLM}.count=2")
    with (
        patch.object(ForwardClient, "earliest_ns", lambda *_: [10**15] * 40),
        pytest.raises(InternalError, match="before the instant that was promised"),
    ):
        hf.simulate(compiled)


def test_a_guard_on_several_clients_or_looked_at_by_a_router_is_told_as_prompts_come() -> None:
    for setting in ("count=3", "count=2,routing=least_requests"):
        compiled = program(*(f"{GUARD}.{one}" for one in setting.split(",")), "workload.rate_per_s=60")
        with patch.object(EngineClient, "submit_known", side_effect=AssertionError):
            assert tables(compiled) == with_events(compiled)
