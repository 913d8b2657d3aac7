"""Every built-in cluster composes and runs a pipeline."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.config.folders import config_folder

STUDIED = ("tp2x", "tp8x")  # sizes of the paper's clusters; tests/studies runs them
CLUSTERS = sorted(
    path.stem for path in (config_folder() / "cluster").glob("*.yaml") if not path.stem.startswith(STUDIED)
)
# A pipeline for each cluster, with what else it needs.
RUNS: dict[str, list[str]] = {
    "agent": ["pipeline=agent"],
    "disaggregated": [],
    "gpu_asic": ["pipeline=cascade"],
    "guarded": ["pipeline=chat_guarded"],
    "hgx": [],
    "hybrid": ["pipeline=rag_kv_reuse"],
    "kv_local": ["pipeline=kv_reuse"],
    "kv_one_tier": ["pipeline=kv_reuse"],
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
