from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.program.requests import Requests
from hermes_flow.workload.build import build_requests

pytestmark = pytest.mark.shared_data


def read(path: Path) -> Requests:
    return build_requests(TraceWorkload(kind="trace", name="test", path=str(path)), 0)


def row(requests: Requests, index: int) -> tuple[int, int, int]:
    columns = (requests.arrival_ns, requests.input_tokens, requests.output_tokens)
    return tuple(int(column[index]) for column in columns)  # type: ignore[return-value]


def azure_ns(stamp: str) -> int:
    """Nanoseconds within November 2023, from the digits alone."""
    day, clock = stamp.split(" ")
    hours, minutes, seconds = clock.split(":")
    whole, fraction = seconds.split(".")
    total_s = ((int(day[-2:]) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(whole)
    return total_s * 10**9 + int(fraction.ljust(9, "0"))


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("conv", 19_366, (0, 374, 44), (3_501_721_937_000, 197, 183)),
        ("code", 8_819, (0, 4808, 10), (3_435_948_056_000, 549, 173)),
    ],
)
def test_azure_traces_are_read_whole_and_exactly(
    name: str, count: int, first: tuple[int, int, int], last: tuple[int, int, int], shared_data: Path
) -> None:
    path = shared_data / "azure" / f"AzureLLMInferenceTrace_{name}.csv"
    requests = read(path)
    assert len(requests) == count
    assert row(requests, 0) == first
    assert row(requests, -1) == last
    cells = [line.split(",") for line in path.read_text().splitlines()[1:]]
    begin = azure_ns(cells[0][0])
    assert requests.arrival_ns.tolist() == [azure_ns(stamp) - begin for stamp, _, _ in cells]
    assert requests.input_tokens.tolist() == [int(tokens) for _, tokens, _ in cells]
    assert requests.output_tokens.tolist() == [int(tokens) for _, _, tokens in cells]


@pytest.mark.parametrize(
    ("name", "count", "first", "last_ns"),
    [
        ("conversation", 12_031, (0, 6758, 500), 3_536_999_000_000),
        ("synthetic", 3_993, (0, 40160, 6), 1_022_025_000_000),
    ],
)
def test_mooncake_traces_are_read_whole_and_exactly(
    name: str, count: int, first: tuple[int, int, int], last_ns: int, shared_data: Path
) -> None:
    path = shared_data / "mooncake" / f"{name}_trace.jsonl"
    requests = read(path)
    assert len(requests) == count
    assert row(requests, 0) == first
    assert requests.arrival_ns[-1] == last_ns
    objects = [json.loads(line) for line in path.read_text().splitlines()]
    assert requests.arrival_ns.tolist() == [entry["timestamp"] * 10**6 for entry in objects]
    assert requests.input_tokens.tolist() == [entry["input_length"] for entry in objects]
    assert requests.output_tokens.tolist() == [entry["output_length"] for entry in objects]


def test_benchmark_request_lists_are_native(shared_data: Path) -> None:
    requests = read(shared_data / "benchmarks" / "poisson_n10000_instances1_rps10.parquet")
    assert len(requests) == 10_000
    assert row(requests, 0) == (50_609_000, 500, 221)
    assert row(requests, 1) == (70_665_000, 461, 205)
    assert (np.diff(requests.arrival_ns) >= 0).all()
