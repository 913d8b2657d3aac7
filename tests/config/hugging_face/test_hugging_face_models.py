"""Models are read from config.json texts of Hugging Face, and weigh what their makers published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hugging_face_texts import (
    BGE_LARGE,
    DEEPSEEK_V3,
    GEMMA3_27B,
    GLM_4_5,
    GPT_OSS_120B,
    LLAMA4_MAVERICK,
    LLAMA_405B,
    PHI_4,
    QWEN2_57B_A14B,
    QWEN3_8B,
    written,
)

import hermes_flow as hf
from hermes_flow.config.convert import convert
from hermes_flow.config.hugging_face import entry_of
from hermes_flow.config.schema import Model, SlidingWindow
from hermes_flow.config.shape import block_parameters, embedding_parameters
from hermes_flow.cost.weights import weight_bytes
from hermes_flow.errors import ConfigError


def model_of(path: Path) -> Model:
    return convert(Model, entry_of(path), "model")


@pytest.mark.parametrize(
    ("config", "published_b"),
    [
        (LLAMA_405B, 405.85),  # Hugging Face page of meta-llama/Llama-3.1-405B
        (QWEN3_8B, 8.19),  # Hugging Face page of Qwen/Qwen3-8B
        (GPT_OSS_120B, 116.83),  # gpt-oss model card, arXiv 2508.10925, table 1
        (DEEPSEEK_V3, 671.0),  # arXiv 2412.19437
        (GEMMA3_27B, 27.016),  # arXiv 2503.19786, table 1, without the vision encoder
        (PHI_4, 14.66),  # Hugging Face page of microsoft/phi-4
        (GLM_4_5, 355.0),  # model card of zai-org/GLM-4.5
        (BGE_LARGE, 0.335),  # Hugging Face page of BAAI/bge-large-en-v1.5
        (QWEN2_57B_A14B, 57.41),  # Hugging Face page of Qwen/Qwen2-57B-A14B
        (LLAMA4_MAVERICK, 400.0),  # model card of meta-llama/Llama-4-Maverick-17B-128E
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_the_parameters_are_those_published_within_a_hundredth(
    config: dict[str, Any], published_b: float, tmp_path: Path
) -> None:
    model = model_of(written(tmp_path, config))
    assert model.parameters_b == pytest.approx(published_b, rel=0.01)
    # The shape that the simulator computes with has as many, but for the position table of an encoder.
    shape_b = (block_parameters(model) + embedding_parameters(model)) / 1e9
    assert shape_b == pytest.approx(model.parameters_b, rel=0.002)


def test_every_second_layer_of_gpt_oss_has_a_window_and_only_its_experts_are_four_bit(tmp_path: Path) -> None:
    model = model_of(written(tmp_path, GPT_OSS_120B))
    assert model.sliding_window == SlidingWindow(tokens=128, layers=18)
    assert (model.precision.weights, model.precision.activations) == ("mxfp4", "bf16")
    assert model.precision.unquantized == ("attention",)
    experts = 36 * (128 * 3 * 2880 * 2880 + 2880 * 128) * (4 + 8 / 32) / 8
    attention = 36 * 2 * (2 * 2880 * (64 + 8) * 64)
    embeddings = 2 * 2 * 201088 * 2880
    assert weight_bytes(model) == pytest.approx(experts + attention + embeddings, rel=1e-9)


def test_five_of_six_layers_of_gemma_3_have_a_window_and_its_vision_encoder_is_said_to_be_left_out(
    tmp_path: Path,
) -> None:
    model = model_of(written(tmp_path, GEMMA3_27B))
    assert model.sliding_window == SlidingWindow(tokens=1024, layers=52)
    assert model.tied_embeddings
    assert any("vision_config is left out" in note for note in model.notes)


def test_latent_attention_shared_experts_and_dense_layers_of_deepseek_are_read(tmp_path: Path) -> None:
    model = model_of(written(tmp_path, DEEPSEEK_V3))
    assert model.latent_attention is not None
    assert model.experts is not None
    assert (model.latent_attention.q_lora_rank, model.latent_attention.kv_lora_rank) == (1536, 512)
    assert (model.experts.count, model.experts.shared, model.experts.dense_layers) == (256, 1, 3)
    assert model.head_dim == 192
    assert model.precision.weights == model.precision.activations == "fp8"


def test_a_query_that_is_not_compressed_has_one_matrix(tmp_path: Path) -> None:
    compressed = model_of(written(tmp_path, DEEPSEEK_V3))
    plain = model_of(written(tmp_path, DEEPSEEK_V3, q_lora_rank=None))
    difference = 61 * (7168 * 128 * 192 - 1536 * (7168 + 128 * 192))
    assert block_parameters(plain) - block_parameters(compressed) == difference


def test_every_second_layer_of_maverick_is_dense_and_shared_experts_of_qwen_count_by_width(
    tmp_path: Path,
) -> None:
    maverick = model_of(written(tmp_path, LLAMA4_MAVERICK))
    assert maverick.experts is not None
    assert (maverick.experts.dense_layers, maverick.intermediate_size) == (24, 16384)
    assert maverick.sliding_window == SlidingWindow(tokens=8192, layers=36)
    qwen = model_of(written(tmp_path, QWEN2_57B_A14B))
    assert qwen.experts is not None
    assert qwen.experts.shared == 8


def test_layers_and_modules_that_a_checkpoint_leaves_alone_stay_bf16(tmp_path: Path) -> None:
    ignored = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(126) for name in "qkvo"]
    ignored += [
        f"model.layers.{layer}.mlp.{name}_proj" for layer in (0, 125) for name in ("gate", "up", "down")
    ]
    config = {"quant_method": "fbgemm_fp8", "modules_to_not_convert": [*ignored, "lm_head"]}
    # Meta's first upload of this checkpoint had 16 KV heads, each of the 8 twice.
    model = model_of(written(tmp_path, LLAMA_405B, quantization_config=config, num_key_value_heads=16))
    assert model.precision.unquantized == ("attention",)
    assert model.precision.unquantized_layers == 2
    # 62.0 GB measured on each of eight GPUs: vLLM issue 6746.
    assert weight_bytes(model, tensor_parallel=8) / 1e9 == pytest.approx(62.0, rel=0.005)


def test_fp8_that_leaves_half_a_module_alone_is_refused_by_name(tmp_path: Path) -> None:
    config = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.3.self_attn.q_proj"]}
    with pytest.raises(
        ConfigError, match=r"modules_to_not_convert: leaves model\.layers\.3\.self_attn\.q_proj"
    ):
        entry_of(written(tmp_path, LLAMA_405B, quantization_config=config))


def test_nvfp4_of_modelopt_is_read_from_the_file_beside_the_config(tmp_path: Path) -> None:
    path = written(tmp_path, QWEN3_8B)
    quantization = {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head", "model.layers.*.self_attn*"],
    }
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
    precision = model_of(path).precision
    assert (precision.weights, precision.kv_cache, precision.unquantized) == ("nvfp4", "fp8", ("attention",))


@pytest.mark.parametrize(
    ("quantization", "weights", "activations"),
    [
        ({"quant_method": "awq", "bits": 4}, "int4", "bf16"),
        ({"quant_method": "gptq", "bits": 8}, "int8", "bf16"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {
                        "weights": {"num_bits": 8, "type": "int"},
                        "input_activations": {"num_bits": 8, "type": "int"},
                    }
                },
                "ignore": ["lm_head"],
            },
            "int8",
            "int8",
        ),
    ],
    ids=["awq", "gptq", "w8a8"],
)
def test_quantized_checkpoints_have_the_widths_of_their_method(
    quantization: dict[str, Any], weights: str, activations: str, tmp_path: Path
) -> None:
    precision = model_of(written(tmp_path, QWEN3_8B, quantization_config=quantization)).precision
    assert (precision.weights, precision.activations) == (weights, activations)


def test_the_safetensors_index_gives_the_parameters_of_a_checkpoint_in_bf16(tmp_path: Path) -> None:
    path = written(tmp_path, QWEN3_8B)
    index = {"metadata": {"total_size": 16_381_470_720}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_of(path).parameters_b == pytest.approx(8.19074, rel=1e-6)


def test_bert_is_an_encoder_and_a_folder_of_sentence_transformers_makes_qwen_one(tmp_path: Path) -> None:
    bge = model_of(written(tmp_path, BGE_LARGE))
    assert (bge.kind, bge.attention, bge.mlp, bge.max_context) == ("encoder", "bidirectional", "plain", 512)
    path = written(tmp_path, QWEN3_8B)
    assert model_of(path).kind == "decoder"
    (tmp_path / "modules.json").write_text("[]")
    assert model_of(path).kind == "encoder"


def test_the_sampling_is_that_of_generation_config(tmp_path: Path) -> None:
    path = written(tmp_path, QWEN3_8B)
    assert not model_of(path).sampling.sorted
    (tmp_path / "generation_config.json").write_text('{"top_p": 0.95, "repetition_penalty": 1.05}')
    assert model_of(path).sampling.sorted
    assert model_of(path).sampling.penalties


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen33"}, r"config\.json: model_type: unknown: qwen33.*known are .*qwen3"),
        ({"model_type": ...}, r"config\.json: model_type: missing"),
        ({"num_hidden_layers": ...}, r"config\.json: num_hidden_layers: missing"),
        ({"hidden_size": "4096"}, r"config\.json: hidden_size: '4096' is not valid"),
        (
            {"layer_types": ["linear_attention"] * 27 + ["full_attention"] * 9},
            r"layer_types: 27 of 36 layers are linear",
        ),
        ({"index_topk": 2048}, r"index_topk: all 36 layers have sparse attention \(DSA\)"),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*"}, r"2 of 4 layers are Mamba"),
        ({"block_configs": [{}]}, r"block_configs: every layer has a shape of its own"),
        ({"quantization_config": {"quant_method": "hqq"}}, r"quant_method: unknown: hqq; known are"),
        ({"quantization_config": {"quant_algo": []}}, r"quantization_config: has a form that is not known"),
        ({"quantization_config": {"quant_method": "fp8", "ignore": "x"}}, r"ignore: 'x' is not a list"),
        ({"num_key_value_heads": 5}, r"num_key_value_heads: 5 does not divide the 32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_read_is_an_error_with_file_and_key(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        entry_of(written(tmp_path, QWEN3_8B, **changes))


def test_a_config_json_is_a_model_of_the_command_line_and_of_a_single_pool(tmp_path: Path) -> None:
    path = written(tmp_path, QWEN3_8B)
    config = hf.compose([f"model={path}", "model.precision.kv_cache=fp8"])
    assert (config.model.layers, config.model.precision.kv_cache) == (36, "fp8")
    pool = hf.compose([f"model@cluster.pools.llm.model={tmp_path}"]).cluster.pools["llm"]
    assert pool.model.vocab_size == 151936  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"none/config\.json: there is no such file"):
        hf.compose([f"model={tmp_path}/none/config.json"])


_REFUSED = {
    "DeepSeek-V3.2": "index_topk",
    "GLM-5-FP8": "index_topk",
    "Llama-3_3-Nemotron-Super-49B-v1": "block_configs",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "hybrid_override_pattern",
    "Nemotron-H-56B-Base-8K": "hybrid_override_pattern",
    "Qwen3.5-122B-A10B": "layer_types",
    "Qwen3.5-27B": "layer_types",
    "Qwen3.6-27B-NVFP4": "layer_types",
    "gemma-4-26B-A4B": "enable_moe_block",
}


@pytest.mark.shared_data
def test_every_published_config_is_imported_or_names_the_key_that_has_no_cost_model(
    shared_data: Path,
) -> None:
    refused = {}
    paths = [
        path for path in (shared_data / "hf_configs").glob("*_config.json") if "hf_quant" not in path.name
    ]
    for path in paths:
        name = path.name.split("--")[1].removesuffix("_config.json")
        try:
            model_of(path)
        except ConfigError as error:
            refused[name] = (error.key.rpartition(": ")[2], "no cost model" in error.problem)
    assert len(paths) == 23
    assert refused == {name: (key, True) for name, key in _REFUSED.items()}
