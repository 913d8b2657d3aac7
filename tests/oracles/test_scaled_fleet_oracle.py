"""Autoscaled pools equal a naive simulator on random systems: who served what and when, and who came and went."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from oracles.fifo_cores import simulate_fifo_cores
from oracles.llm_client import OracleRequest, simulate_llm_client
from oracles.scaled_fleet import Answers, ScaledFleet, ScalingRule, Serve
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.program.fleet import Autoscaling, Failing, Fleet, Outage
from hermes_flow.program.pools import LLMClientSpec, SequentialClientSpec
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.program.work import CoreTime, Generate
from hermes_flow.recording.recording import Recording
from hermes_flow.routing import routing_policies
from hermes_flow.scaling.target import Target

MS = 1_000_000


def random_rule(rng: random.Random, metrics: list[Any]) -> ScalingRule:
    most = rng.randint(1, 5)
    least = rng.randint(0, most)
    return ScalingRule(
        metric=rng.choice(metrics),
        target=rng.choice([0.5, 1, 2, 3.7]),
        tolerance=rng.choice([0, 0.1, 0.4]),
        initial=rng.randint(least, most),
        least=least,
        most=most,
        interval=rng.choice([7, 20, 50]) * MS,
        startup=rng.choice([0, 5, 20, 90]) * MS,
        cooldown=rng.choice([0, 40, 150]) * MS,
        most_up=rng.choice([None, None, 1, 2]),
        most_down=rng.choice([None, None, 1, 2]),
        routing=rng.choice(["round_robin", "least_requests"]),
    )


def scaled(program: hf.Program, pool: int, rule: ScalingRule) -> hf.Program:
    """Return the program with one pool scaled by the rule."""
    scaling = Autoscaling(
        policy=Target(rule.metric, rule.target, rule.tolerance),
        initial=rule.initial,
        least=rule.least,
        most=rule.most,
        interval_ns=rule.interval,
        startup_ns=rule.startup,
        cooldown_ns=rule.cooldown,
        most_up=rule.most_up,
        most_down=rule.most_down,
    )
    pools = list(program.pools)
    routing = routing_policies.parse(rule.routing, "routing")
    pools[pool] = replace(pools[pool], count=rule.most, routing=routing, fleet=Fleet(scaling))
    return replace(program, pools=tuple(pools))


def failing(
    program: hf.Program,
    pool: int,
    failures: list[tuple[int, int, int]],
    notice: int,
    *,
    migrates: bool = False,
) -> hf.Program:
    """Return the program with given failures of a pool's clients."""
    outages = tuple(Outage(at, client, duration) for at, client, duration in sorted(failures))
    pools = list(program.pools)
    fleet = pools[pool].fleet or Fleet()
    lost = Failing(outages, notice_ns=notice, migrates=migrates)
    pools[pool] = replace(pools[pool], fleet=replace(fleet, failing=lost))
    return replace(program, pools=tuple(pools))


def random_failures(rng: random.Random, rule: ScalingRule) -> tuple[list[tuple[int, int, int]], int]:
    """Return failures of clients, some at one instant, and the notice of them."""
    failures = [
        (rng.randint(1, 40) * 15 * MS, rng.randrange(rule.most), rng.choice([10, 60, 400]) * MS)
        for _ in range(rng.randint(1, 12))
    ]
    return failures, rng.choice([0, 0, 30]) * MS


def assert_equal(
    program: hf.Program,
    pool: int,
    serve: Serve,
    rule: ScalingRule,
    failures: list[tuple[int, int, int]] | None = None,
    notice: int = 0,
    answers: Answers | None = None,
) -> Recording:
    """Compare a run with the naive one, and return it."""
    changing = scaled(program, pool, rule)
    if failures:
        changing = failing(changing, pool, failures, notice, migrates=answers is not None)
    recording = run(changing)
    oracle = ScaledFleet(rule, serve, program.requests.arrival_ns.tolist(), failures, notice, answers)
    oracle.run()
    (op,) = recording.ops
    assert op.client.tolist() == oracle.client_of
    assert list(zip(op.start_ns.tolist(), op.finish_ns.tolist(), strict=True)) == oracle.times
    clients = [client for client in recording.clients if client.pool == pool]
    assert [list(client.states) for client in clients] == [client.changes for client in oracle.clients]
    assert recording.retried == dict(Counter(oracle.retried))
    return recording


@cache
def base(*overrides: str) -> hf.Program:
    """Return a program of 40 requests and one op."""
    return hf.compile(hf.compose(["pipeline=llm", "workload=synthetic", "workload.requests=40", *overrides]))


def with_arrivals(program: hf.Program, rng: random.Random, work: Any) -> hf.Program:
    """Return the program with random arrivals, some of them at one instant, and this work."""
    span = rng.choice([200, 600, 2000])
    arrival_ns = sorted(rng.randint(0, span) * MS for _ in range(40))
    requests = replace(program.requests, arrival_ns=np.array(arrival_ns, dtype=np.int64))
    return replace(program, requests=requests, ops=(replace(program.ops[0], work=work),))


