"""Predicts the times of recorded runs from costs that are fitted to steps: a run's own, or those of other runs.

Other runs count at the speed of the machine in the predicted run: their times are multiplied by the ratio of the
probes, fixed pieces of work that every run has timed every second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import hermes_flow as hf
from benchmarks.reality.recorded import (
    CONF,
    SIDE,
    Recorded,
    overrides_of,
    trace_of,
    with_side_times,
    workload_of,
)

METRICS = ("e2e", "ttft", "tpot")
WINDOW_S = 2  # in which the speed of the machine is measured
_ALONE = "side_stages.csv"  # times of side stages, measured alone
_LOAD_KEYS = ("seed", "rate", "users")


@dataclass(frozen=True, slots=True)
class Means:
    """Mean times in milliseconds: from arrival to the end and to the first token, and between tokens."""

    e2e: float
    ttft: float
    tpot: float

    def errors(self, measured: Means) -> dict[str, float]:
        """Return the relative error of each mean."""
        return {metric: getattr(self, metric) / getattr(measured, metric) - 1.0 for metric in METRICS}


def measured(run: Recorded) -> Means:
    """Return what was measured in a run; TPOT is that of the last answer."""
    requests = run.requests
    if run.stages is None:
        spent = (requests["e2e_us"] - requests["ttft_us"]) / (requests["output_tokens"] - 1)
    else:
        last = (
            run.stages.filter(pl.col("first_us").is_not_null()).sort("finish_us").group_by("request").last()
        )
        spent = (last["finish_us"] - last["first_us"]) / (last["output_tokens"] - 1)
    return Means(
        *(float(np.mean(each.to_numpy())) / 1e3 for each in (requests["e2e_us"], requests["ttft_us"], spent))
    )


def predicted(
    run: Recorded, sources: Sequence[Recorded], folder: Path, probes: pl.DataFrame, *, drifts: bool = False
) -> Means:
    """Return what the simulator gives for a run with costs fitted to the steps of ``sources``.

    With ``drifts`` the machine has the speed of each time of the run, as its own steps show it.
    """
    speed = dict(probes.group_by("run").agg(pl.col("product_us").mean()).iter_rows())
    path = folder / f"{run.name}.parquet"
    trace = trace_of(run)
    if run.stages is not None and run.stages["stage"].is_in(SIDE).any():
        trace = with_side_times(trace, run, _side_times(run, sources, speed))
    trace.write_parquet(path)
    costs = []
    for engine, about in run.about["engines"].items():
        table = folder / f"{run.name}.{engine}.steps.parquet"
        _steps(run, engine, about["model"], sources, speed).write_parquet(table)
        drift = f", drift_s: {WINDOW_S}" if drifts else ""
        costs.append(f"cluster.pools.{engine}.cost={{kind: regression, path: {table}{drift}}}")
    result = hf.simulate(
        hf.compile(hf.compose([*overrides_of(run), *workload_of(run, path), *costs], config_dir=CONF))
    )
    stages = result.stages.filter(pl.col("kind") == "decode").sort("finish_s").group_by("request").last()
    stages = stages.filter(pl.col("tokens") > 1)
    spent = (stages["finish_s"] - stages["start_s"]) / (stages["tokens"] - 1)
    requests = result.requests
    return Means(
        *(1e3 * float(np.mean(each.to_numpy())) for each in (requests["e2e_s"], requests["ttft_s"], spent))
    )


def others_of(run: Recorded, runs: Sequence[Recorded]) -> list[Recorded]:
    """Return the runs that are no repeats of a run: those with another load or other settings."""
    return [other for other in runs if _load(other) != _load(run)]


def can_predict(run: Recorded, sources: Sequence[Recorded]) -> bool:
    """Return whether the sources have steps of all models of a run, and times of all its side stages."""
    models = {about["model"] for about in run.about["engines"].values()}
    known = {about["model"] for source in sources for about in source.about["engines"].values()}
    if not models <= known:
        return False
    if run.stages is None or (run.folder / _ALONE).exists():
        return True
    own = set(run.stages["stage"].unique()) & set(SIDE)
    found = {
        stage for source in sources if source.stages is not None for stage in source.stages["stage"].unique()
    }
    return own <= found


def _load(run: Recorded) -> tuple[Any, ...]:
    load, engines = run.about["load"], run.about["engines"]
    flags = [sorted(engine["flags"].items()) for engine in engines.values()]
    shared = load.get("shared")
    return (run.pipeline, *(load.get(key) for key in _LOAD_KEYS), load.get("index"), shared, repr(flags))


def _steps(
    run: Recorded, engine: str, model: str, sources: Sequence[Recorded], speed: dict[str, float]
) -> pl.DataFrame:
    """Return the steps of all engines of a model, at the speed of the run."""
    own = [source for source in sources if source.name == run.name]
    tables = []
    for source in own or sources:
        scale = speed[run.name] / speed[source.name]
        engines = [name for name, about in source.about["engines"].items() if about["model"] == model]
        engines = [engine] if own else engines
        steps = source.steps.filter(pl.col("engine").is_in(engines))
        tables.append(
            steps.select(
                *(["start_us"] if own else []),
                *("prefills", "prefill_tokens", "prefill_context", "chunks", "decodes", "decode_context"),
                time_us=(pl.col("duration_us") + pl.col("add_us")) * scale,
            )
        )
    return pl.concat(tables)


def _side_times(
    run: Recorded, sources: Sequence[Recorded], speed: dict[str, float]
) -> dict[str, tuple[float, float]]:
    """Return a line over the size of each side stage, in µs, from the same stages of the sources.

    A stage that no source has is that of ``side_stages.csv``, measured alone.
    """
    assert run.stages is not None
    index = run.about["load"].get("index")
    lines = {}
    for stage in (
        run.stages.filter(pl.col("stage").is_in(SIDE))["stage"].unique(maintain_order=True).to_list()
    ):
        sizes, times = [np.zeros(0)], [np.zeros(0)]
        for source in sources:
            same = stage != "search" or source.about["load"].get("index") == index
            if source.stages is None or not same:
                continue
            own = source.stages.filter(pl.col("stage") == stage)
            scale = speed[run.name] / speed[source.name]
            sizes.append(own["size"].to_numpy().astype(float))
            times.append((own["finish_us"] - own["start_us"]).to_numpy() * scale)
        size, time = np.concatenate(sizes), np.concatenate(times)
        if not len(size):
            alone = pl.read_csv(run.folder / _ALONE)
            name = f"search_{index}" if stage == "search" else stage
            alone = alone.filter(pl.col("stage") == name)
            size, time = alone["size"].to_numpy().astype(float), alone["time_us"].to_numpy().astype(float)
            if stage == "search":
                kept = size == run.stages.filter(pl.col("stage") == stage)["size"][0]
                size, time = size[kept], time[kept]
        lines[stage] = _line(size, time)
    return lines


def _line(size: np.ndarray[Any, Any], time: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return fixed and per-size times, by least squares, which keeps the sum."""
    if np.ptp(size) == 0:
        return float(time.mean()), 0.0
    slope, fixed = np.polyfit(size, time, 1)
    return float(fixed), float(slope)
