"""Fits the overheads of an engine to a log of served requests, by simulating the log repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hermes_flow.calibration.entry import Entry, comment, folded, number, table, wrapped
from hermes_flow.config.schema import Config, EngineOverhead, TraceWorkload
from hermes_flow.cost.fitted.least_squares import Floats, nonnegative
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.measured import read_measured
from hermes_flow.workload.records.open_table import is_records

# What is looked for, up to which value, and by how much it is changed to see what it does.
_MOST = {"step_us": 20_000.0, "sequence_us": 500.0, "ingest_ms": 1_000.0}
_CHANGE = {"step_us": 1_000.0, "sequence_us": 25.0, "ingest_ms": 25.0}  # large: latencies are not smooth
_WINDOWS = 20  # of equally many requests, in order of arrival; every other one is held out
_ROUNDS = 12  # at most, of Gauss and Newton
_TRIALS = 5  # of one figure by golden sections
_SETTLED = 1e-5  # a relative error that is not worth another round
_GOLDEN = 0.5 * (5.0**0.5 - 1.0)
_LEAST_IN_A_WINDOW = 2  # requests; a log of fewer than 40 has fewer windows
_LEAST_REQUESTS = 4 * _LEAST_IN_A_WINDOW
_ENOUGH_REQUESTS = _LEAST_IN_A_WINDOW * _WINDOWS
_LOOSE = f"fewer than {_ENOUGH_REQUESTS} requests determine these figures only loosely"
_METRICS = ("ttft", "tpot", "e2e")
_PARTS = ("before", "fit", "held_out")


@dataclass(frozen=True, slots=True)
class Log:
    """Measured mean latencies in seconds by metric and window; requests of window w are where ``window`` is w."""

    means: Mapping[str, Floats]
    window: np.ndarray[tuple[int], np.dtype[np.int64]]

    def errors(self, latencies: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return the relative errors of the means of simulated latencies by window; 1 where nothing completes."""
        return {
            metric: np.nan_to_num(_by_window(latencies[metric], self.window) / means - 1.0, nan=1.0)
            for metric, means in self.means.items()
        }


def engine(
    config: Config,
    name: str,
    paths: Sequence[str],
    limit: int | None,
    entry: str,
    carry_to: Sequence[str] = (),
) -> Entry:
    """Return the hardware of pool ``name`` with the engine overheads that fit the logs at ``paths`` best.

    The entry has the same overheads for the hardware of ``carry_to``. Raises ConfigError where the deployment
    is not one of the roofline's or the log has too few requests, TraceError where it cannot be read.
    """
    pool = config.cluster.pools[name]
    assert isinstance(pool, LLMPool)
    base = pool.hardware.engine
    if base is None:
        raise ConfigError(f"cluster.pools.{name}.hardware.engine", "null; expected figures to begin with")
    if config.cost.get("kind") != "roofline":
        raise ConfigError("cost", "task.fit=engine fits the engine of the roofline; expected cost=roofline")
    workloads = [log_workload(config, path, limit) for path in paths]
    logs = [read_log(path, limit, workload) for path, workload in zip(paths, workloads, strict=True)]
    trials = 0

    def simulated(figures: Mapping[str, float]) -> dict[str, Floats]:
        nonlocal trials
        trials += 1
        with_engine = replace(pool, hardware=replace(pool.hardware, engine=_with(base, figures)))
        cluster = replace(config.cluster, pools={**config.cluster.pools, name: with_engine})
        found = [
            log.errors(latencies_of(replace(config, cluster=cluster, workload=workload)))
            for log, workload in zip(logs, workloads, strict=True)
        ]
        metrics = [metric for metric in _METRICS if all(metric in each for each in found)]
        return {metric: np.concatenate([each[metric] for each in found]) for metric in metrics}

    start = {figure: float(getattr(base, figure)) for figure in _MOST}
    before = simulated(start)
    found = _search(simulated, start)
    after = simulated(found)
    requests = sum(len(log.window) for log in logs)
    return _entry(pool, name, ", ".join(paths), requests, found, (before, after), trials, entry, carry_to)


def _with(base: EngineOverhead, figures: Mapping[str, float]) -> EngineOverhead:
    return replace(
        base,
        step_us=figures["step_us"],
        sequence_us=figures["sequence_us"],
        ingest_ms=figures["ingest_ms"],
    )


