"""Every term of the roofline, worked by hand from the figures of one H100.

H100: 989 TFLOP/s bf16 and 1,979 fp8, 3,350 GB/s, 450 GB/s to each neighbour. Fits: GEMM .81 of the peak, .87
of the bandwidth, 3.8 µs (fp8 .64, .79, 6.3, cast at .26); decode attention .93, 11.5 µs, 145 tokens; prefill
attention .65, half length 915, 12.7 µs; all-reduce of two 4.3 µs and .58 of the link. Engine: 500 µs a step,
8 µs a sequence, a quarter of the attention launches, 8 ms of ingest.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from cost.by_hand import H100, MEMORY, US, fp8_gemm_us, gemm_us, llama_layer_us, us
from cost.catalog import alike, hardware, model, roofline

from hermes_flow.config.schema import AllReduceFit, Hardware, Model, ModelPrecision
from hermes_flow.cost.kv import kv_bytes_per_token
from hermes_flow.errors import ConfigError

assert H100.efficiency is not None

LLAMA = model("llama3_8b")
INVENTS = (
    "and the roofline invents none; give the figures of this key, or choose other hardware or parallelism"
)
DECODERS = [
    "bloom_176b",
    "codellama_34b",
    "deepseek_v3",
    "guard_2b",
    "llama2_70b",
    "llama3_8b",
    "llama4_scout",
    "mixtral_8x7b",
    "qwen3_30b_a3b",
]


# One GEMM: the output head, 4,096 × 128,256


def test_a_gemm_of_one_row_is_bound_by_memory() -> None:
    # 2·(4,096·128,256 + 4,096 + 128,256) bytes = 1,050,937,856; over 2.9145 TB/s that is 360.589 µs
    found = us(roofline(LLAMA, H100).sequences_ps[1])
    assert found == pytest.approx(360.5894 + 3.8 + 8.0, abs=1e-3)


def test_a_gemm_of_many_rows_is_bound_by_compute() -> None:
    # 2·2,048·4,096·128,256 = 2.151778592768e12 operations; over 801.09 TFLOP/s that is 2,686.064 µs
    found = us(roofline(LLAMA, H100, max_sequences=2048).sequences_ps[2048])
    assert found == pytest.approx(2686.0635 + 3.8 + 2048 * 8.0, abs=1e-3)


def test_a_gemm_takes_the_longer_of_compute_and_memory_not_their_sum() -> None:
    table = roofline(LLAMA, H100, max_sequences=1024).sequences_ps
    for rows in (1, 200, 280, 300, 1024):
        expected = gemm_us(rows, 4096, 128256) + 8.0 * rows
        assert us(table[rows]) == pytest.approx(expected, rel=1e-9)


# Attention


def test_a_token_of_context_costs_its_kv_bytes_at_the_attention_bandwidth() -> None:
    # 32 layers · 2 · 8 heads · 128 · 2 bytes = 131,072 bytes; over 3.1155 TB/s that is 42,071 ps
    assert roofline(LLAMA, H100).context_ps == 42071


def test_a_decoding_sequence_costs_as_much_as_145_tokens_and_the_batch_one_launch_a_layer() -> None:
    table = roofline(LLAMA, H100).decode_attention_ps
    launches = 32 * 11.5 * 0.25
    assert table[0] == 0
    assert us(table[1]) == pytest.approx(launches + 145 * 0.0420709, abs=1e-3)
    assert us(table[64] - table[1]) == pytest.approx(63 * 145 * 0.0420709, abs=1e-2)


def test_an_fp8_kv_cache_has_half_the_bytes_and_its_own_fit() -> None:
    small = dataclasses.replace(LLAMA, precision=ModelPrecision(kv_cache="fp8"))
    # 65,536 bytes over .79 · 3,350 GB/s: 24,763 ps
    assert roofline(small, H100).context_ps == 24763


def test_prefill_attention_follows_its_query_key_pairs_and_the_sequence_length() -> None:
    cost = roofline(LLAMA, H100)
    # 4 · 32 heads · 128 · 1,024 · 512 · 32 layers = 2.748779e11 operations, at
    # 989 · .65 · 1,024/(1,024 + 915) = 339.4938 TFLOP/s: 809.670 µs
    assert us(cost.prefill_ps(1024, 0)) == pytest.approx(809.670, abs=2e-3)
    # the second half of a prompt of 2,560: 512 queries over 2,048 + 256 keys each on average, at a length
    # of 2,560: 6.184752e11 operations at 473.5816 TFLOP/s
    assert us(cost.prefill_ps(512, 2048)) == pytest.approx(1305.953, abs=2e-3)
    assert us(cost.prefill_launch_ps) == pytest.approx(32 * 12.7 * 0.25)


def test_a_prompt_cut_into_chunks_has_the_same_pairs() -> None:
    cost = dataclasses.replace(roofline(LLAMA, H100), prefill_half_length=0.0)
    whole = cost.prefill_ps(4096, 0)
    assert sum(cost.prefill_ps(1024, past) for past in range(0, 4096, 1024)) == pytest.approx(whole, rel=1e-9)


def test_latent_attention_keeps_one_compressed_vector_a_token() -> None:
    deepseek = model("deepseek_v3")
    assert kv_bytes_per_token(deepseek) == 61 * (512 + 64) * 2
    assert kv_bytes_per_token(deepseek, tensor_parallel=8) == 61 * (512 + 64) * 2
    assert roofline(deepseek, H100, 8).context_ps == round(61 * 576 * 2 / (3350e9 * 0.93) * 1e12)


def test_too_few_kv_heads_are_replicated() -> None:
    assert kv_bytes_per_token(LLAMA, tensor_parallel=8) == 32 * 2 * 1 * 128 * 2
    assert kv_bytes_per_token(LLAMA, tensor_parallel=32) == 32 * 2 * 1 * 128 * 2


# Whole steps


def test_a_decode_step_is_the_sum_of_its_operators() -> None:
    layer = llama_layer_us(1)
    attention = 32 * 11.5 * 0.25 + (1024 + 145) * 131072 / (3350e9 * 0.93) * 1e6
    head = gemm_us(1, 4096, 128256)
    expected = 32 * layer + attention + head + 500 + 8
    found = us(roofline(LLAMA, H100).step_ps([], 1, 1024))
    assert found == pytest.approx(expected, rel=1e-7)
    assert found == pytest.approx(6290.9, abs=0.1)  # a real H100 needs 6 to 7 ms


def test_a_mixed_step_is_the_sum_of_its_operators() -> None:
    tokens = 100 + 28  # a chunk of 100, 28 decodes
    layer = llama_layer_us(tokens)
    decode = 32 * 11.5 * 0.25 + (28 * 900 + 28 * 145) * 131072 / (3350e9 * 0.93) * 1e6
    pairs = 100 * (50 + 300)
    rate = 989e12 * 0.65 * 400 / (400 + 915)
    prefill = 32 * 12.7 * 0.25 + 32 * 4 * 32 * 128 * pairs / rate * 1e6
    expected = 32 * layer + decode + prefill + gemm_us(29, 4096, 128256) + 500 + 29 * 8
    found = us(roofline(LLAMA, H100).step_ps([(100, 300)], 28, 28 * 900))
    assert found == pytest.approx(expected, rel=1e-6)


def test_tensor_parallelism_splits_the_matrices_and_adds_two_all_reduces_a_layer() -> None:
    layer = (
        gemm_us(16, 4096, (16 + 2 * 4) * 128)
        + gemm_us(16, 2048, 4096)
        + gemm_us(16, 4096, 14336)
        + gemm_us(16, 7168, 4096)
    )
    all_reduce = 4.3 + 16 * 4096 * 2 / (0.58 * 450e9) * 1e6  # 2(g − 1)/g is 1 for two devices
    expected = 32 * (layer + 2 * all_reduce) + 500
    cost = roofline(LLAMA, H100, tensor_parallel=2)
    assert us(cost.tokens_ps[16]) == pytest.approx(expected, rel=1e-7)
    assert us(cost.sequences_ps[1]) == pytest.approx(gemm_us(1, 4096, 64128) + 8, rel=1e-7)


@pytest.mark.parametrize(("devices", "share"), [(2, 1.0), (4, 1.5), (8, 1.75)])
def test_an_all_reduce_sends_its_bytes_almost_twice(devices: int, share: float) -> None:
    def with_fraction(fraction: float) -> Hardware:
        assert H100.efficiency is not None
        fit = {devices: AllReduceFit(alpha_us=5.0, fraction=fraction)}
        return dataclasses.replace(H100, efficiency=dataclasses.replace(H100.efficiency, all_reduce=fit))

    slow = roofline(LLAMA, with_fraction(0.25), devices)
    fast = roofline(LLAMA, with_fraction(0.5), devices)
    sent = share * 100 * 4096 * 2
    expected = 2 * 32 * sent / 450e9 * (1 / 0.25 - 1 / 0.5) * 1e6
    assert us(slow.tokens_ps[100] - fast.tokens_ps[100]) == pytest.approx(expected, rel=1e-6)


def test_fp8_weights_and_activations_compute_in_fp8_after_a_cast_of_the_activations() -> None:
    small = dataclasses.replace(LLAMA, precision=ModelPrecision(weights="fp8", activations="fp8"))
    cost = roofline(small, H100, max_tokens=2048)
    for rows in (1, 2048):
        layer = fp8_gemm_us(rows, 4096, 6144) + fp8_gemm_us(rows, 4096, 4096)
        layer += fp8_gemm_us(rows, 4096, 28672) + fp8_gemm_us(rows, 14336, 4096)
        assert us(cost.tokens_ps[rows]) == pytest.approx(32 * layer + 500, rel=1e-7)
    assert cost.sequences_ps == roofline(LLAMA, H100).sequences_ps  # the head stays in bf16


def test_narrow_weights_save_bytes_but_no_arithmetic() -> None:
    def layers_us(weights: str, rows: int) -> float:
        narrow = dataclasses.replace(LLAMA, precision=ModelPrecision(weights=weights))  # type: ignore[arg-type]
        return us(roofline(narrow, H100, max_tokens=4096).tokens_ps[rows])

    assert layers_us("int4", 4096) == layers_us("int8", 4096) == layers_us("bf16", 4096)
    assert layers_us("fp8", 1) == layers_us("int8", 1)
    saved = 32 * (4096 * 6144 + 4096 * 4096 + 4096 * 28672 + 14336 * 4096) * 1.0 / MEMORY * 1e6
    assert layers_us("bf16", 1) - layers_us("int8", 1) == pytest.approx(saved, rel=1e-6)
    assert layers_us("int8", 1) - layers_us("int4", 1) == pytest.approx(saved / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("tokens", "distinct"),
    [(1, 2.0), (2, 3.5), (64, 7.9999999)],  # 8·(1 − (3/4)^t)
)
def test_a_mixture_reads_the_experts_that_its_tokens_draw(tokens: int, distinct: float) -> None:
    mixtral = alike(model("mixtral_8x7b"))
    layer = (
        gemm_us(tokens, 4096, 6144)
        + gemm_us(tokens, 4096, 4096)
        + gemm_us(tokens, 4096, 8)  # the router
        + gemm_us(2 * tokens, 4096, 28672, matrices=distinct)
        + gemm_us(2 * tokens, 14336, 4096, matrices=distinct)
    )
    found = us(roofline(mixtral, H100).tokens_ps[tokens])
    assert found == pytest.approx(32 * layer + 500, rel=1e-6)


def test_shared_experts_and_dense_layers_are_read_by_every_token() -> None:
    assert model("deepseek_v3").experts is not None
    deepseek = model("deepseek_v3", precision=ModelPrecision())
    experts = deepseek.experts
    assert experts is not None
    alone = dataclasses.replace(deepseek, experts=dataclasses.replace(experts, shared=0))
    with_shared = us(roofline(deepseek, H100, 8).tokens_ps[1] - roofline(alone, H100, 8).tokens_ps[1])
    assert with_shared == pytest.approx(58 * (gemm_us(1, 7168, 512) + gemm_us(1, 256, 7168)), rel=1e-6)
    fewer = dataclasses.replace(deepseek, experts=dataclasses.replace(experts, dense_layers=0))
    assert roofline(fewer, H100, 8).tokens_ps[1] != roofline(deepseek, H100, 8).tokens_ps[1]


def test_the_engine_adds_its_time_per_step_per_sequence_and_per_request() -> None:
    engine = H100.engine
    assert engine is not None
    slower = dataclasses.replace(
        H100, engine=dataclasses.replace(engine, step_us=600.0, sequence_us=9.0, ingest_ms=3.5)
    )
    before, after = roofline(LLAMA, H100), roofline(LLAMA, slower)
    assert after.tokens_ps[1] - before.tokens_ps[1] == 100 * US
    assert after.tokens_ps[128] - before.tokens_ps[128] == 100 * US
    assert after.sequences_ps[64] - before.sequences_ps[64] == 64 * US
    assert (before.ingest_ns, after.ingest_ns) == (8_000_000, 3_500_000)


def test_cuda_graphs_hide_their_share_of_the_attention_launches() -> None:
    engine = H100.engine
    assert engine is not None
    eager = dataclasses.replace(H100, engine=dataclasses.replace(engine, attention_launch=1.0))
    before, after = roofline(LLAMA, H100), roofline(LLAMA, eager)
    assert us(after.decode_attention_ps[1] - before.decode_attention_ps[1]) == pytest.approx(32 * 11.5 * 0.75)
    assert us(after.prefill_launch_ps - before.prefill_launch_ps) == pytest.approx(32 * 12.7 * 0.75)


# What holds of every deployment


@pytest.mark.parametrize("name", DECODERS)
def test_more_work_never_takes_less_time(name: str) -> None:
    cost = roofline(model(name), hardware("b200_sxm"), 8, max_tokens=4096, max_sequences=256)
    for table in (cost.tokens_ps, cost.sequences_ps, cost.decode_attention_ps):
        assert table[0] == 0
        assert all(later >= earlier for earlier, later in itertools.pairwise(table))
    assert len(cost.tokens_ps) == 4097
    assert len(cost.sequences_ps) == len(cost.decode_attention_ps) == 257


def test_a_pure_decode_step_is_affine_in_its_context() -> None:
    cost = roofline(LLAMA, H100)
    for decodes in (1, 7, 64):
        for context in (0, 1, 4096, 1_000_000):
            expected = cost.decode_ps[decodes] + cost.context_ps * context
            assert cost.step_ps([], decodes, context) == expected


def test_a_step_without_decodes_has_no_decode_attention() -> None:
    cost = roofline(LLAMA, H100)
    expected = cost.tokens_ps[64] + cost.sequences_ps[1] + cost.prefill_launch_ps + cost.prefill_ps(64, 0)
    assert cost.step_ps([(64, 0)], 0, 0) == expected


# What is said of where figures come from, and where they are missing


def test_measured_hardware_names_its_measurements() -> None:
    kernels, engine = roofline(LLAMA, H100).provenance
    assert kernels.startswith("roofline, kernels: fit to measured operator tables")
    assert engine.startswith("engine: 500 µs a step, 8 µs a sequence, 0.25 of the attention launches, 8 ms")


def test_unmeasured_hardware_works_and_says_so() -> None:
    cost = roofline(LLAMA, hardware("mi300x"))
    assert cost.provenance[0] == (
        "roofline, kernels: mi300x is not measured; mean of the A100, H100, H200 and B200 fits"
    )
    # 1,050,937,856 bytes of the output head over .81 · 5,300 GB/s, 4.4 µs; a token sampled of 128,256 logits, sorted
    sampled = 100 + (12.6 + 101) * 0.128256
    head = 1_050_937_856 / (5300e9 * 0.81) * 1e6 + 4.4
    assert us(cost.sequences_ps[1]) == pytest.approx(head + sampled, rel=1e-7)


@pytest.mark.parametrize(
    ("shape", "machine", "devices", "message"),
    [
        (
            LLAMA,
            hardware("sapphire_rapids"),
            1,
            "cluster.pools.llm.hardware.engine: null; the roofline needs the engine's overheads here",
        ),
        (
            LLAMA,
            dataclasses.replace(H100, peak_tflops_bf16=None),
            1,
            "cluster.pools.llm.hardware.peak_tflops_bf16: null; h100_sxm has no such figure",
        ),
        (
            LLAMA,
            dataclasses.replace(H100, scale_up_gb_s=None),
            2,
            "cluster.pools.llm.hardware.scale_up_gb_s: null; tensor parallelism needs it",
        ),
        (
            LLAMA,
            H100,
            16,
            "cluster.pools.llm.hardware.efficiency.all_reduce.16: missing; h100_sxm has no measured all-reduce "
            "of 16 devices (it has: 2, 4, 8), " + INVENTS,
        ),
        (
            dataclasses.replace(LLAMA, precision=ModelPrecision("fp8", "bf16", "fp8")),
            dataclasses.replace(H100, efficiency=dataclasses.replace(H100.efficiency, gemm={})),
            1,
            "cluster.pools.llm.hardware.efficiency.gemm.fp8: missing; h100_sxm has no measured gemm of fp8 "
            "(it has: none), " + INVENTS,
        ),
        (
            dataclasses.replace(LLAMA, precision=ModelPrecision(kv_cache="int8")),
            dataclasses.replace(H100, efficiency=dataclasses.replace(H100.efficiency, decode_attention={})),
            1,
            "cluster.pools.llm.hardware.efficiency.decode_attention.int8: missing; h100_sxm has no measured "
            "decode-attention of int8 (it has: none), " + INVENTS,
        ),
    ],
)
def test_a_missing_figure_is_named_with_its_full_key(
    shape: Model, machine: Hardware, devices: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        roofline(shape, machine, devices)
    assert str(caught.value) == message
