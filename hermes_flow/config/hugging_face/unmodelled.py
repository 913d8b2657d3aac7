"""Refuses models with layers that have no cost model, by the key of the config.json that says so."""

from __future__ import annotations

from collections import Counter

from hermes_flow.config.hugging_face.families import UNKNOWN_LAYERS
from hermes_flow.config.hugging_face.source import Source

_KNOWN_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")
_PATTERN = {"M": "Mamba (state space)"}

# Keys that change the shape of layers in a way that the catalog cannot say, and what they are.
_SHAPES = {
    "block_configs": "every layer has a shape of its own",
    "enable_moe_block": "experts beside a dense MLP in the same layer",
    "attention_k_eq_v": "keys and values that are the same",
    "global_head_dim": "heads of another size in full-attention layers",
    "num_kv_shared_layers": "layers that share the KV cache of others",
    "hidden_size_per_layer_input": "embeddings for every layer",
    "cross_attention_layers": "cross-attention layers",
    "zero_expert_num": "experts that compute nothing",
    "attn_output_gate": "a gate on the output of attention",
}
_LAYERS = {
    "index_topk": "sparse attention (DSA)",
    "linear_num_value_heads": "linear attention (gated delta net)",
    "linear_attn_config": "linear attention",
    "ssm_state_size": "Mamba (state space)",
    "mamba_d_state": "Mamba (state space)",
    "mamba_num_heads": "Mamba (state space)",
}


def check_modelled(source: Source) -> None:
    """Raise ConfigError where layers or modules of the model have no cost model."""
    layers = source.get("num_hidden_layers")
    types = source.get("layer_types")
    if isinstance(types, list):
        for kind, count in Counter(types).items():
            if kind not in _KNOWN_LAYERS:
                what = UNKNOWN_LAYERS.get(kind, kind)
                raise _no_cost(source, "layer_types", f"{count} of {len(types)} layers are {what}")
    pattern = source.get("hybrid_override_pattern")
    if isinstance(pattern, str) and "M" in pattern:
        count = pattern.count("M")
        raise _no_cost(
            source, "hybrid_override_pattern", f"{count} of {len(pattern)} layers are {_PATTERN['M']}"
        )
    listed = source.get("attn_type_list")
    if isinstance(listed, list) and (count := sum(kind != 1 for kind in listed)):
        raise _no_cost(source, "attn_type_list", f"{count} of {len(listed)} layers are lightning attention")
    for name, what in _LAYERS.items():
        if source.get(name):
            raise _no_cost(source, name, f"all {layers} layers have {what}" if name == "index_topk" else what)
    for name, what in _SHAPES.items():
        if source.get(name):
            raise _no_cost(source, name, what)


def _no_cost(source: Source, name: str, what: str) -> Exception:
    return source.fault(name, f"{what}, for which there is no cost model; this model cannot be imported")