def read_log(path: str, limit: int | None, workload: TraceWorkload | None = None) -> Log:
    """Return the first ``limit`` requests of a log by windows; raises ConfigError where they are too few.

    ``workload`` says how the texts of the log are counted, where it holds texts.
    """
    measured = read_measured(Path(path).expanduser(), workload)
    first = measured.order < (len(measured.order) if limit is None else limit)  # as a trace counts them
    latencies = {metric: values[first] for metric, values in measured.sample.latencies.items()}
    count = len(next(iter(latencies.values())))
    if count < _LEAST_REQUESTS:
        raise ConfigError("task.path", f"{path} has {count} requests; expected {_LEAST_REQUESTS} or more")
    missing = [metric for metric in ("ttft", "tpot") if metric not in latencies]
    if missing:
        raise ConfigError("task.path", f"{path} has no {missing[0]}; expected two of ttft, tpot and e2e")
    windows = min(_WINDOWS, count // _LEAST_IN_A_WINDOW // 2 * 2)
    window = np.arange(count) * windows // count
    means = {metric: _by_window(latencies[metric], window) for metric in _METRICS if metric in latencies}
    for metric, values in means.items():
        if not np.isfinite(values).all():
            raise ConfigError("task.path", f"{path}: all requests of a part of it have no {metric}")
    return Log(means, window)


def log_workload(config: Config, path: str, limit: int | None) -> TraceWorkload:
    """Return the log as a trace; how its prefixes are counted is as in a trace that the config has chosen."""
    given = config.workload
    layout = "auto" if is_records(path) else "native"
    log = TraceWorkload(kind="trace", name="log", path=path, format=layout, limit=limit)
    if not isinstance(given, TraceWorkload):
        return log
    return replace(
        log,
        prefix_block_tokens=given.prefix_block_tokens,
        tokenizer=given.tokenizer,
        characters_per_token=given.characters_per_token,
    )


def latencies_of(config: Config) -> dict[str, Floats]:
    """Simulate and return each request's latencies in seconds, in order of arrival; NaN where it has none."""
    from hermes_flow.compiler.compile import compile
    from hermes_flow.simulation import simulate

    requests = simulate(compile(config)).requests
    return {
        metric: requests[f"{metric}_s"].cast(float).fill_null(float("nan")).to_numpy() for metric in _METRICS
    }


def _by_window(values: Floats, window: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    known = np.isfinite(values)
    windows = int(window[-1]) + 1
    sums = np.bincount(window[known], values[known], minlength=windows)
    with np.errstate(invalid="ignore"):
        means: Floats = sums / np.bincount(window[known], minlength=windows)
    return means


def _search(
    errors: Callable[[Mapping[str, float]], dict[str, Floats]], start: dict[str, float]
) -> dict[str, float]:
    """Return the figures, none negative, with the smallest errors in the windows that are fitted.

    By Gauss and Newton: latencies are nearly lines in these figures, so lines are laid through changes of each, and
    solved; where that overshoots, half the way. Then each figure once more by golden sections nearby.

    SciPy's least_squares (trust regions within the bounds) was tried in its place with as many simulations. It meets
    drawn logs as well, but left errors 1.4 to 2 times as large on the log of a real server (vLLM, RTX PRO 6000).
    """

    def fitted(figures: Mapping[str, float]) -> Floats:
        found = errors(figures)
        return np.concatenate([found[metric][::2] for metric in ("ttft", "tpot")])

    best, at = dict(start), fitted(start)
    for _ in range(_ROUNDS):
        slopes = np.stack(
            [(fitted({**best, name: best[name] + by}) - at) / by for name, by in _CHANGE.items()], axis=1
        )
        aim = _solved(slopes, at, np.array([best[name] for name in _MOST]))
        for share in (1.0, 0.5, 0.25):
            trial = {
                name: min(most, best[name] + share * (float(to) - best[name]))
                for (name, most), to in zip(_MOST.items(), aim, strict=True)
            }
            there = fitted(trial)
            if _size(there) < _size(at):
                break
        else:
            break
        gained = _size(at) - _size(there)
        best, at = trial, there
        if gained < _SETTLED:
            break
    for name, most in _MOST.items():
        centre = best[name]
        reach = 0.1 * (centre + _CHANGE[name])
        low, high = max(0.0, centre - reach), min(most, centre + reach)
        for value, size in _golden(partial(_along, fitted, best, name), low, high):
            if size < _size(at) - _SETTLED:
                best = {**best, name: value}
                at = fitted(best)
    return best


def _size(errors: Floats) -> float:
    return float(np.sqrt(np.square(errors).mean()))


def _along(
    errors: Callable[[Mapping[str, float]], Floats], figures: Mapping[str, float], name: str, value: float
) -> float:
    return _size(errors({**figures, name: value}))


def _solved(slopes: Floats, errors: Floats, at: Floats) -> Floats:
    """Return the figures ≥ 0 at which lines through ``at`` with these slopes have the smallest errors."""
    scale = np.maximum(np.abs(slopes).max(axis=0), 1e-12)
    found: Floats = nonnegative(slopes / scale, slopes @ at - errors) / scale
    return found


def _golden(function: Callable[[float], float], low: float, high: float) -> list[tuple[float, float]]:
    """Return the trials of a golden-section search for a minimum, with their values."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    trials = [(left, function(left)), (right, function(right))]
    for _ in range(_TRIALS - 2):
        if dict(trials)[left] <= dict(trials)[right]:
            high, right = right, left
            left = high - _GOLDEN * (high - low)
            trials.append((left, function(left)))
        else:
            low, left = left, right
            right = low + _GOLDEN * (high - low)
            trials.append((right, function(right)))
    return trials


def _entry(
    pool: LLMPool,
    place: str,
    path: str,
    requests: int,
    found: Mapping[str, float],
    errors: tuple[Mapping[str, Floats], Mapping[str, Floats]],
    trials: int,
    name: str,
    carry_to: Sequence[str],
) -> Entry:
    """Return the entry: the pool's hardware under a new name, with the figures ``found``."""
    base = pool.hardware.engine
    assert base is not None
    figures = _figures(errors)
    what = f"{pool.model.name} on {pool.devices} × {pool.hardware.name}"
    held = ", ".join(f"{metric.upper()} {100 * each['held_out']:.1f} %" for metric, each in figures.items())
    source = (
        f"step_us, sequence_us and ingest_ms by hermes-flow calibrate from {path}: {requests:,} requests, {what}; "
        f"mean {held} off in the windows held out; all else: {base.source}"
    )
    text = _text(pool.hardware.name, name, path, source, found)
    carried = {
        hardware: _text(
            hardware, f"{name}_{hardware}", path, f"carried from {pool.hardware.name}: {source}", found
        )
        for hardware in carry_to
    }
    changes: list[tuple[str, ...]] = [("", "before", "fitted", "")]
    for figure, value in found.items():
        remark = "  as low as it goes" if value == 0.0 else ""
        remark = "  as high as was tried" if value >= _MOST[figure] else remark
        changes.append((figure, number(getattr(base, figure)), number(value), remark))
    rows: list[tuple[str, ...]] = [("off by", "before", "fitted", "held out", "  (means of windows)")]
    for metric, each in figures.items():
        rows.append((metric.upper(), *(f"{100 * each[part]:.1f} %" for part in _PARTS), ""))
    lines = (
        *wrapped(f"engine of {what}, from {requests:,} requests of {path}, simulated {trials} times"),
        *(wrapped(_LOOSE) if requests < _ENOUGH_REQUESTS else ()),
        "",
        *table(changes),
        "",
        *table(rows),
    )
    report = {"kind": "engine", "source": path, "rows": requests, "figures": dict(found), "errors": figures}
    use = [f"model={pool.model.name}"]
    if pool.tensor_parallel > 1:
        use.append(f"cluster.pools.{place}.tensor_parallel={pool.tensor_parallel}")
    return Entry("hardware", text, lines, report, tuple(use), carried)


def _text(hardware: str, name: str, path: str, source: str, found: Mapping[str, float]) -> str:
    """Return the YAML of hardware with the figures ``found``."""
    return (
        comment(f"{hardware} with an engine as in {Path(path).name} (docs/calibration.md).")
        + f"defaults:\n  - {hardware}\n  - _self_\n\nname: {name}\n"
        + f"engine:\n  source: {folded(source, '  ')}\n"
        + "".join(f"  {figure}: {number(value)}\n" for figure, value in found.items())
    )


def _figures(errors: tuple[Mapping[str, Floats], Mapping[str, Floats]]) -> dict[str, dict[str, float]]:
    """Return mean sizes of the windows' errors: before, and after in those fitted and in those held out."""
    before, after = errors
    return {
        metric: {
            "before": float(np.abs(before[metric]).mean()),
            "fit": float(np.abs(after[metric][::2]).mean()),
            "held_out": float(np.abs(after[metric][1::2]).mean()),
        }
        for metric in after
    }
