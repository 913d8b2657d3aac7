"""Finds out what a folder holds, a run, a sweep or a plan, and writes the page that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.files import write_text
from hermes_flow.metrics.run_files import (
    SUMMARY,
    RunFiles,
    read_overrides,
    read_run,
    read_summary,
    require_simulation,
)

if TYPE_CHECKING:
    import polars as pl

    from hermes_flow.metrics.result import Result

RUN_PAGE, SWEEP_PAGE, PLAN_PAGE = "report.html", "sweep.html", "plan.html"
_TRACED_REQUESTS = 20_000  # a longer run has a trace only if it wrote one
_DEPTH = 2  # of a result below the folder of outputs: a date, and the time


def write_report(folder: Path) -> Path:
    """Write the page of the run, the sweep or the plan in ``folder``, and return its path.

    The table of a sweep is made anew from its jobs. A folder with several runs counts as a sweep. Raises
    HermesFlowError where the folder holds none of these.
    """
    if not folder.is_dir():
        raise HermesFlowError(f"{folder}: there is no such folder; expected that of a run, a sweep or a plan")
    if is_sweep(folder) or _holds_runs(folder):
        from hermes_flow.metrics.sweep import write_sweep

        return write_sweep_page(write_sweep(folder), folder)
    if (folder / "plan.parquet").is_file():
        return write_plan_page(folder)
    return write_run_page(read_run(folder), folder / RUN_PAGE)


def write_run_page(run: RunFiles, path: Path) -> Path:
    """Write the page of a run. Raises HermesFlowError if its summary is not that of a simulation."""
    from hermes_flow.report.pages.run import run_page

    return write_text(run_page(require_simulation(run)), path)


def write_result_page(result: Result, path: Path, **more: Any) -> Path:
    """Write the page of a result in memory to ``path``, or to ``report.html`` in it if it does not end in .html.

    ``more`` replaces fields of the run (``RunFiles``).
    """
    from hermes_flow.metrics.run_files import run_of
    from hermes_flow.metrics.trace_events import packed_trace

    short = len(result.program.requests) <= _TRACED_REQUESTS
    run = run_of(result, packed_trace(result.recording) if short else None)
    if path.suffix == ".html":
        return write_run_page(replace(run, **more), path)
    placed = replace(run, name=path.resolve().name, folder=path, overrides=read_overrides(path))
    return write_run_page(replace(placed, **more), path / RUN_PAGE)


def write_sweep_page(frame: pl.DataFrame, folder: Path) -> Path:
    """Write ``sweep.html`` from the table of the sweep in ``folder``."""
    from hermes_flow.report.pages.sweep import sweep_page

    return write_text(sweep_page(frame, folder.resolve().name, folder), folder / SWEEP_PAGE)


def write_plan_page(folder: Path) -> Path:
    """Write ``plan.html`` from ``plan.parquet`` and ``summary.json`` in ``folder``."""
    import polars as pl

    from hermes_flow.report.pages.plan import plan_page

    page = plan_page(pl.read_parquet(folder / "plan.parquet"), read_summary(folder), folder.resolve().name)
    return write_text(page, folder / PLAN_PAGE)


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder is that of a multirun, finished or not."""
    return any((folder / name).is_file() for name in ("multirun.yaml", "sweep.parquet"))


def _holds_runs(folder: Path) -> bool:
    """Tell whether a folder has no result of its own, but runs in it, which then count as the jobs of a sweep."""
    return not (folder / SUMMARY).is_file() and any(folder.glob("*/.hydra/overrides.yaml"))


def newest_result(outputs: Path) -> Path:
    """Return the folder of the newest run, sweep or plan at most two levels below ``outputs``.

    Raises HermesFlowError if there is none.
    """
    found = [
        (changed, folder) for folder in _folders(outputs, _DEPTH) if (changed := _changed(folder)) is not None
    ]
    if not found:
        raise HermesFlowError(
            f"{outputs}: holds no run, sweep or plan; name a folder, as in hermes-flow report DIR"
        )
    return max(found)[1]


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the folders below ``folder``, but not the jobs of a sweep."""
    if depth and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield path
                if not is_sweep(path):
                    yield from _folders(path, depth - 1)


def _changed(folder: Path) -> int | None:
    """Return when the result in a folder was written, in nanoseconds; None if it holds none."""
    if is_sweep(folder):
        times = [path.stat().st_mtime_ns for path in (folder, *folder.glob(f"*/{SUMMARY}"))]
        return max(times)
    summary = folder / SUMMARY
    return summary.stat().st_mtime_ns if summary.is_file() else None
