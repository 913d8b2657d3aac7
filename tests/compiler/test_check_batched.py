"""What a batched pool cannot be, and the machines that pools share."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from compiler.configs import problems_of
from compiler.rag import changed, pool_of, rag, with_stage
from cost.catalog import hardware, model

import hermes_flow as hf
from hermes_flow.program.pools import BatchedClientSpec

GPU = hardware("a100_sxm")
GRACE = hardware("grace_cpu")


def spec_of(program: hf.Program, name: str) -> BatchedClientSpec:
    (pool,) = [pool for pool in program.pools if pool.name == name]
    assert isinstance(pool.client, BatchedClientSpec)
    return pool.client


@pytest.mark.parametrize(
    ("pool", "changes", "problem"),
    [
        (
            "embed",
            {"count": 0},
            "cluster.pools.embed.count: 0 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            "embed",
            {"max_batch": 0},
            "cluster.pools.embed.max_batch: 0 is out of range; expected an integer from 1 to 1,000,000",
        ),
        (
            "embed",
            {"wait_ms": -1.0},
            "cluster.pools.embed.wait_ms: -1 is out of range; expected a number from 0 to 1e9",
        ),
        (
            "embed",
            {"model": None, "serves": ("embed",)},
            "cluster.pools.embed.model: null; a pool that embeds needs an encoder",
        ),
        (
            "embed",
            {"model": model("llama3_8b")},
            "cluster.pools.embed.model: llama3_8b is a decoder; a batched pool needs an encoder",
        ),
        (
            "embed",
            {"tensor_parallel": 8},
            "cluster.pools.embed.tensor_parallel: 8 does not divide the 12 attention heads of e5_base",
        ),
        ("embed", {"cores": 4}, "cluster.pools.embed.cores: 4; a100_sxm is not a CPU, expected null"),
        ("embed", {"host": "host"}, "cluster.pools.embed.host: 'host'; a100_sxm is not a CPU, expected null"),
        (
            "embed",
            {"hardware": dataclasses.replace(GPU, memory_gb=0.1, usable_gb=None)},
            "cluster.pools.embed: the weights of e5_base take 0.2 GB a device, and a100_sxm has 0.1 GB",
        ),
        (
            "embed",
            {"hardware": dataclasses.replace(GPU, peak_tflops_bf16=None, peak_tflops_fp32=None)},
            "cluster.pools.embed.hardware.peak_tflops_bf16: null; a100_sxm has no such figure",
        ),
        (
            "retrieval",
            {"cores": 0},
            "cluster.pools.retrieval.cores: 0 is out of range; expected an integer from 1 to 100,000",
        ),
        ("retrieval", {"cores": 73}, "cluster.pools.retrieval.cores: 73 is above the 72 cores of grace_cpu"),
        (
            "retrieval",
            {"tensor_parallel": 2},
            "cluster.pools.retrieval.tensor_parallel: 2; grace_cpu is a CPU, expected 1",
        ),
        (
            "retrieval",
            {"hardware": dataclasses.replace(GRACE, cores=None)},
            "cluster.pools.retrieval.cores: null, and grace_cpu has no figure for it either",
        ),
        (
            "retrieval",
            {"hardware": GPU},
            "cluster.pools.retrieval.hardware.retrieval: null; a vector search needs it, and a100_sxm "
            "has no figures for one",
        ),
        (
            "retrieval",
            {"host": "hosts"},
            "cluster.pools.retrieval.host: no pool is called 'hosts'; did you mean 'host'?",
        ),
        (
            "retrieval",
            {"host": "retrieval"},
            "cluster.pools.retrieval.host: its own name; expected another pool, or null",
        ),
        (
            "retrieval",
            {"host": "llm"},
            "cluster.pools.retrieval.host: 'llm' is on h100_sxm, which is not a CPU",
        ),
        (
            "retrieval",
            {"host": "host"},
            "cluster.pools.retrieval.hardware: grace_cpu, but the machines of 'host' are "
            "sapphire_rapids; expected the same",
        ),
        (
            "host",
            {"serves": ("tokenize", "detokenize", "prefill")},
            "cluster.pools.host.serves: a pool of kind 'sequential' cannot serve 'prefill'",
        ),
    ],
)
def test_a_batched_pool_that_cannot_be_is_refused(pool: str, changes: dict[str, Any], problem: str) -> None:
    assert problems_of(changed(rag(), pool, **changes)) == [problem]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"code_gb_s": None}, "hardware.retrieval.code_gb_s: null; a search of codes (ivf_pq) needs it"),
        (
            {"code_gb_s": 0.0},
            "hardware.retrieval.code_gb_s: 0 is out of range; expected a number from 1e-6 to 1e8",
        ),
        (
            {"bandwidth_fraction": 1.5},
            "hardware.retrieval.bandwidth_fraction: 1.5 is out of range; expected a number from 1e-6 to 1",
        ),
        (
            {"levels": {}},
            "hardware.retrieval.levels: none of them is the memory; expected one whose fits_mb is null",
        ),
    ],
)
def test_figures_of_a_search_are_checked(changes: dict[str, Any], problem: str) -> None:
    assert GRACE.retrieval is not None
    broken = dataclasses.replace(GRACE, retrieval=dataclasses.replace(GRACE.retrieval, **changes))
    found = problems_of(changed(rag(), "retrieval", hardware=broken))
    assert found[0] == f"cluster.pools.retrieval.{problem}"


def test_a_graph_needs_a_figure_that_the_catalog_does_not_have() -> None:
    graph = {"kind": "vector_search", "after": ["embed"], "index": "hnsw", "vectors": 1e6}
    base = rag()
    stages = {**base.pipeline.stages, "search": graph}
    base = dataclasses.replace(base, pipeline=dataclasses.replace(base.pipeline, stages=stages))
    (problem,) = problems_of(base)
    assert problem.startswith("cluster.pools.retrieval.hardware.retrieval.levels.memory.walk_ns: null")


def test_a_batched_stage_needs_a_batched_pool() -> None:
    base = with_stage(rag(), "embed", pool="llm")
    assert problems_of(base) == ["pipeline.stages.embed.pool: 'llm' does not serve 'embed'"]


def test_pools_on_hardware_of_their_own_share_no_memory() -> None:
    program = hf.compile(rag())
    assert program.hosts == ()
    assert spec_of(program, "embed").hosts == ()


def test_pools_on_one_machine_share_its_memory() -> None:
    program = hf.compile(rag(cluster="rag_colocated"))
    (host,) = program.hosts
    assert (host.name, host.bytes_per_ns) == ("retrieval/0", 400.0)
    assert spec_of(program, "embed").hosts == spec_of(program, "retrieval").hosts == (0,)
    assert "shares 400 GB/s of memory with retrieval" in " ".join(str(program).split())


def test_clients_are_spread_over_the_machines_in_turn() -> None:
    base = changed(rag(cluster="rag_colocated"), "retrieval", count=2, cores=24)
    program = hf.compile(changed(base, "embed", count=4, cores=24))
    assert [host.name for host in program.hosts] == ["retrieval/0", "retrieval/1"]
    assert spec_of(program, "embed").hosts == (0, 1, 0, 1)
    assert spec_of(program, "retrieval").hosts == (0, 1)


def test_two_pools_may_be_on_the_machines_of_a_third() -> None:
    base = changed(rag(), "host", hardware=GRACE)
    base = changed(base, "embed", hardware=GRACE, host="host", cores=24)
    program = hf.compile(changed(base, "retrieval", host="host", cores=48))
    assert [host.name for host in program.hosts] == ["host/0"]
    assert spec_of(program, "embed").hosts == spec_of(program, "retrieval").hosts == (0,)


def test_a_single_reader_on_a_machine_shares_with_nobody() -> None:
    base = changed(rag(), "host", hardware=GRACE)
    assert hf.compile(changed(base, "retrieval", host="host")).hosts == ()
    assert hf.compile(changed(rag(), "host", hardware=GRACE, host="retrieval")).hosts == ()


def test_a_pool_on_a_machine_that_is_itself_another_ones_is_refused() -> None:
    base = changed(rag(), "host", hardware=GRACE, host="retrieval")
    base = changed(base, "embed", hardware=GRACE, host="host")
    assert problems_of(base) == [
        "cluster.pools.embed.host: 'host' is itself on the machines of 'retrieval'; name that pool"
    ]


def test_clients_on_one_machine_must_not_use_more_cores_than_it_has() -> None:
    base = rag(cluster="rag_colocated")
    (problem,) = problems_of(changed(base, "retrieval", cores=None))
    assert problem == (
        "cluster.pools.retrieval.cores: a machine of 'retrieval' has 72 cores, and its clients would use 24 (embed) "
        "and 72 (retrieval); give each pool its share"
    )
    (problem,) = problems_of(changed(base, "embed", count=2))
    assert "would use 48 (embed) and 48 (retrieval)" in problem


def test_routing_that_looks_at_prompts_is_refused_for_batched_pools() -> None:
    base = changed(rag(), "embed", count=2, routing="least_work_left")
    (problem,) = problems_of(base)
    assert problem.startswith("cluster.pools.embed.routing: least_work_left compares the prompts")
    assert pool_of("embed", base).count == 2
