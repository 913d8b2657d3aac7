"""The table of stages: when each request was ready, started and finished in each of them, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.metrics.energy import Energies, energies
from hermes_flow.metrics.latency import seconds
from hermes_flow.metrics.spans import StageSpans, stage_spans
from hermes_flow.metrics.tables.series import floats, in_turn, integers, names
from hermes_flow.program.program import Program
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    import polars as pl


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
    ready = _table([span.ready_ns for span in spans], count)
    start = _table([span.start_ns for span in spans], count)
    finish = _table([span.finish_ns for span in spans], count)
    clients, offsets = _client_names(program)
    client = _table([_client_index(span, offsets) for span in spans], count)
    tokens = _table([_or_missing(span.tokens, count) for span in spans], count)
    transfer = _table_of_some([span.transfer_ns for span in spans], count)
    moved = _table_of_some([span.bytes for span in spans], count)
    joules = np.column_stack(energy.stages_j).ravel()
    request = np.repeat(np.arange(first, first + count), width)
    happened, column = ready >= 0, None
    if not happened.all():
        column, joules = np.tile(np.arange(width), count)[happened], joules[happened]
        ready, start, finish, client, tokens, request = (
            values[happened] for values in (ready, start, finish, client, tokens, request)
        )
        transfer, moved = (None if values is None else values[happened] for values in (transfer, moved))
    rows = len(request)
    nothing = np.broadcast_to(np.int64(0), (rows,))
    waited = start - ready if transfer is None else start - ready - transfer
    return pl.DataFrame(
        {
            "request": request,
            "stage": _of_stages([span.stage for span in spans], column, count),
            "kind": _of_stages([span.kind for span in spans], column, count),
            "pool": _of_stages([program.pools[span.pool].name for span in spans], column, count),
            "client": names(clients, client),
            "ready_s": floats(seconds(ready)),
            "start_s": floats(seconds(start)),
            "finish_s": floats(seconds(finish)),
            "queue_s": floats(seconds(waited, start >= 0)),
            "transfer_s": floats(seconds(nothing if transfer is None else transfer)),
            "service_s": floats(seconds(finish - start, finish >= 0)),
            "tokens": integers(tokens, rows),
            "bytes": integers(nothing if moved is None else moved, rows),
            "energy_j": floats(joules),
        }
    )


def _of_stages(texts: Sequence[str], column: Ints | None, count: int) -> pl.Series:
    """Return the text of each row's stage; ``column`` is which that is, None where all requests reach all stages."""
    return in_turn(tuple(texts), count) if column is None else names(texts, column)


def _table(columns: Sequence[Ints], rows: int) -> Ints:
    """Return the columns side by side, flattened row by row."""
    table = np.empty((rows, len(columns)), np.int64)
    for index, column in enumerate(columns):
        table[:, index] = column
    return table.ravel()


def _table_of_some(columns: Sequence[Ints | None], rows: int) -> Ints | None:
    """Return the columns as ``_table`` does, with zeros for those that are not there; None where none is."""
    if all(column is None for column in columns):
        return None
    return _table([np.zeros(rows, np.int64) if column is None else column for column in columns], rows)


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


def _or_missing(values: Ints | None, count: int) -> Ints:
    return np.full(count, -1) if values is None else values
