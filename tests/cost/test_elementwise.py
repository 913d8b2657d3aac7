"""Norms, activations and rotary embeddings in steps of many tokens, with bytes by hand from published shapes."""

from __future__ import annotations

import dataclasses
from math import log

import pytest
from cost.by_hand import us
from cost.catalog import hardware, model, roofline

import hermes_flow as hf
from benchmarks.elementwise_times import TRIED, Tried, best_share
from hermes_flow.config.schema import EngineOverhead, Hardware
from hermes_flow.config.shape import pipeline_ranks, whole
from hermes_flow.cost.elementwise import moved_bytes
from hermes_flow.pools.llm.schema import LLMPool

B200 = hardware("b200_sxm")
LLAMA = model("llama3_8b")  # 32 layers of 4,096, 32 + 2·8 heads of 128, MLPs of 14,336


def with_rate(share: float | None) -> Hardware:
    engine = B200.engine
    assert isinstance(engine, EngineOverhead)
    return dataclasses.replace(B200, engine=dataclasses.replace(engine, elementwise=share, eager=None))


def test_norms_move_whole_states_on_every_device_and_the_rest_is_cut() -> None:
    norms = 2 * 4 * 4096 * 2  # two norms read and write the state and the residual
    heads = 2 * 6144 * 2  # queries, keys and values are read and written
    mlp = (2 * 14336 + 14336) * 2  # gate and up are read, their product is written
    assert moved_bytes(LLAMA, whole(LLAMA), 1) == 32 * (norms + heads + mlp)
    assert moved_bytes(LLAMA, whole(LLAMA), 8) == 32 * (norms + (heads + mlp) / 8)
    first = pipeline_ranks(LLAMA, 4)[0]
    assert moved_bytes(LLAMA, first, 1) == 8 * (norms + heads + mlp)


@pytest.mark.parametrize(
    ("name", "of_a_layer"),
    [
        ("mixtral_8x7b", 32 * (8 * 4096 + 2 * 6144)),  # activations of routed experts are in their kernels
        (
            "kimi_k2",  # latent attention of 64 heads, one dense layer of 18,432, shared experts of 2,048
            61 * (8 * 7168 + 2 * (1536 + 64 * 192 + 576 + 64 * 256)) + 3 * 18432 + 60 * 3 * 2048,
        ),
    ],
)
def test_only_what_is_not_in_other_kernels_counts(name: str, of_a_layer: int) -> None:
    mixture = model(name)
    assert moved_bytes(mixture, whole(mixture), 1) == 2 * of_a_layer


def test_many_tokens_take_as_long_as_their_bytes_and_few_as_long_as_a_layer() -> None:
    rated, free = roofline(LLAMA, with_rate(0.2), 1, 8192), roofline(LLAMA, with_rate(None), 1, 8192)
    moved_us = 8192 * 32 * 176_128 / (0.2 * 7700e9) * 1e6
    assert us(rated.tokens_ps[8192] - free.tokens_ps[8192]) == pytest.approx(moved_us - 32 * 23.5, rel=1e-6)
    few = int(23.5e-6 * 0.2 * 7700e9 / 176_128)  # 205 tokens
    assert rated.tokens_ps[: few + 1] == free.tokens_ps[: few + 1]
    assert rated.tokens_ps[few + 1] > free.tokens_ps[few + 1]


def test_vllm_and_sglang_have_a_rate_on_b200_and_compile_says_so() -> None:
    def rate(*overrides: str) -> float | None:
        pool = hf.compose(["pipeline=llm", "hardware=b200_sxm", *overrides]).cluster.pools["llm"]
        assert isinstance(pool, LLMPool)
        assert pool.hardware.engine is not None
        return pool.hardware.engine.elementwise

    assert rate() == rate("engine=sglang") == 0.36
    assert rate("hardware=h200_sxm") is rate("engine=tensorrt_llm") is None
    assert "norms and activations at 0.36 of the bandwidth" in roofline(LLAMA, B200).provenance[-1]


def test_the_fit_finds_the_rate_that_errors_were_made_with_and_each_model_counts_once() -> None:
    def tried(name: str, rate: float) -> Tried:  # simulated times of 2 + 1 / share, where the rate is right
        return Tried(name, tuple(log((2 + 1 / share) / (2 + 1 / rate)) for share in TRIED))

    assert best_share([tried("a", 0.25)]) == pytest.approx(0.25)
    many = [*(tried("a", 0.2) for _ in range(9)), tried("b", 0.3), tried("c", 0.3)]
    assert best_share(many) == pytest.approx(0.3)
