"""Redundant experts: where the copies lie, what the fullest device has, and what it takes in memory and time."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hermes_flow as hf
from hermes_flow.config.schema import Experts
from hermes_flow.cost.expert_routing import on_fullest_device, rows_on_fullest
from hermes_flow.cost.redundant_experts import copies_of, distinct_copies, fullest_load, packed


def experts(count: int, per_token: int, skew: float = 0.0) -> Experts:
    return Experts(count=count, per_token=per_token, intermediate_size=2048, routing_skew=skew)


EP48 = [
    *("pipeline=llm", "model=deepseek_v3", "hardware=h200_sxm", "network.nodes_per_rack=64", "slo=none"),
    *("workload.requests=2", "cluster.pools.llm.data_parallel=48", "cluster.pools.llm.expert_parallel=true"),
]


def test_copies_go_to_the_experts_whose_copies_have_the_most_load() -> None:
    # 0.6 is halved, then 0.35 is (0.35 > 0.3), then 0.6 is cut in three
    assert copies_of(np.array([0.6, 0.35, 0.05]), 3).tolist() == pytest.approx(
        [0.2, 0.2, 0.2, 0.175, 0.175, 0.05]
    )


def test_copies_are_packed_the_most_loaded_first_onto_the_device_with_the_least() -> None:
    assert packed(np.array([0.4, 0.3, 0.2, 0.1]), 2) == [[0.4, 0.1], [0.3, 0.2]]
    # The second device is full when the last one comes, which goes where there is a slot
    assert packed(np.array([0.9, 0.1, 0.1, 0.1]), 2) == [[0.9, 0.1], [0.1, 0.1]]


def test_uniform_routing_on_48_devices_by_hand() -> None:
    """256 experts and 32 copies: 224 with a whole load and 64 halves on 48 devices of six slots."""
    copies = copies_of(np.full(256, 8 / 256), 32)
    assert fullest_load(copies, 48) == pytest.approx(5.5 * 8 / 256)  # five whole loads and a half
    many = np.array([1e9])
    assert rows_on_fullest(experts(256, 8), many, 48, 32)[0] == pytest.approx(1e9 * 5.5 * 8 / 256, rel=1e-3)
    distinct = on_fullest_device(experts(256, 8), np.arange(3, dtype=np.float64), 48, 32)[1]
    whole, half = 8 / 256, 4 / 256
    mean = (224 * (1 - (1 - whole) ** 2) + 64 * (1 - (1 - half) ** 2)) / 48
    # the largest of 48 sums of 6 of 288 drawn or not, without replacement
    largest = NormalDist().inv_cdf(47.625 / 48.25) * math.sqrt(48 / 47)
    share = mean / 6
    scatter = math.sqrt(6 * 282 / 287 * share * (1 - share))
    assert distinct[2] == pytest.approx(mean + largest * scatter, rel=1e-6)


@pytest.mark.parametrize("skew", [0.0, 0.6, 1.1, 2.0, 5.0])
def test_all_rows_lie_on_some_expert_however_popular_one_is(skew: float) -> None:
    tokens = np.array([0.0, 1.0, 1e6])
    rows = rows_on_fullest(experts(12, 3, skew), tokens, 1)
    assert rows.tolist() == [0.0, 3.0, 3e6]
    two = rows_on_fullest(experts(12, 3, skew), np.array([1e9]), 2, 2)[0]  # the balanced halves
    assert two * 2 >= 3e9 * (1 - 1e-9)


@given(st.floats(0.0, 3.0), st.integers(2, 6), st.integers(0, 5))
def test_copies_keep_the_load_and_the_fullest_has_no_less_than_the_mean(
    skew: float, devices: int, more: int
) -> None:
    redundant = -12 % devices + devices * more
    if not redundant:
        return
    tokens, mixture = np.arange(40, dtype=np.float64), experts(12, 3, skew)
    rows, distinct = on_fullest_device(mixture, tokens, devices, redundant)
    assert (rows * devices >= 3 * tokens * (1 - 1e-9)).all()
    assert (distinct <= (12 + redundant) / devices + 1e-9).all()
    for copies in (0, redundant):
        assert distinct_copies(mixture, copies, tokens)[1] == pytest.approx(3)
        assert distinct_copies(mixture, copies, tokens)[-1] <= 12 + copies


def test_copies_even_out_a_skew() -> None:
    fullest = [
        rows_on_fullest(experts(256, 8, 0.6), np.array([1e9]), 32, each)[0] / 1e9 for each in (0, 32, 64)
    ]
    assert fullest[0] > 1.3 * fullest[1]
    assert fullest[1:] == pytest.approx([8 / 32, 8 / 32], rel=0.02)


def test_48_devices_serve_256_experts_with_32_copies_and_hold_six_each() -> None:
    with pytest.raises(
        hf.CompileError, match=r"48 devices do not divide the 256 experts of deepseek_v3; .*=32 would"
    ):
        hf.compile(hf.compose(EP48))
    words = [*EP48, "cluster.pools.llm.redundant_experts=32"]
    text = " ".join(str(hf.compile(hf.compose(words))).split())
    assert "expert parallel, 32 redundant experts" in text
    assert "experts: 6 of 256 and 32 copies laid out by load on each of 48 devices" in text


def test_each_copy_takes_the_memory_of_an_expert_in_every_mixture_layer() -> None:
    def weights(redundant: int) -> float:
        words = [word for word in EP48 if "data_parallel" not in word]
        words += ["cluster.pools.llm.data_parallel=32", f"cluster.pools.llm.redundant_experts={redundant}"]
        client = next(pool for pool in hf.compile(hf.compose(words)).pools if pool.name == "llm").client
        assert client.kv_blocks is not None
        return client.kv_blocks / 32

    block = 16 * 61 * (512 + 64) * 2  # latent KV in bf16, of 61 layers
    expert = 3 * 7168 * 2048  # fp8, in 58 layers
    assert (weights(0) - weights(64)) * block == pytest.approx(2 * 58 * expert, rel=2e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["redundant_experts=8"], "8 has no effect unless devices hold whole experts"),
        (["expert_parallel=true", "redundant_experts=8"], "8 has no effect on one device"),
        (
            ["expert_parallel=true", "tensor_parallel=8", "redundant_experts=4"],
            "8 devices do not divide the 128 experts of qwen3_30b_a3b and 4 redundant ones; "
            "cluster.pools.llm.redundant_experts=0 would",
        ),
    ],
)
def test_copies_that_no_device_can_hold_are_refused(words: list[str], said: str) -> None:
    given_words = [f"cluster.pools.llm.{word}" for word in words]
    with pytest.raises(hf.CompileError) as caught:
        hf.compile(hf.compose(["pipeline=llm", "model=qwen3_30b_a3b", "workload.requests=2", *given_words]))
    assert said in str(caught.value)
