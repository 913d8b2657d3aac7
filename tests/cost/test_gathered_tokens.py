"""Ranks that gather the tokens of all before the experts, and scatter the sums: by hand, and as NCCL was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from cost.by_hand import H100, us
from cost.catalog import hardware, model, roofline

import hermes_flow as hf
from hermes_flow.config.collective_fits import GatherFit
from hermes_flow.cost.across_nodes import NodeLinks
from hermes_flow.errors import ConfigError

MIXTRAL = model("mixtral_8x7b")  # 32 layers, 4,096 wide
assert H100.efficiency is not None
MEASURED = dataclasses.replace(
    H100, efficiency=dataclasses.replace(H100.efficiency, gather={4: GatherFit(9.0, 0.6)})
)
RANKS = {"data_parallel": 4, "expert_parallel": True}


def gathered_us(tokens: int, devices: int = 4) -> float:
    """All-gather and reduce-scatter of 4,096 values of 2 bytes of each token in 32 layers."""
    each = 9.0 + (devices - 1) / devices * tokens * 4096 * 2 / (0.6 * 450e9) * 1e6
    return 32 * 2 * each


@pytest.mark.parametrize("tokens", [1, 40, 400])
def test_all_devices_gather_the_tokens_of_all_ranks_and_scatter_the_sums(tokens: int) -> None:
    """What is gathered counts with the experts, by the tokens of all ranks; nobody sends tokens besides."""
    gathers, sends = (roofline(MIXTRAL, device, **RANKS) for device in (MEASURED, H100))
    assert us(gathers.experts_ps[tokens] - sends.experts_ps[tokens]) == pytest.approx(
        gathered_us(tokens), abs=1e-5
    )
    assert all(np.array(gathers.tokens_ps[1:]) < np.array(sends.tokens_ps[1:]))
    assert gathers.experts_ps[0] == 0


def test_kernels_that_send_tokens_to_their_experts_can_be_chosen() -> None:
    chosen = roofline(MIXTRAL, MEASURED, all2all="alltoall", **RANKS)
    assert chosen.tokens_ps == roofline(MIXTRAL, H100, **RANKS).tokens_ps
    assert any("as fitted to an all-reduce of 4" in note for note in chosen.provenance)
    assert any(
        "all-gather and reduce-scatter of all ranks' tokens, each 9 µs" in note
        for note in roofline(MIXTRAL, MEASURED, **RANKS).provenance
    )


def test_gathering_where_it_was_not_measured_or_over_several_nodes_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"efficiency\.gather\.2: missing; h100_sxm has no measured gather of 2"
    ):
        roofline(MIXTRAL, MEASURED, data_parallel=2, expert_parallel=True, all2all="allgather_reducescatter")
    nodes = NodeLinks(2, 50.0)
    for device in (MEASURED, H100):  # whether or not it was measured within a node
        with pytest.raises(ConfigError, match=r"all2all_backend: .*the 4 devices fill several nodes"):
            roofline(MIXTRAL, device, all2all="allgather_reducescatter", nodes=nodes, **RANKS)
    over = roofline(MIXTRAL, MEASURED, nodes=nodes, **RANKS)  # by default they send there
    assert any("exchange between experts on 2 nodes" in note for note in over.provenance)


def test_a_backend_without_an_exchange_is_refused() -> None:
    words = ["model=mixtral_8x7b", "hardware=h200_sxm", "cluster.pools.llm.all2all_backend=alltoall"]
    with pytest.raises(
        hf.HermesFlowError, match="all2all_backend: alltoall has no effect unless ranks exchange"
    ):
        hf.compile(hf.compose(words))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["a100_sxm", "b200_sxm", "h100_sxm", "h200_sxm", "l40s"])
def test_the_fits_are_as_far_from_the_measured_times_as_their_source_says(
    name: str, shared_data: Path
) -> None:
    import polars as pl

    device = hardware(name)
    assert device.efficiency is not None
    assert device.scale_up_gb_s is not None
    (path,) = (shared_data / "kernels" / name).glob("nccl*")
    table = pl.read_parquet(path).filter(
        (pl.col("nccl_dtype") == "half")
        & pl.col("op_name").is_in(["all_gather", "reduce_scatter"])
        & (pl.col("message_size") >= 7168)
    )
    assert sorted(device.efficiency.gather) == [2, 4, 8]
    for devices, fit in device.efficiency.gather.items():
        rows = table.filter(pl.col("num_gpus") == devices)
        sent = (devices - 1) / devices * 2e6 * rows["message_size"].to_numpy()
        found = fit.alpha_us + sent / (fit.fraction * device.scale_up_gb_s * 1e9)
        errors = np.abs(found / (1e3 * rows["latency"].to_numpy()) - 1)
        most = 0.25 if name == "l40s" else 0.155
        assert errors.mean() < most, devices
