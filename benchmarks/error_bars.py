"""Makes the error bars of predictions from the left-out rows: ``python -m benchmarks.error_bars``.

It reads ``benchmarks/left_out_rows.csv`` (see ``benchmarks.left_out_rows``), writes the table of errors by kind that
the package reads, and prints how well its intervals cover the runs that they were made without.

The interval of TPOT and of E2E is central: four of five errors of its class (dense models, mixtures of experts) are
within, and as many are above it as below. For models and hardware that were not measured it is symmetric, because
the bias of what was measured is not theirs: intervals that follow it have to be half as wide again. Where a cache
holds the prompts, the interval of TTFT is symmetric too, because its errors are few and long-tailed, and so are all
intervals of a model that was not measured, because steps of large batches are further off. They are the mean size of
the errors of their class (light load, busy) times the factor that covers four of five runs of both classes.

A group that stands
for models or hardware that it has not seen has wider intervals, by the factor with which they cover four of five runs
of models or hardware that are left out in turn, but never wider than its largest error. Runs with prefill and decode
apart are one group, whatever their engine and hardware are, because nothing was fitted to any of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

import hermes_flow as hf
from benchmarks import silicon
from benchmarks.left_out_rows import METRICS, LeftOutRow, read
from benchmarks.processes import ROOT
from hermes_flow.metrics.error_bars.table import FILE
from hermes_flow.pools.llm.evidence import datasheet, shape_of

PAGE = ROOT / "docs" / "error_bars.md"
MARK = "<!-- python -m benchmarks.error_bars writes what follows -->"
SHARE = 0.8  # of the left-out runs that an interval covers
FEWEST = 10  # runs of a group
FEWEST_OF_CLASS = 7
FEWEST_OF_A_MAKER = 5
BUSY = 0.45  # of the work that the busiest pool could do, from which on errors of TTFT grow
KINDS = ("same", "other", "kernels", "none", "maker", "apart")
Bar = tuple[float, float, int]  # low, high, runs
FOUND = 0.05  # of the prompt tokens: as in hermes_flow/metrics/error_bars/bars.py


def main() -> None:
    """Write the table and its calibration in docs/error_bars.md, and print it."""
    rows = read()
    FILE.write_text(text(rows), encoding="utf-8")
    before, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(before + mark + calibration_table(rows), encoding="utf-8")
    print(f"{FILE}: {len(table(rows)['groups'])} groups of {len(rows)} rows")
    print(
        f"{'kind':<10} {'metric':<5} {'runs':>5} {'covered':>8} {'half width':>11} {'median error':>13} {'ratio':>6}"
    )
    for found in calibration(rows):
        print(
            f"{found.kind:<17} {found.metric:<6} {found.runs:>4} {found.covered:>8.1%} {found.half_width:>11.1%} "
            f"{found.median_error:>13.1%} {found.half_width / found.median_error:>6.2f}"
        )


def calibration_table(rows: Sequence[LeftOutRow]) -> str:
    """Return the part of the page after its mark: a line for each kind and metric."""
    lines = ["\n\n| kind, prompts | mean | runs | covered | half width | median error | ratio |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for found in calibration(rows):
        ratio = found.half_width / found.median_error
        sizes = f"{100 * found.half_width:.1f} % | {100 * found.median_error:.1f} % | {ratio:.2f}"
        lines.append(
            f"| {found.kind} | {found.metric.upper()} | {found.runs} | {100 * found.covered:.0f} % | {sizes} |"
        )
    return "\n".join(lines) + "\n"


def text(rows: Sequence[LeftOutRow]) -> str:
    """Return the file of the package."""
    found = table(rows)
    parts = []
    for name, entries in found.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def table(rows: Sequence[LeftOutRow]) -> dict[str, dict[str, Any]]:
    """Return the table of errors by kind (see hermes_flow/metrics/error_bars/table.py)."""
    groups: dict[str, dict[str, Any]] = {}
    factors = widenings(rows)
    for name, group in groups_of(rows).items():
        for metric in METRICS:
            factor = factors.get((*group.key, metric), 1.0)
            entries = {
                each: group.interval(group.rows, metric, each) for each in ("all", *classes(group, metric))
            }
            known = {
                each: _entry(group.widened(bar, group.rows, metric, factor))
                for each, bar in entries.items()
                if bar is not None
            }
            if known:
                groups.setdefault(name, {})[metric] = known
    served = [row for row in rows if row.left_out not in ("gpu", "maker") and row.cost == "roofline"]
    places: dict[str, set[str]] = {}
    for row in served:
        places.setdefault(f"{row.engine}/{row.hardware}", set()).add(row.model)
    return {
        "groups": {name: metrics for name, metrics in groups.items() if len(metrics) == len(METRICS)},
        "hardware": {
            name: list(datasheet(_hardware(name))) for name in sorted({row.hardware for row in served})
        },
        "models": {
            name: list(shape_of(silicon.catalog_model(name)))
            for name in sorted({row.model for row in served})
        },
        "makers": {
            maker: sorted({row.hardware for row in served if _hardware(row.hardware).maker == maker})
            for maker in sorted({_hardware(row.hardware).maker for row in served})
        },
        "measured": {place: sorted(models) for place, models in sorted(places.items())},
        "features": {
            engine: sorted({each for row in served if row.engine == engine for each in row.special})
            for engine in sorted({row.engine for row in served})
        },
    }


@dataclass(slots=True)
class Group:
    """The rows of one group: the kind of predictions that it stands for, and what such predictions have not seen.

    ``unseen`` is a field of the rows, or empty. A row is predicted from the rows that do not share it.
    """

    kind: str
    engine: str
    prompts: str
    unseen: str
    rows: list[LeftOutRow]

    @property
    def key(self) -> tuple[str, str, str]:
        """The engine, the prompts and what is unseen: groups that agree in them are widened alike."""
        return self.engine, self.prompts, self.unseen

    def interval(self, rows: Sequence[LeftOutRow], metric: str, name: str) -> Bar | None:
        """Return the interval of a class (or of "all") from ``rows``; None where these are too few."""
        own = [row for row in rows if metric in row.errors]
        if name != "all":
            same = [row for row in own if class_of(row, self, metric) == name]
            if len(same) < FEWEST_OF_CLASS or not self._several(same):
                return None
            if _by_load(self, metric):
                return _symmetric(own, same, metric, partial(class_of, group=self, metric=metric))
            own = same
        if name == "all" and (len(own) < self._fewest or not self._several(own)):
            return None
        errors = [row.errors[metric] for row in own]
        if self.kind == "maker":
            return _about_one(errors, share=1.0)
        return _about_one(errors) if self.kind == "none" or self.unseen else _central(errors)

    @property
    def _fewest(self) -> int:
        """The fewest runs of an interval; of makers whose accelerators were not measured there are only a few."""
        return FEWEST_OF_A_MAKER if self.kind == "maker" else FEWEST

    def _several(self, rows: Sequence[LeftOutRow]) -> bool:
        """Return whether rows are of several models, or hardware, where they stand for those that are unseen."""
        return not self.unseen or len({getattr(row, self.unseen) for row in rows}) > 1

    def widened(self, bar: Bar, rows: Sequence[LeftOutRow], metric: str, factor: float) -> Bar:
        """Return a symmetric interval ``factor`` times as wide, but no wider than the largest error of ``rows``."""
        if factor == 1.0:
            return bar
        most = max(abs(math.log(row.errors[metric])) for row in rows if metric in row.errors)
        half = min(factor * math.log(bar[1]), most)
        return math.exp(-half), math.exp(half), bar[2]

    def without(self, row: LeftOutRow) -> list[LeftOutRow]:
        """Return the rows from which a row is predicted."""
        return [each for each in self.rows if each is not row and not self._shares(each, row)]

    def _shares(self, one: LeftOutRow, other: LeftOutRow) -> bool:
        return bool(self.unseen) and getattr(one, self.unseen) == getattr(other, self.unseen)

    def predicted(self, row: LeftOutRow, metric: str) -> Bar | None:
        """Return the interval for a row, made without it."""
        others = self.without(row)
        bar = self.interval(others, metric, class_of(row, self, metric))
        return bar or self.interval(others, metric, "all")


def class_of(row: LeftOutRow, group: Group, metric: str) -> str:
    """Return the class of a row whose errors its interval comes from."""
    if _by_load(group, metric):
        return "busy" if row.work >= BUSY else "light"
    return "mixture" if row.mixture else "dense"


def classes(group: Group, metric: str) -> tuple[str, str]:
    """Return the classes of a group's rows."""
    return ("light", "busy") if _by_load(group, metric) else ("dense", "mixture")


