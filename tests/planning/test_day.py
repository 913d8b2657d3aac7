"""A day is planned hour by hour, and says what switching would leave out."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.errors import ConfigError
from hermes_flow.planning.day import IGNORED, plan_day
from hermes_flow.report.plan_text import day_text

SLO = "slo={name: service, ttft_ms: {p99: 1500.0}, tpot_ms: {p90: 30.0}}"


def plan_at(config: hf.Config) -> hf.Plan:
    return hf.plan(config, layouts=("replicas",), tensor_parallel=(1,), headrooms=0)


def test_every_hour_has_the_design_of_its_rate_and_the_day_costs_their_sum() -> None:
    config = hf.compose(["pipeline=llm", "workload.requests=250", SLO])
    day = plan_day(config, [5, 30, 5], plan_at)
    frame = day.frame()
    assert frame["rate_per_s"].to_list() == [5, 30, 5]
    few, many, again = frame["clients"].to_list()
    assert few == again < many
    alone = plan_at(hf.compose(["pipeline=llm", "workload.requests=250", "workload.rate_per_s=30", SLO]))
    assert alone.best is not None
    assert alone.best.accelerators == many
    assert day.usd == pytest.approx(3.99 * (few + many + again))
    assert day.usd_at_peak == pytest.approx(3.99 * 3 * many)
    assert day.summary()["notes"] == [IGNORED]
    text = day_text(day)
    assert "switching" in text
    assert len(text.splitlines()) > 4


def test_a_day_needs_a_workload_with_a_rate() -> None:
    with pytest.raises(ConfigError, match=r"task\.hours: needs a workload with workload\.rate_per_s"):
        plan_day(hf.compose(["workload=closed_loop", SLO]), [1.0], plan_at)
