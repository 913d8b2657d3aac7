"""The memory beside weights and KV, worked by hand from its parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cost.catalog import hardware, model

import hermes_flow as hf
from hermes_flow.config.engine import Engine
from hermes_flow.errors import CompileError
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


# two hidden states of 2,048 tokens
HIDDEN = 2 * 2048 * 4096 * 2
# sines and cosines of 8,192 positions and 128 channels, in bf16
TABLE = 8192 * 128 * 2
WARM = Engine(compiles=False)


def test_compiling_copies_the_largest_table_that_a_kernel_reads() -> None:
    # 128,256 rows of 4,096 numbers, in bf16, beside the hidden states of 2,048 tokens
    assert parts(pool(max_num_seqs=128)) == {
        "position table": TABLE,
        "work spaces": 0.1e9,
        "compilation": 128_256 * 4096 * 2 + HIDDEN,
    }
    assert parts(pool(max_num_seqs=16, tensor_parallel=2))["compilation"] == 128_256 * 4096 + HIDDEN


def test_a_table_of_ten_million_positions_is_held_and_copied() -> None:
    scout = model("llama4_scout")  # 10,485,760 positions of 128 channels; its images are encoded before
    found = parts(pool(model=scout, max_num_seqs=128))
    assert found["position table"] == 10_485_760 * 128 * 2
    assert found["compilation"] == 10_485_760 * 128 * 2 + 2 * 2048 * 5120 * 2


def test_a_model_with_images_reads_its_tokens_outside_of_what_is_compiled() -> None:
    vision = model("qwen3_vl_8b")
    few = {"model": vision, "max_num_seqs": 1, "max_num_batched_tokens": 16}
    assert parts(pool(**few))["compilation"] < vision.vocab_size * vision.hidden_size


def test_a_server_that_was_started_before_has_more_room_for_kv() -> None:
    # 128 · 128,256 logits of 2 + 4 + 4 + 8 + 8 + 12 bytes
    found = parts(pool(engine=WARM, max_num_seqs=128))
    assert found["sampler"] == 128 * 128_256 * 38 + HIDDEN
    cold, warm = (kv_capacity(pool(engine=engine, max_num_seqs=128)) for engine in (Engine(), WARM))
    assert warm.blocks > cold.blocks


def test_a_sort_of_few_rows_holds_each_index_with_its_row() -> None:
    assert parts(pool(engine=WARM, max_num_seqs=127))["sampler"] == 127 * 128_256 * 46 + HIDDEN


def test_more_sequences_take_more_logits_and_fewer_bytes_each_without_a_sort() -> None:
    assert parts(pool(max_num_seqs=1024))["sampler"] == 1024 * 128_256 * 38 + HIDDEN
    later = Engine(sorts_logits=False)
    assert parts(pool(engine=later, max_num_seqs=1024))["sampler"] == 1024 * 128_256 * 14 + HIDDEN
    assert parts(pool(engine=later, max_num_seqs=1024, tensor_parallel=2))["communication"] == 0.5e9


def test_older_releases_take_the_buffers_of_nccl_from_their_share() -> None:
    older = Engine(counts_nccl=True)
    assert parts(pool(engine=older, tensor_parallel=4))["communication"] == 0.5e9 + 2.1e9
    assert "communication" not in parts(pool(engine=older))


def test_a_layer_counts_where_the_step_is_large() -> None:
    # 65,536 tokens with two hidden states and three vectors of the MLP, in 2 bytes
    found = parts(pool(max_num_batched_tokens=65_536))
    assert found["activations"] == 2 * 65_536 * (2 * 4096 + 3 * 14_336)
    assert "sampler" not in found
    assert "compilation" not in found


def test_experts_hold_the_copies_of_each_token_and_whole_ones_those_of_all_ranks() -> None:
    mixtral = model("mixtral_8x7b")  # two experts a token, width 14,336, hidden size 4,096
    few = {"model": mixtral, "max_num_seqs": 1, "max_num_batched_tokens": 4096, "engine": WARM}
    cut = parts(pool(**few, tensor_parallel=2))
    assert cut["activations"] == 2 * 4096 * (2 * 4096 + 2 * (2 * 7168 + 7168))
    whole = parts(pool(**few, data_parallel=4, expert_parallel=True))
    assert whole["activations"] == 2 * (4096 * 2 * 4096 + 4 * 4096 * 2 * (2 * 14_336 + 14_336))
    most = parts(pool(**few, data_parallel=16, expert_parallel=True))
    assert most["activations"] == 2 * (4096 * 2 * 4096 + 32_768 * 2 * (2 * 14_336 + 14_336))


def test_images_of_a_step_are_kept_and_their_encoding_is_a_moment_of_its_own() -> None:
    vision = model("qwen3_vl_8b")
    (encoder,) = vision.side_encoders.values()
    tower = encoder.tower
    assert tower is not None
    width = 4 * tower.hidden_size + 2 * tower.intermediate_size
    found = parts(pool(model=vision, max_num_seqs=1))
    assert found["images of a step"] == 2 * 2048 * vision.hidden_size
    assert found["encoding"] == 2 * 2048 * tower.merge**2 * width
    assert "encoding" not in parts(pool(model=vision, max_num_seqs=256))  # its sampler takes more


def test_each_engine_has_parts_of_its_own() -> None:
    sglang = pool(engine=Engine(name="sglang", scheduler="sglang"), tensor_parallel=4)
    # its table of positions is in fp32, as TensorRT-LLM's
    assert parts(sglang) == {"CUDA context": 0.54e9, "communication": 2.1e9, "position table": 2 * TABLE}
    slow = dataclasses.replace(sglang, hardware=dataclasses.replace(sglang.hardware, scale_up_gb_s=64))
    assert parts(slow)["communication"] == 0.42e9
    tensorrt_llm = parts(
        pool(engine=Engine(name="tensorrt_llm", scheduler="tensorrt_llm"), tensor_parallel=4)
    )
    own = ("CUDA context", "communication", "work spaces", "position table", "activations")
    assert sorted(tensorrt_llm) == sorted(own)
    assert (tensorrt_llm["position table"], tensorrt_llm["communication"]) == (2 * TABLE, 2.1e9)


def test_settings_of_memory_that_an_engine_does_not_read_are_errors() -> None:
    words = ["pipeline=llm", "engine=sglang", "engine.compiles=true", "engine.sorts_logits=false"]
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose(words))
    for name, given in (("compiles", "true"), ("sorts_logits", "false")):
        assert (
            f"cluster.pools.llm.engine.{name}: {given}, but only vLLM's account of the memory reads it"
            in str(caught.value)
        )


def test_sglang_takes_its_share_of_what_is_free_before_the_weights() -> None:
    sglang = pool(engine=Engine(name="sglang", scheduler="sglang"), memory_utilization=0.8)
    found = kv_capacity(sglang)
    room = 0.8 * (84.94e9 - 0.54e9 - 2 * TABLE) - found.weight_bytes
    assert found.blocks == pytest.approx(room / found.block_bytes, abs=1)


def test_a_figure_of_the_user_is_the_whole_reserve() -> None:
    given = dataclasses.replace(hardware("h100_sxm"), reserved_gb=3.0)
    assert parts(pool(hardware=given, max_num_seqs=1024, tensor_parallel=4)) == {"given by reserved_gb": 3e9}
    assert kv_capacity(pool(hardware=given)).reserved_bytes == 3e9


def test_devices_other_than_gpus_reserve_what_they_say() -> None:
    assert parts(pool(hardware=hardware("tpu_v6e"))) == {}
