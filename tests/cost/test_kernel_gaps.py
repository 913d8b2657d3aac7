"""Kernels of CUDA graphs wait for each other, or start before those before them are over, as with TensorRT-LLM."""

from __future__ import annotations

import dataclasses

import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import EngineOverhead, Hardware
from hermes_flow.errors import ConfigError

H200 = hardware("h200_sxm")
LLAMA, DEEPSEEK = model("llama3_8b"), model("deepseek_v3")


def with_gaps(
    gap_us: float, dependent: bool, latent_us: float = 0.0, layer_us: float | None = 23.5
) -> Hardware:
    engine = H200.engine
    assert isinstance(engine, EngineOverhead)
    changed = dataclasses.replace(
        engine, kernel_gap_us=gap_us, dependent_launches=dependent, layer_us=layer_us
    )
    return dataclasses.replace(H200, engine=changed)


def step_us(name: str, on: Hardware, devices: int = 1) -> float:
    return roofline({"llama": LLAMA, "deepseek": DEEPSEEK}[name], on, devices, 64).tokens_ps[4] / 1e6


def test_dependent_launches_hide_the_gaps_between_ten_kernels_of_a_layer() -> None:
    waits, hides = (step_us("llama", with_gaps(1.3, dependent)) for dependent in (False, True))
    assert waits - hides == pytest.approx(32 * 10 * 1.3, rel=1e-6)
    assert waits == step_us("llama", H200)  # layer_us was fitted to kernels that wait


def test_latent_attention_has_six_gaps_more_where_kernels_wait() -> None:
    plain, waits, hides = (
        step_us("deepseek", on, 8) for on in (H200, with_gaps(1.3, False), with_gaps(1.3, True))
    )
    assert waits - plain == pytest.approx(61 * 6 * 1.3, rel=1e-6)
    assert plain - hides == pytest.approx(61 * 10 * 1.3, rel=1e-6)


def test_gaps_longer_than_a_layer_leave_nothing_and_no_negative_time() -> None:
    assert step_us("llama", with_gaps(5.0, True)) == step_us("llama", with_gaps(2.35, True))


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (with_gaps(0.0, True), r"engine\.dependent_launches: true, but kernel_gap_us is 0"),
        (
            with_gaps(1.3, False, layer_us=None),
            r"engine\.kernel_gap_us: has no effect where layer_us is null",
        ),
    ],
)
def test_settings_without_effect_are_refused_by_name(on: Hardware, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        roofline(LLAMA, on, 1, 64)


def test_the_note_says_what_is_hidden() -> None:
    note = " ".join(roofline(DEEPSEEK, with_gaps(1.3, True), 8, 64).provenance)
    assert "dependent launches that hide 1.3 µs between kernels" in note
    assert "1.3 µs between kernels" in " ".join(roofline(DEEPSEEK, with_gaps(1.3, False), 8, 64).provenance)
