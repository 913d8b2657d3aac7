"""The matrices, states and scans of layers that mix tokens in another way than the model's own attention."""

from __future__ import annotations

from hermes_flow.config.mixers import (
    AttentionLayers,
    ConvolutionLayers,
    GatedDeltaNetLayers,
    KimiDeltaLayers,
    LightningLayers,
    LinearLayers,
    Mamba2Layers,
    MambaLayers,
    Mixer,
    StateLayers,
)
from hermes_flow.config.model import Model
from hermes_flow.program.quick_dataclass import dataclass

_STATE_BYTES = {"bf16": 2.0, "fp32": 4.0}
# Tokens that one pass of a chunked scan takes: vLLM's chunk_gated_delta_rule and flash-linear-attention.
_CHUNK = 64
# The width of keys and values in the tables that hardware.efficiency.delta_rule is fitted to.
_MEASURED_WIDTH = 128
_KINDS = {
    "gated_delta_net": "linear attention (gated delta net)",
    "kimi_delta_attention": "linear attention (Kimi delta)",
    "mamba2": "Mamba-2",
    "mamba": "Mamba",
    "lightning_attention": "linear attention (lightning)",
    "short_convolution": "short convolutions",
    "linear": "a matrix in place of attention",
    "attention": "attention of another shape",
}


@dataclass(frozen=True, slots=True)
class Gemm:
    """One weight matrix of a layer on one device: in_features × out_features."""

    name: str
    in_features: int
    out_features: int

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.in_features * self.out_features


@dataclass(frozen=True, slots=True)
class DeltaScan:
    """The layers of one kind of the delta rule on one device."""

    layers: float
    """The number of these layers."""
    heads: int
    """The heads on the device, each with a state."""
    size: float
    """The operations of a head, in those of a head of the width that was measured."""
    channels: float
    """The channels of the convolution on the device."""
    state_bytes: float
    """The bytes of a sequence's state in one layer, on the device."""


