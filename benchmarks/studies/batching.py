"""The studies of batching (Figures 10 to 12) and Table III."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies import charts
from benchmarks.studies.study import Finding, Outcome, table
from benchmarks.studies.winners import METRICS, PAPER, best_policies

if TYPE_CHECKING:
    import polars as pl

NAMES = {"azure_conv": "conv", "azure_code": "code"}
RATES = {0.4: "L", 1.0: "M", 1.6: "H"}
_PLAIN = Path(__file__).resolve().parents[2] / "docs" / "studies" / "batching_plain.md"
_PIPELINES = {"plain": "plain", "rag": "RAG", "kv": "KV"}


def design(cluster: str) -> str:
    """Return the name of a cluster as figures have it: continuous, chunked, or its split as in 12P/20D."""
    name = cluster.split("_", 1)[1]
    return f"{name[1:].replace('d', 'P/')}D" if name[0] == "p" and name[1].isdigit() else name


def batching(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return latencies and throughputs against the load, and the highest load of each design that meets the SLO."""
    import polars as pl

    sweep = sweep.with_columns(
        pl.col("cluster").map_elements(design, return_dtype=pl.String).alias("design"),
        (1 / pl.col("energy.j_per_output_token")).alias("tokens_per_j"),
    )
    panels, rows = [], []
    for workload, name in NAMES.items():
        own = sweep.filter(pl.col("workload") == workload)
        load = "requests/s for each client"
        for key, title, scale, log in (
            ("ttft_s.mean", "TTFT, mean (s)", 1.0, True),
            ("tpot_s.p90", "TPOT, p90 (ms)", 1e3, True),
            ("throughput.steady.output_tokens_per_s", "output tokens/s, steady", 1.0, False),
            ("tokens_per_j", "output tokens per J", 1.0, False),
        ):
            points = charts.rows_of(own, "design", "workload.rate_per_s", key, scale)
            panels.append(charts.Panel(f"{name}: {title.split(',')[0]}", points, load, title, log))
        rows += [
            (name, one, *_held(own.filter(pl.col("design") == one)))
            for one in own["design"].unique(maintain_order=True)
        ]
    heads = ("trace", "design", "highest load that meets the SLO", "TTFT mean at 2.5", "TPOT p90 at 2.5")
    return Outcome(table(heads, rows), (), charts.grid(panels))


def batching_rag(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the same with documents, and whether their loads are below those of plain requests."""
    outcome = batching(sweep, folder)
    plain, own = (_highest(text) for text in (_PLAIN.read_text(encoding="utf-8"), outcome.tables))
    said = "; ".join(f"{trace}: {own[trace]:g} requests/s a client, plain {plain[trace]:g}" for trace in own)
    lower = all(own[trace] < plain[trace] for trace in own)
    finding = Finding(
        "with documents every design sustains less", f"the highest load within the SLO, {said}", lower
    )
    return replace(outcome, findings=[finding])


def _highest(table_text: str) -> dict[str, float]:
    """Return the highest load of any design that meets the SLO, by trace, from the table of a page."""
    highest: dict[str, float] = {}
    for trace, load in re.findall(r"^\| (\w+) \| \S+ \| ([\d.]+) a client", table_text, re.MULTILINE):
        highest[trace] = max(highest.get(trace, 0.0), float(load))
    return highest


def _held(jobs: pl.DataFrame) -> tuple[str, str, str]:
    import polars as pl

    met = jobs.filter(pl.col("slo.met"))["workload.rate_per_s"]
    middle = jobs.filter(pl.col("workload.rate_per_s") == 2.5).row(0, named=True)
    highest = "none" if met.is_empty() else f"{met.max():g} a client"
    return highest, f"{middle['ttft_s.mean']:.2f} s", f"{1e3 * middle['tpot_s.p90']:.1f} ms"


def table3(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the winners of every cell beside those of the paper, and the count of rate points that agree."""
    rows: list[tuple[str, ...]] = []
    points: list[_Point] = []
    for one in PAPER:
        won = {
            rate: winners
            for share, rate in RATES.items()
            if (winners := _winners(sweep, one.pipeline, one.size, one.metric, share))
        }
        own = [
            _Point(one.metric, rate, bool(one.wins[rate] & won[rate]), len(won[rate]) > 1)
            for rate in one.wins
            if rate in won
        ]
        points += own
        rows.append(
            (
                f"{one.pipeline}, {one.size}",
                one.metric,
                " ".join(f"{rate}: {'/'.join(sorted(names))}" for rate, names in one.wins.items()),
                " ".join(f"{rate}: {'='.join(sorted(names))}" for rate, names in won.items()),
                f"{sum(point.agrees for point in own)} of {len(own)}",
            )
        )
    heads = ("pipeline, size", "by", "the paper", "here", "rate points that agree")
    panels = [
        charts.Panel(metric, _bars(points, metric), "load", "rate points", bars=True) for metric in METRICS
    ]
    counts = [_count(points, metric) for metric in METRICS]
    return Outcome(table(heads, rows), counts, charts.grid(panels, columns=3, width=210))


@dataclass(frozen=True, slots=True)
class _Point:
    """One rate of one cell of Table III."""

    metric: str
    rate: str
    agrees: bool
    tie: bool


def _count(points: Sequence[_Point], metric: str) -> Finding:
    own = [point for point in points if point.metric == metric]
    agree = [point for point in own if point.agrees]
    ties = sum(point.tie for point in agree)
    said = f"a winner of the paper wins at {len(agree)}; at {ties} of these others do as well, within 2 %"
    return Finding(f"{metric}: winners at {len(own)} rate points", said, 2 * len(agree) > len(own))


def _bars(points: Sequence[_Point], metric: str) -> list[dict[str, Any]]:
    return [
        {
            "line": "agrees" if agrees else "does not",
            "x": rate,
            "y": sum((point.metric, point.rate, point.agrees) == (metric, rate, agrees) for point in points),
        }
        for rate in RATES.values()
        for agrees in (True, False)
    ]


def _winners(sweep: pl.DataFrame, pipeline: str, size: str, metric: str, share: float) -> set[str]:
    """Return the winners of one pipeline, size of cluster and load; of both sizes, those that win in either."""
    import polars as pl

    trace, _, kind = pipeline.partition(" ")
    case = "reasoning" if trace == "reasoning" else {value: key for key, value in _PIPELINES.items()}[kind]
    workload = "azure_code" if trace == "code" else "azure_conv"
    won: set[str] = set()
    for prefix in {"small": ["tp2x4_"], "large": ["tp2x32_"], "both": ["tp2x4_", "tp2x32_"]}[size]:
        jobs: list[dict[str, Any]] = sweep.filter(
            pl.col("experiment/case") == case,
            pl.col("workload") == workload,
            pl.col("cluster").str.starts_with(prefix),
            (pl.col("workload.rate_scale") - share).abs() < 1e-9,
            pl.col("status") == "completed",
        ).to_dicts()
        if jobs:
            won |= best_policies(jobs, metric)
    return won
