"""The page of a comparison: settings that differ, every figure, where the time goes, trade-offs and ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from hermes_flow.metrics.figures import figure
from hermes_flow.metrics.files import write_text
from hermes_flow.metrics.number_text import UNKNOWN, counted, duration, percent
from hermes_flow.metrics.objectives import bound_label
from hermes_flow.planning.compare import MAIN, Comparison
from hermes_flow.planning.compared_run import ComparedRun
from hermes_flow.report.charts.designs import trade_off
from hermes_flow.report.charts.latency import Curve, distribution
from hermes_flow.report.charts.stages import time_bars
from hermes_flow.report.compare_text import compact_settings, unlike_figures
from hermes_flow.report.pages import template as html
from hermes_flow.report.pages.run_figures import cause_rows, why_texts
from hermes_flow.report.pages.sweep import change_cell
from hermes_flow.report.pages.template import Cell

_ON_FRONT = {True: "yes", False: "no", None: "does not compare"}
_SIDE_BY_SIDE = 8  # runs as columns of tables; more are rows
_CURVES = 8
_TRADE_OFFS = (
    ("cost.usd_per_million_output_tokens", "ttft_s.p99"),
    ("cost.usd_per_million_output_tokens", "tpot_s.p90"),
    ("throughput.output_tokens_per_s", "e2e_s.p50"),
)


def write_comparison_page(
    found: Comparison, path: Path, rank: str | None = None, pareto: tuple[str, ...] = ()
) -> Path:
    """Write the page to ``path``, or to ``compare.html`` in it if it does not end in .html, and return its path."""
    page = comparison_page(found, rank, pareto)
    return write_text(page, path if path.suffix == ".html" else path / "compare.html")


def comparison_page(found: Comparison, rank: str | None = None, pareto: tuple[str, ...] = ()) -> str:
    """Return the page of a comparison. ``rank`` is a figure to rank by, ``pareto`` are two or three for a front."""
    shown = ", ".join(found.labels[:_SIDE_BY_SIDE]) + (" …" if len(found.labels) > _SIDE_BY_SIDE else "")
    return html.page(f"Comparison of {counted(len(found.runs), 'run')}", shown, _parts(found, rank, pareto))


def _parts(found: Comparison, rank: str | None, pareto: tuple[str, ...]) -> Iterator[str]:
    yield _verdict(found)
    for text in unlike_figures(found, MAIN):
        yield html.paragraph(text, "caution")
    yield from _settings(found)
    few = len(found.runs) <= _SIDE_BY_SIDE
    if few:
        yield from _figures(found)
        yield from _why(found)
        yield from _distributions(found.runs)
    yield from _pairs(found)
    yield from _trade_offs(found, pareto)
    yield from _ranked(found, rank)
    if found.failed:
        yield html.heading("Failed jobs", "failed")
        yield html.table(
            ["job", "reason"], [[job, Cell(reason, "prose")] for job, reason in found.failed.items()], left=2
        )


def _verdict(found: Comparison) -> str:
    first, texts = found.runs[0], []
    for run in found.runs[1:] if len(found.runs) <= _SIDE_BY_SIDE else ():
        better: list[str] = []
        worse: list[str] = []
        for key in MAIN:
            old, new = first.figures.get(key), run.figures.get(key)
            if not (found.compares(first, key) and found.compares(run, key)):
                continue
            if old and new is not None and abs(new / old - 1) >= 0.01 and figure(key).better is not None:
                (better if (new < old) == (figure(key).better == "low") else worse).append(figure(key).title)
        parts = [f"better in {', '.join(better)}"] if better else []
        parts += [f"worse in {', '.join(worse)}"] if worse else []
        texts.append(
            f"{run.label} is {' and '.join(parts)}." if parts else f"{run.label} is the same within 1 %."
        )
    met = [run.label for run in found.runs if run.met]
    missed = [run.label for run in found.runs if run.met is False]
    if not met and not missed:
        return html.verdict(f"Compared with {first.label}", "", texts)
    headline = f"{len(met)} of {counted(len(met) + len(missed), 'run')} meet their SLO."
    return html.verdict(headline, "met" if met else "missed", texts)


def _settings(found: Comparison) -> Iterator[str]:
    yield html.heading("Settings that differ", "settings")
    kept, hidden = compact_settings(found)
    if all(run.settings is None for run in found.runs):
        yield html.paragraph("The settings of these runs are not known: results in memory have none.", "soft")
        return
    rows: list[list[Cell | str]] = []
    if not kept:
        yield html.paragraph("All settings are the same.")
    elif len(found.runs) <= _SIDE_BY_SIDE:
        rows = [[key, *(Cell(value, "left") for value in values)] for key, values in kept]
        yield html.table(["key", *found.labels], rows, left=1 + len(found.labels))
    else:
        for index, label in enumerate(found.labels):
            rows.append([label, *(Cell(values[index], "left") for _, values in kept)])
        yield html.table(["run", *(key for key, _ in kept)], rows, left=1 + len(kept))
    if hidden:
        lines = [[UNKNOWN if value is None else value for value in row] for row in found.settings.iter_rows()]
        table = html.table(found.settings.columns, lines, left=len(found.settings.columns))
        yield html.folded(f"All {len(found.settings)} keys, with the figures of catalog entries", table)


def _figures(found: Comparison) -> Iterator[str]:
    yield html.heading("Figures", "figures")
    yield html.table(*_figure_rows(found, MAIN))
    others = [key for key in found.figures["figure"] if key not in MAIN]
    heads, rows = _figure_rows(found, others)
    yield html.folded(f"All other figures ({len(rows)})", html.table(heads, rows))


def _figure_rows(found: Comparison, keys: Any) -> tuple[list[str], list[list[Cell | str]]]:
    labels = found.labels
    heads = ["figure", labels[0]]
    for label in labels[1:]:
        heads += [label, "change"]
    known = {row["figure"]: row for row in found.figures.iter_rows(named=True)}
    rows: list[list[Cell | str]] = []
    for key in keys:
        if key not in known:
            continue
        about, row = figure(key), known[key]
        cells: list[Cell | str] = [about.title, about.text(row[labels[0]])]
        for label in labels[1:]:
            change = row[f"change {label}"]
            cells += [about.text(row[label]), change_cell(None if change is None else 1 + change, about)]
        rows.append(cells)
    return heads, rows


def _why(found: Comparison) -> Iterator[str]:
    if found.why.is_empty():
        return
    yield html.heading("Where the time goes", "why")
    caption = (
        "The mean request of each run on its critical path. The parts of a bar add up to the mean E2E; what waits "
        "and what moves data has a colour of its own."
    )
    rows = [
        (run.label, stage, cause, seconds)
        for run in found.runs
        for (stage, cause), seconds in run.times.items()
    ]
    stages = list(dict.fromkeys(stage for _, stage, _, _ in rows))
    yield html.chart("The mean request", caption, time_bars(rows, found.labels, stages))
    labels = found.labels
    heads = ["stage", "cause", labels[0]]
    for label in labels[1:]:
        heads += [label, "more"]
    lines: list[list[Cell | str]] = []
    for row in found.why.iter_rows(named=True):
        if not any(row[label] for label in labels):
            continue  # no run waits or moves anything there
        cells: list[Cell | str] = [row["stage"], row["cause"], duration(row[labels[0]])]
        for label in labels[1:]:
            more = row[f"more {label}"]
            if abs(more) < 1e-9:
                cells += [duration(row[label]), ""]
                continue
            sign, style = ("+", "bad") if more > 0 else ("−", "good")
            cells += [duration(row[label]), Cell(f"{sign}{duration(abs(more))}", style)]
        lines.append(cells)
    yield html.table(heads, lines, left=2)
    yield from _causes(found)
    for run in found.runs:
        for text in why_texts(run.files.summary):
            yield html.paragraph(f"{run.label}: {text}")


def _causes(found: Comparison) -> Iterator[str]:
    """Yield the causes of missed bounds side by side, for the runs that miss one."""
    missing = [(run, run.files.summary["why"]) for run in found.runs if run.files.summary["why"]["causes"]]
    if not missing:
        return
    yield html.paragraph(
        "What the time of late requests went into, for the bound that each run misses by most:"
    )
    keys = dict.fromkeys(key for _, why in missing for key in why["causes"])
    totals = {key: -math.fsum(why["causes"].get(key, 0.0) for _, why in missing) for key in keys}
    rows = []
    for key in sorted(totals, key=lambda key: totals[key]):
        ((what, where, _),) = cause_rows({key: 0.0})
        rows.append([what, where, *(percent(why["causes"].get(key, 0.0)) for _, why in missing)])
    heads = [f"{run.label}: {bound_label(why['bound'])}" for run, why in missing]
    yield html.table(["cause", "where", *heads], rows, left=2)


def _distributions(runs: tuple[ComparedRun, ...]) -> Iterator[str]:
    charts = []
    for metric in ("ttft", "tpot", "e2e"):
        curves = [
            Curve(run.label, run.files.requests[f"{metric}_s"].drop_nulls().to_numpy())
            for run in runs[:_CURVES]
            if run.files.requests is not None
        ]
        spec = distribution(curves)
        if spec is not None:
            caption = "The share of requests that are at least as fast as the value below it."
            charts.append(html.chart(metric.upper(), caption, spec))
    if charts:
        yield html.heading("Distributions", "distributions")
        yield html.side_by_side(charts)


def _pairs(found: Comparison) -> Iterator[str]:
    pairs = found.pairs
    if pairs.is_empty():
        return
    yield html.heading("Job by job", "jobs")
    yield html.paragraph(
        "Jobs of the sweeps with the same values of all swept keys: change from the first sweep.", "soft"
    )
    keys = [name for name in pairs.columns[2:] if name not in MAIN]
    shown = [key for key in MAIN if pairs[key].drop_nulls().len()]
    rows = [
        [row["first"], row["other"], *(Cell(row[key] or UNKNOWN, "left") for key in keys)]
        + [change_cell(row[key], figure(key)) for key in shown]
        for row in pairs.iter_rows(named=True)
    ]
    yield html.table(
        ["first", "other", *keys, *(figure(key).title for key in shown)], rows, left=2 + len(keys)
    )


def _trade_offs(found: Comparison, pareto: tuple[str, ...]) -> Iterator[str]:
    designs = [
        {
            **{key: value for key, value in run.figures.items() if found.compares(run, key)},
            "name": run.label,
            "met": run.met,
        }
        for run in found.runs
    ]
    pairs = list(dict.fromkeys([*pairwise(pareto), *_TRADE_OFFS]))
    charts = []
    if len(designs) > 2 or pareto:
        for x, y in pairs:
            spec, front = trade_off(designs, figure(x), figure(y))
            if spec is not None:
                caption = (
                    f"The dashed line is the Pareto front of these two figures: {counted(len(front), 'run')}."
                )
                charts.append(html.chart(f"{figure(y).title} against {figure(x).title}", caption, spec))
    if charts:
        yield html.heading("Trade-offs", "trade-offs")
        yield html.side_by_side(charts)
    if pareto:
        frame = found.pareto(pareto)
        rows = [
            [row["run"], _ON_FRONT[row["on_front"]], *(figure(key).text(row[key]) for key in pareto)]
            for row in frame.iter_rows(named=True)
        ]
        names = ", ".join(figure(key).title for key in pareto)
        yield html.paragraph(f"The Pareto front over {names}:")
        yield html.table(["run", "on the front", *(figure(key).title for key in pareto)], rows)


def _ranked(found: Comparison, rank: str | None) -> Iterator[str]:
    known = set(found.figures["figure"])
    keys = [key for key in MAIN if key in known]
    if rank is not None:
        keys = [rank, *(key for key in keys if key != rank)]
    if not keys or (rank is None and len(found.runs) <= 2):
        return
    usual = [key for key in ("slo.goodput_requests_per_s", "e2e_s.p50") if key in known]
    by = rank or (usual or keys)[0]
    order = found.ranked(by)
    figures = {run.label: run.figures for run in found.runs}
    yield html.heading(f"Ranked by {figure(by).title}", "ranks")
    rows: list[list[Cell | str]] = []
    for number, label, met, _ in order.rows():
        verdict = {True: Cell("met", "good"), False: Cell("missed", "bad"), None: Cell(UNKNOWN)}[met]
        cells = [figure(key).text(figures[label].get(key)) for key in keys]
        rows.append([UNKNOWN if number is None else str(number), label, verdict, *cells])
    yield html.table(["rank", "run", "SLO", *(figure(key).title for key in keys)], rows, left=2)
