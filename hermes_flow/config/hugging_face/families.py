"""The model types that can be imported, and what each leaves unsaid in its config.json.

The defaults are those of the configuration classes of Hugging Face transformers 4.57 and 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Windows = Literal["none", "all", "qwen", "even", "pattern", "llama4", "gemma4"]


@dataclass(frozen=True, slots=True)
class Family:
    """How the config.json of one model type is read."""

    experts: bool = False
    """Whether it may have a mixture of experts."""
    windows: Windows = "none"
    """Which layers have a sliding window, where no ``layer_types`` say it."""
    latent: bool = False
    plain_mlp: bool = False
    """Two matrices in an MLP, not three."""
    encoder: bool = False
    """An encoder of BERT's kind: attention in both directions, a plain MLP, no output head."""
    positions_from: int = 0
    """Positions that the position table holds before the first token."""
    positions: bool = False
    """Whether it has a table of positions."""
    sparse_first: bool = False
    """Whether experts begin after ``first_k_dense_replace`` layers also where that key is missing."""
    head_norms: bool = False
    """Whether queries and keys are always normalised; elsewhere ``use_qk_norm`` and keys like it say so."""
    shared_gate: bool = False
    """Whether a gate of one value for each token scales what the shared experts give."""
    gathers_heads: bool = False
    """Whether queries and keys are normalised over all heads, for which engines gather them in each layer."""
    defaults: dict[str, Any] = field(default_factory=dict)


_PLAIN = Family()
_MIXTURE = Family(experts=True)
_NORMED = Family(head_norms=True)
_NORMED_MIXTURE = Family(experts=True, head_norms=True)
_DEEPSEEK = Family(experts=True, latent=True)
_BERT = Family(encoder=True, plain_mlp=True, positions=True)
_ROBERTA = Family(encoder=True, plain_mlp=True, positions=True, positions_from=2)
_GATED_ENCODER = Family(encoder=True)
_GEMMA = {"tie_word_embeddings": True, "head_dim": 256}
_GEMMA3 = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    **_GEMMA,
}
_GEMMA3N = {
    "hidden_size": 2048,
    "intermediate_size": 16_384,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 35,
    "num_kv_shared_layers": 15,
    "vocab_size": 262_400,
    "hidden_size_per_layer_input": 256,
    "vocab_size_per_layer_input": 262_144,
    "max_position_embeddings": 32_768,
    "sliding_window": 512,
    "sliding_window_pattern": 5,
    **_GEMMA,
}
_QWEN_NEXT = {"full_attention_interval": 4, "attn_output_gate": True}

