"""The table of a sweep shows what varied and what came of it, within the width given."""

from __future__ import annotations

import polars as pl
import pytest

from hermes_flow.report.sweep_table import short_names, sweep_table


def sweep(*jobs: dict, **constants: object) -> pl.DataFrame:
    """A frame as ``metrics.sweep.collect`` gives it, of jobs with their overrides, figures and error."""
    defaults = {"ttft_s.p50": 0.1, "ttft_s.p99": 0.25, "tpot_s.p50": 0.01, "e2e_s.p50": 2.0}
    defaults |= {"throughput.requests_per_s": 4.0, "throughput.output_tokens_per_s": 800.0}
    rows = []
    for number, job in enumerate(jobs):
        error = job.get("error")
        figures = {name: None if error else job.get(name, value) for name, value in defaults.items()}
        overrides = {key: value for key, value in job.items() if key not in (*defaults, "error", "met")}
        row = {"job": number, **overrides, **constants}
        status = "interrupted" if error == "interrupted" else "failed" if error else "completed"
        row |= {"status": status, "error": error, **figures}
        row |= {"slo.attainment": None if error else 0.5, "slo.bounds.ttft_p99_s.met": job.get("met")}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"error": pl.String})


def test_one_line_per_job_with_its_overrides_and_figures():
    frame = sweep(
        {"workload.rate_per_s": 4, "hardware": "l40s", "met": True},
        {"workload.rate_per_s": 16, "hardware": "h100_sxm", "met": False, "ttft_s.p99": 1.5},
        seed=0,
    )
    assert sweep_table(frame, width=100).splitlines() == [
        "                                     TTFT    TTFT    TPOT    E2E                        within",
        "job  rate_per_s  hardware  status  p50 ms  p99 ms  p50 ms  p50 s  req/s  tok/s  SLO        SLO",
        "  0           4  l40s      ok         100     250    10.0   2.00   4.00    800  met       50 %",
        "  1          16  h100_sxm  ok         100   1,500    10.0   2.00   4.00    800  missed    50 %",
    ]


def test_failed_jobs_are_listed_below_with_their_error():
    frame = sweep(
        {"seed": 1, "met": True},
        {"seed": 2, "error": "2 problems found:\n  - weights do not fit\n  - no pool serves rerank"},
        {"seed": 3, "error": "cluster.pools.llm.count: 0 is not valid\nsecond line"},
    )
    lines = sweep_table(frame).splitlines()
    assert lines[3].split() == ["1", "2", "failed", *["–"] * 8]
    assert lines[-3:] == [
        "2 of 3 jobs failed:",
        "  1: 2 problems found: weights do not fit",
        "  2: cluster.pools.llm.count: 0 is not valid",
    ]


def test_jobs_that_were_interrupted_are_not_among_those_that_failed():
    frame = sweep({"seed": 1, "error": "no"}, {"seed": 2, "error": "interrupted"}, {"seed": 3})
    lines = sweep_table(frame).splitlines()
    assert [line.split()[2] for line in lines[2:5]] == ["failed", "interrupted", "ok"]
    assert lines[-4:] == [
        "1 of 3 jobs did not end, as they were interrupted: 1",
        "",
        "1 of 3 jobs failed:",
        "  0: no",
    ]


def test_keys_without_an_effect_and_other_warnings_are_counted():
    unused = "workload.rate_per_s: 4 has no effect; the compiled program is the same for any other value"
    frame = sweep(
        {"seed": 1, "warnings": f"the index takes 2 GB; a host has 1 GB; {unused}"},
        {"seed": 2, "warnings": unused},
        {"seed": 3, "warnings": None},
    )
    assert sweep_table(frame).splitlines()[-4:] == [
        "",
        "warning: workload.rate_per_s has no effect in 2 of 3 jobs",
        "",
        "Other warnings in 1 of 3 jobs: see the column warnings of sweep.parquet.",
    ]


def test_hundreds_of_failures_do_not_flood_the_terminal():
    lines = sweep_table(sweep(*({"seed": seed, "error": "no"} for seed in range(300)))).splitlines()
    assert "300 of 300 jobs failed:" in lines
    assert lines[-1] == "  … and 280 more: see sweep.parquet"


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
def test_the_table_fits_its_width_and_says_what_it_left_out(width):
    overrides = {f"cluster.pools.decode.some_long_setting_{letter}": letter * 40 for letter in "abcdef"}
    first = {**overrides, "met": True}
    second = {key: value.upper() for key, value in overrides.items()}
    frame = sweep(first, {**second, "met": False}, {**second, "error": "word " * 60})
    lines = sweep_table(frame, width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("No room for") for line in lines)


