"""Routing: each policy against a recount, from the recorded times alone, of what it could know."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np
import pytest
from oracles.known_work import KnownWork
from oracles.random_programs import Wanted, random_program
from oracles.routed_programs import POLICIES, period_ns, routed_program, with_routing
from oracles.routed_run import RoutedRun
from oracles.watched_run import WatchedRun, as_oracle_sees_it, watch
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec, Pool
from hermes_flow.routing import Choose, RoutedPool, routing_policies

SEVERAL = (2, 4)


def runs(count: int, wanted: Wanted, seed: int) -> Iterator[WatchedRun]:
    rng = random.Random(seed)
    for _ in range(count):
        yield watch(random_program(rng, wanted))


def pools_served_at_once(watched: WatchedRun) -> Iterator[tuple[int, Pool]]:
    """Yield the pools whose tasks are submitted as they are routed: none has to wait for its KV."""
    program = watched.program
    for index, pool in enumerate(program.pools):
        if not any(op.kv is not None for op in program.ops if op.pool == index):
            yield index, pool


def pool_index(program: hf.Program, name: str) -> int:
    return [pool.name for pool in program.pools].index(name)


def test_round_robin_takes_clients_in_turn() -> None:
    for watched in runs(25, Wanted(routing=("round_robin",), clients=SEVERAL), seed=1):
        for index, pool in enumerate(watched.program.pools):
            assert watched.choices[index] == [k % pool.count for k in range(len(watched.choices[index]))]
        for index, _ in pools_served_at_once(watched):
            assert watched.choices[index] == [entry.client for entry in watched.in_pool(index)]


def test_a_lone_client_gets_everything_whatever_the_policy() -> None:
    rng = random.Random(2)
    for _ in range(10):
        program = random_program(rng, Wanted(clients=(1, 1)))
        finishes = []
        for routing in POLICIES.values():
            policy = routing_policies.parse(routing, "routing")
            pools = tuple(replace(pool, routing=policy) for pool in program.pools)
            finishes.append(run(replace(program, pools=pools)).finish_ns.tolist())
        assert all(finish == finishes[0] for finish in finishes)


CHAT = [
    "pipeline=chat",
    "workload=synthetic",
    "workload.requests=1000",
    "workload.rate_per_s=200",
    "workload.input_tokens=40",
    "workload.output_tokens=2",
    "cost=affine",
    "cost.fixed_us=100",
    "slo=none",
    "cluster.routing=random",
    "cluster.pools.llm.count=5",
    "cluster.pools.host.count=3",
]


@cache
def chat(*overrides: str) -> hf.Config:
    return hf.compose([*CHAT, *overrides])


def random_choices(*overrides: str, pool: str = "llm") -> list[int]:
    program = hf.compile(chat(*overrides))
    return watch(program).choices[pool_index(program, pool)]


def test_random_is_drawn_from_the_pools_own_stream() -> None:
    drawn = random_choices()
    assert drawn == random_choices()
    assert drawn != random_choices("seed=1", "workload.seed=0")
    # Neither the other pool's draws nor the workload's touch it.
    assert drawn == random_choices("cluster.pools.host.count=2")
    assert drawn == random_choices("cluster.pools.host.routing=round_robin")
    assert drawn == random_choices("workload.seed=5")
    assert drawn == random_choices("pipeline=llm")
    # Streams of unlike pools are unlike.
    hosts = random_choices("cluster.pools.host.count=5", pool="host")
    assert sum(a == b for a, b in zip(drawn, hosts, strict=False)) < 0.3 * len(drawn)


def test_random_gives_every_client_its_share() -> None:
    counts = Counter(random_choices())
    expected = 1000 / 5
    chi_square = sum((counts[client] - expected) ** 2 / expected for client in range(5))
    assert chi_square < 18.5  # 99.9 % of draws, 4 degrees of freedom


def test_least_requests_takes_the_first_client_with_the_fewest_unfinished_tasks() -> None:
    decisions = 0
    for watched in runs(tries(25, of=60), Wanted(routing=("least_requests",), clients=SEVERAL), seed=3):
        for index, pool in pools_served_at_once(watched):
            finishes: list[list[int]] = [[] for _ in range(pool.count)]
            for entry in watched.in_pool(index):
                unfinished = [sum(finish >= entry.at_ns for finish in client) for client in finishes]
                assert entry.client == unfinished.index(min(unfinished))
                finishes[entry.client].append(watched.times(entry)[1])
                decisions += max(unfinished) > min(unfinished)
    assert decisions > 250


def known_work(watched: WatchedRun, pool: int) -> list[KnownWork]:
    spec = watched.program.pools[pool].client
    assert isinstance(spec, LLMClientSpec)
    given = [watched.given(pool, index) for index in range(watched.program.pools[pool].count)]
    return [KnownWork(spec, *as_oracle_sees_it(watched, entries)) for entries in given]


def test_least_tokens_takes_the_first_client_with_the_least_known_work() -> None:
    decisions = 0
    wanted = Wanted(pipeline="llm", routing=("least_tokens",), clients=SEVERAL)
    for watched in runs(tries(30, of=70), wanted, seed=4):
        pool = watched.program.ops[0].pool
        spec = watched.program.pools[pool].client
        assert isinstance(spec, LLMClientSpec)
        if spec.batching == "static":  # its naive scheduler plans whole gangs
            continue
        clients = known_work(watched, pool)
        submitted = [0] * len(clients)
        for entry in watched.in_pool(pool):
            work = [
                client.before(entry.at_ns, count) for client, count in zip(clients, submitted, strict=True)
            ]
            assert entry.client == work.index(min(work))
            submitted[entry.client] += 1
            decisions += max(work) > min(work)
    assert decisions > 250


def test_least_tokens_on_hosts_takes_the_first_client_with_the_least_core_time_left() -> None:
    decisions = 0
    for watched in runs(tries(25, of=60), Wanted(routing=("least_tokens",), clients=SEVERAL), seed=5):
        pool = pool_index(watched.program, "host")
        tasks: list[list[tuple[int, int]]] = [[] for _ in range(watched.program.pools[pool].count)]
        for entry in watched.in_pool(pool):
            left = [
                sum(finish - max(start, entry.at_ns) for start, finish in client if finish > entry.at_ns)
                for client in tasks
            ]
            assert entry.client == left.index(min(left))
            tasks[entry.client].append(watched.times(entry))
            decisions += max(left) > min(left)
    assert decisions > 50


ROOMY = [
    "pipeline=llm",
    "workload=synthetic",
    "workload.requests=400",
    "workload.rate_per_s=20000",
    "workload.input_tokens={distribution: choice, values: [3, 40, 200]}",
    "cost=affine",
    "cost.fixed_us=100",
    "cost.per_token_us=1",
    "slo=none",
    "cluster.pools.llm.count=3",
    "cluster.pools.llm.max_num_seqs=16",
    "cluster.pools.llm.max_num_batched_tokens=64",
]
STEADY = ("workload.rate_per_s=3000", "workload.requests=200")


@cache
def roomy(*overrides: str) -> hf.Program:
    return hf.compile(hf.compose([*ROOMY, *overrides]))


def roomy_routed(routing: str, *overrides: str, stale_ms: float = 0.0) -> hf.Program:
    """Return the roomy deployment with a routing policy put into it; it is composed once for all of them."""
    policy = routing_policies.parse(POLICIES[routing], "routing")
    return with_routing(roomy(*overrides), policy, round(stale_ms * 1e6))


def with_output(op: Op, output: np.ndarray) -> Op:
    return replace(op, work=replace(op.work, output=output))


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
@pytest.mark.parametrize("routing", [name for name in POLICIES if name != "least_work_left"])
def test_no_policy_knows_an_output_length_before_an_answer_ends(
    routing: str, batching: str, lookahead: int
) -> None:
    program = roomy_routed(
        routing,
        "workload.requests=100",  # many more than come before the first answer ends
        f"cluster.pools.llm.batching={batching}",
        f"cluster.pools.llm.lookahead={lookahead}",
    )
    (op,) = program.ops
    arrival_ns = program.requests.arrival_ns
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(tries(6, of=12)):
        lengths = [rng.choice([1, 2, 3, 5, 9, 30, 120], size=100) for _ in range(2)]
        first, second = (run(replace(program, ops=(with_output(op, output),))) for output in lengths)
        ended_ns = min(first.finish_ns.min(), second.finish_ns.min())
        known = arrival_ns <= ended_ns
        assert not known.all()
        np.testing.assert_array_equal(first.ops[0].client[known], second.ops[0].client[known])
        compared += known.sum()
        assert (lengths[0][known] != lengths[1][known]).any()
    assert compared > 25


def choices_before_answers_end(program: hf.Program) -> Iterator[tuple[list[int], list[int]]]:
    """Yield what was chosen up to an instant, and what would have been if all answers unfinished then were longer."""
    (op,) = program.ops
    count = len(program.requests)
    rng = np.random.default_rng(1)
    output = rng.choice([1, 2, 3, 5, 9, 30, 120], size=count)
    first = run(replace(program, ops=(with_output(op, output),)))
    for quantile in (0.1, 0.4, 0.7):
        at_ns = np.quantile(first.finish_ns, quantile)
        longer = np.where(first.finish_ns >= at_ns, output + rng.integers(1, 50, size=count), output)
        second = run(replace(program, ops=(with_output(op, longer),)))
        known = program.requests.arrival_ns <= at_ns
        assert (first.finish_ns[known] < at_ns).sum() > 10
        assert (longer[known] > output[known]).sum() > 2
        yield first.ops[0].client[known].tolist(), second.ops[0].client[known].tolist()


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
@pytest.mark.parametrize("stale_ms", [0, 0.7])
@pytest.mark.parametrize("routing", [name for name in POLICIES if name != "least_work_left"])
def test_an_answer_that_goes_on_changes_no_choice_before_it_would_have_ended(
    routing: str, stale_ms: float, batching: str, lookahead: int
) -> None:
    engine = (f"cluster.pools.llm.batching={batching}", f"cluster.pools.llm.lookahead={lookahead}")
    program = roomy_routed(routing, *STEADY, *engine, stale_ms=stale_ms)
    for chosen, otherwise in choices_before_answers_end(program):
        assert chosen == otherwise


def test_the_oracle_knows_that_an_answer_will_go_on() -> None:
    pairs = list(choices_before_answers_end(roomy_routed("least_work_left", *STEADY)))
    assert all(chosen != otherwise for chosen, otherwise in pairs)


@pytest.mark.parametrize("routing", [name for name in POLICIES if name.startswith("least_")])
def test_a_task_counts_from_the_moment_it_is_routed_also_while_its_kv_is_on_the_way(routing: str) -> None:
    config = hf.compose(
        [
            "cluster=disaggregated",
            "pipeline=llm",
            "workload=synthetic",
            "workload.requests=8",
            "workload.arrivals=constant",
            "workload.rate_per_s=1000000",
            "workload.input_tokens=1000",
            "workload.output_tokens=50",
            "slo=none",
            f"cluster.pools.decode.routing={routing}",
            "cluster.pools.decode.count=4",
        ]
    )
    watched = watch(hf.compile(config))
    served = Counter(watched.choices[pool_index(watched.program, "decode")])
    assert sorted(served.values()) == [2, 2, 2, 2]


@dataclass
class Replayed:
    """A policy that was told beforehand where each task of a pool goes, and never looks at a client."""

    chosen: dict[int, int]
    clients: int
    groups: int = 0
    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        size = len(pool.clients)
        first = self.groups * size if size < self.clients else 0
        self.groups += size < self.clients
        return lambda task, now_ns: self.chosen[task] - first


@pytest.mark.parametrize("routing", sorted(POLICIES))
def test_being_looked_at_does_not_change_what_a_client_does(routing: str) -> None:
    rng = random.Random(6)
    policy = routing_policies.parse(POLICIES[routing], "routing")
    for number in range(tries(8, of=16)):
        program = routed_program(rng, moves_kv=number % 2 == 1)
        routed = RoutedRun(with_routing(program, policy, period_ns(program, rng) if number % 4 > 1 else 0))
        program, looked_at = routed.program, routed.watched.recording
        chosen = [{one.task: one.client for one in decisions} for decisions in routed.decisions]
        pools = tuple(
            replace(pool, routing=Replayed(chosen[index], pool.count), routing_stale_ns=0)
            for index, pool in enumerate(program.pools)
        )
        unseen = run(replace(program, pools=pools))
        for ours, theirs in zip(looked_at.ops, unseen.ops, strict=True):
            for column in ("client", "ready_ns", "start_ns", "first_ns", "finish_ns", "preemptions"):
                np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column), column)
        for mine, other in zip(looked_at.clients, unseen.clients, strict=True):
            if mine.segments is not None and other.segments is not None:
                assert mine.kv_peak_blocks == other.kv_peak_blocks
                np.testing.assert_array_equal(mine.segments, other.segments)


def test_clients_of_a_pool_are_apart_from_each_other() -> None:
    rng = random.Random(7)
    for _ in range(tries(15, of=25)):
        program = random_program(
            rng, Wanted(pipeline="llm", closed=False, routing=("round_robin",), clients=SEVERAL)
        )
        together = run(program)
        (op,) = program.ops
        count = program.pools[op.pool].count
        served = np.arange(len(program.requests)) - np.cumsum(
            [request in program.rejected for request in range(len(program.requests))]
        )
        for client in range(count):
            others = {
                request: "served by another client"
                for request in range(len(program.requests))
                if served[request] % count != client
            }
            pools = tuple(replace(pool, count=1) for pool in program.pools)
            alone = run(replace(program, pools=pools, rejected=others | program.rejected))
            mine = [
                request
                for request in range(len(program.requests))
                if request not in others | program.rejected
            ]
            np.testing.assert_array_equal(together.ops[0].finish_ns[mine], alone.ops[0].finish_ns[mine])
