"""Regions: requests travel to a site and answers back, by hand, against a recount, and against sites run alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import hermes_flow as hf

AFFINE = "cost={kind: affine, fixed_us: 2000, per_token_us: 10, per_context_us: 0}"
THREE = (
    "cluster.sites={us: {users: 0.5, last_mile_ms: 3, latency_ms: {eu: 45, asia: 80}, gb_s: {eu: 0.001},"
    " usd_per_gb: {eu: 20, asia: 90}}, eu: {users: 0.2, latency_ms: {us: 40, asia: 95}, usd_per_gb: {us: 50}},"
    " asia: {users: 0.3, last_mile_ms: 12}}"
)
LOAD = [
    *(
        "pipeline=llm",
        "workload=synthetic",
        "workload.requests=200",
        "workload.rate_per_s=60",
        AFFINE,
        "slo=chat",
    ),
    "workload.output_tokens={distribution: uniform, min: 5, max: 120}",
]
LATENCY_MS = {("us", "eu"): 45, ("eu", "us"): 40, ("us", "asia"): 80, ("asia", "us"): 80, ("eu", "asia"): 95}
LATENCY_MS["asia", "eu"] = 95
LAST_MILE_MS = {"us": 3, "eu": 0, "asia": 12}
USD_PER_GB = {("us", "eu"): 20, ("us", "asia"): 90, ("eu", "us"): 50}


def simulated(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*overrides])))


def ways_s(user: str, site: str, prompt: int) -> tuple[float, float]:
    """Return the time to a site and back; a GB takes 1,000 s from us to eu."""
    if user == site:
        return LAST_MILE_MS[user] / 1e3, LAST_MILE_MS[user] / 1e3
    moved = 4 * prompt / 1e6 if (user, site) == ("us", "eu") else 0.0
    out = (LAST_MILE_MS[user] + LATENCY_MS[user, site]) / 1e3 + moved
    return out, (LAST_MILE_MS[user] + LATENCY_MS[site, user]) / 1e3


def trace(path: Path, rows: list[tuple[Any, ...]], columns: str) -> list[str]:
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return ["workload=trace", f"workload.path={path}"]


def test_a_request_from_asia_waits_for_its_way_there_and_back(tmp_path: Path) -> None:
    asia = "{last_mile_ms: 12, latency_ms: {us: 80}, gb_s: {us: 0.001}, usd_per_gb: {us: 90}}"
    sites = f"cluster.sites={{us: {{}}, asia: {asia}}}"
    rows = [(0, 1000, 3, "asia")]
    load = trace(tmp_path / "t.csv", rows, "arrival_s,input_tokens,output_tokens,site")
    result = simulated(
        "pipeline=llm", AFFINE, *load, sites, "cluster.pools.llm.site=us", "cluster.pools.host.site=us"
    )
    (request,) = result.requests.to_dicts()
    # 12 ms to the site, 80 ms to the other one, 4 kB at 1 MB/s, a prefill of 12 ms, and 92 ms back.
    assert request["ttft_s"] == pytest.approx(0.012 + 0.080 + 0.004 + 0.012 + 0.092, abs=1e-9)
    assert request["e2e_s"] - request["ttft_s"] == pytest.approx(2 * (0.002 + 0.00001), abs=1e-9)
    assert (request["user_site"], request["site"]) == ("asia", "us")
    assert (request["to_site_s"], request["from_site_s"]) == (0.096, 0.092)
    assert request["transfer_usd"] == pytest.approx(4000 * 90e-9)  # the answer goes back for nothing
    cost = result.summary["cost"]
    hours = (0.2 + 2 * 0.00201) / 3600
    assert cost["transfer_usd"] == request["transfer_usd"]
    price = result.clients["cost_usd"].drop_nulls().sum() / hours
    assert cost["usd_per_hour"] == pytest.approx(price + request["transfer_usd"] / hours)
    assert result.summary["critical_path"]["mean"]["shares"]["round_trip"] == pytest.approx(
        0.188 / (0.2 + 0.00402)
    )


def chosen(
    policy: dict[str, Any], rows: list[dict[str, Any]], own: dict[str, Any], clients: dict[str, int]
) -> str:
    """Return the site that a policy chooses for a request, counted anew from the table of requests."""
    at = own["arrival_s"]
    load = dict.fromkeys(clients, 0.0)
    for other in rows:
        if other["request"] < own["request"] and other["finish_s"] - other["from_site_s"] > at:
            load[other["site"]] += 1 / clients[other["site"]]
    trip = {site: sum(ways_s(own["user_site"], site, own["input_tokens"])) for site in clients}
    if policy["policy"] == "nearest":
        return min(clients, key=lambda site: trip[site])
    if policy["policy"] == "least_loaded":
        return min(clients, key=lambda site: (load[site], trip[site]))
    if policy["policy"] == "spill":
        room = [site for site in clients if load[site] < policy["most_per_client"]]
        if room:
            return min(room, key=lambda site: trip[site])
        return min(clients, key=lambda site: (load[site], trip[site]))
    price = {
        site: USD_PER_GB.get((own["user_site"], site), 0) * 4e-9 * own["input_tokens"] for site in clients
    }
    time = {site: trip[site] + policy["wait_s"] * load[site] for site in clients}
    return min(clients, key=lambda site: price[site] + policy["usd_per_s"] * time[site])


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "nearest"},
        {"policy": "least_loaded"},
        {"policy": "spill", "most_per_client": 3},
        {"policy": "least_cost", "usd_per_s": 0.001, "wait_s": 0.02},
    ],
    ids=lambda policy: policy["policy"],
)
def test_every_site_policy_decides_as_a_recount_does(policy: dict[str, Any]) -> None:
    setting = "{" + ", ".join(f"{key}: {value}" for key, value in policy.items()) + "}"
    clients = {"us": 1, "eu": 2, "asia": 1}
    result = simulated(
        *LOAD, THREE, f"cluster.site_routing={setting}", "cluster.pools.llm.site={us: 1, eu: 2, asia: 1}"
    )
    rows = result.requests.to_dicts()
    for own in rows:
        assert own["site"] == chosen(policy, rows, own, clients)
        assert (own["to_site_s"], own["from_site_s"]) == pytest.approx(
            ways_s(own["user_site"], own["site"], own["input_tokens"]), abs=1e-9
        )
    served = {row["site"] for row in rows}
    away = sum(row["site"] != row["user_site"] for row in rows)
    assert served == set(clients)
    assert away == 0 if policy["policy"] == "nearest" else 10 < away < len(rows)


def test_each_site_serves_its_requests_as_a_cluster_of_its_own(tmp_path: Path) -> None:
    counts = "cluster.pools.llm.site={us: 3, eu: 2, asia: 1}"
    result = simulated(
        *LOAD, THREE, counts, "cluster.site_routing=least_loaded", "cluster.routing=least_requests"
    )
    rows = result.requests.to_dicts()
    stages = {(row["request"], row["stage"]): row for row in result.stages.to_dicts()}
    for site, count in (("us", 3), ("eu", 2), ("asia", 1)):
        own = sorted(
            (row for row in rows if row["site"] == site),
            key=lambda row: stages[row["request"], "prefill"]["ready_s"],
        )
        arrivals = [round(stages[row["request"], "prefill"]["ready_s"] * 1e9) for row in own]
        load = trace(
            tmp_path / f"{site}.csv",
            [(at, row["input_tokens"], row["output_tokens"]) for at, row in zip(arrivals, own, strict=True)],
            "arrival_ns,input_tokens,output_tokens",
        )
        alone = simulated(
            *(
                "pipeline=llm",
                AFFINE,
                *load,
                f"cluster.pools.llm.count={count}",
                "cluster.routing=least_requests",
            )
        ).requests.to_dicts()
        for row, other in zip(own, alone, strict=True):
            assert row["ttft_s"] == pytest.approx(
                other["ttft_s"] + row["to_site_s"] + row["from_site_s"], abs=3e-9
            )
            assert row["finish_s"] - row["from_site_s"] == pytest.approx(other["finish_s"], abs=3e-9)


@pytest.mark.parametrize(
    ("first", "layout"),
    [
        ("prefill", ("pipeline=llm", "cluster=disaggregated", "cluster.kv_transfer=layerwise")),
        ("tokenize", ("pipeline=rag", "network.rack.gb_s=0.2")),
    ],
)
def test_what_moves_stays_within_a_site_as_in_a_cluster_of_its_own(
    first: str, layout: tuple[str, ...], tmp_path: Path
) -> None:
    two = "cluster.sites={us: {users: 0.6, latency_ms: {eu: 45}}, eu: {users: 0.4}}"
    load = ("workload=synthetic", "workload.requests=30", "workload.rate_per_s=8")
    result = simulated(*load, *layout, two)
    rows = result.requests.to_dicts()
    ready = {row["request"]: row["ready_s"] for row in result.stages.to_dicts() if row["stage"] == first}
    moved = 0
    for site in ("us", "eu"):
        own = sorted((row for row in rows if row["site"] == site), key=lambda row: ready[row["request"]])
        lines = [
            (round(ready[row["request"]] * 1e9), row["input_tokens"], row["output_tokens"]) for row in own
        ]
        columns = "arrival_ns,input_tokens,output_tokens"
        alone = simulated(*trace(tmp_path / f"{site}.csv", lines, columns), *layout)
        for row, other in zip(own, alone.requests.to_dicts(), strict=True):
            ways_s = row["to_site_s"] + row["from_site_s"]
            assert row["e2e_s"] == pytest.approx(other["e2e_s"] + ways_s, abs=5e-9)
        moved += int(alone.links["bytes"].sum())
    assert int(result.links["bytes"].sum()) == moved > 0


def test_the_next_turn_comes_a_think_time_after_the_user_has_the_answer() -> None:
    result = simulated(
        *("pipeline=chat", "workload=sessions", "workload.sessions=20", "workload.think_time_s=2", AFFINE),
        *(THREE, "cluster.pools.llm.site=us", "cluster.pools.host.site=us"),
    )
    turns: dict[int, list[dict[str, Any]]] = {}
    for row in result.requests.to_dicts():
        turns.setdefault(row["session"], []).append(row)
    later = 0
    for session in turns.values():
        assert len({row["user_site"] for row in session}) == 1
        for before, after in pairwise(session):
            assert after["arrival_s"] == pytest.approx(before["finish_s"] + 2, abs=3e-9)
            later += before["from_site_s"] > 0
    assert later > 5


def test_the_summary_counts_users_and_served_requests_by_site() -> None:
    result = simulated(
        *LOAD, THREE, "cluster.pools.llm.site={us: 1, eu: 2}", "cluster.pools.host.site={us: 1, eu: 1}"
    )
    rows, sites = result.requests.to_dicts(), result.summary["sites"]
    for name, own in sites.items():
        users = [row for row in rows if row["user_site"] == name]
        assert own["requests"]["submitted"] == len(users)
        assert own["served"] == sum(row["site"] == name for row in rows)
        assert own["transfer_usd"] == pytest.approx(sum(row["transfer_usd"] for row in users))
        assert own["local_share"] == (0 if name == "asia" else 1)
    assert sites["asia"]["round_trip_s"] == pytest.approx(2 * 0.012 + 0.160)
    share = [row["user_site"] for row in rows].count("us") / len(rows)
    assert share == pytest.approx(0.5, abs=0.1)


def test_the_causes_of_a_missed_bound_add_up_with_the_way_to_a_site() -> None:
    result = simulated(
        *(*LOAD, THREE, "cluster.pools.llm.site=us", "cluster.pools.host.site=us", "slo.ttft_ms={p50: 20}"),
        *("slo.tpot_ms={}", "slo.e2e_ms={}"),
    )
    causes = result.summary["why"]["causes"]
    assert sum(causes.values()) == pytest.approx(1.0, abs=1e-6)
    assert causes["round_trip.llm.round_trip"] > 0.5


def test_one_site_without_distance_is_no_site() -> None:
    plain, one = simulated(*LOAD), simulated(*LOAD, "cluster.sites={here: {users: 1}}")
    columns = plain.requests.columns
    assert one.requests.select(columns).equals(plain.requests)
    assert "sites: here (1 of host, 1 of llm); requests go to the one that nearest chooses" in str(
        one.program
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster.sites={us: {users: 0.5}}"], "cluster.sites: the shares in users, 0.5, do not add up to 1"),
        (
            ["cluster.sites={us: {users: 0.5}, eu: {users: 0.5}}"],
            "cluster.sites.us.latency_ms.eu: missing; users at 'us' may be served there",
        ),
        (
            ["cluster.sites={us: {users: 1, latency_ms: {uk: 5}}}"],
            "cluster.sites.us.latency_ms: no other site is called 'uk'",
        ),
        (["cluster.pools.llm.site=us"], "cluster.pools.llm.site: 'us', but cluster.sites has none"),
        ([THREE, "cluster.pools.llm.site=mars"], "cluster.pools.llm.site: no site is called 'mars'"),
        (
            [THREE, "pipeline=chat", "cluster.pools.llm.site=us"],
            "cluster.pools.llm.site: it has no client at site 'eu', which has clients of others",
        ),
        ([THREE, "output.stream_requests=2"], "output.stream_requests: the cluster has sites"),
        (
            [THREE, "cluster.copies=2"],
            "cluster.groups, cluster.copies: they are not modelled with cluster.sites",
        ),
        ([THREE, "cluster.site_routing=farthest"], "cluster.site_routing: unknown site policy 'farthest'"),
        (
            [THREE, "pipeline=kv_reuse", "cluster.pools.store.begins_with=spread"],
            "cluster.pools.store.begins_with: spread, but a request finds only what is at its site",
        ),
        (
            [
                *(THREE, "pipeline=kv_reuse", "cluster.pools.store.site={us: 2, eu: 3, asia: 2}"),
                "cluster.pools.store.tiers.dram.shared_by=2",
            ],
            "cluster.pools.store.tiers.dram.shared_by: 2, but 2, 3, 2 stores stand at the sites",
        ),
        (
            [THREE, "cluster=replicas", "pool@cluster.pools.llm=endpoint"],
            "cluster.pools.llm: a pool of kind 'endpoint' is not modelled with cluster.sites",
        ),
        (
            [THREE, "cluster.pools.llm.count=3", "cluster.pools.llm.site={us: 2, eu: 2}"],
            "cluster.pools.llm.count: 3",
        ),
    ],
)
def test_what_is_not_modelled_with_sites_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(hf.HermesFlowError) as caught:
        hf.compile(hf.compose(["pipeline=llm", "workload.requests=5", *overrides]))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "stores",
    [
        ("cluster.pools.store.site={us: 2, eu: 1}", "cluster.pools.store.routing=context_affinity"),
        (
            "cluster.pools.store.beside=llm",
            "cluster.pools.store.host_link=true",
            "cluster.pools.llm.routing=context_affinity",
        ),
    ],
    ids=["apart", "beside"],
)
def test_stores_of_a_site_are_those_of_a_cluster_of_its_own(stores: tuple[str, ...], tmp_path: Path) -> None:
    two = "cluster.sites={us: {users: 0.6, latency_ms: {eu: 45}}, eu: {users: 0.4}}"
    recall = "pipeline.stages.recall"
    layout = (
        *("pipeline=kv_reuse", AFFINE, f"{recall}.per_session=true", f"{recall}.contexts=null"),
        *(
            f"{recall}.context_tokens=600",
            f"{recall}.skew=0",
            "cluster.pools.store.tiers.dram.capacity_gb=0.4",
        ),
    )
    columns = "arrival_ns,input_tokens,output_tokens,session"
    turns = [
        (turn * 700_000_000 + 41_000_000 * own, 900 * turn + 40 * own + 100, 20, own)
        for turn in range(4)
        for own in range(12)
    ]
    load = trace(tmp_path / "all.csv", turns, columns)
    counts = "cluster.pools.llm.site={us: 2, eu: 1}"
    result = simulated(*layout, *load, two, counts, *stores)
    rows = result.requests.to_dicts()
    found = 0
    for site, count in (("us", 2), ("eu", 1)):
        own = [row for row in rows if row["site"] == site]
        alone = simulated(
            *layout,
            *trace(tmp_path / f"{site}.csv", [turns[row["request"]] for row in own], columns),
            *(f"cluster.pools.llm.count={count}", f"cluster.pools.store.count={count}"),
            *(one for one in stores if ".site=" not in one),
        )
        for row, other in zip(own, alone.requests.to_dicts(), strict=True):
            assert row["e2e_s"] == pytest.approx(other["e2e_s"], abs=5e-9)
            assert row["cached_tokens"] == other["cached_tokens"]
        found += alone.summary["memory"]["store"]["lookups"] - alone.summary["memory"]["store"]["misses"]
    store = result.summary["memory"]["store"]
    assert store["lookups"] - store["misses"] == found > 20
