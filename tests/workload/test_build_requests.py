from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hermes_flow.config.schema import SyntheticWorkload
from hermes_flow.workload.build import build_requests

WORKLOAD = SyntheticWorkload(
    kind="synthetic",
    name="test",
    requests=500,
    rate_per_s=4.0,
    arrivals="poisson",
    input_tokens={"distribution": "lognormal", "mean": 500, "cv": 1.0},
    output_tokens={"distribution": "uniform", "min": 1, "max": 999},
)


def test_equal_config_and_seed_give_equal_requests() -> None:
    first, second = build_requests(WORKLOAD, 5), build_requests(WORKLOAD, 5)
    for name in ("arrival_ns", "input_tokens", "output_tokens"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_another_seed_changes_every_column() -> None:
    first, second = build_requests(WORKLOAD, 5), build_requests(WORKLOAD, 6)
    for name in ("arrival_ns", "input_tokens", "output_tokens"):
        assert not np.array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"arrivals": {"process": "gamma", "cv": 2.0}}, "arrival_ns"),
        ({"rate_per_s": 9.0}, "arrival_ns"),
        ({"input_tokens": {"distribution": "normal", "mean": 9, "std": 3}}, "input_tokens"),
        ({"output_tokens": 7}, "output_tokens"),
    ],
)
def test_changing_one_stream_leaves_the_others_alone(change: dict[str, Any], changed: str) -> None:
    before = build_requests(WORKLOAD, 1)
    after = build_requests(dataclasses.replace(WORKLOAD, **change), 1)
    for name in ("arrival_ns", "input_tokens", "output_tokens"):
        assert np.array_equal(getattr(before, name), getattr(after, name)) == (name != changed)


def test_more_requests_begin_with_the_same_ones() -> None:
    few = build_requests(WORKLOAD, 1)
    many = build_requests(dataclasses.replace(WORKLOAD, requests=5000), 1)
    for name in ("arrival_ns", "input_tokens", "output_tokens"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:500])


def test_an_open_workload_has_no_closed_loop_and_no_sessions() -> None:
    requests = build_requests(WORKLOAD, 0)
    assert len(requests) == 500
    assert requests.concurrency is None
    assert requests.think_ns is None
    assert requests.session is None
    assert requests.priority is None


def test_a_synthetic_workload_does_not_import_polars() -> None:
    code = "import sys, hermes_flow.workload.build; print('polars' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
