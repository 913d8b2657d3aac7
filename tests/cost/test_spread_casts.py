"""Casts of rows for other devices' experts, which B200's kernels of experts in fp8 do on every device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cost.by_hand import us
from cost.catalog import alike, hardware, model, roofline

from hermes_flow.config.schema import Hardware
from hermes_flow.cost.expert_routing import rows_on_fullest

B200 = hardware("b200_sxm")
DEEPSEEK = alike(model("deepseek_v3"))  # 58 layers of 256 experts in fp8, of which a token has 8; 7,168 wide


def graphed(share: float) -> Hardware:
    efficiency, engine = B200.efficiency, B200.engine
    assert efficiency is not None
    assert engine is not None
    fp8 = dataclasses.replace(efficiency.experts["fp8"], cast_elsewhere=share)
    efficiency = dataclasses.replace(efficiency, experts={**efficiency.experts, "fp8": fp8})
    engine = dataclasses.replace(engine, eager=None, experts=None)
    return dataclasses.replace(B200, efficiency=efficiency, engine=engine)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_device_casts_rows_of_the_others_before_the_first_product(share: float) -> None:
    more, own = (
        roofline(DEEPSEEK, graphed(each), 8, 4096, expert_parallel=True).tokens_ps[4096]
        for each in (share, 0.0)
    )
    assert DEEPSEEK.experts is not None
    own_rows = rows_on_fullest(DEEPSEEK.experts, np.array([4096.0]), 8)[0]
    assert own_rows == pytest.approx(4096, rel=0.03)
    others = 4096 * 8 - own_rows  # rows of seven of eight devices, 3 bytes a value at 0.3 of 7,700 GB/s
    assert us(more - own) == pytest.approx(58 * share * others * 7168 * 3 / (0.3 * 7700e9) * 1e6, rel=1e-6)


@pytest.mark.parametrize("shape", [{}, {"expert_parallel": True, "data_parallel": 8}])
def test_no_device_does_where_experts_are_cut_or_rows_are_exchanged(shape: dict[str, int]) -> None:
    devices = 1 if "data_parallel" in shape else 8
    assert roofline(DEEPSEEK, graphed(1.0), devices, **shape) == roofline(
        DEEPSEEK, graphed(0.0), devices, **shape
    )
