"""The studies of money: tokens per dollar of pairs of GPUs, and the price of a bound on TTFT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies import charts
from benchmarks.studies.study import Outcome, table

if TYPE_CHECKING:
    import polars as pl

_SHOWN = 5  # pairs of each load in the table
_ANSWER_TOKENS = 211  # the mean of Azure's conversations (conf/workload/azure_conv.yaml)


def tokens_per_dollar(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the pairs with the most output tokens per dollar at each load, and every pair's in the figure."""
    import polars as pl

    rows, panels = [], []
    for job in sweep.sort("workload.rate_per_s").iter_rows(named=True):
        rate = f"{job['workload.rate_per_s']:g} requests/s"
        designs = pl.read_parquet(folder / str(job["job"]) / "plan.parquet")
        ranked = [row for row in designs.iter_rows(named=True) if row["rank"] is not None]
        points = []
        for row in ranked:
            prefill, decode = row["hardware"], row["decode_hardware"] or row["hardware"]
            worth = 3.6 * job["workload.rate_per_s"] * _ANSWER_TOKENS / row["usd_per_hour"]  # thousands
            points.append({"line": f"decode on {decode}", "x": f"prefill on {prefill}", "y": worth})
            if row["rank"] <= _SHOWN:
                clients = f"{row['prefill_clients']} and {row['decode_clients']}"
                price, alike = f"${row['usd_per_hour']:,.1f} an hour", "≈" if row["like_the_best"] else ""
                rows.append((rate, prefill, decode, clients, price, f"{worth:,.0f} k", alike))
        title = f"Output tokens per $ (thousands) at {rate}"
        panels.append(charts.Panel(title, points, "", "thousands", bars=True))
    heads = ("load", "prefill", "decode", "clients", "price", "output tokens per $", "like the best")
    return Outcome(table(heads, rows), (), charts.grid(panels, columns=1, width=760))


def slo_price(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the fewest clients and their price for each bound, by the size of a chunk."""
    rows, points, impossible = [], [], {}
    for job in sweep.iter_rows(named=True):
        budget, bound, clients = (
            job["cluster.pools.llm.max_num_batched_tokens"],
            job["slo.name"],
            job["capacity.value"],
        )
        price = None if clients is None else clients * job["cost.usd_per_hour"] / job["pools.llm.clients"]
        shown = ("none", "–") if price is None else (f"{clients:g}", f"${price:,.0f} an hour")
        rows.append((f"{budget:,}", bound, *shown))
        if price is not None:
            points.append({"line": f"chunks of at most {budget:,} tokens", "x": bound, "y": price})
        else:
            impossible[bound] = None
    heads = ("tokens a step", "bound on TTFT p99", "fewest clients", "price")
    title = "Price of the fewest clients"
    if impossible:
        title += f" (no number of clients holds {' and '.join(impossible)})"
    panel = charts.Panel(title, points, "bound on TTFT p99", "$ an hour", bars=True)
    return Outcome(table(heads, rows), (), charts.grid([panel], columns=1, width=760))


def autoscaling(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the GPU-hours, the price of the day and the verdict of every policy, and the clients by the hour."""
    import polars as pl

    rows, points = [], []
    for job in sweep.iter_rows(named=True):
        name = _policy_name(job["cluster.pools.llm.autoscale"], job["cluster.pools.llm.count"])
        clients = pl.read_parquet(folder / str(job["job"]) / "clients.parquet").filter(
            pl.col("pool") == "llm"
        )
        phases = pl.read_parquet(folder / str(job["job"]) / "phases.parquet")
        hours = job["fleet.llm.accelerator_hours"] or len(clients) * 24.0
        rows.append(
            (
                name,
                f"{hours:.1f}",
                f"${clients['cost_usd'].sum():,.0f}",
                f"{job['slo.attainment']:.1%}",
                "met" if job["slo.met"] else "missed",
            )
        )
        points += [
            {"line": name, "x": hour, "y": 1e3 * value}
            for hour, value in enumerate(phases["ttft_s.p99"].to_list())
            if value is not None
        ]
    heads = ("fleet", "GPU-hours", "price of the day", "requests within the SLO", "SLO")
    panel = charts.Panel("TTFT p99 by the hour", points, "hour", "ms", log=True)
    return Outcome(table(heads, rows), (), charts.grid([panel], columns=1, width=760))


def _policy_name(text: str | None, clients: int) -> str:
    if text is None:
        return f"{clients} clients, fixed"
    words = dict(part.split(":", 1) for part in text.strip("{}").split(",") if ":" in part)
    metric = words.get("metric", "").replace("_", " ")
    return f"{words['policy']}{f', {metric}' if metric else ''}"
