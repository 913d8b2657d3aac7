"""Measures speed and memory: ``python -m benchmarks.speed [--data FOLDER] [--runs N] [--page FILE]``.

Every figure is the median over fresh processes; all loads take turns, so that a
machine whose speed drifts does so for all of them. Writes outputs/bench/speed.json and prints the page
docs/speed.md. ``--compiled`` is a folder with the package and its compiled core, which the loads of pipelines and
prefix caches are also run on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import startup
from benchmarks.page import page
from benchmarks.policies import rows as policy_rows
from benchmarks.processes import ROOT, run_module
from benchmarks.speed_cases import Load, loads
from benchmarks.yardstick import loop_us

DATA = ROOT.parent / "shared" / "data" / "benchmarks"
OUTPUT = ROOT / "outputs" / "bench"
POLICY_REQUESTS = 20_000


def main() -> None:
    """Measure everything, write the figures, print the page."""
    options = _options()
    if not options.data.is_dir():
        print(f"{options.data} is missing: lists like its own are drawn instead", file=sys.stderr)
    chosen = loads(options.data)
    kept: dict[str, Any] = {"figures": {}, "policies": []}
    if options.only:
        kept = json.loads((OUTPUT / "speed.json").read_text(encoding="utf-8"))
    figures, policies = kept["figures"], kept["policies"]

    def wanted(section: str) -> bool:
        return not options.only or section in options.only

    measured = [load for load in chosen if wanted(load.section)]
    figures |= _measured(measured, options.runs, options.compiled)
    _write(OUTPUT / "speed.json", json.dumps({"figures": figures, "policies": policies}, indent=2) + "\n")
    if wanted("start-up"):
        figures["start-up"] = startup.measure(options.runs)
    if wanted("policies"):
        print("policies …", file=sys.stderr, flush=True)
        policies = policy_rows(POLICY_REQUESTS, options.data)
    _write(OUTPUT / "speed.json", json.dumps({"figures": figures, "policies": policies}, indent=2) + "\n")
    text = page(chosen, figures, policies, options.runs)
    print(text)
    if options.page is not None:
        _write(options.page, text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of request lists (Parquet)")
    parser.add_argument("--runs", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--page", type=Path, help="also write the page to this file")
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="keep the last figures of the others")
    parser.add_argument("--compiled", type=Path, help="folder of the package with its compiled core")
    return parser.parse_args()


def _measured(chosen: list[Load], runs: int, compiled: Path | None) -> dict[str, dict[str, float]]:
    """Return the medians of each load by name; each has the yardstick of its own round beside it."""
    found: dict[str, list[Mapping[str, float]]] = {}
    on_compiled: dict[str, list[float]] = {}
    for run in range(runs):
        yardstick = {"yardstick_us": loop_us()}
        for load in chosen:
            if load.large and run:
                continue
            print(f"run {run + 1} of {runs}: {load.name}", file=sys.stderr, flush=True)
            found.setdefault(load.name, []).append(_once(load, ROOT) | yardstick)
            if load.compiled and compiled is not None:
                on_compiled.setdefault(load.name, []).append(_once(load, compiled)["simulate_us"])
    figures = {
        name: {key: median(entry[key] for entry in entries) for key in entries[0]}
        for name, entries in found.items()
    }
    for name, taken in on_compiled.items():
        figures[name]["compiled_us"] = median(taken)
    return figures


def _once(load: Load, package: Path) -> dict[str, float]:
    # In the package's own folder: that of the process comes before all others in the search for modules.
    ended = run_module("benchmarks.one_run", *load.overrides, folder=package, package=package)
    entry = json.loads(ended.output)
    each = 1e6 / entry["requests"]
    simulate, tables = entry["simulate_s"] * each, entry["tables_s"] * each
    times = {"simulate_us": simulate, "tables_us": tables, "total_us": simulate + tables}
    return {**entry, **times, "process_s": ended.cpu_s, "peak_mb": ended.peak_mb}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
