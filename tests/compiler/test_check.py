from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from compiler.configs import config, llm_pool, problems_of, with_pool, with_stages

import hermes_flow as hf
from hermes_flow.config.schema import SLO, Config
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.program.pools import LLMClientSpec

PREFILL = {"kind": "prefill"}
DECODE = {"kind": "decode", "after": ["prefill"]}


def test_the_default_has_no_problems() -> None:
    assert hf.compile(config("workload.requests=5")).name == "azure_conv_10_per_s"


@pytest.mark.parametrize(
    ("pool", "changes", "problem"),
    [
        (
            "llm",
            {"count": 0},
            "cluster.pools.llm.count: 0 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            "host",
            {"count": -2},
            "cluster.pools.host.count: -2 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            "host",
            {"cores": 0},
            "cluster.pools.host.cores: 0 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            "llm",
            {"tensor_parallel": 0},
            "cluster.pools.llm.tensor_parallel: 0 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            "llm",
            {"block_size": 0},
            "cluster.pools.llm.block_size: 0 is out of range; expected an integer from 1 to 1,000,000",
        ),
        (
            "llm",
            {"max_num_seqs": 0},
            "cluster.pools.llm.max_num_seqs: 0 is out of range; expected an integer from 1 to 1,000,000",
        ),
        (
            "llm",
            {"kv_blocks": 0},
            "cluster.pools.llm.kv_blocks: 0 is out of range; expected an integer from 1 to 1e12",
        ),
        (
            "llm",
            {"max_num_batched_tokens": 100},
            "cluster.pools.llm.max_num_batched_tokens: 100 is below max_num_seqs (256); every running sequence "
            "takes a token in each step",
        ),
        (
            "llm",
            {"memory_utilization": 1.2},
            "cluster.pools.llm.memory_utilization: 1.2 is out of range; expected a number from 1e-6 to 1",
        ),
        (
            "llm",
            {"memory_utilization": 0.0},
            "cluster.pools.llm.memory_utilization: 0 is out of range; expected a number from 1e-6 to 1",
        ),
        (
            "llm",
            {"tensor_parallel": 3},
            "cluster.pools.llm.tensor_parallel: 3 does not divide the 32 attention heads of llama3_8b",
        ),
        (
            "llm",
            {"pipeline_parallel": 0},
            "cluster.pools.llm.pipeline_parallel: 0 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            "llm",
            {"batching": "chunky"},
            "cluster.pools.llm.batching: unknown batching policy 'chunky'; did you mean 'chunked'?",
        ),
        (
            "llm",
            {"routing": "least_request"},
            "cluster.pools.llm.routing: unknown routing policy 'least_request'; did you mean 'least_requests'?",
        ),
        (
            "llm",
            {"serves": ("prefill", "decode", "prefil")},
            "cluster.pools.llm.serves: unknown stage kind 'prefil'; did you mean 'prefill'?",
        ),
    ],
)
def test_a_pool_that_cannot_be_is_refused(pool: str, changes: dict[str, Any], problem: str) -> None:
    assert problems_of(with_pool(pool, **changes)) == [problem]


def test_a_batching_policy_may_not_be_asked_for_what_it_cannot_do() -> None:
    broken = with_pool("llm", prefix_cache=True, batching="static")
    assert problems_of(broken) == [
        "cluster.pools.llm.prefix_cache: true, but static batching pads its prompts and reuses none; expected false "
        "or null"
    ]


@pytest.mark.parametrize("preemption", ["recompute", "swap", "none"])
def test_a_prefix_cache_goes_with_every_way_to_preempt(preemption: str) -> None:
    link = dataclasses.replace(llm_pool().hardware, host_link_gb_s=50.0)
    (_, llm) = hf.compile(with_pool("llm", prefix_cache=True, preemption=preemption, hardware=link)).pools
    assert isinstance(llm.client, LLMClientSpec)
    assert (llm.client.prefix_cache, llm.client.preemption) == (True, preemption)


def test_the_routing_of_the_cluster_is_blamed_once() -> None:
    base = config("workload.requests=5")
    broken = dataclasses.replace(base, cluster=dataclasses.replace(base.cluster, routing="robin"))
    assert problems_of(broken) == [
        "cluster.routing: unknown routing policy 'robin'; did you mean 'round_robin'?"
    ]


def test_a_host_needs_a_number_of_cores() -> None:
    gpu = config("workload.requests=5").hardware
    assert problems_of(with_pool("host", hardware=gpu)) == [
        "cluster.pools.host.cores: null, and h100_sxm has no figure for it either"
    ]


