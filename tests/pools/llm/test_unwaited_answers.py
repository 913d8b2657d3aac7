"""A client is not fired for the end of answers that nobody waits for, beside others that somebody waits for."""

from __future__ import annotations

from unittest.mock import patch

from pure_core import needs_pure_core

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.machine import host_ahead as module
from hermes_flow.machine import run
from hermes_flow.pools.llm.earliest_end import EarliestEnd
from hermes_flow.pools.llm.forward_ends import ForwardEnds

GUARDED = (
    *("pipeline=chat_guarded", "workload=synthetic", "workload.requests=60", "workload.rate_per_s=40"),
    *("cluster.pools.llm.count=2", "workload.output_tokens=20"),
)


def fires(program: hf.Program) -> tuple[object, int]:
    with (
        patch.object(EarliestEnd, "fire", autospec=True, side_effect=EarliestEnd.fire) as answers,
        patch.object(ForwardEnds, "fire", autospec=True, side_effect=ForwardEnds.fire) as passes,
    ):
        return fingerprints(hf.simulate(program), steps=True), answers.call_count + passes.call_count


@needs_pure_core
def test_the_guard_of_answers_before_the_last_text_stage_needs_no_events() -> None:
    program = hf.compile(hf.compose([*GUARDED]))
    with patch.object(run, "host_ahead", lambda _: None):
        reported, all_fired = fires(program)
    with patch.object(module, "FEWEST_REQUESTS", 0):
        tables, fired = fires(program)
    assert tables == reported
    assert fired < all_fired - 15


@needs_pure_core
def test_a_router_that_counts_the_tasks_of_many_clients_is_told_of_each_end() -> None:
    counted = (
        "cluster.pools.guard.count=16",
        "cluster.pools.guard.routing=least_requests",
        "workload.rate_per_s=400",
    )
    program = hf.compile(hf.compose([*GUARDED, *counted]))
    with patch.object(run, "host_ahead", lambda _: None):
        reported, _ = fires(program)
    with patch.object(module, "FEWEST_REQUESTS", 0):
        tables, _ = fires(program)
    assert tables == reported
