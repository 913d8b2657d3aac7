"""Experts held whole, exchanged between ranks of data-parallel attention: Mixtral 8x7B on H100s, by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from cost.by_hand import H100, fp8_gemm_us, gemm_us, us
from cost.catalog import alike, hardware, model, roofline
from hypothesis import given
from hypothesis import strategies as st

from hermes_flow.cost.expert_routing import distinct_experts
from hermes_flow.errors import ConfigError
from hermes_flow.program.step_cost import StepCost

MIXTRAL = alike(model("mixtral_8x7b"))  # 32 layers, 4,096 wide, 8 experts of 14,336, 2 a token
# the mean largest of so many normal deviations that add up to 0 (Blom)
LARGEST_NORMAL = {2: 0.833616, 4: 1.211433, 8: 1.533224}
KV_TOKEN_US = 32 * 2 * 8 * 128 * 2 / (3350e9 * 0.93) * 1e6


def distinct(tokens: int) -> float:
    """Experts drawn by so many tokens, each two of eight."""
    return 8 * (1 - (3 / 4) ** tokens)


def attention_us(tokens: int) -> float:
    """The attention products of a layer and its router, on one device."""
    return gemm_us(tokens, 4096, 6144) + gemm_us(tokens, 4096, 4096) + gemm_us(tokens, 4096, 8)


def largest(mean: float, count: int, devices: int, chance: float, times: float = 1.0) -> float:
    """The largest of the devices' sums over their experts, each drawn with this chance, as often as ``times``."""
    held = count / devices
    draws = held * (count - held) / (count - 1)
    return mean + LARGEST_NORMAL[devices] * math.sqrt(draws * chance * (1 - chance) * times)


def routed_us(tokens: int, devices: int) -> float:
    """The experts of a layer on the fullest of so many devices, which all wait for."""
    rows = largest(2 * tokens / devices, 8, devices, 2 / 8, tokens)
    matrices = min(8 / devices, largest(distinct(tokens) / devices, 8, devices, distinct(tokens) / 8))
    return gemm_us(rows, 4096, 28672, matrices) + gemm_us(rows, 14336, 4096, matrices)


def exchange_us(tokens: float, devices: int, alpha: float, fraction: float) -> float:
    """Dispatch and combine of a device's ``tokens``, two copies of 4,096 values of 2 bytes each."""
    places = devices * (1 - (1 - 1 / devices) ** 2)  # devices that have one of two experts
    sent = (devices - 1) / devices * tokens * places * 4096 * 2
    return 2 * (alpha + sent / (fraction * 450e9) * 1e6)


# One rank: tokens are on every device already, and are reduced as ever


@pytest.mark.parametrize("tokens", [1, 5, 128])
def test_a_device_holds_its_share_of_the_experts_whole_and_does_its_share_of_the_rows(tokens: int) -> None:
    cost = roofline(MIXTRAL, H100, 2, expert_parallel=True)
    attention = gemm_us(tokens, 4096, 3072) + gemm_us(tokens, 2048, 4096) + gemm_us(tokens, 4096, 8)
    all_reduce = 4.3 + tokens * 4096 * 2 / (0.58 * 450e9) * 1e6
    layer = attention + routed_us(tokens, 2) + 2 * all_reduce
    assert us(cost.tokens_ps[tokens]) == pytest.approx(32 * layer + 500, rel=1e-6)
    assert (cost.attention_ranks, cost.experts_ps) == (1, [])


def test_on_one_device_there_is_nothing_to_spread() -> None:
    assert roofline(MIXTRAL, H100, expert_parallel=True) == roofline(MIXTRAL, H100)


def test_shared_experts_are_cut_over_the_tensor_parallel_devices_all_the_same() -> None:
    scout = model("llama4_scout")
    assert scout.experts is not None
    alone = dataclasses.replace(scout, experts=dataclasses.replace(scout.experts, shared=0))
    both, without = (roofline(shape, H100, 8, expert_parallel=True) for shape in (scout, alone))
    expected = 48 * (gemm_us(9, 5120, 2048) + gemm_us(9, 1024, 5120))
    assert us(both.tokens_ps[9] - without.tokens_ps[9]) == pytest.approx(expected, rel=1e-6)


# Several ranks


@pytest.mark.parametrize("tokens", [1, 8, 128])
def test_a_rank_computes_attention_of_its_tokens_and_sends_them_to_their_experts_and_back(
    tokens: int,
) -> None:
    cost = roofline(MIXTRAL, H100, data_parallel=2, expert_parallel=True)
    layer = attention_us(tokens) + exchange_us(tokens, 2, alpha=4.3, fraction=0.58)
    assert us(cost.tokens_ps[tokens]) == pytest.approx(32 * layer + 500, rel=1e-6)


@pytest.mark.parametrize("tokens", [1, 8, 128])
def test_the_experts_see_the_tokens_of_all_ranks(tokens: int) -> None:
    cost = roofline(MIXTRAL, H100, data_parallel=4, expert_parallel=True)
    assert cost.experts_ps[0] == 0
    assert us(cost.experts_ps[tokens]) == pytest.approx(32 * routed_us(tokens, 4), rel=1e-6)


