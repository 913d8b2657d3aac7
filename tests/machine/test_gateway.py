"""The gateway: equal to a naive one on random systems, and to the formulas of loss and of abandonment on average."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles.gateway import Naive, NaiveGateway, simulate
from pools.sequential.test_sequential import host_program
from tries import tries

import hermes_flow as hf
from hermes_flow.admission.gate import Retry
from hermes_flow.admission.limit import Limit
from hermes_flow.admission.weighted_fair import WeightedFair
from hermes_flow.machine.run import run
from hermes_flow.program.admission import AdmissionQueue, Limits
from hermes_flow.program.requests import Requests
from hermes_flow.recording.recording import STATUSES, Recording

US = 1000


@dataclass(frozen=True)
class WithGivenWaits:
    """A policy under which each request waits as long as it is told."""

    policy: Limit | WeightedFair
    waits: list[int]

    @property
    def limits(self) -> Limits:
        return replace(self.policy.limits, max_wait=self)

    def start(self, requests: Requests) -> AdmissionQueue:
        return self.policy.start(requests)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return np.array(self.waits[:count]) * US


def random_system(rng: random.Random) -> tuple[hf.Program, Naive]:
    """Draw a gateway before a host, and run the naive one."""
    count = rng.randint(1, 30)
    arrivals = sorted(rng.randint(0, 2 * count) for _ in range(count))
    service = [rng.randint(1, 9) for _ in range(count)]
    timeouts = [rng.choice((-1, rng.randint(1, 40))) for _ in range(count)]
    cores, most = rng.randint(1, 3), rng.randint(1, 5)
    queued = rng.choice((None, 0, 1, rng.randint(1, 6)))
    holds = rng.random() < 0.3
    last = not holds and queued is not None and rng.random() < 0.4
    waits = [rng.randint(1, 12) for _ in range(count)] if rng.random() < 0.4 else None
    sends_away = waits is not None or (not holds and queued is not None)
    retries = rng.randint(1, 3) if sends_away and rng.random() < 0.5 else 0
    backoff = rng.randint(0, 10) if retries else 0
    priority = [rng.randint(0, 2) for _ in range(count)]
    tenant = [rng.randint(0, 2) for _ in range(count)]
    cost = [rng.randint(1, 9) for _ in range(count)]
    weights = [float(rng.randint(1, 4)) for _ in range(3)]
    program = host_program(cores, np.array(arrivals) * US, np.array(service) * US)
    requests = replace(
        program.requests,
        input_tokens=np.array(cost),
        priority=np.array(priority),
        tenant=np.array(tenant),
        tenants=("a", "b", "c"),
        timeout_ns=np.array([-1 if one < 0 else one * US for one in timeouts]),
    )
    keys = {
        "max_in_flight": most,
        "max_queued": queued,
        "on_full": "hold" if holds else "reject",
        "shed": "last" if last else "newest",
        "retry": Retry(retries, backoff * US / 1e9) if retries else None,
    }
    if waits is not None:
        keys["max_wait_s"] = 1.0  # how long is said below
    naive = NaiveGateway(most, queued, holds, last, retries, backoff, waits)
    order = rng.choice(("arrival", "priority", "deadline", "fair"))
    if order == "fair":
        naive.weights = weights
        admission: Limit | WeightedFair = WeightedFair(**keys, weights=dict(zip("abc", weights, strict=True)))
    else:
        admission = Limit(**keys, order=order)
    urgencies = {
        "arrival": lambda one: 0.0,
        "priority": lambda one: float(priority[one]),
        "deadline": lambda one: arrivals[one] + timeouts[one] if timeouts[one] >= 0 else math.inf,
        "fair": lambda one: 0.0,
    }
    expected = simulate(naive, cores, arrivals, service, timeouts, urgencies[order], tenant, cost)
    policy = admission if waits is None else WithGivenWaits(admission, waits)
    return replace(program, requests=requests, admission=policy), expected


def in_us(column: np.ndarray) -> list[int]:
    return [-1 if ns < 0 else int(ns) // US for ns in column]


def test_it_equals_the_naive_gateway_on_random_systems() -> None:
    rng = random.Random(11)
    ended = dict.fromkeys(STATUSES, 0)
    again = tired = 0
    for _ in range(tries(120, of=4000)):
        program, expected = random_system(rng)
        waits = isinstance(program.admission, WithGivenWaits)
        tired += waits and program.admission.limits.max_queued is None and "rejected" in expected.status
        recording = run(program)
        status = [STATUSES[one] for one in recording.status]
        assert status == expected.status
        assert in_us(recording.finish_ns) == expected.finish
        assert recording.admitted_ns is not None
        assert recording.tries is not None
        assert in_us(recording.admitted_ns) == expected.admitted
        assert recording.tries.tolist() == expected.tries
        for one in status:
            ended[one] += 1
        again += sum(tries - 1 for tries in expected.tries)
    assert min(ended["completed"], ended["rejected"], ended["timed_out"], again) > 50
    assert tired > 5


def poisson_host(
    servers: int, load: float, requests: int, seed: int, patience_s: float | None = None
) -> hf.Program:
    """M/M/c with a mean service of a second; patience is exponential."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / load, requests) * 1e9).astype(np.int64)
    service = (rng.exponential(1.0, requests) * 1e9).astype(np.int64) + 1
    program = host_program(servers, arrivals, service)
    if patience_s is None:
        return program
    timeout = (rng.exponential(patience_s, requests) * 1e9).astype(np.int64)
    return replace(program, requests=replace(program.requests, timeout_ns=timeout))


