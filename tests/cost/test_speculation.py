"""Speculative decoding by hand: Llama-3.1 8B on one H100, drafted for by a model of two of its layers."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import pytest
from cost.by_hand import H100, gemm_us, llama_layer_us, us
from cost.catalog import deployment, model, roofline
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_flow.config.schema import ModelPrecision, Speculative
from hermes_flow.cost import cost_models
from hermes_flow.cost.draft_model import expected_tokens

LLAMA = model("llama3_8b")
DRAFT = dataclasses.replace(LLAMA, name="two_layers", layers=2)
SPECULATIVE = Speculative(draft=DRAFT, tokens=4, acceptance=0.7)
KV_LAYER_US = 2 * 8 * 128 * 2 / (3350e9 * 0.93) * 1e6  # a token of context, in one layer


@given(st.integers(1, 12), st.floats(0.0, 0.999))
def test_a_step_gives_one_token_and_each_drafted_one_that_all_before_it_let_through(
    tokens: int, acceptance: float
) -> None:
    found = expected_tokens(Speculative(DRAFT, tokens, acceptance))
    assert float(found) == pytest.approx(sum(acceptance**n for n in range(tokens + 1)), abs=1e-4)
    assert found.denominator <= 10_000
    assert 1 <= found <= tokens + 1


def test_the_example_of_the_defaults() -> None:
    # 1 + .7 + .49 + .343 + .2401
    assert expected_tokens(SPECULATIVE) == Fraction(27731, 10000)
    assert expected_tokens(Speculative(DRAFT, 4, 0.0)) == 1


def test_a_decode_step_verifies_all_drafted_tokens_at_once_after_as_many_passes_of_the_draft() -> None:
    cost = roofline(LLAMA, H100, speculative=SPECULATIVE)
    assert cost.tokens_per_decode == 5
    for sequences, context in ((1, 0), (6, 5000), (25, 40_000)):
        verification = (
            32 * llama_layer_us(5 * sequences)
            + gemm_us(5 * sequences, 4096, 128256)
            + 32 * (11.5 * 0.25 + (context + 145 * sequences) * KV_LAYER_US)
            + 500
            + 8 * sequences
        )
        draft = (
            2 * llama_layer_us(sequences)
            + gemm_us(sequences, 4096, 128256)
            + 2 * (11.5 * 0.25 + (context + 145 * sequences) * KV_LAYER_US)
        )
        found = us(cost.step_ps([], sequences, context))
        assert found == pytest.approx(verification + 4 * draft, rel=1e-5)
        assert cost.step_ps([], sequences, context) == cost.decode_ps[sequences] + context * cost.context_ps


def test_the_decode_table_ends_where_the_longest_step_does() -> None:
    cost = roofline(LLAMA, H100, 1, 128, 64, speculative=SPECULATIVE)
    assert len(cost.decode_ps) == 26  # 25 sequences of 5 tokens
    assert cost.decode_ps[0] == 0


def test_a_chunk_passes_the_draft_too_at_what_its_tokens_add_to_a_pass() -> None:
    cost = roofline(LLAMA, H100, 1, 2048, speculative=SPECULATIVE)
    plain = roofline(LLAMA, H100, 1, 2048)
    marginal = 2 * (llama_layer_us(2048) - llama_layer_us(1)) / 2047
    assert us(cost.prefill_token_ps) == pytest.approx(marginal, rel=1e-5)
    assert us(cost.prefill_launch_ps) == pytest.approx((32 + 2) * 12.7 * 0.25, rel=1e-6)
    assert cost.prefill_pair_ps == pytest.approx(plain.prefill_pair_ps * 34 / 32)
    added = us(cost.step_ps([(1024, 300)], 0, 0) - plain.step_ps([(1024, 300)], 0, 0))
    pairs = us(plain.prefill_ps(1024, 300)) * 2 / 32
    assert added == pytest.approx(1024 * marginal + pairs + 2 * 12.7 * 0.25, rel=1e-5)


def test_a_mixed_step_is_the_sum_of_its_terms() -> None:
    cost = roofline(LLAMA, H100, speculative=SPECULATIVE)
    expected = (
        cost.tokens_ps[3 * 5 + 60 + 7]
        + cost.sequences_ps[3 + 2]
        + cost.decode_attention_ps[3]
        + 999 * cost.context_ps
        + cost.prefill_launch_ps
        + cost.prefill_ps(60, 100)
        + cost.prefill_ps(7, 0)
    )
    assert cost.step_ps([(60, 100), (7, 0)], 3, 999) == expected


def test_the_draft_runs_on_the_same_tensor_parallel_devices() -> None:
    cost = roofline(LLAMA, H100, 2, speculative=SPECULATIVE)
    verification = roofline(LLAMA, H100, 2)
    layer = gemm_us(1, 4096, 3072) + gemm_us(1, 2048, 4096) + gemm_us(1, 4096, 14336)
    layer += gemm_us(1, 7168, 4096) + 2 * (4.3 + 8192 / (0.58 * 450e9) * 1e6)
    draft = 2 * layer + gemm_us(1, 4096, 64128) + 2 * (11.5 * 0.25 + 145 * KV_LAYER_US / 2)
    head = gemm_us(5, 4096, 64128) - gemm_us(1, 4096, 64128)
    added = us(cost.decode_attention_ps[1] - verification.decode_attention_ps[1])
    assert added == pytest.approx(4 * draft + head, rel=1e-5)


def test_the_draft_is_on_the_last_pipeline_stage_as_a_whole() -> None:
    upstream = roofline(LLAMA, H100, pipeline_parallel=2, part="upstream")
    drafted = roofline(LLAMA, H100, pipeline_parallel=2, part="upstream", speculative=SPECULATIVE)
    assert drafted == dataclasses.replace(upstream, tokens_per_decode=5)
    added = {}
    for stages in (1, 2):
        last = roofline(LLAMA, H100, pipeline_parallel=stages)
        both = roofline(LLAMA, H100, pipeline_parallel=stages, speculative=SPECULATIVE)
        assert both.tokens_ps == last.tokens_ps
        added[stages] = us(both.decode_attention_ps[9] - last.decode_attention_ps[9])
        assert both.context_ps - last.context_ps == 4 * round(2 * KV_LAYER_US * 1e6)
    assert added[2] == pytest.approx(added[1], abs=1e-5)


def test_every_rank_drafts_for_its_own_sequences() -> None:
    mixtral = model("mixtral_8x7b")
    speculative = Speculative(dataclasses.replace(DRAFT, vocab_size=32000), 2, 0.5)
    cost = roofline(mixtral, H100, data_parallel=2, expert_parallel=True, speculative=speculative)
    rank = roofline(mixtral, H100, speculative=speculative)
    assert cost.decode_attention_ps == rank.decode_attention_ps
    assert cost.context_ps == round(rank.context_ps / 2)
    # seven sequences of three tokens: twelve tokens on the fullest rank, 21 in all
    expected = cost.tokens_ps[12] + cost.sequences_ps[4] + cost.decode_attention_ps[4] + cost.experts_ps[21]
    assert (
        cost.step_ps([], 7, 100)
        == expected + 100 * cost.context_ps
        == cost.decode_ps[7] + 100 * cost.context_ps
    )


def test_without_a_draft_model_speculation_is_off() -> None:
    assert roofline(LLAMA, H100, speculative=Speculative(None, 8, 0.9)) == roofline(LLAMA, H100)


def test_how_much_is_accepted_changes_no_step() -> None:
    some, most = (Speculative(DRAFT, 4, acceptance) for acceptance in (0.1, 0.95))
    assert roofline(LLAMA, H100, speculative=some) == roofline(LLAMA, H100, speculative=most)


def test_an_affine_step_holds_the_drafting_already() -> None:
    affine = cost_models.parse({"kind": "affine", "fixed_us": 6000, "per_token_us": 25}, "cost")
    cost = affine.lower(deployment(LLAMA, H100, speculative=SPECULATIVE))
    assert cost.step_ps([(30, 0)], 10, 9999) == 6_000_000_000 + 25_000_000 * (30 + 5 * 10)


def test_the_draft_is_named_among_the_sources() -> None:
    small = dataclasses.replace(DRAFT, precision=ModelPrecision(weights="int4"))
    notes = roofline(LLAMA, H100, speculative=Speculative(small)).provenance
    assert notes[-2:] == (
        "draft: 4 passes a step on the same devices, without overheads of the engine",
        "draft layers: int4 weights widened to bf16 in the kernel, computed in bf16; output head in bf16",
    )


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_more_drafted_tokens_or_draft_layers_never_shorten_a_step(
    tokens: int, layers: int, more: int
) -> None:
    def cost(drafted: int, depth: int) -> list[int]:
        draft = dataclasses.replace(DRAFT, layers=depth)
        return roofline(LLAMA, H100, 1, 512, 40, speculative=Speculative(draft, drafted)).decode_ps

    base = cost(tokens, layers)
    assert all(later >= earlier for earlier, later in itertools.pairwise(base))
    for larger in (cost(tokens + more, layers), cost(tokens, layers + more)):
        assert all(most >= least for least, most in zip(base, larger, strict=False))
