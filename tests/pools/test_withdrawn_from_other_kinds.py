"""Hosts, batched servers, stores and endpoints from which tasks are taken back, against naive references."""

from __future__ import annotations

import random

import numpy as np
import pytest
from oracles.token_buckets import earliest_ns
from tries import tries

from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.pools.client import Calls, PoolClient
from hermes_flow.pools.endpoint.client import EndpointClient, EndpointTasks
from hermes_flow.pools.endpoint.record import record_endpoint
from hermes_flow.pools.endpoint.spec import EndpointClientSpec
from hermes_flow.pools.memory.client import MemoryClient
from hermes_flow.pools.memory.tasks import MemoryTasks
from hermes_flow.pools.memory.tiered_store import Tier, TieredStore
from hermes_flow.pools.sequential.client import SequentialClient, SequentialTasks
from hermes_flow.pools.sequential.shared_client import SharedDeviceClient
from hermes_flow.program.kv_store import KVLookup, MemoryClientSpec, TierSpec
from hermes_flow.program.pools import BatchedClientSpec, SequentialClientSpec
from hermes_flow.program.units import NEVER
from hermes_flow.program.work import PassCost
from hermes_flow.workload.lengths.fixed import Fixed

S = 1_000_000_000


def drive(
    client: PoolClient, done: dict[int, int], arrivals: list[int], withdrawn: dict[int, int]
) -> dict[int, tuple[int, int]]:
    """Run a client as the engine does: at an instant tasks come, others are delivered, then taken back, then planned.

    Return, by withdrawn task that was not over, how many tasks the client had in hand before and after.
    """
    events = sorted(
        [(at, 0, task) for task, at in enumerate(arrivals)]
        + [(at, 1, task) for task, at in withdrawn.items()]
    )
    in_hand: dict[int, tuple[int, int]] = {}
    while True:
        plans = client.plans
        planned = NEVER if plans is None else plans.next_ns()
        now = min(events[0][0] if events else NEVER, client.deliveries.next_ns(), planned)
        if now >= NEVER:
            return in_hand
        while events and events[0][:2] == (now, 0):
            client.submit(events.pop(0)[2], now)
        while client.deliveries.next_ns() <= now:
            client.deliveries.fire(now)
        while events and events[0][:2] == (now, 1):
            task = events.pop(0)[2]
            before = client.outstanding(now + 1)
            client.withdraw(task, now)
            if task not in done:
                in_hand[task] = (before, client.outstanding(now + 1))
        if plans is not None:
            plans.fire(now)


def random_times(rng: random.Random, count: int) -> tuple[list[int], dict[int, int]]:
    arrivals = sorted(rng.randint(0, 3 * count) for _ in range(count))
    withdrawn = {task: at + rng.randint(0, 30) for task, at in enumerate(arrivals) if rng.random() < 0.5}
    return arrivals, withdrawn


def test_a_host_lets_those_behind_a_withdrawn_task_move_up() -> None:
    rng = random.Random(1)
    for _ in range(tries(60, of=1000)):
        count, cores = rng.randint(1, 25), rng.randint(1, 3)
        arrivals, withdrawn = random_times(rng, count)
        service = [rng.randint(1, 12) for _ in range(count)]
        done: dict[int, int] = {}
        tasks = SequentialTasks(service, [True])
        client = SequentialClient(0, SequentialClientSpec(cores), tasks, done.__setitem__)
        in_hand = drive(client, done, arrivals, withdrawn)
        ends, busy = fifo_cores(cores, arrivals, service, withdrawn)
        assert done == ends
        assert client.busy_ns == busy
        assert all(after == before - 1 for before, after in in_hand.values())
        assert client.outstanding(NEVER) == 0


