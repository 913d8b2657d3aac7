"""Figures of groups of requests: of pipelines, traffic classes and tenants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.objectives import class_bounds, loosest_limits
from hermes_flow.program.program import Program
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import REJECTED, TIMED_OUT, Recording

if TYPE_CHECKING:
    import polars as pl

Mask = NDArray[np.bool_]
Statistics = Callable[[NDArray[np.float64]], dict[str, float | None]]


def counts(recording: Recording, own: Mask | None = None) -> dict[str, int]:
    """Return how many requests were submitted, completed and failed.

    Where there is a gateway, or somebody gives up, also how many of the failed were rejected and timed out.
    """
    program = recording.program
    status = recording.status if own is None else recording.status[own]
    done = int((status == 0).sum())
    found = {"submitted": len(status), "completed": done, "failed": len(status) - done}
    if program.admission is not None or program.requests.timeout_ns is not None:
        found["rejected"] = int((status == REJECTED).sum())
        found["timed_out"] = int((status == TIMED_OUT).sum())
    return found


def group_figures(
    recording: Recording,
    requests: pl.DataFrame,
    chosen: Ints,
    names: Sequence[str],
    span_s: float,
    statistics: Statistics,
) -> dict[str, dict[str, Any]]:
    """Return the counts, latencies, throughput and attainment of each group, by its name."""
    bounded = bool(loosest_limits(recording.program.slo))
    found: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        mask = chosen == index
        own = requests.filter(mask)
        figures = counts(recording, mask)
        found[name] = {
            "requests": figures,
            **{
                f"{metric}_s": statistics(own[f"{metric}_s"].drop_nulls().to_numpy())
                for metric in ("ttft", "tpot", "e2e")
            },
            "throughput": {"requests_per_s": _ratio(figures["completed"], span_s)},
            "slo": {"attainment": _ratio(int(own["slo_met"].sum()), len(own)) if bounded else None},
        }
    return found


def classes_and_tenants(
    recording: Recording,
    requests: pl.DataFrame,
    bounds: dict[str, dict[str, Any]],
    span_s: float,
    statistics: Statistics,
) -> dict[str, Any]:
    """Return the sections ``classes``, ``tenants`` and ``fairness`` of the summary, those there is something for."""
    workload = recording.program.requests
    sections: dict[str, Any] = {}
    if workload.traffic is not None:
        found = group_figures(recording, requests, workload.traffic, workload.classes, span_s, statistics)
        for index, (name, figures) in enumerate(found.items()):
            own = requests.filter(workload.traffic == index)
            figures["throughput"]["answer_tokens_per_s"] = _ratio(_answered(own), span_s)
            within = None if figures["slo"]["attainment"] is None else int(own["slo_met"].sum())
            verdicts = class_bounds(bounds, name)
            figures["slo"] |= {
                "met": all(bound["met"] for bound in verdicts.values()) if verdicts else None,
                "goodput_requests_per_s": _ratio(within, span_s),
                "bounds": verdicts,
            }
        sections["classes"] = found
    if workload.tenant is not None:
        found = group_figures(recording, requests, workload.tenant, workload.tenants, span_s, statistics)
        served = _served_tokens(recording, requests)
        sections["tenants"] = found
        sections["fairness"] = _fairness(recording.program, found, served)
    return sections


def _fairness(program: Program, tenants: dict[str, dict[str, Any]], served: Ints) -> dict[str, Any]:
    """Return Jain's index of what the tenants got, and add the tokens that each was served.

    ``jain_tokens`` is of the tokens served, divided by the tenant's weight; ``jain_share`` of the share of its own
    tokens that each was served.
    """
    workload, weights = program.requests, getattr(program.admission, "weights", {})
    assert workload.tenant is not None
    asked = workload.input_tokens + workload.output_tokens
    per_weight, shares = [], []
    for index, (name, figures) in enumerate(tenants.items()):
        own = workload.tenant == index
        tokens = int(served[own].sum())
        share = _ratio(tokens, int(asked[own].sum()))
        figures["served"] = {"tokens": tokens, "share": share}
        per_weight.append(tokens / weights.get(name, 1.0))
        shares.append(share or 0.0)
    return {"jain_tokens": jain(per_weight), "jain_share": jain(shares)}


def jain(values: Sequence[float]) -> float | None:
    """Return (Σx)² / (n·Σx²): 1 where all are equal, 1/n where one has all; None where none has anything."""
    squares = math.fsum(value * value for value in values)
    whole = math.fsum(values)
    return whole * whole / (len(values) * squares) if squares else None


def _served_tokens(recording: Recording, requests: pl.DataFrame) -> Ints:
    """Return the tokens of prompt and answer of each completed request, 0 for the others."""
    workload = recording.program.requests
    return np.where(recording.status == 0, workload.input_tokens + workload.output_tokens, 0)


def _answered(own: pl.DataFrame) -> int:
    done = own.filter(own["status"] == "completed")
    return int(done["output_tokens"].sum())


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Return the quotient, None where it is undefined."""
    if numerator is None or not denominator:
        return None
    return float(numerator / denominator)
