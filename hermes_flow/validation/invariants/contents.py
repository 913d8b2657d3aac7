"""Invariants of the files themselves: readable, complete, finite, and referring to what exists."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows
from hermes_flow.validation.invariants.run_files import RunFiles

_INTEGER, _FLOAT, _TEXT, _TRUTH = "Int64", "Float64", "String", "Boolean"

COLUMNS: dict[str, dict[str, str]] = {
    "requests": {
        **dict.fromkeys(("request", "session", "input_tokens", "cached_tokens", "output_tokens"), _INTEGER),
        **dict.fromkeys(("pipeline", "model", "status"), _TEXT),
        **dict.fromkeys(("arrival_s", "first_token_s", "finish_s", "ttft_s", "tpot_s", "e2e_s"), _FLOAT),
        "preemptions": _INTEGER,
        "slo_met": _TRUTH,
        "energy_j": _FLOAT,
    },
    "stages": {
        "request": _INTEGER,
        **dict.fromkeys(("stage", "kind", "pool", "client"), _TEXT),
        **dict.fromkeys(("ready_s", "start_s", "finish_s", "queue_s", "transfer_s", "service_s"), _FLOAT),
        "tokens": _INTEGER,
        "bytes": _INTEGER,
        "energy_j": _FLOAT,
    },
    "clients": {
        **dict.fromkeys(("client", "pool", "hardware", "model"), _TEXT),
        "busy_fraction": _FLOAT,
        "steps": _INTEGER,
        "mean_batch": _FLOAT,
        "kv_peak_fraction": _FLOAT,
        "tokens": _INTEGER,
        "energy_j": _FLOAT,
        "cost_usd": _FLOAT,
    },
    "links": {"link": _TEXT, "bytes": _INTEGER, "busy_fraction": _FLOAT},
    "fleet": {**dict.fromkeys(("pool", "client", "state"), _TEXT), "begin_s": _FLOAT, "end_s": _FLOAT},
    "steps": {
        "client": _TEXT,
        "start_s": _FLOAT,
        "end_s": _FLOAT,
        **dict.fromkeys(("decodes", "decode_context", "prefill_tokens"), _INTEGER),
    },
}
"""The columns of the public contract by table, with the names of their Polars types."""

_STATISTICS = ("mean", "p50", "p90", "p99")

FIGURES = (
    *(f"requests.{name}" for name in ("submitted", "completed", "failed")),
    *(f"{metric}.{name}" for metric in ("ttft_s", "tpot_s", "itl_s", "e2e_s") for name in _STATISTICS),
    *("throughput.requests_per_s", "throughput.output_tokens_per_s"),
    *("slo.attainment", "slo.goodput_requests_per_s", "slo.bounds", "stages"),
    *("energy.total_j", "energy.j_per_output_token"),
    *("cost.usd_per_hour", "cost.usd_per_million_output_tokens", "cost.output_tokens_per_usd"),
    *("engine.events", "engine.steps", "engine.wall_s", "engine.cpu_s"),
)
"""The figures of the public contract that every summary of a run has."""


def _readable(run: RunFiles) -> Iterator[Finding]:
    for file, problem in run.unreadable.items():
        yield Finding(file, f"it cannot be read: {problem}")
    parts = ("requests", "stages", "clients")
    missing = [name for name in parts if not run.has(name) and f"{name}.parquet" not in run.unreadable]
    if len(missing) < len(parts):
        for name in missing:
            yield Finding(f"{name}.parquet", "it is missing, and the other tables of the run are there")
    if run.tables and not run.has("summary") and "summary.json" not in run.unreadable:
        yield Finding("summary.json", "it is missing, and the tables of the run are there")


def _columns(run: RunFiles) -> Iterator[Finding]:
    for name, frame in run.tables.items():
        for column, kind in COLUMNS[name].items():
            if column not in frame.columns:
                yield Finding(f"{name}.parquet", f"there is no column {column}")
            elif str(frame.schema[column]) != kind:
                yield Finding(
                    f"{name}.parquet", f"column {column} has type {frame.schema[column]}; expected {kind}"
                )


def _figures(run: RunFiles) -> Iterator[Finding]:
    for path in FIGURES:
        *above, last = path.split(".")
        section = run.figure(*above)
        if not isinstance(section, dict) or last not in section:
            yield Finding("summary.json", f"there is no figure {path}")


def _finite(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    for name, frame in run.tables.items():
        for column, kind in frame.schema.items():
            if kind.is_float():
                yield from broken_rows(
                    f"{name}.parquet",
                    frame,
                    ~pl.col(column).is_finite(),
                    lambda row, column=column: f"{column} is {row[column]}",  # type: ignore[misc]
                )
    for path, value in _leaves(run.summary):
        if isinstance(value, float) and not math.isfinite(value):
            yield Finding("summary.json", f"{path} is {value}")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _leaves(entry, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _leaves(entry, f"{path}[{index}]")
    else:
        yield path, value


def _request_numbers(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["requests"].with_row_index("row")
    yield from broken_rows(
        "requests.parquet",
        frame,
        pl.col("request").is_null() | (pl.col("request") != pl.col("row").cast(pl.Int64)),
        lambda row: f"request is {row['request']}; requests are numbered by row, from 0",
    )


def _references(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    clients, stages = run.tables["clients"], run.tables["stages"]
    yield from broken_rows(
        "clients.parquet",
        clients,
        pl.col("client").is_duplicated(),
        lambda row: f"client {row['client']} is there more than once",
    )
    yield from broken_rows(
        "stages.parquet",
        stages,
        ~pl.col("request").is_in(run.tables["requests"]["request"].to_list()),
        lambda row: f"request {row['request']} is not in requests.parquet",
    )
    known = clients.select("client", home="pool").unique("client")
    placed = stages.with_row_index("row").filter(pl.col("client").is_not_null())
    yield from broken_rows(
        "stages.parquet",
        placed.join(known, on="client", how="left", maintain_order="left"),
        pl.col("home").is_null() | (pl.col("home") != pl.col("pool")),
        lambda row: (
            f"client {row['client']} is not in clients.parquet"
            if row["home"] is None
            else f"client {row['client']} is of pool {row['home']}, and the row's pool is {row['pool']}"
        ),
    )


INVARIANTS = (
    Invariant(1, "files", "Every file of the run is there and can be read.", (), _readable),
    Invariant(2, "columns", "The tables have the columns of the contract in their types.", (), _columns),
    Invariant(
        3,
        "figures",
        "The summary of a run has the figures of the contract.",
        ("requests", "summary"),
        _figures,
    ),
    Invariant(4, "finite", "No number of a table or of the summary is NaN or infinite.", (), _finite),
    Invariant(
        5, "request numbers", "Requests are numbered from 0, a row each.", ("requests",), _request_numbers
    ),
    Invariant(
        6,
        "references",
        "Clients have names of their own, and every task names a request, and a client of its pool, that exist.",
        ("requests", "stages", "clients"),
        _references,
    ),
)