def _by_load(group: Group, metric: str) -> bool:
    """Return whether the size of an error depends on the load more than on the kind of model."""
    return group.prompts == "found" and (metric == "ttft" or group.kind == "other")


def groups_of(rows: Iterable[LeftOutRow]) -> dict[str, Group]:
    """Return the groups by name, in their order (see ``hermes_flow.metrics.error_bars.kinds``)."""
    groups: dict[str, Group] = {}
    for row in rows:
        if row.cost != "roofline":
            continue
        prompts = "found" if row.hit_share >= FOUND else "computed"
        if row.left_out == "maker":
            groups.setdefault(f"maker/{prompts}", Group("maker", "any", prompts, "", [])).rows.append(row)
            continue
        if row.layout == "disaggregated":
            name = f"apart/{prompts}"
            groups.setdefault(name, Group("apart", "any", prompts, "", [])).rows.append(row)
            continue
        for kind, place, unseen in _places(row):
            name = f"{place}/{prompts}"
            groups.setdefault(name, Group(kind, row.engine, prompts, unseen, [])).rows.append(row)
    return dict(sorted(groups.items()))


def _places(row: LeftOutRow) -> list[tuple[str, str, str]]:
    """Return the kinds of predictions that a row stands for, with the name of the group and what is unseen."""
    served = f"{row.engine}/{row.hardware}"
    if row.left_out == "run":
        return [("same", f"{served}/same", "")]
    if row.left_out == "model":
        return [("other", f"{served}/other", "")]
    if row.left_out == "gpu":
        return [("none", f"{row.engine}/none", "")]
    if row.left_out == "serving":
        return [
            ("same", f"{served}/{row.model}", ""),
            ("other", f"{served}/other", "model"),
            ("kernels", f"{row.engine}/kernels", "hardware"),
        ]
    return []


