"""KV capacity, worked by hand for an H100 of 84.94 GB as its driver reports it, of which 1.2 GB are reserved."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cost.catalog import hardware, model

from hermes_flow.config.schema import ModelPrecision, Speculative
from hermes_flow.pools.llm.capacity import kv_capacity
from hermes_flow.pools.llm.schema import LLMPool

LLAMA = model("llama3_8b")


def pool(**changes: Any) -> LLMPool:
    given: dict[str, Any] = {
        "kind": "llm",
        "serves": ("prefill", "decode"),
        "model": LLAMA,
        "hardware": dataclasses.replace(hardware("h100_sxm"), reserved_gb=1.2),
    }
    return LLMPool(**(given | changes))


def test_the_blocks_of_one_llama3_8b_on_one_h100() -> None:
    # weights of a layer: 4,096·6,144 + 4,096·4,096 + 4,096·28,672 + 14,336·4,096 = 218,103,808
    # all: 2 bytes · (32 · 218,103,808 + 2 · 128,256 · 4,096) = 16,059,990,016
    # a block: 16 tokens · 131,072 bytes = 2,097,152
    # (.9 · 84,940,000,000 − 16,059,990,016 − 1,200,000,000) / 2,097,152 = 28,222.4
    found = kv_capacity(pool())
    assert found.weight_bytes == 16_059_990_016
    assert found.block_bytes == 2_097_152
    assert found.usable_bytes == pytest.approx(76_446_000_000)
    assert found.reserved_bytes == 1_200_000_000
    assert found.blocks == 28_222
    assert not found.given


def test_two_devices_halve_weights_and_blocks_and_so_more_than_double_the_capacity() -> None:
    found = kv_capacity(pool(tensor_parallel=2))
    assert found.weight_bytes == 16_059_990_016 / 2
    assert found.block_bytes == 1_048_576
    # (76,446,000,000 − 8,029,995,008 − 1,200,000,000) / 1,048,576 = 64,102.2
    assert found.blocks == 64_102


def test_blocks_that_are_given_are_taken() -> None:
    found = kv_capacity(pool(kv_blocks=500))
    assert (found.blocks, found.given) == (500, True)


def test_weights_that_do_not_fit_leave_no_blocks() -> None:
    # 2 bytes · (126 · 3,187,671,040 + 2 · 128,256 · 16,384) = 811.7 GB
    found = kv_capacity(pool(model=model("llama3_405b")))
    assert found.weight_bytes / 1e9 == pytest.approx(811.7, abs=0.05)
    assert found.blocks < 1


def test_memory_is_the_datasheets_where_no_driver_was_asked() -> None:
    bare = hardware("tpu_v6e")
    assert bare.usable_gb is None
    assert kv_capacity(pool(hardware=bare)).usable_bytes == pytest.approx(0.9 * bare.memory_gb * 1e9)


@pytest.mark.parametrize(("weights", "bytes_each"), [("fp8", 1.0), ("int8", 1.0), ("int4", 0.5)])
def test_narrow_weights_leave_the_embeddings_in_bf16(weights: str, bytes_each: float) -> None:
    narrow = dataclasses.replace(LLAMA, precision=ModelPrecision(weights=weights))  # type: ignore[arg-type]
    expected = 32 * 218_103_808 * bytes_each + 2 * 128_256 * 4_096 * 2
    assert kv_capacity(pool(model=narrow)).weight_bytes == expected


def test_an_fp8_cache_holds_twice_the_tokens() -> None:
    narrow = dataclasses.replace(LLAMA, precision=ModelPrecision(kv_cache="fp8"))
    assert kv_capacity(pool(model=narrow)).block_bytes == 1_048_576


def test_every_expert_has_to_be_in_memory() -> None:
    # 2 bytes · (32 · (41,943,040 + 8 · 176,160,768 + 4,096 · 8) + 2 · 32,000 · 4,096)
    found = kv_capacity(pool(model=model("mixtral_8x7b"), tensor_parallel=1))
    layer = 41_943_040 + 8 * 176_160_768 + 4_096 * 8
    assert found.weight_bytes == 2 * (32 * layer + 2 * 32_000 * 4_096)


# Pipeline stages. A layer of Llama-3.1 8B has 218,103,808 weights, a table 128,256 · 4,096 = 525,336,576


def test_the_first_stage_holds_the_embedding_and_the_last_the_output_head() -> None:
    found = kv_capacity(pool(pipeline_parallel=2))
    assert found.weight_bytes == 2 * (16 * 218_103_808 + 525_336_576)
    assert found.block_bytes == 16 * 16 * 4096
    assert found.blocks == 64_102  # as on two tensor-parallel devices: both halve all


def test_the_stage_with_least_room_counts() -> None:
    # 11, 11 and 10 layers; the first has a table beside its 11
    found = kv_capacity(pool(pipeline_parallel=3))
    assert found.weight_bytes == 2 * (11 * 218_103_808 + 525_336_576)
    assert found.block_bytes == 16 * 11 * 4096
    assert found.blocks == (76_446_000_000 - 5_848_956_928 - 1_200_000_000) // 720_896


def test_a_stage_between_holds_layers_alone() -> None:
    # Llama-2 7B: layers of 202,375,168 weights, tables of 131,072,000; 4, 4, 5, 5, 5, 5 and 4 layers
    found = kv_capacity(pool(model=model("llama2_7b"), pipeline_parallel=7))
    assert found.weight_bytes == 2 * 5 * 202_375_168
    assert found.block_bytes == 16 * 5 * 2 * 32 * 128 * 2
    assert found.blocks == (76_446_000_000 - 2_023_751_680 - 1_200_000_000) // 1_310_720


def test_both_ends_hold_a_table_that_one_device_would_hold_once() -> None:
    guard = model("guard_2b")
    assert guard.tied_embeddings
    layers = kv_capacity(pool(model=guard)).weight_bytes - 2 * 256_000 * 2304
    found = kv_capacity(pool(model=guard, pipeline_parallel=2))
    assert found.weight_bytes == layers / 2 + 2 * 256_000 * 2304


def test_stages_make_room_for_a_model_that_no_node_holds() -> None:
    large = {"model": model("llama3_405b"), "tensor_parallel": 8}
    assert kv_capacity(pool(**large)).blocks < 1
    assert kv_capacity(pool(**large, pipeline_parallel=2)).blocks > 10_000


# Experts and ranks. Mixtral 8x7B: 41,943,040 weights of attention and 8 · 176,160,768 of experts in a layer


def test_experts_held_whole_are_shared_by_all_devices_and_attention_is_on_every_rank() -> None:
    found = kv_capacity(pool(model=model("mixtral_8x7b"), data_parallel=4, expert_parallel=True))
    layer = 41_943_040 + 2 * 176_160_768 + 4_096 * 8
    assert found.weight_bytes == 2 * (32 * layer + 2 * 32_000 * 4_096)
    rank = (76_446_000_000 - found.weight_bytes - 1_200_000_000) // 2_097_152
    assert found.block_bytes == 2_097_152
    assert found.blocks == 4 * rank


def test_without_expert_parallelism_every_rank_holds_all_experts() -> None:
    mixtral = model("mixtral_8x7b")
    one = kv_capacity(pool(model=mixtral, tensor_parallel=4))
    two = kv_capacity(pool(model=mixtral, tensor_parallel=4, data_parallel=2))
    assert two.weight_bytes == one.weight_bytes
    assert two.blocks == 2 * one.blocks


def test_on_one_rank_whole_experts_weigh_as_much_as_slices_of_all() -> None:
    mixtral = model("mixtral_8x7b")
    cut = kv_capacity(pool(model=mixtral, tensor_parallel=4))
    assert kv_capacity(pool(model=mixtral, tensor_parallel=4, expert_parallel=True)) == cut


def test_shared_experts_stay_on_every_rank() -> None:
    deepseek = model("deepseek_v3")
    assert deepseek.experts is not None
    alone = dataclasses.replace(deepseek, experts=dataclasses.replace(deepseek.experts, shared=0))
    both, routed = (
        kv_capacity(pool(model=shape, data_parallel=16, expert_parallel=True)) for shape in (deepseek, alone)
    )
    # 58 mixture layers, one shared expert of 3 · 7,168 · 2,048 fp8 weights
    assert both.weight_bytes - routed.weight_bytes == 58 * 3 * 7168 * 2048


def test_blocks_that_are_given_are_those_of_each_rank() -> None:
    given = pool(model=model("mixtral_8x7b"), data_parallel=4, expert_parallel=True, kv_blocks=1000)
    assert kv_capacity(given).blocks == 4 * 1000


# A draft model


def test_a_draft_models_weights_and_kv_count() -> None:
    target = model("llama3_70b")
    found = kv_capacity(pool(model=target, tensor_parallel=4, speculative=Speculative(LLAMA)))
    alone = kv_capacity(pool(model=target, tensor_parallel=4))
    draft = kv_capacity(pool(tensor_parallel=4))
    assert found.draft_bytes == draft.weight_bytes == 16_059_990_016 / 4
    assert found.weight_bytes == alone.weight_bytes + draft.weight_bytes
    assert found.block_bytes == alone.block_bytes + draft.block_bytes
    room = 76_446_000_000 - found.weight_bytes - 1_200_000_000
    assert found.blocks == int(room // found.block_bytes) < alone.blocks


def test_the_last_stage_holds_the_draft_model() -> None:
    target = model("llama3_70b")
    shape = {"model": target, "tensor_parallel": 2, "pipeline_parallel": 4}
    alone = kv_capacity(pool(**shape))
    found = kv_capacity(pool(**shape, speculative=Speculative(LLAMA)))
    assert found.weight_bytes == alone.weight_bytes + 16_059_990_016 / 2
    assert found.block_bytes == alone.block_bytes + 1_048_576


def test_without_a_draft_model_nothing_is_held_for_speculation() -> None:
    assert kv_capacity(pool(speculative=Speculative(None, 7, 0.5))) == kv_capacity(pool())