def test_the_devices_of_a_rank_share_what_it_sends() -> None:
    cost = roofline(MIXTRAL, H100, 2, data_parallel=2, expert_parallel=True)
    attention = gemm_us(64, 4096, 3072) + gemm_us(64, 2048, 4096) + gemm_us(64, 4096, 8)
    all_reduce = 4.3 + 64 * 4096 * 2 / (0.58 * 450e9) * 1e6
    layer = attention + exchange_us(64 / 2, 4, alpha=4.7, fraction=0.6) + 2 * all_reduce
    assert us(cost.tokens_ps[64]) == pytest.approx(32 * layer + 500, rel=1e-6)
    assert us(cost.experts_ps[64]) == pytest.approx(32 * routed_us(64, 4), rel=1e-6)


def test_fp8_activations_are_sent_as_bytes_and_come_back_in_bf16() -> None:
    deepseek = alike(model("deepseek_v3"))
    assert deepseek.experts is not None
    experts = dataclasses.replace(deepseek.experts, dense_layers=0, shared=0)
    mixture = dataclasses.replace(deepseek, layers=1, experts=experts)
    cost = roofline(mixture, H100, data_parallel=8, expert_parallel=True)
    attention = (
        fp8_gemm_us(10, 7168, 1536)
        + fp8_gemm_us(10, 1536, 128 * 192)
        + fp8_gemm_us(10, 7168, 576)
        + fp8_gemm_us(10, 512, 128 * 256)
        + fp8_gemm_us(10, 128 * 128, 7168)
        + gemm_us(10, 7168, 256)
    )
    sent = 7 / 8 * 10 * 8 * (1 - (7 / 8) ** 8) * 7168  # to each device once
    exchange = 2 * 5.4 + (1 + 2) * sent / (0.76 * 450e9) * 1e6
    assert us(cost.tokens_ps[10]) == pytest.approx(attention + exchange + 500, rel=1e-6)
    chance = 1 - (1 - 8 / 256) ** 10
    rows, matrices = largest(10, 256, 8, 8 / 256, 10), largest(32 * chance, 256, 8, chance)
    routed = fp8_gemm_us(rows, 7168, 4096, matrices) + fp8_gemm_us(rows, 2048, 7168, matrices)
    assert us(cost.experts_ps[10]) == pytest.approx(routed, rel=1e-6)


def test_more_devices_than_were_measured_exchange_as_the_most_that_were() -> None:
    deepseek = alike(model("deepseek_v3"))
    cost = roofline(deepseek, H100, data_parallel=32, expert_parallel=True)
    assert cost.provenance[2:4] == (
        "experts: 8 of 256 on each of 32 devices, uniform routing",
        "exchange between experts: 0.76 of scale_up_gb_s and 5.4 µs, as fitted to an all-reduce of 8",
    )


@pytest.mark.parametrize("tokens", [100, 129, 400, 1000, 4000])
def test_experts_of_several_ranks_run_while_the_host_launches_a_prompt(tokens: int) -> None:
    whole = hardware("h100_sxm")
    assert whole.engine is not None
    captured = dataclasses.replace(whole, engine=dataclasses.replace(whole.engine, eager=None))
    eager, graphs = (
        roofline(MIXTRAL, each, 1, 4096, 64, data_parallel=2, expert_parallel=True)
        for each in (whole, captured)
    )
    kernels = graphs.tokens_ps[tokens] + graphs.experts_ps[tokens]
    rest = graphs.step_ps([(tokens, 0)], 0, 0) - kernels
    launched = max(kernels + 32 * 100_000_000, 32 * 1_540_000_000) if tokens > 2 * 64 else kernels
    assert eager.step_ps([(tokens, 0)], 0, 0) == pytest.approx(rest + launched, abs=2)


def test_an_exchange_needs_a_fit_and_a_link() -> None:
    def problem(**changes: Any) -> str:
        bare = dataclasses.replace(H100, **changes)
        with pytest.raises(ConfigError) as caught:
            roofline(MIXTRAL, bare, data_parallel=2, expert_parallel=True)
        return str(caught.value)

    fit = H100.efficiency
    assert fit is not None
    assert problem(efficiency=dataclasses.replace(fit, all_reduce={})) == (
        "cluster.pools.llm.hardware.efficiency.all_reduce.2: missing; h100_sxm has no measured all-reduce of 2 "
        "devices (it has: none), and the roofline invents none; give the figures of this key, or choose other "
        "hardware or parallelism"
    )
    assert problem(scale_up_gb_s=None) == (
        "cluster.pools.llm.hardware.scale_up_gb_s: null; an exchange between experts needs it"
    )


def test_without_expert_parallelism_ranks_share_nothing_but_the_beat() -> None:
    one = roofline(MIXTRAL, H100)
    two = roofline(MIXTRAL, H100, data_parallel=2)
    assert (two.tokens_ps, two.sequences_ps, two.experts_ps) == (one.tokens_ps, one.sequences_ps, [])
    assert two.step_ps([(100, 40)], 0, 0) == one.step_ps([(100, 40)], 0, 0)  # the other rank waits
    assert two.step_ps([(90, 0), (40, 0)], 0, 0) == one.step_ps([(90, 0)], 0, 0)


