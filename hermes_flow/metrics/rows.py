"""Cuts a recording into ranges of requests, so that long runs are worked through piece by piece.

A piece is a Recording of its own, whose columns are views of the whole. Its program has only the requests of the
range; clients, links and the end of the run stay those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hermes_flow.program.disk_columns import forget_pages
from hermes_flow.program.rows import column_rows, entries_within, program_rows
from hermes_flow.recording.recording import Recording

ROWS = 1 << 18
"""The requests of a piece; a run of no more is one piece."""


def ranges(count: int, rows: int = ROWS) -> Iterator[tuple[int, int]]:
    """Yield the ranges of ``count`` requests, of ``rows`` each; one range where there are none."""
    for first in range(0, max(count, 1), rows):
        yield first, min(count, first + rows)


def pieces(recording: Recording, rows: int = ROWS) -> Iterator[tuple[int, Recording]]:
    """Yield the recording in pieces, each with the number of its first request; a short one as it is."""
    count = len(recording.status)
    if count <= rows:
        yield 0, recording
        return
    for first, last in ranges(count, rows):
        yield first, rows_of(recording, first, last)
        forget(recording)


def rows_of(recording: Recording, first: int, last: int) -> Recording:
    """Return the requests ``first`` … ``last − 1`` of a recording."""
    count = len(recording.status)
    return replace(
        recording,
        program=program_rows(recording.program, first, last),
        travel=None if recording.travel is None else recording.travel.part(first, last),
        arrival_ns=recording.arrival_ns[first:last],
        finish_ns=recording.finish_ns[first:last],
        status=recording.status[first:last],
        ops=tuple(column_rows(record, count, first, last) for record in recording.ops),
        failures=entries_within(recording.failures, first, last),
        retried=entries_within(recording.retried, first, last),
        given_up=entries_within(recording.given_up, first, last),
        migrated=entries_within(recording.migrated, first, last),
        lost_tokens=entries_within(recording.lost_tokens, first, last),
        lost_answers=entries_within(recording.lost_answers, first, last),
        lost_ns=entries_within(recording.lost_ns, first, last),
        admitted_ns=None if recording.admitted_ns is None else recording.admitted_ns[first:last],
        tries=None if recording.tries is None else recording.tries[first:last],
    )


def forget(recording: Recording) -> None:
    """Let the columns of a streamed run go from memory that have been read; those of other runs stay."""
    if recording.program.stream_requests is not None:
        program = recording.program
        columns = (program.requests, program.ops, recording.ops, recording.finish_ns, recording.clients)
        forget_pages(*columns)
