"""The names that the matrices of a model have in checkpoints, by which quantization configs speak of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hermes_flow.config.hugging_face.shape import Layout
from hermes_flow.config.shape import Module

# The names of each matrix of the catalog in checkpoints; each alternative lists the tensors that it is made of.
_MLP = {
    "gate_up": (("gate_proj", "up_proj"), ("gate_up_proj",), ("w1", "w3")),
    "up": (("up_proj",), ("fc1",), ("c_fc",)),
    "down": (("down_proj",), ("w2",), ("fc2",), ("c_proj",)),
    "linear": (("linear_mlp",),),
}
_MATRICES: dict[str, tuple[tuple[str, ...], ...]] = {
    "qkv": (("q_proj", "k_proj", "v_proj"), ("q_proj", "k_proj"), ("qkv_proj",)),
    "attention_out": (("o_proj",), ("out_proj",), ("dense",)),
    "query": (("q_proj",),),
    "query_down": (("q_a_proj",),),
    "query_up": (("q_b_proj",),),
    "kv_down": (("kv_a_proj_with_mqa",),),
    "kv_up": (("kv_b_proj",),),
    "index_query": (("indexer.wq_b",),),
    "index_key": (("indexer.wk",),),
    "index_weights": (("indexer.weights_proj",),),
    "in": (("in_proj_qkv", "in_proj_z"), ("in_proj_qkvz",), ("in_proj",), ("q_proj", "k_proj", "v_proj")),
    "gates": (("in_proj_a", "in_proj_b"), ("in_proj_ba",)),
    "out": (("out_proj",), ("o_proj",)),
    "router": (("gate",), ("router",)),
    **_MLP,
}
_BLOCKS = {
    "attention": ("self_attn", "mixer", "attention", "attn"),
    "linear": ("linear_attn", "mixer", "mamba", "self_attn", "conv"),
    "mlp": ("mlp", "feed_forward", "mixer", "ffn"),
    "experts": (
        "mlp.experts",
        "block_sparse_moe.experts",
        "feed_forward.experts",
        "mixer.experts",
        "moe.experts",
    ),
    "shared_experts": tuple(
        f"{block}.{name}"
        for block in ("mlp", "feed_forward", "mixer", "block_sparse_moe")
        for name in ("shared_experts", "shared_expert", "shared_mlp")
    ),
    "router": ("mlp", "block_sparse_moe", "feed_forward", "mixer"),
}
_ROOTS = ("model.", "model.language_model.", "language_model.model.", "backbone.")


@dataclass(frozen=True, slots=True)
class Tensors:
    """The names that one matrix may have in one layer; all tensors of one alternative make the matrix."""

    module: str
    matrix: str
    layer: int
    alternatives: tuple[tuple[str, ...], ...]


def tensors_of(layout: Layout, modules: Sequence[Module]) -> list[Tensors]:
    """Return the names of every matrix in every layer."""
    found = []
    for module in modules:
        layers = _layers(layout, module.name)
        for gemm in module.gemms:
            spellings = _MATRICES.get(gemm.name)
            if spellings is None:
                continue
            found += [
                Tensors(module.name, gemm.name, layer, _named(module.name, layer, spellings, layout))
                for layer in layers
            ]
    return found


def _layers(layout: Layout, module: str) -> list[int]:
    """Return the layers that have a module."""
    if module in ("experts", "shared_experts", "router"):
        return list(layout.mlps.mixtures)
    if module == "indexer":
        return list(range(len(layout.mixers.layers)))
    if module == "mlp" or module in layout.mlps.names.values():
        return layout.mlps.of(module)
    return layout.mixers.of(module)


def _named(
    module: str, layer: int, spellings: tuple[tuple[str, ...], ...], layout: Layout
) -> tuple[tuple[str, ...], ...]:
    kind = module
    if module not in _BLOCKS:
        kind = "mlp" if module in layout.mlps.names.values() else "linear"
        attends = module == "indexer" or ("attention" in module and module not in _LINEAR)
        kind = "attention" if attends else kind
    infix = ".0" if module == "experts" else ""
    return tuple(
        tuple(f"layers.{layer}.{block}{suffix}.{name}" for name in names)
        for block in _BLOCKS[kind]
        for suffix in dict.fromkeys((infix, ""))
        for names in spellings
    )


_LINEAR = ("kimi_delta_attention", "lightning_attention")


class Patterns:
    """The modules that a list of patterns names: plain names, globs, or regular expressions after ``re:``."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.expressions = [
            re.compile(text.removeprefix("re:")) for text in patterns if text.startswith("re:")
        ]
        plain = [_shortened(text) for text in patterns if not text.startswith("re:")]
        self.words = {text for text in plain if "." not in text and "*" not in text}
        self.exact = {text for text in plain if "." in text and "*" not in text}
        globs = [fnmatch.translate(text) for text in plain if "*" in text]
        self.globs = re.compile("|".join(globs)) if globs else None
        self.tails = tuple(f".{text}" for text in self.exact if not text.startswith("layers."))

    def match(self, name: str) -> bool:
        """Whether ``name`` (from ``layers.`` on) is a module that the patterns name, or lies in one."""
        parts = name.split(".")
        if any(part in self.words for part in parts):
            return True
        heads = [".".join(parts[:count]) for count in range(2, len(parts) + 1)]
        if any(head in self.exact or head.endswith(self.tails) for head in heads if self.exact):
            return True
        if self.globs is not None and any(self.globs.match(head) for head in heads):
            return True
        return any(
            expression.match(f"{root}{head}")
            for expression in self.expressions
            for root in _ROOTS
            for head in heads
        )


def _shortened(pattern: str) -> str:
    """Return a pattern from ``layers.`` on, without the names of what wraps the language model."""
    for root in sorted(_ROOTS, key=len, reverse=True):
        if pattern.startswith(root):
            return pattern.removeprefix(root)
    return pattern
