"""Models are read from config.json texts of Hugging Face, and weigh what their makers published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hugging_face_hybrids import FURTHER
from hugging_face_public import PUBLIC
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
from hermes_flow.config.physical_values import check_model
from hermes_flow.config.schema import AttentionLayers, Model, SlidingWindow
from hermes_flow.config.shape import block_parameters, embedding_parameters
from hermes_flow.cost.kv import kv_bytes_per_token, state_bytes_per_sequence
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


def test_five_of_six_layers_of_gemma_3_have_a_window_and_a_vision_encoder_without_size_is_left_out(
    tmp_path: Path,
) -> None:
    model = model_of(written(tmp_path, GEMMA3_27B))
    assert model.sliding_window == SlidingWindow(tokens=1024, layers=52)
    assert model.tied_embeddings
    assert any("vision_config is left out" in note for note in model.notes)  # this text gives no size of it


def test_latent_attention_shared_experts_and_dense_layers_of_deepseek_are_read(tmp_path: Path) -> None:
    model = model_of(written(tmp_path, DEEPSEEK_V3))
    assert model.latent_attention is not None
    assert model.experts is not None
    assert (model.latent_attention.q_lora_rank, model.latent_attention.kv_lora_rank) == (1536, 512)
    assert (model.experts.count, model.experts.shared, model.experts.dense_layers) == (256, 1, 3)
    assert model.head_dim == 192
    assert model.precision.weights == model.precision.activations == "fp8"


@pytest.mark.parametrize(
    ("changes", "groups"),
    [({}, (8, 4)), ({"n_group": None, "topk_group": None}, (1, 1)), ({"topk_method": "greedy"}, (1, 1))],
)
def test_groups_of_experts_are_read(
    tmp_path: Path, changes: dict[str, str | None], groups: tuple[int, int]
) -> None:
    experts = model_of(written(tmp_path, DEEPSEEK_V3, **changes)).experts
    assert experts is not None
    assert (experts.groups, experts.groups_per_token) == groups


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
    # The checkpoint was published with 16 KV heads, each of the 8 twice; SGLang set the number back (its pull request
    # 723), and later revisions of the config have 8.
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


def test_scales_of_groups_take_memory_beside_four_bit_weights(tmp_path: Path) -> None:
    given = {"quant_method": "awq", "bits": 4, "group_size": 128}
    grouped = model_of(written(tmp_path, QWEN3_8B, quantization_config=given))
    alone = model_of(written(tmp_path, QWEN3_8B, quantization_config={"quant_method": "awq", "bits": 4}))
    assert grouped.precision.group_size == 128
    assert weight_bytes(grouped) - weight_bytes(alone) == block_parameters(grouped) * 2 / 128


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
            {"layer_types": ["retention"] * 27 + ["full_attention"] * 9},
            r"layer_types: layer 0 is 'retention', for which there is no cost model",
        ),
        (
            {"compress_ratios": [4, 128]},
            r"compress_ratios: attention over compressed tokens, for which there is no",
        ),
        (
            {"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*"},
            r"pattern: 4 entries for 36 layers",
        ),
        ({"block_configs": [{}]}, r"block_configs: 1 entries for 36 layers"),
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


@dataclass(frozen=True, slots=True)
class Published:
    """A model as published: parameters in 10⁹, and by hand from its shape: KV bytes of a token, MB of a state."""

    parameters_b: float
    kv_bytes: float
    state_mb: float = 0.0


# Parameters: the model cards on Hugging Face, of language model and vision encoder where the config has both, without
# layers that predict further tokens. KV by hand: layers with KV × 2 × KV heads × width of a head × bytes.
PUBLISHED = {
    "DeepSeek-V3": Published(671, 61 * 576 * 2),
    "DeepSeek-V3.2": Published(671, 61 * (576 * 2 + 132)),
    "GLM-5-FP8": Published(744, 78 * (576 * 2 + 132)),
    "Kimi-K2-Instruct": Published(1026, 61 * 576 * 2),
    "Kimi-K2.6-NVFP4": Published(1027, 61 * 576),
    "Llama-3_3-Nemotron-Super-49B-v1": Published(49.9, 49 * 2 * 8 * 128 * 2),
    "Llama-4-Scout-17B-16E-Instruct": Published(108.6, 48 * 2 * 8 * 128 * 2),
    "Meta-Llama-3.1-405B": Published(405.85, 126 * 2 * 8 * 128 * 2),
    "MiniMax-M2.5": Published(228.7, 62 * 2 * 8 * 128 * 2),
    "MiniMax-M2.5-NVFP4": Published(228.7, 62 * 2 * 8 * 128),
    "Mixtral-8x22B-v0.1": Published(140.6, 56 * 2 * 8 * 128 * 2),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": Published(
        31.6, 6 * 2 * 2 * 128 * 2, 23 * (64 * 64 * 128 * 4 + (4096 + 2 * 8 * 128) * 3 * 2) / 1e6
    ),
    "Nemotron-H-56B-Base-8K": Published(
        56.4, 10 * 2 * 8 * 128 * 2, 54 * (256 * 64 * 256 * 2 + (16384 + 2 * 8 * 256) * 3 * 2) / 1e6
    ),
    "Qwen3-235B-A22B-FP8": Published(235.1, 94 * 2 * 4 * 128 * 2),
    "Qwen3-30B-A3B": Published(30.5, 48 * 2 * 4 * 128 * 2),
    "Qwen3-8B": Published(8.19, 36 * 2 * 8 * 128 * 2),
    "Qwen3-VL-8B-Instruct": Published(8.77, 36 * 2 * 8 * 128 * 2),
    "Qwen3.5-122B-A10B": Published(
        122.5, 12 * 2 * 2 * 256 * 2, 36 * (64 * 128 * 128 * 4 + 12288 * 3 * 2) / 1e6
    ),
    "Qwen3.5-27B": Published(27.3, 16 * 2 * 4 * 256 * 2, 48 * (48 * 128 * 128 * 4 + 10240 * 3 * 2) / 1e6),
    "Qwen3.6-27B-NVFP4": Published(27.3, 16 * 2 * 4 * 256, 48 * (48 * 128 * 128 * 4 + 10240 * 3 * 2) / 1e6),
    "gemma-4-26B-A4B": Published(25.8, 25 * 2 * 8 * 256 * 2 + 5 * 2 * 2 * 512 * 2),
    "gpt-oss-120b": Published(116.83, 36 * 2 * 8 * 64 * 2),
    "gpt-oss-20b": Published(20.91, 24 * 2 * 8 * 64 * 2),
}


@pytest.mark.shared_data
def test_every_published_config_has_the_parameters_and_the_kv_of_its_model(shared_data: Path) -> None:
    paths = [
        path for path in (shared_data / "hf_configs").glob("*_config.json") if "hf_quant" not in path.name
    ]
    models = {path.name.split("--")[1].removesuffix("_config.json"): model_of(path) for path in paths}
    assert set(models) == set(PUBLISHED)
    for name, expected in PUBLISHED.items():
        model, problems = models[name], list[str]()
        check_model(model, "model", problems)
        assert not problems
        assert model.parameters_b == pytest.approx(expected.parameters_b, rel=0.01), name
        assert kv_bytes_per_token(model) == expected.kv_bytes, name
        assert state_bytes_per_sequence(model) / 1e6 == pytest.approx(expected.state_mb), name


@pytest.mark.shared_data
def test_a_checkpoint_of_several_precisions_weighs_the_sum_of_its_modules(shared_data: Path) -> None:
    model = model_of(shared_data / "hf_configs" / "nvidia--Qwen3.6-27B-NVFP4_config.json")
    hidden = 5120
    mlps = 64 * 3 * hidden * 17408 * 4.5 / 8  # nvfp4, as the output head
    attention = 16 * (hidden * (2 * 24 * 256 + 2 * 4 * 256) + 24 * 256 * hidden)  # fp8
    linear = 48 * (hidden * (2 * 16 * 128 + 2 * 48 * 128) + 48 * 128 * hidden)  # fp8
    gates = 48 * hidden * 2 * 48 * 2  # bf16
    vision = model.side_encoders["vision"].parameters_b * 1e9 * 2
    tables = 248320 * hidden * (2 + 4.5 / 8)
    assert weight_bytes(model) == pytest.approx(mlps + attention + linear + gates + tables + vision, rel=1e-6)
    assert model.precision.kv_cache == "fp8"


@pytest.mark.parametrize("name", [*FURTHER, *PUBLIC])
def test_further_families_have_their_published_parameters(name: str, tmp_path: Path) -> None:
    config, published_b = {**FURTHER, **PUBLIC}[name]
    model = model_of(written(tmp_path, config))
    problems: list[str] = []
    check_model(model, "model", problems)
    assert not problems
    assert model.parameters_b == pytest.approx(published_b, rel=0.01)


def test_the_weights_of_a_vision_encoder_take_memory_and_a_note_says_that_it_does_not_run(
    tmp_path: Path,
) -> None:
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14}
    text = {**GEMMA3_27B, "vision_config": {**vision, "model_type": "siglip_vision_model"}}
    model, alone = model_of(written(tmp_path, text)), model_of(written(tmp_path, GEMMA3_27B))
    more = 27 * (4 * 1152**2 + 2 * 1152 * 4304) + 3 * 14**2 * 1152 + 1152 * 5376
    assert weight_bytes(model) - weight_bytes(alone) == pytest.approx(2 * more, rel=1e-3)
    assert any("vision_config takes memory; its passes are not simulated" in note for note in model.notes)


def test_the_adapter_and_the_projector_of_llama_4_count_with_its_encoder(tmp_path: Path) -> None:
    model = model_of(written(tmp_path, PUBLIC["Llama-4-Scout"][0]))
    encoder = 34 * (4 * 1408**2 + 2 * 1408 * 5632) + 3 * 14**2 * 1408
    projector = 5632 * 4096 + 4096 * 4096 + 4096 * 5120
    assert model.side_encoders["vision"].parameters_b == pytest.approx((encoder + projector) / 1e9, rel=1e-3)
    catalog = hf.compose(["pipeline=llm", "model=llama4_scout"]).cluster.pools["llm"].model
    assert (catalog.sliding_window, catalog.parameters_b) == (model.sliding_window, model.parameters_b)


def test_layers_of_mamba_are_not_lost_where_a_key_is_missing(tmp_path: Path) -> None:
    falcon = model_of(written(tmp_path, PUBLIC["Falcon-H1-0.5B"][0]))  # no mamba_d_ssm
    assert falcon.mixers["mamba"].layers == 36
    granite = {**PUBLIC["granite-4.0-h-small"][0], "layer_types": None}
    with pytest.raises(
        ConfigError, match=r"layer_types: missing, and other keys say that some of the layers are"
    ):
        entry_of(written(tmp_path, granite))


def test_layers_of_several_shapes_are_counted_by_kind(tmp_path: Path) -> None:
    model = model_of(written(tmp_path, FURTHER["MiMo-V2-Flash"][0]))
    assert (model.heads, model.kv_heads, model.head_dim, model.value_head_dim) == (64, 4, 192, 128)
    (windowed,) = model.mixers.values()
    assert isinstance(windowed, AttentionLayers)
    assert (windowed.layers, windowed.kv_heads, windowed.window) == (39, 8, 128)
    hybrid = model_of(written(tmp_path, FURTHER["Falcon-H1-34B"][0]))
    assert (hybrid.attention_layers, hybrid.mixers["mamba"].layers, hybrid.layers) == (72, 72, 72)
