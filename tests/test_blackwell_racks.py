"""GPUs of 2025 whose kernels nobody measured: GB200 in racks that are one NVLink domain, and B300."""

from __future__ import annotations

from dataclasses import replace

import pytest

import hermes_flow as hf
from hermes_flow.errors import CompileError
from hermes_flow.pools.llm.schema import LLMPool

POOL = "cluster.pools.llm"
WIDE = [
    "pipeline=llm",
    "model=deepseek_r1_nvfp4",
    "hardware=gb200",
    "workload.requests=40",
    "workload.rate_per_s=2",
]
RANKS = [f"{POOL}.data_parallel=32", f"{POOL}.expert_parallel=true"]


def compiled(*words: str) -> hf.Program:
    """Compile without asking which keys have an effect, for which these large tables are made several times."""
    return hf.compile(replace(hf.compose([*WIDE, *words])))


def time_per_token_s(*words: str) -> float:
    return float(hf.simulate(compiled(*words)).summary["tpot_s"]["mean"])


def test_ranks_of_one_rack_exchange_over_nvlink_and_of_several_nodes_over_their_network_cards() -> None:
    rack, nodes = time_per_token_s(*RANKS, "network=nvl72"), time_per_token_s(*RANKS)
    assert rack < 0.8 * nodes
    slow = "network.rack.gb_s=5"
    assert time_per_token_s(*RANKS, "network=nvl72", slow) == pytest.approx(rack)
    assert time_per_token_s(*RANKS, slow) > 1.2 * nodes


def test_tensor_parallelism_wider_than_any_measured_all_reduce_is_refused_by_its_key() -> None:
    wide = [*WIDE, "network=nvl72", f"{POOL}.tensor_parallel=16"]
    with pytest.raises(CompileError, match=r"hardware\.efficiency\.all_reduce\.16: .*gb200 .*16 devices"):
        hf.compile(hf.compose(wide))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [*RANKS],
            "a client of 32 devices exchanges data between nodes of network.devices_per_node=8",
        ),
        ([*RANKS, "network=nvl72"], None),
        ([*RANKS, "hardware=b200_sxm"], None),
        (
            [*RANKS, "hardware=b200_sxm", "network=nvl72"],
            "a client of 32 devices exchanges data within nodes of network.devices_per_node=72 over the scale-up "
            "link of b200_sxm, but this connects 8 of them; expected network.devices_per_node=8",
        ),
        ([*RANKS, "hardware=b200_sxm", "network=nvl72", "hardware.scale_up_devices=72"], None),
        ([*RANKS, "network=nvl72", "network.devices_per_node=16"], "between nodes"),
        ([f"{POOL}.data_parallel=128", RANKS[1], "network.devices_per_node=144"], "connects 72 of them"),
        ([f"{POOL}.tensor_parallel=8", "hardware.scale_up_devices=4"], "connects 4 of them"),
        ([f"{POOL}.tensor_parallel=8"], None),
        (["model=llama3_8b", "cluster=disaggregated"], None),
        (
            ["model=llama3_8b", "cluster=disaggregated", "cluster.pools.decode.count=16"],
            "KV moves between nodes",
        ),
        (
            [
                "model=llama3_8b",
                "cluster=disaggregated",
                "cluster.pools.decode.count=16",
                "hardware=b300_sxm",
            ],
            None,
        ),
        (
            [
                *("model=llama3_8b", "cluster=disaggregated", "cluster.pools.decode.count=16"),
                *("hardware=b300_sxm", "network=nvl72"),
            ],
            "KV moves within nodes",
        ),
    ],
)
def test_a_warning_names_nodes_that_split_a_rack_or_hold_several(words: list[str], said: str | None) -> None:
    found = [text for text in compiled(*words).warnings if "scale-up link" in text]
    assert bool(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_key_of_its_efficiencies_can_be_changed() -> None:
    pool = hf.compose(["hardware=b300_sxm", "hardware.efficiency.gemm.nvfp4.compute=0.3"]).cluster.pools[
        "llm"
    ]
    assert isinstance(pool, LLMPool)
    assert pool.hardware.efficiency is not None
    assert pool.hardware.efficiency.gemm["nvfp4"].compute == 0.3


def test_a_plan_ranks_what_has_a_price_and_sizes_what_has_none() -> None:
    question = ["pipeline=llm", "model=llama3_8b", "workload.requests=80", "workload.rate_per_s=4"]
    machines = [hf.compose([f"hardware={name}"]).hardware for name in ("gb200", "b300_sxm")]
    found = hf.plan(hf.compose(question), machines, tensor_parallel=(1,), headrooms=0, error_bars=0)
    best = {design.family.hardware.name: design.usd_per_hour for design in reversed(found.ranked)}
    assert best == {"b300_sxm": pytest.approx(7.89), "gb200": None}
