from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import hermes_flow.workload.arrivals as arrivals_package
from hermes_flow.config.schema import SyntheticWorkload
from hermes_flow.errors import ConfigError
from hermes_flow.program.requests import Requests
from hermes_flow.workload.arrivals import arrival_processes
from hermes_flow.workload.arrivals.gamma import Gamma
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.streams import stream

N = 200_000


def requests_of(
    arrivals: Any, requests: int = 1000, rate: float | None = 4.0, scale: float = 1.0, seed: int = 0
) -> Requests:
    workload = SyntheticWorkload("synthetic", "test", requests, rate, arrivals, 100, 10, scale, seed)
    return build_requests(workload, seed)


def instants_s(*args: Any, **kwargs: Any) -> NDArray[np.float64]:
    return requests_of(*args, **kwargs).arrival_ns / 1e9


def unit_gaps(arrivals: Any, rate: float = 4.0) -> NDArray[np.float64]:
    """Gaps in multiples of the mean gap."""
    return np.diff(instants_s(arrivals, N, rate), prepend=0.0) * rate


def normal_cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def truncated_normal_cdf(cv: float) -> Callable[[float], float]:
    """Of gaps N(1, cv) given that they are above 0, divided by their mean."""
    kept = normal_cdf(1 / cv)
    mean = 1 + cv * math.exp(-0.5 / cv**2) / math.sqrt(2 * math.pi) / kept
    return lambda gap: (normal_cdf((gap * mean - 1) / cv) - normal_cdf(-1 / cv)) / kept


CLOSED_FORMS: list[tuple[Any, Callable[[float], float]]] = [
    ("poisson", lambda gap: 1 - math.exp(-gap)),
    ("uniform", lambda gap: min(gap / 2, 1.0)),
    ({"process": "gamma", "cv": 1.0}, lambda gap: 1 - math.exp(-gap)),
    ({"process": "gamma", "cv": math.sqrt(2)}, lambda gap: math.erf(math.sqrt(gap / 2))),
    (
        {"process": "gamma", "cv": 0.5},
        lambda gap: 1 - math.exp(-4 * gap) * sum((4 * gap) ** k / math.factorial(k) for k in range(4)),
    ),
    ({"process": "normal", "cv": 0.2}, truncated_normal_cdf(0.2)),
    ({"process": "normal", "cv": 1.0}, truncated_normal_cdf(1.0)),
]


@pytest.mark.parametrize(("arrivals", "cdf"), CLOSED_FORMS)
def test_gaps_have_the_distribution_of_their_name(arrivals: Any, cdf: Callable[[float], float]) -> None:
    gaps = np.sort(unit_gaps(arrivals))
    expected = np.array([cdf(gap) for gap in gaps])
    distance = np.abs(expected - (np.arange(N) + 0.5) / N).max()
    # Dvoretzky-Kiefer-Wolfowitz: beyond this only once in a million draws.
    assert distance < math.sqrt(math.log(2e6) / (2 * N)) + 1 / N


@pytest.mark.parametrize(
    ("arrivals", "cv"),
    [
        ("poisson", 1.0),
        ("uniform", 1 / math.sqrt(3)),
        ({"process": "gamma", "cv": 3.0}, 3.0),
        ({"process": "gamma", "cv": 0.1}, 0.1),
        ({"process": "normal", "cv": 0.3}, 0.3),
        ({"process": "normal", "cv": 2.0}, 2.0),
    ],
)
@pytest.mark.parametrize("rate", [0.25, 80.0])
def test_the_mean_rate_is_kept(arrivals: Any, cv: float, rate: float) -> None:
    assert abs(unit_gaps(arrivals, rate).mean() - 1) < 5 * cv / math.sqrt(N)


def test_constant_gaps_are_exactly_even_and_the_first_request_comes_after_one() -> None:
    assert requests_of("constant", 3, rate=8.0).arrival_ns.tolist() == [125_000_000, 250_000_000, 375_000_000]
    assert requests_of("constant", 30, rate=3.0).arrival_ns[-1] == 10_000_000_000


def test_a_burst_is_silent_between_its_on_times_and_keeps_the_mean_rate() -> None:
    times = instants_s({"process": "burst", "on_s": 2, "off_s": 6}, N, rate=10.0)
    assert (times % 8).max() < 2
    cycles = math.floor(times[-1] / 8)
    counts = np.bincount((times / 8).astype(int))[:cycles]
    assert abs(counts.mean() / 80 - 1) < 5 / math.sqrt(80 * cycles)
    # Poisson within: the count of a whole cycle varies as much as its mean.
    assert abs(counts.var() / counts.mean() - 1) < 5 * math.sqrt(2 / cycles)


