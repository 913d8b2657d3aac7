"""The oracle's packing orders: who is next in the waiting queue."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from oracles.llm_client import OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_systems
from oracles.worked_examples import client, request

ORDERS = ["fcfs", "shortest_prompt", "least_work_left", "priority", "earliest_deadline"]


def order_of_admission(result: OracleResult) -> list[int]:
    """Return the requests as they were first scheduled; those of one step as its plan admitted them."""
    seen: dict[int, None] = {}
    for step in result.steps:
        seen.update(dict.fromkeys(step.tokens))
    return list(seen)


@pytest.mark.parametrize("batching", ["chunked", "mixed", "continuous", "static"])
@pytest.mark.parametrize(
    ("packing", "order"),
    [
        ("fcfs", [0, 1, 2, 3, 4]),
        ("shortest_prompt", [1, 3, 4, 2, 0]),
        ("least_work_left", [4, 2, 3, 0, 1]),
        ("priority", [2, 4, 0, 1, 3]),
        ("earliest_deadline", [3, 2, 4, 1, 0]),
    ],
)
def test_each_packing_has_its_order_and_ties_go_by_arrival(
    batching: str, packing: str, order: list[int]
) -> None:
    requests = [
        OracleRequest(0, prompt=6, output=2, priority=1, deadline_ns=50),
        OracleRequest(0, prompt=1, output=8, priority=1, deadline_ns=40),
        OracleRequest(0, prompt=4, output=2, priority=0, deadline_ns=30),
        OracleRequest(0, prompt=1, output=6, priority=2, deadline_ns=20),
        OracleRequest(0, prompt=3, output=1, priority=0, deadline_ns=30),
    ]
    spec = client(batching, 0, max_num_seqs=1)
    result = simulate_llm_client(spec, requests, OraclePolicy(packing=packing, age_ns=10))
    assert order_of_admission(result) == order


def test_priority_ages() -> None:
    # A late urgent request overtakes one that has waited for less than the age.
    late_urgent = [
        OracleRequest(0, 1, 9),
        OracleRequest(1000, 1, 1, priority=1),
        OracleRequest(9000, 1, 1, priority=0),
    ]
    spec = client("chunked", 0, max_num_seqs=1)
    overtaken = simulate_llm_client(spec, late_urgent, OraclePolicy(packing="priority", age_ns=8001))
    aged = simulate_llm_client(spec, late_urgent, OraclePolicy(packing="priority", age_ns=8000))
    assert order_of_admission(overtaken) == [0, 2, 1]
    assert order_of_admission(aged) == [0, 1, 2]


def test_deadlines_count_from_the_arrival() -> None:
    requests = [
        OracleRequest(0, 1, 9),
        OracleRequest(1000, 1, 1, deadline_ns=9000),
        OracleRequest(9000, 1, 1, deadline_ns=999),
    ]
    spec = client("chunked", 0, max_num_seqs=1)
    result = simulate_llm_client(spec, requests, OraclePolicy(packing="earliest_deadline"))
    assert order_of_admission(result) == [0, 2, 1]


def test_the_first_in_order_that_does_not_fit_keeps_the_others_waiting() -> None:
    requests = [request(0, 2, 3), request(0, 6, 1), request(0, 7, 1)]
    spec = client("chunked", 0, kv_blocks=4)
    waiting = simulate_llm_client(spec, requests, OraclePolicy(packing="shortest_prompt"))
    assert [step.tokens for step in waiting.steps] == [{0: 2, 1: 6}, {0: 1}, {0: 1}, {2: 7}]
    urgent = [requests[0], requests[1], replace(requests[2], priority=-1)]
    result = simulate_llm_client(spec, urgent, OraclePolicy(packing="priority", age_ns=1))
    assert [step.tokens for step in result.steps] == [{2: 7}, {0: 2, 1: 6}, {0: 1}, {0: 1}]


@pytest.mark.parametrize(
    ("packing", "rest"),
    [
        ("fcfs", [{0: 1}, {0: 1}, {1: 5, 2: 3}, {1: 1, 2: 1}]),
        ("shortest_prompt", [{0: 1, 2: 4}, {0: 1}, {1: 5}, {1: 1}]),
    ],
)
def test_a_preempted_sequence_returns_to_the_head_or_to_its_place(
    packing: str, rest: list[dict[int, int]]
) -> None:
    # Request 1 is preempted with 5 tokens to compute; request 2 waits for blocks with 4.
    spec = client("chunked", 0, kv_blocks=5)
    requests = [request(0, 3, 5), request(0, 3, 4), request(1, 4, 1)]
    result = simulate_llm_client(spec, requests, OraclePolicy(packing=packing))
    assert [(step.tokens, step.preempted) for step in result.steps] == [
        ({0: 3, 1: 3}, []),
        ({0: 1, 1: 1}, []),
        ({0: 1}, [1]),
        *((tokens, []) for tokens in rest),
    ]


@pytest.mark.parametrize("packing", ORDERS)
@settings(max_examples=30)
@given(system=random_systems(policy=OraclePolicy(packing="priority")))
def test_every_order_serves_every_request(packing: str, system: RandomSystem) -> None:
    policy = replace(system.policy, packing=packing)
    result = simulate_llm_client(system.spec, system.requests, policy)
    assert sorted(order_of_admission(result)) == list(range(len(system.requests)))


@pytest.mark.parametrize("packing", ORDERS)
@settings(max_examples=30)
@given(system=random_systems(policy=OraclePolicy(packing="priority")))
def test_requests_alike_are_served_in_order_of_arrival(packing: str, system: RandomSystem) -> None:
    # With room for all, nobody is preempted, and all keys are equal or in order of arrival.
    first = system.requests[0]
    alike = [
        replace(first, arrival_ns=request.arrival_ns, priority=1, deadline_ns=1000)
        for request in system.requests
    ]
    spec = replace(system, requests=alike).with_ample_blocks()
    result = simulate_llm_client(spec, alike, replace(system.policy, packing=packing))
    assert result == simulate_llm_client(spec, alike)
    assert order_of_admission(result) == list(range(len(alike)))
