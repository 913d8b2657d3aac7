"""Routing by what suits a task: each policy against a recount, on random programs, live or by scrapes."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import pytest
from oracles.routed_programs import period_ns, routed_program, with_routing
from oracles.routed_run import Decision, RoutedRun

from hermes_flow.network.topology import Topology
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.routing import routing_policies
from hermes_flow.routing.prefix_index import PrefixIndex

live_or_stale = pytest.mark.parametrize("stale", [False, True], ids=["live", "stale"])


def routed_runs(
    settings: Sequence[dict[str, Any]], stale: bool, count: int = 25
) -> Iterator[tuple[RoutedRun, dict[str, Any]]]:
    """Run random programs whose LLM pools are routed by one of ``settings``, every other one with KV that moves."""
    rng = random.Random(f"{settings}{stale}")
    for number in range(count):
        chosen = rng.choice(settings)
        program = routed_program(rng, moves_kv=number % 2 == 1)
        policy = routing_policies.parse(chosen, "routing")
        yield RoutedRun(with_routing(program, policy, period_ns(program, rng) if stale else 0)), chosen


def session_of(routed: RoutedRun, decision: Decision) -> int:
    """Return the session of a task, or a negative number for a request that has none."""
    sessions = routed.program.requests.session
    assert sessions is not None
    request = routed.place(decision.pool, decision.task)[1]
    return int(sessions[request]) if sessions[request] >= 0 else -1 - request


def blocks_of(routed: RoutedRun, decision: Decision) -> Sequence[Hashable]:
    prefixes, spec = routed.program.requests.prefixes, routed.program.pools[decision.pool].client
    assert isinstance(spec, LLMClientSpec)
    if prefixes is None or not spec.prefix_cache:
        return ()
    request = routed.place(decision.pool, decision.task)[1]
    return prefixes.block_keys(request, spec.block_size, routed.input_tokens(decision.pool, decision.task))


def transfers_ns(routed: RoutedRun, decision: Decision) -> list[int]:
    """Return how long the task's KV would take to each client it could go to."""
    program = routed.program
    number, request = routed.place(decision.pool, decision.task)
    op = program.ops[number]
    if op.kv is None:
        return [0 for _ in decision.clients]
    assert program.network is not None
    assert op.kv is not None
    first = [sum(pool.count for pool in program.pools[:index]) for index in range(len(program.pools))]
    sender = first[program.ops[op.kv.source].pool]
    sender += int(routed.watched.recording.ops[op.kv.source].client[request])
    topology, size = Topology(program.network), int(op.kv.bytes[request])
    return [
        topology.alone_ns(topology.path(sender, first[decision.pool] + client), size)
        for client in decision.clients
    ]


class NaiveMemory:
    """For each client the blocks it was sent, the latest last."""

    def __init__(self, clients: range, capacity: int) -> None:
        self.clients = clients
        self.capacity = capacity
        self.sent: dict[int, list[Hashable]] = {client: [] for client in clients}

    def missing(self, blocks: Sequence[Hashable]) -> list[int]:
        """Return how many blocks of a prompt each client lacks."""
        return [len(blocks) - self._matched(blocks, self.sent[client]) for client in self.clients]

    def _matched(self, blocks: Sequence[Hashable], sent: list[Hashable]) -> int:
        depth = 0
        while depth < len(blocks) and blocks[depth] in sent:
            depth += 1
        return depth

    def note(self, blocks: Sequence[Hashable], client: int) -> None:
        sent = self.sent[client]
        for block in reversed(blocks):
            if block in sent:
                sent.remove(block)
            sent.append(block)
        del sent[: max(0, len(sent) - self.capacity)]


def first_lowest(decision: Decision, values: Sequence[Any]) -> int:
    return decision.clients[list(values).index(min(values))]


def capacity_of(routed: RoutedRun, pool: int, settings: dict[str, Any]) -> int:
    spec = routed.program.pools[pool].client
    assert isinstance(spec, LLMClientSpec)
    return settings.get("capacity_blocks") or spec.kv_blocks


