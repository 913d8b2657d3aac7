"""The figures that routers weigh LLM clients by, at any instant, against a recount from a naive run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
from oracles.client_runs import copying_takes_time, full_spec, tasks_of
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest
from oracles.load_in_hand import InHand, LoadInHand
from oracles.random_pipelines import random_pipeline
from oracles.random_speculations import random_speculation
from oracles.random_systems import RandomSystem, random_system
from tries import tries

from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.decode_run import steps_begun
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.program.units import PS_PER_NS

AnyLLMClient = LLMClient | PipelinedClient
Draw = Callable[[random.Random, str, OraclePolicy], RandomSystem]

POLICIES = {
    "plain": PLAIN,
    "prefix": OraclePolicy(prefix_cache=True),
    "none": OraclePolicy(preemption="none"),
    "swap": OraclePolicy(preemption="swap", swap_ps_per_block=1),
    "packing": OraclePolicy(packing="shortest_prompt"),
}
KINDS: dict[str, Draw] = {
    "lookahead 0": lambda rng, batching, policy: random_system(rng, batching, 0, policy),
    "lookahead 1": lambda rng, batching, policy: random_system(rng, batching, 1, policy),
    "pipelined": lambda rng, batching, policy: random_pipeline(rng, batching, policy),
    "speculating": lambda rng, batching, policy: random_speculation(rng, batching, rng.randint(0, 1), policy),
}


def cases() -> Iterator[tuple[str, str, str]]:
    for kind in KINDS:
        for batching in ("chunked", "continuous", "mixed"):
            for policy in POLICIES:
                yield kind, batching, policy
    yield "lookahead 0", "static", "plain"
    yield "lookahead 1", "static", "plain"


def client_of(system: RandomSystem, *, notify: bool) -> AnyLLMClient:
    policy = batching_policies.find(system.spec.batching, "batching")()
    kind = PipelinedClient if system.spec.pipeline_ranks > 1 else LLMClient
    client = kind(0, full_spec(system), tasks_of(system), policy, lambda task, now: None, notify=notify)
    client.keep_load()
    return client


def in_hand(client: AnyLLMClient, now_ns: int) -> InHand:
    load = client.load(now_ns)
    return InHand(**{field.name: getattr(load, field.name) for field in fields(InHand)})


def events_of(system: RandomSystem, rng: random.Random) -> list[tuple[int, int, int]]:
    """When each task is routed (1) and submitted (2), and instants of looks (0), which see nobody of their own.

    Of the instants some are those of tokens, and the next ones.
    """
    result = LoadInHand(system.spec, system.requests, system.policy).result
    instants_ps = [*result.finish_ps, *(at_ps for times in result.emitted_ps for at_ps in times)]
    emitted = [at_ps // PS_PER_NS for at_ps in instants_ps]
    looks = [rng.choice(emitted) + rng.randint(0, 1) for _ in range(10)]
    looks += [rng.randint(0, max(emitted) + 2) for _ in range(rng.choice([1, 9, 30]))]
    events = [(look, 0, -1) for look in looks]
    for task, request in enumerate(system.requests):
        events += [(request.arrival_ns, 1, task), (request.arrival_ns, 2, task)]
    return sorted(events, key=lambda event: (event[0], event[1] > 0))


def tell(client: AnyLLMClient, system: RandomSystem, event: tuple[int, int, int]) -> None:
    now_ns, what, task = event
    if what == 2:
        client.submit(task, now_ns)


@pytest.mark.parametrize(("kind", "batching", "policy"), list(cases()))
def test_figures_are_those_of_a_recount_at_any_instant(kind: str, batching: str, policy: str) -> None:
    rng = random.Random(f"{kind}{batching}{policy}")
    looks = under_way = 0
    for _ in range(tries(6, of=12)):
        system = copying_takes_time(KINDS[kind](rng, batching, POLICIES[policy]))
        expected = LoadInHand(full_spec(system), system.requests, system.policy)
        client = client_of(system, notify=False)
        routed: list[int] = []
        for event in events_of(system, rng):
            now_ns, what, task = event
            tell(client, system, event)
            if what == 1:
                routed.append(task)
            elif what == 0:
                figures = expected.before(now_ns, routed)
                assert in_hand(client, now_ns) == figures
                assert client.outstanding(now_ns) == figures.unfinished
                looks += 1
                under_way += figures.kv_tokens > figures.input_tokens
    assert under_way > 0.15 * looks > 8


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_the_same_while_somebody_waits_for_the_answers(kind: str) -> None:
    rng = random.Random(3)
    for _ in range(tries(10, of=25)):
        system = KINDS[kind](rng, "chunked", PLAIN)
        client, waited_for = (client_of(system, notify=notify) for notify in (False, True))
        for event in events_of(system, rng):
            now_ns, what, _ = event
            while waited_for.next_ns() < now_ns or waited_for.next_delivery_ns() < now_ns:
                if waited_for.next_delivery_ns() <= waited_for.next_ns():
                    waited_for.deliver(waited_for.next_delivery_ns())
                else:
                    waited_for.fire(waited_for.next_ns())
            if waited_for.next_delivery_ns() == now_ns:
                waited_for.deliver(now_ns)  # the coordinator may route what follows at that very instant
            tell(client, system, event)
            tell(waited_for, system, event)
            if what == 0:
                assert in_hand(client, now_ns) == in_hand(waited_for, now_ns)


def test_a_task_counts_with_its_first_token_while_its_kv_is_on_the_way() -> None:
    spec = random_system(random.Random(1), "chunked", 1).spec
    system = RandomSystem(spec, [OracleRequest(20, 5, 3, prefilled=True)])
    client = client_of(system, notify=False)
    granted: list[tuple[int, int, int | None, int]] = []
    client.grant_to(lambda *grant: granted.append(grant))
    client.tasks.kept.clear()
    asked_ns = client.ask(0, 10)
    assert in_hand(client, 10) == InHand(1, 5, 6, 1, 3, 0, 0)
    client.fire(asked_ns)
    assert granted == [(0, 0, None, asked_ns)]
    assert in_hand(client, asked_ns + 20) == InHand(1, 5, 6, 1, 3, 0, 0)
    client.bring(0, asked_ns + 20)
    assert in_hand(client, asked_ns + 20) == InHand(1, 5, 6, 1, 3, 0, 0)
    assert in_hand(client, 10**15) == InHand(0, 0, 0, 0, 0, 1, 3)


def test_a_task_counts_with_its_prompt_while_its_context_is_looked_up() -> None:
    spec = random_system(random.Random(1), "chunked", 1).spec
    client = client_of(RandomSystem(spec, [OracleRequest(20, 5, 3)]), notify=False)
    client.await_data(0)
    assert in_hand(client, 10) == InHand(1, 5, 5, 5, 8, 0, 0)
    assert client.outstanding(10) == 1
    assert client.queued_tokens(10) == 5
    client.submit(0, 20)
    assert in_hand(client, 20) == InHand(1, 5, 5, 5, 8, 0, 0)
    assert in_hand(client, 10**15) == InHand(0, 0, 0, 0, 0, 1, 3)


def test_steps_begun_are_counted_exactly() -> None:
    rng = random.Random(2)
    for _ in range(tries(300, of=1000)):
        first, growth = rng.randint(1, 10 ** rng.randint(0, 9)), rng.choice([0, 1, rng.randint(0, 10**6)])
        begins = [0]
        for step in range(rng.randint(1, 60)):
            begins.append(begins[-1] + first + step * growth)
        for gone in (rng.choice(begins) + rng.randint(-1, 1), rng.randint(0, begins[-1])):
            if gone <= begins[-1]:
                assert steps_begun(gone, first, growth) == sum(begin < gone for begin in begins)
