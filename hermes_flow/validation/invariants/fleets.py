"""Invariants of fleets: the states of clients that come and go, and what they served meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hermes_flow.validation.invariants.figures import FILE
from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, differs, shown
from hermes_flow.validation.invariants.run_files import RunFiles

_FLEET = "fleet.parquet"
_NEAR_S = 2e-9  # times are whole nanoseconds, as floats
_SUMS = 1e-9
_UNPAID = ("off", "taken")


def _fleets(run: RunFiles) -> Iterator[Finding]:
    """Check the states of clients, the tasks that they served, and the hours that they were paid for."""
    if "fleet" not in run.tables:
        return
    yield from _states(run)
    yield from _served(run)
    yield from _hours(run)


def _states(run: RunFiles) -> Iterator[Finding]:
    """Find stretches that do not follow the one before them, or that end before they begin."""
    import polars as pl

    frame = run.tables["fleet"].with_row_index("row")
    before = pl.col("end_s").shift(1).over("client").fill_null(0.0)
    yield from broken_rows(
        _FLEET,
        frame.with_columns(before=before),
        ((pl.col("begin_s") - pl.col("before")).abs() > _NEAR_S) | (pl.col("end_s") < pl.col("begin_s")),
        lambda row: (
            f"{row['client']} is {row['state']} from {shown(row['begin_s'])} s to {shown(row['end_s'])} s, and was "
            f"something else until {shown(row['before'])} s"
        ),
    )


def _served(run: RunFiles) -> Iterator[Finding]:
    """Find tasks that were not served within one life of their client."""
    import polars as pl

    frame, stages = run.tables["fleet"], run.tables["stages"].with_row_index("row")
    moved: list[int] = []
    if "migrations" in run.tables["requests"].columns:
        moved = run.tables["requests"].filter(pl.col("migrations") > 0)["request"].to_list()
    for (client,), states in frame.group_by("client", maintain_order=True):
        lives = _lives(states["state"].to_list(), states["begin_s"].to_list(), states["end_s"].to_list())
        tasks = stages.filter(
            (pl.col("client") == client)
            & pl.col("start_s").is_not_null()
            & pl.col("finish_s").is_not_null()
            & ~pl.col("request").is_in(moved)  # these began on another client
        )
        start, finish = tasks["start_s"].to_numpy(), tasks["finish_s"].to_numpy()
        within = np.zeros(len(start), dtype=np.bool_)
        for begin, end in lives:
            within |= (start >= begin - _NEAR_S) & (finish <= end + _NEAR_S)
        outside = np.flatnonzero(~within)
        if len(outside):
            first = int(outside[0])
            yield Finding(
                "stages.parquet",
                f"client {client} serves a task from {shown(float(start[first]))} s to "
                f"{shown(float(finish[first]))} s, and {_FLEET} does not have it up all that time",
                tuple(tasks["row"].to_numpy()[outside].tolist()),
            )


def _lives(states: list[str], begins: list[float], ends: list[float]) -> list[tuple[float, float]]:
    """Return the stretches in which a client takes or finishes tasks, joined where one follows the other."""
    lives: list[tuple[float, float]] = []
    for state, begin, end in zip(states, begins, ends, strict=True):
        if state not in ("up", "draining"):
            continue
        if lives and state == "draining" and lives[-1][1] == begin:
            lives[-1] = (lives[-1][0], end)
        else:
            lives.append((begin, end))
    return lives


def _hours(run: RunFiles) -> Iterator[Finding]:
    """Compare the hours of each fleet in the summary with its stretches."""
    import polars as pl

    paid = run.tables["fleet"].filter(~pl.col("state").is_in(_UNPAID))
    for pool in run.figure("fleet") or {}:
        own = paid.filter(pl.col("pool") == pool)
        hours = float((own["end_s"] - own["begin_s"]).sum()) / 3600
        figure = run.figure("fleet", pool, "client_hours")
        if differs(figure, hours, _SUMS):
            yield Finding(
                FILE,
                f"fleet.{pool}.client_hours is {shown(figure)}, and the stretches in {_FLEET} make {shown(hours)}",
            )


INVARIANTS = (
    Invariant(
        40,
        "fleets",
        "Of clients that start, stop or fail, each state follows the one before it, tasks are served while the "
        "client is up or drains, and the hours paid for are those of the states.",
        ("requests", "stages", "summary"),
        _fleets,
    ),
)
