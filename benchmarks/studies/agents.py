"""The study of agents whose earlier turns are in the prefix cache of one client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies import charts
from benchmarks.studies.study import Outcome, table

if TYPE_CHECKING:
    import polars as pl


def agent_routing(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return what each router finds in the caches, and how long the answers take."""
    rows = [
        (
            job["cluster.routing"],
            f"{job['workload.rate_per_s']:g}",
            f"{job['prefix.hit_share']:.0%}",
            f"{1e3 * job['stages.think.mean_s']:,.0f} ms",
            f"{job['e2e_s.p50']:.1f} s",
            f"{job['e2e_s.p99']:.1f} s",
        )
        for job in sweep.iter_rows(named=True)
    ]
    panels = [
        charts.Panel(
            title,
            charts.rows_of(sweep, "cluster.routing", "workload.rate_per_s", key, scale),
            "agents/s",
            unit,
        )
        for title, key, scale, unit in (
            ("Prompt tokens found", "prefix.hit_share", 100.0, "%"),
            ("Prefill of a turn, mean", "stages.think.mean_s", 1e3, "ms"),
        )
    ]
    heads = ("router", "agents/s", "prompt tokens found", "prefill of a turn, mean", "E2E p50", "E2E p99")
    return Outcome(table(heads, rows), (), charts.grid(panels))
