"""The models that deployments name, as Hugging Face calls them, and the entries of the catalog that they mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hermes_flow.config.aliases import plain_model, published_models
from hermes_flow.config.folders import config_folder
from hermes_flow.config.hugging_face import is_hugging_face

# What the names of quantized checkpoints end in, with the precision of weights and activations.
_QUANTIZED: tuple[tuple[str, str, str], ...] = (
    ("-fp8-kv", "fp8", "fp8"),
    ("-fp8-dynamic", "fp8", "fp8"),
    ("-fp8-block", "fp8", "fp8"),
    ("-fp8", "fp8", "fp8"),
    ("-nvfp4", "nvfp4", "nvfp4"),
    ("-fp4", "nvfp4", "nvfp4"),
    ("-mxfp4", "mxfp4", "mxfp4"),
    ("-quantized.w8a8", "int8", "int8"),
    ("-w8a8", "int8", "int8"),
    ("-quantized.w4a16", "int4", "bf16"),
    ("-w4a16", "int4", "bf16"),
    ("-gptq-int4", "int4", "bf16"),
    ("-gptq-int8", "int8", "bf16"),
    ("-gptq", "int4", "bf16"),
    ("-int4", "int4", "bf16"),
    ("-awq", "int4", "bf16"),
)


def model_overrides(name: str) -> dict[str, Any] | None:
    """Return the overrides that choose a model by its name on Hugging Face, or by a path; None if it is not known."""
    if is_hugging_face(name) and Path(name).expanduser().exists():
        return {"model": name}
    known = published_models()
    plain = plain_model(name)
    if plain in known:
        return {"model": known[plain]}
    if (config_folder() / "model" / f"{name}.yaml").is_file():
        return {"model": name}
    for ending, weights, activations in _QUANTIZED:
        base = plain.removesuffix(ending)
        if base != plain and base in known:
            return {
                "model": known[base],
                "model.precision.weights": weights,
                "model.precision.activations": activations,
            }
    return None


def catalog_entry(name: str) -> dict[str, Any]:
    """Return a built-in entry of the catalog as its file has it; empty where there is none."""
    import yaml  # type: ignore[import-untyped]

    path = config_folder() / "model" / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def repository_of(name: str) -> str | None:
    """Return the repository on Hugging Face that a built-in entry comes from; None where it is not known."""
    path = config_folder() / "model" / f"{name}.yaml"
    if not path.is_file():
        return None
    found = re.search(r" config\.json of ([\w.-]+/[\w.-]+)", path.read_text(encoding="utf-8"))
    return None if found is None else found[1]