# Steps of several ranks


def test_a_decode_step_is_that_of_the_fullest_rank_and_of_the_experts_of_all_tokens() -> None:
    cost = roofline(MIXTRAL, H100, data_parallel=4, expert_parallel=True)
    # nine sequences on four ranks: three on the fullest, and a quarter of the context
    layer = attention_us(3) + exchange_us(3, 4, alpha=4.7, fraction=0.6)
    attention = 32 * 11.5 * 0.25 + (9000 / 4 + 3 * 145) * KV_TOKEN_US
    head = gemm_us(3, 4096, 32000) + 3 * 8
    expected = 32 * layer + attention + head + 500 + 32 * routed_us(9, 4)
    assert us(cost.step_ps([], 9, 9000)) == pytest.approx(expected, rel=1e-5)
    assert cost.step_ps([], 9, 9000) == cost.decode_ps[9] + 9000 * cost.context_ps


def test_a_token_of_context_lies_on_one_rank() -> None:
    one = roofline(MIXTRAL, H100).context_ps
    assert roofline(MIXTRAL, H100, data_parallel=4, expert_parallel=True).context_ps == round(one / 4)


def test_chunks_go_in_order_to_the_rank_with_the_fewest_tokens() -> None:
    cost = roofline(MIXTRAL, H100, data_parallel=2, expert_parallel=True)
    # decodes: 2 and 1; the chunk of 50 joins the second rank, that of 20 the first, that of 9 the first again
    first = (
        cost.tokens_ps[2 + 20 + 9]
        + cost.sequences_ps[2 + 2]
        + cost.decode_attention_ps[2]
        + cost.prefill_launch_ps
        + cost.prefill_ps(20, 700)
        + cost.prefill_ps(9, 0)
    )
    second = (
        cost.tokens_ps[1 + 50]
        + cost.sequences_ps[1 + 1]
        + cost.decode_attention_ps[1]
        + cost.prefill_launch_ps
        + cost.prefill_ps(50, 10)
    )
    found = cost.step_ps([(50, 10), (20, 700), (9, 0)], 3, 1234)
    assert found == max(first, second) + cost.experts_ps[82] + 1234 * cost.context_ps


def test_of_equally_empty_ranks_the_first_takes_the_chunk() -> None:
    cost = roofline(MIXTRAL, H100, data_parallel=2, expert_parallel=True)
    # one decode lies on rank 0, so that a chunk of 1 fills rank 1, and the next one finds both equal: rank 0
    rank = cost.tokens_ps[1 + 30] + cost.sequences_ps[2] + cost.decode_attention_ps[1]
    rank += cost.prefill_launch_ps + cost.prefill_ps(30, 0)
    assert cost.step_ps([(1, 0), (30, 0)], 1, 0) == rank + cost.experts_ps[32]


DEPLOYMENTS = [
    roofline(MIXTRAL, H100, devices, 640, 64, data_parallel=ranks, expert_parallel=whole)
    for devices, ranks, whole in [(1, 2, True), (1, 8, True), (2, 4, True), (2, 3, False)]
]


@given(
    st.sampled_from(DEPLOYMENTS),
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3000)), max_size=6),
    st.tuples(st.integers(1, 60), st.integers(0, 3000)),
    st.integers(0, 30),
    st.integers(0, 10**6),
)
def test_another_chunk_or_more_context_never_shortens_a_step(
    cost: StepCost, chunks: list[tuple[int, int]], another: tuple[int, int], decodes: int, context: int
) -> None:
    if not chunks and not decodes:
        return
    step = cost.step_ps(chunks, decodes, context)
    assert cost.step_ps([*chunks, another], decodes, context) >= step
    assert cost.step_ps(chunks, decodes, context + 1) >= step


@pytest.mark.parametrize("cost", DEPLOYMENTS)
def test_more_sequences_never_shorten_a_decode_step(cost: StepCost) -> None:
    assert len(cost.decode_ps) == 64 * cost.attention_ranks + 1
    assert cost.decode_ps[0] == 0
    assert all(later >= earlier for earlier, later in itertools.pairwise(cost.decode_ps))
    for decodes in range(1, len(cost.decode_ps)):
        assert cost.step_ps([], decodes, 777) == cost.decode_ps[decodes] + 777 * cost.context_ps
    for table in (cost.tokens_ps, cost.experts_ps):
        assert all(later >= earlier for earlier, later in itertools.pairwise(table))


def test_many_tokens_of_many_ranks_draw_as_many_experts_as_each_number_alone() -> None:
    experts = model("deepseek_v3").experts
    assert experts is not None
    table = distinct_experts(experts, np.arange(40_001, dtype=np.float64))
    popularity = np.arange(1, 257) ** -0.6
    chosen = np.minimum(1.0, 8 * popularity / popularity.sum())
    for tokens in (1, 700, 16_384, 16_385, 23_456, 40_000):
        assert table[tokens] == pytest.approx((1 - (1 - chosen) ** tokens).sum(), rel=1e-6)
