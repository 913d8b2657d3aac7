"""Clients larger than a node: all-reduces, exchanges and hops over the network, by hand and as published."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cost.by_hand import H100, gemm_us, us
from cost.catalog import alike, deployment, hardware, model, roofline, roofline_model

import hermes_flow as hf
from hermes_flow.cost.across_nodes import NodeLinks
from hermes_flow.errors import ConfigError

LLAMA = model("llama3_8b", kv_heads=16, heads=32)
NODES = NodeLinks(devices=8, gb_s=47.0)
# DeepEP/docs/legacy.md of version 2: µs of dispatch (fp8) and of combine (bf16) on so many H800
DEEPEP = {16: (118, 195), 32: (155, 273), 64: (173, 314), 128: (192, 369), 256: (194, 360)}


def test_an_all_reduce_over_two_nodes_starts_as_late_as_nccl_says_and_runs_at_the_slower_links() -> None:
    sixteen = roofline(LLAMA, H100, 16, nodes=NODES)
    layer = gemm_us(20, 4096, 256 + 2 * 128) + gemm_us(20, 256, 4096)
    layer += gemm_us(20, 4096, 1792) + gemm_us(20, 896, 4096)
    starts = 6.8 + 2 * (7 * 0.6 + 5.0)
    assert starts == pytest.approx(25.2)
    # rings within a node reach 0.76 · 450 = 342 GB/s, the eight network cards of a node 376 GB/s
    reduced = starts + 2 * 15 / 16 * 20 * 4096 * 2 / 342e9 * 1e6
    assert us(sixteen.tokens_ps[20]) == pytest.approx(32 * (layer + 2 * reduced) + 500, rel=1e-6)


def test_devices_of_one_node_reduce_as_without_a_network() -> None:
    assert roofline(LLAMA, H100, 8, nodes=NODES) == roofline(LLAMA, H100, 8)
    wide = NodeLinks(devices=72, gb_s=47.0)
    with pytest.raises(ConfigError, match="no measured all-reduce of 16 devices"):
        roofline(LLAMA, H100, 16, nodes=wide)


def test_slow_cards_pace_an_all_reduce() -> None:
    size = np.array([0.0, 1e9])
    fast, slow = (
        dataclasses.replace(NODES, gb_s=rate).all_reduce_s(size, 16, H100.efficiency.all_reduce[8], 450.0)  # type: ignore[union-attr]
        for rate in (47.0, 4.7)
    )
    assert slow[1] - slow[0] == pytest.approx(2 * 15 / 16 * 1e9 / 37.6e9)
    assert fast[1] - fast[0] == pytest.approx(2 * 15 / 16 * 1e9 / 342e9)


@pytest.mark.parametrize("devices", sorted(DEEPEP))
def test_exchanges_take_what_deepep_published(devices: int) -> None:
    tokens = np.array([128.0 * 8 * 7168])
    for published, width in zip(DEEPEP[devices], (1.0, 2.0), strict=True):
        found = float(NODES.exchange_s(width * tokens, devices)[0]) * 1e6
        assert found == pytest.approx(published, rel=0.11)


def test_an_exchange_sends_the_share_of_other_nodes() -> None:
    deepseek = alike(model("deepseek_v3"))
    near = roofline(deepseek, H100, data_parallel=16, expert_parallel=True)
    far = roofline(deepseek, H100, data_parallel=16, expert_parallel=True, nodes=NODES)
    sent = 10 * 8 * 7168  # values of ten tokens
    crossing = 2 * 39.0 + (1 + 2) * sent * 8 / 16 / 47e9 * 1e6
    once = 10 * 16 * (1 - (15 / 16) ** 8) * 7168  # within a node each device gets a token once
    within = 2 * 5.4 + (1 + 2) * once * 15 / 16 / (0.76 * 450e9) * 1e6
    assert us(far.tokens_ps[10] - near.tokens_ps[10]) == pytest.approx(58 * (crossing - within), rel=1e-5)


def test_hops_go_to_another_node_where_the_ranks_fill_several() -> None:
    inside = roofline_model().hop(deployment(LLAMA, H100, 4, pipeline_parallel=2, nodes=NODES))
    across = roofline_model().hop(deployment(LLAMA, H100, 8, pipeline_parallel=2, nodes=NODES))
    assert inside.ps_per_token == pytest.approx(8192 / 450e9 * 1e12)
    assert across.ps_per_token == pytest.approx(8192 / 47e9 * 1e12)
    assert across.ps == 11_800_000
    assert across.provenance == (
        "hop between pipeline ranks: 8,192 bytes a token at 47 GB/s to another node, 11.8 µs of latency (NCCL's)",
    )


def test_hardware_without_a_network_says_so() -> None:
    with pytest.raises(
        ConfigError, match="network_gb_s: null; tensor parallelism over several nodes needs it"
    ):
        roofline(LLAMA, H100, 16, nodes=NodeLinks(8, None))


def test_a_network_of_ones_own_takes_the_place_of_the_cards() -> None:
    network = hf.compose(["network.rack.gb_s=25", "network.rack.efficiency=0.5"]).network
    assert NodeLinks.of(network, hardware("h100_sxm")) == NodeLinks(8, 12.5)
    assert NodeLinks.of(hf.compose([]).network, hardware("h100_sxm")).gb_s == pytest.approx(47.0)


def test_sixteen_devices_run_through_the_public_contract() -> None:
    config = [
        "pipeline=llm",
        "model=llama3_70b",
        "workload.requests=20",
        "cluster.pools.llm.tensor_parallel=16",
    ]
    program = hf.compile(hf.compose(config))
    text = " ".join(str(program).split())
    assert (
        "all-reduces on 2 nodes of 8: latencies of NCCL's tree, and 47 GB/s a device to other nodes" in text
    )
    assert hf.simulate(program).summary["requests"]["completed"] == 20
