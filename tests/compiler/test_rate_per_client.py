"""A load per client grows with the number of clients."""

from __future__ import annotations

import pytest

import hermes_flow as hf

CONSTANT = ["pipeline=llm", "workload=synthetic", "workload.arrivals=constant", "workload.requests=9"]


def rate(*overrides: str) -> float:
    arrivals = hf.compile(hf.compose([*CONSTANT, *overrides])).requests.arrival_ns
    return 1e9 / float(arrivals[1] - arrivals[0])


@pytest.mark.parametrize(
    ("overrides", "clients"),
    [
        (["cluster.pools.llm.count=1"], 1),
        (["cluster.pools.llm.count=3"], 3),
        (["cluster=disaggregated", "cluster.pools.prefill.count=1", "cluster.pools.decode.count=3"], 4),
    ],
)
def test_every_llm_client_has_the_load(overrides: list[str], clients: int) -> None:
    assert rate("workload.rate_per_s=2", "workload.rate_for=client", *overrides) == pytest.approx(2 * clients)
    assert rate("workload.rate_per_s=2", *overrides) == pytest.approx(2)


def test_a_loop_has_no_rate_to_multiply() -> None:
    program = hf.compile(hf.compose(["workload=closed_loop", "workload.rate_for=client"]))
    assert any("workload.rate_for" in warning for warning in program.warnings)
