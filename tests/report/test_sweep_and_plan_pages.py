"""The pages of sweeps and plans rank what meets the SLO first, draw Pareto fronts, and say what each key does."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from report.page_reading import read_page, values_of

from hermes_flow.metrics.figures import figure
from hermes_flow.report.charts.designs import trade_off
from hermes_flow.report.pages.plan import design_name, plan_page
from hermes_flow.report.pages.sweep import designs_of, ranked, sweep_page

COST, TTFT = "cost.usd_per_million_output_tokens", "ttft_s.p99"


def sweep_table(**changes: list[object]) -> pl.DataFrame:
    """Return the table of a sweep of two GPUs at two rates, and one job that failed."""
    columns: dict[str, list[object]] = {
        "job": [0, 1, 2, 3, 4],
        "hardware": ["fast", "fast", "slow", "slow", "slow"],
        "workload.rate_per_s": [1, 2, 1, 2, 3],
        "status": ["completed"] * 4 + ["failed"],
        "error": [None] * 4 + ["the weights do not fit"],
        TTFT: [0.1, 0.2, 0.4, 4.0, None],
        "tpot_s.p90": [0.01, 0.02, 0.03, 0.05, None],
        COST: [4.0, 2.0, 1.0, 0.5, None],
        "slo.bounds.ttft_p99_s.met": [True, True, True, False, None],
    }
    return pl.DataFrame({**columns, **changes}, strict=False)


def test_designs_that_meet_the_slo_come_first_and_then_the_cheapest() -> None:
    best_first, by = ranked(designs_of(sweep_table()))
    assert by is not None
    assert by.key == COST
    assert [row["job"] for row in best_first] == [2, 1, 0, 3]


def test_priced_and_unpriced_designs_are_never_ranked_by_price() -> None:
    _, by = ranked(designs_of(sweep_table(**{COST: [4.0, None, 1.0, 0.5, None]})))
    assert by is not None
    assert by.key == TTFT


def test_the_front_is_drawn_and_named() -> None:
    designs = designs_of(sweep_table(**{COST: [4.0, 2.0, 1.0, 1.5, None]}))
    spec, front = trade_off(designs, figure(COST), figure(TTFT))
    assert spec is not None
    assert [designs[index]["job"] for index in front] == [0, 1, 2]
    assert {row["verdict"] for row in values_of(spec)} == {"SLO met", "SLO missed"}


def test_a_sweeps_page_says_which_job_is_best_and_what_each_key_does(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "report.html").write_text("", encoding="utf-8")
    page = read_page(sweep_page(sweep_table(), "cards", tmp_path))
    assert "3 of 4 completed jobs meet the SLO." in page.text
    assert "job 2 (hardware=slow, rate_per_s=1)" in page.text
    assert page.links == ["2/report.html"]
    assert page.row("hardware")[:4] == ["hardware", "fast", "slow", "2"]
    assert page.row("hardware")[4] == "× 8.94"  # the geometric mean of 4 and 20
    assert page.row("rate_per_s")[6] == "−50.0 %"  # of the price; both halve it
    assert "the weights do not fit" in page.text
    assert page.loaded == []
    assert len(page.charts) == 2 + 2 * 3


@pytest.mark.parametrize(("direction", "front"), [("highest", {"0", "1"}), ("lowest", {"1", "2"})])
def test_more_load_is_a_better_capacity_and_more_clients_are_a_worse_one(
    direction: str, front: set[str]
) -> None:
    frame = sweep_table().drop(COST, TTFT, "tpot_s.p90").filter(pl.col("job") < 3)
    frame = frame.with_columns(
        pl.Series("cost.usd_per_hour", [2.0, 1.0, 1.5]),
        pl.Series("capacity.value", [9.0, 4.0, 3.0]),
        pl.lit(direction).alias("capacity.direction"),
    )
    (chart,) = (
        spec
        for spec in read_page(sweep_page(frame, "capacities")).charts
        if any("label" in row for row in values_of(spec))
    )
    line = next(layer for layer in chart["layer"] if layer["mark"]["type"] == "line")
    assert {row["label"] for row in chart["datasets"][line["data"]["name"]]} == front


def test_a_sweep_whose_jobs_all_failed_has_a_page() -> None:
    frame = sweep_table().filter(pl.col("status") == "failed")
    page = read_page(sweep_page(frame, "broken"))
    assert "0 jobs completed" in page.text
    assert "the weights do not fit" in page.text


def test_a_page_names_jobs_that_were_interrupted_apart_from_those_that_failed() -> None:
    frame = sweep_table(
        status=["completed"] * 3 + ["interrupted", "failed"],
        error=[None] * 3 + ["interrupted", "the weights do not fit"],
    )
    text = read_page(sweep_page(frame, "stopped")).text
    assert "1 job failed; the reasons are at the end of the page." in text
    assert "1 job did not end, as interrupted: 3." in text


@pytest.fixture
def designs() -> pl.DataFrame:
    rows = []
    for rank, (name, price, ttft) in enumerate(
        (("l40s", 3.0, 0.9), ("h100", 4.0, 0.2), ("mine", None, 0.1)), 1
    ):
        rows.append(
            {
                "rank": rank, "hardware": name, "layout": "replicas", "clients": 2, "prefill_clients": None,
                "decode_clients": None, "tensor_parallel": 2, "pipeline_parallel": 1, "batching": "chunked",
                "max_num_batched_tokens": 8192, "accelerators": 4, "usd_per_hour": price,
                "usd_per_million_output_tokens": price, "j_per_output_token": 0.5, "ttft_p99_s": ttft,
                "tpot_p90_s": 0.02, "e2e_p99_s": 3.0, "attainment": 1.0, "headroom": 0.25 if rank == 1 else None,
                "busy_fraction": 0.5, "kv_peak_fraction": 0.1, "smaller_misses": "1 client: ttft_p99_s",
                "problem": None, "simulations": 3, "overrides": f"hardware={name}",
            }
        )  # fmt: skip
    rows.append({**rows[0], "rank": None, "hardware": "small", "problem": "the weights do not fit"})
    return pl.DataFrame(rows, infer_schema_length=None)


def test_a_plan_whose_best_design_has_nothing_to_spare_says_so(designs: pl.DataFrame) -> None:
    none = designs.with_columns(pl.when(pl.col("rank") == 1).then(0.0).alias("headroom"))
    page = read_page(plan_page(none, summary(), "tight"))
    assert "No larger load that was tried meets the SLO." in page.text
    assert "grow" not in page.text
    assert "none" in page.row("1")


def summary() -> dict[str, object]:
    figures = dict.fromkeys(("mean", "p50", "p90", "p99"), 0.5)
    return {
        "requests": {"submitted": 10, "completed": 10, "failed": 0},
        **{f"{metric}_s": figures for metric in ("ttft", "tpot", "e2e")},
        "throughput": {"requests_per_s": 2.0, "output_tokens_per_s": 100.0},
        "slo": {"name": "chat", "met": True, "attainment": 1.0, "goodput_requests_per_s": 2.0,
                "bounds": {"ttft_p99_s": {"limit_s": 1.0, "value_s": 0.9, "met": True}}},
        "cost": {"usd_per_hour": 3.0, "usd_per_million_output_tokens": 3.0},
        "energy": {"total_j": 5.0, "j_per_output_token": 0.5, "unmetered": []},
        "plan": {"notes": ["stopped after 60 s: 2 of 9 kinds of designs not tried"]},
    }  # fmt: skip


def test_a_plans_page_says_what_to_buy_and_why_not_the_others(designs: pl.DataFrame) -> None:
    page = read_page(plan_page(designs, json.loads(json.dumps(summary())), "mine"))
    assert "Buy 4 × l40s, 2 × TP2." in page.text
    assert "$3.00 per hour" in page.text
    assert "Its load can grow by 25 %" in page.text
    assert "4 × h100, 2 × TP2, costs 33 % more" in page.text
    assert "One size smaller misses the SLO (1 client: ttft_p99_s)." in page.text
    assert page.row("small")[-1] == "the weights do not fit"
    assert "stopped after 60 s" in page.text
    assert len(page.charts) == 3
    assert {row["name"] for row in values_of(page.charts[0])} == {
        "1: 4 × l40s, 2 × TP2",
        "2: 4 × h100, 2 × TP2",
    }


def test_a_plan_without_a_design_says_so(designs: pl.DataFrame) -> None:
    page = read_page(plan_page(designs.filter(pl.col("rank").is_null()), {"plan": {"notes": []}}, "mine"))
    assert "No design that was tried meets the SLO" in page.text


def test_disaggregated_designs_are_named_by_both_sides(designs: pl.DataFrame) -> None:
    row = {**designs.row(0, named=True), "layout": "disaggregated", "prefill_clients": 1, "decode_clients": 3}
    assert design_name(row) == "4 × l40s, 1 prefill + 3 decode × TP2"
