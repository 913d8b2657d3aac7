"""The inter-token gaps of real LLM clients are those the naive oracle sees, token by token."""

from __future__ import annotations

import random

import pytest
from oracles.client_runs import copying_takes_time, gaps_between, recorded_gaps, run_alone, some_prefilled
from oracles.llm_client import OraclePolicy, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system
from tries import tries

from hermes_flow.pools.llm.client import LLMClient

SYSTEMS = tries(120, of=400)


def check_gaps(system: RandomSystem) -> bool:
    """Check one client's gaps; return whether it preempted."""
    client, tasks = run_alone(LLMClient, system)
    expected = simulate_llm_client(system.spec, system.requests, system.policy)
    gaps = recorded_gaps(client, system.spec.cost.context_ps)
    assert gaps == gaps_between(system, expected.emitted_ps)
    return bool(tasks.preemptions)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous"])
def test_gaps_equal_those_of_the_oracle(batching: str, lookahead: int) -> None:
    rng = random.Random(31 + lookahead)
    preempting = sum(check_gaps(random_system(rng, batching, lookahead)) for _ in range(SYSTEMS))
    assert 0 < preempting < SYSTEMS


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_the_first_gap_of_who_comes_computed_reaches_back_to_the_last_token_elsewhere(
    batching: str, lookahead: int
) -> None:
    rng = random.Random(f"{batching}{lookahead}")
    preempting = 0
    for _ in range(SYSTEMS // 4):
        preemption, packing = (
            rng.choice(["recompute", "swap", "swap"]),
            rng.choice(["fcfs", "least_work_left"]),
        )
        policy = OraclePolicy(packing=packing, preemption=preemption)
        system = copying_takes_time(random_system(rng, batching, lookahead, policy))
        if rng.random() < 0.5:
            system = some_prefilled(system, lambda: rng.random() < 0.5)
        preempting += check_gaps(system)
    assert preempting > SYSTEMS // 16
