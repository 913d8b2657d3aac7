"""Errors of measured serving runs, replayed as ``hermes-flow validate`` does it."""

from __future__ import annotations

from pathlib import Path

from hermes_flow.validation.compare import Compared, compare
from hermes_flow.validation.description import read_description

# Means, and p99 of TTFT
METRICS = {
    "e2e": ("e2e", "mean"),
    "tpot": ("tpot", "mean"),
    "ttft": ("ttft", "mean"),
    "ttft_p99": ("ttft", "p99"),
}


def replayed(path: Path) -> Compared:
    """Replay the run that ``path`` describes."""
    return compare(read_description(path))


def errors(run: Compared) -> dict[str, float]:
    """Relative errors of the simulation by name of METRICS."""
    found = {
        (row.metric, row.statistic): row.error_percent for row in run.rows if row.simulator == "hermes_flow"
    }
    return {name: found[key] / 100.0 for name, key in METRICS.items()}


def table(rows: dict[str, dict[str, float]]) -> str:
    """The errors in percent, a line a run, and the mean of their sizes."""
    lines = ["", "relative error, % (simulated − measured): means, and p99 of TTFT"]
    for name, row in rows.items():
        lines.append(f"  {name:<50} " + "  ".join(f"{each} {100 * row[each]:+6.1f}" for each in METRICS))
    mean = mean_sizes(rows)
    lines.append(f"  {'mean size':<50} " + "  ".join(f"{each} {100 * mean[each]:6.1f}" for each in METRICS))
    return "\n".join(lines)


def mean_sizes(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    return {each: sum(abs(row[each]) for row in rows.values()) / len(rows) for each in METRICS}