def split_heads(heads: int, devices: int) -> int:
    """Return the heads on one of ``devices``; each device has one at least."""
    return max(1, heads // devices)


def attention_matrices(layers: AttentionLayers, hidden: int, devices: int) -> tuple[Gemm, ...]:
    """Return the projections of such an attention layer on one of ``devices``."""
    heads, kv_heads = layers.heads // devices, split_heads(layers.kv_heads, devices)
    values = layers.value_head_dim or layers.head_dim
    query = heads * layers.head_dim * (2 if layers.output_gate else 1)
    keys = kv_heads * (layers.head_dim + (values if layers.separate_values else 0))
    return (
        Gemm("qkv", hidden, query + (keys if layers.own_kv else 0)),
        Gemm("attention_out", heads * values, hidden),
    )


def mixer_gemms(mixer: Mixer, model: Model, devices: int) -> tuple[Gemm, ...]:
    """Return the matrices of one layer on one of ``devices``."""
    hidden = model.hidden_size
    match mixer:
        case AttentionLayers():
            return attention_matrices(mixer, hidden, devices)
        case GatedDeltaNetLayers():
            keys, values = mixer.key_heads * mixer.key_head_dim, mixer.value_heads * mixer.value_head_dim
            return (
                Gemm("in", hidden, (2 * keys + 2 * values) // devices),
                Gemm("gates", hidden, 2 * mixer.value_heads // devices),
                Gemm("out", values // devices, hidden),
            )
        case KimiDeltaLayers():
            width = mixer.heads * mixer.head_dim // devices
            return (
                Gemm("in", hidden, 3 * width),
                Gemm("gates_down", hidden, 2 * mixer.head_dim + mixer.heads // devices),
                Gemm("gates_up", mixer.head_dim, 2 * width),
                Gemm("out", width, hidden),
            )
        case Mamba2Layers():
            inner = mixer.heads * mixer.head_dim // devices
            shared = 2 * split_heads(mixer.groups, devices) * mixer.state_size
            return (
                Gemm("in", hidden, 2 * inner + shared + mixer.heads // devices),
                Gemm("out", inner, hidden),
            )
        case MambaLayers():
            inner, rank = mixer.inner_size // devices, mixer.time_step_rank
            return (
                Gemm("in", hidden, 2 * inner),
                Gemm("steps_down", inner, rank + 2 * mixer.state_size),
                Gemm("steps_up", rank, inner),
                Gemm("out", inner, hidden),
            )
        case LightningLayers():
            width = mixer.heads * mixer.head_dim // devices
            return (
                Gemm("qkv", hidden, 3 * width),
                Gemm("gate", hidden, width),
                Gemm("out", width, hidden),
            )
        case ConvolutionLayers():
            width = mixer.width // devices
            return (Gemm("in", hidden, 3 * width), Gemm("out", width, hidden))
        case LinearLayers():
            return (Gemm("linear", hidden, hidden // devices),)


def split_units(mixer: Mixer) -> tuple[str, int]:
    """Return what tensor parallelism divides of these layers, in words, and how many there are."""
    match mixer:
        case GatedDeltaNetLayers():
            return "value heads", mixer.value_heads
        case MambaLayers():
            return "channels", mixer.inner_size
        case ConvolutionLayers():
            return "channels", mixer.width
        case LinearLayers():
            return "matrices", 0
        case _:
            return "heads", mixer.heads


def state_layers(model: Model) -> dict[str, StateLayers]:
    """Return the layers that keep a state, by name."""
    return {
        name: mixer
        for name, mixer in model.mixers.items()
        if not isinstance(mixer, (AttentionLayers, LinearLayers))
    }


def state_bytes(mixer: StateLayers, devices: int = 1) -> float:
    """Return the bytes of one sequence's state in one layer on one of ``devices``.

    The recurrent state has a precision of its own; what the convolution remembers is in bf16 (vLLM,
    ``MambaStateDtypeCalculator``).
    """
    recurrent, channels = _state_size(mixer)
    remembered = channels * (getattr(mixer, "convolution", 1) - 1)
    if isinstance(mixer, ConvolutionLayers):
        return remembered * _STATE_BYTES[mixer.state_precision] / devices
    return (recurrent * _STATE_BYTES[mixer.state_precision] + remembered * 2.0) / devices


def scan_flops(mixer: StateLayers, devices: int = 1) -> float:
    """Return the operations of one token in the scan over the states of one layer, without its matrices.

    A chunked scan reads, decays and writes each element of the state, and multiplies the tokens of a chunk with each
    other (arXiv 2412.06464, section 3.3; arXiv 2405.21060, section 6).
    """
    recurrent, channels = _state_size(mixer)
    convolved = 2.0 * channels * getattr(mixer, "convolution", 1)
    if isinstance(mixer, (ConvolutionLayers, MambaLayers)):
        return (6.0 * recurrent + convolved) / devices
    heads, key, value = _heads(mixer)
    return (heads * _head_flops(key, value) + convolved) / devices


def scans(
    model: Model, devices: int, layers: float, *, delta_rule: bool = True
) -> tuple[float, float, float]:
    """Return what the states of ``layers`` of the model's layers ask of one of ``devices``.

    These are the bytes that a decoding sequence reads and writes, the operations of a token in the scan, and the
    number of layers that keep a state; without those of the delta rule if ``delta_rule`` is false.
    """
    moved = flops = count = 0.0
    for mixer in state_layers(model).values():
        if not delta_rule and isinstance(mixer, (GatedDeltaNetLayers, KimiDeltaLayers)):
            continue
        there = mixer.layers * layers / model.layers
        moved += 2.0 * there * state_bytes(mixer, devices)
        flops += there * scan_flops(mixer, devices)
        count += there
    return moved, flops, count


def delta_scans(model: Model, devices: int, layers: float) -> tuple[DeltaScan, ...]:
    """Return the scans of the delta rule in ``layers`` of the model's layers, on one of ``devices``."""
    found = []
    for mixer in state_layers(model).values():
        if not isinstance(mixer, (GatedDeltaNetLayers, KimiDeltaLayers)):
            continue
        there = mixer.layers * layers / model.layers
        (heads, key, value), (_, channels) = _heads(mixer), _state_size(mixer)
        size = _head_flops(key, value) / _head_flops(_MEASURED_WIDTH, _MEASURED_WIDTH)
        found.append(
            DeltaScan(
                there, split_heads(heads, devices), size, channels / devices, state_bytes(mixer, devices)
            )
        )
    return tuple(found)


def has_delta_rule(model: Model) -> bool:
    """Return whether some layers have the delta rule."""
    return any(isinstance(mixer, (GatedDeltaNetLayers, KimiDeltaLayers)) for mixer in model.mixers.values())


def mixer_words(model: Model) -> list[str]:
    """Return each kind of other layers in words, with the number of its layers."""
    return [f"{mixer.layers} layers of {_KINDS[mixer.kind]} ({name})" for name, mixer in model.mixers.items()]


def _head_flops(key: int, value: int) -> float:
    """Return the operations of one token in a chunked scan over one head with keys and values of these widths."""
    return 6.0 * key * value + _CHUNK * 5.0 * (key + value)


def _state_size(mixer: StateLayers) -> tuple[int, int]:
    """Return the elements of the recurrent state of all heads, and the channels of the convolution."""
    match mixer:
        case GatedDeltaNetLayers():
            keys, values = mixer.key_heads * mixer.key_head_dim, mixer.value_heads * mixer.value_head_dim
            return values * mixer.key_head_dim, 2 * keys + values
        case KimiDeltaLayers():
            return mixer.heads * mixer.head_dim**2, 3 * mixer.heads * mixer.head_dim
        case Mamba2Layers():
            inner = mixer.heads * mixer.head_dim
            return inner * mixer.state_size, inner + 2 * mixer.groups * mixer.state_size
        case MambaLayers():
            return mixer.inner_size * mixer.state_size, mixer.inner_size
        case LightningLayers():
            return mixer.heads * mixer.head_dim**2, 0
        case ConvolutionLayers():
            return 0, mixer.width


def _heads(mixer: StateLayers) -> tuple[int, int, int]:
    """Return the heads of a scan, and the widths of their keys and values."""
    match mixer:
        case GatedDeltaNetLayers():
            return mixer.value_heads, mixer.key_head_dim, mixer.value_head_dim
        case Mamba2Layers():
            return mixer.heads, mixer.state_size, mixer.head_dim
        case KimiDeltaLayers() | LightningLayers():
            return mixer.heads, mixer.head_dim, mixer.head_dim
        case _:
            return 0, 0, 0
