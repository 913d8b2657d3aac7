"""LLM clients that are slow in given times, equal to the naive ones in every instant and every gap between tokens."""

from __future__ import annotations

import random
from bisect import bisect_right

import pytest
from oracles.client_runs import copying_takes_time, full_spec, gaps_between, recorded_gaps, tasks_of
from oracles.llm_client import PLAIN, OraclePolicy, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system
from tries import tries

from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import NEVER, PS_PER_NS

POLICIES = [
    PLAIN,
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    OraclePolicy(preemption="none"),
]

Paces = list[tuple[int, float]]  # (ns, factor from there on), in order of time


def drawn_paces(system: RandomSystem, rng: random.Random) -> Paces:
    """Draw changes of pace: on the grid of arrivals, and anywhere."""
    last_ns = system.requests[-1].arrival_ns + 40 * max(1, system.spec.cost.tokens_ps[1] // PS_PER_NS)
    instants = {rng.choice((rng.choice(system.requests).arrival_ns, rng.randint(0, last_ns))) for _ in "1234"}
    return [(at, rng.choice((1.0, 1.5, 2.0, 7.0))) for at in sorted(instants)]


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.preemption}{policy.prefix_cache}")
def test_slow_clients_equal_the_naive_ones(batching: str, policy: OraclePolicy) -> None:
    rng = random.Random(f"{batching}{policy}")
    slow = 0
    for _ in range(tries(12, of=300)):
        system = copying_takes_time(random_system(rng, batching, policy=policy))
        paces = drawn_paces(system, rng)
        slow += check_equal(system, paces)
    assert slow > 5


def check_equal(system: RandomSystem, paces: Paces) -> bool:
    """Compare a client with the naive one; return whether the paces made a difference."""
    nominal = system.spec.cost
    costs = [nominal] + [nominal if factor == 1 else nominal.scaled(factor) for _, factor in paces]

    def cost_at(planned_ps: int) -> StepCost:
        return costs[bisect_right(paces, planned_ps, key=lambda pace: pace[0] * PS_PER_NS)]

    expected = simulate_llm_client(system.spec, system.requests, system.policy, cost_at=cost_at)
    tasks = tasks_of(system)
    policy = batching_policies.parse(system.spec.batching, "batching")
    client = LLMClient(0, full_spec(system), tasks, policy, lambda task, now: None, notify=False)
    events = [(request.arrival_ns, 0, task) for task, request in enumerate(system.requests)]
    events += [(at, 1, place) for place, (at, _) in enumerate(paces)]
    for now_ns, what, place in sorted(events):
        if what:
            client.set_pace(paces[place][1], now_ns)
        else:
            client.submit(place, now_ns)
    client.settle(NEVER)
    assert list(tasks.start_ps) == expected.start_ps
    assert list(tasks.first_ps) == expected.first_ps
    assert list(tasks.finish_ps) == expected.finish_ps
    assert recorded_gaps(client, nominal.context_ps) == gaps_between(system, expected.emitted_ps)
    return expected.steps != simulate_llm_client(system.spec, system.requests, system.policy).steps
