"""Hosts with cores: equal to the naive queue and to Ciw customer by customer, and to queueing theory on average."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.fifo_cores import simulate_fifo_cores
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.sequential.client import SequentialClient, SequentialTasks
from hermes_flow.pools.sequential.schema import SequentialPool
from hermes_flow.program.ops import Op, ServedStage
from hermes_flow.program.pools import Pool, SequentialClientSpec
from hermes_flow.program.program import Program, SLOBounds
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.program.work import CoreTime

NS_PER_S = 1e9
REPLICATIONS = 12
CUSTOMERS = 15_000
WARM_UP = 2_000

Draw = Callable[[np.random.Generator, int], np.ndarray]


def host_program(cores: int, arrival_ns: Ints, service_ns: Ints) -> Program:
    """Return a program of one stage on one host, with core times given outright."""
    count = len(arrival_ns)
    ones = np.ones(count, dtype=np.int64)
    return Program(
        name="queue",
        pipeline="tokenize",
        cluster="host",
        pools=(Pool("host", "cpu", 1, "round_robin", SequentialClientSpec(cores)),),
        ops=(
            Op(
                "tokenize",
                (ServedStage("tokenize", "tokenize"),),
                0,
                (),
                CoreTime(service_ns, ones),
            ),
        ),
        requests=Requests(arrival_ns, ones, ones),
        slo=SLOBounds("none"),
    )


@st.composite
def queues(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """Cores, gaps and core times on a coarse grid: ties, idle spells and tasks of no length are common."""
    count = draw(st.integers(1, 60))
    unit = draw(st.sampled_from([1, 1000, 10**9]))
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 5, 30]), min_size=count, max_size=count))
    services = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    arrivals = np.cumsum(gaps) * unit
    return draw(st.integers(1, 8)), arrivals.tolist(), [service * unit for service in services]


@settings(max_examples=tries(100, of=300))
@given(queue=queues())
def test_equals_the_naive_queue_task_by_task(queue: tuple[int, list[int], list[int]]) -> None:
    cores, arrivals, services = queue
    expected = simulate_fifo_cores(cores, arrivals, services)
    recording = run(host_program(cores, np.array(arrivals), np.array(services)))
    assert recording.ops[0].start_ns.tolist() == expected.start_ns
    assert recording.ops[0].finish_ns.tolist() == expected.finish_ns
    assert recording.finish_ns.tolist() == expected.finish_ns
    assert recording.clients[0].busy_ns == sum(services)
    assert recording.clients[0].tasks == len(services)


@settings(max_examples=tries(80, of=200))
@given(queue=queues())
def test_load_is_what_was_submitted_and_has_not_finished_before(
    queue: tuple[int, list[int], list[int]],
) -> None:
    cores, arrivals, services = queue
    expected = simulate_fifo_cores(cores, arrivals, services)
    client = SequentialClient(
        0, SequentialClientSpec(cores), SequentialTasks(services, [False]), lambda task, now: None
    )
    for task, now in enumerate(arrivals):
        started = [expected.start_ns[other] < now for other in range(task)]
        left = [max(expected.finish_ns[other] - now, 0) for other in range(task)]
        assert client.outstanding(now) == sum(expected.finish_ns[other] >= now for other in range(task))
        assert client.queued_tokens(now) == sum(
            left[other] if started[other] else services[other] for other in range(task)
        )
        client.submit(task, now)
    assert client.outstanding(max(expected.finish_ns) + 1) == 0


def test_tasks_that_finish_at_once_are_handed_over_in_order_of_submission() -> None:
    several, one = SequentialClientSpec(3), SequentialClientSpec(1)
    program = host_program(3, np.array([0, 2, 4]), np.array([4, 2, 0]))
    (first,) = program.ops
    second = replace(
        first, name="then", pool=1, after=(0,), work=CoreTime(np.array([5, 5, 5]), first.work.tokens)
    )
    pools = tuple(Pool(name, "cpu", 1, "round_robin", spec) for name, spec in (("a", several), ("b", one)))
    recording = run(replace(program, pools=pools, ops=(first, second)))
    assert recording.ops[0].finish_ns.tolist() == [4, 4, 4]
    assert recording.ops[1].start_ns.tolist() == [4, 9, 14]


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_start_and_finish_equal_those_of_ciw_on_the_same_draws(cores: int) -> None:
    ciw = pytest.importorskip("ciw")
    count, spare = 3000, 200
    rng = np.random.default_rng(cores)
    gaps_ns = np.rint(rng.exponential(1.0, count + spare) * 1e6).astype(np.int64)
    service_ns = np.rint(rng.gamma(0.7, cores * 0.9 / 0.7, count + spare) * 1e6).astype(np.int64)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential((gaps_ns / NS_PER_S).tolist())],
        service_distributions=[ciw.dists.Sequential((service_ns / NS_PER_S).tolist())],
        number_of_servers=[cores],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(count + spare, method="Finish")
    records = sorted(simulation.get_all_records(), key=lambda record: record.id_number)[:count]
    assert [record.id_number for record in records] == list(range(1, count + 1))

    arrival_ns = np.cumsum(gaps_ns)[:count]
    op = run(host_program(cores, arrival_ns, service_ns[:count])).ops[0]
    assert (op.start_ns > arrival_ns).mean() > 0.3  # the draw does make queues
    for ours, theirs in (
        (arrival_ns, [record.arrival_date for record in records]),
        (op.start_ns, [record.service_start_date for record in records]),
        (op.finish_ns, [record.service_end_date for record in records]),
    ):
        np.testing.assert_allclose(ours / NS_PER_S, theirs, rtol=0, atol=1e-9)


def erlang_c(cores: int, load: float) -> float:
    """Return the probability of waiting in M/M/c at an offered load of ``load`` Erlang (Erlang, 1917)."""
    terms = [load**n / math.factorial(n) for n in range(cores)]
    all_busy = load**cores / math.factorial(cores) * cores / (cores - load)
    return all_busy / (sum(terms) + all_busy)


def replicate(cores: int, rate_per_s: float, service: Draw, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean wait in seconds and the share that waits, of each of several independent runs."""
    waits, shares = [], []
    for rng in np.random.default_rng(seed).spawn(REPLICATIONS):
        arrival_ns = np.rint(np.cumsum(rng.exponential(1.0 / rate_per_s, CUSTOMERS)) * NS_PER_S).astype(
            np.int64
        )
        service_ns = np.rint(service(rng, CUSTOMERS) * NS_PER_S).astype(np.int64)
        result = hf.simulate(host_program(cores, arrival_ns, service_ns))
        queue_s = result.stages["queue_s"].to_numpy()[WARM_UP:]
        waits.append(queue_s.mean())
        shares.append((queue_s > 0).mean())
    return np.array(waits), np.array(shares)


