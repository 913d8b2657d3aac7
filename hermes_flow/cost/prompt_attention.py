"""Attention over prompts: the products of queries and keys, in layers that see the whole context and in windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hermes_flow.config.schema import Model
from hermes_flow.config.shape import pair_head_dim
from hermes_flow.cost.operators import Operators
from hermes_flow.cost.windows import Attended, own_span, window_pair_flops


@dataclass(frozen=True, slots=True)
class PromptAttention:
    """The attention of one rank on one of ``tensor_parallel`` devices.

    ``full`` and ``windowed`` layers have the model's own attention, over the whole context and over a window;
    ``others`` is the attention of other layers.
    """

    model: Model
    tensor_parallel: int
    operators: Operators
    full: float
    windowed: float
    others: tuple[Attended, ...]

    def pair_s(self) -> float:
        """Return the seconds of a query and a key in all layers that see the whole context."""
        model, fit = self.model, self.operators.efficiency.prefill_attention
        flops = 4.0 * self.full * (model.heads // self.tensor_parallel) * pair_head_dim(model)
        flops *= self._longer()
        flops += math.fsum(
            other.layers * other.pair_flops * fit.longer(other.head_dim)
            for other in self.others
            if other.span is None
        )
        if model.attention == "bidirectional":
            flops *= 2.0
        return flops / self._rate()

    def windows_s(self) -> float:
        """Return the seconds of a token in all layers with a window: it sees a whole one, as in a long prompt."""
        fit = self.operators.efficiency.prefill_attention
        more = fit.window_tokens
        flops = math.fsum(
            other.layers * other.pair_flops * (other.span + more) * fit.longer(other.head_dim)
            for other in self.others
            if other.span
        )
        own = float(own_span(self.model))
        if self.model.sparse_attention is None:
            own += more
        return own * self.own_window_pair_s() + flops / self._rate()

    def own_window_pair_s(self) -> float:
        """Return the seconds of a query and a key in all windowed layers of the model's own attention."""
        flops = self.windowed * window_pair_flops(self.model, self.tensor_parallel)
        return flops * self._longer() / self._rate()

    def _rate(self) -> float:
        """The operations of attention that a device does in a second of a long prompt."""
        return self.operators.peak("bf16") * self.operators.efficiency.prefill_attention.compute

    def _longer(self) -> float:
        """The time of own attention by the width of its heads, in that of 128; latent attention was not measured."""
        if self.model.latent_attention is not None:
            return 1.0
        return self.operators.efficiency.prefill_attention.longer(pair_head_dim(self.model))
