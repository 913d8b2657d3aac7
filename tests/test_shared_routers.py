"""Several pools of one model behind one router: requests are routed over the clients of all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from compiler.configs import problems_of
from oracles.routed_programs import POLICIES
from polars.testing import assert_frame_equal

import hermes_flow as hf
from hermes_flow.config.schema import Config

SIZES = ("workload=synthetic", "workload.requests=120", "workload.rate_per_s=40", "slo=none")
OLD = ("+pool@cluster.pools.old=llm", "hardware@cluster.pools.old.hardware=a100_sxm")
ROUTED = {name: own for name, own in POLICIES.items() if name != "context_affinity"} | {
    "heavy_light": {"policy": "heavy_light", "threshold_tokens": 2500}
}


def with_pools(config: Config, **pools: Any) -> Config:
    return replace(config, cluster=replace(config.cluster, pools=pools))


def cut(config: Config, name: str, first: int) -> Config:
    """Cut a pool in two that are alike, the first of ``first`` clients; another pool stands between them."""
    pools: dict[str, Any] = {}
    for other, pool in config.cluster.pools.items():
        if other == name:
            pools[name] = replace(pool, count=first)
            rest = replace(pool, count=pool.count - first)
        else:
            pools[other] = pool
    pools[f"{name}_rest"] = rest
    return with_pools(config, **pools)


def in_one_pool(frame: pl.DataFrame, name: str, first: int) -> pl.DataFrame:
    """Name the clients of two pools as those of one."""
    number = pl.col("client").str.extract(r"/(\d+)$").cast(pl.Int64) + first
    rest = pl.col("pool") == f"{name}_rest"
    client = pl.when(rest).then(pl.lit(f"{name}/") + number.cast(pl.String)).otherwise(pl.col("client"))
    pool = pl.when(rest).then(pl.lit(name)).otherwise(pl.col("pool"))
    return frame.with_columns(client=client, pool=pool)


def assert_same(ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    """Compare all columns exactly, energy apart: its sums are rounded in the order of the pools."""
    assert_frame_equal(ours.drop("energy_j"), theirs.drop("energy_j"), check_exact=True)
    assert_frame_equal(ours.select("energy_j"), theirs.select("energy_j"), rel_tol=1e-12)


def assert_same_run(apart: hf.Result, together: hf.Result, *cuts: tuple[str, int]) -> None:
    """Compare all tables of a cluster whose pools are cut with those of the cluster with whole ones."""
    assert_same(apart.requests, together.requests)
    stages, clients = apart.stages, apart.clients
    for name, first in cuts:
        stages, clients = in_one_pool(stages, name, first), in_one_pool(clients, name, first)
    order = ["request", "stage"]
    assert_same(stages.sort(order), together.stages.sort(order))
    assert_same(clients.sort("client"), together.clients.sort("client"))
    for key in ("ttft_s", "e2e_s", "stages"):
        assert apart.summary[key] == together.summary[key]
    ours, theirs = (dict(run.summary["throughput"]) for run in (apart, together))
    steady, expected = ours.pop("steady"), theirs.pop("steady")
    assert ours == theirs
    assert steady == (expected and pytest.approx(expected, rel=1e-12))  # summed in the order of the clients


@pytest.mark.parametrize("policy", ROUTED)
@pytest.mark.parametrize("stale_ms", [0, 30])
def test_two_pools_that_are_alike_equal_one_pool(policy: str, stale_ms: int) -> None:
    config = hf.compose(
        [
            *("cluster=replicas", "pipeline=agent", "workload=sessions", "workload.sessions=16", "slo=none"),
            *(
                "workload.rate_per_s=8",
                "workload.think_time_s=1",
                "cluster.pools.llm.count=5",
                "cluster.pools.llm.prefix_cache=true",
            ),
            *("cluster.pools.llm.kv_blocks=900", f"cluster.routing_stale_ms={stale_ms}"),
        ]
    )
    config = replace(config, cluster=replace(config.cluster, routing=ROUTED[policy]))
    together, apart = hf.simulate(hf.compile(config)), hf.simulate(hf.compile(cut(config, "llm", 2)))
    assert_same_run(apart, together, ("llm", 2))
    assert set(apart.stages.filter(pl.col("stage") == "prefill")["pool"]) == {"llm", "llm_rest"}


@pytest.mark.parametrize("kv_transfer", ["full", "layerwise"])
@pytest.mark.parametrize("first_token", ["prefill", "decode"])
@pytest.mark.parametrize("policy", ["round_robin", "nearest", "least_kv", "weighted"])
def test_prefills_and_decodes_on_several_pools_equal_one_pool_each(
    policy: str, first_token: str, kv_transfer: str
) -> None:
    config = hf.compose(
        [
            *(
                "cluster=disaggregated",
                "pipeline=chat",
                *SIZES,
                "workload.output_tokens={distribution: uniform, min: 1, max: 90}",
            ),
            *("cluster.pools.prefill.count=3", "cluster.pools.decode.count=4", "cluster.kv_handover_us=900"),
            *(f"cluster.kv_transfer={kv_transfer}", f"cluster.first_token={first_token}"),
        ]
    )
    config = replace(config, cluster=replace(config.cluster, routing=ROUTED[policy]))
    together = hf.simulate(hf.compile(config))
    apart = hf.simulate(hf.compile(cut(cut(config, "prefill", 1), "decode", 3)))
    assert_same_run(apart, together, ("prefill", 1), ("decode", 3))
    links = apart.links.with_columns(
        pl.col("link").replace({f"decode_rest/0 {way}": f"decode/3 {way}" for way in ("node in", "rack in")})
    )
    moved = dict(links.filter(pl.col("link").str.starts_with("decode")).select("link", "bytes").iter_rows())
    whole = together.links.filter(pl.col("link").str.starts_with("decode"))
    assert moved == dict(whole.select("link", "bytes").iter_rows())


def test_unlike_gpus_take_as_many_requests_as_they_can_hold() -> None:
    """Each request goes to the client with the fewest unfinished requests, whatever pool that is in."""
    routed = ("cluster.routing=least_requests", "cluster.pools.llm.count=2", "cluster.pools.old.count=2")
    result = hf.simulate(hf.compile(hf.compose(["cluster=replicas", "pipeline=llm", *SIZES, *OLD, *routed])))
    prefills = result.stages.filter(pl.col("stage") == "prefill").sort("request")
    clients = ["llm/0", "llm/1", "old/0", "old/1"]
    asked = [clients.index(name) for name in prefills["client"]]
    assert [name.partition("/")[0] for name in prefills["client"]] == prefills["pool"].to_list()
    ready, ends = prefills["ready_s"].to_list(), result.requests["finish_s"].to_list()
    for request, client in enumerate(asked):
        unfinished = [
            sum(ends[other] >= ready[request] for other in range(request) if asked[other] == one)
            for one in range(4)
        ]
        assert client == unfinished.index(min(unfinished))
    count = Counter(asked)
    assert count[0] + count[1] > 1.3 * (count[2] + count[3])  # an H100 is done sooner than an A100
    rows = {row["client"]: row for row in result.clients.iter_rows(named=True)}
    assert rows["llm/0"]["hardware"] == "h100_sxm"
    assert rows["old/1"]["hardware"] == "a100_sxm"
    assert result.clients.filter(pl.col("client").is_in(clients))["tokens"].sum() > 0


def test_each_prefix_is_found_where_it_was_sent() -> None:
    """Prefix affinity knows the clients of both pools, each with the memory that it has."""
    overrides = [
        *(
            "cluster=replicas",
            "pipeline=chat",
            "workload=sessions",
            "workload.sessions=60",
            "slo=none",
            *OLD,
        ),
        *("cluster.routing=prefix_affinity", "cluster.pools.llm.prefix_cache=true"),
        *("cluster.pools.old.prefix_cache=true", "cluster.pools.old.kv_blocks=4000"),
    ]
    result = hf.simulate(hf.compile(hf.compose(overrides)))
    table = result.stages.filter(pl.col("stage") == "prefill").join(
        result.requests.select("request", "session", "cached_tokens"), on="request"
    )
    again = table.filter(pl.col("request") != pl.col("request").min().over("session"))
    assert set(again["pool"]) == {"llm", "old"}
    stayed = again.filter(pl.col("client") == pl.col("client").first().over("session"))
    assert len(stayed) > 0.8 * len(again)
    assert again["cached_tokens"].sum() > 0


BASE = ["cluster=replicas", "pipeline=llm", "workload.requests=40", *OLD]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["cluster.pools.old.block_size=32"], "cluster.pools.old.block_size: differs from pool 'llm'"),
        (
            ["cluster.pools.old.model.precision.kv_cache=fp8"],
            "cluster.pools.old.model.precision.kv_cache: differs from pool 'llm'",
        ),
        (
            ["cluster.pools.old.routing=random"],
            "cluster.pools.old.routing: 'random', but pool 'llm' has None",
        ),
        (
            ["cluster.pools.old.serves=[prefill]"],
            "pipeline.stages.decode.pool: llm serve 'decode', but llm and old serve 'prefill'; pools that share",
        ),
        (
            ["cluster.routing={policy: heavy_light, threshold_tokens: 9, heavy_clients: 2}"],
            "cluster.routing.heavy_clients: 2 leaves none of 2 clients",
        ),
    ],
)
def test_what_one_router_cannot_serve_is_refused(overrides: list[str], problem: str) -> None:
    found = problems_of(hf.compose([*BASE, *overrides]))
    assert any(line.startswith(problem) for line in found), found


def test_a_request_must_fit_the_clients_of_all_pools() -> None:
    program = hf.compile(
        hf.compose(
            [
                *BASE,
                "workload.input_tokens={distribution: uniform, min: 40, max: 400}",
                "cluster.pools.old.kv_blocks=20",
            ]
        )
    )
    assert program.rejected
    assert set(program.rejected.values()) == {"larger than the KV cache of old (320 tokens)"}
    (warning,) = program.warnings
    assert "larger than the KV cache of old" in warning


def test_other_models_stay_a_choice_of_the_request() -> None:
    """Three pools: two hold the small model behind one router, one the large model."""
    overrides = [
        *("cluster=two_models", "pipeline=llm", *SIZES, "+pool@cluster.pools.old=llm"),
        *("hardware@cluster.pools.old.hardware=a100_sxm", "model@cluster.pools.old.model=llama3_8b"),
        "workload.models={llama3_8b: 0.7, llama3_70b: 0.3}",
    ]
    result = hf.simulate(hf.compile(hf.compose(overrides)))
    served = result.stages.filter(pl.col("stage") == "decode").join(result.requests, on="request")
    pools = {model: set(rows["pool"]) for (model,), rows in served.group_by("model")}
    assert pools == {"llama3_8b": {"small", "old"}, "llama3_70b": {"large"}}


def test_the_program_says_which_pools_share_a_router() -> None:
    text = " ".join(str(hf.compile(hf.compose([*BASE, "cluster.routing=least_kv"]))).split())
    assert "llm: 1 × (1 × h100_sxm) serving llama3_8b, least_kv routing" in text
    assert "old: 1 × (1 × a100_sxm) serving llama3_8b, behind the router of llm" in text
    assert "on llm and old = prefill + decode" in text
