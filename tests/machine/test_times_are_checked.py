"""A recording whose times cannot be is an internal error that names the request, and no result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.recording.check_times import check_times


def test_times_that_cannot_be_are_an_internal_error() -> None:
    recording = run(hf.compile(hf.compose(["workload.requests=5"])))
    assert check_times(recording) is recording
    early = recording.finish_ns.copy()
    early[3] = recording.arrival_ns[3] - 1
    with pytest.raises(hf.InternalError, match="request 3 finishes before it arrives"):
        check_times(replace(recording, finish_ns=early))
    broken = replace(recording.ops[0], finish_ns=np.full(5, -(2**62)))
    with pytest.raises(hf.InternalError, match=r"stage .* of request 0 ends before it begins"):
        check_times(replace(recording, ops=(broken, *recording.ops[1:])))
