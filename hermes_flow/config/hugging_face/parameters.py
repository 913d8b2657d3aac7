"""The number of parameters of a checkpoint: from its safetensors index, else counted from the shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def indexed_parameters(folder: Path, dtype: Any, quantized: bool) -> float | None:
    """Return the parameters that ``model.safetensors.index.json`` tells of, in 10⁹; None where it tells none.

    A quantized checkpoint has several widths: its size does not give a number.
    """
    path = folder / "model.safetensors.index.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("metadata", {})
    except (OSError, ValueError, AttributeError):
        return None
    total, size = found.get("total_parameters"), found.get("total_size")
    if isinstance(total, int):
        return total / 1e9
    if isinstance(size, (int, float)) and not quantized and dtype in _BYTES:
        return size / _BYTES[dtype] / 1e9
    return None


def counted_parameters(shape: Mapping[str, Any], positions: int) -> float:
    """Return the weights of all matrices in 10⁹, without biases and norms; ``positions`` have a table."""
    hidden, layers = shape["hidden_size"], shape["layers"]
    total = (1 if shape["tied_embeddings"] else 2) * shape["vocab_size"] * hidden
    total += positions * hidden + layers * _attention(shape)
    matrices = 3 if shape["mlp"] == "gated" else 2
    experts = shape["experts"]
    dense = layers if experts is None else experts["dense_layers"]
    total += dense * matrices * hidden * shape["intermediate_size"]
    if experts is not None:
        one = matrices * hidden * experts["intermediate_size"]
        total += (layers - dense) * ((experts["count"] + experts["shared"]) * one + hidden * experts["count"])
    return float(total) / 1e9


def _attention(shape: Mapping[str, Any]) -> int:
    hidden, heads, latent = shape["hidden_size"], shape["heads"], shape["latent_attention"]
    if latent is None:
        return int(2 * hidden * (heads + shape["kv_heads"]) * shape["head_dim"])
    rank, kv_rank, value = latent["q_lora_rank"], latent["kv_lora_rank"], latent["v_head_dim"]
    query = heads * shape["head_dim"]
    total = hidden * query if rank is None else rank * (hidden + query)
    total += hidden * (kv_rank + latent["rope_head_dim"])
    return int(total + kv_rank * heads * (latent["nope_head_dim"] + value) + heads * value * hidden)
