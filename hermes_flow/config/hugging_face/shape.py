"""The shape of a model from the keys of its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hermes_flow.config.hugging_face.families import Family
from hermes_flow.config.hugging_face.layers import Attention, Mixers, mixers_of
from hermes_flow.config.hugging_face.mlps import MLPs, experts_of, mlp_width, mlps_of
from hermes_flow.config.hugging_face.source import Source


@dataclass(frozen=True, slots=True)
class Layout:
    """What each layer of a model has, by which modules are found in a checkpoint."""

    mixers: Mixers
    mlps: MLPs


def layout_of(source: Source, family: Family) -> Layout:
    """Return the mixers and MLPs of every layer; raises ConfigError for layers that are not known."""
    heads, head_dim = _heads(source, family)
    kv_heads = source.integer("num_key_value_heads", "num_attention_groups", default=heads)
    if family.latent and source.get("kv_lora_rank"):
        kv_heads = heads
    if source.get("block_configs") is None and heads % kv_heads:
        raise source.fault("num_key_value_heads", f"{kv_heads} does not divide the {heads} attention heads")
    values = None if family.latent else source.get("v_head_dim")
    own = Attention(heads, kv_heads, head_dim, None if values == head_dim else values)
    return Layout(mixers_of(source, family, own), mlps_of(source, family))


def shape_of(source: Source, family: Family, layout: Layout) -> dict[str, Any]:
    """Return the shape as the catalog writes it: layers, heads, MLP, experts, windows; raises ConfigError."""
    mixers, mlps = layout.mixers, layout.mlps
    own, layers = mixers.own, source.integer("num_hidden_layers")
    latent = _latent(source) if family.latent and source.get("kv_lora_rank") else None
    mine = mixers.of("attention")
    others = {
        name: {"layers": len(mixers.of(name)), **mixer.entry()}
        for mixer, name in mixers.names.items()
        if name != "attention"
    }
    left = layers - sum(other["layers"] for other in others.values())
    dense = len(mlps.of("mlp"))
    widths = {
        name: {"layers": len(mlps.of(name)), "intermediate_size": width}
        for width, name in mlps.names.items()
        if name != "mlp"
    }
    own_mlps = layers - sum(other["layers"] for other in widths.values())
    return {
        "layers": layers,
        "hidden_size": source.integer("hidden_size"),
        "heads": own.heads,
        "kv_heads": own.kv_heads,
        "head_dim": own.head_dim,
        "intermediate_size": mlp_width(source, mlps),
        "mlp": "plain" if family.plain_mlp else "gated",
        "vocab_size": source.integer("vocab_size"),
        "tied_embeddings": family.encoder or bool(source.get("tie_word_embeddings")),
        "max_context": source.integer(
            "max_position_embeddings", "seq_length", "model_max_length", "n_positions"
        )
        - family.positions_from,
        "attention": "bidirectional" if family.encoder or _both_ways(source) else "causal",
        "sliding_window": _window(mixers, mine),
        "latent_attention": latent,
        "experts": experts_of(source, family, mlps),
        "attention_layers": None if len(mine) == left else len(mine),
        "value_head_dim": own.value_head_dim if latent is None else None,
        "output_gate": bool(source.get("attn_output_gate")),
        "head_norms": family.head_norms or bool(source.get("use_qk_norm", "qk_norm", "qk_layernorm")),
        "norm_over_all_heads": bool(source.get("use_qk_norm")) and source.get("qk_norm_type") == "per_layer",
        "sparse_attention": _sparse(source, layers),
        "mixers": _gated(others, bool(source.get("attn_output_gate"))),
        "mlp_layers": None if mlps.mixtures or dense == own_mlps else dense,
        "mlps": widths,
        "layer_inputs": _layer_inputs(source),
    }


def _heads(source: Source, family: Family) -> tuple[int, int]:
    """Return the heads, and the width of one head's queries and keys."""
    heads, hidden = source.integer("num_attention_heads"), source.integer("hidden_size")
    if family.latent and source.get("kv_lora_rank"):
        latent = _latent(source)
        return heads, latent["nope_head_dim"] + latent["rope_head_dim"]
    if source.get("head_dim", "attention_head_dim") is not None:
        return heads, source.integer("head_dim", "attention_head_dim")
    if hidden % heads:
        raise source.fault("head_dim", f"missing, and {heads} heads do not divide hidden_size ({hidden})")
    return heads, hidden // heads


def _both_ways(source: Source) -> bool:
    return source.get("use_bidirectional_attention") is True or source.get("is_causal") is False


def _latent(source: Source) -> dict[str, Any]:
    rank = source.get("q_lora_rank")
    return {
        "q_lora_rank": None if rank is None else source.integer("q_lora_rank"),
        "kv_lora_rank": source.integer("kv_lora_rank"),
        "rope_head_dim": source.integer("qk_rope_head_dim"),
        "nope_head_dim": source.integer("qk_nope_head_dim"),
        "v_head_dim": source.integer("v_head_dim"),
    }


def _sparse(source: Source, layers: int) -> dict[str, Any] | None:
    """Return the indexer of DeepSeek sparse attention."""
    if not source.get("index_topk"):
        return None
    kinds = source.get("indexer_types")
    own = sum(kind == "full" for kind in kinds) if isinstance(kinds, list) else None
    return {
        "heads": source.integer("index_n_heads"),
        "head_dim": source.integer("index_head_dim"),
        "tokens": source.integer("index_topk"),
        "layers": None if own in (None, layers) else own,
    }


def _layer_inputs(source: Source) -> dict[str, int] | None:
    size = source.count("hidden_size_per_layer_input")
    if not size:
        return None
    return {"vocab_size": source.integer("vocab_size_per_layer_input", "vocab_size"), "size": size}


def _window(mixers: Mixers, mine: list[int]) -> Mapping[str, int] | None:
    """Return the window of the model's own attention and how many layers have it."""
    windows = [
        mixer.window
        for layer in mine
        for mixer in mixers.layers[layer]
        if isinstance(mixer, Attention) and mixer.window is not None and mixers.names[mixer] == "attention"
    ]
    if not windows:
        return None
    return {"tokens": max(windows), "layers": len(windows)}


def _gated(others: dict[str, dict[str, Any]], gate: bool) -> dict[str, dict[str, Any]]:
    """Return the mixers with the gate that all attention of the model has."""
    if not gate:
        return others
    return {
        name: {**entry, "output_gate": True} if entry["kind"] == "attention" else entry
        for name, entry in others.items()
    }
