"""The log of an LLM client's steps, with the columns STEP_FIELDS of recording/recording.py."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

import numpy as np
from numpy.typing import NDArray

_FIELDS = 7
_START, _END, _STEPS, _DECODES, _CONTEXT, _JOINED = 0, 1, 2, 3, 4, 6

pack_segment = Struct(f"{_FIELDS}q").pack


def log_entering(log: bytearray, emitted_ps: int, abandoned_ps: list[int]) -> None:
    """Add a row without steps: a sequence enters with a token that was emitted elsewhere or before a preemption.

    Before it come those who left since: ``abandoned_ps`` is emptied into the log. The row of one who left at an
    instant must not be looked for among those who came back later with a token of that same instant.
    """
    for ended in abandoned_ps:
        log += pack_segment(ended, ended, 0, 0, 0, 0, -1)
    abandoned_ps.clear()
    log += pack_segment(emitted_ps, emitted_ps, 0, 0, 0, 0, 1)


def segment_rows(log: bytearray, abandoned_ps: list[int]) -> NDArray[np.int64]:
    """Return the rows of a log, without sequences that were preempted before they ever decoded.

    ``abandoned_ps`` are the ends of the steps in which those joined who left after the last row.
    """
    return settled_rows(np.frombuffer(log, dtype=np.int64).reshape(-1, _FIELDS), abandoned_ps)


def logged_rows(log: NDArray[np.int64], abandoned_ps: list[int]) -> NDArray[np.int64]:
    """Return what ``segment_rows`` does for a log that is an array."""
    return settled_rows(log.reshape(-1, _FIELDS), abandoned_ps)


def settled_rows(rows: NDArray[np.int64], abandoned_ps: list[int]) -> NDArray[np.int64]:
    """Return the rows without sequences that were preempted before they ever decoded; see ``segment_rows``."""
    left = rows[:, _JOINED] < 0
    if not abandoned_ps and not left.any():
        return rows
    rows = rows.copy()
    joining = np.flatnonzero(rows[:, _JOINED])
    joined_at: dict[int, list[int]] = {}  # end → rows from which nobody has left so far, or not everybody
    for row, end, joined in zip(
        joining.tolist(), rows[joining, _END].tolist(), rows[joining, _JOINED].tolist(), strict=True
    ):
        if joined > 0:
            joined_at.setdefault(end, []).append(row)
        else:
            _leave(rows, joined_at[end])
    for end in abandoned_ps:
        _leave(rows, joined_at[end])
    return rows[~left]


def single_steps(rows: NDArray[np.int64], growths: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the rows with each step of a run in a row of its own.

    ``growths`` has, by the start of a run, by how many ps each of its steps is longer than the one before.
    """
    steps = rows[:, _STEPS]
    runs = np.flatnonzero(steps > 1)
    if not len(runs):
        return rows
    growth = np.zeros(len(rows), dtype=np.int64)
    growth[runs] = [growths[start] for start in rows[runs, _START].tolist()]
    length = rows[:, _END] - rows[:, _START]
    count = np.maximum(steps, 1)
    first = (length - growth * (steps * (steps - 1) // 2)) // count
    place = np.repeat(np.arange(len(rows)), count)
    index = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
    single = rows[place]
    single[:, _START] += index * first[place] + growth[place] * (index * (index - 1) // 2)
    single[:, _END] = single[:, _START] + first[place] + growth[place] * index
    single[:, _STEPS] = np.minimum(steps, 1)[place]
    single[:, _CONTEXT] += index * single[:, _DECODES]
    return single


def _leave(rows: NDArray[np.int64], joined_in: list[int]) -> None:
    """Take one sequence off the last of the rows."""
    row = joined_in[-1]
    rows[row, _JOINED] -= 1
    if not rows[row, _JOINED]:
        joined_in.pop()
