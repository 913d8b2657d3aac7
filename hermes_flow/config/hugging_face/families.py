"""The model types that can be imported, and what each leaves unsaid in its config.json.

The defaults are those of the configuration classes of Hugging Face transformers 4.57.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Experts = Literal["none", "mixtral", "qwen", "deepseek", "llama4"]
Windows = Literal["none", "all", "qwen", "even", "pattern", "llama4"]


@dataclass(frozen=True, slots=True)
class Family:
    """How the config.json of one model type is read."""

    experts: Experts = "none"
    """The names that the keys of its mixture of experts have."""
    windows: Windows = "none"
    """Which layers have a sliding window, where no ``layer_types`` say it."""
    latent: bool = False
    encoder: bool = False
    """An encoder of BERT's kind: attention in both directions, a plain MLP, no output head."""
    positions_from: int = 0
    """Positions that the position table holds before the first token."""
    defaults: dict[str, Any] = field(default_factory=dict)


_DEEPSEEK = Family(experts="deepseek", latent=True)
_BERT = Family(encoder=True)
_ROBERTA = Family(encoder=True, positions_from=2)
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

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "gemma": Family(defaults=_GEMMA),
    "gemma2": Family(windows="even", defaults={"sliding_window": 4096, **_GEMMA}),
    "gemma3_text": Family(windows="pattern", defaults=_GEMMA3),
    "glm4_moe": Family(experts="deepseek"),
    "gpt_oss": Family(experts="mixtral", windows="even"),
    "kimi_k2": _DEEPSEEK,
    "llama": Family(),
    "llama4_text": Family(experts="llama4", windows="llama4"),
    "minimax_m2": Family(experts="mixtral"),
    "ministral": Family(windows="all"),
    "ministral3": Family(windows="all"),
    "mistral": Family(windows="all"),
    "mixtral": Family(experts="mixtral", windows="all"),
    "phi3": Family(windows="all"),
    "phimoe": Family(experts="mixtral", windows="all"),
    "qwen2": Family(windows="qwen"),
    "qwen2_moe": Family(experts="qwen", windows="qwen"),
    "qwen3": Family(windows="qwen"),
    "qwen3_moe": Family(experts="qwen", windows="qwen"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}

# Model types whose text model is of another type, with the key that holds it. Some name that type, some do not.
WRAPPED: dict[str, str] = {
    "gemma3": "gemma3_text",
    "kimi_k25": "deepseek_v3",
    "llama4": "llama4_text",
    "mistral3": "mistral",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_vl_text": "qwen3",
}

# Layers of layer_types that have no cost model, in words.
UNKNOWN_LAYERS: dict[str, str] = {
    "linear_attention": "linear attention (gated delta net)",
    "mamba": "Mamba (state space)",
    "hybrid": "Mamba beside attention",
    "conv": "convolutions",
    "recurrent": "a recurrence",
    "minimax": "lightning attention",
    "compressed_sparse_attention": "sparse attention",
}
