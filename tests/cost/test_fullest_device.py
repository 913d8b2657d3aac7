"""The device with the most popular experts: against experts that are dealt out many times."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import Experts
from hermes_flow.cost.expert_routing import distinct_experts, on_fullest_device
from hermes_flow.cost.operators import Floats

TOKENS = np.arange(5_001, dtype=np.float64)


def dealt(experts: Experts, skew: float, devices: int, tokens: int) -> tuple[float, float]:
    """Mean rows and distinct experts of the fullest device, over 1,000 ways to deal out the experts."""
    popularity = np.arange(1, experts.count + 1) ** -skew
    chosen = np.minimum(1.0, experts.per_token * popularity / popularity.sum())
    drawn = 1 - (1 - chosen) ** tokens
    generator = np.random.default_rng(7)
    ways = [generator.permutation(experts.count) for _ in range(1_000)]

    def fullest(each: Floats) -> float:
        return float(np.mean([each[way].reshape(devices, -1).sum(axis=1).max() for way in ways]))

    return tokens * fullest(chosen), fullest(drawn)


@pytest.mark.parametrize(
    ("count", "per_token", "devices"), [(256, 8, 2), (256, 8, 8), (256, 8, 64), (128, 4, 4), (16, 1, 2)]
)
def test_it_has_as_much_as_the_fullest_of_experts_that_are_dealt_out(
    count: int, per_token: int, devices: int
) -> None:
    experts = Experts(count=count, per_token=per_token, intermediate_size=1024)
    rows, distinct = on_fullest_device(experts, 0.6, TOKENS, devices)
    for tokens in (16, 100, 5_000):
        most, drawn = dealt(experts, 0.6, devices, tokens)
        assert rows[tokens] == pytest.approx(most, rel=0.06)
        assert distinct[tokens] == pytest.approx(drawn, rel=0.1)


def test_it_has_1_31_times_the_mean_with_the_experts_of_deepseek_on_eight_devices() -> None:
    experts = Experts(count=256, per_token=8, intermediate_size=2048)
    rows, _ = on_fullest_device(experts, 0.6, TOKENS, 8)
    assert rows[1_000] / (1_000 * 8 / 8) == pytest.approx(1.307, abs=0.005)
    rows, _ = on_fullest_device(experts, 0.6, TOKENS, 32)
    assert rows[1_000] / (1_000 * 8 / 32) == pytest.approx(2.36, abs=0.01)


@pytest.mark.parametrize(("skew", "devices"), [(0.0, 8), (0.6, 1), (0.6, 256)])
def test_shares_are_equal_under_uniform_routing_on_one_device_and_with_an_expert_on_each(
    skew: float, devices: int
) -> None:
    experts = Experts(count=256, per_token=8, intermediate_size=2048)
    rows, distinct = on_fullest_device(experts, skew, TOKENS, devices)
    if devices < experts.count:
        assert rows == pytest.approx(TOKENS * 8 / devices)
        assert distinct == pytest.approx(distinct_experts(experts, skew, TOKENS) / devices)
    else:
        assert rows[100] == pytest.approx(
            100 * 8 / (np.arange(1, 257) ** -0.6).sum()
        )  # that of the most popular one
        assert distinct[100] == pytest.approx(1.0)


def test_a_prompt_on_experts_held_whole_takes_longer_the_more_unequal_their_shares_are() -> None:
    deepseek, h200 = model("deepseek_v3"), hardware("h200_sxm")
    assert h200.engine is not None
    times = []
    for skew in (0.0, 0.3, 0.6):
        engine = dataclasses.replace(h200.engine, routing_skew=skew, eager=None)
        own = dataclasses.replace(h200, engine=engine)
        times.append(roofline(deepseek, own, 8, 4096, expert_parallel=True).tokens_ps[4096])
    assert times[0] < times[1] < times[2]
