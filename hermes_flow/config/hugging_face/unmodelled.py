"""Refuses models with layers that have no cost model, by the key of the config.json that says so."""

from __future__ import annotations

import re

from hermes_flow.config.hugging_face.source import Source

# Keys that change layers in a way that the catalog cannot say, and what they are.
_SHAPES = {
    "cross_attention_layers": "cross-attention layers",
    "zero_expert_num": "experts that compute nothing",
    "compress_ratios": "attention over compressed tokens",
    "use_cla": "layers that use the KV of others (CLA)",
    "is_encoder_decoder": "an encoder and a decoder",
}


def check_modelled(source: Source) -> None:
    """Raise ConfigError where layers or modules of the model have no cost model."""
    for name, what in _SHAPES.items():
        if source.get(name):
            raise source.fault(
                name, f"{what}, for which there is no cost model; this model cannot be imported"
            )


# Keys that are numbers like those of a shape, and change neither weights nor times here.
_HARMLESS = frozenset(
    (
        *("attention_head_dim", "block_dim", "block_ff_dim", "chunk_size", "ep_size", "experts_per_token"),
        *("full_attention_interval", "head_dim", "intermediate_size", "laurel_rank", "mamba_chunk_size"),
        *("mamba_expand", "max_window_layers", "mtp_num_hidden_layers", "mtp_transformer_layers"),
        *("no_rope_layer_interval", "num_beam_groups", "num_beams", "num_labels", "num_logits_to_keep"),
        *("num_mtp_modules", "num_nextn_predict_layers", "num_return_sequences", "qk_head_dim", "rotary_dim"),
        *("sliding_window_size", "time_step_rank", "vocab_size_per_layer_input"),
    )
)
_SHAPE = re.compile(r"expert|share|layer|dim|size|rank|head|inter|hidden|width|depth|num_")


def unread(source: Source) -> list[str]:
    """Return a note on keys of the language model that look like a part of its shape and are not read."""
    names = [
        name
        for name, value in source.keys.items()
        if type(value) is int and value > 1 and name not in source.asked and name not in _HARMLESS
        if _SHAPE.search(name) and not name.endswith("_token_id")
    ]
    return [f"keys of its shape that are not read: {', '.join(sorted(names))}"] if names else []
