"""The exact distribution of inter-token latencies (ITL), from the steps of every LLM client.

A step with n decodes emits n tokens. A sequence that decoded in the client's previous decode step waited
since the end of that step; one that joined since (its prefill emitted the token before) waited since the end
of the step it joined in. Inside a stretch of equal steps the gaps are the steps' durations, which grow by a
constant, so a stretch is one arithmetic progression and nothing is expanded: time and memory go with the
number of segments, not of steps or tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.rows import forget
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord, Recording

_START, _END, _STEPS, _DECODES, _, _, _JOINED = range(len(STEP_FIELDS))
# The gaps of so many rows of steps take 250 MB at a time.
_ROWS_AT_ONCE = 1 << 21


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

    @property
    def last(self) -> Ints:
        """The largest gap of each row."""
        return self.first + self.step * (self.count - 1)

    def rows(self, chosen: NDArray[np.intp]) -> Gaps:
        """Return some of the rows."""
        return Gaps(self.first[chosen], self.step[chosen], self.count[chosen], self.weight[chosen])

    def weighted(self) -> float:
        """The sum of all gaps."""
        centre = self.first + 0.5 * (self.step * (self.count - 1))
        return float((centre * (self.count * self.weight)).sum())

    def mean(self) -> float:
        """The weighted mean; NaN without gaps."""
        total = self.total
        return self.weighted() / total if total else math.nan

    def quantiles(self, levels: Sequence[float]) -> list[int] | None:
        """The smallest gap g such that at least ``level`` (0 … 1) of all gaps are ≤ g, for each level.

        None without gaps.
        """
        found = _mean_and_quantiles(lambda: iter((self,)), levels)
        return None if found is None else found[1]


class RunGaps:
    """Every inter-token gap of a run; those of a long run are made client by client, and again when they are read."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        rows = sum(len(own.segments) for own in recording.clients if own.segments is not None)
        self._all = inter_token_gaps(recording) if rows <= _ROWS_AT_ONCE else None

    def parts(self) -> Iterator[Gaps]:
        """Yield the gaps in parts."""
        if self._all is not None:
            yield self._all
            return
        for client in self._recording.clients:
            yield from _gaps_of(client)
            forget(self._recording)
        yield from _pauses(self._recording)

    def mean_and_quantiles(self, levels: Sequence[float]) -> tuple[float, list[int]] | None:
        """Return the weighted mean and the quantiles (as ``Gaps`` has them) in picoseconds; None without gaps."""
        return _mean_and_quantiles(self.parts, levels)


def _mean_and_quantiles(
    parts: Callable[[], Iterator[Gaps]], levels: Sequence[float]
) -> tuple[float, list[int]] | None:
    """Return the mean and the quantiles of all gaps in ``parts``, which is read twice.

    A histogram over rows brackets each quantile, bisection over the rows in the bracket finds it.
    """
    total, weighted, began, over = 0, 0.0, np.zeros(0), np.zeros(0)
    for part in parts():
        total += part.total
        weighted += part.weighted()
        weight = part.count * part.weight
        began = _add_histogram(began, part.first, weight)
        over = _add_histogram(over, part.last, weight)
    if not total:
        return None
    started, ended = np.cumsum(began), np.cumsum(over)
    targets = [max(1, math.ceil(round(level * total, 6))) for level in levels]
    brackets = [(np.searchsorted(started, target), np.searchsorted(ended, target)) for target in targets]
    near: list[list[Gaps]] = [[] for _ in levels]
    for part in parts():
        begins, ends = _bucket(part.first), _bucket(part.last)
        for found, (lowest, highest) in zip(near, brackets, strict=True):
            found.append(part.rows(np.flatnonzero((begins <= highest) & (ends >= lowest))))
    quantiles = [
        _smallest_reaching(target - (int(ended[lowest - 1]) if lowest else 0), _joined(found))
        for target, (lowest, _), found in zip(targets, brackets, near, strict=True)
    ]
    return weighted / total, quantiles


def _add_histogram(before: NDArray[np.float64], values: Ints, weight: Ints) -> NDArray[np.float64]:
    """Return a histogram over buckets with the weights of more values."""
    total = np.bincount(_bucket(values), weight, len(before)).astype(np.float64)
    total[: len(before)] += before
    return total