def test_an_encoder_serves_no_prefill() -> None:
    encoder = config("workload.requests=5", "model=e5_base").model
    assert "cluster.pools.llm.model: e5_base is an encoder; an LLM pool needs a decoder" in problems_of(
        with_pool("llm", model=encoder)
    )


def test_kv_heads_must_be_divisible_among_the_devices_or_the_other_way_round() -> None:
    odd = dataclasses.replace(llm_pool().model, kv_heads=6, heads=24)
    assert problems_of(with_pool("llm", model=odd, tensor_parallel=4)) == [
        "cluster.pools.llm.tensor_parallel: 4 does not fit the 6 KV heads of llama3_8b"
    ]
    hf.compile(with_pool("llm", tensor_parallel=8))


def test_weights_that_do_not_fit_are_refused_with_their_size() -> None:
    large = config("workload.requests=5", "model=llama3_405b").model
    assert problems_of(with_pool("llm", model=large)) == [
        "cluster.pools.llm: the weights of llama3_405b (bf16) take 811.7 GB on each of 1 × h100_sxm, which "
        "leaves no room for KV in 76.4 GB; cluster.pools.llm.tensor_parallel=8 cluster.pools.llm.pipeline_parallel=2 "
        "leaves room"
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"bandwidth_gb_s": -5.0},
            "hardware.bandwidth_gb_s: -5 is out of range; expected a number from 1e-6 to 1e8",
        ),
        ({"memory_gb": 0.0}, "hardware.memory_gb: 0 is out of range; expected a number from 1e-6 to 1e9"),
        (
            {"reserved_gb": float("inf")},
            "hardware.reserved_gb: inf is out of range; expected a number from 0 to 1e9",
        ),
        ({"power_w": -1.0}, "hardware.power_w: -1 is out of range; expected a number from 0.001 to 1e7"),
    ],
)
def test_hardware_that_cannot_be_is_refused(changes: dict[str, float], problem: str) -> None:
    machine = dataclasses.replace(llm_pool().hardware, **changes)
    assert problems_of(with_pool("llm", hardware=machine)) == [f"cluster.pools.llm.{problem}"]


def test_figures_are_checked_at_any_depth() -> None:
    machine = llm_pool().hardware
    assert machine.efficiency is not None
    gemm = {"bf16": dataclasses.replace(machine.efficiency.gemm["bf16"], memory=0.0)}
    broken = dataclasses.replace(machine, efficiency=dataclasses.replace(machine.efficiency, gemm=gemm))
    assert problems_of(with_pool("llm", hardware=broken)) == [
        "cluster.pools.llm.hardware.efficiency.gemm.bf16.memory: 0 is out of range; expected a number from 1e-6 to 1"
    ]


def test_a_model_that_cannot_be_is_refused() -> None:
    assert problems_of(with_pool("llm", model=dataclasses.replace(llm_pool().model, layers=0))) == [
        "cluster.pools.llm.model.layers: 0 is out of range; expected an integer from 1 to 100,000"
    ]
    mixtral = config("workload.requests=5", "model=mixtral_8x7b").model
    assert mixtral.experts is not None
    experts = dataclasses.replace(mixtral.experts, per_token=9, dense_layers=33)
    broken = with_pool("llm", model=dataclasses.replace(mixtral, experts=experts), tensor_parallel=2)
    assert problems_of(broken) == [
        "cluster.pools.llm.model.experts.per_token: 9 is above count (8)",
        "cluster.pools.llm.model.experts.dense_layers: 33 is above the model's layers (32)",
    ]


@pytest.mark.parametrize(
    ("groups", "chosen", "problem"),
    [
        (3, 1, "groups: 3 does not divide the 8 experts"),
        (4, 5, "groups_per_token: 5 is above groups (4)"),
        (8, 1, "groups_per_token: 1 groups of 1 experts have fewer than per_token (2)"),
    ],
)
def test_groups_in_which_a_token_cannot_choose_are_refused(groups: int, chosen: int, problem: str) -> None:
    mixtral = config("workload.requests=5", "model=mixtral_8x7b").model
    assert mixtral.experts is not None
    experts = dataclasses.replace(mixtral.experts, groups=groups, groups_per_token=chosen)
    broken = with_pool("llm", model=dataclasses.replace(mixtral, experts=experts), tensor_parallel=2)
    assert problems_of(broken) == [f"cluster.pools.llm.model.experts.{problem}"]


