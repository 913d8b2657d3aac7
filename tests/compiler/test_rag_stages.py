"""embed, vector_search and rerank: what they lower to, what they add to prompts, and what they refuse."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from compiler.configs import problems_of
from compiler.rag import changed, pool_of, rag, with_stage, without_keys
from cost.catalog import hardware, model

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import BatchedClientSpec
from hermes_flow.program.work import PassCost, Passes

CENTROIDS, DIM = 4e6, 768


def op_of(program: hf.Program, name: str) -> Op:
    (op,) = [op for op in program.ops if op.name == name]
    return op


def cost_of(config: Config, name: str) -> PassCost:
    cost = op_of(hf.compile(config), name).work.cost
    assert cost is not None
    return cost


def search_ns(batch: int, cores: int = 72) -> float:
    """A batch on Grace by hand: centroids, tables and codes, one after another; scans wait for all cores."""
    shared_s = cores * 1e-6
    centroids, tables, codes = 4 * CENTROIDS * DIM, 4 * 256 * DIM, 50 * 5000 * 96
    phases = (
        (batch * centroids / 10e9 / cores + shared_s, centroids),
        (batch * tables / 10e9 / cores, batch * tables),
        (batch * codes / 18e9 / cores + shared_s, batch * codes),
    )
    return 1e9 * sum(max(busy_s, size / (0.8 * 500e9)) for busy_s, size in phases)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_a_search_takes_the_larger_of_its_cores_and_its_memorys_time_phase_by_phase(batch: int) -> None:
    cost = cost_of(rag(), "search")
    assert cost.ns[batch] == round(search_ns(batch))
    assert cost.bytes[batch] == 4 * CENTROIDS * DIM + batch * (4 * 256 * DIM + 50 * 5000 * 96)
    assert len(cost.ns) == pool_of("retrieval", rag()).max_batch + 1


@pytest.mark.parametrize(
    ("index", "keys"),
    [
        ("flat", {"vectors": 1e6}),
        ("ivf_flat", {"vectors": 1e6, "centroids": 1000, "probes": 10}),
        ("ivf_pq", {"vectors": 1e6, "centroids": 1000, "probes": 10, "code_bytes": 48}),
        ("hnsw", {"vectors": 1e6, "links": 16, "ef_search": 32, "distances": 900}),
    ],
)
def test_every_kind_of_index_can_be_searched(index: str, keys: dict[str, Any]) -> None:
    base = rag()
    search = {"kind": "vector_search", "after": ["embed"], "index": index, **keys}
    stages = {**base.pipeline.stages, "search": search}
    base = dataclasses.replace(base, pipeline=dataclasses.replace(base.pipeline, stages=stages))
    fit = pool_of("retrieval", base).hardware.retrieval
    assert fit is not None
    levels = {name: dataclasses.replace(level, walk_ns=100.0) for name, level in fit.levels.items()}
    machine = dataclasses.replace(
        pool_of("retrieval", base).hardware, retrieval=dataclasses.replace(fit, levels=levels)
    )
    cost = cost_of(changed(base, "retrieval", hardware=machine), "search")
    assert 0 < cost.ns[1] <= cost.ns[32] < 32 * cost.ns[1]
    assert cost.bytes[1] > 0


def test_an_index_is_a_product_quantization_where_none_is_named() -> None:
    assert cost_of(without_keys(rag(), "search", "index"), "search") == cost_of(rag(), "search")


def test_prompts_grow_by_the_documents() -> None:
    base = rag()
    program = hf.compile(base)
    generate = op_of(program, "generate")
    assert generate.llm is not None
    np.testing.assert_array_equal(generate.llm.prompt, program.requests.input_tokens + 20 * 512)
    kept = hf.compile(with_stage(base, "rerank", keep=3))
    prompt = op_of(kept, "generate").llm.prompt
    assert prompt is not None
    np.testing.assert_array_equal(prompt, program.requests.input_tokens + 3 * 512)


def test_only_requests_that_rerank_get_documents() -> None:
    program = hf.compile(with_stage(rag(), "rerank", share=0.5))
    rerank, generate = op_of(program, "rerank"), op_of(program, "generate")
    assert rerank.taken is not None
    assert generate.llm is not None
    assert 0 < rerank.taken.sum() < len(rerank.taken)
    np.testing.assert_array_equal(
        generate.llm.prompt, program.requests.input_tokens + 20 * 512 * rerank.taken.astype(int)
    )


def test_a_query_is_cut_to_the_encoders_context() -> None:
    program = hf.compile(rag())
    np.testing.assert_array_equal(
        op_of(program, "embed").work.tokens, np.minimum(program.requests.input_tokens, 512)
    )


def test_a_query_may_have_tokens_of_its_own() -> None:
    fixed = op_of(hf.compile(with_stage(rag(), "embed", query_tokens=32)), "embed").work.tokens
    assert fixed is not None
    assert set(fixed.tolist()) == {32}
    drawn = {"distribution": "uniform", "min": 10, "max": 30}
    tokens = op_of(hf.compile(with_stage(rag(), "embed", query_tokens=drawn)), "embed").work.tokens
    assert tokens is not None
    assert 10 <= tokens.min() < tokens.max() <= 30


def test_a_cross_encoder_reads_query_and_document_for_each_document() -> None:
    base = with_stage(
        rag(), "rerank", model="e5_base", query_tokens=32, documents=10, tokens_per_document=100
    )
    program = hf.compile(base)
    rerank = op_of(program, "rerank")
    assert program.pools[rerank.pool].name == "embed"
    assert isinstance(rerank.work, Passes)
    assert rerank.work.cost.sequences == 10
    assert set(rerank.work.tokens.tolist()) == {10 * 132}
    assert program.pools[op_of(hf.compile(rag()), "rerank").pool].name == "retrieval"


def test_vectors_are_ranked_again_at_the_rate_of_gathers() -> None:
    cost = cost_of(rag(), "rerank")
    assert cost.bytes[1] == 20 * 768 * 4
    assert cost.ns[1] == round(20 * 768 * 4 / 10)  # one core, 10 bytes a nanosecond
    assert cost.ns[32] == cost.ns[1] + 32 * 1000  # a core for each query, and 1 µs for each core


def test_an_encoder_on_a_cpu_reads_its_weights_once_a_pass() -> None:
    cpu = changed(rag(), "embed", hardware=hardware("grace_cpu"))
    layers = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert cost_of(cpu, "embed").bytes[1:] == (layers * 4,) * 32  # fp32, as Grace has no bf16 peak
    cpu = changed(rag(), "embed", hardware=hardware("sapphire_rapids"))
    assert cost_of(cpu, "embed").bytes[1:] == (layers * 2,) * 32
    assert cost_of(rag(), "embed").bytes == ()


def test_fewer_cores_embed_and_search_more_slowly() -> None:
    cpu = changed(rag(), "embed", hardware=hardware("grace_cpu"))
    whole, half = cost_of(cpu, "embed").step, cost_of(changed(cpu, "embed", cores=36), "embed").step
    assert whole is not None
    assert half is not None
    assert half.tokens_ps[8000] == pytest.approx(2 * whole.tokens_ps[8000], rel=1e-2)
    few = cost_of(changed(rag(), "retrieval", cores=9), "search")
    assert few.ns[32] == round(search_ns(32, cores=9))


def test_an_index_larger_than_the_memory_is_searched_with_a_warning() -> None:
    (warning,) = hf.compile(rag()).warnings
    assert warning.startswith("the index of search takes 2,092 GB, a host of retrieval has 480 GB")
    assert hf.compile(with_stage(rag(), "search", centroids=40_000)).warnings == ()


def test_the_program_tells_what_passes_take_and_where_the_figures_are_from() -> None:
    text = " ".join(str(hf.compile(rag())).split())
    for words in (
        "searching ivf_pq: a query reads 12.3 GB",
        "RAGO (arXiv 2503.14649)",
        "embedding by e5_base",
        "reranking by vectors",
        "at most 32 tasks of a stage in a pass",
    ):
        assert words in text


def test_waiting_and_batch_size_reach_the_client() -> None:
    program = hf.compile(changed(rag(), "retrieval", max_batch=4, wait_ms=2.5))
    (pool,) = [pool for pool in program.pools if pool.name == "retrieval"]
    assert isinstance(pool.client, BatchedClientSpec)
    assert (pool.client.max_batch, pool.client.wait_ns) == (4, 2_500_000)
    assert any("waits up to 2.5 ms" in note for note in pool.notes)


@pytest.mark.parametrize(
    ("stage", "changes", "problem"),
    [
        ("search", {"probs": 3}, "pipeline.stages.search.probs: unknown key; did you mean 'probes'?"),
        (
            "search",
            {"index": "ivfpq"},
            "pipeline.stages.search.index: unknown vector index 'ivfpq'; did you mean",
        ),
        (
            "search",
            {"probes": 0},
            "pipeline.stages.search.probes: 0 is out of range",
        ),
        (
            "search",
            {"code_bytes": 95},
            "pipeline.stages.search.code_bytes: 95 is not valid; expected a divisor of",
        ),
        ("rerank", {"documents": 0}, "pipeline.stages.rerank.documents: 0 is out of range"),
        ("rerank", {"keep": 30}, "pipeline.stages.rerank.keep: 30 is above the number of documents, 20"),
        ("rerank", {"vectors": 10}, "pipeline.stages.rerank.documents: 20 is more than the vectors, 10"),
        (
            "rerank",
            {"model": "e5_bas"},
            "pipeline.stages.rerank.model: no pool that serves 'rerank' holds 'e5_bas'; did",
        ),
        (
            "embed",
            {"model": "e5_bose"},
            "pipeline.stages.embed.model: no pool that serves 'embed' holds 'e5_bose'; did",
        ),
        ("embed", {"query_tokens": 0}, "pipeline.stages.embed.query_tokens: 0 is out of range"),
        (
            "embed",
            {"query_tokens": {"distribution": "uniform", "min": 3}},
            "pipeline.stages.embed.query_tokens.max: missing",
        ),
        ("decode", {"output_tokens": 0}, "pipeline.stages.decode.output_tokens: 0 is out of range"),
        ("decode", {"output_tokens": "many"}, "pipeline.stages.decode.output_tokens: 'many' is not"),
    ],
)
def test_a_stage_refuses_what_it_cannot_be(stage: str, changes: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(with_stage(rag(), stage, **changes))
    assert found.startswith(problem)


def test_ranking_by_vectors_needs_to_know_how_many_there_are() -> None:
    base = with_stage(without_keys(rag(), "search"), "rerank", after=["embed"])
    stages = {name: stage for name, stage in base.pipeline.stages.items() if name != "search"}
    base = dataclasses.replace(base, pipeline=dataclasses.replace(base.pipeline, stages=stages))
    assert problems_of(base) == ["pipeline.stages.rerank.vectors: null, and no vector_search comes before it"]
    assert op_of(hf.compile(with_stage(base, "rerank", vectors=1e6)), "rerank").work.cost.ns


def test_a_decode_writes_as_many_tokens_as_its_key_says() -> None:
    fixed = hf.compile(with_stage(rag(), "decode", output_tokens=7))
    output = op_of(fixed, "generate").llm.output
    assert output is not None
    assert set(output.tolist()) == {7}
    scaled = hf.compile(with_stage(rag(), "decode", output_tokens=7, output_scale=2.0))
    output = op_of(scaled, "generate").llm.output
    assert output is not None
    assert set(output.tolist()) == {14}


def test_a_rewritten_question_is_short_and_drawn_for_each_request() -> None:
    program = hf.compile(rag("rag_rewrite_rerank"))
    rewrite = op_of(program, "read+rewrite").llm.output
    assert rewrite is not None
    assert 16 <= rewrite.min() < rewrite.max() <= 48
    prompt = op_of(program, "generate").llm.prompt
    np.testing.assert_array_equal(prompt, program.requests.input_tokens + 10 * 256)
    output = op_of(program, "generate").llm.output
    np.testing.assert_array_equal(output, program.requests.output_tokens)


def test_a_model_can_be_an_affine_cost_too() -> None:
    base = dataclasses.replace(rag(), cost={"kind": "affine", "fixed_us": 10, "per_token_us": 1})
    embed = cost_of(base, "embed").step
    assert embed is not None
    assert embed.step_ps([(100, 0), (50, 0)], 0, 0) == 160 * 1_000_000


def test_a_context_of_millions_of_tokens_a_pass_is_refused() -> None:
    base = with_stage(rag(), "embed", query_tokens=30_000)
    base = changed(base, "embed", model=model("e5_mistral_7b"), max_batch=256)
    base = dataclasses.replace(base, workload=dataclasses.replace(base.workload, requests=300))
    (problem,) = problems_of(base)
    assert problem == (
        "cluster.pools.embed.max_batch: 256 tasks of embedding may have 7,680,000 tokens; expected fewer"
    )
