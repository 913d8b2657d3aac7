"""Writes a sweep as text for the terminal, with a line per job: its overrides, then its results."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from hermes_flow.metrics.comparable_costs import without_unlike_costs
from hermes_flow.metrics.number_text import UNKNOWN, digits, percent, shortened
from hermes_flow.report.text_table import TextColumn, laid_out

if TYPE_CHECKING:
    import polars as pl

_GAP = 2
_TEXT_WIDTH = 20
_HEADING_WIDTH = 12
_FAILURES_SHOWN = 20
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
# What identifies a job comes before what describes it, its verdict and tail latency before the rest.
_FIRST_OVERRIDES = 4
_DURATIONS = (
    ("ttft_s.p50", "TTFT", "p50", 6),
    ("ttft_s.p99", "TTFT", "p99", 3),
    ("tpot_s.p50", "TPOT", "p50", 5),
    ("e2e_s.p50", "E2E", "p50", 7),
)
_BOUNDED = 2.5  # rank of a percentile that the SLO bounds
_FOUND = 1.6  # rank of what the jobs searched
_DESIGN = {"hardware": ("best", "hardware"), "decode_hardware": ("to", "decode")}
# A warning of compiler/unused_keys.py; the table of a sweep joins the warnings of a job by "; ".
_NO_EFFECT = re.compile(r"(\S+): [^;]* has no effect; the compiled program is the same for any other value")
_ERRORS = {"ttft": 3, "tpot": 4, "e2e": 2}  # of validations: mean size over their runs


@dataclass(frozen=True, slots=True)
class _Column:
    """A heading of two lines and a cell per job; those of low ``rank`` get room first."""

    heading: tuple[str, str]
    cells: list[str]
    rank: float
    left: bool = False

    @property
    def name(self) -> str:
        above, below = self.heading
        broken = not above or above[-1] in "._"
        return above + below if broken else f"{above} {below}"

    @property
    def width(self) -> int:
        return max(len(text) for text in (*self.heading, *self.cells))

    def laid_out(self) -> TextColumn:
        return TextColumn("\n".join(self.heading), self.cells, left=self.left)


def sweep_table(frame: pl.DataFrame, width: int = 80) -> str:
    """Return the jobs of a sweep (the frame of ``metrics.sweep.collect``) as text of ``width`` columns.

    Overrides that vary are named by their last distinguishing part. Where the width does not hold every
    column, the least important give way. Failed jobs are listed below with the first line of their error, and those
    that were interrupted with their numbers.
    """
    frame, unlike = without_unlike_costs(frame)
    columns = [*_identity(frame), *_outcome(frame)]
    shown, hidden = _fitting(columns, width)
    lines = laid_out([column.laid_out() for column in shown], gap=_GAP)
    missing = [column.name for column in hidden if column.name != "status"]
    if missing:
        lines += ["", *textwrap.wrap(f"No room for {', '.join(missing)}: see sweep.parquet.", width)]
    if unlike:
        jobs = ", ".join(_cell(frame["job"][row]) for row in unlike)
        text = f"No cost for {jobs}: other pools have no price there than in the other jobs, and would count as free."
        lines += ["", *textwrap.wrap(text, width)]
    for text in _warnings(frame):
        lines += ["", *textwrap.wrap(text, width, subsequent_indent="  ")]
    interrupted = frame.filter(frame["status"] == "interrupted")["job"]
    if len(interrupted):
        jobs = ", ".join(_cell(job) for job in interrupted)
        text = f"{len(interrupted)} of {len(frame)} jobs did not end, as they were interrupted: {jobs}"
        lines += ["", *textwrap.wrap(text, width, subsequent_indent="  ")]
    failures = frame.filter(frame["status"] == "failed").select("job", "error").rows()
    if failures:
        lines += ["", f"{len(failures)} of {len(frame)} jobs failed:"]
    for job, error in failures[:_FAILURES_SHOWN]:
        text = f"{_cell(job)}: {_first_line(error)}"
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="     ")
    if len(failures) > _FAILURES_SHOWN:
        lines.append(f"  … and {len(failures) - _FAILURES_SHOWN} more: see sweep.parquet")
    return "\n".join(lines)


def _warnings(frame: pl.DataFrame) -> list[str]:
    """Return what a reader of the table must know besides.

    That is a text for each key that has no effect in some of the jobs, one that counts other warnings, and one where
    no search has found anything.
    """
    texts = frame["warnings"].to_list() if "warnings" in frame.columns else []
    keys = Counter(key for text in texts for key in dict.fromkeys(_NO_EFFECT.findall(text or "")))
    found = [f"warning: {key} has no effect in {count} of {len(frame)} jobs" for key, count in keys.items()]
    searched = "capacity.over" in frame.columns and frame["capacity.over"].count() > 0
    if searched and all(value is None for value in _values(frame, "capacity.value")):
        found.append("No search has found a value that meets its SLO; the figures are of runs that miss it.")
    others = sum(bool(_NO_EFFECT.sub("", text or "").strip("; ")) for text in texts)
    if others:
        found.append(
            f"Other warnings in {others} of {len(frame)} jobs: see the column warnings of sweep.parquet."
        )
    return found


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return each dotted key's shortest ending that no other key shares: a.count, b.count, seed."""
    parts = {key: re.split(r"[.@]", key) for key in keys}
    names = {}
    for key, own in parts.items():
        others = [other for name, other in parts.items() if name != key]
        length = 1
        while length < len(own) and any(other[-length:] == own[-length:] for other in others):
            length += 1
        names[key] = ".".join(own[-length:])
    return names


