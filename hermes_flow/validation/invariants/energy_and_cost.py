"""Invariants of energy and cost: sums over tables, and ratios of the summary."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.validation.invariants.figures import FILE, unequal
from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, differs, shown
from hermes_flow.validation.invariants.run_files import RunFiles

_SUMS = 1e-6  # relative: sums of many floats in another order


def _energy(run: RunFiles) -> Iterator[Finding]:
    total = run.figure("energy", "total_j")
    if total is None:
        return
    clients = float(run.tables["clients"]["energy_j"].sum())
    if differs(total, clients, _SUMS):
        yield Finding(
            FILE,
            f"energy.total_j is {shown(total)}, and the clients in clients.parquet drew {shown(clients)} J",
        )
    idle = run.figure("energy", "idle_j")
    if idle is not None and not 0 <= idle <= total * (1 + _SUMS):
        yield Finding(FILE, f"energy.idle_j is {shown(idle)}; expected between 0 and total_j {shown(total)}")
    own = float(run.tables["requests"]["energy_j"].sum())
    work = total - (idle or 0.0)
    if own > work * (1 + _SUMS) + 1e-9:
        yield Finding(
            "requests.parquet",
            f"the requests took {shown(own)} J, and the clients drew {shown(work)} J for work",
        )


def _shares(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    stages = run.tables["stages"]
    yield from broken_rows(
        "stages.parquet",
        stages,
        pl.col("energy_j") < 0,
        lambda row: f"energy_j is {shown(row['energy_j'])}",
    )
    sums = stages.group_by("request").agg(sum=pl.col("energy_j").sum())
    requests = run.tables["requests"].with_row_index("row")
    yield from broken_rows(
        "requests.parquet",
        requests.join(sums, on="request", how="left", maintain_order="left"),
        (pl.col("energy_j") - pl.col("sum")).abs() > 1e-9 + _SUMS * pl.col("sum").abs(),
        lambda row: f"energy_j is {shown(row['energy_j'])}, and that of its stages is {shown(row['sum'])}",
    )


def _cost(run: RunFiles) -> Iterator[Finding]:
    hourly = run.figure("cost", "usd_per_hour")
    rate = run.figure("throughput", "output_tokens_per_s")
    dear = 1e6 * hourly / (3600 * rate) if hourly is not None and rate else None
    yield from unequal(
        run, ("cost", "usd_per_million_output_tokens"), dear, "usd_per_hour / output tokens per hour"
    )
    served = run.figure("throughput", "requests_per_s")
    each = hourly / (3600 * served) if hourly is not None and served else None
    yield from unequal(run, ("cost", "usd_per_request"), each, "usd_per_hour / requests per hour")
    cheap = 3600 * rate / hourly if hourly and rate is not None else None
    yield from unequal(run, ("cost", "output_tokens_per_usd"), cheap, "output tokens per hour / usd_per_hour")


def _prices(run: RunFiles) -> Iterator[Finding]:
    """Compare the prices of clients: those of a pool that is paid by the hour cost the same."""
    import polars as pl

    used = set(run.setting("cluster", "pools") or {})
    by_use = {pool for pool in used if run.setting("cluster", "pools", pool, "kind") == "endpoint"}
    by_use |= {pool for pool in used if run.setting("cluster", "pools", pool, "autoscale") is not None}
    clients = run.tables["clients"].with_row_index("row")
    frame = clients.filter(~pl.col("pool").is_in(sorted(by_use)))
    yield from broken_rows(
        "clients.parquet",
        frame.with_columns(first=pl.col("cost_usd").first().over("pool")),
        (pl.col("cost_usd") - pl.col("first")).abs() > 1e-9 * pl.col("first").abs(),
        lambda row: (
            f"cost_usd of {row['client']} is {shown(row['cost_usd'])}, and {shown(row['first'])} of the first "
            f"client of {row['pool']}"
        ),
    )
    hourly = run.figure("cost", "usd_per_hour")
    if hourly is None or by_use or run.figure("cost", "transfer_usd"):
        return
    paid = float(clients["cost_usd"].sum())
    ends = [run.tables[name]["finish_s"].max() for name in ("requests", "stages")]
    last = max((end for end in ends if isinstance(end, float)), default=0.0)
    if paid * 3600 < hourly * last * (1 - 1e-9):
        yield Finding(
            "clients.parquet",
            f"the clients cost {shown(paid)} USD, and usd_per_hour {shown(hourly)} makes at least "
            f"{shown(hourly * last / 3600)} until the last finish at {shown(last)} s",
        )


INVARIANTS = (
    Invariant(
        35,
        "energy",
        "The joules of the run are those of its clients; requests take no more than what is not idle.",
        ("requests", "clients", "summary"),
        _energy,
    ),
    Invariant(
        36,
        "energy of requests",
        "The joules of a request are those of its stages, and none is negative.",
        ("requests", "stages"),
        _shares,
    ),
    Invariant(
        37,
        "cost of tokens",
        "The price of a million output tokens is the price per hour over the output tokens per hour.",
        ("summary",),
        _cost,
    ),
    Invariant(
        38,
        "cost of clients",
        "Clients of a pool that is paid by the hour cost the same, together the price per hour for the time "
        "of the run.",
        ("requests", "stages", "clients", "summary", "config"),
        _prices,
    ),
)
