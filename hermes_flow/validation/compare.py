"""Compares measured with simulated figures: one row per metric and statistic, with its error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.errors import HermesFlowError
from hermes_flow.validation.description import METRICS, RATES, SIMULATOR, Figures, RunDescription
from hermes_flow.validation.measured import LATENCIES, Measured, Sample, read_measured, read_predicted
from hermes_flow.validation.replay import Edit, Replayed, replay, texts_counted_by

if TYPE_CHECKING:
    import polars as pl

STATISTICS = ("mean", "p50", "p90", "p99")
EACH = ("request_ape_p50", "request_ape_p90")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one run: measured, from ``simulator``, and the error in percent of the measured value.

    Latencies in s, rates per s. Of ``request_ape_p50`` and ``_p90``, percentiles of the absolute percentage errors of
    single requests, there is only ``error_percent``. ``requests`` are those that both sides have, which alone count;
    None where statistics were given.
    """

    run: str
    metric: str
    statistic: str
    simulator: str
    measured: float | None
    simulated: float | None
    error_percent: float
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One run: its rows, and the data of its plot.

    ``measured`` is a sample where requests are known, otherwise the statistics. ``others`` are the samples of other
    simulators that have single requests. ``possible``: how many requests have such a latency if none fails.
    """

    name: str
    rows: tuple[Row, ...]
    measured: Sample | Figures
    replayed: Replayed
    others: dict[str, Sample] = field(default_factory=dict)
    possible: dict[str, int] = field(default_factory=dict)

    def missing(self, simulator: str = SIMULATOR) -> dict[str, tuple[int, int]]:
        """Return by metric how many of the requests were compared, if not all."""
        found = {
            row.metric: row.requests
            for row in self.rows
            if row.simulator == simulator and row.metric in self.possible and row.requests is not None
        }
        return {
            metric: (count, self.possible[metric])
            for metric, count in found.items()
            if count < self.possible[metric]
        }


def compare(run: RunDescription, given: Sequence[str] = (), edit: Edit | None = None) -> Compared:
    """Replay the run (see ``replay``) and compare; of several traces, each figure is the median over them.

    Raises HermesFlowError where something of it cannot be read, compiled or run.
    """
    if run.requests is None:
        replayed = replay(run, given, edit)
        figures = {name: entry for name, entry in run.predictions.items() if not isinstance(entry, Path)}
        rows = tuple(_from_figures(run, replayed, figures))
        _require_rows(rows)
        return Compared(run.name, rows, run.statistics, replayed)
    measured = read_measured(run.requests, texts_counted_by([*run.overrides, *given]))
    others = {
        name: read_predicted(entry, measured)
        for name, entry in run.predictions.items()
        if isinstance(entry, Path)
    }
    figures = {name: entry for name, entry in run.predictions.items() if not isinstance(entry, Path)}
    replayed = replay(run, given, edit)
    if replayed.requests != len(measured.order):
        raise HermesFlowError(
            f"{replayed.requests:,} requests were simulated and {len(measured.order):,} measured; expected as many"
        )
    rows = tuple(_from_requests(run, measured, replayed, others, figures))
    _require_rows(rows)
    several = int((measured.output_tokens > 1).sum())  # the tokens after the first make a TPOT
    possible = {metric: several if metric == "tpot" else replayed.requests for metric in LATENCIES}
    return Compared(run.name, rows, measured.sample, replayed, others, possible)


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Return the rows as a table."""
    import polars as pl

    texts = ("run", "metric", "statistic", "simulator")
    columns: dict[str, pl.Series] = {
        name: pl.Series([getattr(row, name) for row in rows], dtype=pl.String) for name in texts
    }
    for name in ("measured", "simulated", "error_percent"):
        columns[name] = pl.Series([getattr(row, name) for row in rows], dtype=pl.Float64)
    columns["requests"] = pl.Series([row.requests for row in rows], dtype=pl.Int64)
    return pl.DataFrame(columns)


