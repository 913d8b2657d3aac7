"""The numbers that a quantization method uses for weights and activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from hermes_flow.config.hugging_face.source import Source

Pair: TypeAlias = tuple[str, str]
BF16: Pair = ("bf16", "bf16")

_KEY = "quantization_config"
# Weights and activations by the algorithm's name in NVIDIA's ModelOpt.
_MODELOPT: dict[str, Pair] = {
    "FP8": ("fp8", "fp8"),
    "FP8_PB_WO": ("fp8", "bf16"),
    "FP8_PER_CHANNEL_PER_TOKEN": ("fp8", "fp8"),
    "NVFP4": ("nvfp4", "nvfp4"),
    "NVFP4_AWQ": ("nvfp4", "nvfp4"),
    "W4A16_NVFP4": ("nvfp4", "bf16"),
    "W4A8_NVFP4_FP8": ("nvfp4", "fp8"),
    "MXFP4": ("mxfp4", "mxfp4"),
    "W4A8_MXFP4_FP8": ("mxfp4", "fp8"),
    "MXFP8": ("fp8", "fp8"),
    "INT4_AWQ": ("int4", "bf16"),
    "W4A16_AWQ": ("int4", "bf16"),
    "W4A8_AWQ": ("int4", "fp8"),
    "W8A16": ("int8", "bf16"),
    "W8A8_SQ_PER_CHANNEL": ("int8", "int8"),
}


def algorithm_precision(source: Source, algorithm: Any) -> Pair:
    """Return the precision of an algorithm of ModelOpt; raises ConfigError for one that is not known."""
    if algorithm not in _MODELOPT:
        raise source.fault(f"{_KEY}.quant_algo", f"unknown: {algorithm}; known are {', '.join(_MODELOPT)}")
    return _MODELOPT[algorithm]


def method_precision(source: Source, given: Mapping[str, Any]) -> Pair:
    """Return the precisions of a method with one for all modules; raises ConfigError for one that is not known."""
    method = str(given.get("quant_method", "modelopt" if "quant_algo" in given else ""))
    if given.get("quant_algo") is not None:
        return algorithm_precision(source, given["quant_algo"])
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8", "fp8"
    if method == "mxfp4":
        return "mxfp4", "bf16"
    if method in ("gptq", "awq", "auto-round", "auto_round", "gptq_marlin", "awq_marlin"):
        bits = given.get("bits", given.get("w_bit"))
        if bits not in (4, 8):
            raise source.fault(f"{_KEY}.bits", f"{bits!r} is not valid; expected 4 or 8")
        return f"int{bits}", "bf16"
    if method == "bitsandbytes":
        return ("int4" if given.get("load_in_4bit") else "int8"), "bf16"
    known = "fp8, fbgemm_fp8, mxfp4, modelopt, gptq, awq, auto-round, bitsandbytes, compressed-tensors, quark"
    raise source.fault(f"{_KEY}.quant_method", f"unknown: {method or None}; known are {known}")


def scheme_precision(source: Source, group: Mapping[str, Any]) -> Pair:
    """Return the precision of one group of compressed-tensors."""
    key = f"{_KEY}.config_groups"
    return _number(source, group.get("weights"), key), _number(source, group.get("input_activations"), key)


def quark_precision(source: Source, given: Mapping[str, Any]) -> Pair:
    """Return the precision of AMD Quark's ``global_quant_config``."""
    key = f"{_KEY}.global_quant_config"
    one = given.get("global_quant_config")
    if not isinstance(one, Mapping):
        raise source.fault(key, "missing; expected a mapping")
    names = {"fp4": "mxfp4", "fp8_e4m3": "fp8", "int8": "int8", "int4": "int4", "uint4": "int4"}
    found = []
    for name in ("weight", "input_tensors"):
        scheme = one.get(name)
        kind = scheme.get("dtype") if isinstance(scheme, Mapping) else None
        if kind is not None and kind not in names:
            raise source.fault(key, f"dtype {kind}; known are {', '.join(names)}")
        found.append("bf16" if kind is None else names[kind])
    return found[0], found[1]


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