FAMILIES: dict[str, Family] = {
    "apertus": Family(plain_mlp=True, head_norms=True),
    "arcee": Family(plain_mlp=True),
    "bailing_moe": _MIXTURE,
    "bailing_moe_v2": _MIXTURE,
    "bert": _BERT,
    "cohere": Family(defaults={"tie_word_embeddings": True}),
    "cohere2": Family(windows="pattern", defaults={"tie_word_embeddings": True, "sliding_window_pattern": 4}),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "distilbert": _BERT,
    "dots1": _NORMED_MIXTURE,
    "ernie4_5": Family(defaults={"tie_word_embeddings": True}),
    "ernie4_5_moe": Family(experts=True, defaults={"tie_word_embeddings": True}),
    "exaone4": Family(windows="pattern", head_norms=True),
    "falcon_h1": _PLAIN,
    "gemma": Family(defaults=_GEMMA),
    "gemma2": Family(windows="even", defaults={"sliding_window": 4096, **_GEMMA}),
    "gemma3_text": Family(windows="pattern", head_norms=True, defaults=_GEMMA3),
    "gemma3n_text": Family(windows="gemma4", head_norms=True, defaults=_GEMMA3N),
    "gemma4_text": Family(experts=True, windows="gemma4", head_norms=True, defaults=_GEMMA),
    "glm": _PLAIN,
    "glm4": _PLAIN,
    "glm4_moe": _MIXTURE,
    "glm4_moe_lite": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "gpt_oss": Family(experts=True, windows="even"),
    "granite": _PLAIN,
    "granitemoe": _MIXTURE,
    "granitemoehybrid": _MIXTURE,
    "granitemoeshared": _MIXTURE,
    "hunyuan_v1_dense": _NORMED,
    "hunyuan_v1_moe": _NORMED_MIXTURE,
    "internlm2": _PLAIN,
    "internlm3": _PLAIN,
    "jamba": _MIXTURE,
    "kimi_k2": _DEEPSEEK,
    "kimi_linear": _DEEPSEEK,
    "laguna": _MIXTURE,
    "lfm2": Family(head_norms=True, defaults={"tie_word_embeddings": True}),
    "lfm2_moe": Family(experts=True, head_norms=True, defaults={"tie_word_embeddings": True}),
    "llama": _PLAIN,
    "llama4_text": Family(experts=True, windows="llama4"),
    "mimo": _PLAIN,
    "mimo_v2_flash": _MIXTURE,
    "minimax": _MIXTURE,
    "minimax_m1": _MIXTURE,
    "minimax_m2": _MIXTURE,
    "minimax_text_01": _MIXTURE,
    "ministral": Family(windows="all"),
    "ministral3": Family(windows="all"),
    "mistral": Family(windows="all"),
    "mistral4": _DEEPSEEK,
    "mixtral": Family(experts=True, windows="all"),
    "modernbert": _GATED_ENCODER,
    "nemotron": Family(plain_mlp=True),
    "nemotron-nas": _PLAIN,
    "nemotron_h": Family(experts=True, plain_mlp=True),
    "new": _GATED_ENCODER,
    "nomic_bert": _GATED_ENCODER,
    # source: vLLM and SGLang, _apply_qk_norm of these models: all-gathers of queries and keys before their norms
    "olmo2": Family(head_norms=True, gathers_heads=True),
    "olmo3": Family(head_norms=True, gathers_heads=True),
    "olmoe": Family(experts=True, head_norms=True, gathers_heads=True),
    "phi3": Family(windows="all"),
    "phi4mm": Family(windows="all"),
    "phimoe": Family(experts=True, windows="all"),
    "qwen2": Family(windows="qwen"),
    "qwen2_moe": Family(experts=True, windows="qwen", shared_gate=True),
    "qwen3": Family(windows="qwen", head_norms=True),
    "qwen3_5_moe_text": Family(experts=True, head_norms=True, shared_gate=True, defaults=_QWEN_NEXT),
    "qwen3_5_text": Family(head_norms=True, defaults=_QWEN_NEXT),
    "qwen3_moe": Family(experts=True, windows="qwen", head_norms=True),
    "qwen3_next": Family(experts=True, head_norms=True, shared_gate=True, defaults=_QWEN_NEXT),
    "roberta": _ROBERTA,
    "seed_oss": _PLAIN,
    "smollm3": Family(defaults={"tie_word_embeddings": True}),
    "stablelm": _PLAIN,
    "starcoder2": Family(plain_mlp=True, windows="all", defaults={"tie_word_embeddings": True}),
    "step3p5": _MIXTURE,
    "step3p7": _MIXTURE,
    "xlm-roberta": _ROBERTA,
}

# Model types whose text model is of another type. Some name that type in the text model, some do not.
WRAPPED: dict[str, str] = {
    "deepseek_vl_v2": "deepseek_v2",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "glm4v": "glm4",
    "glm4v_text": "glm4",
    "glm4v_moe": "glm4_moe",
    "glm4v_moe_text": "glm4_moe",
    "internvl_chat": "qwen2",
    "kimi_k25": "deepseek_v3",
    "kimi_vl": "deepseek_v3",
    "llama4": "llama4_text",
    "llava": "llama",
    "mistral3": "mistral",
    "pixtral": "mistral",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_vl_text": "qwen3",
}
