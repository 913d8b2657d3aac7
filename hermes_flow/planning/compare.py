"""Compares runs and sweeps: which settings differ, by how much every figure differs, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.errors import ConfigError, HermesFlowError, did_you_mean
from hermes_flow.metrics.comparable_costs import comparable, is_cost, is_energy
from hermes_flow.metrics.figures import figure
from hermes_flow.metrics.pareto import pareto_front
from hermes_flow.metrics.result import Result
from hermes_flow.metrics.run_files import run_of
from hermes_flow.planning.compared_run import ComparedRun, run_of_folder

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side; the first one is what the others are compared with.

    ``failed`` are the jobs of sweeps that have no result, with their reasons.
    """

    runs: tuple[ComparedRun, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The names of the runs, in order."""
        return [run.label for run in self.runs]

    @cached_property
    def settings(self) -> pl.DataFrame:
        """One row per key that is not the same in all runs: ``key``, and the value in each run as text.

        A run whose settings are not known has null everywhere.
        """
        known = [run for run in self.runs if run.settings is not None]
        keys = _in_order(run.settings or {} for run in known)
        differing = [key for key in keys if len({_text((run.settings or {}).get(key)) for run in known}) > 1]
        return self._frame(
            "key", differing, lambda run, key: None if run.settings is None else _text(run.settings.get(key))
        )

    @cached_property
    def figures(self) -> pl.DataFrame:
        """One row per figure: ``figure``, ``better`` ("low", "high" or null), and the value in each run.

        With two or more runs the columns ``change LABEL`` have (value − first) / first of the others; null if the
        first is 0 or unknown, and for costs and energies that do not compare (see ``costs_compare``).
        """
        import polars as pl

        keys = _in_order(run.figures for run in self.runs)
        frame = self._frame("figure", keys, lambda run, key: _number(run.figures.get(key)))
        better = pl.Series("better", [figure(key).better for key in keys], dtype=pl.String)
        first = frame[self.labels[0]] if keys else None
        columns = [frame["figure"], better, *(frame[label].cast(pl.Float64) for label in self.labels)]
        for label in self.labels[1:]:
            if first is not None:
                same = {key: self._compare(self.labels[0], key) and self._compare(label, key) for key in keys}
                change = [
                    _change(old, new) if same[key] else None
                    for key, old, new in zip(keys, first, frame[label], strict=True)
                ]
                columns.append(pl.Series(f"change {label}", change, dtype=pl.Float64))
        return pl.DataFrame(columns)

    @cached_property
    def why(self) -> pl.DataFrame:
        """One row per stage and cause (queue, transfer, service): the mean seconds of a request in each run.

        The columns of a run add up to its mean E2E. ``more LABEL`` has the seconds beyond those of the first run.
        """
        import polars as pl

        places = list(dict.fromkeys(place for run in self.runs for place in run.times))
        columns: dict[str, Any] = {
            "stage": [stage for stage, _ in places],
            "cause": [cause for _, cause in places],
            **{run.label: [run.times.get(place, 0.0) for place in places] for run in self.runs},
        }
        first = columns[self.labels[0]]
        for label in self.labels[1:]:
            columns[f"more {label}"] = [new - old for old, new in zip(first, columns[label], strict=True)]
        texts = ("stage", "cause")
        return pl.DataFrame(
            columns, schema={name: pl.String if name in texts else pl.Float64 for name in columns}
        )

    @cached_property
    def costs_compare(self) -> dict[str, bool]:
        """Whether the cost of each run compares with those of the others (see metrics/comparable_costs.py)."""
        costs = [run.files.summary["cost"] for run in self.runs]
        found = comparable([cost["usd_per_hour"] for cost in costs], [cost["unpriced"] for cost in costs])
        return dict(zip(self.labels, found, strict=True))

    @cached_property
    def energies_compare(self) -> dict[str, bool]:
        """Whether the energy of each run compares with those of the others, as for costs."""
        energies = [run.files.summary["energy"] for run in self.runs]
        found = comparable([each["total_j"] for each in energies], [each["unmetered"] for each in energies])
        return dict(zip(self.labels, found, strict=True))

    def compares(self, run: ComparedRun, key: str) -> bool:
        """Return whether a run has a figure, and one that compares with those of the other runs."""
        known = _number(run.figures.get(key)) is not None
        return known and self._compare(run.label, key)

    def ranked(self, by: str) -> pl.DataFrame:
        """Return the runs by one figure, the best first: ``rank``, ``run``, ``slo_met`` and the figure.

        Runs without the figure come last, with rank null, and so do runs whose costs or energies do not compare with
        the others' if the figure is one. Raises ConfigError naming the nearest figure if no run has it, or if neither
        direction of it is better.
        """
        import polars as pl

        sign = self._signs([by])[0]
        known = sorted(
            (run for run in self.runs if self.compares(run, by)),
            key=lambda run: sign * run.figures[by],
        )
        rest = [run for run in self.runs if run not in known]
        rows: list[tuple[Any, ...]] = [
            (rank, run.label, run.met, _number(run.figures[by])) for rank, run in enumerate(known, 1)
        ]
        rows += [(None, run.label, run.met, _number(run.figures.get(by))) for run in rest]
        schema = {"rank": pl.Int64, "run": pl.String, "slo_met": pl.Boolean, by: pl.Float64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def pareto(self, figures: Sequence[str]) -> pl.DataFrame:
        """Return the runs with two or three figures, and whether each is on their Pareto front.

        Columns: ``run``, ``slo_met``, the figures, ``on_front`` (null for a run that ``ranked`` would not rank by one
        of them). Raises ConfigError as ``ranked`` does, and for other than two or three figures.
        """
        import polars as pl

        if not 2 <= len(set(figures)) == len(figures) <= 3:
            raise ConfigError("pareto", f"{list(figures)} are not two or three different figures")
        self._signs(figures)
        values = [[_number(run.figures.get(key)) for key in figures] for run in self.runs]
        part = [all(self.compares(run, key) for key in figures) for run in self.runs]
        compared = [row for row, takes_part in zip(values, part, strict=True) if takes_part]
        found = iter(pareto_front(compared, [figure(key).better or "low" for key in figures]).tolist())
        front = [next(found) if takes_part else None for takes_part in part]
        columns: dict[str, Any] = {"run": self.labels, "slo_met": [run.met for run in self.runs]}
        columns |= {key: [row[index] for row in values] for index, key in enumerate(figures)}
        schema = {"run": pl.String, "slo_met": pl.Boolean, **dict.fromkeys(figures, pl.Float64)}
        return pl.DataFrame(columns, schema=schema).with_columns(on_front=pl.Series(front, dtype=pl.Boolean))

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """One row per job of the first sweep and job of another one with the same values of all swept keys.

        Columns: ``first``, ``other``, the swept keys as text, and for each main figure its ratio, other / first.
        Empty with fewer than two sweeps.
        """
        import polars as pl

        groups: dict[str, list[ComparedRun]] = {}
        for run in self.runs:
            groups.setdefault(run.group, []).append(run)
        sweeps = [jobs for jobs in groups.values() if len(jobs) > 1]
        keys = sorted({key for jobs in sweeps for key in _varying(jobs)})
        rows = []
        for others in sweeps[1:]:
            place = {_values(run, keys): run for run in others}
            for run in sweeps[0]:
                other = place.get(_values(run, keys))
                if other is not None:
                    ratios = self._ratios(run, other)
                    rows.append((run.label, other.label, *_values(run, keys), *ratios))
        schema = {"first": pl.String, "other": pl.String, **dict.fromkeys(keys, pl.String)}
        return pl.DataFrame(rows, schema=schema | dict.fromkeys(MAIN, pl.Float64), orient="row")

    def report(self, path: str | Path) -> Path:
        """Write the page of the comparison to ``path``, or as ``compare.html`` into the folder ``path``."""
        from hermes_flow.report.pages.comparison import write_comparison_page

        return write_comparison_page(self, Path(path))

    def _ratios(self, run: ComparedRun, other: ComparedRun) -> list[float | None]:
        both = (run, other)
        changes = [
            _change(*(_number(each.figures.get(key)) for each in both))
            if all(self.compares(each, key) for each in both)
            else None
            for key in MAIN
        ]
        return [None if change is None else 1.0 + change for change in changes]

    def _compare(self, label: str, key: str) -> bool:
        """Return whether a figure of this kind compares between a run and the others."""
        if is_cost(key):
            return self.costs_compare[label]
        return self.energies_compare[label] if is_energy(key) else True

    def _signs(self, figures: Sequence[str]) -> list[float]:
        """Return 1 for figures of which less is better and −1 for the others; raises ConfigError."""
        known = _in_order(run.figures for run in self.runs)
        for key in figures:
            if key not in known:
                raise ConfigError(key, f"is no figure of these runs{did_you_mean(key, known)}")
            if figure(key).better is None:
                raise ConfigError(key, "cannot rank: neither more nor less of it is better")
        return [1.0 if figure(key).better == "low" else -1.0 for key in figures]

    def _frame(self, name: str, keys: Sequence[str], value: Any) -> pl.DataFrame:
        import polars as pl

        columns = [pl.Series(name, keys, dtype=pl.String)]
        columns += [
            pl.Series(run.label, [value(run, key) for key in keys], strict=False) for run in self.runs
        ]
        return pl.DataFrame(columns)


MAIN = (
    *("ttft_s.p50", "ttft_s.p99", "tpot_s.p50", "tpot_s.p90", "e2e_s.p50", "e2e_s.p99"),
    *(
        "throughput.requests_per_s",
        "throughput.output_tokens_per_s",
        "slo.attainment",
        "slo.goodput_requests_per_s",
    ),
    *(
        "cost.usd_per_hour",
        "cost.usd_per_million_output_tokens",
        "energy.j_per_output_token",
        "capacity.value",
    ),
)
"""The figures that are shown first."""


def compare(runs: Sequence[str | Path | Result] | Mapping[str, str | Path | Result]) -> Comparison:
    """Compare runs, sweeps and folders of runs.

    ``runs`` are results in memory and folders; a mapping gives them labels. Of a folder with several runs, such as
    that of a sweep, each run takes part. Labels are else the shortest endings of the paths that differ.

    Raises HermesFlowError if a folder holds no result, or if there are fewer than two runs.
    """
    if isinstance(runs, Mapping):
        named = list(runs.items())
    else:
        named = list(zip(_labels(runs), runs, strict=True))
    found: list[ComparedRun] = []
    failed: dict[str, str] = {}
    for label, what in named:
        if isinstance(what, Result):
            found.append(ComparedRun(label, run_of(what), None, label))
        else:
            found += _of_folder(label, Path(what).expanduser(), failed)
    if len(found) < 2:
        raise HermesFlowError(f"{len(found)} run to compare; expected the folders of at least two")
    same = [label for label in {run.label for run in found} if [run.label for run in found].count(label) > 1]
    if same:
        raise HermesFlowError(
            f"{same[0]!r} names two runs; expected each run once, or a label of its own for each"
        )
    return Comparison(tuple(found), failed)


def _of_folder(label: str, folder: Path, failed: dict[str, str]) -> list[ComparedRun]:
    """Return the run of a folder, or all runs in it."""
    if not folder.is_dir():
        raise HermesFlowError(f"{folder}: there is no such folder; expected that of a run or a sweep")
    if (folder / "summary.json").is_file():
        return [run_of_folder(label, folder, label)]
    jobs = sorted(path.parent for path in folder.glob("*/summary.json"))
    jobs.sort(key=lambda path: (not path.name.isdecimal(), int(path.name) if path.name.isdecimal() else 0))
    for path in sorted(folder.glob("*/error.txt")):
        failed[f"{label}/{path.parent.name}"] = path.read_text(encoding="utf-8").strip().splitlines()[0]
    done = [job for job in jobs if not (job / "error.txt").is_file()]
    if not done:
        raise HermesFlowError(
            f"{folder}: holds no finished run and no finished job; expected the folder of a run or a sweep"
        )
    return [run_of_folder(f"{label}/{job.name}", job, label) for job in done]


def _labels(runs: Sequence[str | Path | Result]) -> list[str]:
    """Return the shortest endings of the paths that tell them apart; results are numbered."""
    parts = [
        ("result", str(number)) if isinstance(run, Result) else Path(run).expanduser().resolve().parts
        for number, run in enumerate(runs)
    ]
    length = 1
    while len({part[-length:] for part in parts}) < len(parts) and length < max(map(len, parts)):
        length += 1
    return [
        " ".join(part) if isinstance(run, Result) else str(Path(*part[-length:]))
        for part, run in zip(parts, runs, strict=True)
    ]


def _in_order(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _varying(jobs: Sequence[ComparedRun]) -> list[str]:
    """Return the overrides that differ between the jobs of a sweep."""
    given = [_overrides(run) for run in jobs]
    return [key for key in _in_order(given) if len({each.get(key) for each in given}) > 1]


def _values(run: ComparedRun, keys: Sequence[str]) -> tuple[str | None, ...]:
    given = _overrides(run)
    return tuple(given.get(key) for key in keys)


def _overrides(run: ComparedRun) -> dict[str, str]:
    pairs = (text.partition("=") for text in run.files.overrides)
    return {key.lstrip("+~"): value for key, _, value in pairs}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _change(old: float | None, new: float | None) -> float | None:
    return None if not old or new is None else (new - old) / old


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:.12g}"
        if isinstance(value, float)
        else str(value)
    )
