"""The page of a sweep: what is best, the trade-offs with their Pareto fronts, ranked designs, what each key does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.comparable_costs import without_unlike_costs, without_unlike_energies
from hermes_flow.metrics.effects import Effect, effects, varying_keys
from hermes_flow.metrics.figures import Better, Figure, figure, slo_met
from hermes_flow.metrics.number_text import UNKNOWN, counted
from hermes_flow.report.charts.designs import effect, trade_off
from hermes_flow.report.pages import template as html
from hermes_flow.report.pages.template import Cell
from hermes_flow.report.sweep_table import short_names

if TYPE_CHECKING:
    import polars as pl

_ROWS = 300
_TRADE_OFFS = (
    ("cost.usd_per_million_output_tokens", "ttft_s.p99"),
    ("cost.usd_per_million_output_tokens", "tpot_s.p90"),
    ("throughput.output_tokens_per_s", "tpot_s.p90"),
    ("energy.j_per_output_token", "e2e_s.p90"),
    ("cost.usd_per_hour", "capacity.value"),
)
_SHOWN = (
    "capacity.value",
    "ttft_s.p50",
    "ttft_s.p99",
    "tpot_s.p90",
    "e2e_s.p50",
    "slo.goodput_requests_per_s",
    "slo.attainment",
    "throughput.output_tokens_per_s",
    "cost.usd_per_hour",
    "cost.usd_per_million_output_tokens",
    "energy.j_per_output_token",
)
_EFFECTS = (
    "ttft_s.p99",
    "tpot_s.p90",
    "e2e_s.p50",
    "slo.goodput_requests_per_s",
    "cost.usd_per_million_output_tokens",
)
_DRAWN_EFFECTS = 3
_RANKED_BY = ("cost.usd_per_million_output_tokens", "slo.goodput_requests_per_s", "e2e_s.p50", "ttft_s.p99")


def sweep_page(frame: pl.DataFrame, name: str, folder: Path | None = None) -> str:
    """Return the page of a sweep from its table (``metrics.sweep.collect``), as one HTML file.

    With ``folder`` the ranked designs link to the pages of their jobs, where these have one.
    """
    keys = varying_keys(frame)
    names = short_names(keys)
    what = ", ".join(names[key] for key in keys) or "nothing"
    subtitle = f"{counted(len(frame), 'job')}; what varies: {what}"
    return html.page(f"Sweep {name}", subtitle, _parts(frame, names, folder))


def designs_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the completed jobs as rows, each with a ``name`` of its number and values, and ``met`` of its SLO."""
    keys = varying_keys(frame)
    rows = []
    for row in frame.iter_rows(named=True):
        if row["status"] != "completed":
            continue
        values = " ".join(cell(row[key]) for key in keys)
        rows.append(
            {
                **row,
                "name": f"{cell(row['job'])}: {values}" if values else cell(row["job"]),
                "met": slo_met(row),
            }
        )
    return rows


def ranked(designs: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Figure | None]:
    """Return the designs, best first, and the figure that ranks them.

    Those that meet the SLO come first. Costs rank only if every design has a price, so that priced and unpriced
    hardware are never compared.
    """
    for key in _RANKED_BY:
        if designs and all(isinstance(row.get(key), int | float) for row in designs):
            by = figure(key)
            sign = -1.0 if by.better == "high" else 1.0
            return sorted(designs, key=lambda row: (row["met"] is False, sign * row[key])), by
    return designs, None


def _parts(frame: pl.DataFrame, names: Mapping[str, str], folder: Path | None) -> Iterator[str]:
    frame, unlike = without_unlike_costs(frame)
    frame, unmetered = without_unlike_energies(frame)
    designs = designs_of(frame)
    best_first, by = ranked(designs)
    yield _verdict(frame, best_first, by, names)
    if unlike:
        yield html.paragraph(unlike_costs_text(frame, unlike), "caution")
    for text in _energies_text(frame, unmetered):
        yield html.paragraph(text, "caution")
    yield from _trade_offs(designs, names)
    yield html.heading("Ranked designs", "designs")
    if by is not None:
        first = (
            "Designs that meet the SLO come first, then"
            if any(row["met"] is not None for row in designs)
            else "By"
        )
        yield html.paragraph(
            f"{first} {by.title}, the best first." if first == "By" else f"{first} by {by.title}.", "soft"
        )
    yield _ranked_table(best_first, names, folder)
    yield from _effects(frame, names)
    failures = [row for row in frame.iter_rows(named=True) if row["status"] == "failed"]
    if failures:
        yield html.heading("Failed jobs", "failed")
        yield html.table(
            ["job", "reason"], [[cell(row["job"]), Cell(row["error"], "prose")] for row in failures], left=2
        )


