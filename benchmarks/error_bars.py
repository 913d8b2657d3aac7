"""Makes the error bars of predictions from the left-out rows: ``python -m benchmarks.error_bars``.

It reads ``benchmarks/left_out_rows.csv`` (see ``benchmarks.left_out_rows``), writes the table of errors by kind that
the package reads, and prints how well its intervals cover the runs that they were made without. All kinds have the
same rule (``benchmarks.left_out_intervals``). This file says which rows are of a kind, what the predictions of a kind
have not seen, and which groups of runs are within each other.

A model or a GPU that was not measured has no errors of its own. Its groups are those of its engine, and of its class
in these: dense models and mixtures of experts, or light and heavy load where a prefix cache holds the prompts. Groups
of one GPU are not better here: models differ more than GPUs do. Where a GPU was not measured, runs of the model on
others are a group as well. Runs with prefill and decode apart are one kind, in
groups of one engine on one GPU, and of one model in these.

How a part of the benchmark runs was measured is not recorded, and they are simulated as if by InferenceMAX. Their
errors are those of the simulator and of that guess, and they are kinds of their own (``unrecorded``). A prediction
says how its requests arrive, so it is compared with recorded runs, unless its engine has only others of its class on
its GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import hermes_flow as hf
from benchmarks import silicon
from benchmarks.left_out_intervals import Bar, Fit, Intervals, LeftOutError
from benchmarks.left_out_rows import METRICS, LeftOutRow, read
from benchmarks.processes import ROOT
from hermes_flow.metrics.error_bars.table import FILE
from hermes_flow.pools.llm.evidence import datasheet, kernels_of, shape_of

PAGE = ROOT / "docs" / "error_bars.md"
MARK = "<!-- python -m benchmarks.error_bars writes what follows -->"
FEWEST = 10  # runs of a group that a prediction is compared with
FEWEST_RUNS = {"maker": 5, "apart": 3}  # where there are only a few; else FEWEST
BUSY = 0.45  # of the work that the busiest pool could do: as in hermes_flow/metrics/error_bars/bars.py
FOUND = 0.05  # of the prompt tokens: as in hermes_flow/metrics/error_bars/bars.py
KINDS = ("same", "other", "kernels", "sibling", "none", "maker", "apart", "apart elsewhere")
UNSEEN = {  # by a prediction of the kind; else the run
    "other": ("model",),
    "kernels": ("hardware",),
    "sibling": ("hardware",),
    "none": ("hardware",),
    "maker": ("hardware",),
    "apart elsewhere": ("engine", "hardware"),
}
ELSEWHERE = ("kernels", "none")  # kinds of GPUs that lean on runs of the same model on others
CLASSES = {  # by how prompts get their KV, and whether it is recorded how the runs were measured
    "found": ("light", "busy"),
    "computed": ("dense", "mixture"),
    "unrecorded": ("dense", "mixture"),
}
ALL = "all"  # the class of a group that has only one


def main() -> None:
    """Write the table and its calibration in docs/error_bars.md, and print it."""
    rows = read()
    kinds = kinds_of(rows)
    FILE.write_text(text(rows, kinds), encoding="utf-8")
    groups = table(rows, kinds)["groups"]
    before, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(before + mark + calibration_text(kinds, groups), encoding="utf-8")
    print(f"{FILE}: {len(groups)} groups of {len(rows)} rows")
    print(
        f"{'kind':<17} {'metric':<6} {'runs':>4} {'covered':>8} {'strictly':>9} {'half width':>11} "
        f"{'median error':>13} {'ratio':>6}"
    )
    for found in calibration(kinds):
        fit = found.fit
        print(
            f"{found.kind:<17} {found.metric:<6} {fit.runs:>4} {fit.covered:>8.1%} {fit.strictly:>9.1%} "
            f"{fit.half_width:>11.1%} {fit.median_error:>13.1%} {fit.ratio:>6.2f}"
        )


def calibration_text(kinds: Kinds, groups: dict[str, Any]) -> str:
    """Return the part of the page after its mark: a line for each kind and metric, and what else the bars hold."""
    lines = ["\n\n| kind, prompts | mean | runs | covered | strictly | half width | median error | ratio |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for found in calibration(kinds):
        fit = found.fit
        shares = f"{100 * fit.covered:.0f} % | {100 * fit.strictly:.0f} %"
        sizes = f"{100 * fit.half_width:.1f} % | {100 * fit.median_error:.1f} % | {fit.ratio:.2f}"
        lines.append(f"| {found.kind} | {found.metric.upper()} | {fit.runs} | {shares} | {sizes} |")
    return "\n".join([*lines, "", *_without_direction(kinds), "", *_held(kinds, groups)]) + "\n"


def _without_direction(kinds: Kinds) -> list[str]:
    """Return the sentence of the page on bars that know the size of their model's errors alone."""
    known = kinds["same", "computed"]
    ratios = [f"{known.intervals(metric).fit(depth=0).ratio:.2f} ({metric.upper()})" for metric in METRICS]
    return [
        "If a bar knew how far the errors of its very model scatter on this GPU, and not in which direction, "
        "`same, computed` would",
        f"have the ratios {', '.join(ratios[:-1])} and {ratios[-1]}.",
    ]