def test_a_burst_with_a_peak_leaves_the_rest_to_the_time_between() -> None:
    times = instants_s({"process": "burst", "on_s": 2, "off_s": 6, "peak": 2.5}, N, rate=10.0)
    share = (times % 8 < 2).mean()
    expected = 2.5 * 2 / 8
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / N)
    assert abs(times[-1] * 10.0 / N - 1) < 5 / math.sqrt(N)


def test_a_burst_with_peak_one_is_plain_poisson() -> None:
    flat = requests_of({"process": "burst", "on_s": 2, "off_s": 6, "peak": 1.0}).arrival_ns
    assert np.abs(flat - requests_of("poisson").arrival_ns).max() <= 1


def stages(*stages: dict[str, Any]) -> dict[str, Any]:
    return {"process": "stages", "stages": list(stages)}


def test_stages_follow_each_other_and_end_the_workload() -> None:
    arrivals = stages(
        {"rate_per_s": 4, "duration_s": 10, "process": "constant"},
        {"rate_per_s": 0, "duration_s": 5},
        {"rate_per_s": 3, "duration_s": 10, "process": "constant"},
    )
    times = instants_s(arrivals, requests=1_000_000_000, rate=None)
    expected = [*(np.arange(1, 41) / 4), *(15 + np.arange(1, 31) / 3)]
    assert times == pytest.approx(expected, abs=1e-9)


def test_the_number_of_requests_limits_the_stages() -> None:
    arrivals = stages({"rate_per_s": 5, "duration_s": 10}, {"rate_per_s": 50, "duration_s": 10})
    every = requests_of(arrivals, requests=100_000).arrival_ns
    few = requests_of(arrivals, requests=120).arrival_ns
    assert len(few) == 120
    assert np.array_equal(few, every[:120])


def test_each_stage_has_its_own_rate_and_draws() -> None:
    first = {"rate_per_s": 50, "duration_s": 400}
    times = instants_s(stages(first, {"rate_per_s": 200, "duration_s": 400}), requests=1_000_000)
    other = instants_s(
        stages({**first, "process": {"process": "gamma", "cv": 2}}, {"rate_per_s": 200, "duration_s": 400}),
        requests=1_000_000,
    )
    early, late = (times <= 400).sum(), (times > 400).sum()
    assert abs(early - 20_000) < 5 * math.sqrt(20_000)
    assert abs(late - 80_000) < 5 * math.sqrt(80_000)
    assert times[-1] <= 800
    assert np.array_equal(times[times > 400], other[other > 400])


def test_a_stage_draws_on_until_its_end_however_bursty() -> None:
    bursty = {"rate_per_s": 10, "duration_s": 1000, "process": {"process": "gamma", "cv": 30}}
    counts = []
    for seed in range(20):
        (stage_rng,) = stream(seed, "arrivals").spawn(1)
        plenty = Gamma(30).instants_s(200_000, 10, stage_rng)
        counts.append(int((plenty <= 1000).sum()))
        assert len(requests_of(stages(bursty), 10**9, seed=seed)) == counts[-1]
    assert max(counts) > 15_000


def test_a_fixed_count_fills_every_stage_to_its_end_with_exponential_gaps() -> None:
    counted = {"process": "poisson_fixed_count"}
    arrivals = stages(
        {"rate_per_s": 5, "duration_s": 600, **counted},
        {"rate_per_s": 0, "duration_s": 7},
        {"rate_per_s": 2.5, "duration_s": 3, **counted},
        {"rate_per_s": 0.29, "duration_s": 100, **counted},
    )
    for seed in range(3):
        times = requests_of(arrivals, requests=10**9, rate=None, seed=seed).arrival_ns / 1e9
        assert [int(((times > begin) & (times <= end)).sum()) for begin, end in COUNTED_STAGES] == [
            3000,
            7,
            29,
        ]
        assert times[[2999, 3006, 3035]] == pytest.approx([600, 610, 710], abs=1e-9)
        gaps = np.sort(np.diff(times[:3000], prepend=0.0) * 5)
        distance = np.abs(1 - np.exp(-gaps) - (np.arange(3000) + 0.5) / 3000).max()
        assert distance < math.sqrt(math.log(2e6) / (2 * 3000)) + 1 / 3000
    assert len(requests_of(arrivals, requests=3002, rate=None)) == 3002