def unlike_costs_text(frame: pl.DataFrame, rows: Sequence[int]) -> str:
    """Return the sentence that says which jobs have no cost here, because it would not compare with the others'."""
    jobs = ", ".join(cell(frame["job"][row]) for row in rows)
    return (
        f"No cost is shown for {'job' if len(rows) == 1 else 'jobs'} {jobs}: other pools have no price there than in "
        "the other jobs, and what has no price counts as free."
    )


def _energies_text(frame: pl.DataFrame, unlike: Sequence[int]) -> Iterator[str]:
    """Yield what to say of jobs without an energy here: that of others is known, or compares with more jobs."""
    if "energy.total_j" not in frame.columns:
        return
    done = frame["status"] == "completed"
    unknown = [
        row
        for row in range(len(frame))
        if done[row] and frame["energy.total_j"][row] is None and row not in unlike
    ]
    if unknown and len(unknown) + len(unlike) < int(done.sum()):
        jobs = ", ".join(cell(frame["job"][row]) for row in unknown)
        yield (
            f"{'Job' if len(unknown) == 1 else 'Jobs'} {jobs} cannot be compared by energy, as the power of "
            "accelerators there is not known."
        )
    if unlike:
        jobs = ", ".join(cell(frame["job"][row]) for row in unlike)
        yield (
            f"No energy is shown for {'job' if len(unlike) == 1 else 'jobs'} {jobs}: other hosts or stores have no "
            "known power there than in the other jobs, and count as nothing."
        )


def _verdict(
    frame: pl.DataFrame, best_first: list[dict[str, Any]], by: Figure | None, names: Mapping[str, str]
) -> str:
    failed = int((frame["status"] == "failed").sum())
    interrupted = [cell(row["job"]) for row in frame.iter_rows(named=True) if row["status"] == "interrupted"]
    met = [row for row in best_first if row["met"]]
    texts = []
    if by is not None:
        best = best_first[0]
        values = ", ".join(f"{name}={cell(best[key])}" for key, name in names.items())
        of_these = " of these" if met else ""
        texts.append(
            f"The best{of_these} by {by.title} is job {cell(best['job'])} ({values}): {by.text(best[by.key])}."
        )
    if failed:
        texts.append(f"{counted(failed, 'job')} failed; the reasons are at the end of the page.")
    if interrupted:
        texts.append(
            f"{counted(len(interrupted), 'job')} did not end, as interrupted: {', '.join(interrupted)}."
        )
    if all(row["met"] is None for row in best_first):
        return html.verdict(f"{counted(len(best_first), 'job')} completed; no SLO is set.", "", texts)
    headline = f"{len(met)} of {counted(len(best_first), 'completed job')} meet the SLO."
    return html.verdict(headline, "met" if met else "missed", texts)


def _trade_offs(designs: list[dict[str, Any]], names: Mapping[str, str]) -> Iterator[str]:
    rows = [
        {**row, "label": cell(row["job"]), **{names[key]: cell(row[key]) for key in names}} for row in designs
    ]
    charts = []
    for x, y in _TRADE_OFFS:
        first, second = figure(x), figure(y)
        if second.key == "capacity.value":
            second = _capacity(designs)
        spec, front = trade_off(rows, first, second, list(names.values()))
        if spec is not None:
            caption = (
                f"The dashed line is the Pareto front: the {counted(len(front), 'design')} that no other design "
                "beats in both figures."
            )
            charts.append(html.chart(f"{second.title} against {first.title}", caption, spec))
    if charts:
        yield html.heading("Trade-offs", "trade-offs")
        yield html.side_by_side(charts)