def widenings(rows: Sequence[LeftOutRow]) -> dict[tuple[str, str, str, str], float]:
    """Return by engine, prompts, what is unseen, and metric the factor by which intervals have to be wider."""
    ratios: dict[tuple[str, str, str, str], list[float]] = {}
    for group in groups_of(rows).values():
        for metric in METRICS if group.unseen else ():
            for row in group.rows:
                bar = group.predicted(row, metric) if metric in row.errors else None
                if bar is not None:
                    ratios.setdefault((*group.key, metric), []).append(_needed(bar, row.errors[metric]))
    return {key: max(1.0, float(np.quantile(needed, SHARE))) for key, needed in ratios.items()}


def _needed(bar: Bar, error: float) -> float:
    """Return the factor by which an interval has to be wider to hold an error."""
    low, high, value = math.log(bar[0]), math.log(bar[1]), math.log(error)
    return abs(value - (low + high) / 2) / ((high - low) / 2)


def _entry(bar: Bar) -> dict[str, Any]:
    low, high, runs = bar
    return {"low": round(low, 4), "high": round(high, 4), "runs": runs}


def _central(errors: Sequence[float]) -> Bar:
    """Return the interval with as many errors above it as below."""
    inside = min(len(errors), math.ceil(SHARE * (len(errors) + 1)))
    below = (len(errors) - inside) // 2
    ordered = sorted(errors)
    return ordered[below], ordered[below + inside - 1], len(errors)


def _about_one(errors: Sequence[float], share: float = SHARE) -> Bar:
    """Return the symmetric interval that holds a share of the errors.

    The bias of the hardware that was left out is not that of other hardware. Of a few runs it holds all.
    """
    sizes = sorted(abs(math.log(error)) for error in errors)
    half = sizes[math.ceil(share * len(sizes)) - 1]
    return math.exp(-half), math.exp(half), len(sizes)


def _symmetric(
    rows: Sequence[LeftOutRow], same: Sequence[LeftOutRow], metric: str, group: Callable[[LeftOutRow], str]
) -> Bar:
    """Return the interval for the rows of one class, ``same``, with the tail of all ``rows``."""
    size = {id(row): abs(math.log(row.errors[metric])) for row in rows}
    of_class: dict[str, list[float]] = {}
    for row in rows:
        of_class.setdefault(group(row), []).append(size[id(row)])
    mean = {name: float(np.mean(sizes)) for name, sizes in of_class.items()}
    relative = [size[id(row)] / mean[group(row)] for row in rows]
    half = mean[group(same[0])] * float(np.quantile(relative, SHARE, method="hazen"))
    return math.exp(-half), math.exp(half), len(rows)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the intervals of one kind fit the runs that they were made without.

    ``covered`` is the share of the runs within their intervals; ``half_width`` is the median of the intervals, and
    ``median_error`` that of the sizes of the errors, both as shares of the prediction.
    """

    kind: str
    metric: str
    runs: int
    covered: float
    half_width: float
    median_error: float


def calibration(rows: Sequence[LeftOutRow]) -> list[Calibration]:
    """Return the calibration of each kind and metric, with an interval of its own for each row, made without it."""
    factors = widenings(rows)
    own: dict[tuple[str, str, str], list[tuple[float, Bar]]] = {}
    for group in groups_of(rows).values():
        for row in group.rows:
            for metric, error in row.errors.items():
                bar = group.predicted(row, metric)
                if bar is not None:
                    factor = factors.get((*group.key, metric), 1.0)
                    own.setdefault((group.kind, group.prompts, metric), []).append(
                        (error, group.widened(bar, group.without(row), metric, factor))
                    )
    order = sorted(own, key=lambda key: (key[1] != "found", KINDS.index(key[0]), METRICS.index(key[2])))
    return [
        _calibrated(f"{kind}, {prompts}", metric, own[kind, prompts, metric])
        for kind, prompts, metric in order
    ]


def _calibrated(kind: str, metric: str, own: Sequence[tuple[float, Bar]]) -> Calibration:
    errors, ends = np.array([error for error, _ in own]), np.array([bar[:2] for _, bar in own])
    inside = (ends[:, 0] <= errors) & (errors <= ends[:, 1])
    return Calibration(
        kind,
        metric,
        len(own),
        float(inside.mean()),
        float(np.median((ends[:, 1] - ends[:, 0]) / 2)),
        float(np.median(np.abs(errors - 1.0))),
    )


@cache
def _hardware(name: str) -> Any:
    return hf.compose([f"hardware={name}"]).hardware


if __name__ == "__main__":
    main()
