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
            f"The {found['direction']} {over} that meets the SLO is {digits(value)} (between "
            f"{digits(found['low'])} and {digits(found['high'])} over the seeds). The rest of this page shows the "
            "run at this value."
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
            Cell("met", "good") if row["met"] else Cell("missed", "bad"),
            {True: "settles", False: "grows", None: UNKNOWN}[row["sustained"]],
            percent(row["simulated_share"]),
            Cell(row["problem"] or row["failing"] or "", "left"),
        ]
        for row in probes.iter_rows(named=True)
    ]
    heads = [over, "seed", "SLO", "backlog", "simulated", "missed bounds"]
    yield html.folded("All simulations", html.table(heads, rows))