def held(kinds: Kinds, groups: dict[str, Any], prompts: str, metric: str) -> float:
    """Return the share of all runs, recorded ones or others, that the bars of models not measured here hold."""
    rows = [row for row in kinds["other", prompts].rows if metric in row.errors]
    bars = [groups[f"{row.engine}/{row.hardware}/other/computed"][metric][class_of(row)] for row in rows]
    inside = [bar["low"] <= row.errors[metric] <= bar["high"] for bar, row in zip(bars, rows, strict=True)]
    return sum(inside) / len(inside)


def _held(kinds: Kinds, groups: dict[str, Any]) -> list[str]:
    """Return the sentences of the page on the runs that printed bars hold."""
    shares = [
        ", ".join(f"{held(kinds, groups, prompts, metric):.0%} ({metric.upper()})" for metric in METRICS)
        for prompts in ("computed", "unrecorded")
    ]
    return [
        "The bars that predictions get where a model was not measured on a GPU, made of all runs, hold",
        f"{shares[0]} of the runs whose method is recorded and".replace("%", " %"),
        f"{shares[1]} of the others.".replace("%", " %"),
    ]


def text(rows: Sequence[LeftOutRow], kinds: Kinds) -> str:
    """Return the file of the package."""
    found = table(rows, kinds)
    parts = []
    for name, entries in found.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def table(rows: Sequence[LeftOutRow], kinds: Kinds) -> dict[str, dict[str, Any]]:
    """Return the table of errors by kind (see hermes_flow/metrics/error_bars/table.py)."""
    groups: dict[str, dict[str, Any]] = {}
    for name, group in groups_of(kinds).items():
        if _is_known(group):
            sources = [
                (each, kinds[group.source(each, kinds)], within) for each, within in group.classes.items()
            ]
            groups[name] = {
                metric: {
                    each: _entry(of, of.intervals(metric).interval(within)) for each, of, within in sources
                }
                for metric in METRICS
            }
    served = [row for row in rows if row.left_out not in ("gpu", "maker") and row.cost == "roofline"]
    places: dict[str, set[str]] = {}
    for row in served:
        places.setdefault(f"{row.engine}/{row.hardware}", set()).add(row.model)
    return {
        "groups": groups,
        "hardware": {
            name: list(datasheet(_hardware(name))) for name in sorted({row.hardware for row in served})
        },
        "kernels": {
            name: kernels_of(_hardware(name))
            for name in sorted({row.hardware for row in served})
            if kernels_of(_hardware(name)) != name
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
class Kind:
    """All rows of one kind and kind of prompts, from which the intervals of its groups are made."""

    name: str
    prompts: str
    rows: list[LeftOutRow] = field(default_factory=list)
    _intervals: dict[str, Intervals] = field(default_factory=dict)

    def intervals(self, metric: str) -> Intervals:
        """Return the intervals of a metric."""
        if metric not in self._intervals:
            self._intervals[metric] = Intervals(
                [
                    self._error(index, row, metric)
                    for index, row in enumerate(self.rows)
                    if metric in row.errors
                ]
            )
        return self._intervals[metric]

    def _error(self, index: int, row: LeftOutRow, metric: str) -> LeftOutError:
        unseen = [str(getattr(row, name)) for name in UNSEEN.get(self.name, ())]
        unit = "/".join(unseen) or str(index)
        cell = str(index) if self.name == "maker" else _cell(row)  # six runs, four of them of one model
        return LeftOutError(row.errors[metric], self.within(row), unit, cell)

    def within(self, row: LeftOutRow) -> tuple[str, ...]:
        """Return the groups of a row, the widest first."""
        if self.name == "maker":
            return ()
        if self.name == "apart":
            return f"{row.engine}/{row.hardware}", _cell(row)
        if self.name == "apart elsewhere":
            return row.engine, _elsewhere(row)
        wide = row.engine, f"{row.engine}/{class_of(row)}"
        if self.name in ELSEWHERE:
            return *wide, _elsewhere(row)
        return (*wide, _cell(row)) if self.name == "same" and self.prompts != "found" else wide


@dataclass(slots=True)
class Group:
    """The rows of one kind in one place, with the groups of ``Kind`` that each class of predictions belongs to.

    ``prompts`` are those of predictions: found or computed.
    """

    name: str
    prompts: str
    rows: list[LeftOutRow] = field(default_factory=list)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def source(self, each: str, kinds: Kinds) -> tuple[str, str]:
        """Return the kind whose intervals a class of predictions has.

        The runs of the class in this place decide, and those of its engine anywhere where there are too few. Recorded
        runs come first.
        """
        if self.prompts == "found":
            return self.name, "found"
        place = [row for row in self.rows if each in (ALL, class_of(row))]
        found = [
            (self.name, prompts) for prompts in ("computed", "unrecorded") if (self.name, prompts) in kinds
        ]
        for kind in found:
            if sum(_prompts(row) == kind[1] for row in place) >= FEWEST_RUNS.get(self.name, FEWEST):
                return kind
        engines = {row.engine for row in self.rows}
        for kind in found:
            if any(row.engine in engines and class_of(row) == each for row in kinds[kind].rows):
                return kind
        return found[0]


Kinds = dict[tuple[str, str], Kind]


def class_of(row: LeftOutRow) -> str:
    """Return the class of a row: its load where a prefix cache holds the prompts, else its kind of model."""
    light, busy = CLASSES["found"]
    dense, mixture = CLASSES["computed"]
    if _prompts(row) == "found":
        return busy if row.work >= BUSY else light
    return mixture if row.mixture else dense


def kinds_of(rows: Iterable[LeftOutRow]) -> Kinds:
    """Return the kinds by their name and prompts."""
    kinds: Kinds = {}
    for row in rows:
        for name in _kinds(row):
            prompts = _prompts(row)
            kinds.setdefault((name, prompts), Kind(name, prompts)).rows.append(row)
    return kinds


def groups_of(kinds: Kinds) -> dict[str, Group]:
    """Return the groups by name, in their order (see ``hermes_flow.metrics.error_bars.kinds``)."""
    groups: dict[str, Group] = {}
    for (kind, prompts), of in kinds.items():
        for row in of.rows:
            asked = "found" if prompts == "found" else "computed"
            for place, classes in _places(of, row):
                group = groups.setdefault(f"{place}/{asked}", Group(kind, asked))
                group.rows.append(row)
                group.classes.update(classes)
    for group in groups.values():
        group.classes = dict(sorted(group.classes.items()))
    return dict(sorted(groups.items()))


def _kinds(row: LeftOutRow) -> tuple[str, ...]:
    """Return the kinds of predictions that a row stands for."""
    if row.cost != "roofline":
        return ()
    if row.left_out == "maker":
        return ("maker",)
    if row.layout == "disaggregated":
        return "apart", "apart elsewhere"
    if row.left_out == "serving" and _prompts(row) == "found":
        return ("kernels",)
    return {
        "run": ("same",),
        "model": ("other",),
        "gpu": ("none",),
        "serving": ("same", "other", "kernels"),
        "sibling": ("same", "other", "sibling"),
    }.get(row.left_out, ())


def _places(kind: Kind, row: LeftOutRow) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    """Return the names of the groups that a row belongs to, and the classes of predictions that each adds."""
    served, within = f"{row.engine}/{row.hardware}", kind.within(row)
    if kind.name == "maker":
        return [("maker", {ALL: ()})]
    if kind.name == "apart":
        return [
            (f"apart/{served}", {ALL: within[:1]}),
            (f"apart/{served}/{row.model}", {ALL: within}),
        ]
    if kind.name == "apart elsewhere":
        places = (
            ("apart", within[:0]),
            (f"{kind.name}/{within[0]}", within[:1]),
            (f"{kind.name}/{within[1]}", within),
        )
        return [(place, {ALL: groups}) for place, groups in places]
    if kind.name == "same":
        alone = row.left_out in ("serving", "sibling")
        return [
            (
                f"{served}/{row.model}" if alone else f"{served}/same",
                {ALL if alone else class_of(row): within},
            )
        ]
    wide = {each: (row.engine, f"{row.engine}/{each}") for each in CLASSES[kind.prompts]}
    place = f"{served if kind.name == 'other' else row.engine}/{kind.name}"
    elsewhere = [(f"{place}/{row.model}", {class_of(row): within})] if kind.name in ELSEWHERE else []
    return [(place, wide), *elsewhere]


def _prompts(row: LeftOutRow) -> str:
    if row.hit_share >= FOUND:
        return "found"
    return "computed" if row.recorded else "unrecorded"


def _elsewhere(row: LeftOutRow) -> str:
    return f"{row.engine}/{row.model}"


def _cell(row: LeftOutRow) -> str:
    return f"{row.engine}/{row.hardware}/{row.model}"


def _entry(kind: Kind, bar: Bar) -> dict[str, Any]:
    entry: dict[str, Any] = {"low": round(bar.low, 4), "high": round(bar.high, 4), "runs": bar.runs}
    return entry | {"recorded": False} if kind.prompts == "unrecorded" else entry


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the intervals of one kind and metric fit the runs that they were made without."""

    kind: str
    metric: str
    fit: Fit


def calibration(kinds: Kinds) -> list[Calibration]:
    """Return the calibration of each kind and metric, with an interval of its own for each row, made without it."""
    known = [kind for kind in kinds.values() if _is_known(kind)]
    known.sort(key=lambda kind: (tuple(CLASSES).index(kind.prompts), KINDS.index(kind.name)))
    return [
        Calibration(f"{kind.name}, {kind.prompts}", metric, kind.intervals(metric).fit())
        for kind in known
        for metric in METRICS
    ]


def _is_known(group: Kind | Group) -> bool:
    """Tell whether the rows of a group are enough to compare a prediction with them."""
    return len(group.rows) >= FEWEST_RUNS.get(group.name, FEWEST)


@cache
def _hardware(name: str) -> Any:
    return hf.compose([f"hardware={name}"]).hardware


if __name__ == "__main__":
    main()
