"""The figures of a run by the phases of its load: latencies, SLO, throughput, energy and cost of each phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.fleets import usd_between
from hermes_flow.metrics.latency import Latencies
from hermes_flow.metrics.objectives import bound_results, loosest_limits
from hermes_flow.metrics.statistics import statistics
from hermes_flow.metrics.throughput import generated_by_request
from hermes_flow.program.phases import Phase, phase_of
from hermes_flow.program.same_bits import total
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    import polars as pl

Mask = NDArray[np.bool_]


def phase_summary(
    recording: Recording, found: Latencies, requests: pl.DataFrame, usd_per_hour: float | None
) -> dict[str, Any]:
    """Return ``{"phases": {"1": {…}, …}}``; an empty dict where the load has no phases.

    The figures of a phase are those of the requests that arrive in it, whenever they end; ``requests_per_s`` counts
    the completions within its time. Its cost is the price of the cluster for its length, over the tokens that its
    requests generate; it is None where a pool is paid by use. Clients that come and go cost while they are paid for.
    """
    phases = recording.program.phases
    if not phases:
        return {}
    own = phase_of(recording.arrival_ns, phases)
    if any(pool.paid_by_use for pool in recording.program.pools):
        usd_per_hour = None
    tokens = generated_by_request(recording)
    return {
        "phases": {
            str(number): _figures(recording, found, requests, phase, own == number - 1, tokens, usd_per_hour)
            for number, phase in enumerate(phases, 1)
        }
    }


def _figures(
    recording: Recording,
    found: Latencies,
    requests: pl.DataFrame,
    phase: Phase,
    chosen: Mask,
    tokens: NDArray[np.int64],
    usd_per_hour: float | None,
) -> dict[str, Any]:
    completed = recording.status == 0
    submitted, done = int(chosen.sum()), int((chosen & completed).sum())
    length_s = (phase.end_ns - phase.begin_ns) / NS_PER_S
    finish_ns = recording.finish_ns[completed]
    ended = int(((finish_ns > phase.begin_ns) & (finish_ns <= phase.end_ns)).sum())
    bounds = bound_results(recording, found, chosen) if submitted else {}
    within = (
        int(requests["slo_met"].to_numpy()[chosen].sum()) if loosest_limits(recording.program.slo) else None
    )
    usd = None if usd_per_hour is None else usd_per_hour * length_s / 3600
    if usd is not None and any(pool.fleet is not None for pool in recording.program.pools):
        usd = usd_between(recording, phase.begin_ns, phase.end_ns)
    written = int(tokens[chosen].sum())
    return {
        "begin_s": phase.begin_ns / NS_PER_S,
        "end_s": phase.end_ns / NS_PER_S,
        "rate_per_s": phase.rate_per_s,
        "requests": {"submitted": submitted, "completed": done, "failed": submitted - done},
        **{
            f"{metric}_s": statistics(_known(requests[f"{metric}_s"].to_numpy()[chosen]))
            for metric in ("ttft", "tpot", "e2e")
        },
        "throughput": {"requests_per_s": ended / length_s},
        "slo": {
            "met": all(bound["met"] for bound in bounds.values()) if bounds else None,
            "attainment": within / submitted if within is not None and submitted else None,
            "bounds": bounds,
        },
        "energy": {"requests_j": _total(requests["energy_j"].to_numpy()[chosen])},
        "cost": {
            "usd": usd,
            "usd_per_million_output_tokens": None if usd is None or not written else 1e6 * usd / written,
        },
    }


def phases_frame(phases: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Return the phases of a summary as a table: a row for each phase, a column for each figure."""
    import polars as pl

    rows = [{"phase": int(number), **dict(_flat(figures, ""))} for number, figures in phases.items()]
    kinds = {
        name: pl.Int64
        if name == "phase" or name.startswith("requests.")
        else (pl.Boolean if name.split(".")[-1] == "met" else pl.Float64)
        for name in dict.fromkeys(name for row in rows for name in row)
    }
    return pl.DataFrame([{name: row.get(name) for name in kinds} for row in rows], schema=kinds)


def _flat(figures: Mapping[str, Any], above: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in figures.items():
        found += (
            _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else [(f"{above}{name}", value)]
        )
    return found


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _total(values: NDArray[np.float64]) -> float | None:
    known = _known(values)
    return total(known) if len(known) else None
