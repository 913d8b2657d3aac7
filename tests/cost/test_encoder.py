"""Encoders: all layers and nothing else, by hand on a GPU and on CPUs with and without bf16."""

from __future__ import annotations

import dataclasses

import pytest
from cost.by_hand import H100, gemm_us, us
from cost.catalog import deployment, hardware, model, roofline

from hermes_flow.config.schema import Hardware, Model
from hermes_flow.cost.kernels.model import Kernels
from hermes_flow.errors import ConfigError
from hermes_flow.program.step_cost import StepCost

E5 = model("e5_base")
UNMEASURED = {"compute": 0.79, "memory": 0.81, "launch_us": 4.4}  # conf/cost/roofline.yaml
SHAPES = ((768, 3 * 768), (768, 768), (768, 3072), (3072, 768))  # one layer of BERT-base


def encoder(machine: Hardware, of: Model = E5, devices: int = 1) -> StepCost:
    return roofline(of, machine, devices, 4096, 32, part="encoder")


def cpu_layer_us(rows: int, tflops: float, gb_s: float, element: int) -> float:
    total = 0.0
    for ins, outs in SHAPES:
        flops = 2 * rows * ins * outs / (tflops * 1e12 * UNMEASURED["compute"])
        size = element * (rows * ins + rows * outs + ins * outs)
        total += max(flops, size / (gb_s * 1e9 * UNMEASURED["memory"])) * 1e6 + UNMEASURED["launch_us"]
    return total


@pytest.mark.parametrize("rows", [1, 32, 512, 4096])
def test_a_pass_is_the_products_of_all_layers_and_the_engines_step(rows: int) -> None:
    layer = sum(gemm_us(rows, *shape) for shape in SHAPES)
    assert us(encoder(H100).tokens_ps[rows]) == pytest.approx(12 * layer + 500, rel=1e-9)


def test_there_is_no_output_head_and_no_ingest() -> None:
    whole, ours = roofline(E5, H100, 1, 4096, 32), encoder(H100)
    assert us(ours.sequences_ps[3]) == pytest.approx(3 * 8)
    assert whole.sequences_ps[3] > ours.sequences_ps[3]
    assert (ours.ingest_ns, whole.ingest_ns) == (0, 8_000_000)


def test_attention_in_both_directions_has_twice_the_pairs() -> None:
    causal = encoder(H100, dataclasses.replace(E5, attention="causal"))
    both = encoder(H100)
    assert both.prefill_pair_ps == 2 * causal.prefill_pair_ps
    pairs, flops = 512 * 512, 4 * 12 * 64  # query·key and weights·value, of all heads
    seconds = 12 * flops * pairs / (989e12 * 0.65) * (1 + 915 / 512)
    assert both.prefill_ps(512, 0) == pytest.approx(seconds * 1e12, rel=1e-6)


def test_a_cpu_with_bf16_has_no_engine_and_efficiencies_of_gpus() -> None:
    cost = encoder(hardware("sapphire_rapids"))
    assert us(cost.tokens_ps[512]) == pytest.approx(12 * cpu_layer_us(512, 114.7, 307, 2), rel=1e-9)
    assert cost.sequences_ps == [0] * 33
    text = " ".join(cost.provenance)
    assert "sapphire_rapids is not measured" in text
    assert "no engine" in text


@pytest.mark.parametrize("rows", [1, 512])
def test_a_cpu_without_bf16_computes_in_fp32_with_four_bytes(rows: int) -> None:
    cost = encoder(hardware("grace_cpu"))
    assert us(cost.tokens_ps[rows]) == pytest.approx(12 * cpu_layer_us(rows, 7.1, 500, 4), rel=1e-9)
    assert "grace_cpu has no bf16 peak: fp32, with weights and activations of 4 bytes" in cost.provenance


def test_a_machine_without_any_peak_is_refused() -> None:
    nothing = hardware("grace_cpu", peak_tflops_fp32=None)
    with pytest.raises(ConfigError, match=r"cluster\.pools\.llm\.hardware\.peak_tflops_bf16: null"):
        encoder(nothing)


def test_only_encoders_do_without_an_engine() -> None:
    with pytest.raises(ConfigError, match=r"hardware\.engine: null"):
        roofline(model("llama3_8b"), hardware("sapphire_rapids"))


def test_measured_kernels_have_no_tables_of_encoders() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.pools\.llm\.model: cost=kernels has no tables of it"):
        Kernels("nowhere").lower(deployment(E5, H100, part="encoder"))


def test_two_devices_share_an_encoders_work() -> None:
    large = model("e5_mistral_7b")
    one, two = encoder(H100, large).tokens_ps[4096], encoder(H100, large, devices=2).tokens_ps[4096]
    assert one / 2 < two < one
