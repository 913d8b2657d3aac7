"""Gateways, timeouts and retries at sites: equal to naive ones on random systems, and by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from oracles.gateways_at_sites import NaiveSite, NaiveSites
from pools.sequential.test_sequential import host_program
from tries import tries

import hermes_flow as hf
from hermes_flow.admission.gate import Retry
from hermes_flow.admission.limit import Limit
from hermes_flow.machine.run import run
from hermes_flow.program.admission import RetryRule
from hermes_flow.program.sites import Sites
from hermes_flow.recording.recording import STATUSES
from hermes_flow.routing.sites.least_loaded import LeastLoaded

US = 1000


def random_system(rng: random.Random) -> tuple[hf.Program, NaiveSites]:
    """Draw sites with a host and a gateway each, and the naive ones."""
    count, places = rng.randint(1, 30), rng.randint(1, 3)
    arrivals = sorted(rng.randint(0, 3 * count) for _ in range(count))
    service = [rng.randint(1, 14) for _ in range(count)]
    timeouts = [rng.choice((-1, rng.randint(1, 60))) for _ in range(count)]
    cores, most = rng.randint(1, 3), rng.randint(1, 4)
    queued, holds = rng.choice((None, 0, 1, 3)), rng.random() < 0.3
    times = rng.randint(1, 3) if not holds and queued is not None and rng.random() < 0.6 else 0
    backoff, user_times, user_backoff = rng.randint(0, 9), rng.choice((0, 0, 1, 2)), rng.randint(1, 20)
    between = [
        [rng.randint(3, 15) if one != other else 0 for other in range(places)] for one in range(places)
    ]
    last_mile = [rng.randint(1, 4) for _ in range(places)]
    prompts = [
        [rng.choice((0, 5)) if one != other else 0 for other in range(places)] for one in range(places)
    ]
    user = [rng.randrange(places) for _ in range(count)]
    naive = NaiveSites(
        sites=[NaiveSite(cores, most, queued, holds) for _ in range(places)],
        user=user,
        arrivals=arrivals,
        service=service,
        timeouts=timeouts,
        way=[],
        home=[],
        prompt=prompts,
        times=times,
        backoff=backoff,
        user_times=user_times,
        user_backoff=user_backoff,
    )
    program = host_program(cores, np.array(arrivals) * US, np.array(service) * US)
    asked = np.array([-1 if one < 0 else one * US for one in timeouts])
    keys = {"max_in_flight": most, "max_queued": queued, "on_full": "hold" if holds else "reject"}
    return replace(
        program,
        pools=(replace(program.pools[0], count=places),),
        requests=replace(program.requests, timeout_ns=asked),
        admission=Limit(**keys, retry=Retry(times, backoff * US / 1e9) if times else None),
        retries=RetryRule(user_times, user_backoff * US, 2.0, 0.0) if user_times else None,
        sites=Sites(
            names=tuple(f"site{site}" for site in range(places)),
            clients=(tuple(range(places)),),
            user=np.array(user, dtype=np.int64),
            latency_ns=tuple(tuple(US * ms for ms in row) for row in between),
            ns_per_byte=tuple(tuple(float(US * ms) for ms in row) for row in prompts),
            usd_per_byte=tuple((0.0,) * places for _ in range(places)),
            last_mile_ns=tuple(US * ms for ms in last_mile),
            llm_clients=(1,) * places,
            prompt_bytes=np.ones(count, dtype=np.int64),
            answer_bytes=np.ones(count, dtype=np.int64),
            policy=LeastLoaded(),
        ),
    ), with_ways(naive, between, last_mile)


def with_ways(naive: NaiveSites, between: list[list[int]], last_mile: list[int]) -> NaiveSites:
    """Set the ways from users to sites, and run the naive sites.

    A user's last mile counts on both ways: it is that of the user's own site.
    """
    places = range(len(last_mile))
    naive.way = [[last_mile[one] + between[one][other] for other in places] for one in places]
    naive.home = [[last_mile[other] + between[one][other] for other in places] for one in places]
    naive.run()
    return naive


def in_us(column: np.ndarray) -> list[int]:
    return [-1 if ns < 0 else int(ns) // US for ns in column]


def test_sites_with_gateways_equal_the_naive_ones_on_random_systems() -> None:
    rng = random.Random(5)
    ended = dict.fromkeys(STATUSES, 0)
    again = late = 0
    for _ in range(tries(100, of=4000)):
        program, expected = random_system(rng)
        recording = run(program)
        assert recording.travel is not None
        assert recording.admitted_ns is not None
        assert recording.tries is not None
        status = [STATUSES[one] for one in recording.status]
        assert status == expected.status
        assert in_us(recording.finish_ns) == expected.finish
        assert in_us(recording.admitted_ns) == expected.admitted
        assert recording.tries.tolist() == expected.tries
        assert recording.travel.site.tolist() == expected.site
        if program.retries is not None:
            given_up = {one: times for one, times in enumerate(expected.given_up) if times}
            assert recording.given_up == given_up
            again += len(given_up)
        for one in status:
            ended[one] += 1
        late += sum(one >= 0 for one in recording.ops[0].finish_ns[recording.status != 0])
    assert min(ended["completed"], ended["rejected"], ended["timed_out"], again) > 50
    assert late > 20  # served, and too late for their users


def test_a_user_far_away_gives_up_before_the_site_knows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,site\n0,1000,101,eu\n")
    sites = "cluster.sites={us: {}, eu: {latency_ms: {us: 50}}}"
    cost = "cost={kind: affine, fixed_us: 2000, per_token_us: 10, per_context_us: 0}"
    load = [
        "workload=trace",
        f"workload.path={path}",
        "pipeline=llm",
        cost,
        sites,
        "cluster.pools.llm.site=us",
    ]
    load.append("cluster.pools.host.site=us")

    def simulated(timeout_s: float) -> hf.Result:
        return hf.simulate(hf.compile(hf.compose([*load, f"workload.timeout_s={timeout_s}"])))

    # 50 ms there, 12 ms of prefill, 100 steps of 2.01 ms, 50 ms back: 313 ms.
    in_time, late, cut = simulated(0.313), simulated(0.3129), simulated(0.1)
    assert in_time.requests["status"].to_list() == ["completed"]
    assert late.requests["status"].to_list() == ["timed_out"]
    assert late.summary["wasted"]["tokens"] == 1101  # all of it was written, and came too late
    assert cut.requests["status"].to_list() == ["timed_out"]
    # The user gives up at 100 ms, and the site hears of it at 150 ms: 62 ms, and 43 more tokens, are past by then.
    # Two further steps are planned.
    assert cut.summary["wasted"]["tokens"] == 1000 + 1 + 43 + 2


def test_a_request_held_outside_a_gateway_loses_its_place_as_its_user_tries_again() -> None:
    # The first holds the only place until 10. The second waits from 1, is given up at 6 and comes again at 7, behind
    # the third, which waits since 2.
    program = host_program(1, np.array([0, 1, 2]) * US, np.array([10, 1, 1]) * US)
    requests = replace(program.requests, timeout_ns=np.array([-1, 5 * US, -1]))
    recording = run(
        replace(
            program,
            requests=requests,
            admission=Limit(max_in_flight=1, max_queued=0, on_full="hold"),
            retries=RetryRule(1, US, 2.0, 0.0),
        )
    )
    assert in_us(recording.finish_ns) == [10, 12, 11]
