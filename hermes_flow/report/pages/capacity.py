"""The part of a run's page that shows a capacity search: its answer, and the verdict of every simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.number_text import UNKNOWN, digits, percent
from hermes_flow.report.charts.probes import probe_points
from hermes_flow.report.pages import template as html
from hermes_flow.report.pages.template import Cell

if TYPE_CHECKING:
    import polars as pl


def capacity_part(probes: pl.DataFrame, found: dict[str, Any]) -> Iterator[str]:
    """Yield the section from ``capacity.parquet`` and the entry ``capacity`` of the summary."""
    yield html.heading("Capacity", "capacity")
    over, value = found["over"], found["value"]
    if value is None:
        yield html.paragraph(f"No value of {over} that was tried meets the SLO.")
    else:
        yield html.paragraph(
            f"The {found['direction']} {over} that meets the SLO is {digits(value)}{_intervals(found)}. The rest of "
            "this page shows the run at this value."
        )
    for note in found.get("notes", []):
        yield html.paragraph(f"Note: {note}", "caution")
    caption = (
        "A point per simulation. Open points meet every bound, but their backlog still grows at the last arrival; "
        "the dashed line is the answer."
    )
    yield html.chart(f"Simulations by {over}", caption, probe_points(probes, over, value))
    rows: list[list[Cell | str]] = [
        [
            digits(row["value"]),
            str(row["seed"]),
            percent(row.get("step_times", 1.0)),
            Cell("met", "good") if row["met"] else Cell("missed", "bad"),
            {True: "settles", False: "grows", None: UNKNOWN}[row["sustained"]],
            percent(row["simulated_share"]),
            Cell(row["problem"] or row["failing"] or "", "left"),
        ]
        for row in probes.iter_rows(named=True)
    ]
    heads = [over, "seed", "step times", "SLO", "backlog", "simulated", "missed bounds"]
    yield html.folded("All simulations", html.table(heads, rows))


def _intervals(found: dict[str, Any]) -> str:
    """Return the intervals over seeds and over step times; a search of an earlier release has only the first."""
    seeds = (found.get("seeds_low", found["low"]), found.get("seeds_high", found["high"]))
    text = f" ({digits(seeds[0])} to {digits(seeds[1])} with other random seeds"
    bar = found.get("step_times")
    if bar is not None:
        low, high = ("no value" if end is None else digits(end) for end in (found["low"], found["high"]))
        text += f"; {low} to {high} with step times of {percent(bar['low'])} to {percent(bar['high'])}: {bar['kind']}"
    return text + ")"