PREFIX_AFFINITY = [
    {"policy": "prefix_affinity"},
    {"policy": "prefix_affinity", "imbalance_requests": 0, "imbalance_ratio": 1.0},
    {"policy": "prefix_affinity", "imbalance_requests": 2, "imbalance_ratio": 1.7},
    {"policy": "prefix_affinity", "capacity_blocks": 3},
    {"policy": "prefix_affinity", "capacity_blocks": 9, "imbalance_requests": 1},
]


@live_or_stale
def test_prefix_affinity_takes_the_client_that_was_sent_the_longest_beginning(stale: bool) -> None:
    matched = unbalanced = without = forgotten = 0
    for routed, settings in routed_runs(PREFIX_AFFINITY, stale, count=60):
        for pool in routed.llm_pools():
            memories: dict[range, NaiveMemory] = {}
            capacity = capacity_of(routed, pool, settings)
            for decision, loads in routed.outstanding(pool):
                memory = memories.setdefault(decision.clients, NaiveMemory(decision.clients, capacity))
                blocks = blocks_of(routed, decision)
                missing = memory.missing(blocks)
                most, least = max(loads), min(loads)
                if most - least > settings.get("imbalance_requests", 64) and most > least * settings.get(
                    "imbalance_ratio", 1.5
                ):
                    assert decision.client == first_lowest(decision, loads)
                    unbalanced += len(set(missing)) > 1
                else:
                    keys = list(zip(missing, loads, strict=True))
                    assert decision.client == first_lowest(decision, keys)
                    matched += missing.index(min(missing)) != loads.index(least)
                    without += not blocks
                memory.note(blocks, decision.client)
                forgotten += len(memory.sent[decision.client]) == capacity
    assert min(matched, unbalanced, without, forgotten) > 10


@pytest.mark.parametrize("capacity", [1, 5, 40, 10**6])
def test_what_was_sent_is_remembered_up_to_the_capacity_however_often_it_is_sent(capacity: int) -> None:
    rng = random.Random(capacity)
    naive, index = NaiveMemory(range(1), capacity), PrefixIndex(None if capacity == 10**6 else capacity)
    matched = 0
    for _ in range(1500):
        family, depth = rng.randint(0, 6), rng.choice([0, 1, 3, 9, 20])
        blocks = [(family, block) for block in range(depth)] + [(rng.randint(7, 999), 0)] * rng.randint(0, 1)
        assert index.matched(blocks) == len(blocks) - naive.missing(blocks)[0]
        matched += index.matched(blocks) > 0
        if rng.random() < 0.7:
            index.note(blocks)
            naive.note(blocks, 0)
        assert len(index) == len(naive.sent[0])
    assert matched > 110


SESSION_AFFINITY = [
    {"policy": "session_affinity"},
    {"policy": "session_affinity", "first": "least_kv"},
]


@live_or_stale
def test_session_affinity_keeps_a_session_where_its_first_task_went(stale: bool) -> None:
    firsts = kept = 0
    for routed, settings in routed_runs(SESSION_AFFINITY, stale):
        for pool in routed.llm_pools():
            homes: dict[tuple[range, int], int] = {}
            for decision, clients in routed.in_hand(pool):
                session = session_of(routed, decision)
                home = homes.get((decision.clients, session))
                if home is None:
                    loads = [one.kv_tokens if "first" in settings else one.unfinished for one in clients]
                    assert decision.client == first_lowest(decision, loads)
                    firsts += len(set(loads)) > 1
                    homes[decision.clients, session] = decision.client
                else:
                    assert decision.client == home
                    kept += 1
    assert min(firsts, kept) > 25


@live_or_stale
def test_nearest_takes_the_least_loaded_of_the_nearest_clients(stale: bool) -> None:
    nearer = tied = 0
    for routed, _ in routed_runs([{"policy": "nearest"}], stale):
        for pool in routed.llm_pools():
            for decision, loads in routed.outstanding(pool):
                distances = transfers_ns(routed, decision)
                keys = list(zip(distances, loads, strict=True))
                assert decision.client == first_lowest(decision, keys)
                nearer += len(set(distances)) > 1 and decision.client != first_lowest(decision, loads)
                tied += len(set(distances)) == 1 < len(set(loads))
    assert min(nearer, tied) > 10


