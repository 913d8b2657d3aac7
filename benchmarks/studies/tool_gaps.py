"""The study of what becomes of the KV of agents while their tools run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies import charts
from benchmarks.studies.study import Outcome, table

if TYPE_CHECKING:
    import polars as pl

_TOOL, _HOST, _GAP = (
    "pipeline.stages.tool.latency_ms.mean",
    "cluster.pools.llm.offload.host.capacity_gb",
    "cluster.pools.llm.tool_gap",
)


def tool_gaps(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return what each policy finds again, and how long a turn and an agent take."""
    import polars as pl

    policy = pl.col(_GAP).str.extract(r"policy:\s*(\w+)").alias("policy")
    known = sweep.with_columns(policy, (pl.col(_TOOL) / 1000).alias("tool_s"))
    rows = [
        (
            f"{job[_HOST]:,g} GB",
            f"{job['tool_s']:g} s",
            job["policy"],
            f"{job['prefix.hit_share']:.0%}",
            f"{1e3 * job['stages.think.mean_s']:,.0f} ms",
            f"{job['e2e_s.p50']:.1f} s",
            f"{job['pools.llm.kv_peak_fraction']:.0%}",
        )
        for job in known.iter_rows(named=True)
    ]
    panels = [
        charts.Panel(
            f"{title}, {host:,g} GB of host memory",
            charts.rows_of(known.filter(pl.col(_HOST) == host), "policy", "tool_s", key, scale),
            "mean time of the tool, s",
            unit,
        )
        for host in known[_HOST].unique().sort().to_list()
        for title, key, scale, unit in (("Prompt tokens found", "prefix.hit_share", 100.0, "%"),)
    ]
    heads = ("host", "tool", "policy", "prompt tokens found", "prefill of a turn, mean", "E2E p50", "KV peak")
    return Outcome(table(heads, rows), (), charts.grid(panels))
