"""All-reduces that an engine makes in two stages from a size on: SGLang 0.5.9 on eight B200, by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hermes_flow.config.schema import AllReduceFit, LargeFit, TwoStageFit
from hermes_flow.cost.operators import all_reduce_s

STAGED = AllReduceFit(
    alpha_us=8.1,
    fraction=0.61,
    two_stage=TwoStageFit(from_kb=256, least_us=26.0, alpha_us=12.6, fraction=0.24),
)
KIB = 1024


def us(fit: AllReduceFit, kib: float) -> float:
    return float(all_reduce_s(fit, np.array([kib * KIB]), 8, 900.0)[0] * 1e6)


# source: AIConfigurator's table of SGLang 0.5.9 (custom_allreduce in CUDA graphs, eight B200)
@pytest.mark.parametrize(
    ("kib", "measured_us"),
    [(128, 9.4), (256, 25.6), (512, 25.9), (1024, 27.2), (2048, 28.9), (4096, 46.5), (8192, 80.4)],
)
def test_it_takes_as_long_as_measured(kib: float, measured_us: float) -> None:
    assert us(STAGED, kib) == pytest.approx(measured_us, rel=0.1)


def test_smaller_messages_are_as_without_it() -> None:
    plain = dataclasses.replace(STAGED, two_stage=None)
    assert us(STAGED, 255.9) == us(plain, 255.9)
    assert us(plain, 256) < 10 < us(STAGED, 256)


def test_nccl_takes_messages_for_which_it_is_faster() -> None:
    both = dataclasses.replace(STAGED, nccl=LargeFit(alpha_us=66.0, fraction=0.74))
    assert us(both, 4096) == us(STAGED, 4096)
    size = 65536 * KIB
    assert us(both, 65536) == pytest.approx(66 + 1.75 * size / (0.74 * 900e9) * 1e6)
