"""No invariant is violated by the runs of ready pipelines on ready clusters, engines and workloads."""

from __future__ import annotations

from pathlib import Path

import pytest
from tries import some_of
from validation.result_folders import simulated

from hermes_flow.config.folders import config_folder
from hermes_flow.validation.invariants.check import INVARIANTS, check_run

PIPELINES = sorted(path.stem for path in (config_folder() / "pipeline").glob("*.yaml"))
WITHOUT_SGLANG = {
    "chat_guarded_streaming",
    "kv_reuse",
    "rag_kv_reuse",
}  # an error says that it is not modelled
SMALL = ["workload=synthetic", "workload.requests=25", "workload.rate_per_s=6"]
LOADED = ["workload=synthetic", "workload.requests=150", "workload.rate_per_s=100"]
LLM = "cluster.pools.llm"

OTHERS = {
    "hgx": ["pipeline=rag", "cluster=hgx", *SMALL],
    "rack": ["pipeline=fan_out", "cluster=rack", *SMALL],
    "hybrid": ["pipeline=tree_search", "cluster=hybrid", *SMALL],
    "closed loop": ["workload=closed_loop", "workload.requests=60"],
    "sessions": ["workload=sessions", "workload.sessions=20"],
    "prefix cache": ["pipeline=agent", f"{LLM}.prefix_cache=true", *SMALL],
    "endpoint": ["pool@cluster.pools.llm=endpoint", *SMALL],
    "pipeline parallel": ["pipeline=llm", f"{LLM}.pipeline_parallel=2", *LOADED],
    "preempted": ["pipeline=llm", f"{LLM}.kv_blocks=1000", *LOADED],
    "swapped": ["pipeline=llm", f"{LLM}.kv_blocks=1000", f"{LLM}.preemption=swap", *LOADED],
    "few seats": ["pipeline=llm", f"{LLM}.max_num_seqs=4", *LOADED],
    "static": ["pipeline=llm", f"{LLM}.batching=static", *LOADED],
    "continuous": [f"{LLM}.batching=continuous", *LOADED],
    "mixed batches": [f"{LLM}.batching=mixed", *LOADED],
    "images": ["pipeline=multimodal", "workload.requests=40"],
    "images within the engine": [
        *("pipeline=multimodal", "workload.requests=40"),
        f"{LLM}.serves=[prefill, decode, encode_images]",
    ],
    "adapters": [
        *("pipeline=llm", *LOADED),
        *("workload.adapters={count: 20}", f"{LLM}.adapters={{slots: 2, host_slots: 4, disk_gb_s: 2}}"),
    ],
    "sites": [
        *("pipeline=chat", *SMALL, "cluster.site_routing=least_loaded"),
        "cluster.sites={a: {users: 0.5, latency_ms: {b: 40}, usd_per_gb: {b: 1}}, b: {users: 0.5, last_mile_ms: 7}}",
    ],
    "failures": ["pipeline=llm", f"{LLM}.kv_blocks=60", *SMALL],
    "decodes that begin anew": [
        *("pipeline=llm", "cluster=disaggregated", "cluster.pools.decode.count=2", *LOADED),
        "cluster.pools.decode.failures={mtbf_s: 2, repair_s: 1}",
    ],
    "stores with tiers": ["pipeline=kv_reuse", "cluster=kv_tiers", *SMALL],
    "no links at some clients": ["pipeline=kv_reuse", "hardware=rtx4090", "workload.requests=25"],
    "no SLO and no prices": ["slo=none", "prices=none", *SMALL],
}


def check(folder: Path, *overrides: str) -> None:
    run = check_run(simulated(folder, *overrides))
    assert [str(violation) for violation in run.violations] == []
    assert (
        len(run.checked) >= len(INVARIANTS) - 5
    )  # a run without a network has no links, an endpoint no steps


# Every pipeline on one of the two, in turn; on both in a thorough run.
ON_CLUSTERS = [
    (pipeline, cluster)
    for place, pipeline in enumerate(PIPELINES)
    for cluster in some_of(("replicas", "disaggregated")[:: 1 - 2 * (place % 2)], 2)
]


REPEATED = [
    (pipeline, cluster)
    for pipeline in ("agent", "rag_iterative", "tree_search", "reasoning_multi", "fan_out")
    for cluster in ("replicas", "disaggregated")
]


@pytest.mark.parametrize(("pipeline", "cluster"), ON_CLUSTERS)
def test_of_a_pipeline_on_a_cluster(pipeline: str, cluster: str, tmp_path: Path) -> None:
    check(tmp_path / "run", f"pipeline={pipeline}", f"cluster={cluster}", *SMALL)


@pytest.mark.parametrize("pipeline", some_of([name for name in PIPELINES if name not in WITHOUT_SGLANG], 3))
def test_of_a_pipeline_on_sglang(pipeline: str, tmp_path: Path) -> None:
    check(tmp_path / "run", f"pipeline={pipeline}", "engine=sglang", *SMALL)


@pytest.mark.parametrize(("pipeline", "cluster"), some_of(REPEATED, 3))
def test_of_repeated_stages_whose_answers_have_one_token_at_times(
    pipeline: str, cluster: str, tmp_path: Path
) -> None:
    short = "workload.output_tokens={distribution: uniform, min: 1, max: 2}"
    check(tmp_path / "run", f"pipeline={pipeline}", f"cluster={cluster}", *SMALL, short)


@pytest.mark.parametrize("overrides", OTHERS.values(), ids=OTHERS)
def test_of_another_configuration(overrides: list[str], tmp_path: Path) -> None:
    check(tmp_path / "run", *overrides)
