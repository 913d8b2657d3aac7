"""Writes the HTML page of a validation: the errors of all runs, then the figures of each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from hermes_flow.metrics.number_text import counted
from hermes_flow.report.charts.latency import Curve, distribution
from hermes_flow.report.pages import template as html
from hermes_flow.report.validation_table import (
    NAMES,
    Sizes,
    compared_note,
    failed_note,
    others,
    shown_alike,
    signed,
)

if TYPE_CHECKING:
    from hermes_flow.validation.compare import Compared, Row

_OURS = "hermes_flow"
_STATISTICS = ("mean", "p50", "p90", "p99")
_LATENCIES = ("ttft", "tpot", "e2e")
_LARGE = 10.0  # percent, from which an error stands out


def validation_page(runs: Sequence[Compared], sizes: Sizes, failures: Mapping[str, str]) -> str:
    """Return one HTML page without external files; ``sizes`` are mean errors, ``failures`` the failed runs."""
    subtitle = f"Errors are (simulated − measured) / measured. Those of {_LARGE:.0f} % or more are red."
    parts = [
        *_failures(failures),
        *_overview(runs, sizes),
        *(part for run in runs for part in _run(run)),
    ]
    return html.page(f"Measured and simulated: {counted(len(runs), 'run')}", subtitle, parts)


def _failures(failures: Mapping[str, str]) -> Iterator[str]:
    if failures:
        yield f'<p class="bad">{counted(len(failures), "run")} could not be validated:</p><ul>'
        yield from (
            f"<li><b>{escape(path)}</b>: {escape(problem)}</li>" for path, problem in failures.items()
        )
        yield "</ul>"


def _overview(runs: Sequence[Compared], sizes: Sizes) -> Iterator[str]:
    """Yield the errors of all runs, the largest first, and the means of their sizes."""
    columns = [
        (metric, statistic)
        for metric in NAMES
        for statistic in _STATISTICS
        if (_OURS, metric, statistic) in sizes
    ]
    yield "<h2>All runs</h2>"
    if len(runs) > 1:
        yield '<p class="soft">The worst first, by the largest error of a mean, of whichever metric.</p>'
    yield '<div class="wide" tabindex="0"><table><tr><th>run</th>'
    yield "".join(
        f"<th>{NAMES[metric]}<br>{'' if metric.endswith('_per_s') else statistic}</th>"
        for metric, statistic in columns
    )
    yield "</tr>"
    for run in sorted(runs, key=lambda run: -_largest_mean(run)):
        found = {(row.metric, row.statistic): row for row in run.rows if row.simulator == _OURS}
        yield f"<tr><td>{escape(run.name)}</td>"
        yield "".join(_error_cell(found.get(column)) for column in columns) + "</tr>"
    if len(runs) > 1:
        cells = "".join(f"<td><b>{sizes[_OURS, *column]:.1f} %</b></td>" for column in columns)
        yield f"<tr><td><b>mean size</b></td>{cells}</tr>"
    for name in dict.fromkeys(simulator for simulator, _, _ in sizes if simulator != _OURS):
        cells = "".join(
            f"<td>{sizes[name, *column]:.1f} %</td>" if (name, *column) in sizes else "<td></td>"
            for column in columns
        )
        count = sum(any(row.simulator == name for row in run.rows) for run in runs)
        yield f'<tr class="soft"><td>mean size of {escape(name)} ({counted(count, "run")})</td>{cells}</tr>'
    yield "</table></div>"


def _largest_mean(run: Compared) -> float:
    return max(
        (abs(row.error_percent) for row in run.rows if row.simulator == _OURS and row.statistic == "mean"),
        default=0.0,
    )


def _error_cell(row: Row | None) -> str:
    if row is None:
        return "<td></td>"
    style = ' class="bad"' if abs(row.error_percent) >= _LARGE else ""
    return f"<td{style}>{signed(row.error_percent)}</td>"


def _run(run: Compared) -> Iterator[str]:
    yield f"<h2>{escape(run.name)}</h2>"
    if failed_note(run):
        yield f'<p class="bad">{failed_note(run)}</p>'
    for name in (_OURS, *others(run.rows)):
        if compared_note(run, name):
            yield f"<p>{escape(name)}: {compared_note(run, name)}</p>"
    yield from _figures(run)
    drawn = [(NAMES[metric], distribution(curves)) for metric, curves in _curves(run).items()]
    caption = "The share of requests that are at least as fast as the value below it."
    charts = [html.chart(name, caption, spec) for name, spec in drawn if spec is not None]
    if charts:
        yield html.side_by_side(charts)


def _figures(run: Compared) -> Iterator[str]:
    """Yield the table of a run: measured, simulated and errors, the errors of others beside ours."""
    simulators = [_OURS, *others(run.rows)]
    heads = "<th>error</th>" + "".join(f"<th>error of<br>{escape(name)}</th>" for name in simulators[1:])
    yield '<div class="wide" tabindex="0"><table><tr><th></th><th>measured</th><th>simulated</th>'
    yield f"{heads}</tr>"
    found = {(row.metric, row.statistic, row.simulator): row for row in run.rows}
    for metric, statistic in dict.fromkeys((row.metric, row.statistic) for row in run.rows):
        rows = [found.get((metric, statistic, name)) for name in simulators]
        real = next((row.measured for row in rows if row is not None), None)
        ours = rows[0].simulated if rows[0] is not None else None
        each = statistic.startswith("request_ape_")
        title = f"error of a request, {statistic.removeprefix('request_ape_')}" if each else statistic
        values = shown_alike(metric, (real, ours))
        cells = "".join(
            ("<td></td>" if row is None else f"<td>{row.error_percent:.1f} %</td>")
            if each
            else _error_cell(row)
            for row in rows
        )
        yield (
            f"<tr><td>{NAMES[metric]} {'' if metric.endswith('_per_s') else title}</td>"
            f"<td>{'' if real is None else values[0]}</td><td>{'' if ours is None else values[1]}</td>{cells}</tr>"
        )
    yield "</table></div>"


def _curves(run: Compared) -> dict[str, list[Curve]]:
    """Return the curves of each latency of which something was measured; of the requests that were compared."""
    import numpy as np

    from hermes_flow.validation.compare import shared

    curves: dict[str, list[Curve]] = {}
    for metric in _LATENCIES:
        samples = run.replayed.samples
        if isinstance(run.measured, dict):
            known = {statistic: value for (name, statistic), value in run.measured.items() if name == metric}
            simulated = np.concatenate([sample.latencies[metric] for sample in samples])
            real = Curve("measured", figures=known)
            found = {}
        elif metric in run.measured.latencies:
            measured, ours, _ = shared(run.measured, samples[0], metric)
            simulated = ours.latencies[metric]
            real = Curve("measured", measured.latencies[metric])
            found = {
                name: shared(run.measured, sample, metric)[1].latencies[metric]
                for name, sample in run.others.items()
                if metric in sample.latencies
            }
        else:
            continue
        if real.seconds is None and not real.figures:
            continue
        curves[metric] = [real, Curve(_OURS, simulated)]
        curves[metric] += [Curve(name, seconds) for name, seconds in found.items()]
    return curves
