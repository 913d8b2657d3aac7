"""Built-in clusters: each composes, and those that an error proposes serve what was asked for."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.config.folders import config_folder
from hermes_flow.errors import CompileError

CLUSTERS = sorted(path.stem for path in (config_folder() / "cluster").glob("*.yaml"))
# A pipeline for each cluster, with what else it needs.
RUNS: dict[str, list[str]] = {
    "agent": ["pipeline=agent"],
    "disaggregated": [],
    "gpu_asic": ["pipeline=cascade"],
    "guarded": ["pipeline=chat_guarded"],
    "hgx": [],
    "hybrid": ["pipeline=rag_kv_reuse"],
    "kv_local": ["pipeline=kv_reuse"],
    "kv_tiers": ["pipeline=kv_reuse"],
    "rack": [],
    "rag": ["pipeline=rag"],
    "rag_colocated": ["pipeline=rag"],
    "replicas": [],
    "routed": ["pipeline=routed"],
    "two_models": ["pipeline=cascade"],
}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_cluster_runs_a_pipeline(cluster: str) -> None:
    workload = ["workload=synthetic", "workload.requests=30", "workload.rate_per_s=2"]
    result = hf.simulate(hf.compile(hf.compose([f"cluster={cluster}", *RUNS[cluster], *workload])))
    assert result.summary["requests"] == {"submitted": 30, "completed": 30, "failed": 0}


@pytest.mark.parametrize("pipeline", ["rag", "kv_reuse", "chat_guarded", "agent", "tree_search"])
def test_a_stage_that_no_pool_serves_comes_with_a_cluster_that_does(pipeline: str) -> None:
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose([f"pipeline={pipeline}"]))
    proposed = [
        problem.partition("; cluster=") for problem in caught.value.problems if "no pool of" in problem
    ]
    assert proposed
    for problem, _, hint in proposed:
        kind = problem.rsplit("'", 2)[1]
        cluster = hf.compose([f"cluster={hint.partition(' ')[0]}"]).cluster
        assert any(kind in pool.serves for pool in cluster.pools.values())
