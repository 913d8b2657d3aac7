"""Batched clients: equal to a naive reference task by task, to bulk-service queues, and to shared memory by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from oracles.batch_servers import OracleBatchPool, OracleOp, OracleRun, simulate_batch_servers
from oracles.random_batches import batched_op, batched_pool, batched_program, random_batches
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.program.network import HostMemory
from hermes_flow.program.pools import BatchedClientSpec, Pool
from hermes_flow.program.program import Program
from hermes_flow.program.work import PassCost
from hermes_flow.recording.recording import Recording


def one_server(arrival_ns: list[int], ns: tuple[int, ...], wait_ns: int = 0) -> Recording:
    """Run one client with passes of up to ``len(ns) − 1`` tasks of one stage."""
    spec = BatchedClientSpec(len(ns) - 1, wait_ns)
    op = batched_op("search", 0, PassCost(ns=ns), len(arrival_ns))
    return run(batched_program((batched_pool("p", 1, spec),), (op,), arrival_ns))


def by_the_oracle(program: Program) -> OracleRun:
    count = len(program.requests)
    pools = []
    for pool in program.pools:
        assert isinstance(pool.client, BatchedClientSpec)
        pools.append(OracleBatchPool(pool.count, pool.client.max_batch, pool.client.wait_ns))
    ops = [
        OracleOp(op.pool, op.after, [True] * count if op.taken is None else op.taken.tolist())
        for op in program.ops
    ]

    def pass_ns(op: int, batch: list[int]) -> int:
        cost, tokens = program.ops[op].work.cost, program.ops[op].work.tokens
        assert cost is not None
        assert tokens is not None
        if cost.step is None:
            return cost.ns[len(batch)]
        return cost.step.tokens_ps[int(tokens[batch].sum())] // 1000

    return simulate_batch_servers(program.requests.arrival_ns.tolist(), pools, ops, pass_ns)


@settings(max_examples=tries(100, of=300))
@given(program=random_batches())
def test_every_task_begins_and_ends_when_the_naive_reference_says(program: Program) -> None:
    recording, oracle = run(program), by_the_oracle(program)
    for number, record in enumerate(recording.ops):
        for mine, theirs in (
            (record.ready_ns, oracle.ready_ns),
            (record.start_ns, oracle.start_ns),
            (record.finish_ns, oracle.finish_ns),
            (record.client, oracle.client),
        ):
            expected = [theirs.get((number, request), -1) for request in range(len(program.requests))]
            assert mine.tolist() == expected, program.ops[number].name
    for client in recording.clients:
        sizes = [n for pool, index, n in oracle.passes if (pool, index) == (client.pool, client.client)]
        assert (client.passes, client.tasks) == (len(sizes), sum(sizes))


@settings(max_examples=60)
@given(program=random_batches())
def test_tasks_are_conserved_and_nothing_happens_before_its_cause(program: Program) -> None:
    recording = run(program)
    for op, record in zip(program.ops, recording.ops, strict=True):
        taken = np.ones(len(program.requests), bool) if op.taken is None else op.taken
        assert ((record.client >= 0) == taken).all()
        assert (record.ready_ns <= record.start_ns).all()
        assert (record.finish_ns[taken] > record.start_ns[taken]).all()
        for before in op.after:
            earlier = recording.ops[before].finish_ns
            assert (record.ready_ns[taken] >= earlier[taken]).all()
    served = sum(client.tasks for client in recording.clients)
    assert served == sum(int((record.client >= 0).sum()) for record in recording.ops)


def test_a_pass_takes_what_has_gathered_while_the_one_before_ran() -> None:
    record = one_server([0, 1, 2, 3, 4], ns=(0, 10, 11, 12)).ops[0]
    assert record.start_ns.tolist() == [0, 10, 10, 10, 22]
    assert record.finish_ns.tolist() == [10, 22, 22, 22, 32]


def test_a_pass_that_waits_begins_when_it_is_full_or_its_first_task_has_waited_long_enough() -> None:
    record = one_server([0, 3, 100, 101, 102], ns=(0, 10, 11, 12), wait_ns=20).ops[0]
    assert record.start_ns.tolist() == [20, 20, 102, 102, 102]


def test_stages_of_one_client_do_not_mix_and_the_longest_waiting_goes_first() -> None:
    spec = BatchedClientSpec(4)
    costs = PassCost(ns=(0, 10, 10, 10, 10)), PassCost(ns=(0, 5, 5, 5, 5))
    search, rerank = (batched_op(name, 0, cost, 3) for name, cost in zip("ab", costs, strict=True))
    recording = run(batched_program((batched_pool("p", 1, spec),), (search, rerank), [0, 1, 2]))
    assert recording.ops[0].start_ns.tolist() == [0, 15, 15]
    assert recording.ops[1].start_ns.tolist() == [10, 10, 10]


def test_tasks_that_always_wait_are_served_at_the_rate_of_full_passes() -> None:
    recording = one_server([0] * 1000, ns=(0, *range(100, 108)))
    assert recording.end_ns == 125 * 107
    assert recording.clients[0].busy_ns == recording.end_ns


def bulk_queue_mean_in_system(load: float, most: int) -> float:
    """Mean tasks left behind by a pass of M/D^(1,b)/1 (constant passes of at most b, begun as soon as one waits).

    The embedded chain of the queue after each pass: x → max(0, x − b) + Poisson(ρ·b), where an empty queue first
    waits for an arrival; solved by iteration over a truncated state space.
    """
    rate, states = load * most, 400
    arrivals = np.exp(np.cumsum(np.log(np.r_[1.0, rate / np.arange(1, states)])) - rate)
    chain = np.zeros((states, states))
    for x in range(states):
        left = max(0, max(1, x) - most)
        chain[x, left:] = arrivals[: states - left]
        chain[x, -1] += 1.0 - chain[x].sum()
    stationary = np.full(states, 1.0 / states)
    for _ in range(3000):
        stationary = stationary @ chain
    return float(stationary @ np.arange(states))


@pytest.mark.parametrize(("load", "most"), [(0.5, 1), (0.7, 4), (0.9, 4), (0.8, 16)])
def test_queues_are_as_long_as_bulk_service_theory_says(load: float, most: int) -> None:
    rng = np.random.default_rng(7)
    service = 1_000_000
    arrival = np.cumsum(rng.exponential(service / (load * most), 60_000)).astype(np.int64)
    record = one_server(arrival.tolist(), ns=(0, *[service] * most)).ops[0]
    ends = np.unique(record.finish_ns)[200:]
    ends = ends[ends < arrival[-1]]
    left = np.searchsorted(arrival, ends) - np.searchsorted(np.sort(record.finish_ns), ends, side="right")
    assert left.mean() == pytest.approx(bulk_queue_mean_in_system(load, most), rel=0.06)


def on_one_host(cost: PassCost, bytes_per_ns: float, clients: int = 2) -> Recording:
    """Let ``clients`` begin a pass each at the same time, on one machine."""
    spec = BatchedClientSpec(1, hosts=(0,) * clients)
    program = batched_program(
        (batched_pool("p", clients, spec),), (batched_op("search", 0, cost, clients),), [5] * clients
    )
    return run(replace(program, hosts=(HostMemory("machine/0", bytes_per_ns),)))


def test_two_searches_on_one_memory_take_twice_as_long_when_the_memory_limits_them() -> None:
    bound = PassCost(ns=(0, 1000), bytes=(0, 4000))  # 4 bytes/ns, all that the memory gives
    assert on_one_host(bound, 4.0, clients=1).ops[0].finish_ns.tolist() == [1005]
    assert on_one_host(bound, 4.0).ops[0].finish_ns.tolist() == [2005, 2005]


def test_two_searches_on_one_memory_do_not_slow_each_other_when_their_cores_limit_them() -> None:
    light = PassCost(ns=(0, 1000), bytes=(0, 2000))
    assert on_one_host(light, 4.0).ops[0].finish_ns.tolist() == [1005, 1005]
    assert on_one_host(light, 4.0, clients=3).ops[0].finish_ns.tolist() == [1505, 1505, 1505]


def test_a_pass_never_reads_faster_than_its_cores_can_however_much_the_memory_gives() -> None:
    assert on_one_host(PassCost(ns=(0, 1000), bytes=(0, 4000)), 400.0).ops[0].finish_ns.tolist() == [
        1005,
        1005,
    ]


def two_pools(bytes_per_ns: float) -> Recording:
    """A light reader (1 byte/ns) and a heavy one (6 bytes/ns), side by side on one machine."""
    light, heavy = PassCost(ns=(0, 1000), bytes=(0, 1000)), PassCost(ns=(0, 1000), bytes=(0, 6000))
    spec = BatchedClientSpec(1, hosts=(0,))
    program = batched_program(
        (batched_pool("embed", 1, spec), batched_pool("retrieval", 1, spec)),
        (batched_op("a", 0, light, 1), batched_op("b", 1, heavy, 1)),
        [0],
    )
    return run(replace(program, hosts=(HostMemory("machine/0", bytes_per_ns),)))


def test_what_a_light_reader_leaves_goes_to_the_heavy_one() -> None:
    recording = two_pools(4.0)
    assert recording.ops[0].finish_ns.tolist() == [1000]
    assert recording.ops[1].finish_ns.tolist() == [1000 + (6000 - 3 * 1000) // 4]
    (link,) = recording.links
    assert (link.level, link.bytes, link.transfers) == ("memory", 7000, 2)


def test_machines_of_their_own_do_not_compete() -> None:
    cost = PassCost(ns=(0, 1000), bytes=(0, 4000))
    pool: Pool = batched_pool("p", 2, BatchedClientSpec(1, hosts=(0, 1)))
    program = batched_program((pool,), (batched_op("search", 0, cost, 2),), [0, 0])
    memories = (HostMemory("machine/0", 4.0), HostMemory("machine/1", 4.0))
    assert run(replace(program, hosts=memories)).ops[0].finish_ns.tolist() == [1000, 1000]


def test_the_clients_table_counts_passes_as_steps() -> None:
    program = batched_program(
        (batched_pool("p", 1, BatchedClientSpec(4)),),
        (batched_op("search", 0, PassCost(ns=(0, 10, 10, 10, 10)), 6),),
        [0] * 6,
    )
    (row,) = hf.simulate(program).clients.rows(named=True)
    assert (row["steps"], row["mean_batch"], row["busy_fraction"]) == (2, 3.0, 1.0)


def test_a_task_whose_pass_does_not_depend_on_tokens_counts_as_one() -> None:
    tasks = BatchedTasks([PassCost(ns=(0, 10, 15))], tokens=[0, 0, 0], count=3)
    client = BatchedClient(0, BatchedClientSpec(2), tasks, lambda task, now_ns: None)
    for task in range(3):
        client.submit(task, now_ns=0)
    assert client.queued_tokens(0) == 3
    client.deliveries.fire(15)
    assert client.queued_tokens(15) == 1
