"""Measures speed and memory: ``python -m benchmarks.speed [--compile] [--quick] [--page FILE]``.

Every figure is the median over fresh processes; all loads take turns, so that a machine whose speed drifts does so
for all of them. Writes the page docs/speed.md, or another FILE (by default outputs/bench/speed.md), and the figures
behind it as JSON beside the page. ``--compile`` also runs the pipelines and the prefix caches on the compiled core,
which is built first; ``--quick`` leaves out the streamed run of 10,000,000 requests, whose last figures are kept with
their date.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import startup
from benchmarks.compiled_package import compiled_package
from benchmarks.page import page
from benchmarks.policies import rows as policy_rows
from benchmarks.processes import ROOT, run_module
from benchmarks.speed_cases import STREAMED, Load, loads
from benchmarks.speed_figures import POLICIES, START_UP, Measured, read, this_machine
from benchmarks.yardstick import loop_us

DATA = ROOT.parent / "shared" / "data" / "benchmarks"
PAGE = ROOT / "outputs" / "bench" / "speed.md"
POLICY_REQUESTS = 20_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write the figures and the page."""
    options = _options(arguments)
    path = options.page.with_suffix(".json")
    chosen = loads(options.data)
    if options.from_figures:
        _write_page(read(path), options.page)
        return
    if not options.data.is_dir():
        print(f"{options.data} is missing: lists like its own are drawn instead", file=sys.stderr)
    sitting = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    found = Measured(this_machine(), sitting, options.runs)
    if path.is_file():
        before = read(path)
        found.figures, found.policies, found.sittings = before.figures, before.policies, before.sittings

    def wanted(section: str) -> bool:
        return not options.only or section in options.only

    measured = [
        load for load in chosen if wanted(load.section) and not (options.quick and _is_streamed(load))
    ]
    with ExitStack() as stack:
        compiled = options.compiled
        if options.compile:
            compiled = compiled_package(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        found.add(_measured(measured, options.runs, compiled))
    found.write(path)
    if wanted(START_UP):
        found.add({START_UP: startup.measure(options.runs)})
        found.write(path)
    if wanted(POLICIES):
        print("policies …", file=sys.stderr, flush=True)
        found.add_policies(policy_rows(POLICY_REQUESTS, options.data))
    found.keep(chosen)
    found.write(path)
    _write_page(found, options.page)


def _write_page(found: Measured, path: Path) -> None:
    text = page(found)
    path.write_text(text, encoding="utf-8")
    print(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of request lists (Parquet)")
    parser.add_argument("--runs", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page; its figures are beside it (.json)")
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="keep the last figures of the others")
    parser.add_argument("--quick", action="store_true", help="keep the last figures of the streamed run")
    parser.add_argument("--compile", action="store_true", help="build the compiled core, and measure it too")
    parser.add_argument(
        "--compiled", type=Path, help="folder of a package that has its compiled core already"
    )
    parser.add_argument(
        "--from-figures",
        action="store_true",
        help="only write the page of the last figures",
    )
    return parser.parse_args(arguments)


def _is_streamed(load: Load) -> bool:
    return f"{STREAMED:,}" in load.name


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


if __name__ == "__main__":
    main()
