"""The studies of money: tokens per dollar of pairs of GPUs, and the price of a bound on TTFT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies import charts
from benchmarks.studies.study import Outcome, table

if TYPE_CHECKING:
    import polars as pl


def tokens_per_dollar(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return output tokens per dollar of every pair at its highest load, the best first."""
    rows, points = [], []
    for job in sorted(sweep.iter_rows(named=True), key=lambda job: -_worth(job)):
        prefill = job["hardware@cluster.pools.prefill.hardware"]
        decode = job["hardware@cluster.pools.decode.hardware"]
        load = _load(job)
        shown = "none" if load is None else f"{load:.3g} requests/s"
        rows.append(
            (
                prefill,
                decode,
                shown,
                f"${job['cost.usd_per_hour']:,.0f} an hour",
                f"{_worth(job) / 1e3:,.0f} k",
            )
        )
        points.append({"line": f"decode on {decode}", "x": f"prefill on {prefill}", "y": _worth(job) / 1e3})
    heads = ("prefill", "decode", "highest load", "price", "output tokens per $")
    panel = charts.Panel("Output tokens per $ (thousands)", points, "", "thousands", bars=True)
    return Outcome(table(heads, rows), (), charts.grid([panel], columns=1, width=760))


def _worth(job: dict[str, float]) -> float:
    """Return the output tokens per dollar at the highest load that meets the SLO; 0 where no load does."""
    load = _load(job)
    if load is None:
        return 0.0
    per_request = job["throughput.output_tokens_per_s"] / job["throughput.requests_per_s"]
    return float(load * per_request * 3600 / job["cost.usd_per_hour"])


def _load(job: dict[str, float]) -> float | None:
    """Return the highest load that meets the SLO without a growing backlog."""
    found = [job["capacity.value"], job["capacity.sustained"]]
    return None if None in found else min(found)


def slo_price(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the fewest clients and their price for each bound, by the size of a chunk."""
    rows, points = [], []
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
    heads = ("tokens a step", "bound on TTFT p99", "fewest clients", "price")
    panel = charts.Panel("Price of the fewest clients", points, "bound on TTFT p99", "$ an hour", bars=True)
    return Outcome(table(heads, rows), (), charts.grid([panel], columns=1, width=760))


def autoscaling(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the GPU-hours, the price of the day and the verdict of every policy, and the clients by the hour."""
    import polars as pl

    rows, points = [], []
    for job in sweep.iter_rows(named=True):
        name = _policy_name(job["cluster.pools.llm.autoscale"])
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


def _policy_name(text: str | None) -> str:
    if text is None:
        return "4 clients, fixed"
    words = dict(part.split(":", 1) for part in text.strip("{}").split(",") if ":" in part)
    metric = words.get("metric", "").replace("_", " ")
    return f"{words['policy']}{f', {metric}' if metric else ''}"
