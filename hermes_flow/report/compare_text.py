"""Writes a comparison as text for the terminal: settings that differ, main figures, where the time goes, ranks."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from hermes_flow.metrics.comparable_costs import is_cost, is_energy
from hermes_flow.metrics.figures import figure
from hermes_flow.metrics.number_text import UNKNOWN, counted, duration, shortened
from hermes_flow.planning.compare import MAIN, Comparison
from hermes_flow.report.text_table import TextColumn, laid_out

_WIDTH = 80
_SIDE_BY_SIDE = 4  # runs as columns; more are rows
_SETTINGS = 12
_WHY = 6
_ROWS = 20
_ENTRIES = ("model", "hardware", "pipeline", "draft", "engine")
_LEAST_S = 5e-5  # of a difference that is worth a line


def compare_text(found: Comparison, rank: str | None = None, pareto: Sequence[str] = ()) -> str:
    """Return the comparison as text of at most 80 columns."""
    blocks = [_settings(found)]
    if len(found.runs) <= _SIDE_BY_SIDE:
        blocks += [_figures(found), _why(found)]
    blocks += [_pairs(found)]
    by = rank or next(
        (key for key in ("e2e_s.p50", "ttft_s.p50") if key in found.figures["figure"].to_list()), None
    )
    if by is not None and (rank is not None or len(found.runs) > _SIDE_BY_SIDE):
        blocks.append(_ranked(found, by))
    if pareto:
        blocks.append(_front(found, pareto))
    blocks.append(
        [line for job, reason in found.failed.items() for line in _wrapped(f"{job} failed: {reason}")]
    )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def compact_settings(found: Comparison) -> tuple[list[tuple[str, list[str]]], int]:
    """Return the settings that differ as (key, values), and how many were left out.

    Where a model, a hardware or a pipeline differs, its name stands for all of its figures. A pool that not all runs
    have is one row, with its number of clients.
    """
    rows = {
        row[0]: [UNKNOWN if value is None else value for value in row[1:]]
        for row in found.settings.iter_rows()
    }
    names = [key for key in rows if re.search(rf"(^|\.)({'|'.join(_ENTRIES)})\.name$", key)]
    entries = tuple(key.removesuffix("name") for key in names)
    pools = {match[0] for key in rows if (match := re.match(r"cluster\.pools\.[^.]+(?=\.count$)", key))}
    partial = {pool for pool in pools if UNKNOWN in rows[f"{pool}.count"]}
    kept = []
    for key, values in rows.items():
        pool = ".".join(key.split(".")[:3])
        if pool in partial:
            if key == f"{pool}.count":
                hardware = rows.get(f"{pool}.hardware.name", [""] * len(values))
                texts = [_clients(*pair) for pair in zip(values, hardware, strict=True)]
                kept.append((pool, texts))
        elif key in names or not key.startswith(entries):
            kept.append((key, values))
    return kept, len(rows) - len(kept)


def _clients(count: str, hardware: str) -> str:
    return count if count == UNKNOWN or hardware in ("", UNKNOWN) else f"{count} × {hardware}"


def _settings(found: Comparison) -> list[str]:
    if all(run.settings is None for run in found.runs):
        return ["The settings of these runs are not known."]
    kept, hidden = compact_settings(found)
    if not kept:
        return ["All settings are the same."]
    if len(found.runs) > _SIDE_BY_SIDE:
        keys = ", ".join(key for key, _ in kept)
        return _wrapped(
            f"{counted(len(found.runs), 'run')} differ in {counted(len(kept), 'setting')}: {keys}"
        )
    room = (_WIDTH - 34) // len(found.runs) - 2
    shown = kept[:_SETTINGS]
    columns = [TextColumn("setting", [shortened(key, 34) for key, _ in shown], left=True)]
    for index, label in enumerate(found.labels):
        cells = [shortened(values[index], room) for _, values in shown]
        columns.append(TextColumn(shortened(label, room), cells, left=True))
    lines = laid_out(columns, gap=2)
    if len(kept) > _SETTINGS or hidden:
        more = len(kept) - len(shown) + hidden
        lines += _wrapped(
            f"{counted(more, 'further key')} of these entries and others: see compare.parquet or the page."
        )
    return lines


def _figures(found: Comparison) -> list[str]:
    rows = {row["figure"]: row for row in found.figures.iter_rows(named=True)}
    keys = [key for key in MAIN if key in rows]
    labels = found.labels
    room = 12
    columns = [TextColumn("", [shortened(figure(key).title, 28) for key in keys], left=True)]
    for label in labels:
        columns.append(
            TextColumn(shortened(label, room), [figure(key).text(rows[key][label]) for key in keys])
        )
        if label != labels[0]:
            columns.append(TextColumn("change", [_change(rows[key][f"change {label}"]) for key in keys]))
    return laid_out(columns, gap=2)


def _change(change: float | None) -> str:
    if change is None:
        return UNKNOWN
    return f"{100 * change:+.1f} %".replace("-", "−") if change < 4 else f"× {1 + change:.3g}"


def _why(found: Comparison) -> list[str]:
    """Return for each run the stages and causes in which its mean request takes more or less time than the first."""
    lines: list[str] = []
    means = [run.files.summary["e2e_s"]["mean"] for run in found.runs]
    for label, mean in zip(found.labels[1:], means[1:], strict=True):
        if mean is None or means[0] is None:
            continue
        rows = found.why.select("stage", "cause", f"more {label}").rows()
        rows = [row for row in rows if abs(row[2]) >= _LEAST_S]
        rows.sort(key=lambda row: -abs(row[2]))
        lines += _wrapped(f"Mean E2E is {_more(mean - means[0])} in {label} than in {found.labels[0]}:")
        lines += [f"  {stage:<20} {cause:<10} {_signed(more):>12}" for stage, cause, more in rows[:_WHY]]
    return lines


def _more(seconds: float) -> str:
    return f"{duration(abs(seconds))} {'longer' if seconds > 0 else 'shorter'}"


def _signed(seconds: float) -> str:
    return f"{'+' if seconds > 0 else '−'}{duration(abs(seconds))}"


def _pairs(found: Comparison) -> list[str]:
    """Return the mean change over jobs of two sweeps with the same values of all swept keys."""
    from statistics import geometric_mean

    if found.pairs.is_empty():
        return []
    lines = [
        f"{counted(len(found.pairs), 'pair')} of jobs with the same swept values, mean change from the first sweep:"
    ]
    for key in MAIN:
        ratios = [ratio for ratio in found.pairs[key].drop_nulls() if ratio > 0]
        if ratios:
            lines.append(f"  {figure(key).title:<28} {_change(geometric_mean(ratios) - 1):>10}")
    return lines


def _ranked(found: Comparison, by: str) -> list[str]:
    ranked = found.ranked(by).head(_ROWS).rows()
    columns = [
        TextColumn("rank", [UNKNOWN if row[0] is None else str(row[0]) for row in ranked]),
        TextColumn("run", [shortened(row[1], 40) for row in ranked], left=True),
        TextColumn(
            "SLO", [{True: "met", False: "missed", None: UNKNOWN}[row[2]] for row in ranked], left=True
        ),
        TextColumn(figure(by).title, [figure(by).text(row[3]) for row in ranked]),
    ]
    return laid_out(columns, gap=2) + _left_out(found, [by])


def _front(found: Comparison, keys: Sequence[str]) -> list[str]:
    frame = found.pareto(keys)
    rows = [row for row in frame.iter_rows(named=True) if row["on_front"]]
    rows.sort(key=lambda row: row[keys[0]])
    columns = [TextColumn("Pareto front", [shortened(row["run"], 30) for row in rows], left=True)]
    columns += [TextColumn(figure(key).title, [figure(key).text(row[key]) for row in rows]) for key in keys]
    return laid_out(columns, gap=2) + _left_out(found, keys)


def _left_out(found: Comparison, keys: Sequence[str]) -> list[str]:
    return [line for text in unlike_figures(found, keys) for line in _wrapped(text)]


def unlike_figures(found: Comparison, keys: Sequence[str]) -> list[str]:
    """Return sentences on the runs whose costs or energies do not compare, if a figure is one.

    Where no run has a price, or none a known energy, there is nothing to compare, and no sentence.
    """
    texts = _unlike_costs(found) if any(is_cost(key) for key in keys) else []
    return texts + (_unlike_energies(found) if any(is_energy(key) for key in keys) else [])


def _unlike_energies(found: Comparison) -> list[str]:
    energies = {run.label: run.files.summary["energy"]["total_j"] for run in found.runs}
    unknown = [label for label, joules in energies.items() if joules is None]
    texts = []
    if unknown and len(unknown) < len(energies):
        texts.append(
            f"Not compared by energy, as the power of accelerators there is not known: {', '.join(unknown)}."
        )
    unlike = [
        run.label
        for run in found.runs
        if not found.energies_compare[run.label] and energies[run.label] is not None
    ]
    if unlike:
        texts.append(
            f"Energies of {', '.join(unlike)} are not compared: other hosts or stores have no known power there than "
            "in the other runs, and count as nothing."
        )
    return texts


def _unlike_costs(found: Comparison) -> list[str]:
    costs = {run.label: run.files.summary["cost"]["usd_per_hour"] for run in found.runs}
    free = [label for label, price in costs.items() if price is None]
    texts = []
    if free and len(free) < len(costs):
        texts.append(f"Not compared by cost, as something there has no price: {', '.join(free)}.")
    unlike = [
        run.label for run in found.runs if not found.costs_compare[run.label] and costs[run.label] is not None
    ]
    if unlike:
        texts.append(
            f"Costs of {', '.join(unlike)} are not compared: other pools have no price there than in the other runs, "
            "and what has no price counts as free."
        )
    return texts


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
