"""Invariants of clients: what they serve at once, shares between 0 and 1, and the tokens they processed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, shown
from hermes_flow.validation.invariants.run_files import RunFiles

_FILE = "clients.parquet"
_FULL = 1 + 1e-9
_WHOLE_TASKS = ("sequential", "batched")


def _at_once(run: RunFiles) -> Iterator[Finding]:
    """Count the tasks under way on each client, where its limit is known."""
    import polars as pl

    stages = run.tables["stages"].with_row_index("row")
    preempted = bool((run.tables["requests"]["preemptions"].fill_null(0) > 0).any())
    served = stages.filter(pl.col("start_s").is_not_null() & pl.col("finish_s").is_not_null())
    for (pool, client), tasks in served.group_by("pool", "client", maintain_order=True):
        limit, what = _limit(run, str(pool), preempted)
        if limit is None:
            continue
        start, finish = tasks["start_s"].to_numpy(), tasks["finish_s"].to_numpy()
        lasting = finish > start
        start, finish = start[lasting], finish[lasting]
        order = np.argsort(start, kind="stable")
        under_way = np.arange(1, len(order) + 1) - np.searchsorted(np.sort(finish), start[order], "right")
        over = np.flatnonzero(under_way > limit)
        if len(over):
            rows = tasks["row"].to_numpy()[lasting][order[over]]
            yield Finding(
                "stages.parquet",
                f"client {client} has {int(under_way[over[0]])} tasks at once at "
                f"{shown(float(start[order[over[0]]]))} s, and {limit} {what}",
                tuple(rows.tolist()),
            )


def _limit(run: RunFiles, pool: str, preempted: bool) -> tuple[int | None, str]:
    """Return how many tasks a client of the pool may have under way, None where the files do not tell."""
    kind = run.setting("cluster", "pools", pool, "kind")
    if kind == "sequential":
        cores = run.setting("cluster", "pools", pool, "cores") or run.pool_hardware(pool, "cores")
        return (cores if isinstance(cores, int) else None), "cores"
    if kind == "batched":
        most = run.setting("cluster", "pools", pool, "max_batch")
        return (most if isinstance(most, int) else None), "are its largest batch (max_batch)"
    if kind == "llm" and not preempted:  # a preempted sequence waits again, between its start and its finish
        seats = run.pool_setting(pool, "max_num_seqs")
        if isinstance(seats, int) and (run.pool_setting(pool, "scheduler") or "vllm") == "vllm":
            ranks = run.setting("cluster", "pools", pool, "pipeline_parallel") or 1
            copies = run.setting("cluster", "pools", pool, "data_parallel") or 1
            return seats * ranks * copies, "are its most (max_num_seqs)"
    return None, ""


def _shares(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    for name in ("busy_fraction", "kv_peak_fraction"):
        yield from broken_rows(
            _FILE,
            run.tables["clients"],
            (pl.col(name) < 0) | (pl.col(name) > _FULL),
            lambda row, name=name: f"{name} of {row['client']} is {shown(row[name])}",  # type: ignore[misc]
        )
    for name in ("steps", "mean_batch", "tokens", "energy_j", "cost_usd"):
        yield from broken_rows(
            _FILE,
            run.tables["clients"],
            pl.col(name) < 0,
            lambda row, name=name: f"{name} of {row['client']} is {shown(row[name])}",  # type: ignore[misc]
        )


def _answers(run: RunFiles) -> Iterator[Finding]:
    """Compare the tokens of each client with those of the answers it wrote; a prefill writes the first of each."""
    import polars as pl

    written = (
        run.tables["stages"]
        .filter((pl.col("kind") == "decode") & pl.col("finish_s").is_not_null())
        .group_by("client")
        .agg(written=(pl.col("tokens") - 1).clip(0).sum())
    )
    clients = run.tables["clients"].with_row_index("row")
    yield from broken_rows(
        _FILE,
        clients.join(written, on="client", how="left", maintain_order="left"),
        pl.col("tokens") < pl.col("written"),
        lambda row: (
            f"{row['client']} processed {row['tokens']:,} tokens, and wrote {row['written']:,} of answers"
        ),
    )


def _tokens(run: RunFiles) -> Iterator[Finding]:
    """Compare the tokens of clients that run whole tasks with those of the tasks."""
    import polars as pl

    pools = run.setting("cluster", "pools") or {}
    whole = [pool for pool in pools if run.setting("cluster", "pools", pool, "kind") in _WHOLE_TASKS]
    done = run.tables["stages"].filter(pl.col("finish_s").is_not_null())
    sums = done.group_by("client").agg(sum=pl.col("tokens").sum())
    clients = run.tables["clients"].with_row_index("row").filter(pl.col("pool").is_in(whole))
    yield from broken_rows(
        _FILE,
        clients.join(sums, on="client", how="left", maintain_order="left"),
        pl.col("tokens") != pl.col("sum").fill_null(0),
        lambda row: (
            f"{row['client']} processed {row['tokens']:,} tokens, and its tasks have {row['sum'] or 0:,}"
        ),
    )


INVARIANTS = (
    Invariant(
        16,
        "tasks at once",
        "No sequential client serves more tasks at once than it has cores, no batched one more than max_batch, and "
        "no LLM client more than max_num_seqs (where nothing was preempted).",
        ("requests", "stages", "config"),
        _at_once,
    ),
    Invariant(
        17,
        "shares of clients",
        "Busy fractions and KV peaks of clients are between 0 and 1; steps, tokens, joules and prices are not "
        "negative.",
        ("clients",),
        _shares,
    ),
    Invariant(
        18,
        "tokens of clients",
        "A client processed at least the tokens of the answers it wrote, but for the first of each.",
        ("stages", "clients"),
        _answers,
    ),
    Invariant(
        19,
        "tokens of tasks",
        "The tokens of sequential and batched clients are those of the tasks they finished.",
        ("stages", "clients", "config"),
        _tokens,
    ),
)