COUNTED_STAGES = ((0, 600), (607, 610), (610, 710))


def test_counts_of_a_fixed_number_vary_as_those_of_a_binomial_distribution() -> None:
    """In one half of the time arrive as many as heads fall: half as much variance as Poisson has."""
    early = [
        int((instants_s("poisson_fixed_count", 400, rate=4.0, seed=seed) <= 50).sum()) for seed in range(400)
    ]
    assert abs(np.mean(early) - 200) < 5 * math.sqrt(100 / 400)
    assert abs(np.var(early) / 100 - 1) < 5 * math.sqrt(2 / 400)


def test_a_closed_loop_has_users_and_think_times_instead_of_arrivals() -> None:
    requests = requests_of({"process": "closed_loop", "concurrency": 7, "think_time_s": 0.25}, 50, rate=None)
    assert requests.concurrency == 7
    assert requests.arrival_ns.tolist() == [0] * 50
    assert requests.think_ns is not None
    assert requests.think_ns.tolist() == [250_000_000] * 50


def test_think_times_can_be_drawn_and_are_not_rounded_to_seconds() -> None:
    think = {"distribution": "lognormal", "mean": 0.5, "cv": 1.0}
    requests = requests_of({"process": "closed_loop", "concurrency": 1, "think_time_s": think}, N, rate=None)
    assert requests.think_ns is not None
    assert abs(requests.think_ns.mean() / 0.5e9 - 1) < 5 / math.sqrt(N)
    below_zero = {"distribution": "normal", "mean": 0.1, "std": 1.0}
    clipped = requests_of({"process": "closed_loop", "concurrency": 1, "think_time_s": below_zero}, rate=None)
    assert clipped.think_ns is not None
    assert clipped.think_ns.min() == 0


OPEN = st.one_of(
    st.sampled_from(["poisson", "uniform", "constant"]),
    st.builds(lambda cv: {"process": "gamma", "cv": cv}, st.floats(0.01, 20)),
    st.builds(lambda cv: {"process": "normal", "cv": cv}, st.floats(0.01, 20)),
    st.builds(
        lambda on, off: {"process": "burst", "on_s": on, "off_s": off},
        st.floats(0.01, 99),
        st.floats(0.01, 99),
    ),
)


@given(arrivals=OPEN, rate=st.floats(1e-3, 1e5), seed=st.integers(0, 2**32), count=st.integers(1, 300))
def test_arrivals_are_sorted_repeatable_and_fewer_are_the_beginning_of_more(
    arrivals: Any, rate: float, seed: int, count: int
) -> None:
    drawn = requests_of(arrivals, count, rate, seed=seed).arrival_ns
    assert drawn.dtype == np.int64
    assert len(drawn) == count
    assert drawn[0] >= 0
    assert (np.diff(drawn) >= 0).all()
    again = requests_of(arrivals, count + 50, rate, seed=seed).arrival_ns
    assert np.array_equal(drawn, again[:count])


