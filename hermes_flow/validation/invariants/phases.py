"""Invariants of the phases of a staged load: their requests, and the figures of these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from hermes_flow.validation.invariants.invariant import Finding, Invariant
from hermes_flow.validation.invariants.run_files import RunFiles

_FILE = "summary.json"
_ROUNDING = 1e-9


def _figures(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    phases = run.figure("phases")
    if not isinstance(phases, dict) or not phases:
        return
    frame = run.tables["requests"].with_columns(
        phase=pl.col("arrival_s").map_batches(lambda arrivals: _phases(arrivals.to_numpy(), phases), pl.Int64)
    )
    for number, figures in phases.items():
        own = frame.filter(pl.col("phase") == int(number))
        done = int((own["status"] == "completed").sum())
        counts = {"submitted": own.height, "completed": done, "failed": own.height - done}
        if figures["requests"] != counts:
            yield Finding(_FILE, f"phase {number} has {figures['requests']}, and requests.parquet {counts}")
        for metric in ("ttft_s", "tpot_s", "e2e_s"):
            values = own[metric].drop_nulls().to_numpy()
            for name, level in (("p50", 50), ("p90", 90), ("p99", 99)):
                theirs = float(np.percentile(values, level)) if len(values) else None
                if not _same(figures[metric][name], theirs):
                    yield Finding(
                        _FILE,
                        f"{metric} {name} of phase {number} is {figures[metric][name]}, and of its requests {theirs}",
                    )


def _phases(arrival_s: Any, phases: dict[str, Any]) -> Any:
    import polars as pl

    ends = np.array([figures["end_s"] for figures in phases.values()])
    return pl.Series(np.minimum(np.searchsorted(ends, arrival_s, side="left"), len(ends) - 1) + 1)


def _same(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return math.isclose(ours, theirs, rel_tol=_ROUNDING, abs_tol=1e-9)


INVARIANTS = (
    Invariant(
        39,
        "phases",
        "Counts and percentiles of a phase are those of the requests that arrive in it.",
        ("requests", "summary"),
        _figures,
    ),
)
