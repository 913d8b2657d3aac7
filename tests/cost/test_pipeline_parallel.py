"""Pipeline stages of Llama-3.1 8B on H100s, worked by hand: constants as in test_roofline."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from cost.by_hand import H100, gemm_us, llama_layer_us, us
from cost.catalog import deployment, hardware, model, roofline, roofline_model
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_flow.config.shape import pipeline_ranks
from hermes_flow.cost import cost_models
from hermes_flow.cost.model import Hop
from hermes_flow.errors import ConfigError

LLAMA = model("llama3_8b")
KV_TOKEN = 2 * 8 * 128 * 2  # bytes of one layer


def test_a_stage_before_the_last_is_its_layers_and_nothing_else() -> None:
    stage = roofline(LLAMA, H100, pipeline_parallel=2, part="upstream")
    for tokens in (1, 7, 128):
        assert us(stage.tokens_ps[tokens]) == pytest.approx(16 * llama_layer_us(tokens), rel=1e-7)
    assert set(stage.sequences_ps) == {0}
    assert stage.ingest_ns == 0
    attention = 16 * 11.5 * 0.25 + 5 * 145 * 16 * KV_TOKEN / (3350e9 * 0.93) * 1e6
    assert us(stage.decode_attention_ps[5]) == pytest.approx(attention, rel=1e-6)
    assert stage.context_ps == round(16 * KV_TOKEN / (3350e9 * 0.93) * 1e12)
    assert us(stage.prefill_launch_ps) == pytest.approx(16 * 12.7 * 0.25)
    assert stage.prefill_pair_ps == roofline(LLAMA, H100).prefill_pair_ps / 2


def test_the_last_stage_has_the_output_head_and_the_engine_too() -> None:
    last = roofline(LLAMA, H100, pipeline_parallel=2)
    whole = roofline(LLAMA, H100)
    assert us(last.tokens_ps[7]) == pytest.approx(16 * llama_layer_us(7) + 500, rel=1e-7)
    assert us(last.sequences_ps[7]) == pytest.approx(gemm_us(7, 4096, 128256) + 7 * 8, rel=1e-7)
    assert last.sequences_ps == whole.sequences_ps
    assert last.ingest_ns == whole.ingest_ns == 8_000_000


def test_layers_that_are_left_over_go_to_the_stages_before_the_last() -> None:
    assert [stage.layers for stage in pipeline_ranks(LLAMA, 3)] == [11, 11, 10]
    assert [stage.layers for stage in pipeline_ranks(LLAMA, 5)] == [6, 6, 7, 7, 6]
    upstream = roofline(LLAMA, H100, pipeline_parallel=5, part="upstream")
    last = roofline(LLAMA, H100, pipeline_parallel=5)
    assert us(upstream.tokens_ps[1]) == pytest.approx(7 * llama_layer_us(1), rel=1e-7)
    assert us(last.tokens_ps[1]) == pytest.approx(6 * llama_layer_us(1) + 500, rel=1e-7)


def test_dense_layers_of_a_mixture_lie_on_the_first_stages_and_count_by_their_mean_share() -> None:
    deepseek = model("deepseek_v3")
    assert [(stage.layers, stage.dense) for stage in pipeline_ranks(deepseek, 4)] == [
        (15, 3),
        (15, 0),
        (16, 0),
        (15, 0),
    ]
    upstream = us(roofline(deepseek, H100, 8, pipeline_parallel=4, part="upstream").tokens_ps[1])
    mixture = (us(roofline(deepseek, H100, 8, pipeline_parallel=4).tokens_ps[1]) - 500) / 15
    alone = dataclasses.replace(deepseek, layers=1, experts=None)
    dense = us(roofline(alone, H100, 8).tokens_ps[1]) - 500
    share = 3 / 46
    assert upstream == pytest.approx(16 * (share * dense + (1 - share) * mixture), rel=1e-6)


def test_tensor_parallelism_within_a_stage_reduces_after_each_of_its_layers() -> None:
    stage = roofline(LLAMA, H100, 2, pipeline_parallel=4, part="upstream")
    layer = gemm_us(16, 4096, 3072) + gemm_us(16, 2048, 4096) + gemm_us(16, 4096, 14336)
    layer += gemm_us(16, 7168, 4096)
    all_reduce = 4.3 + 16 * 4096 * 2 / (0.58 * 450e9) * 1e6
    assert us(stage.tokens_ps[16]) == pytest.approx(8 * (layer + 2 * all_reduce), rel=1e-7)


def test_a_hop_sends_the_hidden_state_over_the_scale_up_link() -> None:
    hop = roofline_model().hop(deployment(LLAMA, H100, 2, pipeline_parallel=2))
    # 4,096 · 2 bytes over 450 GB/s: 18.2 ns a token; the all-reduce of two starts after 4.3 µs
    assert hop.ps_per_token == pytest.approx(8192 / 450e9 * 1e12)
    assert hop.ps == 4_300_000
    assert hop.provenance == (
        "hop between pipeline ranks: 8,192 bytes a token at scale_up_gb_s, 4.3 µs of latency "
        "(as an all-reduce of two)",
    )


def test_a_hop_of_hardware_that_was_not_measured_has_no_latency() -> None:
    hop = roofline_model().hop(deployment(LLAMA, hardware("mi300x"), pipeline_parallel=2))
    assert hop.ps == 0
    assert "0 µs of latency (none measured)" in hop.provenance[0]


def test_a_hop_needs_a_link() -> None:
    bare = dataclasses.replace(H100, scale_up_gb_s=None)
    with pytest.raises(ConfigError) as caught:
        roofline_model().hop(deployment(LLAMA, bare, pipeline_parallel=2))
    assert str(caught.value) == (
        "cluster.pools.llm.hardware.scale_up_gb_s: null; pipeline parallelism needs it"
    )


def test_each_stage_of_an_affine_cost_takes_its_share_of_every_figure_and_hops_are_free() -> None:
    affine = cost_models.parse(
        {"kind": "affine", "fixed_us": 6000, "per_token_us": 24, "per_context_us": 0.04}, "cost"
    )
    whole = affine.lower(deployment(LLAMA, H100))
    for part in ("upstream", "last"):
        place = deployment(LLAMA, H100, pipeline_parallel=4, part=part)
        stage = affine.lower(place)
        assert stage.step_ps([(30, 500)], 10, 8000) == whole.step_ps([(30, 500)], 10, 8000) / 4
        assert affine.hop(place) == Hop()
    assert stage.provenance[0].endswith("a computed token; 1/4 of it on each pipeline rank")


@settings(max_examples=25)
@given(
    st.sampled_from(["llama3_8b", "mixtral_8x7b", "deepseek_v3", "guard_2b"]),
    st.sampled_from([1, 2, 4]),
    st.integers(2, 12),
)
def test_all_stages_together_are_never_faster_than_one_device_with_all_layers(
    name: str, devices: int, stages: int
) -> None:
    shape = model(name)
    whole = roofline(shape, H100, devices, 64, 16)
    last = roofline(shape, H100, devices, 64, 16, pipeline_parallel=stages)
    upstream = roofline(shape, H100, devices, 64, 16, pipeline_parallel=stages, part="upstream")
    exact = shape.layers % stages == 0
    for step in (([(40, 300)], 3, 999), ([], 16, 5000), ([(64, 0)], 0, 0)):
        through = last.step_ps(*step) + (stages - 1) * upstream.step_ps(*step)
        rounding = 5000 * stages + 64  # picoseconds: half of one per term, and per token of context
        assert through >= whole.step_ps(*step) - rounding
        if exact:
            assert through <= whole.step_ps(*step) + rounding
    for cost in (last, upstream):
        for table in (cost.tokens_ps, cost.sequences_ps, cost.decode_attention_ps):
            assert all(later >= earlier for earlier, later in itertools.pairwise(table))
