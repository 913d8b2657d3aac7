"""What an LLM pool may not be: parallelism that does not fit the model, a draft that does not fit the target."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from compiler.configs import config, llm_pool, problems_of, with_pool

import hermes_flow as hf
from hermes_flow.config.schema import Config, Model, Speculative
from hermes_flow.errors import ConfigError


def model(name: str) -> Model:
    return config("workload.requests=5", f"model={name}").model


def mixtral(**changes: Any) -> Config:
    return with_pool("llm", config("workload.requests=5", "model=mixtral_8x7b"), **changes)


def drafted(draft: str, **changes: Any) -> Config:
    base = config("workload.requests=5", "model=llama3_70b", "cluster.pools.llm.tensor_parallel=4")
    speculative = Speculative(model(draft), **changes)
    return with_pool("llm", base, speculative=speculative)


def test_there_are_no_more_stages_than_layers() -> None:
    assert problems_of(with_pool("llm", pipeline_parallel=33)) == [
        "cluster.pools.llm.pipeline_parallel: 33 is above the 32 layers of llama3_8b"
    ]
    hf.compile(with_pool("llm", pipeline_parallel=32))


@pytest.mark.parametrize("name", ["pipeline_parallel", "data_parallel"])
def test_parallelism_counts_from_one(name: str) -> None:
    assert problems_of(mixtral(**{"tensor_parallel": 2, name: 0})) == [
        f"cluster.pools.llm.{name}: 0 is out of range; expected an integer from 1 to 100,000"
    ]


def test_only_a_mixture_has_ranks_and_experts_to_spread() -> None:
    assert problems_of(with_pool("llm", data_parallel=2)) == [
        "cluster.pools.llm.data_parallel: 2 ranks share the experts of a mixture, which llama3_8b is not; expected 1 "
        "(count=2 makes replicas)"
    ]
    assert problems_of(with_pool("llm", expert_parallel=True)) == [
        "cluster.pools.llm.expert_parallel: llama3_8b has no experts; expected false"
    ]


def test_the_experts_are_divided_evenly() -> None:
    broken = mixtral(tensor_parallel=8, data_parallel=2, expert_parallel=True)
    assert problems_of(broken) == [
        "cluster.pools.llm.expert_parallel: tensor_parallel × data_parallel = 16 devices do not divide the 8 experts "
        "of mixtral_8x7b; cluster.pools.llm.redundant_experts=8 would fill them"
    ]
    hf.compile(mixtral(tensor_parallel=2, data_parallel=4, expert_parallel=True))


def test_ranks_of_attention_take_single_steps_and_have_no_pipeline_ranks() -> None:
    ranks = {"tensor_parallel": 2, "data_parallel": 2, "expert_parallel": True}
    assert problems_of(mixtral(**ranks, pipeline_parallel=2)) == [
        "cluster.pools.llm.pipeline_parallel: 2 ranks one after another are not modelled together with "
        "data_parallel=2; expected 1"
    ]
    assert problems_of(mixtral(**ranks, batching="static")) == [
        "cluster.pools.llm.batching: static plans whole gangs, and the ranks of data_parallel=2 take single steps "
        "together; expected another policy"
    ]


def test_a_rule_for_ranks_needs_ranks() -> None:
    assert problems_of(mixtral(tensor_parallel=4, rank_routing="round_robin")) == [
        "cluster.pools.llm.rank_routing: round_robin has no effect with one rank; expected null"
    ]


def test_gangs_and_stages_go_without_each_other_and_without_a_draft() -> None:
    draft = Speculative(model("llama3_8b"))
    assert problems_of(with_pool("llm", batching="static", pipeline_parallel=2)) == [
        "cluster.pools.llm.pipeline_parallel: a gang of 'static' is not cut into micro-batches for several pipeline "
        "ranks; expected 1"
    ]
    assert problems_of(with_pool("llm", batching="static", speculative=draft)) == [
        "cluster.pools.llm.speculative.draft: a gang of 'static' drafts nothing; expected null"
    ]
    assert problems_of(with_pool("llm", pipeline_parallel=2, speculative=draft)) == [
        "cluster.pools.llm.speculative.draft: drafting does not go with pipeline_parallel; expected null"
    ]
    for batching in ("chunked", "continuous", "mixed"):
        hf.compile(with_pool("llm", batching=batching, pipeline_parallel=2))
        hf.compile(with_pool("llm", batching=batching, speculative=draft))


def test_weights_that_do_not_fit_are_counted_with_those_of_the_draft() -> None:
    large = with_pool(
        "llm", tensor_parallel=2, model=model("llama3_70b"), speculative=Speculative(model("llama3_8b"))
    )
    # 70,550,290,432 and 8,029,995,008 weights of 2 bytes on two devices
    assert problems_of(large) == [
        "cluster.pools.llm: the weights of llama3_70b (bf16) and of its draft llama3_8b (bf16) take 78.6 GB on each "
        "of 2 × h100_sxm, which leaves no room for KV in 76.4 GB; cluster.pools.llm.tensor_parallel=4 leaves room"
    ]


def test_all_devices_of_a_client_are_named_where_the_weights_do_not_fit() -> None:
    (problem,) = problems_of(
        with_pool("llm", model=model("llama3_405b"), tensor_parallel=2, pipeline_parallel=2)
    )
    # 63 layers of 3,187,671,040 weights and a table of 128,256 · 16,384 on two devices
    assert "take 202.9 GB on each of 4 × h100_sxm" in problem


def test_a_draft_model_speaks_the_targets_tokens() -> None:
    assert problems_of(drafted("llama2_7b")) == [
        "cluster.pools.llm.speculative.draft: llama2_7b has a vocabulary of 32,000 tokens, llama3_70b of 128,256; a "
        "draft model must have the same"
    ]
    hf.compile(drafted("llama3_8b"))


def test_a_draft_model_decodes() -> None:
    assert problems_of(drafted("e5_mistral_7b")) == [
        "cluster.pools.llm.speculative.draft: e5_mistral_7b is an encoder; a draft model must be a decoder"
    ]


def test_a_draft_model_lies_on_the_targets_tensor_parallel_devices() -> None:
    small = dataclasses.replace(model("llama3_8b"), name="small", heads=6, kv_heads=2)
    target = llm_pool(config("workload.requests=5", "model=llama3_70b"))
    broken = with_pool("llm", model=target.model, tensor_parallel=4, speculative=Speculative(small))
    assert problems_of(broken) == [
        "cluster.pools.llm.tensor_parallel: 4 does not divide the 6 attention heads of small"
    ]


def test_the_figures_of_a_draft_model_are_checked_as_any_models() -> None:
    odd = dataclasses.replace(model("llama3_8b"), name="odd", layers=0)
    assert problems_of(with_pool("llm", speculative=Speculative(odd))) == [
        "cluster.pools.llm.speculative.draft.layers: 0 is out of range; expected an integer from 1 to 100,000"
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tokens": 0}, "tokens: 0 is out of range; expected an integer from 1 to 100,000"),
        ({"acceptance": 1.0}, "acceptance: 1 is out of range; expected a number from 0 to below 1"),
        ({"acceptance": -0.1}, "acceptance: -0.1 is out of range; expected a number from 0 to below 1"),
    ],
)
@pytest.mark.parametrize("draft", ["llama3_8b", None])
def test_speculation_needs_tokens_and_a_probability(
    changes: dict[str, Any], problem: str, draft: str | None
) -> None:
    speculative = Speculative(None if draft is None else model(draft), **changes)
    assert problems_of(with_pool("llm", speculative=speculative)) == [
        f"cluster.pools.llm.speculative.{problem}"
    ]


def test_a_step_has_room_for_the_drafted_tokens_of_every_running_sequence() -> None:
    speculative = Speculative(model("llama3_8b"), tokens=4)
    assert problems_of(with_pool("llm", max_num_batched_tokens=1279, speculative=speculative)) == [
        "cluster.pools.llm.max_num_batched_tokens: 1279 is below 1280, which is max_num_seqs (256) × 5; every "
        "running sequence takes 4 drafted tokens and one more in each step"
    ]
    hf.compile(with_pool("llm", max_num_batched_tokens=1280, speculative=speculative))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+model@cluster.pools.llm.speculative.draft=lama3_8b", "model: there is no 'lama3_8b'"),
        ("+cluster.pools.llm.speculative.k=3", "cluster.pools.llm.speculative.k: unknown key"),
        (
            "cluster.pools.llm.speculative.tokens=many",
            "cluster.pools.llm.speculative.tokens: 'many' is not an integer",
        ),
        ("cluster.pools.llm.expert_parallel=2", "cluster.pools.llm.expert_parallel: 2 is not true or false"),
        ("model.precision.weights=int2", "model.precision.weights: 'int2' is not valid"),
    ],
)
def test_what_cannot_be_read_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hf.compose([override])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (
            {"max_num_batched_tokens": 1_000_000},
            "and 102.5 GB are reserved (most of it for activations), which leaves no room for KV in 76.4 GB; "
            "cluster.pools.llm.max_num_batched_tokens=2048 leaves room",
        ),
        (
            {"max_num_batched_tokens": 100_000, "max_num_seqs": 100_000},
            "cluster.pools.llm.max_num_seqs=256 leaves room",
        ),
        (
            {"memory_utilization": 0.2},
            "which leaves no room for KV in 17.0 GB; cluster.pools.llm.memory_utilization=0.9 leaves room",
        ),
    ],
)
def test_limits_that_leave_no_room_for_kv_are_named_themselves(pool: dict[str, Any], message: str) -> None:
    (problem,) = problems_of(with_pool("llm", **pool))
    assert "take 16.1 GB on each of 1 × h100_sxm" in problem
    assert problem.endswith(message)


def test_more_blocks_than_the_memory_holds_are_a_warning() -> None:
    def warnings(blocks: int, *given: str) -> tuple[str, ...]:
        llm = f"cluster.pools.llm.kv_blocks={blocks}"
        return hf.compile(hf.compose(["pipeline=llm", "workload.requests=5", llm, *given])).warnings

    assert not warnings(28_071)
    assert not warnings(29_000)  # what a server has is reckoned within a few percent
    assert warnings(40_000) == (
        "cluster.pools.llm.kv_blocks: 40,000, but the memory of 1 × h100_sxm has room for 28,071 blocks",
    )
    assert not warnings(40_000, "cost={kind: affine, fixed_us: 9000, per_token_us: 9, per_context_us: 0}")
    (problem,) = warnings(40_000, "model=llama3_70b")
    assert problem.endswith("has room for 0 blocks")


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_a_step_of_fewer_tokens_than_requests_is_described(tokens: int) -> None:
    budget = f"cluster.pools.llm.max_num_batched_tokens={tokens}"
    load = ("pipeline=llm", "workload=synthetic", "workload.requests=5", "workload.input_tokens=1")
    program = hf.compile(hf.compose([*load, "engine=tensorrt_llm", budget]))
    assert f"of {min(tokens, 32)} " in str(program)
    assert hf.simulate(program).summary["requests"]["completed"] == 5


def test_a_prompt_that_no_step_holds_is_answered_with_the_limit_of_steps() -> None:
    load = ("pipeline=llm", "workload=synthetic", "workload.requests=5", "workload.input_tokens=9000")
    (problem,) = problems_of(hf.compose([*load, "engine=tensorrt_llm"]))
    assert "is longer than a step, and context_chunking_policy is none (8,192 tokens)" in problem
    assert problem.endswith("or more cluster.pools.llm.max_num_batched_tokens")
