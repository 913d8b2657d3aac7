"""A cost compares only with those of runs in which the same pools have no price."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import hermes_flow as hf
from hermes_flow.metrics.comparable_costs import comparable, without_unlike_costs
from hermes_flow.report.compare_text import compare_text
from hermes_flow.report.pages.comparison import comparison_page
from hermes_flow.report.pages.sweep import sweep_page
from hermes_flow.report.sweep_table import sweep_table

PER_HOUR = "cost.usd_per_hour"


@pytest.mark.parametrize(
    ("prices", "unpriced", "expected"),
    [
        ([4.0, 8.0], [["host"], ["host"]], [True, True]),
        ([4.0, None, 8.0], [["host"], ["llm"], ["host"]], [True, False, True]),
        ([4.0, 8.0, 9.0], [["host"], ["host", "embed"], ["host"]], [True, False, True]),
        ([4.0, 8.0], [["host"], []], [True, False]),
        ([None, None], [["llm"], ["llm"]], [False, False]),
    ],
)
def test_runs_compare_with_most_others(
    prices: list[float | None], unpriced: list[list[str]], expected: list[bool]
) -> None:
    assert comparable(prices, unpriced) == expected


def sweep() -> pl.DataFrame:
    """An embedder on three machines: a GPU with a price, and two hosts, one of which has none."""
    return pl.DataFrame(
        {
            "job": [0, 1, 2],
            "hardware@cluster.pools.embed.hardware": ["a100_sxm", "h100_sxm", "grace_cpu"],
            "status": ["completed"] * 3,
            "error": pl.Series([None] * 3, dtype=pl.String),
            "ttft_s.p99": [0.4, 0.3, 0.9],
            "cost.unpriced": ["host", "host", "host; embed"],
            PER_HOUR: [5.8, 8.0, 4.0],
            "cost.usd_per_million_output_tokens": [1.2, 1.5, 0.9],
        }
    )


def test_a_sweep_shows_no_cost_that_would_not_compare() -> None:
    frame, rows = without_unlike_costs(sweep())
    assert rows == [2]
    assert frame[PER_HOUR].to_list() == [5.8, 8.0, None]
    assert frame["ttft_s.p99"].to_list() == [0.4, 0.3, 0.9]
    text = sweep_table(sweep())
    assert "0.900" not in text
    assert "No cost for 2" in text
    page = sweep_page(sweep(), "embedders")
    assert "No cost is shown for job 2" in page
    assert "$0.90" not in page


def test_a_comparison_ranks_no_cost_that_would_not_compare(tmp_path: Path) -> None:
    runs = {}
    for name, price in (("dear", 2.0), ("cheap", 1.0), ("free", None)):
        hosts = [] if price is None else [f"cluster.pools.host.hardware.usd_per_hour={price}"]
        config = hf.compose(["workload.requests=20", *hosts])
        runs[name] = hf.simulate(hf.compile(config))
    found = hf.compare(runs)
    assert found.costs_compare == {"dear": True, "cheap": True, "free": False}
    ranked = found.ranked(PER_HOUR)
    assert ranked["run"].to_list() == ["cheap", "dear", "free"]
    assert ranked["rank"].to_list() == [1, 2, None]
    front = found.pareto([PER_HOUR, "ttft_s.p99"])
    assert front.filter(pl.col("run") == "free")["on_front"].to_list() == [None]
    changes = found.figures.filter(pl.col("figure") == PER_HOUR)
    assert changes["change cheap"].item() is not None
    assert changes["change free"].item() is None
    assert "Costs of free are not compared" in " ".join(compare_text(found, rank=PER_HOUR).split())
    assert "Costs of free are not compared" in comparison_page(found)
