"""SGLang's hierarchical cache: equal to a naive simulator on random systems, and through the public contract."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles.sglang_cases import oracle_of
from oracles.sglang_host_cache import Drive, Host, SGLangWithHost
from tries import tries
from validation.test_sglang_schedules import configure, write_trace

import hermes_flow as hf
from hermes_flow.config.folders import config_folder
from hermes_flow.errors import CompileError, HermesFlowError
from hermes_flow.pools.llm.offload.schema import Offload
from hermes_flow.pools.memory.schema import MemoryTier

PS_PER_US = 1_000_000
TOKEN_BYTES = 131_072  # Llama-3.1 8B: 2 · 32 layers · 8 heads · 128 · 2 bytes
LAYERS = 32
EVICTS_AS_IT_STARTS = 123  # a case whose first step after a pause waits for writes of evictions
POOL = "cluster.pools.llm"
SESSIONS = [
    *("engine=sglang", "pipeline=llm", "workload=sessions", "workload.sessions=25", "workload.seed=3"),
    *(f"{POOL}.kv_blocks=8000", "slo=none"),
]


def random_case(rng: random.Random, requests_from: int = 4, to: int = 16) -> dict[str, Any]:
    """Draw conversations with too little memory to keep them."""
    page, at = rng.choice([1, 1, 4, 16]), 0
    requests: list[dict[str, Any]] = []
    for number in range(rng.randint(requests_from, to)):
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


def with_host(case: dict[str, Any], host: Host, path: Path, drive: Drive | None = None) -> hf.Config:
    """Return the config of a case with host memory: a token takes whole µs on the link and in the memory."""
    config = configure(case, path)
    pool: Any = config.cluster.pools["llm"]
    gb_s = TOKEN_BYTES / 1000.0 * PS_PER_US / 1000.0  # of 1 ps a token
    tier = MemoryTier(
        capacity_gb=host.capacity * TOKEN_BYTES / 1e9,
        bandwidth_gb_s=gb_s * 1000.0 / host.tier_ps,
        latency_us=host.latency_ps / PS_PER_US,
    )
    offload = Offload(tiers=("host",), write=host.write, host=tier)  # type: ignore[arg-type]
    if drive is not None:
        disk = MemoryTier(
            capacity_gb=drive.capacity * TOKEN_BYTES / 1e9,
            bandwidth_gb_s=gb_s * 1000.0 / drive.token_ps,
            latency_us=drive.latency_ps / PS_PER_US,
        )
        offload = replace(
            offload,
            tiers=("host", "disk"),
            disk=disk,
            prefetch_policy=drive.policy,  # type: ignore[arg-type]
            prefetch_tokens=drive.least,
        )
    pool = replace(
        pool,
        offload=offload,
        hardware=replace(pool.hardware, host_link_gb_s=gb_s * 1000.0 / host.link_ps),
    )
    return replace(config, cluster=replace(config.cluster, pools=config.cluster.pools | {"llm": pool}))


def naive(case: dict[str, Any], host: Host, drive: Drive | None = None) -> SGLangWithHost:
    plain = oracle_of(case)
    cost = {name: figure * PS_PER_US for name, figure in case["cost"].items()}
    for request in plain.requests:
        request.arrival *= PS_PER_US
    found = SGLangWithHost(replace(plain.s, **cost), plain.requests, host, drive)
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
        program = hf.compile(with_host(case, host, path))
        if expected.least_free < 0:
            with pytest.raises(
                HermesFlowError,
                match=r"a request would be aborted: .*cluster\.pools\.llm\.offload.*cluster\.pools\.llm\.kv_blocks",
            ):
                hf.simulate(program)
            continue
        result = hf.simulate(program)
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


def test_random_systems_with_a_drive_equal_the_naive_simulator(tmp_path: Path) -> None:
    loaded = dict.fromkeys(("best_effort", "wait_complete", "timeout"), 0)
    for seed in sorted({*range(tries(9, of=600)), EVICTS_AS_IT_STARTS}):
        rng = random.Random(seed)
        case = random_case(rng, 25, 45)
        page, devices = case["page_size"], case["max_total_num_tokens"]
        tier_ps = rng.randint(1, 60) * PS_PER_US
        host = Host(
            capacity=page * (devices // page + rng.randint(2, 120 // page)),
            write=("evicted", "computed", "reused")[seed % 3],
            tier_ps=tier_ps,
            link_ps=rng.randint(1, 60) * PS_PER_US,
            latency_ps=rng.choice([0, 300]) * PS_PER_US,
            layers=LAYERS,
        )
        drive = Drive(
            capacity=page * rng.randint(200 // page, 3000 // page),
            token_ps=rng.choice([1, 60, 30_000]) * PS_PER_US,
            latency_ps=rng.choice([0, 700]) * PS_PER_US,
            policy=list(loaded)[seed // 3 % 3],
            least=rng.choice([1, 20]),
        )
        expected = naive(case, host, drive)
        requests = expected.requests_by_number()
        if min(request.finish for request in requests) < 0:  # the engine itself would wait for ever
            continue
        path = tmp_path / f"{seed}.parquet"
        write_trace(case, path)
        program = hf.compile(with_host(case, host, path, drive))
        if expected.least_free < 0:
            with pytest.raises(
                HermesFlowError,
                match=r"a request would be aborted: .*cluster\.pools\.llm\.offload.*cluster\.pools\.llm\.kv_blocks",
            ):
                hf.simulate(program)
            continue
        result = hf.simulate(program)
        (op,) = result.recording.ops
        assert op.first_ns is not None
        np.testing.assert_array_equal(op.first_ns, [request.first // 1000 for request in requests], f"{seed}")
        np.testing.assert_array_equal(op.finish_ns, [request.finish // 1000 for request in requests])
        for column, found in (("host", expected.loaded), ("disk", expected.from_disk)):
            tokens = [found.get(request.number, 0) for request in requests]
            assert result.requests[f"{column}_hit_tokens"].to_list() == tokens
        tier = result.summary["offload"]["llm"]["tiers"]["disk"]
        assert tier["written_bytes"] == expected.saved * TOKEN_BYTES
        assert tier["loaded_tokens"] == expected.read
        assert tier["peak_fraction"] <= 1
        loaded[drive.policy] += sum(expected.from_disk.values())
    assert min(loaded.values()) > 50, loaded


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
    settings = (f"{POOL}.offload.tiers=[host,disk]", f"{POOL}.offload.prefetch_tokens=500")
    program = " ".join(str(hf.compile(hf.compose([*SESSIONS, *settings]))).split())
    assert "the disk is read for 500 tokens or more (best_effort)" in program


def test_blocks_are_written_by_the_engines_own_rule_unless_the_user_gives_another() -> None:
    """SGLang's hicache_write_policy is write_through by default."""
    tiers = f"{POOL}.offload.tiers=[host]"
    own, computed, evicted = (
        run(tiers),
        *(run(tiers, f"{POOL}.offload.write={each}") for each in ("computed", "evicted")),
    )
    assert own.requests.equals(computed.requests)
    assert not own.requests.equals(evicted.requests)

    def said(engine: str) -> str:
        return " ".join(str(hf.compile(hf.compose([*SESSIONS, f"engine={engine}", tiers]))).split())

    assert "blocks are written as they are computed" in said("sglang")
    assert "blocks are written as they are evicted" in said("vllm")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("offload.tiers=[disk]",), "[host] and [host, disk] are modelled with it"),
        (
            ("offload.tiers=[host,disk]", "offload.host.capacity_gb=1"),
            "is not above the 1.05 GB for KV on the devices",
        ),
        (
            ("offload.tiers=[host]", "offload.prefetch_policy=timeout"),
            "prefetch_policy: timeout is a setting of engine=sglang with tiers=[host, disk]",
        ),
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


