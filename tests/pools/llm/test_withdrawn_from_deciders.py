"""Clients with SGLang's and TensorRT-LLM's schedulers lose tasks at any moment: equal to the naive simulators."""

from __future__ import annotations

import random
from pathlib import Path

from oracles.sglang_cases import oracle_of
from pools.llm.test_sglang_client import random_case
from pools.llm.test_tensorrt_llm_client import by_the_rules, compiled, system, waiting_system
from tries import tries
from validation.test_sglang_schedules import configure, write_trace

import hermes_flow as hf
from hermes_flow.machine.build import build_clients
from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.program.units import NEVER, PS_PER_NS

NS_PER_US = 1000


def run(program: hf.Program, withdrawn: dict[int, int], rng: random.Random) -> DecidingClient:
    """Run the LLM client of a program alone; tasks are taken back at the given nanoseconds."""
    calls = Calls(lambda task, now: None, lambda task, now: None, lambda task, now, why: None, notify=False)
    _, clients = build_clients(program, program.ops[0].pool, [0], calls, None)
    (client,) = clients
    assert isinstance(client, DecidingClient)
    client.keep_load()
    arrivals = program.requests.arrival_ns.tolist()
    events = [(at, 0, task) for task, at in enumerate(arrivals)]
    events += [(at, 1, task) for task, at in withdrawn.items()]
    here: set[int] = set()
    for now_ns, what, task in sorted(events):
        if what == 0:
            client.submit(task, now_ns)
            here.add(task)
        else:
            client.withdraw(task, now_ns)
            if not 0 <= client.tasks.finish_ps[task] < (now_ns + 1) * PS_PER_NS:
                here.remove(task)
        if rng.random() < 0.5:
            outstanding = client.outstanding(now_ns)
            finish_ps = client.tasks.finish_ps
            assert outstanding == sum(not 0 <= finish_ps[one] < now_ns * PS_PER_NS for one in here)
    client.settle(NEVER)
    assert client.outstanding(NEVER // PS_PER_NS) == 0
    assert not client.load(NEVER // PS_PER_NS).in_hand
    assert client._scheduler.idle
    return client


def seen(at: list[int], withdrawn: dict[int, int]) -> list[int]:
    """The instants in ns that come before a task is taken back."""
    return [-1 if ns > withdrawn.get(task, NEVER) else max(-1, ns) for task, ns in enumerate(at)]


def in_ns(picoseconds: list[int]) -> list[int]:
    return [ps // PS_PER_NS for ps in picoseconds]


def impatience(arrivals: list[int], end: int, rng: random.Random) -> dict[int, int]:
    """Half of the tasks are taken back, some at once and some long after they came."""
    longest = max(1, (end - arrivals[0]) // 2)
    return {
        task: at + rng.choice((0, rng.randint(0, longest), rng.randint(0, longest // 8)))
        for task, at in enumerate(arrivals)
        if rng.random() < 0.5
    }


def test_sglang_removes_who_waits_and_ends_who_runs_with_the_next_token(tmp_path: Path) -> None:
    taken = 0
    for seed in range(tries(10, of=400)):
        rng = random.Random(seed)
        case = random_case(rng)
        case["requests"] = [row | {"after": None, "shared": row["shared"]} for row in case["requests"]]
        case["scheduler_recv_interval"] = (1, 1, 4, 9)[seed % 4]
        write_trace(case, path := tmp_path / f"{seed}.parquet")
        program = hf.compile(configure(case, path))
        arrivals = [row["arrival_us"] * NS_PER_US for row in case["requests"]]
        undisturbed = oracle_of(case)
        undisturbed.run()
        end = max(request.finish for request in undisturbed.requests) * NS_PER_US
        if min(request.finish for request in undisturbed.requests) < 0:  # the engine would wait for ever
            continue
        withdrawn = {task: at // NS_PER_US * NS_PER_US for task, at in impatience(arrivals, end, rng).items()}
        oracle = oracle_of(case)
        for request in oracle.requests:
            if request.number in withdrawn:
                request.withdrawn = withdrawn[request.number] // NS_PER_US
        oracle.run()
        client = run(program, withdrawn, rng)
        expected = [request.finish * NS_PER_US for request in oracle.requests_by_number()]
        assert seen(in_ns(client.tasks.finish_ps), withdrawn) == seen(expected, withdrawn)
        assert client.record(0).busy_ns == sum(step.duration for step in oracle.steps) * NS_PER_US
        pool = client._scheduler.pool
        assert pool.room == pool.capacity
        taken += sum(request.told and request.first >= 0 for request in oracle.requests)
    assert taken > 2


def test_tensorrt_llm_cancels_after_the_next_result(tmp_path: Path) -> None:
    taken = 0
    for seed in range(tries(6, of=450)):
        rng = random.Random(seed)
        pool, rows = system(seed) if seed % 2 else waiting_system(seed)
        unit = None if pool["context_chunking_policy"] == "none" else pool["block_size"]
        arrivals = [row["arrival_us"] * NS_PER_US for row in rows]
        end = max(request.finish for request in by_the_rules(pool, rows, unit).requests)
        withdrawn = impatience(arrivals, end, rng)
        oracle = by_the_rules(pool, rows, unit, withdrawn)
        client = run(compiled(tmp_path, pool, rows), withdrawn, rng)
        expected = [request.finish for request in oracle.requests]
        assert seen(in_ns(client.tasks.finish_ps), withdrawn) == seen(expected, withdrawn)
        rows_of = client.record(0).segments
        assert rows_of is not None
        assert int(rows_of[:, 2].sum()) == len(oracle.steps)
        blocks = client._scheduler.pool
        assert blocks.available == blocks.blocks
        taken += sum(request.told and request.first >= 0 for request in oracle.requests)
    assert taken > 2
