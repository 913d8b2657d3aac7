"""The capacity search gives what a fine grid of whole simulations gives."""

from __future__ import annotations

import itertools

import pytest

import hermes_flow as hf
from hermes_flow.errors import ConfigError
from hermes_flow.planning.keys import with_value
from hermes_flow.planning.perturbed import with_step_times
from hermes_flow.planning.probes import Probe
from hermes_flow.planning.search import Search
from hermes_flow.planning.verdict import Verdict, judge

LLM = ["pipeline=llm", "workload.requests=400"]
DESIGNS = [
    [],
    ["hardware=l40s"],
    ["cluster.pools.llm.batching=continuous"],
    ["cluster.pools.llm.count=2", "cluster.routing=least_requests"],
    ["cluster=disaggregated"],
    ["model=qwen3_14b", "cluster.pools.llm.tensor_parallel=2"],
    ["workload=synthetic", "workload.requests=400"],
]


@pytest.mark.parametrize("overrides", DESIGNS, ids=lambda names: " ".join(names) or "default")
def test_the_capacity_is_that_of_a_grid_of_whole_runs(overrides: list[str]) -> None:
    config = hf.compose([*LLM, *overrides])
    found = hf.capacity(config, seeds=1, tolerance=0.03, error_bar=False)
    assert found.value is not None
    at_value = judge(hf.compile(with_value(config, found.over, found.value)), early=False)
    # Verdicts alternate within a few percent of the capacity, where single requests decide.
    beyond = judge(hf.compile(with_value(config, found.over, found.value * 1.05)), early=False)
    assert at_value.met
    assert not beyond.met


@pytest.mark.parametrize(
    "overrides",
    [
        ["pipeline=chat"],
        ["pipeline=chat", "cluster=disaggregated"],
        ["pipeline=llm", "workload=synthetic"],
        ["pipeline=reasoning_multi", "cluster.pools.llm.prefix_cache=true", "slo.tpot_ms={p90: 20.0}"],
        ["pipeline=llm", "workload=sessions", "workload.sessions=60", "cluster.pools.llm.prefix_cache=true"],
        ["pipeline=llm", "workload=closed_loop", "slo={name: tight, ttft_ms: {p90: 60.0}}"],
    ],
    ids=" ".join,
)
def test_a_run_that_ends_early_has_the_verdict_of_the_whole_run(overrides: list[str]) -> None:
    config = hf.compose(overrides)
    key = "workload.arrivals.concurrency" if "workload=closed_loop" in overrides else "workload.rate_per_s"
    values = (4, 64, 256) if key.endswith("concurrency") else (0.5, 4.0, 9.0, 20.0, 21.5, 40.0, 200.0)
    size = {"workload.requests": 300} if hasattr(config.workload, "requests") else {}
    ended_early = 0
    load_alone_stops = "workload=closed_loop" in overrides or "workload=sessions" in overrides
    for value, seed in itertools.product(values, (0, 1)):
        changed = with_value(with_value(config, key, value), "workload.seed", seed)
        for name, count in size.items():
            changed = with_value(changed, name, count)
        program = hf.compile(changed)
        whole, early = judge(program, early=False), judge(program)
        assert early.met == whole.met
        assert set(early.failing) <= set(whole.failing)
        assert early.sustained in (None, whole.sustained)
        ended_early += early.share < 1 or not early.bounds
    assert ended_early or load_alone_stops


CLASSES = (
    "workload.classes={slow: {share: 0.5, output_tokens: 1500, slo: {ttft_ms: {p90: 60000.0}}}, "
    "quick: {share: 0.5, output_tokens: 50}}"
)
BRIEF = (
    "workload.classes={brief: {share: 0.5, output_tokens: 50, slo: {e2e_ms: {p90: 9000.0}}}, "
    "long: {share: 0.5, output_tokens: 1500}}"
)


