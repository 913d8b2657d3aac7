"""The study of reasoning (Figure 8): many short chains of thought or a long one, by design and load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies import charts
from benchmarks.studies.batching import design
from benchmarks.studies.study import Finding, Outcome, table

if TYPE_CHECKING:
    import polars as pl

_CASES = {8: "chats, 8 branches", 4: "code, 4 branches", 1: "chats, one chain"}


def reasoning_batching(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return TTFT and TPOT of every design in the three cases."""
    import polars as pl

    sweep = sweep.with_columns(pl.col("cluster").map_elements(design, return_dtype=pl.String).alias("design"))
    panels, rows = [], []
    for branches, name in _CASES.items():
        own = sweep.filter(pl.col("pipeline.stages.decode.branches") == branches)
        for key, title, scale in (
            ("ttft_s.mean", "TTFT, mean (s)", 1.0),
            ("tpot_s.mean", "TPOT, mean (ms)", 1e3),
        ):
            points = charts.rows_of(own, "design", "workload.rate_per_s", key, scale)
            panels.append(charts.Panel(f"{name}: {title[:4]}", points, "requests/s", title, log=True))
        rows += [
            (
                name,
                job["design"],
                f"{job['workload.rate_per_s']:g}",
                f"{job['ttft_s.mean']:.3g} s",
                f"{1e3 * job['tpot_s.mean']:.1f} ms",
                f"{job['e2e_s.p90']:.1f} s",
            )
            for job in own.iter_rows(named=True)
        ]
    heads = ("case", "design", "requests/s", "TTFT, mean", "TPOT, mean", "E2E p90")
    return Outcome(table(heads, rows), _findings(sweep.to_dicts()), charts.grid(panels))


def _findings(jobs: Sequence[dict[str, Any]]) -> list[Finding]:
    def at(branches: int, name: str, rate: float = 20.0) -> dict[str, Any]:
        return next(
            job
            for job in jobs
            if job["pipeline.stages.decode.branches"] == branches
            and job["design"] == name
            and job["workload.rate_per_s"] == rate
        )

    chunked, continuous = at(8, "chunked"), at(8, "continuous")
    one = {name: at(1, name) for name in ("continuous", "2P/6D", "1P/7D")}
    nearest = min(("2P/6D", "1P/7D"), key=lambda name: one[name]["e2e_s.mean"])
    gap = one[nearest]["e2e_s.mean"] / one["continuous"]["e2e_s.mean"] - 1
    return [
        Finding(
            "chunked: strong decode, high TTFT",
            f"8 branches, 20 requests/s: TPOT {1e3 * chunked['tpot_s.mean']:.1f} ms (continuous "
            f"{1e3 * continuous['tpot_s.mean']:.1f}), TTFT {1e3 * chunked['ttft_s.mean']:.0f} ms "
            f"({1e3 * continuous['ttft_s.mean']:.0f})",
            chunked["tpot_s.mean"] < continuous["tpot_s.mean"]
            and chunked["ttft_s.mean"] > continuous["ttft_s.mean"],
        ),
        _code(jobs, 10.0),
        _code(jobs, 20.0),
        Finding(
            "single path: disaggregated with 6 or 7 decode clients equals continuous",
            f"20 requests/s: mean E2E of {nearest} is {gap:+.0%} of continuous",
            abs(gap) <= 0.1,
        ),
    ]


def _code(jobs: Sequence[dict[str, Any]], rate: float) -> Finding:
    """Return the design with the lowest TPOT for code, among those with at most 1.5 times the TTFT of continuous."""
    own = {
        job["design"]: job
        for job in jobs
        if job["pipeline.stages.decode.branches"] == 4 and job["workload.rate_per_s"] == rate
    }
    plain = own["continuous"]
    near = {name: job for name, job in own.items() if job["ttft_s.mean"] <= 1.5 * plain["ttft_s.mean"]}
    best = min(near, key=lambda name: near[name]["tpot_s.mean"])
    return Finding(
        "long-context code: disaggregated with more decode clients has the lowest TPOT at a TTFT like continuous",
        f"4 branches, {rate:g} requests/s: {best}, TPOT {1e3 * near[best]['tpot_s.mean']:.1f} ms (continuous "
        f"{1e3 * plain['tpot_s.mean']:.1f}), TTFT {1e3 * near[best]['ttft_s.mean']:.0f} ms "
        f"({1e3 * plain['ttft_s.mean']:.0f})",
        best in ("2P/6D", "1P/7D"),
    )