def test_a_drive_behind_the_host_finds_more_and_requests_may_wait_for_it() -> None:
    small = (
        f"{POOL}.kv_blocks=4000",
        f"{POOL}.offload.host.capacity_gb=0.6",
        f"{POOL}.offload.write=computed",
    )
    without = run(*small, f"{POOL}.offload.tiers=[host]")
    found = {}
    for policy in ("best_effort", "wait_complete"):
        found[policy] = run(
            *small, f"{POOL}.offload.tiers=[host,disk]", f"{POOL}.offload.prefetch_policy={policy}"
        )
    cached = [one.requests["cached_tokens"].sum() for one in (without, *found.values())]
    assert cached == sorted(set(cached))
    waiting = found["wait_complete"]
    tiers = waiting.summary["offload"]["llm"]["tiers"]
    assert waiting.requests["disk_hit_tokens"].sum() > 0
    assert tiers["disk"]["loaded_tokens"] >= waiting.requests["disk_hit_tokens"].sum()
    assert tiers["disk"]["written_bytes"] <= tiers["host"]["written_bytes"]
    links = {row["link"]: row for row in waiting.links.to_dicts()}
    assert links["llm/0 disk"]["bytes"] == tiers["disk"]["written_bytes"] + tiers["disk"]["read_bytes"]


@pytest.mark.parametrize("tiers", ["[host]", "[host,disk]"])
def test_pages_that_are_written_to_the_host_do_not_let_a_lone_sequence_take_more_than_there_is(
    tiers: str,
) -> None:
    result = hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *("engine=sglang", "pipeline=reasoning_multi", "model=qwen3_vl_8b", f"{POOL}.count=4"),
                    *("workload=synthetic", "workload.requests=30", "workload.rate_per_s=20"),
                    *(f"{POOL}.kv_blocks=3000", f"{POOL}.offload.write=computed"),
                    f"{POOL}.offload.tiers={tiers}",
                ]
            )
        )
    )
    peaks = result.clients.filter(result.clients["pool"] == "llm")["kv_peak_fraction"]
    assert 0.9 < peaks.max() <= 1  # type: ignore[operator]
    assert result.summary["requests"]["completed"] == 29  # one is longer than the cache


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
