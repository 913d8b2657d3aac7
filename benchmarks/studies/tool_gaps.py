"""The study of what becomes of the KV of agents while their tools run, under several routers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies import charts
from benchmarks.studies.study import Outcome, table

if TYPE_CHECKING:
    import polars as pl

_TOOL, _HOST, _GAP, _ROUTER = (
    "pipeline.stages.tool.latency_ms.mean",
    "cluster.pools.llm.offload.host.capacity_gb",
    "cluster.pools.llm.tool_gap",
    "cluster.routing",
)


def tool_gaps(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return what each policy finds again under each router, and how long a turn and an agent take."""
    import polars as pl

    policy = pl.col(_GAP).str.extract(r"policy:\s*(\w+)").alias("policy")
    known = sweep.with_columns(policy, (pl.col(_TOOL) / 1000).alias("tool_s"))
    routers, policies = (known[key].unique(maintain_order=True).to_list() for key in (_ROUTER, "policy"))
    by = {
        (job[_HOST], job["tool_s"], job["policy"], job[_ROUTER]): job for job in known.iter_rows(named=True)
    }
    cases = list(dict.fromkeys(key[:2] for key in by))
    parts = []
    for host, tool_s in cases:
        rows = [
            (one, *(_cell(by.get((host, tool_s, one, router))) for router in routers)) for one in policies
        ]
        parts.append(
            f"{host:,g} GB of host memory, tools of {tool_s:g} s:\n\n{table(('policy', *routers), rows)}"
        )
    panels = [
        charts.Panel(
            f"Prompt tokens found, {router.replace('_', ' ')}, {host:,g} GB",
            charts.rows_of(
                known.filter((pl.col(_HOST) == host) & (pl.col(_ROUTER) == router)),
                "policy",
                "tool_s",
                "prefix.hit_share",
                100.0,
            ),
            "mean time of the tool, s",
            "%",
            top=80,
        )
        for router in (routers[0], routers[-1])
        for host in known[_HOST].unique().sort().to_list()
    ]
    return Outcome("\n\n".join(parts), (), charts.grid(panels))


def _cell(job: dict[str, Any] | None) -> str:
    """Return the share of prompt tokens found, the mean prefill of a turn and the median agent."""
    if job is None:
        return "–"
    turn = f"{1e3 * job['stages.think.mean_s']:,.0f} ms"
    return f"{job['prefix.hit_share']:.0%}, {turn}, {job['e2e_s.p50']:.1f} s"
