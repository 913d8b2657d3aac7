"""The latencies of every request: time to first token, time per output token, end to end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.answer_times import Answers, answers
from hermes_flow.program.quick_dataclass import dataclass
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