def _fitting(columns: list[_Column], width: int) -> tuple[list[_Column], list[_Column]]:
    """Return the columns that get room within ``width``, low ranks first, and those that get none."""
    room = width + _GAP
    chosen = set()
    for index in sorted(range(len(columns)), key=lambda index: columns[index].rank):
        needed = columns[index].width + _GAP
        if needed <= room:
            room -= needed
            chosen.add(index)
    shown = [column for index, column in enumerate(columns) if index in chosen]
    return shown, [column for index, column in enumerate(columns) if index not in chosen]


def _identity(frame: pl.DataFrame) -> list[_Column]:
    """Return the columns that tell the jobs apart: their number and the overrides that vary."""
    keys = frame.columns[1 : frame.columns.index("status")]
    varying = [key for key in keys if frame[key].n_unique() > 1]
    names = short_names(varying)
    columns = [_Column(("", "job"), [_cell(job) for job in frame["job"]], 0)]
    for index, key in enumerate(varying):
        rank = 1 + 0.01 * index if index < _FIRST_OVERRIDES else 7.5 + 0.01 * index
        cells = [shortened(_cell(value), _TEXT_WIDTH) for value in frame[key]]
        columns.append(_Column(_two_lines(names[key]), cells, rank, left=not frame[key].dtype.is_numeric()))
    return columns


def _outcome(frame: pl.DataFrame) -> list[_Column]:
    """Return the columns that tell how the jobs went."""
    failed = frame["error"].is_not_null().to_list()
    words = ["ok" if status == "completed" else status for status in frame["status"]]
    columns = [_Column(("", "status"), words, 1.5 if any(failed) else 9, left=True), *_found(frame)]
    for name, metric, percentile, rank in _durations(frame):
        values = _values(frame, name)
        unit, unit_name = _unit(values)
        cells = [digits(None if value is None else value / unit) for value in values]
        columns.append(_Column((metric, f"{percentile} {unit_name}"), cells, rank))
    for metric, rank in _ERRORS.items():
        name = f"validation.mean_size_percent.{metric}_mean"
        columns.append(_figures(frame, name, (f"{metric.upper()} mean", "error %"), rank, digits))
    columns.append(_figures(frame, "throughput.requests_per_s", ("", "req/s"), 4, digits))
    columns.append(_figures(frame, "throughput.output_tokens_per_s", ("", "tok/s"), 8, digits))
    columns.append(_figures(frame, "cost.usd_per_million_output_tokens", ("$ per", "M tok"), 4.5, digits))
    columns.append(_Column(("", "SLO"), _slo_words(frame, failed), 2, left=True))
    columns.append(_figures(frame, "slo.attainment", ("within", "SLO"), 10, percent))
    return [column for column in columns if any(cell != UNKNOWN for cell in column.cells)]