def _capacity(designs: list[dict[str, Any]]) -> Figure:
    """Return the capacity of designs as a figure: more load is better, and fewer clients are."""
    directions = {row.get("capacity.direction") for row in designs} - {None}
    better: Better | None = None
    if len(directions) == 1:
        better = "high" if directions == {"highest"} else "low"
    return Figure("capacity.value", "capacity", "number", better)


def _ranked_table(best_first: list[dict[str, Any]], names: Mapping[str, str], folder: Path | None) -> str:
    shown = [figure(key) for key in _SHOWN if any(row.get(key) is not None for row in best_first)]
    heads = ["rank", "job", *names.values(), "SLO", *(each.title for each in shown)]
    helped = any(row.get("why.resource.name") for row in best_first)
    heads += ["would help most"] if helped else []
    rows: list[list[Cell | str]] = []
    for rank, row in enumerate(best_first[:_ROWS], 1):
        verdict = {True: Cell("met", "good"), False: Cell("missed", "bad"), None: Cell(UNKNOWN)}[row["met"]]
        keys = [Cell(cell(row[key]), "left") for key in names]
        rows.append(
            [
                str(rank),
                _job(row["job"], folder),
                *keys,
                verdict,
                *(each.text(row.get(each.key)) for each in shown),
                *([Cell(_help(row), "left")] if helped else []),
            ]
        )
    text = html.table(heads, rows, left=2)
    if len(best_first) > _ROWS:
        text += html.paragraph(f"{len(best_first) - _ROWS} more are in sweep.parquet.", "soft")
    return text


def _help(row: dict[str, Any]) -> str:
    """Return the resource that would help a design most that misses its SLO, and its pool."""
    name, pool = row.get("why.resource.name"), row.get("why.resource.pool")
    return "" if not name else f"{name.replace('_', ' ')} ({pool})" if pool else name.replace("_", " ")


def _job(number: Any, folder: Path | None) -> str:
    place = f"{number}/report.html"
    return (
        html.link(place, cell(number)) if folder is not None and (folder / place).is_file() else cell(number)
    )


def _effects(frame: pl.DataFrame, names: Mapping[str, str]) -> Iterator[str]:
    figures = [key for key in _EFFECTS if key in frame.columns and frame[key].dtype.is_numeric()]
    found = effects(frame, figures)
    if not found:
        return
    yield html.heading("What each key does", "keys")
    yield html.paragraph(
        "Each row compares jobs that differ in one key alone: by how much a figure changes when the key goes from "
        "the first value to the second, as the mean over all such pairs.",
        "soft",
    )
    heads = ["key", "from", "to", "pairs", *(figure(key).title for key in figures)]
    yield html.table(heads, [_effect_row(each, names, figures) for each in found], left=3)
    done = frame.filter(frame["status"] == "completed")
    charts = []
    for key in dict.fromkeys(each.key for each in found):
        for name in figures[:_DRAWN_EFFECTS]:
            rows = [
                (value, y)
                for value, y in done.select(key, name).rows()
                if value is not None and y is not None
            ]
            if rows:
                title = f"{figure(name).title} by {names[key]}"
                charts.append(
                    html.chart(
                        title,
                        "A point per job; the line is their mean.",
                        effect(rows, names[key], figure(name)),
                    )
                )
    yield html.side_by_side(charts)


def _effect_row(each: Effect, names: Mapping[str, str], figures: list[str]) -> list[Cell | str]:
    row: list[Cell | str] = [names[each.key], cell(each.before), cell(each.after), str(each.pairs)]
    return row + [change_cell(each.ratios[key], figure(key)) for key in figures]


def change_cell(ratio: float | None, about: Figure) -> Cell:
    """Return a ratio as a change in percent, or as a factor if it is large; green if better, red if worse."""
    if ratio is None:
        return Cell(UNKNOWN)
    change = ratio - 1.0
    text = f"{100 * change:+.1f} %".replace("-", "−") if 0.2 < ratio < 5 else f"× {ratio:.3g}"
    if about.better is None or abs(change) < 0.005:
        return Cell(text)
    return Cell(text, "good" if (change < 0) == (about.better == "low") else "bad")


def cell(value: Any) -> str:
    """Return the value of a key as it was written."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
