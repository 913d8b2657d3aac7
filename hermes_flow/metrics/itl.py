"""The exact distribution of inter-token latencies (ITL), from the steps of every LLM client.

A step with n decodes emits n tokens. A sequence that decoded in the client's previous decode step waited
since the end of that step; one that joined since (its prefill emitted the token before) waited since the end
of the step it joined in. Inside a stretch of equal steps the gaps are the steps' durations, which grow by a
constant, so a stretch is one arithmetic progression and nothing is expanded: time and memory go with the
number of segments, not of steps or tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.gaps import Gaps, Tally, joined, mean_and_quantiles, single_gaps
from hermes_flow.metrics.rows import forget
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord, Recording

_START, _END, _STEPS, _DECODES, _, _, _JOINED = range(len(STEP_FIELDS))
# The gaps of so many rows of steps take 250 MB at a time.
_ROWS_AT_ONCE = 1 << 21


class RunGaps:
    """Every inter-token gap of a run; those of a long run are made client by client, and again when they are read."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        rows = sum(len(own.segments) for own in recording.clients if own.segments is not None)
        self._all = Tally(_run_gaps(recording)) if rows <= _ROWS_AT_ONCE else None

    def mean_and_quantiles(self, levels: Sequence[float]) -> tuple[float, list[int]] | None:
        """Return the weighted mean and the quantiles (as ``Gaps`` has them) in picoseconds; None without gaps."""
        return mean_and_quantiles(self._tallies, levels)

    def _tallies(self) -> Iterator[Tally]:
        """Yield the gaps in parts."""
        if self._all is not None:
            yield self._all
            return
        for client in self._recording.clients:
            for part in _gaps_of(client):
                yield Tally((part,))
            forget(self._recording)
        for part in _pauses(self._recording):
            yield Tally((part,))


def inter_token_gaps(recording: Recording) -> Gaps:
    """Return every inter-token gap of the run, including those of preempted and resumed sequences."""
    return joined(_run_gaps(recording))


def _run_gaps(recording: Recording) -> list[Gaps]:
    parts = [part for client in recording.clients for part in _gaps_of(client)]
    return [*parts, *_pauses(recording)]


def _gaps_of(client: ClientRecord) -> Iterator[Gaps]:
    """Yield the gaps of one client, in parts."""
    if client.even_gaps is None:
        yield from _client_gaps(client, client.context_ps)
    elif len(client.even_gaps):
        yield single_gaps(client.even_gaps[:, 0], client.even_gaps[:, 1])


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
            parts.append(single_gaps(gaps, np.ones_like(gaps)))
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
        yield single_gaps(client.resume_gaps_ps, np.ones_like(client.resume_gaps_ps))
    for segments in client.rank_segments or client.lanes():
        yield from _lane_gaps(segments, context_ps)


def _lane_gaps(segments: NDArray[np.int64], context_ps: int) -> Iterator[Gaps]:
    decoding = segments[:, _DECODES] > 0
    start, end, steps, decodes = (segments[:, field][decoding] for field in (_START, _END, _STEPS, _DECODES))
    if not len(decodes):
        return
    long = np.flatnonzero(steps > 1)
    later, growth = steps[long] - 1, decodes[long] * context_ps
    first_of_long = _first_step_ps(start[long], end[long], steps[long], growth)
    first_end = end.copy()  # of single steps, which most are
    first_end[long] = start[long] + first_of_long

    joined_in = np.flatnonzero(segments[:, _JOINED])
    heirs = np.cumsum(decoding.astype(np.int64))[joined_in]  # the next row that decodes
    joined_in, heirs = joined_in[heirs < len(decodes)], heirs[heirs < len(decodes)]
    joiners = _present(segments[joined_in, _JOINED], heirs, decodes)
    yield single_gaps(first_end[heirs] - segments[joined_in, _END], joiners)

    staying = decodes - np.bincount(heirs, weights=joiners, minlength=len(decodes)).astype(np.int64)
    yield single_gaps(first_end[1:] - end[:-1], staying[1:])

    if context_ps:
        yield Gaps(first_of_long + growth, growth, later, decodes[long])
    else:
        yield single_gaps(first_of_long, decodes[long] * later)


def _present(joined: Ints, heirs: Ints, decodes: Ints) -> Ints:
    """Return how many of those who joined still decode in the next decode step (``heirs``: its index).

    All, but where the step has fewer decodes than joined: the last to join are preempted first.
    """
    before = np.cumsum(joined) - joined
    starts = np.flatnonzero(np.diff(heirs, prepend=-1))  # of the groups with one heir, in order
    ahead = before - np.repeat(before[starts], np.diff(starts, append=len(heirs)))
    present: Ints = np.clip(decodes[heirs] - ahead, 0, joined)
    return present
