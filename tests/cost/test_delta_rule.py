"""Scans by the delta rule: one prompt takes as long with few heads on a device as with many, many prompts do not."""

from __future__ import annotations

import dataclasses
import functools

import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import Speculative
from hermes_flow.cost.fitted.correction import Corrections, corrected
from hermes_flow.program.step_cost import StepCost

QWEN = model("qwen3_5_397b_a17b", experts=None)
LAYERS = 45
# AIConfigurator's tables of gated delta nets (Apache-2.0; vLLM 0.24), chunk_gated_delta_rule_flashinfer: µs of one
# layer by GPU, heads on the device, prompts, and tokens of each prompt
MEASURED = [
    ("h100_sxm", 8, 1, 8192, 404.0),
    ("h200_sxm", 8, 1, 8192, 418.0),
    ("h200_sxm", 64, 1, 8192, 398.3),
    ("h200_sxm", 8, 16, 1024, 63.4),
    ("h200_sxm", 64, 32, 1024, 912.9),
    ("b200_sxm", 16, 1, 1024, 56.8),
    ("b200_sxm", 16, 1, 32768, 1258.2),
    ("b200_sxm", 8, 64, 1024, 226.2),
]


@functools.cache
def on(gpu: str, devices: int) -> StepCost:
    return roofline(QWEN, hardware(gpu), devices)


@pytest.mark.parametrize(("gpu", "heads", "prompts", "tokens", "measured_us"), MEASURED)
def test_scans_take_what_was_measured(
    gpu: str, heads: int, prompts: int, tokens: int, measured_us: float
) -> None:
    (scan,) = on(gpu, 64 // heads).scans
    found_us = scan.step_ps(prompts * tokens, tokens, prompts) / LAYERS / 1e6
    assert found_us == pytest.approx(measured_us, rel=0.13)


def test_more_devices_make_the_scan_of_many_prompts_shorter_and_that_of_one_not() -> None:
    few, many = (on("h200_sxm", devices).scans[0] for devices in (8, 1))
    assert few.step_ps(8192, 8192, 1) == many.step_ps(8192, 8192, 1)
    # 64 heads of 32 prompts on 132 multiprocessors; 8 heads of them on as many
    assert many.step_ps(32 * 1024, 1024, 32) == pytest.approx(
        64 * 32 / 132 * few.step_ps(1024, 1024, 1), rel=1e-6
    )
    assert few.step_ps(32 * 1024, 1024, 32) == pytest.approx(
        8 * 32 / 132 * few.step_ps(1024, 1024, 1), rel=1e-6
    )


def test_only_prompts_are_scanned_and_a_step_takes_the_longest_of_them() -> None:
    cost = on("h200_sxm", 8)
    plain = StepCost(**{name: getattr(cost, name) for name in cost.__dataclass_fields__} | {"scans": ()})
    assert cost.step_ps([], 32, 1000) == plain.step_ps([], 32, 1000)
    chain_ps = round(LAYERS * 3.07 / 64 * 1e6)  # by token, on H200
    chunks = [(40, 0), (20, 500)]
    added_ps = cost.step_ps(chunks, 3, 100) - plain.step_ps(chunks, 3, 100)
    assert added_ps == chain_ps * (40 + 237) - cost.idle_ps[63]


def test_a_device_that_waits_for_launches_scans_meanwhile() -> None:
    cost = roofline(QWEN, hardware("h200_sxm"), 8, max_tokens=9000, max_sequences=64)
    # vLLM launches the kernels of 60 layers for 350 µs each in steps above 128 tokens.
    assert cost.idle_ps[128] == 0
    assert cost.idle_ps[129] > cost.idle_ps[1000] > cost.idle_ps[2000] == 0
    assert cost.scan_ps(500, 500, 1, 500) == 0
    assert cost.tokens_ps[500] == 60 * 350 * 10**6
    eight_prompts_ps = cost.scans[0].step_ps(8000, 1000, 8)
    assert cost.scan_ps(8000, 1000, 8, 8000) == eight_prompts_ps


def test_a_draft_that_scans_does_so_after_the_model() -> None:
    speculative = Speculative(draft=QWEN, tokens=1)
    both = roofline(QWEN, hardware("h200_sxm"), 8, speculative=speculative)
    alone = on("h200_sxm", 8)
    assert both.scan_ps(100, 100, 1, 0) == 2 * alone.scan_ps(100, 100, 1, 0)


def test_heads_of_half_the_width_take_the_time_of_their_operations() -> None:
    mixer = QWEN.mixers["gated_delta_net"]
    narrow = dataclasses.replace(mixer, key_head_dim=64, value_head_dim=64)  # type: ignore[call-arg]
    (scan,) = roofline(dataclasses.replace(QWEN, mixers={"narrow": narrow}), hardware("h200_sxm")).scans
    share = (6 * 64 * 64 + 64 * 5 * 128) / (6 * 128 * 128 + 64 * 5 * 256)
    assert scan.chain_ps == pytest.approx(share * on("h200_sxm", 1).scans[0].chain_ps, rel=1e-4)


def test_hardware_without_the_fit_scans_at_a_share_of_its_peak() -> None:
    slow = roofline(QWEN, hardware("a100_sxm"), 8)
    assert not slow.scans
    # 64 heads of 6 · 128² + 64 · 5 · 256 operations, and 12,288 channels of a convolution over 4 tokens
    flops = LAYERS * (64 * (6 * 128**2 + 64 * 5 * 256) + 2 * 12_288 * 4) / 8
    none = roofline(dataclasses.replace(QWEN, mixers={}), hardware("a100_sxm"), 8)
    assert none.tokens_ps[8] < slow.tokens_ps[8]
    assert flops / (312e12 * 0.18) * 1e12 < slow.tokens_ps[101] - slow.tokens_ps[100]


def test_a_corrected_roofline_scans_longer_by_the_factor_of_its_kernels() -> None:
    cost = on("h200_sxm", 8)
    found = corrected(cost, Corrections(0.0, 2.0, 0.0, 0.0, 1.0, 1.0), QWEN.layers)
    assert found.scan_ps(100, 100, 1, 100) == pytest.approx(2 * cost.scans[0].step_ps(100, 100, 1))
