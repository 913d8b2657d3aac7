"""Offloading through the public contract: what it gives, its columns and figures, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import hermes_flow as hf
from hermes_flow.errors import CompileError
from hermes_flow.report.console import run_summary

SESSIONS = [
    *("pipeline=llm", "workload=sessions", "workload.sessions=25", "workload.seed=3"),
    *("cluster.pools.llm.kv_blocks=500", "slo=none"),
]
TIERS = "cluster.pools.llm.offload.tiers"


def run(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*SESSIONS, *overrides])))


def test_evicted_blocks_are_loaded_again_and_spare_their_computing() -> None:
    without, with_host = run(), run(f"{TIERS}=[host]")
    found = with_host.requests
    assert found["host_hit_tokens"].sum() > 10_000
    assert (found["host_hit_tokens"] <= found["cached_tokens"]).all()
    assert found["cached_tokens"].sum() > without.requests["cached_tokens"].sum() + 10_000
    assert with_host.summary["ttft_s"]["mean"] < without.summary["ttft_s"]["mean"]
    use = with_host.summary["offload"]["llm"]
    host = use["tiers"]["host"]
    assert host["loaded_tokens"] >= found["host_hit_tokens"].sum()
    assert 0 < host["peak_fraction"] <= 1
    assert (
        host["read_bytes"] == host["loaded_tokens"] * 131_072
    )  # Llama-3.1 8B: 2 · 32 layers · 8 heads · 128 · 2 bytes
    assert use["loads"] > 0
    assert use["load_mean_s"] >= use["load_wait_mean_s"] >= 0
    assert "offload" not in without.summary
    links = {row["link"]: row for row in with_host.links.to_dicts()}
    assert set(links) == {"llm/0 host", "llm/0 to host", "llm/0 from host"}
    assert links["llm/0 from host"]["bytes"] == host["read_bytes"]
    assert links["llm/0 to host"]["bytes"] == host["written_bytes"]
    assert links["llm/0 host"]["bytes"] == host["read_bytes"] + host["written_bytes"]
    assert all(0 < row["utilization"] <= row["busy_fraction"] <= 1 for row in links.values())
    assert "host_hit_tokens" not in without.requests.columns


def test_a_small_host_hands_on_to_the_disk_and_both_are_bounded() -> None:
    small = run(f"{TIERS}=[host,disk]", "cluster.pools.llm.offload.host.capacity_gb=0.5")
    host, disk = (small.summary["offload"]["llm"]["tiers"][name] for name in ("host", "disk"))
    assert host["peak_bytes"] <= 0.5e9
    assert host["demoted_blocks"] > 0
    assert disk["loaded_tokens"] > 0
    assert disk["written_bytes"] == host["demoted_blocks"] * 16 * 131_072
    found = small.requests
    assert (found["host_hit_tokens"] + found["disk_hit_tokens"] <= found["cached_tokens"]).all()


def test_the_console_says_what_was_loaded_from_where() -> None:
    program = hf.compile(hf.compose([*SESSIONS, f"{TIERS}=[host]"]))
    summary = hf.simulate(program).summary
    loaded = summary["offload"]["llm"]["tiers"]["host"]["loaded_tokens"]
    assert f"tiers         llm loaded {loaded:,} tokens from host" in run_summary(summary, program)


def test_without_tiers_and_with_ample_memory_for_kv_tables_are_the_same() -> None:
    ample = ("cluster.pools.llm.kv_blocks=null",)
    plain, tiered = run(*ample), run(*ample, f"{TIERS}=[host]")
    columns = plain.requests.columns
    assert_frame_equal(plain.requests, tiered.requests.select(columns))
    assert tiered.requests["host_hit_tokens"].sum() == 0


def test_requests_with_adapters_find_their_blocks_in_the_tiers() -> None:
    adapters = ("workload.adapters={count: 6}", "cluster.pools.llm.adapters={slots: 2}")
    without, with_host = run(*adapters), run(*adapters, f"{TIERS}=[host]")
    assert with_host.requests["host_hit_tokens"].sum() > 10_000
    assert with_host.requests["status"].unique().to_list() == ["completed"]
    assert with_host.summary["ttft_s"]["mean"] < without.summary["ttft_s"]["mean"]
    assert with_host.summary["adapters"]["llm"]["loads"] > 10
    assert with_host.summary["offload"]["llm"]["loads"] > 10
    waited = with_host.requests.filter(pl.col("host_hit_tokens") > 0)
    assert waited["adapter_wait_s"].sum() == 0  # how much of their wait is an adapter's is not known


@pytest.mark.parametrize(("write", "prefetch"), [("evicted", "true"), ("computed", "false")])
def test_runs_keep_the_invariants(write: str, prefetch: str, tmp_path: Path) -> None:
    from hermes_flow.validation.invariants.check import check_run

    settings = (f"cluster.pools.llm.offload.write={write}", f"cluster.pools.llm.offload.prefetch={prefetch}")
    result = run(f"{TIERS}=[host,disk]", "workload.timeout_s=20", *settings)
    assert set(result.requests["status"].unique()) <= {"completed", "timed_out"}
    again = run(f"{TIERS}=[host,disk]", "workload.timeout_s=20", *settings)
    assert_frame_equal(result.requests, again.requests)
    result.write(tmp_path / "run")
    checked = check_run(tmp_path / "run")
    assert not checked.violations
    assert checked.checked


def test_a_prefill_pool_has_tiers_and_a_decode_pool_has_none() -> None:
    overrides = [word for word in SESSIONS if "kv_blocks" not in word]
    own = [*overrides, "cluster=disaggregated", "cluster.pools.prefill.kv_blocks=500"]
    result = hf.simulate(hf.compile(hf.compose([*own, "cluster.pools.prefill.offload.tiers=[host]"])))
    assert result.requests["host_hit_tokens"].sum() > 0
    with pytest.raises(CompileError, match=r"cluster\.pools\.decode\.offload\.tiers: \[host\] is not"):
        hf.compile(hf.compose([*own, "cluster.pools.decode.offload.tiers=[host]"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster.pools.llm.adapters={slots: 2}", "cluster.pools.llm.offload.prefetch=true"],
            "expected null or false",
        ),
        (
            ["cluster.pools.llm.adapters={slots: 2}", "cluster.pools.llm.tool_gap.policy=drop"],
            "not modelled with adapters",
        ),
        (["engine=tensorrt_llm"], "not modelled with the scheduler of tensorrt_llm"),
        (["cluster.pools.llm.pipeline_parallel=2"], "pipeline_parallel=2; expected 1"),
        (["cluster.pools.llm.prefix_cache=false"], "prefix_cache is false; expected true or null"),
        (["cluster.pools.llm.preemption=swap"], "preemption=swap; expected recompute"),
        (["cluster.pools.llm.offload.host.shared_by=2"], "every client has a tier of its own; expected 1"),
        (["+cluster.pools.llm.offload.host.in_host=true"], "expected false"),
        (["cluster.pools.llm.offload.host.capacity_gb=0.001"], "below one block of"),
        (["cluster.pools.llm.offload.host=null"], "expected a tier, for instance tier@"),
        (["cluster.pools.llm.hardware.host_link_gb_s=null"], "needs the bandwidth between"),
        (["pipeline=kv_reuse", "cluster=kv_local"], "not modelled for prompts that begin with the context"),
        ([f"{TIERS}=[disk,host]"], r"expected \[host\], \[disk\] or \[host, disk\], the fastest first"),
        (["model=gpt_oss_120b", "cluster.pools.llm.kv_blocks=null"], "sliding windows or states"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        hf.compile(hf.compose([*SESSIONS, f"{TIERS}=[host]", *overrides]))


def test_tiers_that_nothing_can_use_are_a_warning() -> None:
    program = hf.compile(
        hf.compose(["pipeline=llm", "workload=synthetic", "workload.requests=9", f"{TIERS}=[host]"])
    )
    assert any("offload has no effect" in text for text in program.warnings)


def test_writing_faster_than_a_tier_can_is_a_warning() -> None:
    host = "cluster.pools.llm.offload.host"
    result = run(f"{TIERS}=[host]", f"{host}.bandwidth_gb_s=0.005", f"{host}.capacity_gb=0.01")
    assert any("its writes pile up" in text for text in result.summary["warnings"])


def test_the_hits_of_tiers_are_integers_of_whole_blocks() -> None:
    hits = run(f"{TIERS}=[host]").requests["host_hit_tokens"]
    assert hits.dtype == pl.Int64
    assert (hits % 16 == 0).all()
