"""The latencies of every request: time to first token, time per output token, end to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.answer_times import Answers, answers
from hermes_flow.program.program import Program
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.recording.recording import Recording

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Latencies:
    """One entry per request, in seconds; NaN if it failed, or if its answer is too short for a TPOT.

    ``answer`` is each request's answer, ``output_tokens`` the tokens of it.
    """

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    answer: Answers
    output_tokens: Ints

    def by_metric(self) -> dict[str, Floats]:
        """Return the three columns under the names that SLOs use."""
        return {"ttft": self.ttft_s, "tpot": self.tpot_s, "e2e": self.e2e_s}


def latencies(recording: Recording) -> Latencies:
    """Return the latencies of a finished run."""
    completed = recording.status == 0
    answer = answers(recording)
    program = recording.program
    output = answer.output_tokens if program.answers else program.requests.output_tokens
    emitted = completed & (answer.first_ns >= 0)
    gaps = np.maximum(output - 1, 1) * float(NS_PER_S)
    tpot_s = np.where(emitted & (output > 1), (answer.finish_ns - answer.first_ns) / gaps, np.nan)
    ttft_s = seconds(answer.first_ns - recording.arrival_ns, emitted)
    e2e_s = seconds(recording.finish_ns - recording.arrival_ns, completed)
    return Latencies(ttft_s, tpot_s, e2e_s, answer, output)


def seconds(ns: Ints, valid: NDArray[np.bool_] | None = None) -> Floats:
    """Return nanoseconds as seconds, NaN where not ``valid`` (by default: where negative)."""
    values: Floats = ns / NS_PER_S
    keep = ns >= 0 if valid is None else valid
    if not keep.all():
        values[~keep] = np.nan
    return values


def bound_results(
    program: Program, values: Mapping[str, Floats], submitted: int
) -> dict[str, dict[str, Any]]:
    """Return every bound of the SLO with its limit, its value and whether it is met.

    ``values`` are the latencies of completed requests by metric, without NaN. A bound on percentile p is met if
    the percentile of completed requests is within it and no more than 100 − p percent of all requests failed.
    """
    completed = len(values["e2e"])
    failed_percent = 100 * (submitted - completed) / submitted if submitted else 0.0
    bounds = {}
    for metric, limits in program.slo.bounds.items():
        for percentile, limit_s in sorted(limits.items()):
            known = values[metric]
            value_s = float(np.percentile(known, percentile)) if len(known) else None
            in_time = value_s is None or value_s <= limit_s
            met = in_time and failed_percent <= 100 - percentile + 1e-9
            bounds[f"{metric}_p{percentile:g}_s"] = {"limit_s": limit_s, "value_s": value_s, "met": met}
    return bounds
