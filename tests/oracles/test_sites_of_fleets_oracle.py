"""Sites whose clients scale and fail equal a naive simulator on random systems, also where a whole site fails."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from oracles.fifo_cores import simulate_fifo_cores
from oracles.scaled_fleet import ScaledFleet, ScalingRule
from oracles.sites_of_fleets import SitesOfFleets
from oracles.test_scaled_fleet_oracle import MS, base, random_rule, with_arrivals
from tries import tries

from hermes_flow.machine.run import run
from hermes_flow.program.fleet import Autoscaling, Failing, Fleet, Outage, SiteFailing
from hermes_flow.program.pools import SequentialClientSpec
from hermes_flow.program.sites import Sites
from hermes_flow.program.work import CoreTime
from hermes_flow.routing import routing_policies
from hermes_flow.routing.sites.nearest import Nearest
from hermes_flow.scaling.target import Target

TOOL = (
    "pipeline={name: work, stages: {work: {kind: tool, latency_ms: 1}}}",
    "cluster.pools.host.serves=[tool]",
    "cluster.pools.llm.if_needed=true",
)


def random_ways(rng: random.Random, count: int) -> tuple[list[list[int]], list[int]]:
    """Return the times between sites, and those between users and their sites; no two ways take as long."""
    between = [[rng.randint(20, 90) * MS + rng.randint(1, 999) for _ in range(count)] for _ in range(count)]
    for site in range(count):
        between[site][site] = 0
    return between, [rng.randint(1, 9) * MS + rng.randint(1, 999) for _ in range(count)]


@pytest.mark.parametrize("seed", range(tries(30, 1500)))
def test_sites_scale_and_fail_as_the_naive_ones(seed: int) -> None:
    rng = random.Random(seed)
    service = [rng.randint(1, 90) * MS for _ in range(40)]
    program = with_arrivals(base(*TOOL), rng, CoreTime(np.array(service, dtype=np.int64), None))
    pool, cores, count = program.ops[0].pool, rng.randint(1, 3), rng.randint(2, 3)
    rule = random_rule(rng, ["queued_per_client", "in_flight_per_client"])
    begins = [rng.randint(rule.least, rule.most) for _ in range(count)]
    notice = rng.choice([0, 0, 30]) * MS
    failures = [
        [
            (rng.randint(1, 40) * 15 * MS, rng.randrange(rule.most), rng.choice([10, 60, 400]) * MS)
            for _ in range(rng.choice([0, 3, 9]))
        ]
        for _ in range(count)
    ]
    closings = [
        sorted(
            (rng.randint(1, 99) * 7 * MS + site, rng.choice([20, 90, 500]) * MS)
            for _ in range(rng.randint(0, 3))
        )
        for site in range(count)
    ]
    parts = tuple(
        (
            site * rule.most,
            rule.most,
            Fleet(
                scaling(rule, begins[site]),
                Failing(
                    tuple(Outage(at, client, duration) for at, client, duration in sorted(failures[site])),
                    notice_ns=notice,
                    retries=99,
                    site=SiteFailing(f"site{site}", tuple(closings[site])),
                ),
                site,
            ),
        )
        for site in range(count)
    )
    pools = [
        replace(own, count=rule.most * count) if number == pool else own
        for number, own in enumerate(program.pools)
    ]
    pools[pool] = replace(
        pools[pool],
        client=SequentialClientSpec(cores),
        routing=routing_policies.parse(rule.routing, "routing"),
        fleet=replace(parts[0][2], site=-1, parts=parts),
    )
    between, last_mile = random_ways(rng, count)
    users = [rng.randrange(count) for _ in range(40)]
    sites = [site for site in range(count) for _ in range(rule.most)]
    nothing: Any = tuple((0.0,) * count for _ in range(count))
    program = replace(
        program,
        pools=tuple(pools),
        sites=Sites(
            names=tuple(f"site{site}" for site in range(count)),
            clients=tuple(
                tuple(sites) if number == pool else (0,) * own.count for number, own in enumerate(pools)
            ),
            user=np.array(users, dtype=np.int64),
            latency_ns=tuple(map(tuple, between)),
            ns_per_byte=nothing,
            usd_per_byte=nothing,
            last_mile_ns=tuple(last_mile),
            llm_clients=(rule.most,) * count,
            prompt_bytes=np.zeros(40, dtype=np.int64),
            answer_bytes=np.zeros(40, dtype=np.int64),
            policy=Nearest(),
            moves=True,
        ),
    )
    recording = run(program)

    def serve(tasks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        result = simulate_fifo_cores(cores, [at for _, at in tasks], [service[task] for task, _ in tasks])
        return list(zip(result.start_ns, result.finish_ns, strict=True))

    arrivals = program.requests.arrival_ns.tolist()
    fleets = [
        ScaledFleet(replace(rule, initial=begins[site]), serve, arrivals, failures[site], notice)
        for site in range(count)
    ]
    for fleet, closing in zip(fleets, closings, strict=True):
        fleet.closings = list(closing)
    ways = [[last_mile[user] + between[user][site] for site in range(count)] for user in range(count)]
    backs = [[last_mile[user] + between[site][user] for user in range(count)] for site in range(count)]
    oracle = SitesOfFleets(fleets, users, arrivals, ways, backs)
    oracle.run()
    (op,) = recording.ops
    travel = recording.travel
    assert travel is not None
    assert travel.site.tolist() == oracle.site_of
    assert recording.retried == dict(sum((Counter(fleet.retried) for fleet in fleets), Counter()))
    assert Counter(oracle.moved) == {task: moves for task, moves in enumerate(travel.moved.tolist()) if moves}
    for task, site in enumerate(oracle.site_of):
        assert (op.start_ns[task], op.finish_ns[task]) == fleets[site].times[task]
        assert op.client[task] == site * rule.most + fleets[site].client_of[task]
        assert recording.finish_ns[task] == op.finish_ns[task] + backs[site][users[task]]
    clients = [client for client in recording.clients if client.pool == pool]
    assert [list(client.states) for client in clients] == [
        client.changes for fleet in fleets for client in fleet.clients
    ]


def scaling(rule: ScalingRule, initial: int) -> Autoscaling:
    """Return the autoscaling that a rule says, with so many clients at first."""
    return Autoscaling(
        policy=Target(rule.metric, rule.target, rule.tolerance),
        initial=initial,
        least=rule.least,
        most=rule.most,
        interval_ns=rule.interval,
        startup_ns=rule.startup,
        cooldown_ns=rule.cooldown,
        most_up=rule.most_up,
        most_down=rule.most_down,
    )
