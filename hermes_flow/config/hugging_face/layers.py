"""The mixers of a model layer by layer: attention of several shapes, linear attention, Mamba, or none at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hermes_flow.config.hugging_face.families import Family
from hermes_flow.config.hugging_face.source import Source

_WINDOWED = ("sliding_attention", "chunked_attention", "sliding_window_attention", "swa")
_FULL = ("full_attention", "attention", "global_attention", "full")
_MAMBA = ("mamba", "mamba2", "mamba_2")
_PATTERN = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one shape; ``window`` is None for the whole context."""

    heads: int
    kv_heads: int
    head_dim: int
    value_head_dim: int | None = None
    window: int | None = None
    separate_values: bool = True
    own_kv: bool = True

    def entry(self) -> dict[str, Any]:
        """Return it as the catalog writes a mixer, without the number of layers."""
        names = ("heads", "kv_heads", "head_dim", "value_head_dim", "window", "separate_values", "own_kv")
        return {"kind": "attention", **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class State:
    """A layer that keeps a state, or one matrix in place of attention: its keys in the catalog."""

    name: str
    keys: tuple[tuple[str, Any], ...]

    def entry(self) -> dict[str, Any]:
        """Return it as the catalog writes a mixer, without the number of layers."""
        return dict(self.keys)


LayerMixer: TypeAlias = Attention | State


@dataclass(frozen=True, slots=True)
class Mixers:
    """The mixers of every layer, and which of them is the model's own attention (with and without a window)."""

    layers: tuple[tuple[LayerMixer, ...], ...]
    own: Attention
    names: Mapping[LayerMixer, str] = field(default_factory=dict)

    def of(self, name: str) -> list[int]:
        """Return the layers that have the mixer ``name``; ``attention`` is the model's own."""
        return [
            number
            for number, mixers in enumerate(self.layers)
            if any(self.names[mixer] == name for mixer in mixers)
        ]


def mixers_of(source: Source, family: Family, own: Attention) -> Mixers:
    """Return the mixers of every layer; ``own`` is attention over the whole context, as the top-level keys have it.

    Raises ConfigError for kinds of layers that are not known.
    """
    kinds = _kinds(source, family)
    layers = tuple(
        tuple(mixer for kind in several for mixer in [_mixer(source, family, own, kind, number, kinds)])
        for number, several in enumerate(kinds)
    )
    plain = _most_frequent(layers) or own
    names: dict[LayerMixer, str] = {}
    for mixer in (mixer for several in layers for mixer in several):
        if mixer not in names:
            names[mixer] = _name(mixer, plain, set(names.values()))
    return Mixers(layers, plain, names)


def _kinds(source: Source, family: Family) -> list[tuple[str, ...]]:
    """Return the kinds of mixers of every layer, in the words of ``layer_types``."""
    count = source.integer("num_hidden_layers")
    pattern = source.get("hybrid_override_pattern")
    types = source.get("layer_types", "layers_block_type")
    linear = source.get("linear_attn_config")
    if isinstance(pattern, str):
        types = [_PATTERN.get(letter, letter) for letter in pattern]
    elif isinstance(linear, Mapping) and isinstance(linear.get("kda_layers"), list):
        types = ["kda" if layer + 1 in linear["kda_layers"] else "full_attention" for layer in range(count)]
    elif isinstance(listed := source.get("attn_type_list"), list):
        types = ["full_attention" if kind == 1 else "lightning" for kind in listed]
    elif isinstance(listed := source.get("hybrid_layer_pattern"), list):
        types = ["sliding_attention" if kind else "full_attention" for kind in listed]
    elif isinstance(listed := source.get("block_configs"), list):
        types = [_block_kind(block) for block in listed]
    elif types is None and source.get("attn_layer_period"):
        period, offset = source.integer("attn_layer_period"), source.count("attn_layer_offset")
        types = ["attention" if layer % period == offset else "mamba" for layer in range(count)]
    elif types is None and source.get("full_attn_idxs"):
        types = [
            "full_attention" if layer in source.get("full_attn_idxs") else "conv" for layer in range(count)
        ]
    elif types is None and source.get("linear_num_value_heads"):
        every = source.integer("full_attention_interval", default=4)
        types = ["linear_attention" if (layer + 1) % every else "full_attention" for layer in range(count)]
    elif types is None and (source.get("mamba_d_ssm") or source.get("model_type") == "falcon_h1"):
        return [("attention", "mamba")] * count
    if types is None and source.get("mamba_d_state", "mamba_n_heads", "mamba_num_heads", "ssm_state_size"):
        raise source.fault("layer_types", "missing, and other keys say that some of the layers are Mamba")
    if types is None:
        return [(kind,) for kind in _window_kinds(source, family, count)]
    if not isinstance(types, list) or len(types) != count:
        length = len(types) if isinstance(types, list) else 0
        raise source.fault(_type_key(source), f"{length} entries for {count} layers")
    return [() if kind in ("mlp", "moe", "none") else (str(kind),) for kind in types]


def _type_key(source: Source) -> str:
    names = ("layer_types", "layers_block_type", "hybrid_override_pattern", "attn_type_list", "block_configs")
    return next((name for name in names if source.get(name)), "layer_types")


def _block_kind(block: Any) -> str:
    """Return the kind of attention in one entry of ``block_configs`` (Nemotron Super and Ultra)."""
    attention = block.get("attention") if isinstance(block, Mapping) else None
    if not isinstance(attention, Mapping) or attention.get("no_op"):
        return "none"
    return "linear" if attention.get("replace_with_linear") else "full_attention"


def _window_kinds(source: Source, family: Family, count: int) -> list[str]:
    """Return which layers have a window where no list says it."""
    every = source.get("global_attn_every_n_layers")
    if isinstance(every, int) and source.get("local_attention"):  # ModernBERT
        return ["full_attention" if layer % every == 0 else "sliding_attention" for layer in range(count)]
    size = source.get("sliding_window", "attention_chunk_size")
    rule = family.windows
    if size is None or rule == "none" or (rule == "qwen" and not source.get("use_sliding_window")):
        return ["full_attention"] * count
    if rule == "even":
        windowed = [layer % 2 == 0 for layer in range(count)]
    elif rule in ("pattern", "gemma4"):
        every = source.get("sliding_window_pattern")
        every = (
            _period(every) if isinstance(every, str) else source.integer("sliding_window_pattern", default=6)
        )
        windowed = [(layer + 1) % every != 0 for layer in range(count)]
    elif rule == "qwen":
        windowed = [layer >= source.count("max_window_layers") for layer in range(count)]
    elif rule == "llama4":
        every = source.integer("no_rope_layer_interval", default=4)
        windowed = [(layer + 1) % every != 0 for layer in range(count)]
    else:
        windowed = [True] * count
    return ["sliding_attention" if each else "full_attention" for each in windowed]


def _period(pattern: str) -> int:
    """Return the period of a pattern such as LLLG."""
    return max(1, len(pattern))


def _mixer(
    source: Source,
    family: Family,
    own: Attention,
    kind: str,
    layer: int,
    kinds: list[tuple[str, ...]],
) -> LayerMixer:
    if kind in _FULL or kind in _WINDOWED:
        return _attention(source, family, own, kind in _WINDOWED, layer, kinds)
    if kind == "linear":
        return State("linear", (("kind", "linear"),))
    if kind in _MAMBA:
        return mamba_layer(source)
    if kind == "linear_attention" and source.get("linear_num_value_heads"):
        return State("gated_delta_net", tuple(_gated_delta_net(source).items()))
    if kind == "kda":
        return State("kimi_delta_attention", tuple(_kimi_delta(source).items()))
    lightning = kind == "linear_attention" and str(source.get("model_type")).startswith("minimax")
    if kind == "lightning" or lightning:
        keys = {"kind": "lightning_attention", "heads": own.heads, "head_dim": own.head_dim}
        return State("lightning_attention", tuple(keys.items()))
    if kind == "conv":
        width = source.integer("conv_dim", "hidden_size")
        keys = {
            "kind": "short_convolution",
            "width": width,
            "convolution": source.integer("conv_L_cache", default=3),
        }
        return State("short_convolution", tuple(keys.items()))
    raise source.fault(
        _type_key(source),
        f"layer {layer} is {kind!r}, for which there is no cost model; this model cannot be imported",
    )


def _attention(
    source: Source, family: Family, own: Attention, windowed: bool, layer: int, kinds: list[tuple[str, ...]]
) -> Attention:
    """Return the attention of one layer, with the keys that give some layers other heads than the rest."""
    heads, kv_heads, head_dim, values = own.heads, own.kv_heads, own.head_dim, own.value_head_dim
    separate, own_kv = True, True
    window = (
        source.integer("sliding_window", "attention_chunk_size", "sliding_window_size", "local_attention")
        if windowed
        else None
    )
    if windowed:
        heads = source.integer("swa_num_attention_heads", default=heads)
        kv_heads = source.integer("swa_num_key_value_heads", default=kv_heads)
        head_dim = source.integer("swa_head_dim", default=head_dim)
        values = source.get("swa_v_head_dim") or values
        other = source.get("attention_other_setting")
        if isinstance(other, Mapping):
            heads = int(other.get("num_attention_heads", heads))
            kv_heads = int(other.get("num_attention_groups", kv_heads))
            head_dim = int(other.get("head_dim", head_dim))
    elif family.windows == "gemma4":
        head_dim = source.integer("global_head_dim", default=head_dim)
        if source.get("attention_k_eq_v"):
            kv_heads = source.integer("num_global_key_value_heads", default=kv_heads)
            separate = False
    listed = source.get("num_attention_heads_per_layer")
    if isinstance(listed, list) and len(listed) == len(kinds):
        heads = int(listed[layer])
    blocks = source.get("block_configs")
    if isinstance(blocks, list):
        group = blocks[layer]["attention"].get("n_heads_in_group")
        kv_heads = heads // int(group) if group else kv_heads
        window = blocks[layer]["attention"].get("window_length") or window
    if layer >= len(kinds) - source.count("num_kv_shared_layers"):
        own_kv = False
    values = None if values == head_dim else values
    return Attention(heads, kv_heads, head_dim, values, window, separate, own_kv)


def mamba_layer(source: Source) -> State:
    """Return a Mamba layer of the version that the keys describe."""
    precision = _state_precision(source)
    heads = source.get("mamba_num_heads", "mamba_n_heads")
    if heads:
        keys = {
            "kind": "mamba2",
            "heads": source.integer("mamba_num_heads", "mamba_n_heads"),
            "head_dim": source.integer("mamba_head_dim", "mamba_d_head"),
            "state_size": source.integer("ssm_state_size", "mamba_d_state", "mamba_state_dim"),
            "groups": source.integer("n_groups", "mamba_n_groups", default=1),
            "convolution": source.integer("conv_kernel", "mamba_d_conv", default=4),
            "state_precision": precision,
        }
        return State("mamba", tuple(keys.items()))
    hidden = source.integer("hidden_size")
    rank = source.get("mamba_dt_rank", "time_step_rank")
    keys = {
        "kind": "mamba",
        "inner_size": source.integer("mamba_expand", "expand", default=2) * hidden,
        "state_size": source.integer("mamba_d_state", "state_size", default=16),
        "time_step_rank": rank if isinstance(rank, int) else -(-hidden // 16),
        "convolution": source.integer("mamba_d_conv", "conv_kernel", default=4),
        "state_precision": precision,
    }
    return State("mamba", tuple(keys.items()))


def _gated_delta_net(source: Source) -> dict[str, Any]:
    return {
        "kind": "gated_delta_net",
        "key_heads": source.integer("linear_num_key_heads"),
        "value_heads": source.integer("linear_num_value_heads"),
        "key_head_dim": source.integer("linear_key_head_dim"),
        "value_head_dim": source.integer("linear_value_head_dim"),
        "convolution": source.integer("linear_conv_kernel_dim", default=4),
        "state_precision": _state_precision(source),
    }


def _kimi_delta(source: Source) -> dict[str, Any]:
    given = source.get("linear_attn_config")
    return {
        "kind": "kimi_delta_attention",
        "heads": int(given["num_heads"]),
        "head_dim": int(given["head_dim"]),
        "convolution": int(given.get("short_conv_kernel_size", 4)),
    }


def _state_precision(source: Source) -> str:
    """Return the precision of a state: engines keep it in that of the model where the config says nothing."""
    given = source.get("mamba_ssm_dtype", "mamba_ssm_cache_dtype")
    return "fp32" if given == "float32" else "bf16"


def _most_frequent(layers: tuple[tuple[LayerMixer, ...], ...]) -> Attention | None:
    """Return the attention that becomes the model's own, without its window: over the whole context if there is any.

    A shape that most layers share with a window is taken where it occurs with and without one.
    """
    counts: dict[Attention, int] = {}
    for mixer in (mixer for several in layers for mixer in several):
        if isinstance(mixer, Attention) and mixer.own_kv and mixer.separate_values:
            counts[mixer] = counts.get(mixer, 0) + 1
    if not counts:
        return None
    full = {mixer: count for mixer, count in counts.items() if mixer.window is None}
    return max(full or counts, key=lambda mixer: (full or counts)[mixer])


def _name(mixer: LayerMixer, own: Attention, taken: set[str]) -> str:
    """Return the name of a mixer in the catalog; ``attention`` is the model's own, whatever its window."""
    if isinstance(mixer, State):
        name = mixer.name
    else:
        if _same_shape(mixer, own):
            return "attention"
        name = "full_attention" if mixer.window is None else "sliding_attention"
        name = name if mixer.own_kv else f"{name}_on_shared_kv"
    number, unique = 2, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _same_shape(mixer: Attention, own: Attention) -> bool:
    names = ("heads", "kv_heads", "head_dim", "value_head_dim", "separate_values", "own_kv")
    return all(getattr(mixer, name) == getattr(own, name) for name in names)
