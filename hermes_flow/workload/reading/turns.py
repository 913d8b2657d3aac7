"""Puts the rows of a trace in order, with the turns of a session that wait for the answer before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.errors import TraceError
from hermes_flow.program.units import Ints
from hermes_flow.workload.traces.files import Placed

NONE = -1  # no delay, no session, no arrival


@dataclass(frozen=True, slots=True)
class Turns:
    """The rows in order of arrival: ``order`` has their numbers in the file, ``begins_ns`` when their sessions begin.

    ``previous`` is the place of the turn that a row waits for (-1: none), and ``think_ns`` how long after its answer
    it arrives; both are None where no row waits.
    """

    order: Ints
    begins_ns: Ints
    previous: Ints | None
    think_ns: Ints | None


def waits_for(arrival_ns: Ints, delay_ns: Ints, session: Ints, arrivals_drawn: bool, file: Placed) -> Ints:
    """Return for each row the earlier row of its session whose answer it waits for, or -1.

    A row waits where it has a delay, or no arrival, and its session has an earlier row. Raises TraceError at a row
    without an arrival that waits for nobody, or with a delay but no session.
    """
    before: Ints = np.full(len(arrival_ns), NONE, dtype=np.int64)
    last: dict[int, int] = {}
    rows = zip(arrival_ns.tolist(), delay_ns.tolist(), session.tolist(), strict=True)
    for row, (arrival, delay, of) in enumerate(rows):
        missing = arrival == NONE
        if of == NONE and delay > 0:
            raise _error(
                file, row, "has a delay but no session; expected the session whose last answer it follows"
            )
        if of != NONE and of in last and (delay != NONE or missing):
            before[row] = last[of]
        elif missing and not arrivals_drawn:
            what = "the first row of its session" if of != NONE else "in no session"
            raise _error(
                file, row, f"has no arrival and is {what}; expected an arrival, or workload.arrivals"
            )
        last[of] = row
    return before


def in_order(arrival_ns: Ints, delay_ns: Ints, before: Ints) -> Turns:
    """Return the rows by the beginning of their sessions and then by turn; equal beginnings keep their order."""
    count = len(arrival_ns)
    rows = np.arange(count, dtype=np.int64)
    waits = before >= 0
    if not waits.any():
        order = np.argsort(arrival_ns, kind="stable")
        return Turns(order, arrival_ns[order], None, None)
    root = rows.copy()
    for row in np.flatnonzero(waits).tolist():
        root[row] = root[before[row]]
    begins = arrival_ns[root]
    order = np.lexsort((rows, root, begins))
    place = np.empty(count, dtype=np.int64)
    place[order] = rows
    previous = np.where(waits, place[before], NONE)[order]
    think = np.where(waits, np.maximum(delay_ns, 0), 0)[order]
    return Turns(order, begins[order], previous, think)


def chat_sessions(chat: Ints, parent: Ints) -> Ints:
    """Return the session of each row: the chat that its chain of parents begins with, numbered by appearance.

    A parent that the file does not have begins a session itself; -1 is no parent.
    """
    above = dict(zip(chat.tolist(), parent.tolist(), strict=True))
    root: dict[int, int] = {}
    numbers: dict[int, int] = {}
    sessions = np.empty(len(chat), dtype=np.int64)
    for row, own in enumerate(chat.tolist()):
        path: list[int] = []
        at = own
        while at not in root and above.get(at, NONE) not in (NONE, at) and len(path) <= len(above):
            path.append(at)
            at = above[at]
        first = root.get(at, at)
        for passed in (*path, own):
            root[passed] = first
        sessions[row] = numbers.setdefault(first, len(numbers))
    return sessions


def _error(file: Placed, row: int, problem: str) -> TraceError:
    line, words = file.place(row)
    return TraceError(str(file.path), line, words + problem)