@pytest.mark.parametrize(
    ("overrides", "stops"),
    [
        ([CLASSES, "slo={name: others, e2e_ms: {p90: 9000.0}}"], False),  # only of the quick ones
        ([CLASSES, "slo={name: others, e2e_ms: {p90: 900.0}}"], True),
        ([BRIEF, "slo={name: others, ttft_ms: {p90: 60000.0}}"], False),  # the bound of the brief ones
        (["slo={name: both, within: {share: 0.9, ttft_ms: 400.0, tpot_ms: 30.0}}"], True),
        (["workload.timeout_s=5", "slo={name: patient, ttft_ms: {p99: 100.0}}"], True),
    ],
)
def test_only_the_requests_of_a_bound_end_a_run_early(overrides: list[str], stops: bool) -> None:
    """Classes have bounds of their own, an attainment joins limits, and a request that fails counts no more."""
    config = hf.compose(["pipeline=llm", "workload=synthetic", "workload.requests=300", *overrides])
    ended_early = 0
    for rate in (15.0, 60.0, 400.0):
        program = hf.compile(with_value(config, "workload.rate_per_s", rate))
        whole, early = judge(program, early=False), judge(program)
        assert early.met == whole.met
        assert set(early.failing) <= set(whole.failing)
        ended_early += early.share < 1 or (not early.bounds and not early.met)
    assert bool(ended_early) == stops


def test_the_fewest_clients_are_found_for_a_given_load() -> None:
    config = hf.compose([*LLM, "workload.rate_per_s=45"])
    found = hf.capacity(config, "cluster.pools.llm.count", seeds=2)
    assert found.direction == "lowest"
    assert isinstance(found.value, int)
    assert judge(hf.compile(with_value(config, found.over, found.value)), early=False).met
    assert not judge(hf.compile(with_value(config, found.over, found.value - 1)), early=False).met
    assert found.interval is not None
    assert found.interval[0] <= found.value <= found.interval[1]


def test_a_search_of_clients_ends_at_one_for_each_request() -> None:
    """All 100 requests arrive before any is finished, so no number of clients bounds the backlog."""
    config = hf.compose(["pipeline=llm", "workload.requests=100", "workload.rate_per_s=400"])
    found = hf.capacity(config, "cluster.pools.llm.count", seeds=1, tolerance=0.2)
    assert found.sustained is None
    assert max(probe.value for probe in found.probes) <= 100
    assert any("even with 100 clients for 100 requests" in note for note in found.notes)


@pytest.mark.parametrize(("key", "most"), [("min", 3), ("max", 12)])
def test_a_search_of_an_autoscaler_stays_within_what_is_allowed(key: str, most: int) -> None:
    scale = "{policy: target, metric: in_flight_per_client, target: 4, min: 1, max: 3, interval_s: 5, startup_s: 1}"
    config = hf.compose([*LLM, "workload.requests=12", f"cluster.pools.llm.autoscale={scale}"])
    tried: list[float] = []
    with pytest.raises(
        ConfigError, match=rf"the SLO is met at every value of cluster.pools.llm.autoscale.{key}"
    ):
        hf.capacity(
            config, f"cluster.pools.llm.autoscale.{key}", seeds=1, on_probe=lambda it: tried.append(it.value)
        )
    assert max(tried) == most  # max, or a client for each request


def test_a_load_whose_backlog_still_grows_is_not_sustained() -> None:
    """With 100 requests in two seconds the run ends before its queue hurts anyone."""
    bounds = "slo={name: loose, ttft_ms: {p90: 60000.0}}"
    config = hf.compose(["pipeline=llm", "workload.requests=300", bounds])
    found = hf.capacity(config, seeds=1)
    assert found.value is not None
    assert found.sustained is not None
    assert found.sustained < found.value
    assert any("only because the run ends" in note for note in found.notes)