@pytest.mark.parametrize(
    ("stages", "problems"),
    [
        (
            {"decode": {"kind": "decode"}},
            ["pipeline.stages.decode.after: a decode must follow exactly one prefill and no other stage"],
        ),
        (
            {
                "prefill": PREFILL,
                "t": {"kind": "tokenize"},
                "decode": {"kind": "decode", "after": ["prefill", "t"]},
            },
            ["pipeline.stages.decode.after: a decode must follow exactly one prefill and no other stage"],
        ),
        (
            {"t": {"kind": "tokenize"}, "decode": {"kind": "decode", "after": ["t"]}},
            ["pipeline.stages.decode.after: a decode must follow exactly one prefill and no other stage"],
        ),
        (
            {"prefill": PREFILL, "one": DECODE, "two": DECODE},
            ["pipeline.stages.prefill: one and two both decode its prompt; expected one decode per prefill"],
        ),
        (
            {"prefill": PREFILL, "decode": DECODE, "t": {"kind": "detokenize", "after": ["prefill"]}},
            [
                "pipeline.stages.t.after: 'prefill' is followed by the decode 'decode'; put 't' after that",
            ],
        ),
        (
            {"prefill": PREFILL, "decode": DECODE, "t": {"kind": "tokenize"}},
            ["pipeline.stages.t: nothing comes before or after it; connect it with 'after'"],
        ),
        (
            {"prefill": {**PREFILL, "pool": "gpu"}},
            ["pipeline.stages.prefill.pool: no pool is called 'gpu'; expected one of: host, llm"],
        ),
        (
            {"prefill": {**PREFILL, "pool": "host"}},
            ["pipeline.stages.prefill.pool: 'host' does not serve 'prefill'"],
        ),
        (
            {"prefill": {**PREFILL, "when": "input_token > 5"}},
            [
                "pipeline.stages.prefill.when: unknown attribute 'input_token'; did you mean 'input_tokens'?",
            ],
        ),
        (
            {"t": {"kind": "tokenize", "per_token_us": -1.0}},
            ["pipeline.stages.t.per_token_us: -1 is out of range; expected a number from 0 to 1e12"],
        ),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused(stages: dict[str, Any], problems: list[str]) -> None:
    assert problems_of(with_stages(stages)) == problems


def test_a_mistake_in_one_stage_is_not_blamed_on_its_neighbours() -> None:
    assert problems_of(
        with_stages(
            {"t": {"kind": "tokenize"}, "prefill": {"kind": "prefil", "after": ["t"]}, "decode": DECODE}
        )
    ) == ["pipeline.stages.prefill.kind: unknown stage kind 'prefil'; did you mean 'prefill'?"]


def test_a_stage_that_no_pool_serves_is_refused() -> None:
    broken = with_pool("host", serves=("tokenize",))
    assert problems_of(broken) == [
        "pipeline.stages.detokenize: no pool of cluster 'replicas' serves 'detokenize'; "
        "cluster.pools.host.serves=[tokenize,detokenize] lets 'host' serve it"
    ]


def test_a_stage_that_two_pools_serve_must_name_one() -> None:
    base = config("workload.requests=5")
    pools = {**base.cluster.pools, "spare": base.cluster.pools["host"]}
    double = dataclasses.replace(base, cluster=dataclasses.replace(base.cluster, pools=pools))
    assert problems_of(double) == [
        "pipeline.stages.tokenize.pool: host and spare both serve 'tokenize'; name one",
        "pipeline.stages.detokenize.pool: host and spare both serve 'detokenize'; name one",
    ]
    stages = {name: dict(fields) for name, fields in base.pipeline.stages.items()}
    stages["tokenize"]["pool"] = "spare"
    stages["detokenize"]["pool"] = "host"
    program = hf.compile(with_stages(stages, double))
    assert [program.pools[op.pool].name for op in program.ops] == ["spare", "llm", "host"]


def test_a_pool_cannot_serve_what_its_kind_cannot() -> None:
    stages = {"prefill": PREFILL, "decode": DECODE}
    broken = with_pool("llm", with_pool("host", with_stages(stages), serves=("prefill", "decode")), serves=())
    assert problems_of(broken) == [
        "cluster.pools.host.serves: a pool of kind 'sequential' cannot serve 'prefill'",
        "cluster.pools.host.serves: a pool of kind 'sequential' cannot serve 'decode'",
    ]


def on_two_pools(**changes: Any) -> Config:
    """Prefill on pool llm, decode on a pool ``other`` that differs from it by ``changes``."""
    base = with_stages({"prefill": {**PREFILL, "pool": "llm"}, "decode": {**DECODE, "pool": "other"}})
    pools = {**base.cluster.pools, "other": dataclasses.replace(llm_pool(base), **changes)}
    return dataclasses.replace(base, cluster=dataclasses.replace(base.cluster, pools=pools))


def test_a_decode_elsewhere_must_be_able_to_use_the_kv_of_its_prefill() -> None:
    assert [op.stages for op in hf.compile(on_two_pools()).ops] == [("prefill",), ("decode",)]
    assert problems_of(on_two_pools(model=config("workload.requests=5", "model=mistral_7b").model)) == [
        "cluster.pools.other.model: mistral_7b cannot decode what llama3_8b on pool 'llm' has prefilled; "
        "expected the same model"
    ]
    assert problems_of(on_two_pools(batching="static")) == [
        "cluster.pools.other.batching: a gang of 'static' keeps prefill and decode together"
    ]


def broken_slo(**bounds: dict[str, float]) -> list[str]:
    return problems_of(dataclasses.replace(config("workload.requests=5"), slo=SLO("mine", **bounds)))


def test_bounds_have_percentiles_and_are_positive() -> None:
    assert broken_slo(ttft_ms={"q50": 5.0}) == [
        "slo.ttft_ms.q50: 'q50' is not a percentile; expected p50, p90, p99 or the like"
    ]
    assert broken_slo(e2e_ms={"p101": 5.0, "pp": 1.0}) == [
        "slo.e2e_ms.p101: 'p101' is not a percentile; expected p50, p90, p99 or the like",
        "slo.e2e_ms.pp: 'pp' is not a percentile; expected p50, p90, p99 or the like",
    ]
    assert broken_slo(e2e_ms={"p99.9": 0.0}) == [
        "slo.e2e_ms.p99.9: 0 is out of range; expected a number above 0 and at most 1e9"
    ]


@pytest.mark.parametrize(
    ("cost", "problem"),
    [
        ({"kind": "afine"}, "cost.kind: unknown cost model 'afine'; did you mean 'affine'?"),
        (
            {"kind": "affine", "fixed_us": 0.0},
            "cost.fixed_us: 0 is out of range; expected a number above 0 and at most 1e12",
        ),
        (
            {"kind": "affine", "fixed_us": 1e25},
            "cost.fixed_us: 1e+25 is out of range; expected a number above 0 and at most 1e12",
        ),
    ],
)
def test_a_cost_that_cannot_be_is_refused(cost: dict[str, Any], problem: str) -> None:
    assert problems_of(dataclasses.replace(config("workload.requests=5"), cost=cost)) == [problem]


def everything_wrong() -> Config:
    base = with_stages(
        {"prefill": {"kind": "prefill", "when": "x"}, "decode": {"kind": "decode", "after": ["p"]}}
    )
    base = with_pool("llm", base, batching="x", tensor_parallel=5)
    base = dataclasses.replace(base, cost={"kind": "x"}, slo=SLO("mine", {"x": 1.0}))
    return dataclasses.replace(base, workload=dataclasses.replace(base.workload, arrivals="x"))


def test_all_problems_of_all_parts_are_reported_at_once() -> None:
    found = problems_of(everything_wrong())
    assert [problem.split(":")[0] for problem in found] == [
        "pipeline.stages.decode.after",
        "cluster.pools.llm.batching",
        "cluster.pools.llm.tensor_parallel",
        "cost.kind",
        "slo.ttft_ms.x",
        "workload.arrivals",
    ]


def test_the_message_counts_and_lists_the_problems() -> None:
    with pytest.raises(CompileError) as caught:
        hf.compile(with_pool("llm", count=0, tensor_parallel=0))
    assert str(caught.value) == (
        "2 problems found:\n"
        "  - cluster.pools.llm.count: 0 is out of range; expected an integer from 1 to 100,000\n"
        "  - cluster.pools.llm.tensor_parallel: 0 is out of range; expected an integer from 1 to 100,000"
    )


def test_a_mistake_in_the_workload_alone_keeps_its_own_error() -> None:
    base = config("workload.requests=5")
    with pytest.raises(ConfigError) as caught:
        hf.compile(dataclasses.replace(base, workload=dataclasses.replace(base.workload, arrivals="x")))
    assert caught.value.key == "workload.arrivals"
