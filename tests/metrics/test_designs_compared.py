"""Pareto fronts, effects of keys and the declared figures, against hand-made tables and a naive search."""

from __future__ import annotations

import random
from itertools import product

import polars as pl
import pytest

from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.effects import effects
from hermes_flow.metrics.figures import figure, figures_of, slo_met
from hermes_flow.metrics.pareto import pareto_front


def test_a_design_that_another_beats_in_both_figures_is_off_the_front() -> None:
    cost_and_goodput = [(1.0, 5.0), (2.0, 9.0), (2.0, 7.0), (3.0, 9.0)]
    assert pareto_front(cost_and_goodput, ("low", "high")).tolist() == [True, True, False, False]


def test_equal_designs_are_both_on_the_front_and_unknown_figures_never() -> None:
    rows = [(1.0, 1.0), (1.0, 1.0), (None, 0.0)]
    assert pareto_front(rows, ("low", "low")).tolist() == [True, True, False]


@pytest.mark.parametrize("seed", range(20))
def test_fronts_over_three_figures_are_those_of_a_naive_search(seed: int) -> None:
    draw = random.Random(seed)
    rows = [tuple(float(draw.randint(0, 5)) for _ in range(3)) for _ in range(30)]
    better = tuple(draw.choice(("low", "high")) for _ in range(3))
    signs = [1 if direction == "low" else -1 for direction in better]

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        pairs = [(s * a, s * b) for s, a, b in zip(signs, one, other, strict=True)]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    expected = [not any(beats(other, row) for other in rows) for row in rows]
    assert pareto_front(rows, better).tolist() == expected  # type: ignore[arg-type]


def test_a_front_needs_a_value_for_every_figure() -> None:
    with pytest.raises(HermesFlowError, match="over 2 figures"):
        pareto_front([(1.0,)], ("low", "low"))


def sweep(function: object, **values: list[object]) -> pl.DataFrame:
    """Return the table of a grid whose figure ``y`` is the function of its keys."""
    assert callable(function)
    rows = [
        {
            "job": number,
            **dict(zip(values, place, strict=True)),
            "status": "completed",
            "error": None,
            "y": function(*place),
        }
        for number, place in enumerate(product(*values.values()))
    ]
    return pl.DataFrame(rows)


def test_the_effect_of_a_key_is_the_ratio_over_pairs_that_differ_in_it_alone() -> None:
    frame = sweep(lambda a, b: 2.0**a * 3.0**b, a=[0, 1, 2], b=[0, 1])
    found = {(each.key, each.before, each.after): each for each in effects(frame, ["y"])}
    assert found["a", 0, 1].ratios["y"] == pytest.approx(2.0)
    assert found["a", 1, 2].pairs == 2
    assert found["b", 0, 1].ratios["y"] == pytest.approx(3.0)
    assert found["b", 0, 1].pairs == 3


def test_keys_that_always_change_together_have_no_effect_of_their_own() -> None:
    frame = sweep(lambda a, b: a + b, a=[1, 2], b=[1, 2]).filter(pl.col("a") == pl.col("b"))
    assert effects(frame, ["y"]) == []


def test_figures_know_their_unit_and_which_direction_is_better() -> None:
    assert figure("ttft_s.p99").text(0.25) == "250 ms"
    assert figure("ttft_s.p99").better == "low"
    assert figure("slo.attainment").text(0.5) == "50 %"
    assert figure("slo.goodput_requests_per_s").better == "high"
    assert figure("stages.prefill.queue_mean_s").title == "prefill queue mean"
    assert figure("something.new").better is None
    assert figure("pools.llm.busy_fraction").better is None


def test_figures_of_a_summary_are_its_numbers_without_those_of_the_simulator() -> None:
    summary = {"ttft_s": {"p50": 1.0}, "slo": {"name": "chat"}, "engine": {"wall_s": 3.0}, "warnings": ["x"]}
    assert figures_of(summary) == {"ttft_s.p50": 1.0}


def test_an_slo_is_met_if_all_its_bounds_are() -> None:
    assert slo_met({"slo.bounds.ttft_p99_s.met": True, "slo.bounds.tpot_p90_s.met": False}) is False
    assert slo_met({"slo.bounds.ttft_p99_s.met": True}) is True
    assert slo_met({"ttft_s.p50": 1.0}) is None
