"""What a run may not depend on: who comes later, and when the clock began."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from hermes_flow.machine.run import run
from hermes_flow.program.ops import KVEdge
from hermes_flow.program.program import Program
from hermes_flow.program.work import Work
from hermes_flow.recording.recording import Recording


def check_same_times(ours: Recording, theirs: Recording) -> None:
    for mine, other in zip(ours.ops, theirs.ops, strict=True):
        for column in ("client", "ready_ns", "start_ns", "first_ns", "finish_ns", "preemptions"):
            np.testing.assert_array_equal(getattr(mine, column), getattr(other, column), column)
    np.testing.assert_array_equal(ours.finish_ns, theirs.finish_ns)


def first_rows(table: Any, rows: int) -> Any:
    """Return the same op, or requests, with only the first rows of every column, in its work and edges too."""
    columns = {field.name: getattr(table, field.name) for field in fields(table)}
    shorter = {
        name: column[:rows] if isinstance(column, np.ndarray) else first_rows(column, rows)
        for name, column in columns.items()
        if isinstance(column, np.ndarray | Work | KVEdge)
    }
    return replace(table, **shorter)


def check_what_has_happened_without_who_comes_later(program: Program) -> None:
    """Check that the first half of the requests fare the same alone until the next one arrives."""
    requests = program.requests
    first = len(requests) // 2
    if first == 0:
        return
    cut = replace(
        program,
        requests=first_rows(requests, first),
        ops=tuple(first_rows(op, first) for op in program.ops),
        rejected={request: reason for request, reason in program.rejected.items() if request < first},
    )
    with_later, without = run(program), run(cut)
    horizon = requests.arrival_ns[first]
    for ours, theirs in zip(with_later.ops, without.ops, strict=True):
        for column in ("ready_ns", "start_ns", "first_ns", "finish_ns"):
            early, alone = getattr(ours, column), getattr(theirs, column)
            if early is not None:
                early = early[:first]
                past = (early < horizon) | (alone < horizon)
                np.testing.assert_array_equal(early[past], alone[past])


def check_a_later_start(program: Program) -> None:
    """Check that all times move by as much as all arrivals do."""
    delay_ns = 3 * 10**15 + 7
    requests = program.requests
    later = replace(program, requests=replace(requests, arrival_ns=requests.arrival_ns + delay_ns))
    before, after = run(program), run(later)
    for ours, theirs in zip(before.ops, after.ops, strict=True):
        done = ours.start_ns >= 0
        np.testing.assert_array_equal(ours.client, theirs.client)
        np.testing.assert_array_equal(ours.start_ns[done] + delay_ns, theirs.start_ns[done])
        np.testing.assert_array_equal(ours.finish_ns[done] + delay_ns, theirs.finish_ns[done])
