from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import hermes_flow.workload.lengths as lengths_package
from hermes_flow.config.schema import SyntheticWorkload
from hermes_flow.errors import ConfigError
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.lengths import length_distributions, parse_distribution, parse_lengths
from hermes_flow.workload.streams import stream

N = 200_000
# Dvoretzky-Kiefer-Wolfowitz: an empirical distribution is further off only once in a million draws.
DISTANCE = math.sqrt(math.log(2e6) / (2 * N))


def lengths(value: Any, count: int = N, seed: int = 0) -> NDArray[np.int64]:
    workload = SyntheticWorkload("synthetic", "test", count, 1.0, "constant", value, 1, 1.0, seed)
    return build_requests(workload, seed).input_tokens


def values(value: Any, seed: int = 0) -> NDArray[np.float64]:
    """The draws before they become whole tokens."""
    distribution = parse_distribution(value, "think_time_s", whole=False)
    return distribution.sample(N, stream(seed, "test"), whole=False)


def test_a_whole_number_is_shorthand_for_fixed() -> None:
    assert lengths(512, 3).tolist() == [512, 512, 512]
    assert lengths({"distribution": "fixed", "value": 512}, 3).tolist() == [512, 512, 512]


def test_uniform_gives_every_whole_number_between_its_bounds_equally_often() -> None:
    drawn = lengths({"distribution": "uniform", "min": 3, "max": 7})
    found, counts = np.unique(drawn, return_counts=True)
    assert found.tolist() == [3, 4, 5, 6, 7]
    assert np.abs(counts / N - 0.2).max() < 5 * math.sqrt(0.2 * 0.8 / N)


def test_uniform_of_seconds_is_continuous() -> None:
    drawn = np.sort(values({"distribution": "uniform", "min": 0.5, "max": 2.5}))
    assert np.abs((drawn - 0.5) / 2 - np.arange(N) / N).max() < DISTANCE + 1 / N


def test_normal_has_its_mean_and_standard_deviation() -> None:
    drawn = lengths({"distribution": "normal", "mean": 375, "std": 60})
    assert abs(drawn.mean() - 375) < 5 * 60 / math.sqrt(N)
    # Rounding to whole tokens adds a variance of 1/12.
    assert abs(drawn.std() - math.sqrt(60**2 + 1 / 12)) < 5 * 60 / math.sqrt(2 * N)


def test_lognormal_by_mean_and_cv_has_them() -> None:
    drawn = lengths({"distribution": "lognormal", "mean": 1000, "cv": 0.5})
    assert abs(drawn.mean() / 1000 - 1) < 5 * 0.5 / math.sqrt(N)
    sigma = math.sqrt(math.log(1 + 0.5**2))
    logs = np.log(values({"distribution": "lognormal", "mean": 1000, "cv": 0.5}))
    assert abs(logs.std() - sigma) < 5 * sigma / math.sqrt(2 * N)


def test_lognormal_by_median_and_p99_has_them() -> None:
    drawn = lengths({"distribution": "lognormal", "median": 800, "p99": 6000})
    assert abs((drawn <= 800).mean() - 0.5) < 5 * 0.5 / math.sqrt(N)
    assert abs((drawn > 6000).mean() - 0.01) < 5 * math.sqrt(0.01 * 0.99 / N)


POINTS = {0: 10, 0.1: 20, 0.5: 100, 0.9: 100, 1: 1000}


@pytest.mark.parametrize("points", [POINTS, [list(point) for point in POINTS.items()]])
def test_quantiles_are_met_and_linear_between(points: Any) -> None:
    drawn = values({"distribution": "quantiles", "points": points})
    assert drawn.min() >= 10
    assert drawn.max() <= 1000
    for quantile, value in [(0.05, 15), (0.1, 20), (0.3, 60), (0.95, 550)]:
        assert abs((drawn <= value).mean() - quantile) < DISTANCE
    assert abs((drawn == 100).mean() - 0.4) < 5 * math.sqrt(0.4 * 0.6 / N)