@given(arrivals=OPEN, scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_rate_scale_multiplies_the_rate(arrivals: Any, scale: float, seed: int) -> None:
    scaled = requests_of(arrivals, 100, rate=4.0, scale=scale, seed=seed).arrival_ns
    assert np.array_equal(scaled, requests_of(arrivals, 100, rate=4.0 * scale, seed=seed).arrival_ns)


def test_rate_scale_multiplies_the_rates_of_stages() -> None:
    arrivals = stages({"rate_per_s": 4, "duration_s": 10, "process": "constant"})
    assert len(requests_of(arrivals, scale=2.5, rate=None)) == 100


@given(
    rates=st.lists(st.floats(1, 100), min_size=1, max_size=5),
    limit=st.integers(1, 3000),
    seed=st.integers(0, 99),
)
def test_stages_are_sorted_within_their_time_and_within_the_limit(
    rates: list[float], limit: int, seed: int
) -> None:
    arrivals = stages(*({"rate_per_s": rate, "duration_s": 100} for rate in rates))
    drawn = requests_of(arrivals, limit, seed=seed).arrival_ns
    assert len(drawn) <= limit
    assert (np.diff(drawn) >= 0).all()
    assert drawn[-1] <= 100e9 * len(rates)


def test_every_module_of_the_package_registers_the_process_of_its_name() -> None:
    folder = Path(arrivals_package.__file__).parent
    modules = {module.stem for module in folder.glob("*.py")} - {"__init__", "process"}
    assert modules == set(arrival_processes.names)


def gamma(cv: float) -> dict[str, Any]:
    return {"process": "gamma", "cv": cv}


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        ("poison", r"workload.arrivals: unknown arrival process 'poison'; did you mean 'poisson'?"),
        (
            {"cv": 2},
            "workload.arrivals.process: missing; expected one of: burst, closed_loop, constant, gamma,",
        ),
        ({"process": "poisson", "cv": 2}, "workload.arrivals.cv: unknown key"),
        ({"process": "gamma"}, "workload.arrivals.cv: missing"),
        (gamma(0), "workload.arrivals.cv: 0 is out of range"),
        (gamma(math.inf), "workload.arrivals.cv: inf is out of range"),
        ({"process": "normal", "cv": -1}, "workload.arrivals.cv: -1 is out of range"),
        (
            {"process": "burst", "on_s": 0, "off_s": 1},
            "workload.arrivals.on_s: 0 is out of range",
        ),
        ({"process": "burst", "on_s": 1, "off_s": -1}, "workload.arrivals.off_s: -1 is out of range"),
        (
            {"process": "burst", "on_s": 1, "off_s": 3, "peak": 5},
            "workload.arrivals.peak: 5 is not valid; expected a multiple of the mean rate between 1 and "
            "(on_s + off_s)/on_s = 4",
        ),
        (
            {"process": "burst", "on_s": 1, "off_s": 3, "peak": 0.5},
            "workload.arrivals.peak: 0.5 is out of range",
        ),
        (stages(), "workload.arrivals.stages: empty; expected a list of {rate_per_s, duration_s}"),
        (stages({"rate_per_s": 1}), "workload.arrivals.stages.0.duration_s: missing"),
        (
            stages({"rate_per_s": 1, "duration_s": 1}, {"rate_per_s": -1, "duration_s": 1}),
            "workload.arrivals.stages.1.rate_per_s: -1 is out of range",
        ),
        (
            stages({"rate_per_s": 1, "duration_s": 0}),
            "workload.arrivals.stages.0.duration_s: 0 is out of range",
        ),
        (
            stages({"rate_per_s": 1, "duration_s": 1, "process": "poison"}),
            "workload.arrivals.stages.0.process: unknown arrival process 'poison'",
        ),
        (
            stages(
                {"rate_per_s": 1, "duration_s": 1, "process": {"process": "closed_loop", "concurrency": 2}}
            ),
            "workload.arrivals.stages.0.process: ",
        ),
        (
            stages({"rate_per_s": 1e-9, "duration_s": 1}),
            "workload.arrivals.stages: no request arrives before the stages end",
        ),
        (
            {"process": "closed_loop", "concurrency": 0},
            "workload.arrivals.concurrency: 0 is out of range",
        ),
        (
            {"process": "closed_loop", "concurrency": 1, "think_time_s": -1},
            "workload.arrivals.think_time_s: -1 is not valid; expected a number of 0 or more",
        ),
        (
            {
                "process": "closed_loop",
                "concurrency": 1,
                "think_time_s": {"distribution": "fixed", "value": -1},
            },
            "workload.arrivals.think_time_s.value: -1 is out of range",
        ),
        (
            {"process": "closed_loop", "concurrency": 1, "think_time_s": 1e12},
            "workload.arrivals.think_time_s: gives 1e+12 s",
        ),
    ],
)
def test_a_bad_arrival_process_is_refused_by_its_full_key(arrivals: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        requests_of(arrivals)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("rate", "problem"),
    [
        (None, "null; these arrivals need a rate in requests per second"),
        (0.0, "0 is out of range"),
        (-2.0, "-2 is out of range"),
        (math.inf, "inf is out of range"),
        (1e-9, "so low that the last request would come after"),
    ],
)
@pytest.mark.parametrize("arrivals", ["poisson", gamma(2), {"process": "burst", "on_s": 1, "off_s": 1}])
def test_a_rate_is_needed_where_the_process_has_none_of_its_own(
    arrivals: Any, rate: float | None, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        requests_of(arrivals, rate=rate)
    assert str(caught.value).startswith(f"workload.rate_per_s: {problem}")


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf])
def test_a_rate_scale_must_be_above_zero(scale: float) -> None:
    with pytest.raises(
        ConfigError, match=r"^workload\.rate_scale: .* is out of range; expected a number from 1e-6"
    ):
        requests_of("poisson", scale=scale)


def test_a_workload_has_a_request() -> None:
    with pytest.raises(ConfigError, match=r"^workload\.requests: 0 is out of range"):
        requests_of("poisson", requests=0)
