"""A plan says which designs cannot be told from the best one, and is the same in one process and in several."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from functools import partial

import pytest

import hermes_flow as hf
from hermes_flow.config.schema import Hardware
from hermes_flow.metrics.error_bars.bars import StepTimes
from hermes_flow.planning import processes
from hermes_flow.planning.designs import Clients, Family, design_config
from hermes_flow.planning.perturbed import with_step_times
from hermes_flow.planning.plan import Design
from hermes_flow.planning.plan_bars import Sizes, compared_with_the_best
from hermes_flow.planning.processes import Workers
from hermes_flow.planning.sizing import Sized
from hermes_flow.planning.verdict import judge
from hermes_flow.report.plan_text import plan_text

BAR = StepTimes(0.9, 1.1, "h100_sxm measured, this model not")
QUESTION = ["pipeline=llm", "workload.requests=200", "workload.rate_per_s=30"]


def machine(price: float | None) -> Hardware:
    return replace(hf.compose(["hardware=h100_sxm"]).hardware, usd_per_hour=price)


def design(price: float | None, clients: int, low: int, high: int | None) -> Design:
    family = Family(machine(price), "replicas", 1, 1, "chunked", 8192)
    sizes = Sizes(BAR, Clients(low), None if high is None else Clients(high))
    return Design(Sized(family, Clients(clients)), {}, sizes=sizes)


@pytest.mark.parametrize(
    ("best", "other", "alike"),
    [
        ((1.0, 4, 4, 5), (1.0, 6, 5, 7), True),
        ((1.0, 4, 4, 5), (1.0, 7, 6, 8), False),
        ((1.0, 4, 4, None), (1.0, 90, 80, 99), True),  # with long steps no size of the best one meets the SLO
        ((1.0, 4, 4, 5), (None, 4, 4, 4), None),  # a price never compares with accelerators
        ((None, 4, 4, 6), (None, 6, 5, 7), True),
    ],
)
def test_designs_are_alike_if_their_bars_overlap(
    best: tuple[float | None, int, int, int | None],
    other: tuple[float | None, int, int, int | None],
    alike: bool | None,
) -> None:
    first, second = compared_with_the_best([design(*best), design(*other)])
    assert first.like_the_best is None
    assert second.like_the_best is alike


def test_sizes_at_the_ends_of_the_bar_meet_the_slo_with_such_steps() -> None:
    config = hf.compose(QUESTION)
    found = hf.plan(config, layouts=("replicas",), tensor_parallel=(1, 2), headrooms=0)
    assert found.best is not None
    ends = [
        (each.family, clients, factor)
        for each in found.ranked
        if each.sizes is not None
        for clients, factor in (
            (each.sizes.low, each.sizes.step_times.low),
            (each.sizes.high, each.sizes.step_times.high),
        )
    ]
    assert (
        sum(clients is not None for _, clients, _ in ends) >= 3
    )  # with long steps one device never meets it
    for family, clients, factor in ends:
        if clients is not None:
            program = hf.compile(design_config(config, family, clients))
            assert judge(with_step_times(program, factor), early=False).met
    rows = found.designs
    assert (rows["usd_per_hour_low"] <= rows["usd_per_hour"]).all()
    assert (rows["usd_per_hour"] <= rows["usd_per_hour_high"]).all()
    assert rows["like_the_best"][0] is None
    text = plan_text(found, config)
    assert "With the error bar of its step times" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())


def squared(number: int, plus: int = 0) -> int:
    return number * number + plus


def test_several_processes_give_the_results_of_one_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_AFTER_S", -1.0)
    seen: list[int] = []
    with Workers(2, squared, 1) as workers:
        found = workers.map(partial(squared, plus=1), range(20), on_result=seen.append)
        late = workers.map(squared, range(20), until=lambda done: len(done) >= 1)
    assert found == [number * number + 1 for number in range(20)]
    assert sorted(seen) == found
    assert 1 <= len(late) < 20


def test_a_process_that_a_launcher_has_started_starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_AFTER_S", -1.0)
    monkeypatch.setattr(multiprocessing.current_process(), "name", "LokyProcess-1")
    with Workers(2, squared, 1) as workers:
        assert workers.map(squared, [1, 2, 3, 4, 5]) == [1, 4, 9, 16, 25]
        assert workers._executor is None
