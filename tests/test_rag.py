"""RAG from the configuration to the tables: placement of the embedder, machines that are shared, rewriting."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from compiler.rag import changed, pool_of, rag

import hermes_flow as hf
from hermes_flow.config.schema import Config, SyntheticWorkload
from hermes_flow.program.work import Passes

EMBED = "cluster.pools.embed"


@functools.cache
def placement(encoder: str, machine: str) -> dict[str, Any]:
    """Return the summary of one job of experiment=rag_placement."""
    words = [
        f"model@{EMBED}.model={encoder}",
        f"hardware@{EMBED}.hardware={machine}",
        "workload.requests=100",
    ]
    return hf.simulate(hf.compile(hf.compose(["experiment=rag_placement", *words]))).summary


def ttft(encoder: str, machine: str) -> float:
    value: float = placement(encoder, machine)["ttft_s"]["p50"]
    return value


def share_of_embedding(encoder: str, machine: str) -> float:
    """The embedder's share of what comes before the first token, on average."""
    stages = placement(encoder, machine)["stages"]
    before = [stages[name]["mean_s"] for name in ("tokenize", "embed", "search", "rerank", "prefill")]
    return float(stages["embed"]["mean_s"] / sum(before))


def test_a_large_embedder_on_a_cpu_dominates_the_time_to_first_token_and_a_gpu_removes_it() -> None:
    large = "e5_mistral_7b"
    assert share_of_embedding(large, "grace_cpu") > 0.8
    assert share_of_embedding(large, "sapphire_rapids") > 0.3
    assert share_of_embedding(large, "a100_sxm") < 0.25
    assert ttft(large, "grace_cpu") > 5 * ttft(large, "sapphire_rapids")
    assert ttft(large, "sapphire_rapids") > 1.2 * ttft(large, "a100_sxm")


def test_a_small_embedder_is_at_home_on_a_cpu() -> None:
    for machine in ("grace_cpu", "sapphire_rapids"):
        assert share_of_embedding("e5_base", machine) < 0.12
        assert ttft("e5_base", machine) < 1.1 * ttft("e5_base", "a100_sxm")


def at_rate(base: Config, rate_per_s: float, requests: int = 200) -> Config:
    assert isinstance(base.workload, SyntheticWorkload)
    load = dataclasses.replace(base.workload, rate_per_s=rate_per_s, requests=requests)
    return dataclasses.replace(base, workload=load)


def mean_s(config: Config, stage: str) -> float:
    value: float = hf.simulate(hf.compile(config)).summary["stages"][stage]["service_mean_s"]
    return value


def test_two_searches_on_one_host_share_the_bandwidth_that_each_would_nearly_use_up() -> None:
    alone = at_rate(changed(rag(), "retrieval", max_batch=1, count=2, cores=36), 1000.0)
    on_one = changed(
        changed(alone, "host", hardware=pool_of("retrieval", rag()).hardware), "retrieval", host="host"
    )
    (size,) = {
        op.work.cost.bytes[1]
        for op in hf.compile(alone).ops
        if op.name == "search" and isinstance(op.work, Passes)
    }
    assert mean_s(alone, "search") == pytest.approx(size / (36 * 10e9), rel=0.02)
    assert mean_s(on_one, "search") == pytest.approx(2 * size / 400e9, rel=0.02)


def test_an_embedder_beside_a_search_slows_it_by_what_it_reads() -> None:
    together = at_rate(rag(cluster="rag_colocated"), 2.0)
    apart = changed(together, "embed", host=None)
    slower = mean_s(together, "search") / mean_s(apart, "search")
    assert 1.0 < slower < 1.1  # a small encoder reads little


def test_the_links_table_shows_the_memory_that_is_shared() -> None:
    result = hf.simulate(hf.compile(rag(cluster="rag_colocated")))
    (row,) = result.links.filter(result.links["level"] == "memory").rows(named=True)
    assert (row["link"], row["level"], row["gb_s"]) == ("retrieval/0 memory", "memory", 400.0)
    assert 0.0 < row["busy_fraction"] <= 1.0


@pytest.mark.parametrize("pipeline", ["rag", "rag_rewrite_rerank"])
@pytest.mark.parametrize("cluster", ["rag", "rag_colocated"])
def test_every_request_passes_every_stage_in_order(pipeline: str, cluster: str) -> None:
    config = rag(pipeline, cluster)
    result = hf.simulate(hf.compile(config))
    assert result.summary["requests"] == {"submitted": 40, "completed": 40, "failed": 0}
    stages = result.stages
    assert len(stages) == 40 * len(config.pipeline.stages)
    for _, own in stages.group_by("request"):
        by_name = {row["stage"]: row for row in own.rows(named=True)}
        for name, stage in config.pipeline.stages.items():
            row = by_name[name]
            assert row["ready_s"] <= row["start_s"] <= row["finish_s"]
            for before in stage.get("after", []):
                assert row["ready_s"] == pytest.approx(by_name[before]["finish_s"], abs=1e-9)


def test_the_first_token_is_that_of_the_answer_and_not_of_the_rewritten_question() -> None:
    result = hf.simulate(hf.compile(rag("rag_rewrite_rerank")))
    stages = result.stages
    prefill = stages.filter(stages["stage"] == "prefill").sort("request")
    np.testing.assert_allclose(
        result.requests.sort("request")["first_token_s"], prefill["finish_s"], atol=1e-9
    )


def test_larger_batches_search_more_queries_a_second() -> None:
    small, large = (changed(rag(), "retrieval", max_batch=size) for size in (1, 32))
    finish = [
        hf.simulate(hf.compile(at_rate(base, 1000.0))).stages.filter(stage="search")["finish_s"].max()
        for base in (small, large)
    ]
    assert finish[1] < 0.65 * finish[0]


def test_equal_configurations_give_equal_tables() -> None:
    one, other = (hf.simulate(hf.compile(rag(cluster="rag_colocated"))) for _ in range(2))
    assert one.stages.equals(other.stages)
    assert one.clients.equals(other.clients)
