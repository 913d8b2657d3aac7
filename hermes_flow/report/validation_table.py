"""Writes a validation as text for the terminal: measured values and errors per run, then the means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from hermes_flow.metrics.number_text import UNKNOWN, alike, counted, digits, duration, shortened
from hermes_flow.report.text_table import TextColumn, laid_out

if TYPE_CHECKING:
    from hermes_flow.validation.compare import Compared, Row

NAMES = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "E2E",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "tokens/s",
}
_OURS = "hermes_flow"
_STATISTICS = ("mean", "p50", "p90", "p99")
_EACH = ("request_ape_p50", "request_ape_p90")
_LABEL, _CELL, _WIDTH = 12, 17, 80

Sizes = Mapping[tuple[str, str, str], float]
Rows = list[tuple[str, ...]]


def validation_table(runs: Sequence[Compared], sizes: Sizes) -> str:
    """Return the runs as text of 80 columns; ``sizes`` are the mean sizes of their errors in percent."""
    blocks = ["\n".join(_run(run)) for run in runs]
    if len(runs) > 1:
        blocks.append("\n".join(_overview(runs, sizes)))
    return "\n\n".join(blocks)


def signed(error_percent: float) -> str:
    """Return an error: +1.2 %, -12 %."""
    size = abs(error_percent)
    return f"{error_percent:+.1f} %" if size < 99.95 else f"{error_percent:+,.0f} %"


def shown(metric: str, value: float) -> str:
    """Return a latency with its unit, or a rate."""
    return digits(value) if metric.endswith("_per_s") else duration(value)


def shown_alike(metric: str, values: Sequence[float | None]) -> list[str]:
    """Return values for comparison with each other: latencies in one unit, or rates."""
    return [digits(value) for value in values] if metric.endswith("_per_s") else alike(values)


def others(rows: Sequence[Row]) -> list[str]:
    """Return the names of the other simulators, in order of appearance."""
    return [name for name in dict.fromkeys(row.simulator for row in rows) if name != _OURS]


def failed_note(run: Compared) -> str:
    """Return how many requests did not complete in the simulation, if any."""
    failed = run.replayed.failed
    return (
        f"{failed:,} of {run.replayed.requests:,} requests did not complete in the simulation"
        if failed
        else ""
    )


def compared_note(run: Compared, simulator: str = _OURS) -> str:
    """Return how many requests could be compared, if not all; errors cover requests that both sides have."""
    missing = run.missing(simulator)
    if not missing:
        return ""
    if len(set(missing.values())) == 1:
        count, of = next(iter(missing.values()))
        counts = f"{', '.join(NAMES[metric] for metric in missing)} of {count:,} of {of:,} requests"
    else:
        counts = ", ".join(
            f"{NAMES[metric]} of {count:,} of {of:,}" for metric, (count, of) in missing.items()
        )
    return f"compared: {counts}; the others are blank or failed"


def _run(run: Compared) -> Iterator[str]:
    passes = len(run.replayed.samples)
    size = counted(run.replayed.requests // passes, "request")
    yield f"{shortened(run.name, 50)}: {size}" + (f", {passes} times" if passes > 1 else "")
    if failed_note(run):
        yield failed_note(run)
    if compared_note(run):
        yield from wrap(compared_note(run), _WIDTH, subsequent_indent="  ")
    ours = [row for row in run.rows if row.simulator == _OURS]
    yield from _table(_cells(ours, measured=True), headed=True)
    each = [f"{NAMES[row.metric]} {row.error_percent:.1f} %" for row in ours if row.statistic == _EACH[0]]
    if each:
        yield f"error of a single request, median: {', '.join(each)}"
    for warning in run.replayed.warnings:
        yield from wrap(f"warning: {warning}", _WIDTH, subsequent_indent="  ")
    for name in others(run.rows):
        yield f"by {name}:"
        if compared_note(run, name):
            yield from wrap(compared_note(run, name), _WIDTH, subsequent_indent="  ")
        theirs = [row for row in run.rows if row.simulator == name]
        yield from _table(_cells(theirs, measured=False), headed=False)


def _cells(rows: Sequence[Row], measured: bool) -> Rows:
    """Return a row per metric: its name, and a cell per statistic."""
    found: Rows = []
    for metric, title in NAMES.items():
        by_name = {row.statistic: row for row in rows if row.metric == metric}
        if not any(statistic in by_name for statistic in _STATISTICS):
            continue
        cells = []
        for statistic in _STATISTICS:
            row = by_name.get(statistic)
            if row is None:
                cells.append(UNKNOWN if measured and not metric.endswith("_per_s") else "")
            elif measured and row.measured is not None:
                cells.append(f"{shown(metric, row.measured)} {signed(row.error_percent):>7}")
            else:
                cells.append(signed(row.error_percent))
        found.append((title, *cells))
    return found


def _table(rows: Rows, *, headed: bool) -> list[str]:
    """Return the rows below a heading that names the statistics, or without it."""
    names, *columns = zip(*rows, strict=True) if rows else ((), *[()] * len(_STATISTICS))
    lines = laid_out(
        [
            TextColumn("", names, _LABEL, left=True),
            *(
                TextColumn(statistic, cells, _CELL)
                for statistic, cells in zip(_STATISTICS, columns, strict=True)
            ),
        ],
        gap=0,
    )
    return lines if headed else lines[1:]


def _overview(runs: Sequence[Compared], sizes: Sizes) -> Iterator[str]:
    """Yield the mean sizes of the errors: ours, then those of other simulators."""
    yield f"mean size of the error over {len(runs)} runs"
    for simulator in dict.fromkeys(simulator for simulator, _, _ in sizes):
        if simulator != _OURS:
            known = sum(any(row.simulator == simulator for row in run.rows) for run in runs)
            yield f"by {simulator} ({counted(known, 'run')}):"
        rows: Rows = []
        for metric, title in NAMES.items():
            found = [sizes.get((simulator, metric, name)) for name in _STATISTICS]
            if any(size is not None for size in found):
                rows.append((title, *("" if size is None else f"{size:.1f} %" for size in found)))
        yield from _table(rows, headed=simulator == _OURS)