def fifo_cores(
    cores: int, arrivals: list[int], service: list[int], withdrawn: dict[int, int]
) -> tuple[dict[int, int], int]:
    """The ends of the tasks of a host that are not withdrawn before, nanosecond by nanosecond, and the core time."""
    queue: list[int] = []
    running: dict[int, int] = {}
    ends: dict[int, int] = {}
    busy = 0
    for now in range(max(arrivals) + sum(service) + 1):
        for task, end in list(running.items()):
            if end == now:
                del running[task]
                if withdrawn.get(task, NEVER) >= now:
                    ends[task] = now
        queue += [task for task, at in enumerate(arrivals) if at == now]
        while queue and len(running) < cores:
            task = queue.pop(0)
            running[task] = now + service[task]
            busy += service[task]
        queue = [task for task in queue if withdrawn.get(task) != now]
    return ends, busy


def test_a_pass_goes_on_and_later_ones_are_without_a_withdrawn_task() -> None:
    rng = random.Random(2)
    for _ in range(tries(60, of=1000)):
        count, most, wait = rng.randint(1, 25), rng.randint(1, 4), rng.choice((0, 0, 3, 9))
        arrivals, withdrawn = random_times(rng, count)
        cost = PassCost(ns=tuple([0] + [rng.randint(1, 12) for _ in range(most)]))
        done: dict[int, int] = {}
        tasks = BatchedTasks([cost], [0] * count, count)
        client = BatchedClient(0, BatchedClientSpec(most, wait), tasks, done.__setitem__)
        in_hand = drive(client, done, arrivals, withdrawn)
        ends, passes = batches(most, wait, cost.ns, arrivals, withdrawn)
        assert done == ends
        assert client.steps == passes
        assert all(after == before - 1 for before, after in in_hand.values())
        assert (client.outstanding(NEVER), client.queued_tokens(NEVER)) == (0, 0)


def batches(
    most: int, wait: int, ns: tuple[int, ...], arrivals: list[int], withdrawn: dict[int, int]
) -> tuple[dict[int, int], int]:
    """The ends of the tasks of a batched server that are not withdrawn before, and the number of its passes."""
    queue: list[int] = []
    batch: list[int] = []
    ends: dict[int, int] = {}
    until = passes = 0
    for now in range(max(arrivals) + wait + len(arrivals) * max(ns) + 1):
        queue += [task for task, at in enumerate(arrivals) if at == now]
        if batch and until == now:
            ends |= {task: now for task in batch if withdrawn.get(task, NEVER) >= now}
            batch = []
        if wait:  # else the pass begins as the last one ends, before anything else of that instant
            queue = [task for task in queue if withdrawn.get(task) != now]
        if not batch and queue and (len(queue) >= most or now >= arrivals[queue[0]] + wait):
            batch, queue = queue[:most], queue[most:]
            until = now + ns[len(batch)]
            passes += 1
        queue = [task for task in queue if withdrawn.get(task) != now]
    return ends, passes


PRICED = EndpointClientSpec("m", 3, 40, False, Fixed(1.0), Fixed(1.0), 1e6, 1e6)


def test_a_call_that_waits_takes_nothing_of_the_limits_and_one_that_runs_is_cut_off() -> None:
    rng = random.Random(3)
    cut = moved = 0
    for _ in range(tries(30, of=400)):
        count = rng.randint(1, 25)
        arrivals = sorted(rng.randint(0, 300) * S for _ in range(count))
        withdrawn = {
            task: at + rng.randint(0, 200) * S for task, at in enumerate(arrivals) if rng.random() < 0.5
        }
        prompt = [rng.randint(1, 20) for _ in range(count)]
        output = [rng.randint(1, 20) for _ in range(count)]
        first = [rng.randint(1, 20) * S for _ in range(count)]
        each = [rng.randint(0, 5) * S for _ in range(count)]
        done: dict[int, int] = {}
        calls = Calls(done.__setitem__, lambda task, now: None, lambda task, now, why: None, notify=True)
        client = EndpointClient(0, PRICED, EndpointTasks(prompt, output, first, each), calls, "api")
        in_hand = drive(client, done, arrivals, withdrawn)
        sizes = [one + other for one, other in zip(prompt, output, strict=True)]
        starts = limited(arrivals, sizes, withdrawn)
        usd = 0.0
        expected = {}
        for task, start in starts.items():
            end = start + first[task] + (output[task] - 1) * each[task]
            at = withdrawn.get(task, NEVER)
            if end <= at:
                expected[task] = end
            tokens = [start + first[task] + number * each[task] for number in range(output[task])]
            usd += prompt[task] + sum(token <= at for token in tokens)
            cut += end > at
        assert done == expected
        assert record_endpoint(0, PRICED, client).spent_usd == pytest.approx(usd)
        assert all(after == before - 1 for before, after in in_hand.values())
        assert (client.outstanding(NEVER), client.queued_tokens(NEVER)) == (0, 0)
        moved += len(starts) < count
    assert cut > 10
    assert moved > 8


