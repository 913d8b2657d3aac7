"""The stages of requests on a time axis: the mean request as a waterfall, and single requests one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.number_text import duration
from hermes_flow.report.charts.latency import axis_unit
from hermes_flow.report.charts.theme import COLOURS, MOVE, WAIT, Spec, colour_scale, specification

if TYPE_CHECKING:
    import polars as pl

_PARTS = (("waits", WAIT), ("moves data", MOVE), ("is served", COLOURS[0]))
_ROW = 22


def waterfall(stages: pl.DataFrame, arrivals: pl.DataFrame, order: Sequence[str]) -> Spec | None:
    """Return the chart of the mean request, a row per stage, or None if no stage ended.

    ``stages`` is the table of stages, ``arrivals`` has ``request`` and ``arrival_s`` of the requests to show. The bar
    of a stage begins at the mean time from the arrival to when the stage is ready, over the requests that take it.
    """
    import altair as alt
    import polars as pl

    known = stages.filter(pl.col("finish_s").is_not_null()).join(
        arrivals.select("request", "arrival_s"), on="request"
    )
    if known.is_empty():
        return None
    means = {
        row["stage"]: row
        for row in known.group_by("stage")
        .agg(
            (pl.col("ready_s") - pl.col("arrival_s")).mean().alias("ready"),
            *(pl.col(f"{name}_s").mean().alias(name) for name in ("queue", "transfer", "service")),
        )
        .iter_rows(named=True)
    }
    rows: list[dict[str, Any]] = []
    shown = [stage for stage in order if stage in means]
    for stage in shown:
        row, at = means[stage], means[stage]["ready"]
        for (part, _), name in zip(_PARTS, ("queue", "transfer", "service"), strict=True):
            rows.append(
                {"stage": stage, "part": part, "from": at, "to": at + row[name], "time": duration(row[name])}
            )
            at += row[name]
    unit, factor = axis_unit(max(row["to"] for row in rows))
    _scale(rows, factor)
    names = [name for name, _ in _PARTS]
    colour = alt.Color("part:N", scale=colour_scale(names, [colour for _, colour in _PARTS]))
    bars = alt.Chart(alt.InlineData(values=rows)).mark_bar(height=13)
    bars = bars.encode(
        x=alt.X("from:Q", title=f"{unit} after the arrival"),
        x2="to:Q",
        y=alt.Y("stage:N", sort=shown, title=None),
        color=colour,
        tooltip=["stage:N", "part:N", "time:N"],
    )
    return specification(bars.properties(width="container", height=_ROW * len(shown)))


def request_rows(stages: pl.DataFrame, requests: pl.DataFrame, order: Sequence[str]) -> Spec | None:
    """Return the chart of single requests, a row each, in the order of ``requests``; None if none of them started.

    A row begins at the arrival of its request. Waiting and transfers have colours of their own, and what is served
    has the colour of its stage.
    """
    import altair as alt
    import polars as pl

    names = [str(request) for request in requests["request"]]
    known = stages.filter(pl.col("finish_s").is_not_null()).join(
        requests.select("request", "arrival_s"), on="request"
    )
    if known.is_empty():
        return None
    rows: list[dict[str, Any]] = []
    for row in known.iter_rows(named=True):
        at = row["ready_s"] - row["arrival_s"]
        parts = (
            (row["queue_s"], "waits"),
            (row["transfer_s"], "moves data"),
            (row["service_s"], row["stage"]),
        )
        for length, part in (parts[1], parts[0], parts[2]):
            if length:
                rows.append(
                    {
                        "request": str(row["request"]),
                        "stage": row["stage"],
                        "client": row["client"],
                        "part": part,
                        "from": at,
                        "to": at + length,
                        "time": duration(length),
                    }
                )
            at += length or 0.0
    unit, factor = axis_unit(max(row["to"] for row in rows))
    _scale(rows, factor)
    present = {row["part"] for row in rows}
    served = [stage for stage in order if stage in present]
    used = [(name, colour) for name, colour in _PARTS[:2] if name in present]
    colours = [COLOURS[order.index(stage) % len(COLOURS)] for stage in served]
    scale = colour_scale([*(name for name, _ in used), *served], [*(colour for _, colour in used), *colours])
    bars = alt.Chart(alt.InlineData(values=rows)).mark_bar(height=12)
    bars = bars.encode(
        x=alt.X("from:Q", title=f"{unit} after the arrival"),
        x2="to:Q",
        y=alt.Y("request:N", sort=names, title="request"),
        color=alt.Color("part:N", scale=scale),
        tooltip=["request:N", "stage:N", "part:N", "time:N", "client:N"],
    )
    return specification(bars.properties(width="container", height=17 * len(names)))


def _scale(rows: list[dict[str, Any]], factor: float) -> None:
    for row in rows:
        row["from"], row["to"] = row["from"] * factor, row["to"] * factor


def time_bars(
    rows: Sequence[tuple[str, str, str, float]], runs: Sequence[str], stages: Sequence[str]
) -> Spec:
    """Return the chart of mean requests, a bar per run; ``rows`` are (run, stage, cause, seconds).

    Waits (cause "queue") and transfers have colours of their own, and service has the colour of its stage.
    """
    import altair as alt

    totals: dict[str, float] = {}
    for run, _, _, seconds in rows:
        totals[run] = totals.get(run, 0.0) + seconds
    unit, factor = axis_unit(max([*totals.values(), 1e-9]))
    words = {"queue": "waits", "transfer": "moves data"}
    data = [
        {
            "run": run,
            "stage": stage,
            "part": words.get(cause, stage),
            "x": seconds * factor,
            "time": duration(seconds),
            "order": 2 * stages.index(stage) + (cause == "service"),
        }
        for run, stage, cause, seconds in rows
        if seconds > 0
    ]
    present = {row["part"] for row in data}
    names = [name for name, _ in _PARTS[:2] if name in present]
    served = [stage for stage in stages if stage in present]
    colours = [dict(_PARTS)[name] for name in names]
    colours += [COLOURS[stages.index(stage) % len(COLOURS)] for stage in served]
    bars = alt.Chart(alt.InlineData(values=data)).mark_bar(height=20)
    bars = bars.encode(
        x=alt.X("x:Q", title=f"{unit} of the mean request"),
        y=alt.Y("run:N", sort=list(runs), title=None),
        color=alt.Color("part:N", scale=colour_scale([*names, *served], colours)),
        order="order:Q",
        tooltip=["run:N", "stage:N", "part:N", "time:N"],
    )
    return specification(bars.properties(width="container", height=34 * len(runs)))
