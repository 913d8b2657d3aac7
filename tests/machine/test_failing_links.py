"""Links that fail: what waits for them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiler.configs import problems_of

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError
from hermes_flow.validation.invariants.check import check_run

LOAD = (
    "pipeline=llm",
    "cluster=disaggregated",
    "cluster.first_token=decode",
    "workload=synthetic",
    "workload.input_tokens=1000",
    "workload.output_tokens=5",
    "cost={kind: affine, fixed_us: 8000, per_token_us: 10, per_context_us: 0}",
)
ONE = (*LOAD, "workload.requests=1", "workload.rate_per_s=1")


def result(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(overrides)))


def test_kv_waits_until_its_link_is_back() -> None:
    usual = result(*ONE)
    arrival, took = float(usual.requests["arrival_s"][0]), float(usual.requests["e2e_s"][0])
    broken = f"network.failures=[{{at_s: {arrival}, for_s: 3, pool: prefill, client: 0}}]"
    found = result(*ONE, broken)
    computed = float(usual.stages.filter(usual.stages["stage"] == "prefill")["finish_s"][0]) - arrival
    assert float(found.requests["e2e_s"][0]) == pytest.approx(took + 3 - computed, abs=1e-6)
    assert "network: links change 2 times" in str(hf.compile(hf.compose([*ONE, broken])))


def test_a_link_that_fails_after_the_last_request_changes_nothing() -> None:
    usual, late = result(*ONE), result(*ONE, "network.failures=[{at_s: 1000, for_s: 3, node: 0}]")
    assert late.requests.equals(usual.requests)
    assert late.stages.equals(usual.stages)


def test_nothing_is_lost_on_links_that_fail(tmp_path: Path) -> None:
    broken = "network.failures=[{at_s: 2, for_s: 3, node: 0}, {at_s: 6, for_s: 2, node: 0, share: 0.0001}]"
    found = result(*LOAD, "workload.requests=100", "workload.rate_per_s=10", broken)
    assert found.summary["requests"]["completed"] == 100
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            "{at_s: 1, for_s: 1, pool: prefil, client: 0}",
            "0.pool: there is no pool 'prefil'; expected one of",
        ),
        ("{at_s: 1, for_s: 1, pool: decode, client: 9}", "0.client: there is no client 9; expected 0 to 0"),
        ("{at_s: 1, for_s: 1, node: 9}", "0.node: no client is on node 9; they are on 0"),
        ("{at_s: 1, for_s: 1, rack: 0}", "0.rack: all clients are in one rack"),
        (
            "{at_s: 1, for_s: 5, node: 0}, {at_s: 3, for_s: 5, node: 0}",
            "1.at_s: the same links have failed by",
        ),
    ],
)
def test_links_that_do_not_exist_are_named(failure: str, message: str) -> None:
    problems = problems_of(hf.compose([*ONE, f"network.failures=[{failure}]"]))
    assert any(f"network.failures.{message}" in problem for problem in problems)


@pytest.mark.parametrize("place", ["", ", pool: decode", ", client: 0", ", node: 0, rack: 0"])
def test_a_failure_names_one_place(place: str) -> None:
    with pytest.raises(HermesFlowError, match=r"network\.failures\.0\.(client|pool): expected"):
        hf.compose([*ONE, f"network.failures=[{{at_s: 1, for_s: 1{place}}}]"])


def test_links_fail_only_where_something_moves() -> None:
    problems = problems_of(hf.compose(["pipeline=llm", "network.failures=[{at_s: 1, for_s: 1, node: 0}]"]))
    assert any("network.failures: nothing moves between clients" in problem for problem in problems)