def limited(arrivals: list[int], sizes: list[int], withdrawn: dict[int, int]) -> dict[int, int]:
    """When each call begins; calls withdrawn before that leave the line, and those behind them are placed anew."""
    line: list[int] = []
    starts: dict[int, int] = {}

    def place(task: int, now: int) -> None:
        begun = [(starts[one], 1) for one in line]
        spent = [(starts[one], sizes[one]) for one in line]
        from_ns = max(now, begun[-1][0]) if begun else now
        starts[task] = max(earliest_ns(begun, 1, 3, from_ns), earliest_ns(spent, sizes[task], 40, from_ns))
        line.append(task)

    events = [(at, 0, task) for task, at in enumerate(arrivals)] + [(at, 1, t) for t, at in withdrawn.items()]
    for now, what, task in sorted(events):
        if what == 0:
            place(task, now)
        elif starts[task] > now:
            at = line.index(task)
            behind = line[at + 1 :]
            del line[at:], starts[task]
            for one in behind:
                place(one, now)
    return starts


def test_a_store_reads_on_for_a_withdrawn_retrieval_and_tells_nobody() -> None:
    ones = np.ones(2, dtype=np.int64)
    lookup = KVLookup(tokens=100 * ones, bytes=1000 * ones, tier=0 * ones)
    tasks = MemoryTasks([lookup], 2)
    spec = MemoryClientSpec((TierSpec("host", 10_000, 1.0, lookup_ns=50),))
    done: dict[int, int] = {}
    client = MemoryClient(0, spec, tasks, TieredStore((Tier(10_000),)), [1.0], done.__setitem__)
    reads = []
    client.send_out = lambda tier, size, over, now: reads.append((now, over))
    client.submit(0, 0)
    client.submit(1, 0)
    client.withdraw(0, 20)
    assert (client.outstanding(20), client.queued_tokens(20)) == (1, 100)
    client.fire(50)
    assert [now for now, _ in reads] == [50, 50]
    for _, over in reads:
        over(1050)
    assert done == {1: 1050}
    assert (client.outstanding(1051), client.queued_tokens(1051), client.busy_ns) == (0, 0, 1050)


def test_a_host_that_does_not_report_all_of_its_tasks_takes_none_back() -> None:
    client = SequentialClient(
        0, SequentialClientSpec(1), SequentialTasks([5], [False]), lambda task, now: None
    )
    client.submit(0, 0)
    with pytest.raises(RuntimeError, match="must report all of them"):
        client.withdraw(0, 1)


def test_on_a_shared_device_a_waiting_task_leaves_the_queue_and_a_running_one_keeps_the_device() -> None:
    done: dict[int, int] = {}
    client = SharedDeviceClient(0, SequentialTasks([10, 20, 30, 40], [True]), done.__setitem__)
    for task in range(4):
        client.submit(task, 0)
    client.withdraw(0, 5)
    client.withdraw(2, 5)
    assert (client.outstanding(5), client.queued_tokens(5)) == (2, 65)
    while (now := client.next_ns()) < NEVER:
        client.fire(now)
    assert done == {1: 30, 3: 70}
    assert (client.outstanding(71), client.busy_ns) == (0, 70)
