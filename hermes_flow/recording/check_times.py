"""Checks the times of a recording before anything is made of them: none is negative, none ends before it begins."""

from __future__ import annotations

import numpy as np

from hermes_flow.errors import InternalError
from hermes_flow.recording.recording import Recording


def check_times(recording: Recording) -> Recording:
    """Return the recording; raises InternalError naming the stage and the request whose times cannot be."""
    done = recording.status == 0
    if bool((recording.arrival_ns[done] < 0).any()):
        request = int(np.flatnonzero(done & (recording.arrival_ns < 0))[0])
        raise InternalError(f"request {request} arrives before the run begins")
    late = done & (recording.finish_ns < recording.arrival_ns)
    if bool(late.any()):
        raise InternalError(f"request {int(np.flatnonzero(late)[0])} finishes before it arrives")
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        wrong = done & (record.client >= 0) & ((record.start_ns < 0) | (record.finish_ns < record.start_ns))
        if bool(wrong.any()):
            request = int(np.flatnonzero(wrong)[0])
            raise InternalError(f"stage {op.name!r} of request {request} ends before it begins")
    return recording
