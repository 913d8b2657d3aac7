"""Which precision computes what, and what is said where nothing was measured."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from cost.by_hand import H100, fp8_gemm_us, gemm_us, us
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import Hardware, Model, ModelPrecision, Precision
from hermes_flow.cost.precision import compute_precision

LLAMA = model("llama3_8b")

# Datasheets, dense: int8 and int4 in 10¹² operations a second. A null peak is not computed in.
INTEGER_PEAKS = {
    "a100_sxm": (624, 1248),
    "b200_sxm": (4500, None),
    "b300_sxm": (150, None),
    "gb200": (5000, None),
    "gb300": (165, None),
    "grace_cpu": (None, None),
    "h100_sxm": (1979, None),
    "h200_sxm": (1979, None),
    "l40s": (733, None),
    "mi300x": (2615, None),
    "mi355x": (5033, None),
    "rtx4090": (660.6, 1321.2),
    "rtx_a6000": (309.7, 619.3),
    "rtx_pro_6000": (None, None),
    "sapphire_rapids": (None, None),
    "tpu_v5e": (393, None),
    "tpu_v6e": (1836, None),
    "tpu_v7": (None, None),
}


def llama(weights: Precision, kv_cache: Precision, activations: Precision) -> Model:
    return dataclasses.replace(LLAMA, precision=ModelPrecision(weights, kv_cache, activations))


@pytest.mark.parametrize("name", sorted(INTEGER_PEAKS))
def test_an_entry_carries_the_integer_peaks_of_its_datasheet(name: str) -> None:
    entry = hardware(name)
    assert (entry.peak_tops_int8, entry.peak_tops_int4) == INTEGER_PEAKS[name]


@pytest.mark.parametrize(
    ("weights", "activations", "machine", "computed"),
    [
        ("bf16", "bf16", "h100_sxm", "bf16"),
        ("fp8", "fp8", "h100_sxm", "fp8"),
        ("int4", "fp8", "h100_sxm", "fp8"),
        ("int8", "int8", "h100_sxm", "int8"),
        ("int4", "int8", "a100_sxm", "int8"),
        ("int4", "int4", "a100_sxm", "int4"),
        ("fp8", "bf16", "h100_sxm", "bf16"),  # weight-only
        ("int4", "bf16", "a100_sxm", "bf16"),
        ("fp8", "fp8", "a100_sxm", "bf16"),  # no fp8 there
        ("int4", "int4", "h100_sxm", "bf16"),
        ("bf16", "fp8", "h100_sxm", "bf16"),  # weights wider than the activations
        ("int8", "int4", "a100_sxm", "bf16"),
    ],
)
def test_products_compute_in_the_activations_precision_if_weights_and_hardware_allow(
    weights: Precision, activations: Precision, machine: str, computed: Precision
) -> None:
    precision = ModelPrecision(weights=weights, activations=activations)
    assert compute_precision(precision, hardware(machine)) == computed


def test_fp8_weights_alone_are_read_as_one_byte_and_multiplied_in_bf16() -> None:
    table = roofline(llama("fp8", "bf16", "bf16"), H100, max_tokens=2048).tokens_ps
    for rows in (1, 2048):
        shapes = ((4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096))
        layer = sum(gemm_us(rows, ins, outs, weight_bytes=1.0) for ins, outs in shapes)
        assert us(table[rows]) == pytest.approx(32 * layer + 500, rel=1e-7)


def test_int4_weights_under_fp8_activations_save_bytes_of_an_fp8_product() -> None:
    narrow = roofline(llama("int4", "bf16", "fp8"), H100)
    wide = roofline(llama("fp8", "bf16", "fp8"), H100)
    weights = 4096 * 6144 + 4096 * 4096 + 4096 * 28672 + 14336 * 4096
    saved = 32 * 0.5 * weights / (3350e9 * 0.79) * 1e6
    assert us(wide.tokens_ps[1] - narrow.tokens_ps[1]) == pytest.approx(saved, rel=1e-6)


def test_where_the_hardware_has_no_fp8_its_weights_are_widened() -> None:
    a100 = hardware("a100_sxm")
    assert roofline(llama("fp8", "bf16", "fp8"), a100).tokens_ps == (
        roofline(llama("fp8", "bf16", "bf16"), a100).tokens_ps
    )


def test_a_mixture_computes_its_experts_as_its_other_layers_and_its_router_in_bf16() -> None:
    deepseek = model("deepseek_v3")
    assert deepseek.precision == ModelPrecision("fp8", "bf16", "fp8", fp8_blocks=True)
    shared = dataclasses.replace(deepseek, layers=1, experts=None)
    attention = (
        fp8_gemm_us(1, 7168, 1536)
        + fp8_gemm_us(1, 1536, 128 * 192)
        + fp8_gemm_us(1, 7168, 576)
        + fp8_gemm_us(1, 512, 128 * 256)
        + fp8_gemm_us(1, 128 * 128, 7168)
    )
    dense = fp8_gemm_us(1, 7168, 2 * 18432) + fp8_gemm_us(1, 18432, 7168)
    assert us(roofline(shared, H100).tokens_ps[1]) == pytest.approx(attention + dense + 500, rel=1e-7)
    experts = deepseek.experts
    assert experts is not None
    mixture = dataclasses.replace(
        deepseek, layers=1, experts=dataclasses.replace(experts, dense_layers=0, shared=0)
    )
    routed = fp8_gemm_us(8, 7168, 4096, matrices=8.0) + fp8_gemm_us(8, 2048, 7168, matrices=8.0)
    expected = attention + gemm_us(1, 7168, 256) + routed + 500
    assert us(roofline(mixture, H100).tokens_ps[1]) == pytest.approx(expected, rel=1e-7)


def test_int8_and_int4_kv_are_read_as_fp8_is_at_their_bytes() -> None:
    eight, four, fp8 = (roofline(llama("bf16", kv, "bf16"), H100) for kv in ("int8", "int4", "fp8"))
    assert eight.context_ps == fp8.context_ps == 24763
    assert eight.decode_attention_ps == fp8.decode_attention_ps
    # 32,768 bytes over .79 · 3,350 GB/s
    assert four.context_ps == round(32_768 / (3350e9 * 0.79) * 1e12)


def test_int8_products_reach_the_fractions_of_fp8_at_their_own_peak() -> None:
    h100 = dataclasses.replace(H100, peak_tops_int8=1000.0)
    table = roofline(llama("int8", "bf16", "int8"), h100, max_tokens=4096).tokens_ps
    shapes = ((4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096))
    # .64 of the peak, a cast of 3 bytes an element at .26 of the bandwidth, 6.3 µs a launch: as fp8 was fitted
    layer = sum(
        2 * 4096 * ins * outs / (1000e12 * 0.64) * 1e6 + 3 * 4096 * ins / (3350e9 * 0.26) * 1e6 + 6.3
        for ins, outs in shapes
    )
    assert us(table[4096]) == pytest.approx(32 * layer + 500, rel=1e-6)


def test_where_fp8_was_not_measured_integer_products_reach_the_fractions_of_bf16() -> None:
    a100 = dataclasses.replace(hardware("a100_sxm"), engine=H100.engine)
    eight = roofline(llama("int8", "bf16", "int8"), a100, max_tokens=8192).tokens_ps
    sixteen = roofline(LLAMA, a100, max_tokens=8192).tokens_ps
    # 624 against 312: many rows take half the time, but for launches; one row reads half the bytes.
    fixed = 4 * 32 * 5.8e6 + 500e6
    assert eight[8192] - fixed == pytest.approx((sixteen[8192] - fixed) / 2, rel=1e-6)
    four = roofline(llama("int4", "bf16", "int4"), a100, max_tokens=8192).tokens_ps
    assert four[8192] - fixed == pytest.approx((sixteen[8192] - fixed) / 4, rel=1e-6)


def test_where_only_bf16_kv_was_measured_a_narrower_one_is_read_at_the_same_bandwidth() -> None:
    wide, narrow = (roofline(llama("bf16", kv, "bf16"), hardware("a100_sxm")) for kv in ("bf16", "int8"))
    assert narrow.context_ps == pytest.approx(wide.context_ps / 2, abs=1)


@pytest.mark.parametrize(
    ("shape", "machine", "notes"),
    [
        (LLAMA, H100, ()),
        (
            llama("fp8", "fp8", "fp8"),
            H100,
            ("layers: fp8 weights, computed in fp8; output head in bf16",),
        ),
        (
            llama("int4", "bf16", "bf16"),
            H100,
            ("layers: int4 weights widened to bf16 in the kernel, computed in bf16; output head in bf16",),
        ),
        (
            llama("fp8", "bf16", "fp8"),
            hardware("a100_sxm"),
            (
                "layers: fp8 weights widened to bf16 in the kernel, computed in bf16, not in fp8 (a100_sxm has no "
                "fp8 peak); output head in bf16",
            ),
        ),
        (
            llama("bf16", "bf16", "fp8"),
            H100,
            (
                "layers: bf16 weights, computed in bf16, not in fp8 (bf16 weights are wider); output head in bf16",
            ),
        ),
        (
            llama("int8", "bf16", "int8"),
            H100,
            (
                "layers: int8 weights, computed in int8; output head in bf16",
                "int8 GEMMs: no measured efficiency on this hardware; the fp8 fit stands in",
            ),
        ),
        (
            llama("bf16", "fp8", "bf16"),
            hardware("a100_sxm"),
            (
                "fp8 KV: not measured; decode attention as fitted to bf16, which is not unpacked, with the bytes of "
                "fp8",
            ),
        ),
        (
            llama("int4", "bf16", "int8"),
            hardware("a100_sxm"),
            (
                "layers: int4 weights widened to int8 in the kernel, computed in int8; output head in bf16",
                "int8 GEMMs: no measured efficiency on this hardware; the bf16 fit stands in, without a cast of the "
                "activations",
            ),
        ),
        (
            llama("bf16", "int4", "bf16"),
            H100,
            ("int4 KV: not measured; decode attention as fitted to fp8 with the bytes of int4",),
        ),
    ],
)
def test_what_is_not_bf16_throughout_is_said(shape: Model, machine: Hardware, notes: tuple[str, ...]) -> None:
    provenance = roofline(shape, machine).provenance
    assert provenance[1:-1] == notes
    assert provenance[0].startswith("roofline, kernels: ")
    assert provenance[-1].startswith("engine: ")


@pytest.mark.parametrize("activations", ["bf16", "fp8"])
def test_fewer_bits_of_weights_never_take_longer(activations: Precision) -> None:
    widths: list[Precision] = ["fp8", "int4"] if activations == "fp8" else ["bf16", "fp8", "int8", "int4"]
    tables = [
        roofline(llama(width, "bf16", activations), H100, max_tokens=1024).tokens_ps for width in widths
    ]
    for wide, narrow in itertools.pairwise(tables):
        assert all(less <= more for less, more in zip(narrow, wide, strict=True))
