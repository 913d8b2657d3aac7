"""The naive reference of a pipeline's order: who is ready when, given when every task finished."""

from __future__ import annotations

from hermes_flow.program.program import Program
from hermes_flow.recording.recording import Recording


def takes(program: Program, op: int, request: int) -> bool:
    """Tell whether a request runs an op; a rejected one runs none."""
    taken = program.ops[op].taken
    return request not in program.rejected and (taken is None or bool(taken[request]))


def could_begin_ns(recording: Recording, op: int, request: int) -> int:
    """Return when all that comes before an op of a request was done: when it arrived, if nothing does."""
    before = [done_ns(recording, other, request) for other in recording.program.ops[op].after]
    return max([int(recording.arrival_ns[request]), *before])


def done_ns(recording: Recording, op: int, request: int) -> int:
    """Return when an op of a request was done: one that it skips is done when it could begin."""
    if takes(recording.program, op, request):
        return int(recording.ops[op].finish_ns[request])
    return could_begin_ns(recording, op, request)


def ready_ns(recording: Recording, op: int) -> list[int]:
    """Return when each request's task became ready, -1 where it runs none."""
    return [
        could_begin_ns(recording, op, request) if takes(recording.program, op, request) else -1
        for request in range(len(recording.program.requests))
    ]


def finish_ns(recording: Recording) -> list[int]:
    """Return when each request was done, that is all of its ops; -1 where it was rejected."""
    program = recording.program
    return [
        -1
        if request in program.rejected
        else max(done_ns(recording, op, request) for op in range(len(program.ops)))
        for request in range(len(program.requests))
    ]