def mean_sizes(runs: Sequence[Compared]) -> dict[tuple[str, str, str], float]:
    """Return the mean size of the errors over runs in percent, by (simulator, metric, statistic)."""
    sizes: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        for row in run.rows:
            sizes.setdefault((row.simulator, row.metric, row.statistic), []).append(abs(row.error_percent))
    return {key: float(np.mean(values)) for key, values in sizes.items()}


def _require_rows(rows: Sequence[Row]) -> None:
    if not rows:
        raise HermesFlowError("the simulation has no value to compare: no request has such a latency")


def _from_figures(run: RunDescription, replayed: Replayed, others: dict[str, Figures]) -> Iterator[Row]:
    order = [*METRICS, *RATES]
    for metric, statistic in sorted(run.statistics, key=lambda key: order.index(key[0])):
        real = run.statistics[metric, statistic]
        ours = _middle_figure(replayed.samples, metric, statistic)
        yield from _row(run.name, metric, statistic, SIMULATOR, real, ours)
        for name, figures in others.items():
            yield from _row(run.name, metric, statistic, name, real, figures.get((metric, statistic)))


def _from_requests(
    run: RunDescription,
    measured: Measured,
    replayed: Replayed,
    others: dict[str, Sample],
    figures: dict[str, Figures],
) -> Iterator[Row]:
    simulators = {SIMULATOR: replayed.samples[0]} | others
    real = measured.sample
    for metric in LATENCIES:
        if metric not in real.latencies:
            continue
        pairs = {
            name: shared(real, sample, metric)
            for name, sample in simulators.items()
            if metric in sample.latencies
        }
        for statistic in STATISTICS:
            for name, (ours, theirs, count) in pairs.items():
                figure = theirs.figure(metric, statistic)
                yield from _row(
                    run.name, metric, statistic, name, ours.figure(metric, statistic), figure, count
                )
            for name, known in figures.items():
                given = known.get((metric, statistic))
                yield from _row(run.name, metric, statistic, name, real.figure(metric, statistic), given)
        for name, (ours, theirs, count) in pairs.items():
            yield from _each(run.name, metric, name, ours, theirs, count)
    for metric in RATES:
        rate = real.figure(metric, "mean")
        for name, sample in simulators.items():
            if name != SIMULATOR or not replayed.failed:  # otherwise it has fewer requests than were measured
                yield from _row(run.name, metric, "mean", name, rate, sample.figure(metric, "mean"))
        for name, known in figures.items():
            yield from _row(run.name, metric, "mean", name, rate, known.get((metric, "mean")))


def shared(real: Sample, found: Sample, metric: str) -> tuple[Sample, Sample, int]:
    """Return the latencies of requests that have one in both samples, and how many those are.

    A request that failed on one side tells nothing of the other: those that fail are often the slow ones.
    """
    both = ~np.isnan(real.latencies[metric]) & ~np.isnan(found.latencies[metric])
    return real.only(metric, both), found.only(metric, both), int(both.sum())


def _row(
    run: str,
    metric: str,
    statistic: str,
    simulator: str,
    real: float | None,
    found: float | None,
    requests: int | None = None,
) -> Iterator[Row]:
    if real and found is not None:
        yield Row(run, metric, statistic, simulator, real, found, 100.0 * (found / real - 1.0), requests)


def _each(run: str, metric: str, simulator: str, real: Sample, found: Sample, requests: int) -> Iterator[Row]:
    """Yield the percentiles of the errors of single requests, of those that took any time."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = 100.0 * np.abs(found.latencies[metric] / real.latencies[metric] - 1.0)
    sizes = sizes[np.isfinite(sizes)]
    if len(sizes):
        for statistic, size in zip(EACH, np.percentile(sizes, (50, 90)), strict=True):
            yield Row(run, metric, statistic, simulator, None, None, float(size), requests)


def _middle_figure(samples: Sequence[Sample], metric: str, statistic: str) -> float | None:
    """Return the median over the passes: what was measured is one run, and few passes make the mean of a tail."""
    figures = [sample.figure(metric, statistic) for sample in samples]
    known = [figure for figure in figures if figure is not None]
    return float(np.median(known)) if known else None
