"""How the roofline counts attention that does not read the whole context: windows, and the tokens of an indexer.

The cost of a step is linear in the context of its sequences, and min(context, window) is not. A short window is
nearly always full, a long one nearly always within the context.
"""

from __future__ import annotations

from hermes_flow.config.schema import AttentionLayers, Model
from hermes_flow.config.shape import attention_layers, pair_head_dim, share_of
from hermes_flow.cost.kv import index_bytes, mixer_kv_bytes, windowed_layers
from hermes_flow.program.quick_dataclass import dataclass

SHORT_WINDOW = 1024
# source: AIConfigurator's tables of sparse attention (Apache-2.0; vLLM 0.24): for prompts of 8,192 tokens on H100 and
# H200, modules with 1 to 32 heads take 0.65 to 1.2 times as long as with 64, and those with 128 take 1.7 times as
# long. FlashMLA's sparse kernels work on 64 or 128 heads
SPARSE_HEADS = 64


@dataclass(frozen=True, slots=True)
class Attended:
    """Attention layers of one kind on one device: bytes of KV a token, and operations of a query-key pair.

    ``span`` tokens of each sequence are read, whatever its context; None reads the whole context. ``head_dim`` is the
    mean width of a head's keys and values.
    """

    layers: float
    bytes_per_token: float
    pair_flops: float
    span: int | None = None
    head_dim: float = 128.0


def own_span(model: Model) -> int:
    """Return the tokens that the windowed layers of the model's own attention read of a sequence."""
    if model.sparse_attention is not None:
        return model.sparse_attention.tokens
    return 0 if model.sliding_window is None else model.sliding_window.tokens


def decode_windows(model: Model, layers: int) -> float:
    """Return how many of a rank's ``layers`` of own attention read a whole window of every sequence."""
    if model.sparse_attention is not None:
        return attention_layers(model, layers)
    window = model.sliding_window
    return 0 if window is None or window.tokens > SHORT_WINDOW else windowed_layers(model, layers)


def window_pair_flops(model: Model, devices: int) -> float:
    """Return the operations of a query and a key in one windowed layer of own attention, on one device.

    Sparse attention works on the latent vectors that it reads, for some heads at least.
    """
    heads, latent = model.heads // devices, model.latent_attention
    if model.sparse_attention is not None and latent is not None:
        return 2.0 * max(heads, SPARSE_HEADS) * (2 * latent.kv_lora_rank + latent.rope_head_dim)
    return 4.0 * heads * pair_head_dim(model)


def other_attention(model: Model, devices: int, layers: int) -> tuple[Attended, ...]:
    """Return the attention of a rank's ``layers`` beside the model's own: that of ``mixers``, and the indexer."""
    found = []
    for mixer in model.mixers.values():
        if not isinstance(mixer, AttentionLayers):
            continue
        values = mixer.value_head_dim or mixer.head_dim
        pairs = 2.0 * (mixer.heads // devices) * (mixer.head_dim + values)
        span = mixer.window if mixer.window is not None and mixer.window <= SHORT_WINDOW else None
        size = mixer_kv_bytes(model, mixer, devices)
        found.append(
            Attended(
                share_of(model, mixer.layers, layers), size, pairs, span, 0.5 * (mixer.head_dim + values)
            )
        )
    sparse = model.sparse_attention
    if sparse is not None:
        count = share_of(model, sparse.layers or round(attention_layers(model)), layers)
        found.append(Attended(count, index_bytes(model), 2.0 * sparse.heads * sparse.head_dim))
    return tuple(found)


def window_notes(model: Model) -> tuple[str, ...]:
    """Say how layers that read a part of the context are counted, and where that is wrong."""
    notes = []
    window = model.sliding_window
    if window is not None and windowed_layers(model):
        notes.append(_window_note(window.tokens, f"{window.layers} of {model.layers} layers"))
    for name, mixer in model.mixers.items():
        if isinstance(mixer, AttentionLayers) and mixer.window is not None:
            notes.append(_window_note(mixer.window, f"{mixer.layers} of {model.layers} layers ({name})"))
    sparse = model.sparse_attention
    if sparse is not None:
        notes.append(
            f"sparse attention: the indexer reads {index_bytes(model):g} bytes of every token, attention "
            f"{sparse.tokens:,} tokens, too long for contexts below it; by roofline, and choosing the tokens takes "
            "half as long as measured modules do"
        )
    return tuple(notes)


def _window_note(tokens: int, layers: str) -> str:
    of = f"sliding window of {tokens:,} tokens in {layers}"
    if tokens > SHORT_WINDOW:
        return f"{of}: attention is counted over the whole context, too long for contexts above the window"
    return f"{of}: attention is counted over a whole window, too long for contexts below it"