def inter_token_gaps(recording: Recording) -> Gaps:
    """Return every inter-token gap of the run, including those of preempted and resumed sequences."""
    parts = [part for client in recording.clients for part in _gaps_of(client)]
    return _joined([*parts, *_pauses(recording)])


def _gaps_of(client: ClientRecord) -> Iterator[Gaps]:
    """Yield the gaps of one client, in parts."""
    if client.even_gaps is None:
        yield from _client_gaps(client, client.context_ps)
    elif len(client.even_gaps):
        yield _single(client.even_gaps[:, 0], client.even_gaps[:, 1])


def _joined(parts: Sequence[Gaps]) -> Gaps:
    if len(parts) == 1:
        return parts[0]
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
    growth = segments[:, _DECODES] * context_ps
    return _first_step_ps(segments[:, _START], segments[:, _END], segments[:, _STEPS], growth)


def _first_step_ps(start_ps: Ints, end_ps: Ints, steps: Ints, growth_ps: Ints) -> Ints:
    durations: Ints = (end_ps - start_ps - growth_ps * (steps * (steps - 1) // 2)) // np.maximum(steps, 1)
    return durations


def client_gaps(client: ClientRecord, context_ps: int) -> list[Gaps]:
    """Return the gaps of one LLM client, whose step grows by ``context_ps`` per token of decode context."""
    return list(_client_gaps(client, context_ps))


def _client_gaps(client: ClientRecord, context_ps: int) -> Iterator[Gaps]:
    if client.resume_gaps_ps is not None and len(client.resume_gaps_ps):
        yield _single(client.resume_gaps_ps, np.ones_like(client.resume_gaps_ps))
    for segments in client.rank_segments or client.lanes():
        yield from _lane_gaps(segments, context_ps)


def _lane_gaps(segments: NDArray[np.int64], context_ps: int) -> Iterator[Gaps]:
    decoding = segments[:, _DECODES] > 0
    decode_rows = np.flatnonzero(decoding)
    if not len(decode_rows):
        return
    start, end, steps, decodes = (segments[decode_rows, field] for field in (_START, _END, _STEPS, _DECODES))
    first_step = _first_step_ps(start, end, steps, decodes * context_ps)
    first_end = start + first_step

    joined_in = np.flatnonzero(segments[:, _JOINED])
    heirs = np.cumsum(decoding, dtype=np.int64)[joined_in]  # the next row that decodes
    joined_in, heirs = joined_in[heirs < len(decode_rows)], heirs[heirs < len(decode_rows)]
    joiners = _present(segments[joined_in, _JOINED], heirs, decodes)
    yield _single(first_end[heirs] - segments[joined_in, _END], joiners)

    staying = decodes - np.bincount(heirs, weights=joiners, minlength=len(decode_rows)).astype(np.int64)
    yield _single(first_end[1:] - end[:-1], staying[1:])

    long = steps > 1
    later = steps[long] - 1
    growth = decodes[long] * context_ps
    if context_ps:
        yield Gaps(first_step[long] + growth, growth, later, decodes[long])
    else:
        yield _single(first_step[long], decodes[long] * later)


def _single(gaps: Ints, weight: Ints) -> Gaps:
    some = weight > 0
    one = np.ones(int(some.sum()), np.int64)
    return Gaps(gaps[some], one, one, weight[some])


def _present(joined: Ints, heirs: Ints, decodes: Ints) -> Ints:
    """Return how many of those who joined still decode in the next decode step (``heirs``: its index).

    All, but where the step has fewer decodes than joined: the last to join are preempted first.
    """
    before = np.cumsum(joined) - joined
    starts = np.flatnonzero(np.diff(heirs, prepend=-1))  # of the groups with one heir, in order
    ahead = before - np.repeat(before[starts], np.diff(starts, append=len(heirs)))
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


def _smallest_reaching(target: int, rows: Gaps) -> int:
    """Return the smallest value with ``target`` weight at or below it; decided rows leave on the way."""
    low, high = int(rows.first.min()), int(rows.last.max())
    while low < high:
        middle = (low + high) // 2
        reached = np.clip((middle - rows.first) // rows.step + 1, 0, rows.count)
        if int((reached * rows.weight).sum()) >= target:
            high = middle
            keep = rows.first <= high
        else:
            low = middle + 1
            keep = rows.last >= low
            target -= int((rows.count * rows.weight)[~keep].sum())
        rows = rows.rows(np.flatnonzero(keep))
    return low