@pytest.mark.parametrize("seed", range(tries(40, 600)))
def test_a_pool_of_hosts_scales_as_the_naive_one(seed: int) -> None:
    rng = random.Random(seed)
    tool = "pipeline={name: work, stages: {work: {kind: tool, latency_ms: 1}}}"
    program = base(tool, "cluster.pools.host.serves=[tool]", "cluster.pools.llm.if_needed=true")
    service = [rng.randint(1, 90) * MS for _ in range(40)]
    program = with_arrivals(program, rng, CoreTime(np.array(service, dtype=np.int64), None))
    pool, cores = program.ops[0].pool, rng.randint(1, 3)
    pools = list(program.pools)
    pools[pool] = replace(pools[pool], client=SequentialClientSpec(cores))
    program = replace(program, pools=tuple(pools))

    def serve(tasks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        result = simulate_fifo_cores(cores, [at for _, at in tasks], [service[task] for task, _ in tasks])
        return list(zip(result.start_ns, result.finish_ns, strict=True))

    rule = random_rule(rng, ["queued_per_client", "in_flight_per_client"])
    failures, notice = random_failures(rng, rule) if seed % 2 else (None, 0)
    assert_equal(program, pool, serve, rule, failures, notice)


@pytest.mark.parametrize("seed", range(tries(8, 200)))
def test_a_pool_of_llm_clients_scales_as_the_naive_one(seed: int) -> None:
    rng = random.Random(1000 + seed)
    program = base(
        "cost={kind: affine, fixed_us: 4000, per_token_us: 20, per_context_us: 0.1}",
        "cluster.pools.llm.kv_blocks=2000",
    )
    pool, work = program.ops[0].pool, program.ops[0].work
    assert isinstance(work, Generate)
    prompt, output = ([rng.randint(1, most) for _ in range(40)] for most in (90, 12))
    columns = {"prompt": np.array(prompt, dtype=np.int64), "output": np.array(output, dtype=np.int64)}
    program = with_arrivals(program, rng, replace(work, **columns))
    pools = list(program.pools)
    client = pools[pool].client
    assert isinstance(client, LLMClientSpec)
    spec = replace(client, max_num_seqs=rng.choice([2, 8]), lookahead=rng.choice([0, 1]))
    pools[pool] = replace(pools[pool], client=spec)
    program = replace(program, pools=tuple(pools))

    def serve(tasks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        asked = [OracleRequest(at, prompt[task], output[task]) for task, at in tasks]
        result = simulate_llm_client(spec, asked)
        return [
            (start // PS_PER_NS, finish // PS_PER_NS)
            for start, finish in zip(result.start_ps, result.finish_ps, strict=True)
        ]

    rule = random_rule(rng, ["in_flight_per_client"])
    failures, notice = random_failures(rng, rule) if seed % 2 else (None, 0)
    assert_equal(program, pool, serve, rule, failures, notice)


@pytest.mark.parametrize("seed", range(tries(4, 300)))
def test_answers_of_lost_clients_go_on_as_those_of_the_naive_one(seed: int) -> None:
    rng = random.Random(2000 + seed)
    program = base(
        "cost={kind: affine, fixed_us: 4000, per_token_us: 20, per_context_us: 0.1}",
        "cluster.pools.llm.kv_blocks=2000",
    )
    pool, work = program.ops[0].pool, program.ops[0].work
    assert isinstance(work, Generate)
    prompt, output = ([rng.randint(1, most) for _ in range(40)] for most in (90, 40))
    columns = {"prompt": np.array(prompt, dtype=np.int64), "output": np.array(output, dtype=np.int64)}
    program = with_arrivals(program, rng, replace(work, **columns))
    pools = list(program.pools)
    client = pools[pool].client
    assert isinstance(client, LLMClientSpec)
    blocks = rng.choice([2000, 24])
    spec = replace(client, max_num_seqs=rng.choice([2, 8]), lookahead=seed % 2, kv_blocks=blocks)
    pools[pool] = replace(pools[pool], client=spec)
    program = replace(program, pools=tuple(pools))
    answers = Answers()

    def simulate(tasks: list[tuple[int, int]]) -> Any:
        had = [answers.had[entry] for entry in tasks]
        asked = [
            OracleRequest(at, prompt[task] + has, output[task] - has)
            for (task, at), has in zip(tasks, had, strict=True)
        ]
        return simulate_llm_client(spec, asked)

    def serve(tasks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        result = simulate(tasks)
        return [
            (start // PS_PER_NS, finish // PS_PER_NS)
            for start, finish in zip(result.start_ps, result.finish_ps, strict=True)
        ]

    answers.emitted = lambda tasks: [[ps // PS_PER_NS for ps in one] for one in simulate(tasks).emitted_ps]
    rule = replace(random_rule(rng, ["in_flight_per_client"]), startup=0, least=1, initial=1)
    failures, notice = random_failures(rng, rule)
    recording = assert_equal(program, pool, serve, rule, failures, notice, answers)
    if spec.lookahead or blocks < 2000:
        return
    lost: Counter[int] = Counter()
    for task, now, tasks, has in answers.lost:
        place = [entry[0] for entry in tasks].index(task)
        steps = [step for step in simulate(tasks).steps if step.start_ps < now * PS_PER_NS]
        scheduled = sum(step.tokens.get(place, 0) for step in steps)
        lost[task] += prompt[task] if has else min(scheduled, prompt[task])
    assert {task: tokens for task, tokens in recording.lost_tokens.items() if tokens} == dict(+lost)
