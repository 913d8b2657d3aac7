"""Invariants of the summary: its counts, latencies, throughput and shares are those of the tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from hermes_flow.validation.invariants.invariant import Finding, Invariant, differs, shown
from hermes_flow.validation.invariants.run_files import RunFiles

FILE = "summary.json"
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


def span_s(run: RunFiles) -> float | None:
    """Return the time from the first arrival to the last completion; None where nothing completed."""
    requests = run.tables["requests"]
    last, first = requests["finish_s"].max(), requests["arrival_s"].min()
    if not isinstance(last, float) or not isinstance(first, float):
        return None
    return last - first


def output_tokens(run: RunFiles) -> int:
    """Return the output tokens of completed requests."""
    requests = run.tables["requests"]
    return int(requests.filter(requests["status"] == "completed")["output_tokens"].sum())


def unequal(run: RunFiles, path: tuple[str, ...], expected: float | None, how: str) -> Iterator[Finding]:
    """Yield a finding if the figure at ``path`` is there and differs from what ``how`` gives."""
    above = run.figure(*path[:-1])
    if isinstance(above, dict) and path[-1] in above:
        found = above[path[-1]]
        number = found is None or (isinstance(found, int | float) and not isinstance(found, bool))
        if not number or differs(found, expected):
            yield Finding(FILE, f"{'.'.join(path)} is {shown(found)}, and {how} is {shown(expected)}")


def _counts(run: RunFiles) -> Iterator[Finding]:
    status = run.tables["requests"]["status"]
    completed, failed = int((status == "completed").sum()), int((status != "completed").sum())
    expected = {"submitted": len(status), "completed": completed, "failed": failed}
    for name, count in expected.items():
        found = run.figure("requests", name)
        if found != count:
            yield Finding(
                FILE, f"requests.{name} is {shown(found)}, and the count in requests.parquet is {count}"
            )
    steps = int(run.tables["clients"]["steps"].sum()) if run.has("clients") else None
    if steps is not None and run.figure("engine", "steps") not in (None, steps):
        yield Finding(
            FILE,
            f"engine.steps is {shown(run.figure('engine', 'steps'))}, and the clients' steps are {steps}",
        )


def _latencies(run: RunFiles) -> Iterator[Finding]:
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        values = run.tables["requests"][name].drop_nulls().to_numpy()
        expected: dict[str, float | None] = {"mean": float(values.mean()) if len(values) else None}
        for text, level in _PERCENTILES.items():
            expected[text] = float(np.percentile(values, level)) if len(values) else None
        for text, figure in expected.items():
            yield from unequal(run, (name, text), figure, f"that of column {name} in requests.parquet")


def _in_order(run: RunFiles) -> Iterator[Finding]:
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        values: list[Any] = [run.figure(name, text) for text in _PERCENTILES]
        known = [value for value in values if isinstance(value, int | float)]
        if known != sorted(known) or (known and known[0] < 0):
            levels = ", ".join(shown(value) for value in values)
            yield Finding(FILE, f"{name}: p50, p90, p99 are {levels}; expected 0 ≤ p50 ≤ p90 ≤ p99")
    share = run.figure("slo", "attainment")
    if share is not None and not 0 <= share <= 1:
        yield Finding(FILE, f"slo.attainment is {shown(share)}; expected a share between 0 and 1")
    counts = [run.figure("requests", name) for name in ("submitted", "completed", "failed")]
    if None not in counts and counts[0] != counts[1] + counts[2]:
        yield Finding(
            FILE, f"{counts[0]} requests are submitted, {counts[1]} completed and {counts[2]} failed"
        )


def _throughput(run: RunFiles) -> Iterator[Finding]:
    span = span_s(run)
    done = int((run.tables["requests"]["status"] == "completed").sum())
    yield from unequal(
        run,
        ("throughput", "requests_per_s"),
        done / span if span else None,
        "completed requests / (last finish − first arrival)",
    )
    if run.figure("throughput", "output_tokens_per_s") is not None:
        answers = output_tokens(run)
        yield from unequal(
            run,
            ("throughput", "answer_tokens_per_s"),
            answers / span if span else None,
            "output tokens of completed requests / (last finish − first arrival)",
        )
        rate = run.figure("throughput", "output_tokens_per_s")
        if span and rate * span < answers * (1 - 1e-9):
            yield Finding(
                FILE,
                f"throughput.output_tokens_per_s is {shown(rate)}, and the answers alone have "
                f"{shown(answers / span)} tokens per second",
            )


def _stage_figures(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    requests = run.tables["requests"]
    done = requests.filter(pl.col("status") == "completed")
    total = pl.col("queue_s") + pl.col("transfer_s") + pl.col("service_s")
    tasks = run.tables["stages"].filter(pl.col("request").is_in(done["request"].to_list()))
    figures = tasks.group_by("stage").agg(
        mean_s=total.mean(), p99_s=total.quantile(0.99, "linear"), total=total.sum()
    )
    e2e = float(done["e2e_s"].sum())
    for row in figures.sort("stage").iter_rows(named=True):
        where = ("stages", row["stage"])
        if run.figure(*where) is None:
            yield Finding(FILE, f"stages.{row['stage']} is missing, and stages.parquet has tasks of it")
            continue
        yield from unequal(run, (*where, "mean_s"), row["mean_s"], "that of stages.parquet")
        yield from unequal(run, (*where, "p99_s"), row["p99_s"], "that of stages.parquet")
        share = row["total"] / e2e if e2e else None
        yield from unequal(run, (*where, "share_of_e2e"), share, "its time / the E2E of all requests")


def _pool_figures(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    figures = (
        run.tables["clients"]
        .group_by("pool")
        .agg(
            clients=pl.len(),
            busy_fraction=pl.col("busy_fraction").mean(),
            busiest_client_fraction=pl.col("busy_fraction").max(),
            kv_peak_fraction=pl.col("kv_peak_fraction").max(),
        )
    )
    for row in figures.sort("pool").iter_rows(named=True):
        pool = row.pop("pool")
        for name, expected in row.items():
            yield from unequal(run, ("pools", pool, name), expected, "that of clients.parquet")


def _path_shares(run: RunFiles) -> Iterator[Finding]:
    for which in ("mean", "p99"):
        path = run.figure("critical_path", which)
        if not isinstance(path, dict):
            continue
        sums = {
            "shares by stage": math.fsum((path.get("shares") or {}).values()),
            "shares of queue, transfer and service": math.fsum(
                path.get(f"{part}_share") or 0.0 for part in ("queue", "transfer", "service")
            ),
        }
        for what, total in sums.items():
            if differs(total, 1.0):
                yield Finding(FILE, f"critical_path.{which}: the {what} add up to {shown(total)}; expected 1")


INVARIANTS = (
    Invariant(
        25,
        "counts",
        "The summary's counts of requests and steps are those of the tables.",
        ("requests", "summary"),
        _counts,
    ),
    Invariant(
        26,
        "latency figures",
        "Means and percentiles of TTFT, TPOT and E2E are those of the table of requests.",
        ("requests", "summary"),
        _latencies,
    ),
    Invariant(
        27,
        "order of figures",
        "Percentiles rise with their level, attainment is a share, and submitted = completed + failed.",
        ("summary",),
        _in_order,
    ),
    Invariant(
        28,
        "throughput",
        "Throughput is completed requests, and the tokens of their answers, over the time from the first arrival "
        "to the last completion; all generated tokens are no fewer.",
        ("requests", "summary"),
        _throughput,
    ),
    Invariant(
        29,
        "stage figures",
        "Means, percentiles and shares of stages are those of the table of stages, of completed requests.",
        ("requests", "stages", "summary"),
        _stage_figures,
    ),
    Invariant(
        30,
        "pool figures",
        "Numbers of clients, busy fractions and KV peaks of pools are those of the table of clients.",
        ("clients", "summary"),
        _pool_figures,
    ),
    Invariant(
        31,
        "critical path",
        "The shares of the critical path add up to 1, by stage and by cause.",
        ("summary",),
        _path_shares,
    ),
)
