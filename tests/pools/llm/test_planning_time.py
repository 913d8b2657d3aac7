"""The time in which the host plans a step counts where no look-ahead hides it."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.program.pools import LLMClientSpec

PLAIN = ("pipeline=llm", "workload.requests=5")


def one_decode_us(*overrides: str) -> float:
    program = hf.compile(hf.compose([*PLAIN, *overrides]))
    client = next(pool.client for pool in program.pools if pool.name == "llm")
    assert isinstance(client, LLMClientSpec)
    return client.cost.step_ps([], 1, 1024) / 1e6


def test_a_step_without_look_ahead_takes_the_time_of_planning_more() -> None:
    hidden = one_decode_us()
    assert one_decode_us("cluster.pools.llm.lookahead=0") == pytest.approx(hidden + 1200, abs=1e-3)
    given = one_decode_us("cluster.pools.llm.lookahead=0", "hardware.engine.plan_us=300")
    assert given == pytest.approx(hidden + 300, abs=1e-3)


def test_pipeline_ranks_plan_while_others_work() -> None:
    ranks = "cluster.pools.llm.pipeline_parallel=2"
    assert one_decode_us(ranks, "cluster.pools.llm.lookahead=0") == one_decode_us(ranks)


def test_hardware_without_such_a_figure_takes_none() -> None:
    card = "hardware=rtx4090"
    assert one_decode_us(card, "cluster.pools.llm.lookahead=0") == one_decode_us(card)
