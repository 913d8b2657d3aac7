"""Routing by load: each policy against a recount of what it could see, live or at the last scrape."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
from oracles.load_in_hand import InHand
from oracles.random_programs import Wanted, random_program
from oracles.routed_run import RoutedRun

import hermes_flow as hf
from hermes_flow.compiler.program import LLMClientSpec
from hermes_flow.coordinator.routing import RoutingPolicy, routing_policies

SEVERAL = (2, 4)
PERIODS_NS = (1, 700, 3_000, 20_000, 150_000, 2_000_000)


def with_routing(program: hf.Program, policy: RoutingPolicy, stale_ns: int = 0) -> hf.Program:
    """Let all LLM pools be routed by ``policy``, and all pools be scraped."""
    return replace(
        program,
        pools=tuple(
            replace(
                pool,
                routing=policy if isinstance(pool.client, LLMClientSpec) else pool.routing,
                routing_stale_ns=stale_ns,
            )
            for pool in program.pools
        ),
    )


def in_groups(program: hf.Program, rng: random.Random) -> hf.Program:
    """Cut the pools between which KV moves into two groups, where that is possible."""
    linked = {
        pool for op in program.ops if op.kv_from is not None for pool in (op.pool, program.ops[op.kv_from].pool)
    }
    if rng.random() < 0.5 or any(program.pools[pool].count % 2 for pool in linked):
        return program
    pools = (replace(pool, groups=2) if i in linked else pool for i, pool in enumerate(program.pools))
    return replace(program, pools=tuple(pools))


def routed_runs(routing: str, count: int, stale: bool) -> Iterator[RoutedRun]:
    """Run random programs, disaggregated and closed ones among them, of which LLM pools are routed so."""
    rng = random.Random(f"{routing}{stale}")
    policy = routing_policies.parse(routing, "routing")
    for number in range(count):
        program = random_program(rng, Wanted(clients=SEVERAL))
        while number % 2 and not any(op.kv_from is not None for op in program.ops):
            program = random_program(rng, Wanted(clients=SEVERAL))
        program = in_groups(program, rng)
        yield RoutedRun(with_routing(program, policy, rng.choice(PERIODS_NS) if stale else 0))


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
    for routed in routed_runs(routing, 80, stale):
        for pool in routed.llm_pools():
            for decision, clients in routed.in_hand(pool):
                values = WEIGHED_BY[routing](clients)
                assert decision.client == decision.clients[values.index(min(values))]
                decisions += max(values) > min(values)
                op = routed.program.ops[routed.place(pool, decision.task)[0]]
                received += op.kv_from is not None and max(values) > min(values)
    assert decisions > 300
    assert received > 30
