"""Routing by load: each policy against a recount of what it could see, live or at the last scrape."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
from oracles.load_in_hand import InHand
from oracles.routed_programs import period_ns, routed_program, with_routing
from oracles.routed_run import RoutedRun
from tries import tries

from hermes_flow.routing import routing_policies


def routed_runs(routing: str, count: int, stale: bool) -> Iterator[RoutedRun]:
    """Run random programs, every other one with KV that moves, of which LLM pools are routed so."""
    rng = random.Random(f"{routing}{stale}")
    policy = routing_policies.parse(routing, "routing")
    for number in range(count):
        program = routed_program(rng, moves_kv=number % 2 == 1)
        yield RoutedRun(with_routing(program, policy, period_ns(program, rng) if stale else 0))


def expected_work(clients: list[InHand]) -> list[Fraction]:
    finished = sum(client.finished for client in clients)
    mean = Fraction(sum(client.finished_tokens for client in clients), finished) if finished else Fraction(1)
    return [client.backlog_tokens + client.unfinished * mean for client in clients]


WEIGHED_BY: dict[str, Callable[[list[InHand]], list[int] | list[Fraction]]] = {
    "least_requests": lambda clients: [client.unfinished for client in clients],
    "least_input_tokens": lambda clients: [client.input_tokens for client in clients],
    "least_kv": lambda clients: [client.kv_tokens for client in clients],
    "least_work_left": lambda clients: [client.work_left_tokens for client in clients],
    "least_expected_work": expected_work,
}


@pytest.mark.parametrize("stale", [False, True], ids=["live", "stale"])
@pytest.mark.parametrize("routing", WEIGHED_BY)
def test_the_first_client_with_the_least_is_chosen(routing: str, stale: bool) -> None:
    decisions = received = 0
    for routed in routed_runs(routing, tries(12, of=25), stale):
        for pool in routed.llm_pools():
            for decision, clients in routed.in_hand(pool):
                values = WEIGHED_BY[routing](clients)
                assert decision.client == decision.clients[values.index(min(values))]
                decisions += max(values) > min(values)
                op = routed.program.ops[routed.place(pool, decision.task)[0]]
                received += op.kv is not None and max(values) > min(values)
    assert decisions > 50
    assert received > 5
