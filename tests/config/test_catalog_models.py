"""The model catalog: every entry is well formed, has its sources, and weighs what its makers published."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hermes_flow.config.convert import convert
from hermes_flow.config.schema import Model, ModelPrecision, Sampling
from hermes_flow.config.shape import block_parameters, embedding_parameters, side_encoder_parameters
from hermes_flow.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "model"

NAMES = [
    "bloom_176b",
    "codellama_34b",
    "deepseek_r1_nvfp4",
    "deepseek_v3",
    "deepseek_v3_2",
    "e5_base",
    "e5_mistral_7b",
    "gemma_4_26b_a4b",
    "glm_5_fp8",
    "gpt_oss_120b",
    "gpt_oss_20b",
    "guard_2b",
    "kimi_k2",
    "kimi_k2_5",
    "kimi_k2_6_nvfp4",
    "llama2_70b",
    "llama2_7b",
    "llama3_405b",
    "llama3_70b",
    "llama3_8b",
    "llama4_scout",
    "minimax_m2_5",
    "minimax_m2_5_nvfp4",
    "mistral_7b",
    "mistral_nemo_12b",
    "mixtral_8x22b",
    "mixtral_8x7b",
    "nemotron_3_nano_30b_a3b",
    "nemotron_h_56b",
    "nemotron_super_49b",
    "qwen2_5_7b",
    "qwen3_14b",
    "qwen3_235b_a22b",
    "qwen3_30b_a3b",
    "qwen3_32b",
    "qwen3_5_122b_a10b",
    "qwen3_5_27b",
    "qwen3_5_397b_a17b",
    "qwen3_6_27b_nvfp4",
    "qwen3_8b",
    "qwen3_vl_8b",
    "yi_34b",
]


def load(name: str) -> Model:
    return convert(Model, OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")), f"model={name}")


def attention_matrices(model: Model) -> int:
    hidden, heads = model.hidden_size, model.heads
    if model.latent_attention is None:
        queries_and_output = 2 * hidden * heads * model.head_dim
        keys_and_values = 2 * hidden * model.kv_heads * model.head_dim
        return queries_and_output + keys_and_values
    latent = model.latent_attention
    query_dim = latent.nope_head_dim + latent.rope_head_dim
    queries = hidden * latent.q_lora_rank + latent.q_lora_rank * heads * query_dim
    compressed = hidden * (latent.kv_lora_rank + latent.rope_head_dim)
    expanded = latent.kv_lora_rank * heads * (latent.nope_head_dim + latent.v_head_dim)
    return queries + compressed + expanded + heads * latent.v_head_dim * hidden


def mlp_matrices(model: Model, width: int) -> int:
    return (3 if model.mlp == "gated" else 2) * model.hidden_size * width


def parameters(model: Model, *, active: bool = False) -> int:
    """Every matrix, counted by hand; biases, norms and position embeddings (under 1 %) are left out."""
    embeddings = model.vocab_size * model.hidden_size * (1 if model.tied_embeddings else 2)
    total = embeddings + model.layers * attention_matrices(model)
    if model.experts is None:
        return total + model.layers * mlp_matrices(model, model.intermediate_size)
    experts = model.experts
    used = experts.per_token if active else experts.count
    mixture = (used + experts.shared) * mlp_matrices(model, experts.intermediate_size)
    router = model.hidden_size * experts.count
    total += (model.layers - experts.dense_layers) * (mixture + router)
    return total + experts.dense_layers * mlp_matrices(model, model.intermediate_size)


def test_the_catalog_holds_exactly_the_documented_models() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_named_like_its_file(name: str) -> None:
    assert load(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_writes_out_every_key_so_that_any_can_be_overridden(name: str) -> None:
    entry = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(entry, dict)
    assert set(entry) == set(Model.__slots__)
    assert set(entry["precision"]) == set(ModelPrecision.__slots__)
    assert set(entry["sampling"]) == {"sorted", "penalties"}


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_reproduces_the_published_parameter_count(name: str) -> None:
    model = load(name)
    if not (model.mixers or model.mlps or model.sparse_attention or model.side_encoders):
        assert parameters(model) / 1e9 == pytest.approx(model.parameters_b, rel=0.02)
    counted = block_parameters(model) + embedding_parameters(model) + side_encoder_parameters(model)
    assert counted / 1e9 == pytest.approx(model.parameters_b, rel=0.02)


@pytest.mark.parametrize(
    ("name", "active_b"),
    # Published active parameters: model cards of each; Mixtral 8x7B: arXiv 2401.04088, section 2.
    [
        ("mixtral_8x7b", 12.9),
        ("mixtral_8x22b", 39.0),
        ("qwen3_30b_a3b", 3.3),
        ("qwen3_235b_a22b", 22.0),
        ("llama4_scout", 17.0),
        ("deepseek_v3", 37.0),
    ],
)
def test_the_experts_of_one_token_reproduce_the_published_active_parameters(
    name: str, active_b: float
) -> None:
    assert parameters(load(name), active=True) / 1e9 == pytest.approx(active_b, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_parameter_count_have_a_source_each(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    sources = [line for line in lines if line.startswith("# source: ")]
    assert any(" config.json of " in line for line in sources)
    parameter_line = next(index for index, line in enumerate(lines) if line.startswith("parameters_b:"))
    assert lines[parameter_line - 1].startswith("# source: ")


@pytest.mark.parametrize("name", NAMES)
def test_how_a_model_samples_by_default_has_its_source(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    above = lines[lines.index("sampling:") - 1]
    sampling, kind = load(name).sampling, load(name).kind
    if kind == "encoder":
        assert (sampling, above) == (Sampling(), "# It writes no tokens.")
        return
    if above.startswith("# source: none; the generation_config.json of "):
        assert sampling == Sampling()
        return
    assert above.startswith("# source: Hugging Face generation_config.json of ")
    assert sampling.sorted == ("top_p 0" in above)
    assert sampling.penalties == ("repetition_penalty" in above)


@pytest.mark.parametrize("name", NAMES)
def test_query_heads_share_kv_heads_evenly(name: str) -> None:
    model = load(name)
    assert model.heads % model.kv_heads == 0


def test_llama3_entries_are_llama_3_1_with_its_long_context() -> None:
    for name in ("llama3_8b", "llama3_70b", "llama3_405b"):
        assert load(name).max_context == 131_072
        assert "Llama-3.1" in (FOLDER / f"{name}.yaml").read_text()


def test_an_unknown_key_in_an_entry_would_be_refused() -> None:
    entry = OmegaConf.to_container(OmegaConf.load(FOLDER / "llama3_8b.yaml"))
    assert isinstance(entry, dict)
    with pytest.raises(ConfigError, match=r"model\.hiden_size.*hidden_size"):
        convert(Model, {**entry, "hiden_size": 1}, "model")
