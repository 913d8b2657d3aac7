"""The precision of a checkpoint: what is quantized to what, and which modules stay bf16."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hermes_flow.config.hugging_face.families import Family
from hermes_flow.config.hugging_face.shape import dense_layers
from hermes_flow.config.hugging_face.source import Source

_KEY = "quantization_config"
# Weights and activations by the algorithm's name in NVIDIA's ModelOpt.
_MODELOPT = {
    "FP8": ("fp8", "fp8"),
    "FP8_PB_WO": ("fp8", "bf16"),
    "NVFP4": ("nvfp4", "nvfp4"),
    "NVFP4_AWQ": ("nvfp4", "nvfp4"),
    "W4A16_NVFP4": ("nvfp4", "bf16"),
    "MXFP4": ("mxfp4", "mxfp4"),
    "INT4_AWQ": ("int4", "bf16"),
    "W4A16_AWQ": ("int4", "bf16"),
    "W4A8_AWQ": ("int4", "fp8"),
    "W8A16": ("int8", "bf16"),
    "W8A8_SQ_PER_CHANNEL": ("int8", "int8"),
}
_IGNORED = (
    "modules_to_not_convert",
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "exclude",
    "llm_int8_skip_modules",
)
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


def precision_of(source: Source, family: Family, shape: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """Return ``precision`` as the catalog writes it; ``given`` is the quantization config, None without one.

    Raises ConfigError for a method that is not known, and for modules that are quantized in part.
    """
    plain: dict[str, Any] = {"weights": "bf16", "kv_cache": "bf16", "activations": "bf16"}
    if given is None:
        return {**plain, "unquantized": [], "unquantized_layers": 0}
    if not isinstance(given, Mapping):
        raise source.fault(_KEY, f"{given!r} is not a mapping")
    try:
        return plain | _quantized(source, family, shape, given)
    except (AttributeError, KeyError, TypeError, re.error) as error:
        raise source.fault(_KEY, f"has a form that is not known ({error})") from None


def _quantized(
    source: Source, family: Family, shape: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the precision of a checkpoint that is quantized."""
    weights, activations = _bits(source, given)
    found: dict[str, Any] = {"weights": weights, "activations": activations}
    scheme = given.get("kv_cache_scheme")
    in_fp8 = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8
    if given.get("kv_cache_quant_algo") == "FP8" or in_fp8:
        found["kv_cache"] = "fp8"
    patterns = []
    for name in _IGNORED:
        listed = given.get(name) or []
        if not isinstance(listed, list):
            raise source.fault(f"{_KEY}.{name}", f"{listed!r} is not a list of modules")
        patterns += [str(entry) for entry in listed]
    return found | _kept(source, family, shape, patterns)


