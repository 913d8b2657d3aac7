"""The figures that routers weigh LLM clients by, at any instant, against a recount from a naive run."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest, simulate_llm_client
from oracles.load_in_hand import InHand, LoadInHand
from oracles.random_systems import RandomSystem, random_system

from hermes_flow.batching import batching_policies
from hermes_flow.batching.packing import packing_orders
from hermes_flow.clients.llm import LLMClient
from hermes_flow.clients.run_steps import steps_begun
from hermes_flow.clients.tasks import LLMTasks
from hermes_flow.compiler.program import PS_PER_NS

POLICIES = [
    PLAIN,
    OraclePolicy(prefix_cache=True),
    OraclePolicy(preemption="none"),
    OraclePolicy(preemption="swap", swap_ps_per_block=1),
    OraclePolicy(packing="shortest_prompt"),
]


def client_of(system: RandomSystem, *, notify: bool) -> LLMClient:
    policy = system.policy
    requests = system.requests
    tasks = LLMTasks(
        [request.prompt for request in requests],
        [request.output for request in requests],
        block_keys=lambda task, block_size, prompt: [hash(key) for key in requests[task].block_keys],
    )
    packing = None if policy.packing == "fcfs" else packing_orders.parse(policy.packing, "packing")
    spec = replace(
        system.spec,
        packing=packing,
        preemption=policy.preemption,
        swap_ps_per_block=policy.swap_ps_per_block,
        prefix_cache=policy.prefix_cache,
    )
    batching = batching_policies.find(spec.batching, "batching")()
    return LLMClient(0, spec, tasks, batching, lambda task, now: None, notify=notify)


def in_hand(client: LLMClient, now_ns: int) -> InHand:
    load = client.load(now_ns)
    return InHand(**{field.name: getattr(load, field.name) for field in fields(InHand)})


def looks_at(system: RandomSystem, rng: random.Random) -> list[int]:
    """Instants of steps' starts and ends, and others; every other one sees many."""
    steps = simulate_llm_client(system.spec, system.requests, system.policy).steps
    starts = [step.start_ps // PS_PER_NS for step in rng.sample(steps, min(6, len(steps)))]
    ends = [step.end_ps // PS_PER_NS for step in rng.sample(steps, min(6, len(steps)))]
    between = [rng.randint(0, steps[-1].end_ps // PS_PER_NS + 2) for _ in range(rng.choice([1, 9, 30]))]
    return [*starts, *(start + 1 for start in starts), *ends, *between]


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed", "static"])
@pytest.mark.parametrize("policy", POLICIES, ids=["plain", "prefix", "none", "swap", "packing"])
def test_figures_are_those_of_a_recount_at_any_instant(
    policy: OraclePolicy, batching: str, lookahead: int
) -> None:
    if batching == "static" and policy != PLAIN:
        pytest.skip("gangs reserve what they need and reuse nothing")
    rng = random.Random(f"{policy}{batching}{lookahead}")
    looks = under_way = 0
    for _ in range(60):
        system = random_system(rng, batching=batching, lookahead=lookahead, policy=policy)
        expected = LoadInHand(system.spec, system.requests, system.policy)
        client = client_of(system, notify=False)
        client.keep_load()
        events = [(request.arrival_ns, 1, task) for task, request in enumerate(system.requests)]
        events += [(look, 0, -1) for look in looks_at(system, rng)]  # a look sees nobody of its own instant
        submitted = 0
        for now_ns, arrives, task in sorted(events):
            if arrives:
                client.submit(task, now_ns)
                submitted += 1
                continue
            figures = expected.before(now_ns, range(submitted))
            assert in_hand(client, now_ns) == figures
            assert client.outstanding(now_ns) == figures.unfinished
            looks += 1
            under_way += figures.kv_tokens > figures.input_tokens
    assert under_way > 0.2 * looks > 100


def test_figures_are_the_same_while_somebody_waits_for_the_answers() -> None:
    rng = random.Random(3)
    for _ in range(100):
        system = random_system(rng, batching="chunked")
        client, waited_for = (client_of(system, notify=notify) for notify in (False, True))
        events = [(request.arrival_ns, 1, task) for task, request in enumerate(system.requests)]
        for each in (client, waited_for):
            each.keep_load()
        for now_ns, arrives, task in sorted(events + [(look, 0, -1) for look in looks_at(system, rng)]):
            while waited_for.next_ns() < now_ns or waited_for.next_delivery_ns() < now_ns:
                if waited_for.next_delivery_ns() <= waited_for.next_ns():
                    waited_for.deliver(waited_for.next_delivery_ns())
                else:
                    waited_for.fire(waited_for.next_ns())
            if waited_for.next_delivery_ns() == now_ns:
                waited_for.deliver(now_ns)  # the coordinator may route what follows at that very instant
            if arrives:
                client.submit(task, now_ns)
                waited_for.submit(task, now_ns)
            else:
                assert in_hand(client, now_ns) == in_hand(waited_for, now_ns)


def test_a_task_counts_with_its_first_token_while_its_kv_is_on_the_way() -> None:
    system = RandomSystem(random_system(random.Random(1), "chunked", 1).spec, [OracleRequest(0, 5, 3)])
    client = client_of(system, notify=False)
    client.keep_load()
    client.expect(0)
    assert in_hand(client, 10) == InHand(1, 5, 6, 1, 3, 0, 0)
    client.tasks.kept[0] = 5
    client.tasks.generated[0] = 1
    client.submit(0, 20)
    assert in_hand(client, 20) == InHand(1, 5, 6, 1, 3, 0, 0)
    assert in_hand(client, 10**15) == InHand(0, 0, 0, 0, 0, 1, 3)


def test_steps_begun_are_counted_exactly() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        first, growth = rng.randint(1, 10 ** rng.randint(0, 9)), rng.choice([0, 1, rng.randint(0, 10**6)])
        begins = [0]
        for step in range(rng.randint(1, 60)):
            begins.append(begins[-1] + first + step * growth)
        for gone in (rng.choice(begins) + rng.randint(-1, 1), rng.randint(0, begins[-1])):
            if gone <= begins[-1]:
                assert steps_begun(gone, first, growth) == sum(begin < gone for begin in begins)
