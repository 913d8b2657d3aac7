"""The memory beside weights and KV, worked by hand from its parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cost.catalog import hardware, model

from hermes_flow.config.engine import Engine
from hermes_flow.pools.llm.capacity import kv_capacity
from hermes_flow.pools.llm.reserve import reserved_parts
from hermes_flow.pools.llm.schema import LLMPool


def pool(**changes: Any) -> LLMPool:
    """Llama-3-8B on one H100 with vLLM: hidden size 4,096, MLP 14,336, vocabulary 128,256, a context of 8,192."""
    shape = dataclasses.replace(model("llama3_8b"), max_context=8192)
    given: dict[str, Any] = {
        "kind": "llm",
        "serves": ("prefill", "decode"),
        "model": shape,
        "hardware": hardware("h100_sxm"),
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
    }
    return LLMPool(**(given | changes))


def parts(chosen: LLMPool) -> dict[str, float]:
    return {part.name: part.bytes for part in reserved_parts(chosen)}


def test_the_sampler_counts_where_it_takes_more_than_a_layer() -> None:
    # 256 · 128,256 logits of 29 bytes, and two hidden states of 2,048 tokens: 2 · 2,048 · 4,096 · 2 bytes
    assert parts(pool()) == {
        "work spaces": 0.2e9,
        "position table": 8192 * 128 * 2,
        "sampler": 256 * 128_256 * 29 + 2 * 2048 * 4096 * 2,
    }


def test_a_layer_counts_where_the_step_is_large() -> None:
    # 65,536 tokens with two hidden states and three vectors of the MLP, in 2 bytes
    found = parts(pool(max_num_batched_tokens=65_536))
    assert found["activations"] == 2 * 65_536 * (2 * 4096 + 3 * 14_336)
    assert "sampler" not in found


def test_more_sequences_take_more_logits_and_fewer_than_256_rows_are_shared_by_the_devices() -> None:
    hidden = 2 * 2048 * 4096 * 2
    logit = 128_256 * 29
    assert parts(pool(max_num_seqs=1024))["sampler"] == 1024 * logit + hidden
    assert parts(pool(max_num_seqs=16))["sampler"] == 256 * logit + hidden
    two = parts(pool(max_num_seqs=16, tensor_parallel=2))
    assert two["sampler"] == 128 * logit + hidden
    assert two["communication"] == 0.5e9


def test_experts_hold_the_copies_of_each_token_and_whole_ones_those_of_all_ranks() -> None:
    mixtral = model("mixtral_8x7b")  # two experts a token, width 14,336, hidden size 4,096
    few = {"model": mixtral, "max_num_seqs": 1, "max_num_batched_tokens": 4096}
    cut = parts(pool(**few, tensor_parallel=2))
    assert cut["activations"] == 2 * 4096 * (2 * 4096 + 2 * (2 * 7168 + 7168))
    whole = parts(pool(**few, data_parallel=4, expert_parallel=True))
    assert whole["activations"] == 2 * (4096 * 2 * 4096 + 4 * 4096 * 2 * (2 * 14_336 + 14_336))
    most = parts(pool(**few, data_parallel=16, expert_parallel=True))
    assert most["activations"] == 2 * (4096 * 2 * 4096 + 32_768 * 2 * (2 * 14_336 + 14_336))


def test_images_of_a_step_are_kept_while_they_are_encoded() -> None:
    vision = model("qwen3_vl_8b")
    (encoder,) = vision.side_encoders.values()
    tower = encoder.tower
    assert tower is not None
    width = 4 * tower.hidden_size + 2 * tower.intermediate_size
    expected = 2 * 2048 * (vision.hidden_size + tower.merge**2 * width)
    assert parts(pool(model=vision))["images of a step"] == expected


def test_each_engine_has_parts_of_its_own() -> None:
    sglang = pool(engine=Engine(name="sglang", scheduler="sglang"), tensor_parallel=4)
    assert parts(sglang) == {"CUDA context": 0.54e9, "communication": 2.1e9}
    slow = dataclasses.replace(sglang, hardware=dataclasses.replace(sglang.hardware, scale_up_gb_s=64))
    assert parts(slow)["communication"] == 0.42e9
    assert set(parts(pool(engine=Engine(name="tensorrt_llm", scheduler="tensorrt_llm")))) == {
        *("CUDA context", "work spaces", "position table", "activations")
    }


def test_sglang_takes_its_share_of_what_is_free_before_the_weights() -> None:
    sglang = pool(engine=Engine(name="sglang", scheduler="sglang"), memory_utilization=0.8)
    found = kv_capacity(sglang)
    room = 0.8 * (84.94e9 - 0.54e9) - found.weight_bytes
    assert found.blocks == pytest.approx(room / found.block_bytes, abs=1)


def test_a_figure_of_the_user_is_the_whole_reserve() -> None:
    given = dataclasses.replace(hardware("h100_sxm"), reserved_gb=3.0)
    assert parts(pool(hardware=given, max_num_seqs=1024, tensor_parallel=4)) == {"given by reserved_gb": 3e9}
    assert kv_capacity(pool(hardware=given)).reserved_bytes == 3e9


def test_devices_other_than_gpus_reserve_what_they_say() -> None:
    assert parts(pool(hardware=hardware("tpu_v6e"))) == {}
