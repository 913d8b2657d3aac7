"""Refuses models with layers that have no cost model, by the key of the config.json that says so."""

from __future__ import annotations

from hermes_flow.config.hugging_face.source import Source

# Keys that change layers in a way that the catalog cannot say, and what they are.
_SHAPES = {
    "cross_attention_layers": "cross-attention layers",
    "zero_expert_num": "experts that compute nothing",
    "compress_ratios": "attention over compressed tokens",
    "is_encoder_decoder": "an encoder and a decoder",
}


def check_modelled(source: Source) -> None:
    """Raise ConfigError where layers or modules of the model have no cost model."""
    for name, what in _SHAPES.items():
        if source.get(name):
            raise source.fault(
                name, f"{what}, for which there is no cost model; this model cannot be imported"
            )
