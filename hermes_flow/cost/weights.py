"""The bytes of a model's weights on one device, with the precision that each of its modules has."""

from __future__ import annotations

import math

from hermes_flow.config.schema import Model, ModulePrecision, Precision
from hermes_flow.config.shape import (
    BYTES,
    Module,
    PipelineRank,
    embedding_parameters,
    rank_modules,
    side_encoder_parameters,
    whole,
)
from hermes_flow.program.quick_dataclass import dataclass

_SCALE_BYTES = 2.0
# Modules that no method quantizes.
_NEVER = ("layer_inputs",)


@dataclass(frozen=True, slots=True)
class Portion:
    """So many layers in which a matrix has this precision; without ``activations`` it is that of the model."""

    layers: float
    weights: Precision
    activations: Precision | None = None


def portions(model: Model, module: str, matrix: str, layers: float, of: float) -> tuple[Portion, ...]:
    """Return the precision of one matrix of a module in ``layers`` of the ``of`` layers of the model that have it.

    Layers of several precisions are spread evenly over the ranks of pipeline parallelism.
    """
    precision = model.precision
    found, left = [], layers
    for each in precision.modules.values():
        if each.module != module or (each.matrices and matrix not in each.matrices):
            continue
        some = left if each.layers is None or not of else min(left, each.layers * layers / of)
        if some:
            found.append(Portion(some, each.weights, each.activations))
            left -= some
    kept = min(left, unquantized_layers(model, layers, of, module))
    if kept:
        found.append(Portion(kept, "bf16", "bf16"))
        left -= kept
    if left:
        found.append(Portion(left, precision.weights))
    return tuple(found)


def unquantized_layers(model: Model, layers: float, of: float, module: str) -> float:
    """Return in how many of ``layers`` a module stays bf16 by ``unquantized`` and ``unquantized_layers``."""
    precision = model.precision
    if module in precision.unquantized or module in _NEVER:
        return layers
    if module not in ("attention", "mlp") or not precision.unquantized_layers:
        return 0
    # The count is of whole layers with a dense MLP, whatever the share of this rank.
    return precision.unquantized_layers * layers / (of if module == "mlp" else model.layers)


def scale_bytes(model: Model, weights: Precision) -> float:
    """Bytes of scales for each weight of this precision; those of mxfp4 and nvfp4 are in their own width."""
    group = model.precision.group_size
    return 0.0 if group is None or weights not in ("int4", "int8") else _SCALE_BYTES / group


def own_precision(model: Model, module: str) -> ModulePrecision | None:
    """Return the precision that a module has throughout, None where it has that of the model."""
    for each in model.precision.modules.values():
        if each.module == module and each.layers is None and not each.matrices:
            return each
    return None


def rank_weight_bytes(
    model: Model, rank: PipelineRank, tensor_parallel: int = 1, expert_group: int = 1, redundant: int = 0
) -> float:
    """Bytes of a rank's layers on one device, without embeddings; with its share of ``redundant`` experts."""
    of = {module.name: module.layers for module in rank_modules(model, whole(model))}
    return math.fsum(
        module_bytes(model, module, of[module.name])
        for module in rank_modules(model, rank, tensor_parallel, expert_group, redundant)
    )


def module_bytes(model: Model, module: Module, of: float) -> float:
    """Bytes of a module of a rank; ``of`` are the layers of the whole model that have it."""
    total = 0.0
    for gemm in module.gemms:
        size = module.copies * gemm.parameters
        for part in portions(model, module.name, gemm.name, module.layers, of):
            total += part.layers * size * (BYTES[part.weights] + scale_bytes(model, part.weights))
    return total


def embedding_bytes(model: Model, tensor_parallel: int = 1, tables: int | None = None) -> float:
    """Bytes of embedding and output head on one device: bf16, unless the output head is quantized by name.

    ``tables`` counts them, as in ``embedding_parameters``.
    """
    total = embedding_parameters(model, tensor_parallel, tables) * BYTES["bf16"]
    head = own_precision(model, "output_head")
    if head is not None and not model.tied_embeddings and (tables is None or tables > 0):
        saved = BYTES["bf16"] - BYTES[head.weights]
        total -= model.vocab_size * model.hidden_size // tensor_parallel * saved
    return total


def weight_bytes(model: Model, tensor_parallel: int = 1) -> float:
    """Bytes of weights on one device, those of encoders beside the language model included."""
    layers = rank_weight_bytes(model, whole(model), tensor_parallel)
    return layers + embedding_bytes(model, tensor_parallel) + side_encoder_bytes(model, tensor_parallel)


def side_encoder_bytes(model: Model, tensor_parallel: int = 1) -> float:
    """Bytes of the encoders of images and sounds on one device of the first pipeline rank."""
    return side_encoder_parameters(model, tensor_parallel) * BYTES["bf16"]
