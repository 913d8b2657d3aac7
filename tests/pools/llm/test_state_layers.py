"""Layers that keep a state of constant size: how much memory a sequence takes, and what a step over them costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hugging_face_hybrids import FURTHER
from hugging_face_texts import DEEPSEEK_V3, written

import hermes_flow as hf
from hermes_flow.errors import CompileError
from hermes_flow.pools.llm.capacity import kv_capacity
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.pools import LLMClientSpec

NEXT_STATE = 32 * 128 * 128 * 2 + (2 * 2048 + 4096) * 3 * 2  # of one layer and sequence of Qwen3-Next, bytes


@pytest.fixture
def qwen(tmp_path: Path) -> list[str]:
    """Qwen3-Next on two H200: 12 layers of attention, 36 gated delta nets."""
    path = written(tmp_path, FURTHER["Qwen3-Next-80B-A3B"][0])
    pool = "cluster.pools.llm"
    return ["pipeline=llm", f"model={path}", "hardware=h200_sxm", f"{pool}.tensor_parallel=2"]


def client_of(overrides: list[str]) -> LLMClientSpec:
    program = hf.compile(hf.compose([*overrides, "workload.requests=4"]))
    (client,) = (pool.client for pool in program.pools if isinstance(pool.client, LLMClientSpec))
    return client


def test_blocks_hold_the_kv_of_attention_and_every_sequence_takes_blocks_for_its_states(
    qwen: list[str],
) -> None:
    pool = hf.compose(qwen).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    capacity = kv_capacity(pool)
    block = 16 * 12 * 2 * 1 * 256 * 2  # one KV head on each device
    assert capacity.block_bytes == block
    assert capacity.sequence_blocks == -(-36 * NEXT_STATE // 2 // block)
    room = capacity.usable_bytes - capacity.weight_bytes - capacity.reserved_bytes
    assert capacity.blocks == room // block


def test_sequences_wait_where_blocks_suffice_for_tokens_but_not_for_states(qwen: list[str]) -> None:
    client = client_of(qwen)
    states = client.sequence_blocks
    load = [
        "workload.requests=3",
        "workload.rate_per_s=1000",
        "workload.input_tokens=16",
        "workload.output_tokens=32",
    ]
    # Each sequence holds 3 blocks of tokens at its end; two of them fit with their states, three do not.
    tight = [*qwen, *load, f"cluster.pools.llm.kv_blocks={2 * states + 8}"]
    roomy = [*qwen, *load, f"cluster.pools.llm.kv_blocks={3 * states + 12}"]
    finish = [
        np.sort(hf.simulate(hf.compile(hf.compose(run))).requests["finish_s"]) for run in (tight, roomy)
    ]
    assert finish[0][2] - finish[0][1] > 20 * (finish[1][2] - finish[1][1])
    peaks = [hf.simulate(hf.compile(hf.compose(run))).clients for run in (tight, roomy)]
    shares = [frame.filter(frame["pool"] == "llm")["kv_peak_fraction"][0] for frame in peaks]
    assert shares[0] == pytest.approx((2 * states + 6) / (2 * states + 8), abs=2 / states)
    assert shares[1] == pytest.approx((3 * states + 9) / (3 * states + 12), abs=3 / states)


def test_a_preempted_sequence_gives_back_its_states_and_all_requests_end(qwen: list[str]) -> None:
    states = client_of(qwen).sequence_blocks
    load = [
        "workload.requests=20",
        "workload.rate_per_s=100",
        "workload.input_tokens=64",
        "workload.output_tokens=200",
    ]
    blocks = 4 * states + 24
    result = hf.simulate(hf.compile(hf.compose([*qwen, *load, f"cluster.pools.llm.kv_blocks={blocks}"])))
    assert result.summary["requests"]["completed"] == 20
    assert result.requests["preemptions"].sum() > 0


def test_a_decode_reads_and_writes_every_state_and_reads_kv_of_attention_alone(qwen: list[str]) -> None:
    cost = client_of(qwen).cost
    kv_s = 12 * 2 * 256 * 2 / (4.8e12 * 0.89)
    assert cost.context_ps == pytest.approx(kv_s * 1e12, rel=0.02)
    each = (cost.decode_attention_ps[9] - cost.decode_attention_ps[1]) / 8
    states_s = 36 * 2 * NEXT_STATE / 2 / (4.8e12 * 0.85)
    assert each == pytest.approx((states_s + 205 * kv_s) * 1e12, rel=0.02)


def test_the_program_names_layers_that_nobody_measured(qwen: list[str]) -> None:
    program = str(hf.compile(hf.compose([*qwen, "workload.requests=4"])))
    assert "36 layers of linear attention (gated delta net)" in " ".join(program.split())


def test_what_cannot_hold_states_is_an_error_that_names_the_key(qwen: list[str]) -> None:
    for override, message in (
        ("engine=tensorrt_llm", r"pools\.llm\.engine: tensorrt_llm: the states of .* not modelled"),
        ("cluster.pools.llm.preemption=swap", r"pools\.llm\.preemption: swap: the states"),
        ("cluster.pools.llm.batching=static", r"pools\.llm\.batching: static: the states"),
        ("cluster.pools.llm.prefix_cache=true", r"prefix_cache: true, but .* keep a state"),
    ):
        with pytest.raises(CompileError, match=message):
            hf.compile(hf.compose([*qwen, "workload.requests=4", override]))


def test_the_states_move_with_the_kv_of_a_prompt(qwen: list[str]) -> None:
    run = [*qwen[:2], "cluster=disaggregated", "hardware=h200_sxm", "workload.requests=4"]
    run += [f"cluster.pools.{name}.tensor_parallel=2" for name in ("prefill", "decode")]
    run += [f"hardware@cluster.pools.{name}.hardware=h200_sxm" for name in ("prefill", "decode")]
    program = hf.compile(hf.compose([*run, "workload.input_tokens=100"]))
    (edge,) = (op.kv for op in program.ops if op.kv is not None)
    assert edge.bytes[0] == 100 * 12 * 2 * 2 * 256 * 2 + 36 * NEXT_STATE


def test_an_indexer_reads_all_tokens_and_attention_2048_of_them(tmp_path: Path) -> None:
    sparse = {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048, "model_type": "deepseek_v32"}
    path = written(tmp_path, {**DEEPSEEK_V3, **sparse})
    overrides = ["pipeline=llm", f"model={path}", "hardware=h200_sxm", "cluster.pools.llm.tensor_parallel=8"]
    cost = client_of(overrides).cost
    # Measured by AIConfigurator (vLLM 0.24, H200, batch 128): 616 µs between contexts of 8,192 and 131,072 tokens.
    measured_ps = (940.7 - 324.9) * 1e6 / (128 * (131_072 - 8_192))
    assert cost.context_ps / 61 == pytest.approx(measured_ps, rel=0.25)
    read_ps = 2048 * 61 * 576 * 2 / (4.8e12 * 0.89) * 1e12
    index_ps = 205 * 61 * 132 / (4.8e12 * 0.89) * 1e12
    each = (cost.decode_attention_ps[9] - cost.decode_attention_ps[1]) / 8
    extra = 205 * 61 * 576 * 2 / (4.8e12 * 0.89) * 1e12
    # The products of 64 heads with the tokens read are counted by token; only the rest of reading is left.
    products_ps = 2048 * 61 * 2 * 64 * (512 + 64 + 512) / (989e12 * 0.64) * 1e12
    assert each == pytest.approx(read_ps - products_ps + index_ps + extra, rel=0.02)


def test_heads_of_other_layers_must_divide_among_the_devices(qwen: list[str]) -> None:
    pool = hf.compose(qwen).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    narrow = replace(pool.model.mixers["gated_delta_net"], value_heads=31)  # type: ignore[call-arg]
    model = replace(pool.model, mixers={"gated_delta_net": narrow})
    config = hf.compose(qwen)
    cluster = replace(config.cluster, pools={**config.cluster.pools, "llm": replace(pool, model=model)})
    with pytest.raises(CompileError, match=r"2 does not divide the 31 value heads of gated_delta_net"):
        hf.compile(replace(config, cluster=cluster))
