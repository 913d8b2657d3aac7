"""Measures speed and memory: ``python -m benchmarks.speed [--data FOLDER] [--runs N] [--page FILE]``.

Every figure is the median over fresh processes. Writes outputs/bench/*.json, prints the page docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import LARGEST, REQUEST_LISTS, SIZES, Case, size_case
from benchmarks.page import page
from benchmarks.processes import ROOT, run_module

DATA = ROOT.parent / "shared" / "data" / "benchmarks"
OUTPUT = ROOT / "outputs" / "bench"
TINY_JOB = ("workload.requests=20", "workload=synthetic")
FEW_JOBS, MANY_JOBS = 5, 45

Figures = dict[str, Any]


def main() -> None:
    """Measure everything, write the figures, print the page."""
    options = _options()
    if not options.data.is_dir():
        print(f"{options.data} is missing: lists like its own are drawn instead", file=sys.stderr)
    cases = [*(item.case(options.data) for item in REQUEST_LISTS), *map(size_case, SIZES)]
    figures = _measured(cases, options.runs)
    lists, sizes = figures[: len(REQUEST_LISTS)], figures[len(REQUEST_LISTS) :]
    command = _command(options.runs)
    largest = next(entry for entry in lists if entry["name"].startswith(LARGEST))
    costs = [_simulate_and_tables(entry) / entry["requests"] for entry in sizes]
    reached = {
        "simulate_s": largest["simulate_s"],
        "simulate_and_tables_s": _simulate_and_tables(largest),
        "peak_mb": largest["peak_mb"],
        "spread": max(costs) / min(costs),
        **command,
    }
    text = page(lists, sizes, reached, options.runs)
    for name, content in (("lists", lists), ("sizes", sizes), ("budgets", reached)):
        _write(OUTPUT / f"{name}.json", json.dumps(content, indent=2) + "\n")
    print(text)
    if options.page is not None:
        _write(options.page, text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of request lists (Parquet)")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes per figure")
    parser.add_argument("--page", type=Path, help="also write the page to this file")
    return parser.parse_args()


def _measured(cases: Sequence[Case], runs: int) -> list[Figures]:
    """Return each case's medians over ``runs`` fresh processes, and the least and most of simulate().

    All cases take turns, so that a machine whose speed drifts does so for all of them.
    """
    found: list[list[Figures]] = [[] for _ in cases]
    for run in range(runs):
        for case, entries in zip(cases, found, strict=True):
            print(f"run {run + 1} of {runs}: {case.name}", file=sys.stderr, flush=True)
            ended = run_module("benchmarks.one_run", *case.all_overrides)
            entries.append({**json.loads(ended.output), "process_s": ended.cpu_s, "peak_mb": ended.peak_mb})
    return [_medians(case, entries) for case, entries in zip(cases, found, strict=True)]


def _medians(case: Case, entries: Sequence[Figures]) -> Figures:
    figures = {name: median(entry[name] for entry in entries) for name in entries[0]}
    simulate = [entry["simulate_s"] for entry in entries]
    extremes = {"simulate_least_s": min(simulate), "simulate_most_s": max(simulate)}
    return {"name": case.name, "clients": case.clients, "others": case.others, **figures, **extremes}


def _simulate_and_tables(figures: Figures) -> float:
    return float(figures["simulate_s"] + figures["tables_s"])


def _command(runs: int) -> Figures:
    """Return wall seconds of the default job, and CPU seconds of each further job of a multirun."""
    print("the command …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        default = median(run_module("hermes_flow", folder=folder).wall_s for _ in range(runs))
        few = median(_multirun(FEW_JOBS, folder) for _ in range(runs))
        many = median(_multirun(MANY_JOBS, folder) for _ in range(runs))
    return {"default_job_s": default, "per_job_s": (many - few) / (MANY_JOBS - FEW_JOBS)}


def _multirun(jobs: int, folder: Path) -> float:
    return run_module("hermes_flow", "-m", *TINY_JOB, f"seed=range({jobs})", folder=folder).cpu_s


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
