"""How the roofline counts attention over a sliding window, which is not linear in the length of a context."""

from __future__ import annotations

from hermes_flow.config.schema import Model
from hermes_flow.cost.shape import windowed_layers

# Decode attention over a window reads min(context, window) tokens of a sequence; the step cost is linear in the
# context. A short window is nearly always full, a long one nearly always within the context.
_SHORT_WINDOW = 1024


def decode_windows(model: Model, layers: int) -> float:
    """Return how many of a rank's ``layers`` read a whole window of every sequence, whatever its context."""
    window = model.sliding_window
    return 0 if window is None or window.tokens > _SHORT_WINDOW else windowed_layers(model, layers)


def window_notes(model: Model) -> tuple[str, ...]:
    """Say how layers with a window are counted, and where that is wrong."""
    window = model.sliding_window
    if window is None or not windowed_layers(model):
        return ()
    of = f"sliding window of {window.tokens:,} tokens in {window.layers} of {model.layers} layers"
    if window.tokens > _SHORT_WINDOW:
        return (f"{of}: attention is counted over the whole context, too long for contexts above the window",)
    return (f"{of}: attention is counted over a whole window, too long for contexts below it",)
