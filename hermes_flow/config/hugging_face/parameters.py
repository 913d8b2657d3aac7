"""The number of parameters of a checkpoint: from its safetensors index, else counted from the shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hermes_flow.config.hugging_face.json_file import json_file
from hermes_flow.config.model import Model
from hermes_flow.config.shape import embedding_parameters, rank_parameters, side_encoder_parameters, whole

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def indexed_parameters(folder: Path, dtype: Any, quantized: bool) -> float | None:
    """Return the parameters that ``model.safetensors.index.json`` tells of, in 10⁹; None where it tells none.

    Raises ConfigError where the file is broken.

    A quantized checkpoint has several widths: its size does not give a number.
    """
    index = json_file(folder / "model.safetensors.index.json")
    found = index.get("metadata") if isinstance(index, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    total, size = found.get("total_parameters"), found.get("total_size")
    if isinstance(total, int):
        return total / 1e9
    if isinstance(size, (int, float)) and not quantized and dtype in _BYTES:
        return size / _BYTES[dtype] / 1e9
    return None


def counted_parameters(model: Model, positions: int) -> float:
    """Return the weights of all matrices in 10⁹, without biases and norms; ``positions`` have a table."""
    total = rank_parameters(model, whole(model)) + embedding_parameters(model) + positions * model.hidden_size
    return (total + side_encoder_parameters(model)) / 1e9
