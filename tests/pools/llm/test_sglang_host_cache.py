"""SGLang's hierarchical cache: equal to a naive simulator on random systems, and through the public contract."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles.sglang_cases import oracle_of
from oracles.sglang_host_cache import Host, SGLangWithHost
from tries import tries
from validation.test_sglang_schedules import configure, write_trace

import hermes_flow as hf
from hermes_flow.config.folders import config_folder
from hermes_flow.errors import CompileError
from hermes_flow.pools.llm.offload.schema import Offload
from hermes_flow.pools.memory.schema import MemoryTier

PS_PER_US = 1_000_000
TOKEN_BYTES = 131_072  # Llama-3.1 8B: 2 · 32 layers · 8 heads · 128 · 2 bytes
LAYERS = 32
POOL = "cluster.pools.llm"
SESSIONS = [
    *("engine=sglang", "pipeline=llm", "workload=sessions", "workload.sessions=25", "workload.seed=3"),
    *(f"{POOL}.kv_blocks=8000", "slo=none"),
]


def random_case(rng: random.Random) -> dict[str, Any]:
    """Draw conversations with too little memory to keep them."""
    page, at = rng.choice([1, 1, 4, 16]), 0
    requests: list[dict[str, Any]] = []
    for number in range(rng.randint(4, 16)):
        at += rng.choice([0, rng.randint(1, 60_000)])
        row: dict[str, Any] = {"arrival_us": at, "family": rng.randint(0, 2), "output": rng.randint(1, 40)}
        if number and rng.random() < 0.5:
            before = rng.randrange(number)
            row |= {"after": before, "shared": 0}
            row["prompt"] = requests[before]["prompt"] + requests[before]["output"] + rng.randint(1, 20)
        else:
            row["prompt"] = rng.randint(1, 90)
            row["shared"] = min(row["prompt"], rng.choice([0, 16, 48]))
        row["ignore_eos"] = rng.random() < 0.5
        row["max_new_tokens"] = row["output"] + (0 if row["ignore_eos"] else rng.choice([0, 30]))
        requests.append(row)
    memory = max(row["prompt"] + row["max_new_tokens"] for row in requests) + 4 * page + 10
    return {
        "max_running_requests": rng.randint(1, 6),
        "max_prefill_tokens": rng.choice([32, 100, 16384]),
        "chunked_prefill_size": rng.choice([-1, 16, 32, 64]),
        "page_size": page,
        "max_total_num_tokens": -(-(memory + rng.randint(0, 100)) // page) * page,
        "schedule_policy": rng.choice(["fcfs", "lpm"]),
        "schedule_conservativeness": rng.choice([0.02, 0.3, 1.0]),
        "mixed_chunk": rng.random() < 0.4,
        "radix_cache": True,
        "overlap": rng.random() < 0.5,
        "cost": {"fixed": rng.randint(500, 5000), "per_token": rng.randint(0, 50), "per_context": 1},
        "requests": requests,
    }


def with_host(case: dict[str, Any], host: Host, path: Path) -> hf.Config:
    """Return the config of a case with host memory: a token takes whole µs on the link and in the memory."""
    config = configure(case, path)
    pool: Any = config.cluster.pools["llm"]
    gb_s = TOKEN_BYTES / 1000.0 * PS_PER_US / 1000.0  # of 1 ps a token
    tier = MemoryTier(
        capacity_gb=host.capacity * TOKEN_BYTES / 1e9,
        bandwidth_gb_s=gb_s * 1000.0 / host.tier_ps,
        latency_us=host.latency_ps / PS_PER_US,
    )
    pool = replace(
        pool,
        offload=Offload(tiers=("host",), write=host.write, host=tier),  # type: ignore[arg-type]
        hardware=replace(pool.hardware, host_link_gb_s=gb_s * 1000.0 / host.link_ps),
    )
    return replace(config, cluster=replace(config.cluster, pools=config.cluster.pools | {"llm": pool}))


def naive(case: dict[str, Any], host: Host) -> SGLangWithHost:
    plain = oracle_of(case)
    cost = {name: figure * PS_PER_US for name, figure in case["cost"].items()}
    for request in plain.requests:
        request.arrival *= PS_PER_US
    found = SGLangWithHost(replace(plain.s, **cost), plain.requests, host)
    found.run()
    return found


def test_random_systems_equal_the_naive_simulator(tmp_path: Path) -> None:
    loaded = dict.fromkeys(("evicted", "computed", "reused"), 0)
    for seed in range(tries(45, of=600)):
        rng = random.Random(seed)
        case = random_case(rng)
        host = Host(
            capacity=case["page_size"] * rng.randint(2, 1200 // case["page_size"]),
            write=list(loaded)[seed % 3],
            tier_ps=rng.randint(1, 60) * PS_PER_US,
            link_ps=rng.randint(1, 60) * PS_PER_US,
            latency_ps=rng.choice([0, 300]) * PS_PER_US,
            layers=LAYERS,
        )
        expected = naive(case, host)
        requests = expected.requests_by_number()
        if min(request.finish for request in requests) < 0:  # the engine itself would wait for ever
            continue
        path = tmp_path / f"{seed}.parquet"
        write_trace(case, path)
        result = hf.simulate(hf.compile(with_host(case, host, path)))
        (op,) = result.recording.ops
        assert op.first_ns is not None
        np.testing.assert_array_equal(op.first_ns, [request.first // 1000 for request in requests], f"{seed}")
        np.testing.assert_array_equal(op.finish_ns, [request.finish // 1000 for request in requests])
        assert result.requests["cached_tokens"].to_list() == [request.cached for request in requests]
        from_host = [expected.loaded.get(request.number, 0) for request in requests]
        assert result.requests["host_hit_tokens"].to_list() == from_host
        tier = result.summary["offload"]["llm"]["tiers"]["host"]
        assert tier["written_bytes"] == expected.written * TOKEN_BYTES
        assert tier["peak_fraction"] <= 1
        assert result.summary["engine"]["steps"] == len(expected.steps)
        loaded[host.write] += sum(from_host)
    assert min(loaded.values()) > 100, loaded


def run(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*SESSIONS, *overrides])))


def test_more_host_memory_finds_more_of_the_sessions() -> None:
    sizes = [
        run(f"{POOL}.offload.tiers=[host]", f"{POOL}.offload.host.capacity_gb={gb}") for gb in (0.1, 1, 50)
    ]
    without = run()
    cached = [one.requests["cached_tokens"].sum() for one in (without, *sizes)]
    assert cached == sorted(cached)
    assert cached[3] > 1.5 * cached[0]
    assert sizes[2].summary["ttft_s"]["mean"] < without.summary["ttft_s"]["mean"]
    found = sizes[2].requests
    assert (found["host_hit_tokens"] <= found["cached_tokens"]).all()
    assert found["status"].unique().to_list() == ["completed"]
    links = {row["link"]: row for row in sizes[2].links.to_dicts()}
    host = sizes[2].summary["offload"]["llm"]["tiers"]["host"]
    assert links["llm/0 from host"]["bytes"] == host["read_bytes"] == host["loaded_tokens"] * TOKEN_BYTES
    assert links["llm/0 to host"]["bytes"] == host["written_bytes"]


def test_with_ample_memory_for_kv_host_memory_changes_nothing() -> None:
    ample = (f"{POOL}.kv_blocks=null",)
    plain, tiered = run(*ample), run(*ample, f"{POOL}.offload.tiers=[host]", f"{POOL}.offload.write=computed")
    assert tiered.requests["host_hit_tokens"].sum() == 0
    assert plain.requests.equals(tiered.requests.select(plain.requests.columns))


def test_the_program_says_how_host_memory_is_used() -> None:
    settings = (f"{POOL}.offload.tiers=[host]", f"{POOL}.offload.write=reused")
    program = " ".join(str(hf.compile(hf.compose([*SESSIONS, *settings]))).split())
    assert "blocks are written as they are reused, and loads begin as its turn comes, along with" in program


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("offload.tiers=[host,disk]",), "only [host] is modelled with it"),
        (("offload.tiers=[host]", "offload.prefetch=true"), "prefetch: True is a setting of engine=vllm"),
        (
            ("offload.tiers=[host]", "tool_gap.policy=drop"),
            "tool_gap.policy=drop is not modelled with sglang",
        ),
        (("offload.tiers=[host]", "prefix_cache=false"), "prefix_cache is false"),
    ],
)
def test_what_is_not_modelled_is_an_error_with_its_key(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(CompileError, match="offload") as error:
        run(*(f"{POOL}.{one}" for one in overrides))
    assert message in str(error.value)


def test_the_policy_of_sglang_is_refused_with_vllm() -> None:
    with pytest.raises(CompileError, match="write: reused is a policy of engine=sglang"):
        run("engine=vllm", f"{POOL}.offload.tiers=[host]", f"{POOL}.offload.write=reused")


def test_host_memory_is_refused_where_kv_moves_on_to_decode_clients() -> None:
    with pytest.raises(
        CompileError, match="SGLang's host memory is not modelled on clients whose KV goes to"
    ):
        hf.compile(
            hf.compose(
                [
                    *("engine=sglang", "pipeline=llm", "cluster=disaggregated"),
                    "cluster.pools.prefill.offload.tiers=[host]",
                ]
            )
        )


def test_the_experiment_on_host_memory_runs_with_sglang() -> None:
    text = (config_folder() / "experiment" / "host_gb.yaml").read_text(encoding="utf-8")
    assert "prefetch" not in text  # a setting of vLLM's connector alone
    found = run(f"{POOL}.offload.tiers=[host]", f"{POOL}.count=2", "cluster.routing=prefix_affinity")
    assert found.requests["host_hit_tokens"].sum() > 0