def test_choice_takes_values_by_weight() -> None:
    drawn = lengths({"distribution": "choice", "values": [128, 512, 2048], "weights": [5, 3, 2]})
    for value, share in [(128, 0.5), (512, 0.3), (2048, 0.2)]:
        assert abs((drawn == value).mean() - share) < 5 * math.sqrt(share * (1 - share) / N)
    plain = lengths({"distribution": "choice", "values": [1, 2]})
    assert abs((plain == 1).mean() - 0.5) < 5 * 0.5 / math.sqrt(N)
    never = lengths({"distribution": "choice", "values": [1, 2], "weights": [0, 1]})
    assert (never == 2).all()


CLIPPABLE = [
    {"distribution": "normal", "mean": 200, "std": 150},
    {"distribution": "lognormal", "mean": 200, "cv": 2.0},
    {"distribution": "quantiles", "points": [[0, 1], [1, 900]]},
]


@pytest.mark.parametrize("distribution", CLIPPABLE)
def test_bounds_clip_and_leave_the_other_lengths_as_they_were(distribution: dict[str, Any]) -> None:
    free = lengths(distribution)
    bounded = lengths({**distribution, "min": 100, "max": 300})
    assert (free < 100).any()
    assert (free > 300).any()
    assert np.array_equal(bounded, np.clip(free, 100, 300))


DISTRIBUTIONS = st.one_of(
    st.integers(1, 10**6),
    st.builds(
        lambda low, more: {"distribution": "uniform", "min": low, "max": low + more},
        st.integers(1, 10**5),
        st.integers(0, 10**5),
    ),
    st.builds(
        lambda mean, std: {"distribution": "normal", "mean": mean, "std": std},
        st.floats(0.01, 1e6),
        st.floats(0, 1e6),
    ),
    st.builds(
        lambda mean, cv: {"distribution": "lognormal", "mean": mean, "cv": cv},
        st.floats(0.01, 1e4),
        st.floats(0.01, 5),
    ),
    st.builds(
        lambda values: {
            "distribution": "quantiles",
            "points": [[0, values[0]], [0.5, values[1]], [1, values[2]]],
        },
        st.lists(st.floats(1, 1e6), min_size=3, max_size=3).map(sorted),
    ),
    st.builds(
        lambda values: {"distribution": "choice", "values": values},
        st.lists(st.integers(1, 10**6), min_size=1, max_size=5),
    ),
)


@given(value=DISTRIBUTIONS, seed=st.integers(0, 2**32), count=st.integers(1, 200))
def test_lengths_are_whole_at_least_one_and_fewer_are_the_beginning_of_more(
    value: Any, seed: int, count: int
) -> None:
    drawn = lengths(value, count, seed)
    assert drawn.dtype == np.int64
    assert drawn.min() >= 1
    assert np.array_equal(drawn, lengths(value, count + 50, seed)[:count])


def test_input_and_output_lengths_are_drawn_apart() -> None:
    spread = {"distribution": "uniform", "min": 1, "max": 10**6}
    workload = SyntheticWorkload("synthetic", "test", N, 1.0, "poisson", spread, spread)
    requests = build_requests(workload, 0)
    correlation = np.corrcoef(requests.input_tokens, requests.output_tokens)[0, 1]
    assert abs(correlation) < 5 / math.sqrt(N)


def test_every_module_of_the_package_registers_the_distribution_of_its_name() -> None:
    folder = Path(lengths_package.__file__).parent
    modules = {module.stem for module in folder.glob("*.py")} - {"__init__", "distribution"}
    assert modules == set(length_distributions.names)


