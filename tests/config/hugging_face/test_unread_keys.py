"""What a config.json says in a form of its own is read, or named: lists, heads within, ends, and unknown keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hugging_face_texts import QWEN3_8B, written

import hermes_flow as hf
from hermes_flow.config.convert import convert
from hermes_flow.config.hugging_face import entry_of
from hermes_flow.config.schema import Model

HUNYUAN: dict[str, Any] = {
    "architectures": ["HunYuanMoEV1ForCausalLM"],
    "attention_head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 3072,
    "max_position_embeddings": 32768,
    "model_type": "hunyuan_v1_moe",
    "moe_intermediate_size": [3072] * 32,
    "moe_topk": [8] * 32,
    "num_attention_heads": 32,
    "num_experts": 64,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_shared_expert": [1] * 32,
    "tie_word_embeddings": True,
    "use_cla": False,
    "vocab_size": 128167,
}
INTERNVL: dict[str, Any] = {
    "architectures": ["InternVLChatModel"],
    "downsample_ratio": 0.5,
    "llm_config": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "vocab_size": 151674,
    },
    "model_type": "internvl_chat",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 448,
        "intermediate_size": 4096,
        "model_type": "intern_vit_6b",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}


def model_of(path: Path, config: dict[str, Any]) -> Model:
    return convert(Model, entry_of(written(path, config)), "model")


def test_one_number_for_each_layer_is_that_number_if_all_are_equal(tmp_path: Path) -> None:
    model = model_of(tmp_path, HUNYUAN)
    assert model.parameters_b == pytest.approx(80.39, rel=0.001)  # Hugging Face page of tencent/Hunyuan-A13B
    assert model.experts is not None
    assert (model.experts.count, model.experts.per_token, model.experts.shared) == (64, 8, 1)
    unlike = HUNYUAN | {"moe_topk": [8] * 31 + [4]}
    with pytest.raises(hf.HermesFlowError, match=r"moe_topk: \[8, .* is not valid"):
        entry_of(written(tmp_path, unlike))


def test_layers_that_use_the_kv_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(hf.HermesFlowError, match="use_cla: layers that use the KV of others"):
        entry_of(written(tmp_path, HUNYUAN | {"use_cla": True}))


def test_the_head_of_the_language_model_within_says_that_a_model_writes(tmp_path: Path) -> None:
    model = model_of(tmp_path, INTERNVL)
    assert model.kind == "decoder"
    assert not model.tied_embeddings
    assert model.parameters_b == pytest.approx(7.94, rel=0.001)  # Hugging Face page of OpenGVLab/InternVL3-8B
    assert not any("read as an encoder" in note for note in model.notes)


def test_a_model_that_counts_as_an_encoder_because_of_its_head_says_so(tmp_path: Path) -> None:
    config = QWEN3_8B | {"architectures": ["Qwen3Model"]}
    model = model_of(tmp_path, config)
    assert model.kind == "encoder"
    assert [
        note for note in model.notes if note.startswith("read as an encoder, as architectures is Qwen3Model")
    ]
    given = convert(Model, entry_of(written(tmp_path, config), "encoder"), "model")
    assert not any("read as an encoder" in note for note in given.notes)


def test_experts_end_where_the_config_says(tmp_path: Path) -> None:
    config = {
        "architectures": ["Ernie4_5_MoeForCausalLM"],
        "model_type": "ernie4_5_moe",
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "max_position_embeddings": 131072,
        "moe_intermediate_size": 1536,
        "moe_k": 6,
        "moe_layer_interval": 1,
        "moe_layer_start_index": 1,
        "moe_num_experts": 64,
        "moe_num_shared_experts": 2,
        "num_attention_heads": 20,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "vocab_size": 103424,
    }
    whole = model_of(tmp_path, config | {"moe_layer_end_index": 27})
    assert whole.parameters_b == pytest.approx(21.83, rel=0.001)  # ERNIE-4.5-21B-A3B
    shorter = model_of(tmp_path, config | {"moe_layer_end_index": 20})
    assert shorter.experts is not None
    assert shorter.experts.dense_layers == 1 + 7


def test_keys_that_look_like_a_shape_and_are_not_read_are_named(tmp_path: Path) -> None:
    assert not model_of(tmp_path, QWEN3_8B).notes
    model = model_of(tmp_path, QWEN3_8B | {"num_memory_layers": 3, "router_rank": 16, "eos_token_id": 5})
    assert model.notes == ("keys of its shape that are not read: num_memory_layers, router_rank",)
