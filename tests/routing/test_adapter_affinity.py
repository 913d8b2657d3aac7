"""Routing by adapter, against a recount of what the router has sent where, and its effect on loads."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from oracles.routed_programs import routed_program, with_routing
from oracles.routed_run import RoutedRun

import hermes_flow as hf
from hermes_flow.routing import routing_policies


def test_a_task_goes_to_the_least_loaded_client_that_has_its_adapter() -> None:
    rng = random.Random(1607)
    kept = full = spilled = 0
    for _ in range(40):
        program = routed_program(rng, moves_kv=False)
        count = len(program.requests)
        adapter = np.array([rng.randint(-1, 5) for _ in range(count)], dtype=np.int64)
        program = replace(program, requests=replace(program.requests, adapter=adapter))
        settings = {
            "policy": "adapter_affinity",
            "slots": rng.randint(1, 3),
            "most_more": rng.choice([0, 2, 9]),
        }
        routed = RoutedRun(with_routing(program, routing_policies.parse(settings, "routing"), 0))
        for pool in routed.llm_pools():
            sent: dict[int, list[int]] = {}  # by client, the adapters of its tasks, the latest last
            for decision, loads in routed.outstanding(pool):
                if len(decision.clients) == 1:
                    continue
                own = int(adapter[routed.place(pool, decision.task)[1]])
                held = {client: sent.get(client, [])[-settings["slots"] :] for client in decision.clients}
                least, most = min(loads), max(1, settings["most_more"])
                near = [
                    (load, client)
                    for client, load in zip(decision.clients, loads, strict=True)
                    if (own < 0 or own in held[client]) and load < least + most
                ]
                expected = min(near)[1] if near else decision.clients[loads.index(least)]
                assert decision.client == expected
                kept += own >= 0 and bool(near) and expected != decision.clients[loads.index(least)]
                spilled += not near and any(own in adapters for adapters in held.values())
                full += len(held[expected]) == settings["slots"]
                if own >= 0:
                    before = [one for one in sent.get(expected, []) if one != own]
                    sent[expected] = [*before, own]
    assert min(kept, full, spilled) > 10


def test_it_loads_adapters_less_often_than_a_router_that_does_not_know_them() -> None:
    base = [
        *("pipeline=llm", "workload=synthetic", "workload.requests=400", "workload.rate_per_s=24"),
        *(
            "workload.adapters={count: 64}",
            "cluster.pools.llm.adapters={slots: 8}",
            "cluster.pools.llm.count=4",
        ),
    ]
    loads, waits = {}, {}
    for policy in ("round_robin", "adapter_affinity"):
        result = hf.simulate(hf.compile(hf.compose([*base, f"cluster.routing={policy}"])))
        loads[policy] = result.summary["adapters"]["llm"]["loads"]
        waits[policy] = sum(result.requests["adapter_wait_s"].to_list())
    assert loads["adapter_affinity"] < 0.7 * loads["round_robin"]
    assert waits["adapter_affinity"] < 0.5 * waits["round_robin"]