@pytest.mark.parametrize(
    ("missed", "value"),
    [
        ([(19.0, 21.0), (25.0, 99.0)], 19.0),  # bisection alone ends at 25
        ([(19.9, 20.6), (23.0, 99.0)], 19.9),
        ([(20.0, 20.3), (22.0, 99.0)], 20.0),
    ],
)
def test_verdicts_that_alternate_are_found_and_said(
    missed: list[tuple[float, float]], value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates within some intervals miss the SLO; from 10 on the backlog grows."""

    def simulate(_: Search, rate: float, seed: int) -> Probe:
        met = not any(low <= rate < high for low, high in missed)
        return Probe(rate, seed, Verdict(met, rate < 10, () if met else ("ttft_p90_s",)))

    monkeypatch.setattr(Search, "_simulate", simulate)
    monkeypatch.setattr("hermes_flow.planning.search.judge_backlog", lambda program: False)
    found = hf.capacity(hf.compose(LLM), seeds=1, error_bar=False)
    assert not found.monotone
    assert found.value == pytest.approx(value, rel=0.02)
    assert found.value < value
    assert any("are not monotone: the SLO is missed at" in note for note in found.notes)


def test_a_trace_is_searched_over_its_speed(tmp_path) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"{0.2 * index:.1f},800,100" for index in range(200)]
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n")
    found = hf.capacity(hf.compose(["pipeline=llm", "workload=trace", f"workload.path={path}"]))
    assert found.over == "workload.rate_scale"
    assert found.value is not None
    assert found.value > 1
    assert len({probe.seed for probe in found.probes}) == 1  # a trace is the same for every seed


def test_nothing_is_found_where_no_load_meets_the_slo() -> None:
    config = hf.compose([*LLM, "slo={name: impossible, ttft_ms: {p50: 1.0}}"])
    found = hf.capacity(config, seeds=1)
    assert found.value is None
    assert found.limiting == ("ttft_p50_s",)
    assert found.summary()["value"] is None


@pytest.mark.parametrize(
    ("overrides", "over", "message"),
    [
        (["slo=none"], None, "slo: has no bounds"),
        ([], "cluster.pools.llm.cuont", "there is no key 'cluster.pools.llm.cuont'; did you mean 'count'?"),
        ([], "model.name", "model.name is 'llama3_8b'; expected a key with a number above 0"),
        ([], "cluster.pools.llm.kv_blocks", "cluster.pools.llm.kv_blocks is null"),
        (
            [],
            "cluster.pools.llm",
            "is a group of keys; expected a key with a number above 0, as cluster.pools.llm.count",
        ),
        ([], "workload.rate", "expected one of: rate_per_s, rate_scale, requests"),
        (["cluster.routing_stale_ms=1"], "cluster.routing_stale_ms", "nothing limits it"),
        (
            ["cluster.pools.llm.autoscale={policy: schedule, at: {0: 1}, max: 2}"],
            "cluster.pools.llm.count",
            "task.over: cluster.pools.llm.autoscale changes the number of clients",
        ),
    ],
)
def test_what_cannot_be_searched_is_an_error(overrides: list[str], over: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hf.capacity(hf.compose([*LLM, *overrides, "workload.requests=40"]), over, seeds=1)
    assert message in str(caught.value)


def test_one_client_is_the_answer_where_it_meets_the_slo() -> None:
    found = hf.capacity(hf.compose([*LLM, "workload.requests=40"]), "cluster.pools.llm.count", seeds=2)
    assert found.value == 1
    assert "the SLO is met with the fewest clients that were tried, 1" in found.notes


def test_the_interval_holds_the_answers_with_shorter_and_with_longer_steps() -> None:
    config = hf.compose(LLM)
    found = hf.capacity(config, seeds=1, tolerance=0.03)
    assert found.value is not None
    assert found.step_times is not None
    assert found.interval is not None
    low, high = found.interval
    assert low is not None
    assert high is not None
    assert low < found.value <= high
    for value, factor in ((low, found.step_times.high), (high, found.step_times.low)):
        program = with_step_times(hf.compile(with_value(config, found.over, value)), factor)
        assert judge(program, early=False).met
    assert found.seed_interval == (found.value, found.value)
    assert {probe.step_times for probe in found.probes} == {1.0, found.step_times.low, found.step_times.high}
    assert found.summary()["step_times"]["kind"] == found.step_times.kind


def test_given_step_times_leave_the_interval_to_the_seeds() -> None:
    given = ["cost=affine", "cost.fixed_us=8000", "cost.per_token_us=10", "cost.per_context_us=0"]
    found = hf.capacity(hf.compose([*LLM, *given]), seeds=2, tolerance=0.1)
    assert found.step_times is None
    assert found.interval == found.seed_interval
    assert {probe.step_times for probe in found.probes} == {1.0}
