"""The keys of speculative decoding, and the shape of a head that drafts for the model it belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from hermes_flow.config.model import Model, ModelPrecision, OtherMLP
from hermes_flow.config.quantities import Count, FactorFromOne, Share, ShareBelowOne, Width
from hermes_flow.program.quick_dataclass import dataclass

DEFAULT_ACCEPTANCE = 0.7


@dataclass(frozen=True, slots=True)
class Speculative:
    """Speculative decoding: a draft model, or a head of the model itself, proposes ``tokens`` in each step.

    Without ``draft`` and ``head`` it is off. At most one of ``acceptance``, ``acceptance_length`` and
    ``acceptance_by_position`` says how many of them the model accepts; with none of them ``acceptance`` is 0.7.
    """

    draft: Model | None = None
    """The model that drafts; it has the vocabulary of the pool's model."""
    tokens: Count = 4
    """The tokens that are drafted in a step."""
    acceptance: ShareBelowOne | None = None
    """The probability that a drafted token is accepted if those before it were."""
    acceptance_length: FactorFromOne | None = None
    """The mean tokens that a sequence gains in a step, the one that the model itself adds included."""
    acceptance_by_position: tuple[Share, ...] = ()
    """For the first drafted token, the second and so on, the share of steps in which it is accepted."""
    head: Literal["eagle", "eagle3", "mtp"] | None = None
    """A head that drafts: one layer of the pool's model behind a matrix that joins the last hidden state with the
    embedding of the last token. ``eagle`` and ``eagle3`` have a dense MLP, ``mtp`` has the layer's experts.
    """
    head_vocabulary: Width | None = None
    """The tokens that a head of ``eagle3`` can draft; null for the vocabulary of the pool's model."""


def head_model(speculative: Speculative, target: Model) -> Model | None:
    """Return the head as a model of one layer, or None where no head drafts.

    Its matrix that joins two inputs counts as two matrices as wide as the residual stream. It has none of the
    target's sliding windows and none of its layers that differ from its own attention. Heads of EAGLE are trained
    apart from their model, so their weights are bf16 whatever the precision of the model is.
    """
    if speculative.head is None:
        return None
    experts = target.experts if speculative.head == "mtp" else None
    if experts is not None:
        experts = replace(experts, dense_layers=0, layers=1)
    sparse = target.sparse_attention
    precision = replace(target.precision, unquantized_layers=0, modules={})
    if speculative.head != "mtp":
        precision = ModelPrecision(kv_cache=target.precision.kv_cache)
    vocabulary = speculative.head_vocabulary if speculative.head == "eagle3" else None
    return replace(
        target,
        name=f"{speculative.head} head of {target.name}",
        layers=1,
        attention_layers=None,
        sliding_window=None,
        sparse_attention=None if sparse is None else replace(sparse, layers=1),
        mixers={},
        mlps={"join": OtherMLP(layers=2, intermediate_size=0)},
        mlp_layers=0 if experts is not None else 1,
        experts=experts,
        vocab_size=vocabulary or target.vocab_size,
        precision=precision,
        side_encoders={},
        layer_inputs=None,
        notes=(),
    )
