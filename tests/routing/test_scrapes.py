"""Loads as of the last multiple of a period: what routers see of hosts and of branches, and when scrapes sleep."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from oracles.random_programs import Wanted, random_program
from oracles.routed_programs import period_ns, routed_program
from oracles.routed_run import RoutedRun

import hermes_flow as hf
from hermes_flow.config.schema import Pipeline
from hermes_flow.machine.run import run
from hermes_flow.routing import Choose, RoutedPool, routing_policies

SPARSE = [
    "pipeline=llm",
    "workload=synthetic",
    "workload.requests=20",
    "workload.arrivals=constant",
    "workload.rate_per_s=1",
    "workload.input_tokens=100",
    "workload.output_tokens=10",
    "cost=affine",
    "cost.fixed_us=1000",
    "slo=none",
    "cluster.pools.llm.count=3",
]


def simulate(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*SPARSE, *overrides])))


def events(*overrides: str) -> int:
    count: int = simulate(*overrides).summary["engine"]["events"]
    return count


@pytest.mark.parametrize("routing", ["least_requests", "least_tokens"])
def test_hosts_are_seen_as_they_were_at_the_last_multiple(routing: str) -> None:
    rng = random.Random(routing)
    decisions = 0
    for _ in range(60):
        program = random_program(rng, Wanted(routing=(routing,), clients=(2, 4)))
        stale_ns = period_ns(program, rng)
        pools = tuple(replace(pool, routing_stale_ns=stale_ns) for pool in program.pools)
        routed = RoutedRun(replace(program, pools=pools))
        (host,) = [index for index, pool in enumerate(program.pools) if pool.name == "host"]
        for decision, at_ns, tasks in routed.seen(host):
            loads = []
            for client in tasks:
                times = [routed.times(host, task) for task in client]
                if routing == "least_requests":
                    loads.append(sum(finish >= at_ns for _, finish in times))
                else:
                    loads.append(sum(finish - max(start, at_ns) for start, finish in times if finish > at_ns))
            assert decision.client == loads.index(min(loads))
            decisions += max(loads) > min(loads)
    assert decisions > 60


def test_branches_count_though_nobody_chooses_for_them() -> None:
    config = hf.compose(
        [
            "pipeline=reasoning_multi",
            "workload=synthetic",
            "workload.requests=60",
            "workload.rate_per_s=40",
            "workload.output_tokens={distribution: uniform, min: 1, max: 9}",
            "slo=none",
            "cluster.routing=least_requests",
            "cluster.routing_stale_ms=30",
            "cluster.pools.llm.count=3",
            "cluster.pools.llm.prefix_cache=true",
        ]
    )
    routed = RoutedRun(hf.compile(config))
    (pool,) = routed.llm_pools()
    given = [routed.watched.given(pool, client) for client in range(3)]
    assert sum(map(len, given)) > 2 * len(routed.decisions[pool])
    differing = 0
    for decision, at_ns, _ in routed.seen(pool):
        loads = [
            sum(one.at_ns <= at_ns <= routed.finish_ns(pool, one.task) for one in client) for client in given
        ]
        assert decision.client == loads.index(min(loads))
        differing += max(loads) > min(loads)
    assert differing > 20


def test_a_task_that_nobody_chooses_for_wakes_the_scrape() -> None:
    stages: dict[str, dict[str, Any]] = {
        "draft": {"kind": "prefill"},
        "draft_answer": {"kind": "decode", "after": ["draft"]},
        "pause": {"kind": "tokenize", "after": ["draft_answer"], "fixed_us": 970_000, "per_token_us": 0},
        "final": {"kind": "prefill", "after": ["pause"]},
        "final_answer": {"kind": "decode", "after": ["final"], "output_scale": 5},
    }
    config = hf.compose([*SPARSE, "cluster.routing=least_requests", "cluster.routing_stale_ms=5"])
    program = hf.compile(replace(config, pipeline=Pipeline("twice", stages)))
    draft, pause, final = program.ops
    again = replace(final, with_op=0)  # begins 20 ms before the next request arrives, and takes 50 ms
    recording = run(replace(program, ops=(draft, pause, again)))
    clients = recording.ops[0].client.tolist()
    assert clients == recording.ops[2].client.tolist()
    assert clients[:4] == [0, 1, 0, 1]


def test_scrapes_sleep_while_nothing_is_unfinished() -> None:
    # A request takes 10 steps of 1 ms, nothing happens for the rest of its second.
    live = events("cluster.routing=least_requests")
    scraped = events("cluster.routing=least_requests", "cluster.routing_stale_ms=1")
    assert 20 * 10 <= scraped - live <= 20 * 13


def test_what_asks_for_no_load_is_not_scraped() -> None:
    for routing in (
        "round_robin",
        "random",
        "{policy: heavy_light, threshold_tokens: 9, within: round_robin}",
    ):
        live = simulate(f"cluster.routing={routing}")
        stale = simulate(f"cluster.routing={routing}", "cluster.routing_stale_ms=0.01")
        assert live.summary["engine"]["events"] == stale.summary["engine"]["events"]
        assert live.requests.equals(stale.requests)


def test_a_period_longer_than_the_run_shows_empty_clients_to_the_end() -> None:
    crowded = ["workload.rate_per_s=1000", "cluster.routing=least_requests"]
    assert simulate(*crowded, "cluster.routing_stale_ms=1e7").stages["client"].unique().to_list() == ["llm/0"]
    assert len(simulate(*crowded).stages["client"].unique()) == 3


def test_a_longer_period_serves_requests_later() -> None:
    busy = ["workload.requests=2000", "workload.rate_per_s=100", "cluster.pools.llm.max_num_seqs=4"]
    p99 = [
        simulate(*busy, "workload.arrivals=poisson", "cluster.routing=least_tokens", f"cluster.routing_stale_ms={ms}")
        .summary["ttft_s"]["p99"]
        for ms in (0, 20, 200)
    ]  # fmt: skip
    assert p99[0] < p99[1] < p99[2]


@dataclass(frozen=True)
class Watching:
    """A policy that asks a client for its load when it chooses, and not before."""

    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        def choose(task: int, now_ns: int) -> int:
            loads = [client.outstanding(now_ns) for client in pool.clients]
            return loads.index(min(loads))

        return choose


def test_asking_when_one_chooses_is_the_same_as_asking_for_it_beforehand() -> None:
    rng = random.Random(8)
    beforehand = routing_policies.parse("least_requests", "routing")
    for _ in range(30):
        program = routed_program(rng, moves_kv=False)
        stale_ns = period_ns(program, rng)
        chosen = []
        for policy in (beforehand, Watching()):
            pools = tuple(replace(pool, routing=policy, routing_stale_ns=stale_ns) for pool in program.pools)
            recording = run(replace(program, pools=pools))
            chosen.append([record.client.tolist() for record in recording.ops])
        assert chosen[0] == chosen[1]


def test_a_part_of_one_client_asks_for_no_loads() -> None:
    """Of three clients, two are heavy and compare loads; the third is alone, and nobody asks for its load."""
    result = simulate(
        "cluster.pools.llm.routing={policy: heavy_light, threshold_tokens: 50, heavy_clients: 2, within: least_kv}",
        "cluster.routing_stale_ms=50",
    )
    assert result.clients.filter(result.clients["pool"] == "llm")["steps"].to_list()[2] == 0
    assert result.summary["requests"]["completed"] == 20
