"""A client that plans its steps in one loop has the tables of one that calls its policy and its batch for each."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from pure_core import needs_pure_core
from tries import tries

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.pools.llm import build
from hermes_flow.pools.llm.batching.chunked import Chunked
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.plain_client import PlainClient, is_plain
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec

LOAD = ("workload=synthetic", "workload.requests=40")


def step_by_step(program: hf.Program) -> object:
    with patch.object(build, "is_plain", lambda *_: False):
        return fingerprints(hf.simulate(program), steps=True)


@settings(max_examples=tries(4, of=200))
@given(
    pipeline=st.sampled_from(["llm", "chat", "rag", "chat_guarded", "kv_reuse", "agent"]),
    cached=st.booleans(),
    routing=st.sampled_from(["round_robin", "least_tokens", "least_kv"]),
    rate=st.sampled_from([2, 30, 1000]),
    # Few seats, few tokens a step (prompts are cut) and few blocks (sequences are preempted).
    room=st.sampled_from(
        [(), ("max_num_seqs=3",), ("max_num_batched_tokens=256", "max_num_seqs=200"), ("kv_blocks=700",)]
    ),
    policy=st.sampled_from([(), ("lookahead=0",), ("preemption=swap", "kv_blocks=1100")]),
    # Requests of one size at one distance reach the client, and end, in the same nanoseconds.
    sizes=st.sampled_from([(), ("workload.arrivals=constant", "workload.input_tokens=64")]),
    seed=st.integers(0, 99),
)
def test_tables_are_those_of_a_client_that_plans_step_by_step(
    pipeline: str,
    cached: bool,
    routing: str,
    rate: int,
    room: tuple[str, ...],
    policy: tuple[str, ...],
    sizes: tuple[str, ...],
    seed: int,
) -> None:
    shape = ("count=2", f"routing={routing}", f"prefix_cache={cached}".lower())
    pool = [f"cluster.pools.llm.{setting}" for setting in (*shape, *room, *policy)]
    load = (*LOAD, f"pipeline={pipeline}", f"workload.rate_per_s={rate}", f"seed={seed}")
    program = hf.compile(hf.compose([*load, *sizes, *pool]))
    assert fingerprints(hf.simulate(program), steps=True) == step_by_step(program)


@needs_pure_core
def test_a_client_of_the_default_run_is_plain_and_calls_no_policy() -> None:
    program = hf.compile(hf.compose(["pipeline=llm", *LOAD, "workload.rate_per_s=5"]))
    with patch.object(LLMClient, "commit_step", side_effect=AssertionError):
        result = hf.simulate(program)
    assert result.summary["requests"]["completed"] == 40


@needs_pure_core
def test_a_client_that_loses_its_blocks_again_and_again_goes_on_step_by_step() -> None:
    program = hf.compile(
        hf.compose(["pipeline=llm", *LOAD, "workload.rate_per_s=50", "cluster.pools.llm.kv_blocks=700"])
    )
    with patch.object(
        PlainClient, "_advance_plainly", autospec=True, side_effect=PlainClient._advance_plainly
    ) as loops:
        result = hf.simulate(program)
    assert result.requests["preemptions"].sum() > 10
    assert loops.call_count < 100


def test_a_run_that_lasts_longer_than_the_loop_can_count_goes_on_step_by_step() -> None:
    load = ("workload=synthetic", "workload.requests=12", "workload.rate_per_s=0.000002")
    program = hf.compile(hf.compose(["pipeline=llm", *load]))
    assert hf.simulate(program).requests["arrival_s"].max() > 2**62 / 1e12  # type: ignore[operator]
    assert fingerprints(hf.simulate(program), steps=True) == step_by_step(program)


def test_a_client_whose_runs_may_last_longer_than_the_loop_can_count_is_not_plain() -> None:
    spec = hf.compile(hf.compose(["pipeline=llm", *LOAD])).pools[-1].client
    assert isinstance(spec, LLMClientSpec)
    tasks = LLMTasks([1], [1])
    assert is_plain(spec, tasks, Chunked())
    assert not is_plain(replace(spec, kv_blocks=10**9), tasks, Chunked())