def _bits(source: Source, given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the precisions of weights and activations."""
    method = str(given.get("quant_method", "modelopt" if "quant_algo" in given else ""))
    algorithm = given.get("quant_algo")
    if algorithm == "MIXED_PRECISION":
        raise source.fault(
            f"{_KEY}.quant_algo", "MIXED_PRECISION; expected one precision for all quantized modules"
        )
    if algorithm is not None:
        if algorithm not in _MODELOPT:
            raise source.fault(
                f"{_KEY}.quant_algo", f"unknown: {algorithm}; known are {', '.join(_MODELOPT)}"
            )
        return _MODELOPT[algorithm]
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8", "fp8"
    if method == "mxfp4":
        return "mxfp4", "bf16"
    if method in ("gptq", "awq", "auto-round"):
        bits = given.get("bits", given.get("w_bit"))
        if bits not in (4, 8):
            raise source.fault(f"{_KEY}.bits", f"{bits!r} is not valid; expected 4 or 8")
        return f"int{bits}", "bf16"
    if method == "bitsandbytes":
        return ("int4" if given.get("load_in_4bit") else "int8"), "bf16"
    if method == "compressed-tensors":
        return _grouped(source, given)
    known = "fp8, fbgemm_fp8, mxfp4, modelopt, gptq, awq, auto-round, bitsandbytes, compressed-tensors"
    raise source.fault(f"{_KEY}.quant_method", f"unknown: {method or None}; known are {known}")


def _grouped(source: Source, given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the precisions of compressed-tensors, whose groups must agree."""
    key = f"{_KEY}.config_groups"
    groups = given.get("config_groups") or {}
    found = {
        (_number(source, group.get("weights"), key), _number(source, group.get("input_activations"), key))
        for group in groups.values()
        if isinstance(group, Mapping)
    }
    if len(found) != 1:
        raise source.fault(key, f"{len(found)} groups of different precisions; expected one")
    return found.pop()


def _number(source: Source, scheme: Any, key: str) -> str:
    if scheme is None:
        return "bf16"
    bits, kind = scheme.get("num_bits"), scheme.get("type")
    if kind == "float" and bits == 4:
        return "mxfp4" if scheme.get("group_size") == 32 else "nvfp4"
    names = {("float", 8): "fp8", ("int", 8): "int8", ("int", 4): "int4"}
    if (kind, bits) not in names:
        raise source.fault(
            key, f"{bits} bits of type {kind}; known are int of 4 and 8 bits, float of 4 and 8 bits"
        )
    return names[kind, bits]


def _kept(source: Source, family: Family, shape: Mapping[str, Any], patterns: list[str]) -> dict[str, Any]:
    """Return which modules stay bf16 in all layers, and how many layers stay so alone."""
    layers = shape["layers"]
    dense = dense_layers(source, family, layers)
    mixtures = sorted(set(range(layers)) - set(dense))
    shorter = [_shortened(pattern) for pattern in patterns]
    latent = shape["latent_attention"]
    projections = (
        _ATTENTION if latent is None else _LATENT if latent["q_lora_rank"] else ("q_proj", *_LATENT[2:])
    )
    attention = _ignored(source, range(layers), [("self_attn", projections)], shorter)
    mlp = _ignored(source, dense, [("mlp", _MLP), ("feed_forward", _MLP)], shorter)
    experts = _ignored(source, mixtures, _expert_names(), shorter)
    shared: list[int] = []
    if shape["experts"] is not None and shape["experts"]["shared"]:
        names = [(f"{block}.{name}", _MLP) for block in ("mlp", "feed_forward") for name in _SHARED]
        shared = _ignored(source, mixtures, names, shorter)
        if shared and shared != mixtures:
            raise _partly(source, f"shared experts in {len(shared)} of {len(mixtures)} layers")
    if experts:
        raise _partly(source, f"routed experts in {len(experts)} of {len(mixtures)} layers")
    everywhere = [
        name
        for name, found, all_of in (
            ("attention", attention, list(range(layers))),
            ("mlp", mlp, dense),
            ("shared_experts", shared, mixtures),
        )
        if found and found == all_of
    ]
    alone = {
        len(found)
        for name, found in (("attention", attention), ("mlp", mlp))
        if found and name not in everywhere
    }
    if len(alone) > 1 or (
        alone and "attention" not in everywhere and "mlp" not in everywhere and not (mlp and attention)
    ):
        raise _partly(source, f"attention in {len(attention)} layers and the dense MLP in {len(mlp)}")
    if alone and max(alone) > len(dense):
        raise _partly(source, f"attention in {len(attention)} of {layers} layers")
    return {"unquantized": everywhere, "unquantized_layers": alone.pop() if alone else 0}


_SHARED = ("shared_experts", "shared_expert")


def _expert_names() -> list[tuple[str, tuple[str, ...]]]:
    names: list[tuple[str, tuple[str, ...]]] = [
        (f"{block}.experts.0", _MLP) for block in ("mlp", "feed_forward", "block_sparse_moe")
    ]
    return [
        *names,
        ("block_sparse_moe.experts.0", ("w1", "w2", "w3")),
        ("mlp.experts", ("gate_up_proj", "down_proj")),
    ]


def _ignored(
    source: Source,
    layers: range | list[int],
    modules: Sequence[tuple[str, tuple[str, ...]]],
    patterns: list[str],
) -> list[int]:
    """Return the layers in which a module is left alone; ``modules`` are the names that it may have."""
    found = []
    for layer in layers:
        for module, projections in modules:
            names = [f"model.layers.{layer}.{module}.{projection}" for projection in projections]
            hits = [name for name in names if any(_matches(name, pattern) for pattern in patterns)]
            if len(hits) == len(names):
                found.append(layer)
                break
            if hits:
                raise _partly(source, f"{', '.join(hits)}, but not all of {module}")
    return found


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern.removeprefix("re:"), name) is not None
    if "." not in pattern and "*" not in pattern:
        return pattern in name.split(".")
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") or name.endswith(f".{pattern}")


def _shortened(pattern: str) -> str:
    """Return a pattern without the names of what wraps the language model."""
    for wrapper in ("language_model.model.", "model.language_model."):
        if pattern.startswith(wrapper):
            return "model." + pattern.removeprefix(wrapper)
    return pattern


def _partly(source: Source, what: str) -> Exception:
    return source.fault(
        f"{_KEY}.modules_to_not_convert",
        f"leaves {what} unquantized; expected whole modules in all layers, or layers",
    )
