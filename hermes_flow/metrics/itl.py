"""The exact distribution of inter-token latencies (ITL), from the steps of every LLM client.

A step with n decodes emits n tokens. A sequence that decoded in the client's previous decode step waited
since the end of that step; one that joined since (its prefill emitted the token before) waited since the end
of the step it joined in. Inside a stretch of equal steps the gaps are the steps' durations, which grow by a
constant, so a stretch is one arithmetic progression and nothing is expanded: time and memory go with the
number of segments, not of steps or tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord, Recording

_START, _END, _STEPS, _DECODES, _, _, _JOINED = range(len(STEP_FIELDS))


@dataclass(frozen=True, slots=True)
class Gaps:
    """A weighted distribution of integers: row r has first + i·step for i < count, each ``weight`` times.

    ``step`` is at least 1 where ``count`` is above 1. Picoseconds.
    """

    first: Ints
    step: Ints
    count: Ints
    weight: Ints

    @property
    def total(self) -> int:
        """The number of gaps."""
        return int((self.count * self.weight).sum())

    def mean(self) -> float:
        """The weighted mean; NaN without gaps."""
        total = self.total
        if not total:
            return math.nan
        centre = self.first + 0.5 * (self.step * (self.count - 1))
        return float((centre * (self.count * self.weight)).sum() / total)

    def quantiles(self, levels: Sequence[float]) -> list[int] | None:
        """The smallest gap g such that at least ``level`` (0 … 1) of all gaps are ≤ g, for each level.

        None without gaps. A histogram over rows brackets each answer, bisection over the rows in the bracket
        finds it.
        """
        total = self.total
        if not total:
            return None
        last = self.first + self.step * (self.count - 1)
        begins, ends = _bucket(self.first), _bucket(last)
        weight = self.count * self.weight
        started, ended = np.cumsum(np.bincount(begins, weight)), np.cumsum(np.bincount(ends, weight))
        answers = []
        for level in levels:
            target = max(1, math.ceil(round(level * total, 6)))
            lowest, highest = np.searchsorted(started, target), np.searchsorted(ended, target)
            near = np.flatnonzero((begins <= highest) & (ends >= lowest))
            below = int(ended[lowest - 1]) if lowest else 0
            rows = (column[near] for column in (self.first, last, self.step, self.count, self.weight))
            answers.append(_smallest_reaching(target - below, *rows))
        return answers


def inter_token_gaps(recording: Recording) -> Gaps:
    """Return every inter-token gap of the run, including those of preempted and resumed sequences."""
    parts: list[Gaps] = []
    for client in recording.clients:
        if client.even_gaps is None:
            parts.extend(client_gaps(client, client.context_ps))
        elif len(client.even_gaps):
            parts.append(_single(client.even_gaps[:, 0], client.even_gaps[:, 1]))
    parts.extend(_pauses(recording))
    if not parts:
        none = np.zeros(0, np.int64)
        return Gaps(none, none, none, none)
    return Gaps(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.step for part in parts]),
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )


def _pauses(recording: Recording) -> list[Gaps]:
    """Return the gaps between the segments of answers that were paused, to the nanosecond."""
    parts: list[Gaps] = []
    finish: Ints | None = None
    for index in recording.program.answers:
        op, record = recording.program.ops[index], recording.ops[index]
        if record.first_ns is None:
            continue
        here = record.client >= 0
        segment = op.generate is not None and op.generate.written is not None and op.kv is None
        if segment and finish is not None and here.any():
            gaps = (record.first_ns - finish)[here] * PS_PER_NS
            parts.append(_single(gaps, np.ones_like(gaps)))
        finish = np.where(here, record.finish_ns, -1 if finish is None else finish)
    return parts


def first_durations_ps(segments: NDArray[np.int64], context_ps: int) -> Ints:
    """Return the duration of each segment's first step.

    The steps of a segment grow by context_ps·decodes each and add up to its length.
    """
    steps = segments[:, _STEPS]
    growth = segments[:, _DECODES] * context_ps
    length = segments[:, _END] - segments[:, _START]
    durations: Ints = (length - growth * (steps * (steps - 1) // 2)) // np.maximum(steps, 1)
    return durations


def client_gaps(client: ClientRecord, context_ps: int) -> list[Gaps]:
    """Return the gaps of one LLM client, whose step grows by ``context_ps`` per token of decode context."""
    parts: list[Gaps] = []
    if client.resume_gaps_ps is not None and len(client.resume_gaps_ps):
        parts.append(_single(client.resume_gaps_ps, np.ones_like(client.resume_gaps_ps)))
    for segments in client.lanes():
        parts.extend(_lane_gaps(segments, context_ps))
    return parts


def _lane_gaps(segments: NDArray[np.int64], context_ps: int) -> list[Gaps]:
    parts: list[Gaps] = []
    decode_rows = np.flatnonzero(segments[:, _DECODES])
    if not len(decode_rows):
        return parts
    decoding = segments[decode_rows]
    decodes = decoding[:, _DECODES]
    first_step = first_durations_ps(decoding, context_ps)
    first_end = decoding[:, _START] + first_step

    joined_in = np.flatnonzero(segments[:, _JOINED])
    heirs = np.searchsorted(decode_rows, joined_in, side="right")
    joined_in, heirs = joined_in[heirs < len(decode_rows)], heirs[heirs < len(decode_rows)]
    joiners = _present(segments[joined_in, _JOINED], heirs, decodes)
    parts.append(_single(first_end[heirs] - segments[joined_in, _END], joiners))

    staying = decodes - np.bincount(heirs, weights=joiners, minlength=len(decode_rows)).astype(np.int64)
    parts.append(_single(first_end[1:] - decoding[:-1, _END], staying[1:]))

    long = decoding[:, _STEPS] > 1
    later = decoding[long, _STEPS] - 1
    growth = decodes[long] * context_ps
    if context_ps:
        parts.append(Gaps(first_step[long] + growth, growth, later, decodes[long]))
    else:
        parts.append(_single(first_step[long], decodes[long] * later))
    return parts


def _single(gaps: Ints, weight: Ints) -> Gaps:
    some = weight > 0
    one = np.ones(int(some.sum()), np.int64)
    return Gaps(gaps[some], one, one, weight[some])


def _present(joined: Ints, heirs: Ints, decodes: Ints) -> Ints:
    """Return how many of those who joined still decode in the next decode step (``heirs``: its index).

    All, but where the step has fewer decodes than joined: the last to join are preempted first.
    """
    before = np.cumsum(joined) - joined
    group_start = np.searchsorted(heirs, heirs, side="left")
    ahead = before - before[group_start]
    present: Ints = np.clip(decodes[heirs] - ahead, 0, joined)
    return present


def _bucket(values: Ints) -> Ints:
    """Return histogram buckets that grow with the value, each 1/4096 of it wide.

    The leading bits of a floating-point number are its exponent and the head of its mantissa.
    """
    one = np.float64(1).view(np.int64)
    bits = np.maximum(values, 1).astype(np.float64).view(np.int64)
    buckets: Ints = (bits - one) >> (52 - 12)
    return buckets


def _smallest_reaching(target: int, first: Ints, last: Ints, step: Ints, count: Ints, weight: Ints) -> int:
    """Return the smallest value with ``target`` weight at or below it; decided rows leave on the way."""
    low, high = int(first.min()), int(last.max())
    while low < high:
        middle = (low + high) // 2
        reached = np.clip((middle - first) // step + 1, 0, count)
        if int((reached * weight).sum()) >= target:
            high = middle
            keep = first <= high
        else:
            low = middle + 1
            keep = last >= low
            target -= int((count * weight)[~keep].sum())
        first, last, step, count, weight = (column[keep] for column in (first, last, step, count, weight))
    return low
