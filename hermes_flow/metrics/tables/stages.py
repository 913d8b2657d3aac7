"""The table of stages: when each request was ready, started and finished in each of them, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.energy import Energies, energies
from hermes_flow.metrics.latency import seconds
from hermes_flow.metrics.spans import StageSpans, stage_spans
from hermes_flow.metrics.tables.series import floats, in_turn, integers, names
from hermes_flow.program.program import Program
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)


def stages_frame(recording: Recording, energy: Energies | None = None, first: int = 0) -> pl.DataFrame:
    """Return one row per request and stage that it reached, by request and then in pipeline order.

    ``first`` is the number of the first request, where the recording is a piece of a longer one.
    ``transfer_s`` is the time on the network for what the stage needs, ``bytes`` how much that was;
    ``queue_s`` is start − ready − transfer, ``service_s`` finish − start.
    """
    import polars as pl

    energy = energy or energies(recording)
    program = recording.program
    spans = stage_spans(recording)
    count, width = len(program.requests), len(spans)
    clients, offsets = _client_names(program)
    happened = _side_by_side([span.ready_ns >= 0 for span in spans])
    everything = bool(happened.all())
    which = None if everything else np.tile(np.arange(width), count)[happened]

    def column(values: Sequence[NDArray[T]]) -> NDArray[T]:
        """Return the values of all stages side by side, of the tasks that have happened."""
        table = _side_by_side(values)
        return table if everything else table[happened]

    request = column([np.arange(first, first + count)] * width)
    rows = len(request)
    moves = any(span.transfer_ns is not None for span in spans)
    moved = any(span.bytes is not None for span in spans)
    nothing = np.broadcast_to(np.int64(0), (rows,))
    return pl.DataFrame(
        {
            "request": request,
            "stage": _of_stages([span.stage for span in spans], which, count),
            "kind": _of_stages([span.kind for span in spans], which, count),
            "pool": _of_stages([program.pools[span.pool].name for span in spans], which, count),
            "client": names(clients, column([_client_index(span, offsets) for span in spans])),
            "ready_s": floats(column([seconds(span.ready_ns) for span in spans])),
            "start_s": floats(column([seconds(span.start_ns) for span in spans])),
            "finish_s": floats(column([seconds(span.finish_ns) for span in spans])),
            "queue_s": floats(column([_queue_s(span) for span in spans])),
            "transfer_s": floats(
                column([seconds(_or_zero(span.transfer_ns, count)) for span in spans])
                if moves
                else seconds(nothing)
            ),
            "service_s": floats(
                column([seconds(span.finish_ns - span.start_ns, span.finish_ns >= 0) for span in spans])
            ),
            "tokens": integers(column([_or_missing(span.tokens, count) for span in spans]), rows),
            "bytes": integers(
                column([_or_zero(span.bytes, count) for span in spans]) if moved else nothing, rows
            ),
            "energy_j": floats(column(energy.stages_j)),
        }
    )


def _queue_s(span: StageSpans) -> Floats:
    waited = span.start_ns - span.ready_ns
    return seconds(waited if span.transfer_ns is None else waited - span.transfer_ns, span.start_ns >= 0)


def _of_stages(texts: Sequence[str], column: Ints | None, count: int) -> pl.Series:
    """Return the text of each row's stage; ``column`` is which that is, None where all requests reach all stages."""
    return in_turn(tuple(texts), count) if column is None else names(texts, column)


def _side_by_side(columns: Sequence[NDArray[T]]) -> NDArray[T]:
    """Return the columns side by side, flattened row by row."""
    table = np.empty((len(columns[0]), len(columns)), columns[0].dtype)
    for index, column in enumerate(columns):
        table[:, index] = column
    return table.ravel()


def _client_names(program: Program) -> tuple[list[str], list[int]]:
    """Return "pool/index" of all clients, and where each pool's begin."""
    names: list[str] = []
    offsets: list[int] = []
    for pool in program.pools:
        offsets.append(len(names))
        names.extend(f"{pool.name}/{index}" for index in range(pool.count))
    return names, offsets


def _client_index(span: StageSpans, offsets: list[int]) -> Ints:
    return np.where(span.client < 0, -1, span.client + offsets[span.pool])


def _or_zero(values: Ints | None, count: int) -> Ints:
    return np.zeros(count, np.int64) if values is None else values


def _or_missing(values: Ints | None, count: int) -> Ints:
    return np.full(count, -1) if values is None else values