def _found(frame: pl.DataFrame) -> list[_Column]:
    """Return what the jobs have found: the value of a search, or the devices and the price of the best design."""
    over = frame["capacity.over"].drop_nulls().to_list() if "capacity.over" in frame.columns else []
    searched = over[0].rpartition(".")[2] if len(set(over)) == 1 else "value"
    columns = [
        _figures(frame, "capacity.value", ("found", searched), _FOUND, _count_or_digits),
        _figures(frame, "capacity.sustained", ("", "sustained"), _FOUND + 0.05, _count_or_digits),
    ]
    for key, heading in _DESIGN.items():
        name = f"plan.best.{key}"
        if name in frame.columns:
            cells = [UNKNOWN if value is None else str(value) for value in frame[name]]
            columns.append(_Column(heading, cells, _FOUND, left=True))
    columns.append(_figures(frame, "plan.best.accelerators", ("", "devices"), _FOUND + 0.1, _count_or_digits))
    columns.append(_figures(frame, "plan.best.usd_per_hour", ("$ per", "hour"), _FOUND, digits))
    return columns


def _count_or_digits(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else digits(value)


def _durations(frame: pl.DataFrame) -> list[tuple[str, str, str, float]]:
    """Return the durations to show with their headings and ranks: the usual ones, and what the SLO bounds."""
    usual = {(metric, percentile) for _, metric, percentile, _ in _DURATIONS}
    bounded = []
    for column in frame.columns:
        match = re.fullmatch(r"slo\.bounds\.(.+)_(p[\d.]+)_s\.value_s", column)
        if match is not None:
            name = match[1].rpartition(".")[2]
            metric = (
                name.upper() if name in ("ttft", "tpot", "itl", "e2e") else shortened(name, _HEADING_WIDTH)
            )
            if match[1].startswith("classes."):
                metric = shortened(f"{match[1].split('.')[1]} {metric}", _HEADING_WIDTH)
            if match[1] != name or (metric, match[2]) not in usual:
                bounded.append((column, metric, match[2], _BOUNDED))
    return [*_DURATIONS, *bounded]


def _slo_words(frame: pl.DataFrame, failed: list[bool]) -> list[str]:
    """Return "met" or "missed" per job, unknown where the job has no result or no bounds."""
    bounds = [frame[name] for name in frame.columns if re.fullmatch(r"slo\.bounds\..*\.met", name)]
    words = []
    for job, failure in enumerate(failed):
        met = [bound[job] for bound in bounds if bound[job] is not None]
        words.append(UNKNOWN if failure or not met else "met" if all(met) else "missed")
    return words


def _figures(
    frame: pl.DataFrame,
    name: str,
    heading: tuple[str, str],
    rank: float,
    show: Callable[[float | None], str],
) -> _Column:
    return _Column(heading, [show(value) for value in _values(frame, name)], rank)


def _values(frame: pl.DataFrame, name: str) -> list[float | None]:
    return frame[name].to_list() if name in frame.columns else [None] * len(frame)


def _unit(values: list[float | None]) -> tuple[float, str]:
    """Return the unit (in seconds, and its name) that suits most of a column's durations."""
    known = [value for value in values if value]
    middle = median(known) if known else 1.0
    return next(((size, name) for size, name in _UNITS if middle >= size), _UNITS[-1])


def _cell(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first_line(error: str) -> str:
    """Return the first line of an error, with the next where the first only announces it."""
    first, *rest = error.strip().splitlines() or [""]
    return f"{first} {rest[0].strip().lstrip('- ')}" if first.endswith(":") and rest else first


def _two_lines(name: str) -> tuple[str, str]:
    """Return the name on one line of a heading, or on two where it is long and has a seam."""
    if len(name) <= _HEADING_WIDTH:
        return "", name
    seams = [match.end() for match in re.finditer(r"[._]", name[:-1])]
    if not seams:
        return "", shortened(name, 2 * _HEADING_WIDTH)
    seam = min(seams, key=lambda position: max(position, len(name) - position))
    return name[:seam], name[seam:]
