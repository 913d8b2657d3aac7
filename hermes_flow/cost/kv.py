"""The bytes that a sequence keeps on one device: KV that grows, KV within windows, and states of constant size."""

from __future__ import annotations

import math

from hermes_flow.config.mixer_shape import split_heads, state_bytes, state_layers
from hermes_flow.config.schema import AttentionLayers, Model
from hermes_flow.config.shape import BYTES, attention_layers, local_kv_heads, share_of
from hermes_flow.program.quick_dataclass import dataclass

# An indexer keeps one fp8 key a token, and four bytes of scale for each 128 numbers (vLLM, DeepseekV32IndexerCache).
_INDEX_SCALE_BYTES, _INDEX_SCALED = 4, 128
# An fp8 latent cache of sparse attention: 512 bytes of values, four scales in fp32, the rotary part in bf16 (vLLM,
# cache layout fp8_ds_mla).
_LATENT_SCALES = 4


@dataclass(frozen=True, slots=True)
class KVLayers:
    """Layers of one kind: how many, the bytes of a token in one of them, and the window that they look back over."""

    layers: float
    bytes_per_token: float
    window: int | None = None


def kv_layers(model: Model, tensor_parallel: int = 1, layers: int | None = None) -> tuple[KVLayers, ...]:
    """Return the layers with a KV cache, of all or of a rank's ``layers``; a latent cache is not split by devices."""
    found = []
    own, one = attention_layers(model, layers), _own_bytes(model, tensor_parallel)
    windowed = windowed_layers(model, layers)
    if own - windowed:
        found.append(KVLayers(own - windowed, one))
    if windowed and model.sliding_window is not None:
        found.append(KVLayers(windowed, one, model.sliding_window.tokens))
    sparse = model.sparse_attention
    if sparse is not None:
        count = share_of(model, sparse.layers or round(attention_layers(model)), layers)
        found.append(KVLayers(count, index_bytes(model)))
    for mixer in model.mixers.values():
        if not isinstance(mixer, AttentionLayers) or not mixer.own_kv:
            continue
        size = mixer_kv_bytes(model, mixer, tensor_parallel)
        window = mixer.window if mixer.window is not None and mixer.window < model.max_context else None
        found.append(KVLayers(share_of(model, mixer.layers, layers), size, window))
    return tuple(found)


def kv_bytes_per_token(model: Model, tensor_parallel: int = 1, layers: int | None = None) -> float:
    """KV-cache bytes of one token on one device, of all layers or of so many, within and beyond windows."""
    return math.fsum(kind.layers * kind.bytes_per_token for kind in kv_layers(model, tensor_parallel, layers))


def own_kv_bytes_per_token(model: Model, tensor_parallel: int, layers: int) -> float:
    """KV-cache bytes of one token on one device in the layers with the model's own attention."""
    return attention_layers(model, layers) * _own_bytes(model, tensor_parallel)


def mixer_kv_bytes(model: Model, mixer: AttentionLayers, tensor_parallel: int) -> float:
    """KV-cache bytes of one token on one device in one layer of such attention."""
    width = mixer.head_dim + (mixer.value_head_dim or mixer.head_dim)
    return split_heads(mixer.kv_heads, tensor_parallel) * width * BYTES[model.precision.kv_cache]


def windowed_kv_bytes_per_token(model: Model, tensor_parallel: int = 1, layers: int | None = None) -> float:
    """KV-cache bytes of one token on one device in the layers with a window, within ``kv_bytes_per_token``."""
    kinds = kv_layers(model, tensor_parallel, layers)
    return math.fsum(kind.layers * kind.bytes_per_token for kind in kinds if kind.window is not None)


def windowed_layers(model: Model, layers: int | None = None) -> float:
    """Return how many layers of the model's own attention have a window, of all or of a rank's ``layers``."""
    window = model.sliding_window
    if window is None or window.tokens >= model.max_context:
        return 0
    return window.layers if layers is None else window.layers * layers / model.layers


def state_bytes_per_sequence(model: Model, tensor_parallel: int = 1, layers: int | None = None) -> float:
    """Bytes that every sequence keeps on one device, whatever its length; 0 without linear layers."""
    return math.fsum(
        share_of(model, mixer.layers, layers) * state_bytes(mixer, tensor_parallel)
        for mixer in state_layers(model).values()
    )


def index_bytes(model: Model) -> float:
    """Bytes of one token that the indexer of a layer keeps on each device."""
    sparse = model.sparse_attention
    if sparse is None:
        return 0.0
    return sparse.head_dim + _INDEX_SCALE_BYTES * -(-sparse.head_dim // _INDEX_SCALED)


def _own_bytes(model: Model, tensor_parallel: int) -> float:
    """Bytes of one token in one layer of the model's own attention."""
    size = BYTES[model.precision.kv_cache]
    latent = model.latent_attention
    if latent is not None:
        if model.sparse_attention is not None and model.precision.kv_cache == "fp8":
            return latent.kv_lora_rank + 4.0 * _LATENT_SCALES + 2.0 * latent.rope_head_dim
        return (latent.kv_lora_rank + latent.rope_head_dim) * size
    width = model.head_dim + (model.value_head_dim or model.head_dim)
    return local_kv_heads(model, tensor_parallel) * width * size
