"""Adds up the times of stages and pools over all tasks of completed requests, piece by piece.

Sums are added up row by row in the order of the table of stages, so they depend neither on the number of cores nor on
the size of the pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.latency import seconds
from hermes_flow.metrics.rows import pieces
from hermes_flow.metrics.spans import SpanPlace, StageSpans, span_at, span_places
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import total
from hermes_flow.recording.recording import Recording

Floats = NDArray[np.float64]


@dataclass(slots=True)
class StageSums:
    """The tasks of one stage: their number, the sums of their times and the 99th percentile of a task's time."""

    pools: tuple[str, ...]
    tasks: int
    queue_s: float
    service_s: float
    total_s: float
    p99_s: float | None


def stage_sums(recording: Recording) -> dict[str, StageSums]:
    """Return the sums of every stage by name, in the order of the pipeline."""
    by_stage: dict[str, list[SpanPlace]] = {}
    for place in span_places(recording):
        by_stage.setdefault(place.stage, []).append(place)
    names = [pool.name for pool in recording.program.pools]
    return {
        stage: _sums_of(recording, places, tuple(dict.fromkeys(names[place.pool] for place in places)))
        for stage, places in by_stage.items()
    }


def pool_queues(recording: Recording) -> list[tuple[int, float]]:
    """Return the number of tasks of each pool, and the sum of the times that they queued, in seconds."""
    places = span_places(recording)
    found: list[tuple[int, float]] = []
    for pool in range(len(recording.program.pools)):
        own = [place for place in places if place.pool == pool]
        tasks, queue = 0, 0.0
        for _, piece in pieces(recording) if own else ():
            spans = [span_at(piece, place) for place in own]
            rows = _rows(piece, spans)
            values = _side_by_side([_queue_s(span) for span in spans])[rows]
            tasks, queue = tasks + len(values), _added(queue, values)
        found.append((tasks, queue))
    return found


def _sums_of(recording: Recording, places: Sequence[SpanPlace], pools: tuple[str, ...]) -> StageSums:
    found = StageSums(pools, 0, 0.0, 0.0, 0.0, None)
    totals: list[Floats] = []
    for _, piece in pieces(recording):
        spans = [span_at(piece, place) for place in places]
        rows = _rows(piece, spans)
        queue = _side_by_side([_queue_s(span) for span in spans])[rows]
        service = _side_by_side(
            [seconds(span.finish_ns - span.start_ns, span.finish_ns >= 0) for span in spans]
        )[rows]
        if any(span.transfer_ns is not None for span in spans):
            total = queue + _side_by_side([_transfer_s(span) for span in spans])[rows] + service
        else:
            total = queue + service
        found.tasks += len(total)
        found.queue_s = _added(found.queue_s, queue)
        found.service_s = _added(found.service_s, service)
        found.total_s = _added(found.total_s, total)
        totals.append(total)
    found.p99_s = _percentile(totals, 0.99)
    return found


def _rows(piece: Recording, spans: Sequence[StageSpans]) -> NDArray[np.bool_] | slice:
    """Return which tasks, request by request, have happened in requests that completed; a slice if all have."""
    happened = [(span.ready_ns >= 0) & (piece.status == 0) for span in spans]
    if all(own.all() for own in happened):
        return slice(None)
    return np.stack(happened, axis=1).ravel()


def _queue_s(span: StageSpans) -> Floats:
    waited = span.start_ns - span.ready_ns
    return seconds(waited if span.transfer_ns is None else waited - span.transfer_ns, span.start_ns >= 0)


def _transfer_s(span: StageSpans) -> Floats:
    if span.transfer_ns is None:
        return np.zeros(len(span.ready_ns))
    return seconds(span.transfer_ns)


def _side_by_side(columns: Sequence[Floats]) -> Floats:
    """Return the values request by request."""
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1).ravel()


def _added(before: float, values: Floats) -> float:
    """Return the sum of ``before`` and the values, one after the other; a value that is not known is 0."""
    if not values.any():  # nor are there any
        return before
    unknown = np.isnan(values)
    if unknown.any():
        values = np.where(unknown, 0.0, values)
    return total(np.concatenate(([before], values)))


def _percentile(parts: list[Floats], level: float) -> float | None:
    """Return a percentile of the known values, interpolated linearly; ``parts`` is emptied on the way."""
    import polars as pl

    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    parts.clear()
    return pl.Series(values, nan_to_null=True).quantile(level, "linear")
