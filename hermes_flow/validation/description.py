"""Reads run descriptions: the measured deployment, its requests and its results (docs/validate.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hermes_flow.config.convert import convert, shown
from hermes_flow.config.documents import DocumentError, read_yaml
from hermes_flow.config.origin import line_of
from hermes_flow.errors import ConfigError, HermesFlowError, TraceError, did_you_mean
from hermes_flow.validation.log_files import logs_below, runs_of
from hermes_flow.workload.records.open_table import divided
from hermes_flow.workload.traces.files import open_trace

METRICS = ("ttft", "tpot", "itl", "e2e")
RATES = ("requests_per_s", "output_tokens_per_s")
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
SIMULATOR = "hermes_flow"
TRACE_KEYS = tuple(  # what a validation sets itself, or cannot change
    f"workload.{key}" for key in ("path", "format", "limit", "columns", "start", "duration", "time_unit")
)

_EXPECTED = (
    "a run description (.yaml), a table of measured requests (.csv, .parquet, .jsonl), a benchmark's log, "
    "or a folder of such"
)
_YAML = (".yaml", ".yml")
_STATISTIC = re.compile(r"mean|p(\d+(\.\d+)?)")
_ITL_STATISTICS = ("mean", "p50", "p90", "p99")  # what a run's summary has of the gaps between tokens

Figures = dict[tuple[str, str], float]


class DescriptionError(HermesFlowError):
    """A run description is wrong; names its file, the line where known, and the key."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        super().__init__(f"{path}{'' if line is None else f':{line}'}: {problem}")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The results of another simulator for the run: a table of requests, or statistics."""

    requests: str | None = None
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Written:
    """The keys of a description, as they stand in its file."""

    name: str | None = None
    overrides: tuple[str, ...] = ()
    requests: str | None = None
    traces: tuple[str, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, Prediction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunDescription:
    """One measured run.

    ``overrides`` configure the deployment. Measured is either every request (``requests``, a table that is also
    the workload's trace) or only ``statistics``, in seconds and per second by (metric, statistic); the workload is
    then in ``traces``, draws of it that are replayed in turn, or in ``overrides``. ``predictions`` has a table's
    path or statistics by the name of another simulator.
    """

    name: str
    overrides: tuple[str, ...]
    requests: Path | None
    traces: tuple[Path, ...] = ()
    statistics: Figures = field(default_factory=dict)
    predictions: dict[str, Path | Figures] = field(default_factory=dict)


def other_requests(overrides: Iterable[str]) -> str:
    """Return the problem if an override changes the requests, which must be the measured ones, or ""."""
    for text in overrides:
        name = text.partition("=")[0].lstrip("+~")
        if name == "workload" or name in TRACE_KEYS:
            return (
                f"{text} does not go with a validation, which replays the requests that were measured, all of them; "
                "leave it out"
            )
    return ""


def find_descriptions(paths: Iterable[str]) -> list[Path]:
    """Return the files that ``paths`` name: of a folder its .yaml files, or else the benchmark logs in and below it.

    A log that holds several runs is named once for each, as in ``FILE@2``. Raises HermesFlowError where there
    is no such file, or neither description nor log in a folder.
    """
    found: list[Path] = []
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            inside = sorted(
                entry for entry in path.iterdir() if entry.suffix in _YAML and not _is_of_a_benchmark(entry)
            )
            inside = inside or logs_below(path)
            if not inside:
                raise HermesFlowError(
                    f"{path}: no run descriptions (.yaml) in this folder, and no benchmark logs that are known"
                )
            found += inside
        elif path.is_file():
            found += [path] if path.suffix in _YAML else runs_of(path)
        elif Path(divided(text)[0]).expanduser().is_file():
            found.append(path)
        else:
            names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            near = get_close_matches(path.name, names, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; expected {_EXPECTED}"
            raise HermesFlowError(f"{path}: no such file{meant}")
    return list(dict.fromkeys(found))


def _is_of_a_benchmark(path: Path) -> bool:
    """Return whether a YAML file is the configuration of a benchmark and describes no run."""
    try:
        loaded = _load(path)
    except DescriptionError:
        return False
    return "load" in loaded and not {"overrides", "requests", "statistics"} & set(loaded)


def read_description(path: Path) -> RunDescription:
    """Return the run of a description, or of a table measured on the command line's deployment.

    Raises DescriptionError naming file, line and key.
    """
    if path.suffix not in _YAML:
        base, number = divided(path.name)
        name = base.split(".")[0] + ("" if number is None else f"@{number}")
        return RunDescription(name=name, overrides=(), requests=path)
    try:
        return _parsed(_load(path), path)
    except ConfigError as error:
        raise DescriptionError(path, line_of(path, error.key.split(".")), str(error)) from None


def _load(path: Path) -> Mapping[str, Any]:
    try:
        loaded = read_yaml(path.read_text(encoding="utf-8"))
    except DocumentError as error:
        raise DescriptionError(path, error.line, error.problem) from None
    except (OSError, ValueError) as error:
        raise DescriptionError(path, None, f"cannot be read: {error}") from None
    if not isinstance(loaded, Mapping):
        raise DescriptionError(
            path, None, "is not a run description: expected the keys overrides, requests, …"
        )
    return loaded


def _parsed(loaded: Mapping[str, Any], path: Path) -> RunDescription:
    written = convert(_Written, loaded, "")
    if (written.requests is None) == (not written.statistics):
        both = "both are given" if written.statistics else "missing"
        raise ConfigError(
            "requests", f"{both}; expected either requests (a table) or statistics of what was measured"
        )
    if written.requests is not None and written.traces:
        raise ConfigError("traces", "not needed; the table of requests is the trace")
    if written.requests is not None or written.traces:
        other = other_requests(written.overrides)
        if other:
            raise ConfigError("overrides", other)
    run = RunDescription(
        name=written.name or path.stem,
        overrides=written.overrides,
        requests=None if written.requests is None else _beside(path, written.requests, "requests"),
        traces=tuple(_beside(path, trace, "traces") for trace in written.traces),
        statistics=_figures(written.statistics, "statistics"),
    )
    return replace(
        run,
        predictions={
            name: _prediction(entry, name, run, path) for name, entry in written.predictions.items()
        },
    )


def _prediction(entry: Prediction, name: str, run: RunDescription, path: Path) -> Path | Figures:
    key = f"predictions.{name}"
    if name == SIMULATOR:
        raise ConfigError(key, "this is the name of the simulation itself; give another one")
    if (entry.requests is None) == (not entry.statistics):
        raise ConfigError(key, "expected either requests (a table) or statistics")
    if entry.requests is None:
        return _figures(entry.statistics, f"{key}.statistics")
    if run.requests is None:
        raise ConfigError(
            f"{key}.requests", "the measurements of single requests are not known; give statistics"
        )
    return _beside(path, entry.requests, f"{key}.requests")


def _beside(path: Path, name: str, key: str) -> Path:
    """Return a file named in a description: relative to the description's own folder. It has to be there."""
    found = path.parent / Path(name).expanduser()
    if not found.exists():
        try:
            open_trace(str(found))
        except TraceError as error:
            raise ConfigError(key, str(error)) from None
    return found


def _figures(given: Mapping[str, Any], key: str) -> Figures:
    """Return statistics as {(metric, statistic): seconds or per second}, rates with the statistic "mean"."""
    figures: Figures = {}
    for name, value in given.items():
        place = f"{key}.{name}"
        if name in RATES:
            figures[name, "mean"] = _positive(value, place)
            continue
        metric, _, unit = str(name).rpartition("_")
        if metric not in METRICS or unit not in PER_SECOND:
            valid = [f"{each}_ms" for each in METRICS] + list(RATES)
            units = "; units are _s, _ms, _us, _ns" if metric in METRICS else ""
            raise ConfigError(place, f"unknown{did_you_mean(str(name), valid)}{units}")
        if not isinstance(value, Mapping):
            raise ConfigError(place, f"{shown(value)} is not a mapping such as {{mean: 12.3, p99: 45.6}}")
        for statistic, figure in value.items():
            _check_statistic(metric, statistic, f"{place}.{statistic}")
            figures[metric, statistic] = _positive(figure, f"{place}.{statistic}") / PER_SECOND[unit]
    return figures


def _check_statistic(metric: str, statistic: Any, key: str) -> None:
    match = _STATISTIC.fullmatch(statistic) if isinstance(statistic, str) else None
    if match is None or (match[1] is not None and float(match[1]) >= 100):
        raise ConfigError(key, "unknown statistic; expected mean, p50, p90, p99 or another percentile")
    if metric == "itl" and statistic not in _ITL_STATISTICS:
        raise ConfigError(key, f"not known of ITL; expected one of: {', '.join(_ITL_STATISTICS)}")


def _positive(value: Any, key: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not value > 0
        or value == float("inf")
    ):
        raise ConfigError(key, f"{shown(value)} is not a number above 0")
    return float(value)
