"""Counts the tokens that a run generates, and its throughput over the whole run and over its steady window."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.rows import pieces
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import mean, total
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.recording.recording import Recording

Floats = NDArray[np.float64]

_BATCHES = 10
_T_95 = 2.262  # the 97.5 % quantile of Student's t with 9 degrees of freedom
_FEWEST_ARRIVALS = 20
_WARM_UP = 0.1  # of the arrivals


@dataclass(frozen=True, slots=True)
class _Written:
    """The answers of one op: the request, when each began and ended, and its tokens. One entry per task."""

    rows: Ints
    first_ns: Ints
    finish_ns: Ints
    tokens: Ints


def generated_tokens(recording: Recording) -> int:
    """Return all tokens that completed requests generated: answers, all their branches, and what models wrote before.

    The verdicts and scores of guards and rewards are not among them.
    """
    return sum(int(own.tokens.sum()) for _, piece in pieces(recording) for own in _written(piece))


def generated_by_request(recording: Recording) -> Ints:
    """Return the tokens that each request generated, counted as in ``generated_tokens``; 0 for a failed one."""
    count = len(recording.status)
    found = np.zeros(count, np.int64)
    for own in _written(recording):
        found += np.bincount(own.rows, own.tokens, count).astype(np.int64)
    return found


def steady_throughput(recording: Recording) -> dict[str, float | None]:
    """Return the throughput between the first tenth of the arrivals and the last arrival.

    Ramp and drain are outside of this window. ``requests_per_s`` counts completions, and ``output_tokens_per_s``
    counts generated tokens, which spread evenly from the first to the last of their answer. The figures named
    ``…_error`` are half the width of the 95 % confidence interval by the means of 10 equal parts of the window. All
    figures are None with fewer than 20 arrivals, or where all of them come at once.
    """
    names = ("requests_per_s", "requests_per_s_error", "output_tokens_per_s", "output_tokens_per_s_error")
    arrivals = np.sort(recording.arrival_ns[recording.status == 0])
    begin = arrivals[int(_WARM_UP * len(arrivals))] if len(arrivals) else 0
    if len(arrivals) < _FEWEST_ARRIVALS or arrivals[-1] - begin < _BATCHES:
        return dict.fromkeys(("from_s", "to_s", *names))
    edges = np.linspace(float(begin), float(arrivals[-1]), _BATCHES + 1)
    width_s = float(edges[1] - edges[0]) / NS_PER_S
    finish = recording.finish_ns[recording.status == 0].astype(np.float64)
    done = np.histogram(finish, edges)[0] / width_s
    figures: dict[str, float | None] = {"from_s": edges[0] / NS_PER_S, "to_s": edges[-1] / NS_PER_S}
    rates: list[Floats | None] = [done, None]
    if recording.program.answers:
        rates[1] = _per_part(recording, edges) / width_s
    for name, rate in zip(names[::2], rates, strict=True):
        figures[name] = None if rate is None else mean(rate)
        figures[f"{name}_error"] = None if rate is None else _T_95 * math.sqrt(_variance(rate) / _BATCHES)
    return {name: None if value is None else float(value) for name, value in figures.items()}


def _variance(rate: Floats) -> float:
    """Return the variance of what the parts are drawn from."""
    return total((rate - mean(rate)) ** 2) / (len(rate) - 1)


def _written(recording: Recording) -> list[_Written]:
    """Return what each op wrote for completed requests.

    A decode on another pool than its prefill goes on from the token that the prefill has emitted.
    """
    completed, found = recording.status == 0, []
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        work = op.generate
        if work is None or record.first_ns is None:
            continue
        rows = np.flatnonzero((record.client >= 0) & completed)
        tokens = work.output[rows] - (op.kv is not None)
        found.append(_Written(rows, record.first_ns[rows], record.finish_ns[rows], tokens))
    return found


def _per_part(recording: Recording, edges: Floats) -> Floats:
    """Return the tokens of all tasks in each part between two edges."""
    upto: dict[int, Floats] = {}
    for _, piece in pieces(recording):
        for number, own in enumerate(_written(piece)):
            first, finish = (times.astype(np.float64) for times in (own.first_ns, own.finish_ns))
            length = np.maximum(finish - first, 1.0)
            rate = own.tokens / length
            written, tokens = np.empty_like(first), []
            for edge in edges:
                np.subtract(edge, first, out=written)
                np.clip(written, 0.0, length, out=written)
                tokens.append(total(np.multiply(written, rate, out=written)))
            upto[number] = upto.get(number, np.zeros(len(edges))) + tokens
    return sum((np.diff(own) for own in upto.values()), np.zeros(len(edges) - 1))
