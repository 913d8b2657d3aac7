"""Invariants of single steps: one batch at a time, and totals that are those of the clients."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, shown
from hermes_flow.validation.invariants.run_files import RunFiles

_FILE = "steps.parquet"
_ROUNDING_S = 1e-9  # instants of whole picoseconds, each rounded to a float


def _in_turn(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["steps"].with_row_index("row")
    yield from broken_rows(
        _FILE,
        frame,
        pl.col("end_s") < pl.col("start_s"),
        lambda row: f"end_s {shown(row['end_s'])} is before start_s {shown(row['start_s'])}",
    )
    pools = frame["client"].str.replace(r"/\d+$", "").unique().to_list()
    several = [
        pool for pool in pools if (run.setting("cluster", "pools", pool, "pipeline_parallel") or 1) != 1
    ]
    alone = frame.filter(~pl.col("client").str.replace(r"/\d+$", "").is_in(several))
    alone = alone.sort("client", "start_s", maintain_order=True)
    yield from broken_rows(
        _FILE,
        alone.with_columns(before=pl.col("end_s").shift(1).over("client")),
        pl.col("start_s") < pl.col("before") - _ROUNDING_S,
        lambda row: (
            f"a step of {row['client']} starts at {shown(row['start_s'])} s, and the one before it ends at "
            f"{shown(row['before'])} s"
        ),
    )


def _totals(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    totals = (
        run.tables["steps"]
        .group_by("client")
        .agg(rows=pl.len(), handled=pl.col("decodes").sum() + pl.col("prefill_tokens").sum())
    )
    clients = run.tables["clients"].with_row_index("row")
    clients = clients.join(totals, on="client", how="inner", maintain_order="left")
    yield from broken_rows(
        "clients.parquet",
        clients,
        pl.col("rows") != pl.col("steps"),
        lambda row: (
            f"{row['client']} has {row['steps']:,} steps, and steps.parquet {row['rows']:,} rows of them"
        ),
    )
    yield from broken_rows(
        "clients.parquet",
        clients,
        pl.col("handled") > pl.col("tokens"),
        lambda row: (
            f"{row['client']} processed {row['tokens']:,} tokens, and its steps in steps.parquet "
            f"{row['handled']:,}"
        ),
    )
    for name in ("decodes", "decode_context", "prefill_tokens"):
        yield from broken_rows(
            _FILE,
            run.tables["steps"],
            pl.col(name) < 0,
            lambda row, name=name: f"{name} is {row[name]}",  # type: ignore[misc]
        )


INVARIANTS = (
    Invariant(
        23,
        "steps in turn",
        "Steps take time forwards and do not overlap on a client (with pipeline parallelism, micro-batches do).",
        ("steps", "config"),
        _in_turn,
    ),
    Invariant(
        24,
        "totals of steps",
        "Each client has as many steps as rows in steps.parquet, and processed no fewer tokens than these.",
        ("steps", "clients"),
        _totals,
    ),
)
