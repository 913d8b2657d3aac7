"""The device with the most popular experts: against experts that are dealt out many times."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cost.catalog import hardware, model, roofline

from hermes_flow.config.schema import Experts
from hermes_flow.cost.expert_routing import distinct_experts, on_fullest_device, rows_on_fullest

TOKENS = np.arange(5_001, dtype=np.float64)


def drawn(experts: Experts, skew: float, devices: int, tokens: int, times: int) -> tuple[float, float]:
    """Mean rows and distinct experts of the fullest device, where tokens draw experts that lie anywhere."""
    generator = np.random.default_rng(7)
    weights = -skew * np.log(np.arange(1, experts.count + 1))
    rows, distinct = [], []
    for _ in range(times):
        place = generator.permutation(experts.count) * devices // experts.count
        scores = weights + generator.gumbel(
            size=(tokens, experts.count)
        )  # the highest k are k draws (Gumbel)
        chosen = np.argpartition(-scores, experts.per_token - 1, axis=1)[:, : experts.per_token]
        rows.append(np.bincount(place[chosen.ravel()]).max())
        distinct.append(np.bincount(place[np.unique(chosen)]).max())
    return float(np.mean(rows)), float(np.mean(distinct))


@pytest.mark.parametrize("skew", [0.0, 0.6])
@pytest.mark.parametrize(
    ("count", "per_token", "devices"), [(256, 8, 2), (256, 8, 8), (512, 10, 4), (128, 4, 4), (256, 8, 32)]
)
def test_it_has_as_much_as_the_fullest_of_devices_whose_experts_are_drawn(
    count: int, per_token: int, devices: int, skew: float
) -> None:
    experts = Experts(count=count, per_token=per_token, intermediate_size=1024, routing_skew=skew)
    rows, distinct = on_fullest_device(experts, TOKENS, devices)
    for tokens, times in ((4, 1_000), (16, 400), (300, 60)):
        most, different = drawn(experts, skew, devices, tokens, times)
        few = tokens * per_token / devices < 5  # far from a normal distribution
        assert rows[tokens] == pytest.approx(most, rel=0.15 if few else 0.06)
        assert distinct[tokens] == pytest.approx(different, rel=0.15 if few else 0.06)


def test_four_tokens_of_deepseek_read_six_experts_of_one_of_eight_devices_and_not_four() -> None:
    experts = Experts(count=256, per_token=8, intermediate_size=2048, routing_skew=0.0)
    _, distinct = on_fullest_device(experts, TOKENS, 8)
    assert distinct_experts(experts, TOKENS)[4] / 8 == pytest.approx(3.8, abs=0.1)
    assert distinct[4] == pytest.approx(6.4, abs=0.1)


def test_it_has_1_31_times_the_mean_with_the_experts_of_deepseek_on_eight_devices() -> None:
    experts = Experts(count=256, per_token=8, intermediate_size=2048)
    many = np.array([1e6])
    assert rows_on_fullest(experts, many, 8) / many == pytest.approx(1.307, abs=0.005)
    assert rows_on_fullest(experts, many, 32) / many * 4 == pytest.approx(2.36, abs=0.01)


def test_the_fullest_of_32_devices_has_about_what_was_counted_with_deepseek_r1() -> None:
    """TensorRT-LLM, examples/wide_ep/ep_load_balancer/README.md: the fullest rank has 1.56 times more than the mean.

    Each rank gets 1,024 rows on average, those of 4,096 tokens. The count is the mean over layers of DeepSeek-R1.
    """
    experts = model("deepseek_v3").experts
    assert experts is not None
    assert on_fullest_device(experts, TOKENS, 32)[0][4_096] / 1_024 == pytest.approx(1.0 + 1.564, rel=0.1)
    even = dataclasses.replace(experts, routing_skew=0.0)
    assert on_fullest_device(even, TOKENS, 32)[0][4_096] / 1_024 < 1.1


def test_two_tokens_choose_twice_as_many_experts_less_those_that_both_choose() -> None:
    experts = Experts(count=64, per_token=4, intermediate_size=1024, routing_skew=0.5)
    popularity = np.arange(1, 65) ** -0.5
    chosen = 4 * popularity / popularity.sum()
    assert distinct_experts(experts, TOKENS)[:3] == pytest.approx([0.0, 4.0, 8.0 - (chosen**2).sum()])
    assert 8.0 - (chosen**2).sum() < 8.0 - 64 * (4 / 64) ** 2


@pytest.mark.parametrize("skew", [0.0, 0.6])
def test_one_device_has_all_rows_and_all_experts_that_are_drawn(skew: float) -> None:
    experts = Experts(count=256, per_token=8, intermediate_size=2048, routing_skew=skew)
    rows, distinct = on_fullest_device(experts, TOKENS, 1)
    assert rows == pytest.approx(TOKENS * 8)
    assert distinct == pytest.approx(distinct_experts(experts, TOKENS))


def test_with_an_expert_on_each_device_the_most_popular_one_counts() -> None:
    experts = Experts(count=256, per_token=8, intermediate_size=2048)
    rows, distinct = on_fullest_device(experts, TOKENS, 256)
    first = 8 / (np.arange(1, 257) ** -0.6).sum()
    assert rows_on_fullest(experts, np.array([1e6]), 256)[0] == pytest.approx(1e6 * first)
    assert rows[100] == pytest.approx(100 * first)
    assert distinct[100] == pytest.approx(1.0)


def test_under_uniform_routing_shares_of_many_tokens_are_equal() -> None:
    experts = Experts(count=256, per_token=8, intermediate_size=2048, routing_skew=0.0)
    assert rows_on_fullest(experts, np.array([1e6]), 8)[0] == pytest.approx(1e6, rel=2e-3)


def test_a_prompt_on_experts_held_whole_takes_longer_the_more_unequal_their_shares_are() -> None:
    deepseek, h200 = model("deepseek_v3"), hardware("h200_sxm")
    assert h200.engine is not None
    assert deepseek.experts is not None
    graphed = dataclasses.replace(h200, engine=dataclasses.replace(h200.engine, eager=None))
    times = []
    for skew in (0.0, 0.3, 0.6):
        own = dataclasses.replace(deepseek, experts=dataclasses.replace(deepseek.experts, routing_skew=skew))
        times.append(roofline(own, graphed, 8, 4096, expert_parallel=True).tokens_ps[4096])
    assert times[0] < times[1] < times[2]