def test_the_verdict_and_tail_latency_outlive_the_rest():
    frame = sweep({"seed": 1, "met": True}, {"seed": 2, "met": False})
    heading = sweep_table(frame, width=32).splitlines()[1]
    assert heading.split() == ["job", "seed", "p99", "ms", "req/s", "SLO"]


def test_figures_no_job_has_take_no_column():
    frame = sweep({"seed": 1}, {"seed": 2}).with_columns(pl.lit(None, pl.Float64).alias("ttft_s.p50"))
    table = sweep_table(frame, width=120)
    assert table.splitlines()[0].split() == ["TTFT", "TPOT", "E2E", "within"]
    assert table.splitlines()[1].split()[-2:] == ["tok/s", "SLO"]  # attainment, but no verdict


def test_overrides_are_named_by_their_last_distinguishing_part():
    keys = [
        "workload.rate_per_s",
        "cluster.pools.prefill.count",
        "cluster.pools.decode.count",
        "hardware",
        "hardware@cluster.pools.decode.hardware",
    ]
    assert list(short_names(keys).values()) == [
        "rate_per_s",
        "prefill.count",
        "decode.count",
        "hardware",
        "decode.hardware",
    ]


def test_keys_that_are_endings_of_each_other_stay_apart():
    assert short_names(["a.b", "b", "c.a.b"]) == {"a.b": "a.b", "b": "b", "c.a.b": "c.a.b"}


def test_a_job_that_lacks_an_override_shows_a_dash():
    table = sweep_table(sweep({"seed": None, "met": True}, {"seed": 2, "met": True}), width=100)
    assert table.splitlines()[2].split()[:3] == ["0", "–", "ok"]


def test_what_the_slo_bounds_and_the_cost_are_columns():
    bounds = {"slo.bounds.tpot_p90_s.value_s": 0.042, "slo.bounds.ttft_p99_s.value_s": 0.25}
    bounds |= {"slo.bounds.stages.search_p90_s.value_s": 0.0015, "cost.usd_per_million_output_tokens": 1.75}
    frame = sweep({"seed": 1, "met": True}, {"seed": 2, "met": True})
    table = sweep_table(
        frame.with_columns(*(pl.lit(value).alias(name) for name, value in bounds.items())), width=130
    )
    above, heading, first, _ = table.splitlines()
    assert above.split() == [*("TTFT", "TTFT", "TPOT", "E2E", "TPOT", "search", "$", "per", "within")]
    assert "p90 ms  p90 ms" in heading
    assert first.split()[3:] == [
        "100",
        "250",
        "10.0",
        "2.00",
        "42.0",
        "1.50",
        "4.00",
        "800",
        "1.75",
        "met",
        "50",
        "%",
    ]


def test_what_searches_and_plans_have_found_is_a_column():
    frame = sweep({"seed": 1}, {"seed": 2})
    found = {"capacity.over": ["cluster.pools.llm.count"] * 2, "capacity.value": [8, None]}
    above, heading, first, second = sweep_table(frame.with_columns(**_series(found)), width=80).splitlines()
    assert above.split()[0] == "found"
    assert heading.split()[:4] == ["job", "seed", "status", "count"]
    assert (first.split()[3], second.split()[3]) == ("8", "–")
    nothing = sweep_table(frame.with_columns(**_series(found | {"capacity.value": [None, None]})), width=80)
    assert "No search has found a value that meets its SLO" in " ".join(nothing.split())
    both = sweep_table(frame.with_columns(**_series(found | {"capacity.sustained": [6, 5]})), width=80)
    cells = [line.split()[3:5] for line in both.splitlines()[1:4]]
    assert cells == [["count", "sustained"], ["8", "6"], ["–", "5"]]
    rate = sweep_table(frame.with_columns(**_series(found | {"capacity.value": [14.13, 2.5]})), width=80)
    assert [line.split()[3] for line in rate.splitlines()[2:]] == ["14.1", "2.50"]

    best = {"hardware": "b200_sxm", "decode_hardware": "h200_sxm", "accelerators": 4, "usd_per_hour": 29.82}
    plans = {f"plan.best.{key}": [value, None] for key, value in best.items()}
    table = sweep_table(frame.with_columns(**_series(plans)), width=80).splitlines()
    assert table[2].split()[2:6] == ["b200_sxm", "h200_sxm", "4", "29.8"]
    assert table[3].split()[2:6] == ["–"] * 4


def _series(columns: dict[str, list]) -> dict[str, pl.Series]:
    return {name: pl.Series(values) for name, values in columns.items()}