def points(*pairs: Any) -> dict[str, Any]:
    return {"distribution": "quantiles", "points": list(pairs)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, ": 0 is out of range; expected an integer from 1"),
        (2.5, ": 2.5 is not an integer"),
        ({"distribution": "lognormale", "mean": 1, "cv": 1}, ".distribution: unknown length distribution"),
        ({"value": 1}, ".distribution: missing; expected one of: choice, exponential, fixed, lognormal,"),
        ({"distribution": "fixed"}, ".value: missing"),
        ({"distribution": "fixed", "value": 0}, ".value: 0 is not valid; expected a whole number"),
        ({"distribution": "fixed", "value": 1.5}, ".value: 1.5 is not valid"),
        (
            {"distribution": "uniform", "min": 5, "max": 4},
            ".min: 5 is above workload.input_tokens.max, which is 4",
        ),
        ({"distribution": "uniform", "min": 0, "max": 4}, ".min: 0 is not valid; expected a whole number"),
        (
            {"distribution": "normal", "mean": 0, "std": 1},
            ".mean: 0 is not valid; expected a number greater than 0",
        ),
        (
            {"distribution": "normal", "mean": 1, "std": -1},
            ".std: -1 is out of range",
        ),
        ({"distribution": "normal", "mean": 1, "std": 1, "max": 0.5}, ".max: 0.5 is not valid"),
        ({"distribution": "normal", "mean": 1, "std": 1, "min": math.inf}, ".min: inf is out of range"),
        (
            {"distribution": "normal", "mean": 1e300, "std": 1},
            ".mean: 1e+300 is out of range",
        ),
        ({"distribution": "lognormal"}, ": has none of them; expected mean and cv, or median and p99"),
        ({"distribution": "lognormal", "mean": 5, "p99": 9}, ": has mean and p99; expected mean and cv, or"),
        ({"distribution": "lognormal", "mean": 0, "cv": 1}, ".mean: 0 is not valid"),
        (
            {"distribution": "lognormal", "mean": 5, "cv": 1000},
            ".cv: 1,000 is out of range",
        ),
        ({"distribution": "lognormal", "median": 5, "p99": 4}, ".p99: 4 is below the median, 5"),
        ({"distribution": "choice", "values": []}, ".values: empty; expected a list of lengths"),
        ({"distribution": "choice", "values": [1, 0]}, ".values.1: 0 is not valid; expected a whole number"),
        ({"distribution": "choice", "values": [1], "weights": [1, 2]}, ".weights: 2 weights for 1 values"),
        ({"distribution": "choice", "values": [1], "weights": [-1]}, ".weights.0: -1 is out of range"),
        ({"distribution": "choice", "values": [1], "weights": [0]}, ".weights: all are 0"),
        (
            points([0, 1], [0.5, 2]),
            ".points: expected points from quantile 0 (the smallest) to 1 (the largest)",
        ),
        (points([0, 1], [0.5, 2], [0.5, 3], [1, 4]), ".points: quantile 0.5 follows 0.5; expected rising"),
        (points([0, 1], [0.5, 5], [1, 4]), ".points: quantile 1 is 4, below quantile 0.5, which is 5"),
        (points([0, 0], [1, 4]), ".points: quantile 0 is 0; expected 1 or more"),
        (points([0, 1], [1]), ".points: [1] is not valid; expected a quantile and its value, both numbers"),
        (
            {"distribution": "quantiles", "points": {"p0": 1, "p50": 3}},
            ".points: p0: 1 is not valid; expected",
        ),
        (
            {"distribution": "quantiles", "points": 5},
            ".points: 5 is not valid; expected a mapping from quantile",
        ),
    ],
)
def test_a_bad_length_distribution_is_refused_by_its_full_key(value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lengths(value)
    assert str(caught.value).startswith("workload.input_tokens" + message)


def test_the_key_of_the_outputs_is_named_as_well() -> None:
    workload = SyntheticWorkload(
        "synthetic", "test", 1, 1.0, "poisson", 1, {"distribution": "fixed", "value": 0}
    )
    with pytest.raises(ConfigError, match=r"^workload\.output_tokens\.value: 0"):
        build_requests(workload, 0)


def test_a_parsed_distribution_of_tokens_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"^here\.min"):
        parse_lengths({"distribution": "uniform", "min": 0, "max": 1}, "here")
