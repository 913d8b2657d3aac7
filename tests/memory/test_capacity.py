"""KV capacity, worked by hand for an H100 of 84.94 GB as its driver reports it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cost.catalog import hardware, model

from hermes_flow.config.schema import LLMPool, ModelPrecision
from hermes_flow.memory.capacity import kv_capacity

LLAMA = model("llama3_8b")


def pool(**changes: Any) -> LLMPool:
    given: dict[str, Any] = {
        "kind": "llm",
        "serves": ("prefill", "decode"),
        "model": LLAMA,
        "hardware": hardware("h100_sxm"),
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
