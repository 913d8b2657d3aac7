"""Intervals of left-out errors hold for models that none of the runs had."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from benchmarks.left_out_intervals import Intervals, LeftOutError


def errors(by_model: dict[str, list[float]], group: str = "") -> list[LeftOutError]:
    """Return errors (logarithms) of models on one GPU."""
    groups = (group,) if group else ()
    return [
        LeftOutError(math.exp(error), groups, model, model)
        for model, values in by_model.items()
        for error in values
    ]


def test_an_interval_of_models_without_a_bias_is_that_of_a_naive_count() -> None:
    """The size of each left-out model is the mean error of the others; the factor covers four of five of all runs."""
    by_model = {"a": [0.1, -0.1], "b": [0.3, -0.3], "c": [-0.2, 0.2, 0.0]}
    scores = []
    for model, values in by_model.items():
        others = [abs(error) for other, all_of in by_model.items() if other != model for error in all_of]
        scores += [abs(value) / (sum(others) / len(others)) for value in values]
    everything = [abs(value) for values in by_model.values() for value in values]
    half = float(np.quantile(scores, 0.8)) * sum(everything) / len(everything)
    bar = Intervals(errors(by_model)).interval(())
    assert (bar.low, bar.high) == pytest.approx((math.exp(-half), math.exp(half)))
    assert bar.runs == 7


def test_the_bias_that_all_models_share_is_the_centre_and_makes_the_interval_narrower() -> None:
    by_model = {name: [0.5 + 0.01 * index, 0.5 - 0.01 * index] for index, name in enumerate("abcdef")}
    intervals = Intervals(errors(by_model))
    bar = intervals.interval(())
    assert intervals.depth == 1
    assert bar.low < math.exp(0.5) < bar.high
    assert bar.low > 1.4
    assert intervals.fit().half_width < 0.5 * intervals.fit().median_error


def test_a_bias_of_one_model_is_not_that_of_others() -> None:
    by_model = {"a": [0.5, 0.5, 0.5], "b": [0.01, -0.01], "c": [-0.02, 0.02], "d": [-0.5, -0.5, -0.5]}
    intervals = Intervals(errors(by_model))
    assert intervals.depth == 0
    bar = intervals.interval(())
    assert bar.low * bar.high == pytest.approx(1.0)


def test_a_group_with_small_errors_has_a_narrower_interval_and_an_unknown_one_that_of_all() -> None:
    small = errors({name: [0.02, -0.02, 0.03] for name in "abc"}, "small")
    large = errors({name: [0.2, -0.2, 0.3] for name in "def"}, "large")
    intervals = Intervals([*small, *large])
    widths = [
        bar.high / bar.low for bar in (intervals.interval((name,)) for name in ("small", "new", "large"))
    ]
    assert widths[0] < widths[1] < widths[2]


def test_a_group_that_has_all_runs_of_the_group_around_it_changes_nothing() -> None:
    by_model = {name: [0.5 + 0.01 * index, 0.4 - 0.02 * index] for index, name in enumerate("abcdef")}
    alone, inner = Intervals(errors(by_model)), Intervals(errors(by_model, "engine"))
    assert alone.depth == 1
    assert inner.interval(("engine",)) == alone.interval(())


def test_the_size_of_a_group_counts_as_often_as_parts_of_it_are_left_out() -> None:
    """All runs are on one GPU, so one model is left out at a time: three parts of the group, and six of all."""
    by_group = {"small": 0.1, "large": 0.4}
    on_one_gpu = [
        LeftOutError(math.exp(sign * size), (group,), "gpu", f"{group} {model}")
        for group, size in by_group.items()
        for model, sign in product(range(3), (-1, 1))
    ]
    intervals = Intervals(on_one_gpu)
    halves = {name: math.log(intervals.interval((name,)).high) for name in by_group}
    # (3 * 0.1 + 0.25) / 4 and (3 * 0.4 + 0.25) / 4
    assert halves["large"] / halves["small"] == pytest.approx(0.3625 / 0.1375)


def test_four_of_five_runs_of_models_never_seen_are_covered_whatever_the_models_share() -> None:
    """Models have biases of their own (0.1), and runs scatter around them (0.05); in one class twice as much."""
    random = np.random.default_rng(7)
    inside, strictly = [], []
    for _ in range(12):
        drawn = []
        for model, wide in product(range(8), (1, 2)):
            bias = 0.1 * wide * random.normal()
            values = bias + 0.05 * wide * random.normal(size=12)
            drawn += errors({f"{model} of {wide}": list(values)}, f"class {wide}")
        known, new = drawn[: 12 * 12], drawn[12 * 12 :]
        intervals = Intervals(known)
        strictly.append(intervals.fit().strictly)
        for each in new:
            bar = intervals.interval(each.groups)
            inside.append(bar.low <= each.error <= bar.high)
    assert 0.72 <= np.mean(inside) <= 0.88
    assert 0.72 <= np.mean(strictly) <= 0.86
