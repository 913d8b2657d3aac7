"""The shape of a model from the keys of its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_flow.config.hugging_face.families import Family
from hermes_flow.config.hugging_face.source import Source


def shape_of(source: Source, family: Family) -> dict[str, Any]:
    """Return the shape as the catalog writes it: layers, heads, MLP, experts, windows; raises ConfigError."""
    heads = source.integer("num_attention_heads")
    hidden = source.integer("hidden_size")
    kv_heads = source.integer("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise source.fault("num_key_value_heads", f"{kv_heads} does not divide the {heads} attention heads")
    head_dim = source.get("head_dim", "attention_head_dim")
    if head_dim is None and hidden % heads:
        raise source.fault("head_dim", f"missing, and {heads} heads do not divide hidden_size ({hidden})")
    latent = _latent(source) if family.latent else None
    if latent is not None:
        head_dim, kv_heads = latent["nope_head_dim"] + latent["rope_head_dim"], heads
    elif head_dim is None:
        head_dim = hidden // heads
    else:
        head_dim = source.integer("head_dim", "attention_head_dim")
    layers = source.integer("num_hidden_layers")
    experts = _experts(source, family, layers)
    return {
        "layers": layers,
        "hidden_size": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": _dense_width(source, family),
        "mlp": "plain" if family.encoder else "gated",
        "vocab_size": source.integer("vocab_size"),
        "tied_embeddings": family.encoder or bool(source.get("tie_word_embeddings")),
        "max_context": source.integer("max_position_embeddings") - family.positions_from,
        "attention": "bidirectional" if family.encoder or _both_ways(source) else "causal",
        "sliding_window": _windows(source, family, layers),
        "latent_attention": latent,
        "experts": experts,
    }


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


def _dense_width(source: Source, family: Family) -> int:
    if family.experts == "llama4":
        return source.integer("intermediate_size_mlp", "intermediate_size")
    return source.integer("intermediate_size")


def _experts(source: Source, family: Family, layers: int) -> dict[str, Any] | None:
    if family.experts == "none":
        return None
    count = source.integer("num_local_experts", "n_routed_experts", "num_experts")
    width = source.integer("moe_intermediate_size", "intermediate_size")
    shared = source.count("n_shared_experts")
    if family.experts == "llama4":
        shared = 1
    total = source.count("shared_expert_intermediate_size", "shared_intermediate_size")
    if total:
        if total % width:
            raise source.fault(
                "shared_expert_intermediate_size", f"{total} is not a multiple of an expert's width ({width})"
            )
        shared = total // width
    return {
        "count": count,
        "per_token": source.integer("num_experts_per_tok", "experts_per_token"),
        "intermediate_size": width,
        "shared": shared,
        "dense_layers": len(dense_layers(source, family, layers)),
    }


def dense_layers(source: Source, family: Family, layers: int) -> list[int]:
    """Return the numbers of the layers that have a dense MLP, beginning with 0."""
    if family.experts == "none":
        return list(range(layers))
    if family.experts == "deepseek":
        first, every = source.count("first_k_dense_replace"), source.integer("moe_layer_freq", default=1)
        return [layer for layer in range(layers) if layer < first or layer % every]
    if family.experts == "qwen":
        every = source.integer("decoder_sparse_step", default=1)
        dense = source.get("mlp_only_layers") or []
        return [layer for layer in range(layers) if layer in dense or (layer + 1) % every]
    if family.experts == "llama4":
        sparse = source.get("moe_layers")
        every = source.integer("interleave_moe_layer_step", default=1)
        return [
            layer
            for layer in range(layers)
            if (layer not in sparse if isinstance(sparse, list) else (layer + 1) % every)
        ]
    return []


def _windows(source: Source, family: Family, layers: int) -> Mapping[str, int] | None:
    """Return the window and how many layers have it; a chunk of Llama 4 counts as a window of its size."""
    if family.windows == "qwen" and not source.get("use_sliding_window"):
        return None
    size = source.get("sliding_window", "attention_chunk_size")
    types = source.get("layer_types")
    if isinstance(types, list):
        if len(types) != layers:
            raise source.fault("layer_types", f"{len(types)} entries for {layers} layers")
        windowed = sum(kind in ("sliding_attention", "chunked_attention") for kind in types)
    elif size is None:
        windowed = 0
    elif family.windows == "even":
        windowed = (layers + 1) // 2
    elif family.windows == "pattern":
        windowed = layers - layers // source.integer("sliding_window_pattern")
    elif family.windows == "qwen":
        windowed = max(0, layers - source.count("max_window_layers"))
    elif family.windows == "llama4":
        windowed = layers - layers // source.integer("no_rope_layer_interval", default=4)
    else:
        windowed = layers if family.windows == "all" else 0
    if not windowed:
        return None
    return {"tokens": source.integer("sliding_window", "attention_chunk_size"), "layers": windowed}