def check_mean(observed: np.ndarray, expected: float) -> None:
    """Accept a mean within four standard errors, and only where these are small enough to tell."""
    error = observed.std(ddof=1) / math.sqrt(len(observed))
    assert error < 0.06 * expected
    assert abs(observed.mean() - expected) < 4.0 * error


@pytest.mark.parametrize(("cores", "utilization"), [(1, 0.5), (1, 0.8), (3, 0.75), (16, 0.8)])
def test_exponential_core_times_wait_as_erlang_says(cores: int, utilization: float) -> None:
    mean_s = 0.01
    load = cores * utilization
    waits, shares = replicate(cores, load / mean_s, lambda rng, n: rng.exponential(mean_s, n), seed=cores)
    waiting = erlang_c(cores, load)
    check_mean(shares, waiting)
    check_mean(waits, waiting * mean_s / (cores - load))


@pytest.mark.parametrize("utilization", [0.5, 0.85])
def test_equal_core_times_wait_as_pollaczek_and_khinchine_say(utilization: float) -> None:
    mean_s = 0.002
    config = hf.compose(
        [
            "workload=synthetic",
            f"workload.requests={CUSTOMERS}",
            f"workload.rate_per_s={utilization / mean_s}",
            "slo=none",
            "cluster.pools.host.cores=1",
        ]
    )
    stage = {"kind": "tokenize", "fixed_us": mean_s * 1e6, "per_token_us": 0.0}
    config = replace(config, pipeline=replace(config.pipeline, stages={"tokenize": stage}))
    assert isinstance(config.cluster.pools["host"], SequentialPool)
    waits, shares = [], []
    for seed in range(REPLICATIONS):
        result = hf.simulate(hf.compile(replace(config, workload=replace(config.workload, seed=seed))))
        queue_s = result.stages["queue_s"].to_numpy()[WARM_UP:]
        waits.append(queue_s.mean())
        shares.append((queue_s > 0).mean())
    check_mean(np.array(shares), utilization)
    check_mean(np.array(waits), utilization * mean_s / (2.0 * (1.0 - utilization)))


def test_an_idle_host_makes_nobody_wait_and_a_full_one_serves_in_order() -> None:
    rng = random.Random(5)
    services = [rng.randint(1, 9) for _ in range(50)]
    sparse = run(host_program(1, np.arange(50) * 10, np.array(services))).ops[0]
    assert sparse.start_ns.tolist() == sparse.ready_ns.tolist() == list(range(0, 500, 10))
    crowd = run(host_program(1, np.zeros(50, dtype=np.int64), np.array(services))).ops[0]
    assert crowd.start_ns.tolist() == [0, *np.cumsum(services)[:-1].tolist()]
    assert all(before <= after for before, after in pairwise(crowd.finish_ns.tolist()))
