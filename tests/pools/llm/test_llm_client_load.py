"""What a router sees of an LLM client, at any instant, against a recount from a naive run."""

from __future__ import annotations

import random

import pytest
from oracles.known_work import KnownWork
from oracles.llm_client import OracleRequest, simulate_llm_client
from oracles.random_systems import RandomSystem, build_affine_cost, random_system
from oracles.small_clients import small_client
from tries import tries

from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.units import PS_PER_NS


def client_of(system: RandomSystem) -> LLMClient:
    tasks = LLMTasks([r.prompt for r in system.requests], [r.output for r in system.requests])
    policy = batching_policies.find(system.spec.batching, "batching")()
    return LLMClient(0, system.spec, tasks, policy, lambda task, now: None, notify=False)


def check_load(system: RandomSystem, looks: list[int]) -> None:
    """Submit every request as it arrives, and look at each of ``looks`` (ns) in between."""
    requests = system.requests
    finish_ps = simulate_llm_client(system.spec, requests).finish_ps
    known = KnownWork(system.spec, requests, system.policy) if system.spec.batching != "static" else None
    client = client_of(system)
    events = sorted([(request.arrival_ns, 1, task) for task, request in enumerate(requests)])
    events = sorted(events + [(look, 0, -1) for look in looks])  # a look does not see who arrives at once
    submitted = 0
    for now, arrives, task in events:
        if arrives:
            client.submit(task, now)
            submitted += 1
            continue
        unfinished = sum(finish_ps[other] >= now * PS_PER_NS for other in range(submitted))
        assert client.outstanding(now) == unfinished
        if known is not None:
            assert client.queued_tokens(now) == known.before(now, submitted)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed", "static"])
def test_load_is_known_exactly_at_any_instant(batching: str, lookahead: int) -> None:
    rng = random.Random(40 + lookahead)
    for _ in range(tries(20, of=50)):
        system = random_system(rng, batching=batching, lookahead=lookahead)
        steps = simulate_llm_client(system.spec, system.requests).steps
        starts = [step.start_ps // PS_PER_NS for step in rng.sample(steps, min(6, len(steps)))]
        ends = [step.end_ps // PS_PER_NS for step in rng.sample(steps, min(6, len(steps)))]
        between = [rng.randint(0, steps[-1].end_ps // PS_PER_NS) for _ in range(8)]
        check_load(system, [*starts, *(start + 1 for start in starts), *ends, *between])


def test_a_request_preempted_with_its_last_token_on_the_way_counts_until_that_is_delivered() -> None:
    cost = build_affine_cost(0.1, 0, 0, max_tokens=40, max_seqs=5)
    sizes = {"kv_blocks": 2, "block_size": 7, "max_num_seqs": 5, "max_num_batched_tokens": 35}
    spec = small_client(cost, lookahead=1, **sizes)
    system = RandomSystem(spec, [OracleRequest(0, 2, 7), OracleRequest(0, 1, 6)])
    # Steps of 100 ns. The plan made at 500 ns takes the block of request 1, whose last token comes at 600 ns.
    assert simulate_llm_client(spec, system.requests).preemptions == [0, 1]
    check_load(system, [500, 501, 600, 601, 700])