HEAVY_LIGHT = [
    {"policy": "heavy_light", "threshold_tokens": threshold, "heavy_clients": heavy}
    | ({"within": within} if within else {})
    for threshold in (1, 7, 9, 20)
    for heavy in (0.5, 0.3, 0.9, 1)
    for within in (None, "round_robin")
]


@live_or_stale
def test_heavy_light_keeps_long_prompts_on_clients_of_their_own(stale: bool) -> None:
    counts = {True: 0, False: 0}
    for routed, settings in routed_runs(HEAVY_LIGHT, stale):
        for pool in routed.llm_pools():
            turns: dict[range, int] = {}
            for decision, loads in routed.outstanding(pool):
                size = len(decision.clients)
                if size == 1:
                    continue
                share = settings["heavy_clients"]
                heavy = share if share >= 1 else min(max(1, round(share * size)), size - 1)
                long = routed.input_tokens(pool, decision.task) > settings["threshold_tokens"]
                part = range(heavy) if long else range(heavy, size)
                where = decision.clients[part.start : part.stop]
                if "within" in settings:
                    assert decision.client == where[turns.setdefault(where, 0) % len(where)]
                    turns[where] += 1
                else:
                    own = loads[part.start : part.stop]
                    assert decision.client == where[own.index(min(own))]
                counts[long] += 1
    assert min(counts.values()) > 50


WEIGHTED = [
    {"policy": "weighted", "weights": weights}
    for weights in (
        {"least_requests": 1, "prefix_affinity": 2, "nearest": 0.5},
        {"least_kv": 1, "prefix_affinity": 1},
        {"session_affinity": 3, "least_requests": 1},
        {"nearest": 1, "least_kv": 0.3},
    )
]


@live_or_stale
def test_weighted_takes_the_lowest_sum_of_scores_over_their_largest(stale: bool) -> None:
    differing = 0
    for routed, settings in routed_runs(WEIGHTED, stale, count=35):
        for pool in routed.llm_pools():
            memories: dict[range, NaiveMemory] = {}
            homes: dict[tuple[range, int], int] = {}
            for decision, clients in routed.in_hand(pool):
                memory = memories.setdefault(
                    decision.clients, NaiveMemory(decision.clients, capacity_of(routed, pool, {}))
                )
                blocks, session = blocks_of(routed, decision), session_of(routed, decision)
                home = homes.get((decision.clients, session))
                scores = {
                    "least_requests": [one.unfinished for one in clients],
                    "least_kv": [one.kv_tokens for one in clients],
                    "prefix_affinity": memory.missing(blocks),
                    "nearest": transfers_ns(routed, decision),
                    "session_affinity": [int(home not in (None, client)) for client in decision.clients],
                }
                sums = [0.0] * len(clients)
                for name, weight in settings["weights"].items():
                    for place, score in enumerate(scores[name]):
                        sums[place] += weight * (score / (max(scores[name]) or 1))
                assert decision.client == first_lowest(decision, sums)
                differing += any(decision.client != first_lowest(decision, own) for own in scores.values())
                memory.note(blocks, decision.client)
                homes[decision.clients, session] = decision.client
    assert differing > 100


@live_or_stale
def test_power_of_two_asks_two_clients_and_takes_the_less_loaded(stale: bool) -> None:
    told = second = 0
    for routed, _ in routed_runs([{"policy": "power_of_two"}], stale):
        for pool in routed.llm_pools():
            for decision, loads in routed.outstanding(pool):
                if len(decision.clients) == 1:
                    continue
                (one, its_load), (other, others_load) = decision.asked
                assert one != other
                known = dict(zip(decision.clients, loads, strict=True))
                assert (its_load, others_load) == (known[one], known[other])
                assert decision.client == (one if its_load <= others_load else other)
                told += its_load != others_load
                second += decision.client == other
    assert min(told, second) > 50
