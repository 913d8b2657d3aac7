"""Models that keep a state on SGLang's scheduler: slots beside KV, and the schedule that they allow."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cost.catalog import model
from pools.llm.test_sglang_client import random_case, recorded_by_oracle
from validation.test_sglang_schedules import check_schedule, configure, write_trace

import hermes_flow as hf
from hermes_flow.deployments.imported import read_deployment
from hermes_flow.deployments.manifests import shell_text
from hermes_flow.deployments.servers import servers_of
from hermes_flow.errors import CompileError
from hermes_flow.pools.llm.capacity import KVCapacity, kv_capacity
from hermes_flow.pools.llm.schema import LLMPool

POOL = "cluster.pools.llm"
QWEN = [
    "engine=sglang",
    "model=qwen3_5_27b",
    "hardware=h200_sxm",
    "pipeline=llm",
    f"{POOL}.tensor_parallel=2",
]
# Of one layer: 48 heads of 128 × 128 in fp32, and three tokens of 10,240 channels in bf16
STATE = 48 * (48 * 128 * 128 * 4 + 10_240 * 3 * 2) // 2  # in 48 layers, on one of two devices
TOKEN = 16 * 2 * 2 * 256 * 2  # 16 layers of attention, two KV heads on each device


def pool_of(*overrides: str) -> LLMPool:
    pool = hf.compose([*QWEN, *overrides]).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool


def room_of(capacity: KVCapacity) -> float:
    return capacity.usable_bytes - capacity.weight_bytes - capacity.reserved_bytes


def test_every_seat_that_is_asked_for_has_a_state_and_kv_takes_the_rest() -> None:
    capacity = kv_capacity(pool_of(f"{POOL}.max_num_seqs=100"))
    assert (capacity.state_slots, capacity.state_bytes, capacity.sequence_blocks) == (100, 100 * STATE, 0)
    assert capacity.blocks == (room_of(capacity) - 100 * STATE) // TOKEN
    assert capacity.tokens == capacity.blocks


def test_without_seats_states_take_a_share_of_the_memory_and_limit_the_seats() -> None:
    capacity = kv_capacity(pool_of())
    slots = int(room_of(capacity) * 0.9 / 1.9 // STATE)
    assert capacity.state_slots == slots
    assert capacity.blocks == (room_of(capacity) - slots * STATE) // TOKEN
    few = kv_capacity(pool_of(f"{POOL}.mamba_full_memory_ratio=0.1"))
    assert few.state_slots == int(room_of(few) * 0.1 / 1.1 // STATE)
    run = hf.compile(hf.compose([*QWEN, f"{POOL}.mamba_full_memory_ratio=0.1", "workload.requests=4"]))
    (client,) = (pool.client for pool in run.pools if pool.name == "llm")
    assert client.max_num_seqs == few.state_slots < 2048  # type: ignore[union-attr]
    assert "prefix cache off (by default: qwen3_5_27b has layers that keep a state" in " ".join(
        str(run).split()
    )
    assert f"for the states of {few.state_slots:,} sequences" in " ".join(str(run).split())


def with_states(case: dict[str, Any], path: Path) -> hf.Config:
    config = configure(case, path)
    pool = config.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    pool = replace(pool, model=model("qwen3_5_27b"), from_engine=())
    return replace(config, cluster=replace(config.cluster, pools=config.cluster.pools | {"llm": pool}))


def test_the_schedule_is_that_of_the_naive_simulator_with_as_many_seats(tmp_path: Path) -> None:
    compared = 0
    for seed in range(24):
        drawn = random_case(random.Random(seed))
        if drawn["radix_cache"]:
            continue
        case = recorded_by_oracle(drawn)
        if min(case["finish_us"]) < 0:  # the engine itself would wait for ever
            continue
        path = tmp_path / f"{seed}.parquet"
        write_trace(case, path)
        check_schedule(hf.simulate(hf.compile(with_states(case, path))), case)
        compared += 1
    assert compared > 3


def test_states_that_leave_no_room_name_the_seats() -> None:
    with pytest.raises(
        CompileError, match=r"pools\.llm\.max_num_seqs: the states of 2,000 sequences take .* GB"
    ):
        hf.compile(hf.compose([*QWEN, f"{POOL}.max_num_seqs=2000", "workload.requests=4"]))
    tiny = [f"{POOL}.kv_blocks=5000", f"{POOL}.memory_utilization=0.1", f"{POOL}.tensor_parallel=1"]
    with pytest.raises(CompileError, match=r"pools\.llm\.max_num_seqs: the states of 1 sequence take"):
        hf.compile(hf.compose([*QWEN, *tiny, "workload.requests=4"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mamba_full_memory_ratio=0.5", "max_num_seqs=8"], "0.5 has no effect with max_num_seqs"),
        (["mamba_full_memory_ratio=0.5", "engine=vllm"], "engine 'vllm' has no such setting"),
        (["mamba_full_memory_ratio=0.5", "model=qwen3_8b"], "has no layers that keep a state"),
        (["prefix_cache=true"], "prefix_cache: true, but .* keep a state"),
    ],
)
def test_settings_without_effect_are_errors(overrides: list[str], message: str) -> None:
    words = [word if word.startswith(("engine", "model")) else f"{POOL}.{word}" for word in overrides]
    with pytest.raises(CompileError, match=message):
        hf.compile(hf.compose([*QWEN, *words, "workload.requests=4"]))


def test_prefill_and_decode_apart_are_refused() -> None:
    words = ["cluster=disaggregated", "engine=sglang", "model=qwen3_5_27b", "workload.requests=4"]
    with pytest.raises(CompileError, match=r"states of .* where prefill and decode have pools of their own"):
        hf.compile(hf.compose(words))


def test_the_exported_line_asks_for_the_same_slots() -> None:
    shares = shell_text(servers_of(hf.compose([*QWEN, f"{POOL}.mamba_full_memory_ratio=0.5"])))
    assert "--disable-radix-cache" in shares
    assert "--mamba-full-memory-ratio 0.5" in shares
    assert "--max-running-requests" not in shares
    seats = shell_text(servers_of(hf.compose([*QWEN, f"{POOL}.max_num_seqs=64"])))
    assert "--max-running-requests 64" in seats


def test_a_ratio_that_leaves_no_state_is_named() -> None:
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose([*QWEN, f"{POOL}.mamba_full_memory_ratio=0.000001"]))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{POOL}.mamba_full_memory_ratio: ")
    assert "leaves no room for the state of one sequence, which takes 0.077 GB on each device" in problem


def test_what_waits_for_a_seat_is_explained_by_the_setting_that_made_the_seats() -> None:
    load = [
        "workload=synthetic",
        "workload.requests=100",
        "workload.rate_per_s=50",
        "slo=chat",
        "slo.ttft_ms={p90: 100}",
    ]
    for more, key in (
        ([f"{POOL}.mamba_full_memory_ratio=0.01"], "mamba_full_memory_ratio"),
        ([f"{POOL}.max_num_seqs=8"], "max_num_seqs"),
    ):
        text = hf.simulate(hf.compile(hf.compose([*QWEN, *load, *more]))).summary["why"]["text"]
        assert f"is waiting for a seat ({key}) (prefill on pool llm)" in text


@pytest.mark.parametrize(("flag", "notes"), [("", 1), (" --disable-radix-cache", 0)])
def test_a_server_whose_radix_cache_takes_slots_is_imported_with_a_note(flag: str, notes: int) -> None:
    line = "python -m sglang.launch_server --model-path Qwen/Qwen3.5-27B --tp 2"
    found = [text for text in read_deployment("sglang", line + flag).notes if "radix cache" in text]
    assert len(found) == notes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Qwen/Qwen3-8B", "no effect: qwen3_8b has no layers that keep a state"),
        (
            "Qwen/Qwen3.5-27B --tp 2 --max-running-requests 64",
            "not modelled with --max-running-requests: each of these requests has a slot for its state",
        ),
        ("Qwen/Qwen3.5-27B --tp 2", None),
    ],
)
def test_a_line_with_a_ratio_is_imported_as_a_pool_that_compiles(line: str, reason: str | None) -> None:
    start = "python -m sglang.launch_server --mamba-full-memory-ratio 0.7 --model-path "
    found = read_deployment("sglang", start + line)
    assert found.ignored.get("--mamba-full-memory-ratio") == reason
    program = hf.compile(
        hf.compose([*found.texts(), "hardware=h200_sxm", "pipeline=llm", "workload.requests=3"])
    )
    assert program.pools