def rejected_share(recording: Recording) -> float:
    return float((recording.status == STATUSES.index("rejected")).mean())


def mean_and_error(draws: list[float]) -> tuple[float, float]:
    return float(np.mean(draws)), float(np.std(draws, ddof=1) / math.sqrt(len(draws)))


@pytest.mark.parametrize(("servers", "load", "queued"), [(1, 0.9, 3), (4, 4.5, 0), (3, 2.4, 6)])
def test_what_is_turned_away_is_the_loss_of_an_m_m_c_k_queue(servers: int, load: float, queued: int) -> None:
    shares = [
        rejected_share(
            run(
                replace(
                    poisson_host(servers, load, 2500, seed),
                    admission=Limit(max_in_flight=servers, max_queued=queued),
                )
            )
        )
        for seed in range(6)
    ]
    mean, error = mean_and_error(shares)
    weights = [load**n / math.factorial(n) for n in range(servers + 1)]
    weights += [weights[-1] * (load / servers) ** n for n in range(1, queued + 1)]
    assert mean == pytest.approx(weights[-1] / sum(weights), abs=4 * error)


@pytest.mark.parametrize(("servers", "load", "patience_s"), [(5, 6.0, 4.0)])
def test_who_gives_up_is_as_many_as_in_a_queue_with_abandonment(
    servers: int, load: float, patience_s: float
) -> None:
    """Erlang-A, but that callers also hang up while they are served: n of them leave at rate min(n, c)·μ + n·θ."""
    shares = []
    for seed in range(4):
        program = replace(calls(load, 1500, seed, patience_s), admission=Limit(max_in_flight=servers))
        shares.append(float((run(program).status == STATUSES.index("timed_out")).mean()))
    mean, error = mean_and_error(shares)
    assert mean == pytest.approx(abandonment(servers, load, patience_s), abs=4 * error)


@pytest.mark.parametrize(("servers", "load", "patience_s"), [(3, 3.5, 2.0), (8, 7.0, 0.5)])
def test_who_waits_too_long_is_as_many_as_erlang_a_says(servers: int, load: float, patience_s: float) -> None:
    """M/M/c+M: callers hang up only while they wait. n of them leave at rate min(n, c)·μ + max(0, n − c)·θ."""
    waits = {"distribution": "exponential", "mean": patience_s}
    shares = [
        rejected_share(
            run(
                replace(
                    poisson_host(servers, load, 3000, seed),
                    admission=Limit(max_in_flight=servers, max_wait_s=waits),
                )
            )
        )
        for seed in range(6)
    ]
    mean, error = mean_and_error(shares)
    weights = [1.0]
    for n in range(1, servers + 300):
        weights.append(weights[-1] * load / (min(n, servers) + max(0, n - servers) / patience_s))
    waiting = sum(max(0, n - servers) * weight for n, weight in enumerate(weights)) / sum(weights)
    assert mean == pytest.approx(waiting / patience_s / load, abs=4 * error)


