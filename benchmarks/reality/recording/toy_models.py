"""Writes the folders of two small Llama models without weights (vLLM's ``--load-format dummy`` draws them)."""

from __future__ import annotations

import json
from pathlib import Path

SIZES = {
    "toy": {"hidden": 512, "intermediate": 1536, "layers": 10, "heads": 8, "kv_heads": 4},
    "toy_small": {"hidden": 256, "intermediate": 768, "layers": 6, "heads": 4, "kv_heads": 2},
}


def write_models(folder: Path) -> None:
    """Write config.json of each model; prompts are ids of tokens, so that no tokenizer is needed."""
    for name, size in SIZES.items():
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": size["hidden"],
            "intermediate_size": size["intermediate"],
            "num_hidden_layers": size["layers"],
            "num_attention_heads": size["heads"],
            "num_key_value_heads": size["kv_heads"],
            "head_dim": size["hidden"] // size["heads"],
            "vocab_size": 32_000,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "dtype": "bfloat16",
        }
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
