"""A run that would never end stops with an error that names what keeps it from ending."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.pools.sequential.client import SequentialClient


def program(*overrides: str) -> hf.Program:
    return hf.compile(hf.compose(["workload=synthetic", "workload.requests=20", *overrides]))


def test_a_client_that_does_not_do_what_is_due_is_named() -> None:
    with (
        patch.object(SequentialClient, "fire", lambda self, now_ns: None),
        pytest.raises(hf.InternalError, match=r"client host/0 fired 10,000 times without any progress"),
    ):
        hf.simulate(program("pipeline=chat", "cluster.pools.host.cores=1"))


def test_a_request_that_is_sent_to_decode_with_all_its_tokens_ends_the_run() -> None:
    """The prefill emits the only token of an answer, so that a decode client has nothing left to generate."""
    compiled = program("cluster=disaggregated", "pipeline=llm", "workload.output_tokens=1")
    ops = tuple(
        op if op.kv is None else replace(op, taken=np.ones(20, dtype=np.bool_)) for op in compiled.ops
    )
    with pytest.raises(hf.InternalError, match=r"made to decode that has all its tokens \(1\) already"):
        hf.simulate(replace(compiled, ops=ops))


def test_thousands_of_tasks_that_end_at_one_instant_are_no_fault() -> None:
    burst = ("workload.requests=25000", "workload.rate_per_s=1e9", "workload.arrivals=constant")
    same = ("workload.input_tokens=8", "workload.output_tokens=1", "cluster.pools.host.cores=25000")
    result = hf.simulate(program("pipeline=chat", *burst, *same))
    assert result.summary["requests"]["completed"] == 25_000