def test_a_drawn_timeout_is_drawn_for_each_request() -> None:
    words = ["pipeline=llm", "workload=synthetic", "workload.requests=400", "workload.rate_per_s=20"]
    drawn = "workload.timeout_s={distribution: exponential, mean: 2}"
    program = hf.compile(hf.compose([*words, drawn]))
    timeouts = program.requests.timeout_ns
    assert timeouts is not None
    assert float(timeouts.mean()) / 1e9 == pytest.approx(2, rel=0.15)
    assert len(set(timeouts.tolist())) > 390
    again = hf.compile(hf.compose([*words, drawn, "workload.rate_per_s=30"])).requests.timeout_ns
    assert again is not None
    assert (again == timeouts).all()


def calls(load: float, requests: int, seed: int, patience_s: float) -> hf.Program:
    """Calls of an exponential second at an endpoint without limits, which end when their callers hang up."""
    words = ["pipeline=llm", "pool@cluster.pools.llm=endpoint", "workload=synthetic", "slo=none"]
    words += [f"workload.requests={requests}", f"workload.rate_per_s={load}", f"seed={seed}"]
    words += ["workload.output_tokens=1", "cluster.pools.llm.tpot_ms=0"]
    words += ["cluster.pools.llm.ttft_ms={distribution: exponential, mean: 1000}"]
    program = hf.compile(hf.compose(words))
    patience = np.random.default_rng(seed).exponential(patience_s, requests)
    timeout_ns = (patience * 1e9).astype(np.int64)
    return replace(program, requests=replace(program.requests, timeout_ns=timeout_ns))


def abandonment(servers: int, load: float, patience_s: float) -> float:
    """The share that hangs up: θ·E[N] / λ of the birth-death process."""
    weights = [1.0]
    for n in range(1, servers + 300):
        weights.append(weights[-1] * load / (min(n, servers) + n / patience_s))
    mean = sum(n * weight for n, weight in enumerate(weights)) / sum(weights)
    return mean / patience_s / load


def test_a_greedy_tenant_cannot_delay_another_beyond_the_bound() -> None:
    """While two tenants wait, what is let in of each by weight differs by at most a largest request of each."""
    rng = random.Random(5)
    for _ in range(tries(20, of=200)):
        weights = {"a": float(rng.randint(1, 5)), "b": float(rng.randint(1, 5))}
        cost = [rng.randint(1, 50) for _ in range(120)]
        tenant = [int(rng.random() < 0.8) for _ in range(120)]
        program = host_program(1, np.zeros(120, dtype=np.int64), np.array(cost) * US)
        requests = replace(
            program.requests, input_tokens=np.array(cost), tenant=np.array(tenant), tenants=("a", "b")
        )
        fair = WeightedFair(max_in_flight=1, weights=weights)
        recording = run(replace(program, requests=requests, admission=fair))
        order = sorted(range(120), key=lambda one: (recording.admitted_ns[one], recording.finish_ns[one]))
        left = [tenant.count(0), tenant.count(1)]
        share = [0.0, 0.0]
        most = sum(max(cost) / weight for weight in weights.values())
        for request in order[1:]:  # the first is let in alone
            who = tenant[request]
            share[who] += cost[request] / weights["ab"[who]]
            left[who] -= 1
            if min(left) <= 1:
                break
            assert abs(share[0] - share[1]) <= most


def test_waits_are_drawn_from_the_seed() -> None:
    program = host_program(1, np.zeros(30, dtype=np.int64), np.full(30, 10**9))
    retry = Retry(3, 0.5, jitter=0.5)
    jittery = replace(program, admission=Limit(max_in_flight=1, max_queued=1, retry=retry))
    one, same = run(jittery), run(jittery)
    other = run(replace(jittery, seed=1))
    assert one.admitted_ns is not None
    np.testing.assert_array_equal(one.admitted_ns, same.admitted_ns)
    assert one.tries is not None
    assert other.tries is not None
    assert one.admitted_ns.tolist() != other.admitted_ns.tolist()  # type: ignore[union-attr]
