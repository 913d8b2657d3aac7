"""Workloads whose requests wait for answers, and what a run of them shows."""

from __future__ import annotations

import pytest

import hermes_flow as hf

SESSIONS = ("workload=sessions", "workload.sessions=40", "cluster.pools.llm.prefix_cache=true")
every_waiting_workload = pytest.mark.parametrize(
    "workload",
    [("workload=closed_loop", "workload.requests=100"), SESSIONS],
    ids=["closed loop", "sessions"],
)


def check_all_were_served(result: hf.Result, workload: tuple[str, ...]) -> None:
    """Check that every request has an answer, and that turns of sessions found what was said before."""
    counts = result.summary["requests"]
    assert counts["completed"] == counts["submitted"] > 0
    assert (result.requests["ttft_s"] > 0).all()
    assert result.requests["cached_tokens"].sum() > 0 or workload != SESSIONS
