"""Queries, vectors and documents between machines: by their bytes, over the links that they share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

import hermes_flow as hf

RAG = ("pipeline=rag", "workload=synthetic", "workload.requests=40", "slo=none")
VECTOR = 4 * 768  # fp32 coordinates of the index
DOCUMENTS = 20 * 512 * 4  # four bytes a token


def run(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*RAG, *overrides])))


def moved(result: hf.Result, column: str = "bytes") -> dict[str, float]:
    """Return the mean of a column by stage, of the stages where it is not 0."""
    means = result.stages.group_by("stage").agg(pl.col(column).mean())
    return {stage: mean for stage, mean in means.iter_rows() if mean}


def test_vectors_go_to_the_search_and_documents_to_the_prompt() -> None:
    result = run("workload.rate_per_s=0.2")
    assert moved(result) == {"search": VECTOR, "prefill": DOCUMENTS}
    # The A100 of the embedder and the Grace of the search have 25 GB/s, the H100 has 50.
    took = {"search": round(VECTOR / 25) / 1e9, "prefill": round(DOCUMENTS / 25) / 1e9}
    assert moved(result, "transfer_s") == pytest.approx(took, rel=1e-12)
    assert dict(result.links.select("link", "bytes").iter_rows()) == {
        "embed/0 rack out": 40 * VECTOR,
        "retrieval/0 rack in": 40 * VECTOR,
        "retrieval/0 rack out": 40 * DOCUMENTS,
        "llm/0 rack in": 40 * DOCUMENTS,
    }
    assert set(result.links["level"]) == {"rack"}


def test_what_a_service_takes_to_reach_shows_in_the_first_token() -> None:
    near, far = (
        run("workload.rate_per_s=0.05"),
        run("workload.rate_per_s=0.05", "network.rack.latency_us=3000"),
    )
    later = far.requests["ttft_s"] - near.requests["ttft_s"]
    # Two ways of 3 ms; the engine's steps may begin a nanosecond sooner or later.
    assert later.to_list() == pytest.approx([0.006] * 40, abs=1e-8)
    assert near.summary["requests"]["completed"] == 40


def test_on_one_machine_nothing_moves() -> None:
    result = run("cluster=hybrid")
    assert moved(result) == {}
    colocated = run("cluster=rag_colocated")  # the embedder is on the hosts that search
    assert moved(colocated) == {"prefill": DOCUMENTS}


def test_a_stage_may_say_how_much_it_leaves() -> None:
    result = run("+pipeline.stages.rerank.bytes_out=1_000_000", "+pipeline.stages.embed.bytes_out=0")
    assert moved(result) == {"prefill": 1_000_000}


def test_a_rewritten_query_goes_to_the_embedder_and_texts_to_the_cross_encoder() -> None:
    rows = ("pipeline=rag_rewrite_rerank", "workload=synthetic", "workload.requests=40", "slo=none")
    result = hf.simulate(hf.compile(hf.compose(rows)))
    stages = {row["stage"]: row for row in result.stages.filter(pl.col("request") == 7).to_dicts()}
    (written,) = {
        row["tokens"] for name, row in stages.items() if row["kind"] == "decode" and name != "decode"
    }
    kinds = {row["kind"]: row for row in stages.values()}
    assert kinds["embed"]["bytes"] == 4 * written
    (rerank,) = (stage for stage in hf.compose(rows).pipeline.stages.values() if stage["kind"] == "rerank")
    assert kinds["rerank"]["bytes"] == 4 * rerank["documents"] * rerank["tokens_per_document"]


def test_transfers_share_the_links_of_a_host() -> None:
    """Documents of many requests leave one search host over a link of 250 kB/s: they hold each other up."""
    slow = ("network.rack.efficiency=1e-5", "workload.rate_per_s=20", "cluster.pools.llm.count=4")
    result = run(*slow)
    link = result.links.row(by_predicate=pl.col("link") == "retrieval/0 rack out", named=True)
    assert link["mean_transfers"] > 2
    assert link["delay_s"] > 0.05
    prefills = result.stages.filter(pl.col("stage") == "prefill")
    assert prefills["bytes"].sum() == link["bytes"]
    assert prefills["transfer_s"].mean() == pytest.approx(link["transfer_s"], rel=1e-6)
    assert (prefills["queue_s"] >= 0).all()


def test_a_request_counts_to_the_load_while_its_documents_come() -> None:
    far = ("network.rack.latency_us=5e6", "workload.rate_per_s=50", "workload.requests=12")
    result = run(*far, "cluster.pools.llm.count=4", "cluster.routing=least_requests")
    served = result.stages.filter(pl.col("stage") == "prefill")["client"].value_counts()
    assert served["count"].to_list() == [3] * 4


def test_a_link_that_is_not_known_holds_nothing_up_and_is_named() -> None:
    config: Any = hf.compose(RAG)
    pools = dict(config.cluster.pools)
    pools["retrieval"] = replace(
        pools["retrieval"], hardware=replace(pools["retrieval"].hardware, network_gb_s=None)
    )
    program = hf.compile(replace(config, cluster=replace(config.cluster, pools=pools)))
    assert any(
        warning.startswith("cluster.pools.retrieval.hardware.network_gb_s: null")
        for warning in program.warnings
    )
    result = hf.simulate(program)
    assert moved(result) == {"search": VECTOR, "prefill": DOCUMENTS}
    assert result.links["link"].to_list() == ["embed/0 rack out", "llm/0 rack in"]


@pytest.mark.parametrize("placement", ["grace_cpu", "sapphire_rapids", "a100_sxm"])
def test_the_context_of_a_rag_request_moves_in_under_a_hundredth_of_the_time_to_its_first_token(
    placement: str,
) -> None:
    """As in the RAG placement study of HERMES (arXiv 2504.09775)."""
    result = run(f"hardware@cluster.pools.embed.hardware={placement}", "workload.rate_per_s=0.5")
    moving = result.stages["transfer_s"].sum() / 40
    assert 0 < moving < 0.01 * result.summary["ttft_s"]["mean"]


KV = (
    "pipeline=kv_reuse",
    "workload=synthetic",
    "workload.requests=40",
    "workload.rate_per_s=0.5",
    "slo=none",
)
TOKEN_BYTES = 131_072  # llama3_8b in bf16
CONTEXT = 3000 * TOKEN_BYTES
HIT = ("pipeline.stages.recall.contexts=null", "pipeline.stages.recall.skew=0")


@pytest.mark.parametrize("overlap", ["false", "true"])
def test_the_kv_of_a_context_goes_from_its_store_to_the_client_that_goes_on_from_it(overlap: str) -> None:
    hits = ("pipeline.stages.recall.hits={dram: 0.6}", f"pipeline.stages.recall.overlap={overlap}")
    result = hf.simulate(hf.compile(hf.compose([*KV, *HIT, *hits, "cluster.pools.llm.count=2"])))
    table = result.stages.filter(pl.col("stage") == "prefill").join(result.requests, on="request")
    found = table.filter(pl.col("cached_tokens") > 0)
    assert 10 < len(found) < 35
    assert set(found["bytes"]) == {CONTEXT}
    assert found["transfer_s"].to_list() == pytest.approx([CONTEXT / 50e9] * len(found), rel=1e-6)
    missed = table.filter(pl.col("cached_tokens") == 0)
    assert set(missed["bytes"]) == set(missed["transfer_s"]) == {0}
    network = result.links.filter(pl.col("level") == "rack")
    out = network.row(by_predicate=pl.col("link") == "store/0 rack out", named=True)
    assert out["bytes"] == len(found) * CONTEXT
    assert network.filter(pl.col("link").str.starts_with("llm"))["bytes"].sum() == len(found) * CONTEXT


def test_what_a_store_next_to_its_client_finds_takes_no_network() -> None:
    config: Any = hf.compose([*KV, *HIT, "pipeline.stages.recall.hits={dram: 1.0}"])
    pools = dict(config.cluster.pools)
    pools["store"] = replace(pools["store"], beside="llm")
    beside = hf.simulate(hf.compile(replace(config, cluster=replace(config.cluster, pools=pools))))
    apart = hf.simulate(hf.compile(config))
    assert "prefill" not in moved(beside)
    later = apart.requests["ttft_s"] - beside.requests["ttft_s"]
    assert later.to_list() == pytest.approx([CONTEXT / 50e9] * 40, rel=1e-3)


def test_what_is_written_back_goes_over_the_network_before_the_store_has_it() -> None:
    """Two requests of one context: the second comes while the first one's KV is on its way, or after it."""
    one = ("pipeline.stages.recall.contexts=1", "pipeline.stages.recall.skew=0", "workload.requests=2")
    slow = ("network.rack.gb_s=0.1", "workload.arrivals=constant", "cluster.pools.llm.prefix_cache=false")

    def cached(rate: float) -> hf.Result:
        return hf.simulate(hf.compile(hf.compose([*KV, *one, *slow, f"workload.rate_per_s={rate}"])))

    early, late = cached(0.5), cached(0.1)
    assert early.requests["cached_tokens"].to_list() == [0, 0]
    assert late.requests["cached_tokens"].to_list() == [0, 3000]
    written = late.summary["memory"]["store"]["tiers"]["dram"]["written_bytes"]
    into = late.links.row(by_predicate=pl.col("link") == "store/0 rack in", named=True)
    assert into["bytes"] == written == CONTEXT
    assert into["transfer_s"] == pytest.approx(CONTEXT / 0.1e9, rel=1e-6)


def test_a_rate_of_the_network_takes_the_place_of_what_the_hardware_has() -> None:
    figures = ("network.node.gb_s=9", "network.rack.gb_s=3", "network.rack.efficiency=0.5")
    nodes = ("network.devices_per_node=3", "cluster.pools.prefill.count=2", "cluster.pools.decode.count=2")
    network = hf.compile(
        hf.compose(["cluster=disaggregated", "workload.requests=5", *figures, *nodes])
    ).network
    assert network is not None
    devices = {"host": 1, "prefill": 1, "decode": 1}
    for client, node, rack in zip(
        network.clients, network.node_bytes_per_ns, network.rack_bytes_per_ns, strict=True
    ):
        assert (node, rack) == (9.0 * devices[client.split("/")[0]], 3.0 * devices[client.split("/")[0]])
