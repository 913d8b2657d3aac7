"""Writes docs/reality.md from recorded runs: ``python -m benchmarks.reality.page FOLDER [--into FILE]``."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import hermes_flow as hf
from benchmarks.reality.page_text import page
from benchmarks.reality.recorded import (
    CONF,
    Recorded,
    overrides_of,
    read_run,
    replay_of,
    runs_of,
    trace_of,
    workload_of,
)
from benchmarks.reality.times import METRICS, Means, can_predict, measured, others_of, predicted

_ROUNDED_US = 10.0  # of a chain of instants that are whole microseconds
_STEP_COLUMNS = ("decodes", "decode_context", "prefill_tokens")


@dataclass(frozen=True, slots=True)
class Decisions:
    """How a replay compares with its run: steps, those that differ, preemptions, and the largest difference in µs."""

    steps: int
    different: int
    preemptions: int
    cached_equal: bool
    apart_us: float

    @property
    def exact(self) -> bool:
        """Whether every step, preemption, cached token, first token and end is as recorded."""
        return not self.different and self.cached_equal and self.apart_us <= _ROUNDED_US


@dataclass(frozen=True, slots=True)
class Row:
    """One run on the page; errors are relative, by metric, and empty where there was nothing to fit to."""

    run: Recorded
    busy: float
    means: Means
    decisions: Decisions
    own: dict[str, float]
    drifting: dict[str, float]
    others: dict[str, float]


def decisions(run: Recorded, folder: Path) -> Decisions:
    """Replay a run with its recorded steps, and compare every step and every request."""
    path = folder / f"{run.name}.parquet"
    trace = trace_of(run)
    trace.write_parquet(path)
    overrides = [*overrides_of(run), *workload_of(run, path), *replay_of(run), "output.steps=true"]
    result = hf.simulate(hf.compile(hf.compose(overrides, config_dir=CONF)))
    different = 0
    for engine in run.about["engines"]:
        recorded = run.steps.filter(pl.col("engine") == engine)
        found = result.steps.filter(pl.col("client").str.starts_with(f"{engine}/"))
        pairs = [(found[name].to_list(), recorded[name].to_list()) for name in _STEP_COLUMNS]
        differ = [a != b for ours, theirs in pairs for a, b in zip(ours, theirs, strict=False)]
        different += sum(differ) + abs(len(found) - len(recorded))
    requests, recorded = result.requests, run.requests
    if "delay_us" in trace.columns:
        requests, recorded = requests.sort("session", "arrival_s"), recorded.sort("session", "turn")
    apart = [(requests[f"{name}_s"] * 1e6 - recorded[f"{name}_us"]).abs().max() for name in ("ttft", "e2e")]
    if run.stages is None:
        cached = recorded["cached_tokens"].to_list()
    else:
        own = run.stages.group_by("request", maintain_order=True).agg(pl.col("cached_tokens").sum())
        cached = own.sort("request")["cached_tokens"].to_list()
    return Decisions(
        steps=len(run.steps),
        different=different,
        preemptions=int(run.steps["preempted"].sum()),
        cached_equal=requests["cached_tokens"].to_list() == cached,
        apart_us=float(np.max(np.array(apart, dtype=float))),
    )


def rows_of(folder: Path) -> list[Row]:
    """Replay and predict every run of a folder."""
    runs = [read_run(folder, name) for name in runs_of(folder)]
    probes = pl.read_parquet(folder / "probes.parquet")
    busy = dict(pl.read_csv(folder / "runs.csv").select("run", "busy_A").iter_rows())
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for run in runs:
            means, others = measured(run), others_of(run, runs)
            errors = {}
            if can_predict(run, others):
                errors = predicted(run, others, Path(scratch), probes).errors(means)
            own = predicted(run, [run], Path(scratch), probes).errors(means)
            drifting = predicted(run, [run], Path(scratch), probes, drifts=True).errors(means)
            row = Row(run, busy[run.name], means, decisions(run, Path(scratch)), own, drifting, errors)
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def _line(row: Row) -> str:
    found = row.decisions
    exact = f"{found.different} steps differ, up to {found.apart_us:,.0f} µs apart"
    exact = "as recorded" if found.exact else exact
    own, drifting, others = (
        " ".join(f"{name} {100 * errors[name]:+.1f} %" for name in METRICS) if errors else "-"
        for errors in (row.own, row.drifting, row.others)
    )
    return f"{row.run.name}: {exact}; own steps {own}; with their speed {drifting}; others {others}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, default=Path("docs/reality.md"))
    parser.add_argument(
        "--about", default="The tables show the runs of this machine.", help="which runs these are"
    )
    given = parser.parse_args()
    rows = rows_of(given.folder)
    given.into.write_text(page(rows, given.about), encoding="utf-8")
    print(f"{given.into} written")


if __name__ == "__main__":
    main()
