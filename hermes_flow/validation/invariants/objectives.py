"""Invariants of the SLO: its bounds, who meets them, attainment and goodput."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_flow.validation.invariants.figures import FILE, span_s, unequal
from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, differs, shown
from hermes_flow.validation.invariants.run_files import RunFiles

if TYPE_CHECKING:
    import polars as pl

_METRICS = ("ttft", "tpot", "e2e")
_BOUND = re.compile(r"(ttft|tpot|e2e)_p([\d.]+)_s")


def _limits(run: RunFiles) -> dict[tuple[str, float], dict[str, Any]]:
    """Return the bounds of the summary by metric and percentile."""
    found = {}
    for name, bound in (run.figure("slo", "bounds") or {}).items():
        match = _BOUND.fullmatch(name)
        if match is not None and isinstance(bound, dict) and isinstance(bound.get("limit_s"), int | float):
            found[match[1], float(match[2])] = {"name": name, **bound}
    return found


def _configured(run: RunFiles) -> Iterator[Finding]:
    given = {
        (metric, float(str(level).removeprefix("p"))): limit / 1e3
        for metric in _METRICS
        for level, limit in (run.setting("slo", f"{metric}_ms") or {}).items()
        if isinstance(limit, int | float)
    }
    bounds = _limits(run)
    for metric, level in sorted(given.keys() | bounds.keys()):
        limit = bounds.get((metric, level), {}).get("limit_s")
        if differs(limit, given.get((metric, level))):
            yield Finding(
                FILE,
                f"slo.bounds: the limit of {metric} p{level:g} is {shown(limit)} s, and "
                f"{shown(given.get((metric, level)))} s in the configuration",
            )


def _subject(run: RunFiles) -> pl.DataFrame:
    """Return the requests that the bounds of the SLO apply to: not those of classes with bounds of their own."""
    requests = run.tables["requests"]
    bounds = run.figure("slo", "bounds") or {}
    own = sorted({name.split(".")[1] for name in bounds if name.startswith("classes.")})
    if not own or "class" not in requests.columns:
        return requests
    return requests.filter(~requests["class"].is_in(own).fill_null(value=False))


def _bounds(run: RunFiles) -> Iterator[Finding]:
    requests = _subject(run)
    failed = 100 * int((requests["status"] != "completed").sum()) / max(len(requests), 1)
    for (metric, level), bound in _limits(run).items():
        values = requests[f"{metric}_s"].drop_nulls().to_numpy()
        value = float(np.percentile(values, level)) if len(values) else None
        where = ("slo", "bounds", bound["name"])
        yield from unequal(run, (*where, "value_s"), value, f"percentile {level:g} of {metric}_s")
        known = bound.get("value_s")
        in_time = known is None or known <= bound["limit_s"]
        met = in_time and failed <= 100 - level + 1e-9
        if bound.get("met") is not met:
            yield Finding(
                FILE,
                f"{'.'.join(where)}.met is {shown(bound.get('met'))}: value {shown(known)} s, limit "
                f"{shown(bound['limit_s'])} s, {failed:.3g} % of requests failed",
            )


def _requests(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    requests = _subject(run)
    loosest: dict[str, float] = {}
    for (metric, _), bound in _limits(run).items():
        loosest[metric] = max(loosest.get(metric, 0.0), bound["limit_s"])
    if not loosest:
        return
    for metric in _METRICS:
        limit_ms = run.setting("slo", "within", f"{metric}_ms") if run.setting("slo", "within") else None
        if isinstance(limit_ms, int | float):
            loosest[metric] = min(limit_ms / 1e3, loosest.get(metric, limit_ms / 1e3))
    within = pl.col("status") == "completed"
    for metric, limit in loosest.items():
        within &= ~(pl.col(f"{metric}_s") > limit).fill_null(pl.lit(value=False))
    if any(name.startswith(("stages.", "pipelines.")) for name in run.figure("slo", "bounds")):
        within &= pl.col("slo_met")  # bounds of stages and pipelines may be stricter
    yield from broken_rows(
        "requests.parquet",
        requests,
        pl.col("slo_met").is_null() | (pl.col("slo_met") != within),
        lambda row: (
            f"slo_met is {shown(row['slo_met'])}: status {row['status']}, "
            + ", ".join(
                f"{metric}_s {shown(row[f'{metric}_s'])} of at most {shown(limit)}"
                for metric, limit in loosest.items()
            )
        ),
    )
    requests = run.tables["requests"]
    met, span = int(requests["slo_met"].sum()), span_s(run)
    share = met / len(requests) if len(requests) else None
    yield from unequal(run, ("slo", "attainment"), share, "the share of requests with slo_met")
    rate = met / span if span else None
    yield from unequal(run, ("slo", "goodput_requests_per_s"), rate, "requests with slo_met per second")


INVARIANTS = (
    Invariant(
        32,
        "SLO as configured",
        "The bounds of the summary are those of the configuration.",
        ("summary", "config"),
        _configured,
    ),
    Invariant(
        33,
        "SLO bounds",
        "The value of a bound is that percentile of completed requests; it is met within its limit, unless too "
        "many requests failed.",
        ("requests", "summary"),
        _bounds,
    ),
    Invariant(
        34,
        "SLO of requests",
        "A request meets the SLO within the loosest bound of each metric; attainment and goodput count these.",
        ("requests", "summary"),
        _requests,
    ),
)
