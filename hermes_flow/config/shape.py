"""The matrices of a model and the number of its weights on one device, from its published shape."""

from __future__ import annotations

import math

from hermes_flow.config.mixer_shape import Gemm as Gemm
from hermes_flow.config.mixer_shape import attention_matrices, mixer_gemms, split_heads
from hermes_flow.config.mixers import AttentionLayers
from hermes_flow.config.model import Model
from hermes_flow.program.quick_dataclass import dataclass

# mxfp4: 4 bits and one byte of scale per 32 weights (OCP microscaling formats 1.0); nvfp4: one byte per 16 (NVIDIA).
BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5, "mxfp4": 0.53125, "nvfp4": 0.5625}

# source: vLLM, mxfp4_round_up_hidden_size_and_intermediate_size: multiples of the hidden size and of the width of an
# expert on one device
MARLIN_HIDDEN, MARLIN_WIDTH = 256, 128


@dataclass(frozen=True, slots=True)
class Module:
    """The same part of several layers on one device: its matrices, each ``copies`` times in a layer."""

    name: str
    layers: float
    gemms: tuple[Gemm, ...]
    copies: int = 1


def local_kv_heads(model: Model, tensor_parallel: int) -> int:
    """KV heads on one of ``tensor_parallel`` devices; heads are replicated if too few."""
    return split_heads(model.kv_heads, tensor_parallel)


def attention_gemms(model: Model, tensor_parallel: int) -> tuple[Gemm, ...]:
    """Projections of one layer of the model's own attention on one tensor-parallel device."""
    latent = model.latent_attention
    if latent is None:
        return attention_matrices(_own_attention(model), model.hidden_size, tensor_parallel)
    heads = model.heads // tensor_parallel
    query = heads * (latent.nope_head_dim + latent.rope_head_dim)
    down: tuple[Gemm, ...] = (Gemm("query", model.hidden_size, query),)
    if latent.q_lora_rank is not None:
        down = (
            Gemm("query_down", model.hidden_size, latent.q_lora_rank),
            Gemm("query_up", latent.q_lora_rank, query),
        )
    return (
        *down,
        Gemm("kv_down", model.hidden_size, latent.kv_lora_rank + latent.rope_head_dim),
        Gemm("kv_up", latent.kv_lora_rank, heads * (latent.nope_head_dim + latent.v_head_dim)),
        Gemm("attention_out", heads * latent.v_head_dim, model.hidden_size),
    )


def indexer_gemms(model: Model) -> tuple[Gemm, ...]:
    """Matrices of the indexer of one layer of sparse attention, which every device holds whole.

    Its queries come from the compressed query, its one key and the weights of its heads from the hidden state
    (DeepSeek-V3.2, ``Indexer`` of the published inference code).
    """
    sparse, latent = model.sparse_attention, model.latent_attention
    if sparse is None:
        return ()
    rank = None if latent is None else latent.q_lora_rank
    return (
        Gemm("index_query", rank or model.hidden_size, sparse.heads * sparse.head_dim),
        Gemm("index_key", model.hidden_size, sparse.head_dim),
        Gemm("index_weights", model.hidden_size, sparse.heads),
    )


def mlp_gemms(model: Model, intermediate_size: int, tensor_parallel: int) -> tuple[Gemm, ...]:
    """The MLP's matrices on one tensor-parallel device; a gated MLP fuses gate and up."""
    return _mlp(model, model.hidden_size, intermediate_size, tensor_parallel)


def routed_gemms(model: Model, tensor_parallel: int) -> tuple[Gemm, ...]:
    """The matrices of one routed expert on one tensor-parallel device."""
    experts = model.experts
    assert experts is not None
    hidden, width = experts.latent_size or model.hidden_size, experts.intermediate_size
    if experts.kernels == "marlin":
        hidden = _padded(hidden, MARLIN_HIDDEN)
        width = tensor_parallel * _padded(width // tensor_parallel, MARLIN_WIDTH)
    return _mlp(model, hidden, width, tensor_parallel)


def shared_gemms(model: Model, tensor_parallel: int) -> tuple[Gemm, ...]:
    """The matrices of all shared experts of a layer on one tensor-parallel device, as one MLP."""
    experts = model.experts
    assert experts is not None
    width = experts.shared * (experts.shared_intermediate_size or experts.intermediate_size)
    return mlp_gemms(model, width, tensor_parallel)


def other_mlp_gemms(model: Model, intermediate_size: int, tensor_parallel: int) -> tuple[Gemm, ...]:
    """The matrices of an MLP of another width; a width of 0 is one matrix of the residual stream."""
    if intermediate_size:
        return mlp_gemms(model, intermediate_size, tensor_parallel)
    return (Gemm("linear", model.hidden_size, model.hidden_size // tensor_parallel),)


@dataclass(frozen=True, slots=True)
class PipelineRank:
    """The layers of one rank of pipeline parallelism, with how many dense MLPs and mixtures of experts they have."""

    layers: int
    dense: float
    mixtures: float


def pipeline_ranks(model: Model, count: int) -> tuple[PipelineRank, ...]:
    """Cut the layers into ``count`` ranks; those left over go one each to the ranks before the last, last first.

    So does vLLM (``get_pp_indices``), whose last rank has the output head to do as well. Where dense MLPs do not
    simply come before the mixtures, both are spread evenly.
    """
    least, left = divmod(model.layers, count)
    sizes = [least + (2 <= count - index <= left + 1) for index in range(count)]
    dense, mixtures = dense_layers(model), mixture_layers(model)
    ranks, first = [], 0
    for size in sizes:
        if dense + mixtures == model.layers and not model.mlps:
            there = min(size, max(0, dense - first))
            ranks.append(PipelineRank(size, there, size - there))
        else:
            share = size / model.layers
            ranks.append(PipelineRank(size, dense * share, mixtures * share))
        first += size
    return tuple(ranks)


def dense_layers(model: Model) -> int:
    """Number of layers with the model's own dense MLP."""
    if model.mlp_layers is not None:
        return model.mlp_layers
    if model.experts is not None:
        return model.experts.dense_layers
    return model.layers - sum(other.layers for other in model.mlps.values())


def mixture_layers(model: Model) -> int:
    """Number of layers with a mixture of experts."""
    if model.experts is None:
        return 0
    if model.experts.layers is not None:
        return model.experts.layers
    return model.layers - model.experts.dense_layers - sum(other.layers for other in model.mlps.values())


def attention_layers(model: Model, layers: int | None = None) -> float:
    """Number of layers with the model's own attention, of all or of a rank's ``layers``, with its even share."""
    count = model.attention_layers
    if count is None:
        count = model.layers - sum(mixer.layers for mixer in model.mixers.values())
    return share_of(model, count, layers)


def share_of(model: Model, count: int, layers: int | None) -> float:
    """Return the even share that a rank of ``layers`` has of ``count`` of all layers."""
    if layers is None or layers == model.layers:
        return count
    return layers if count == model.layers else count * layers / model.layers


def pair_head_dim(model: Model) -> float:
    """Mean of the head sizes of the two products of the model's own attention, query·key and weights·value."""
    latent = model.latent_attention
    if latent is not None:
        return 0.5 * (latent.nope_head_dim + latent.rope_head_dim + latent.v_head_dim)
    return model.head_dim if model.value_head_dim is None else 0.5 * (model.head_dim + model.value_head_dim)


def layer_parts(model: Model, rank: PipelineRank) -> float:
    """Number of mixers and MLPs of a rank; each of them ends in an all-reduce between tensor-parallel devices."""
    total = attention_layers(model, rank.layers) + rank.dense + rank.mixtures
    for other in (*model.mixers.values(), *model.mlps.values()):
        total += share_of(model, other.layers, rank.layers)
    return total


def whole(model: Model) -> PipelineRank:
    """All layers, as one rank."""
    (rank,) = pipeline_ranks(model, 1)
    return rank


def rank_modules(
    model: Model, rank: PipelineRank, tensor_parallel: int = 1, expert_group: int = 1, redundant: int = 0
) -> tuple[Module, ...]:
    """Return the modules of a rank's layers on one of ``tensor_parallel`` devices, without embeddings.

    With an ``expert_group`` of several devices each of them holds its share of the routed experts whole, of which
    ``redundant`` more are copies; shared experts are cut like the rest.
    """
    own = attention_layers(model, rank.layers)
    found = [Module("attention", own, attention_gemms(model, tensor_parallel))]
    sparse, inputs, experts = model.sparse_attention, model.layer_inputs, model.experts
    if sparse is not None:
        count = share_of(model, sparse.layers or round(attention_layers(model)), rank.layers)
        found.append(Module("indexer", count, indexer_gemms(model)))
    for name, mixer in model.mixers.items():
        layers = share_of(model, mixer.layers, rank.layers)
        found.append(Module(name, layers, mixer_gemms(mixer, model, tensor_parallel)))
    found.append(Module("mlp", rank.dense, mlp_gemms(model, model.intermediate_size, tensor_parallel)))
    for name, other in model.mlps.items():
        layers = share_of(model, other.layers, rank.layers)
        gemms = other_mlp_gemms(model, other.intermediate_size, tensor_parallel)
        found.append(Module(name, layers, gemms))
    if inputs is not None:
        gate = Gemm("layer_gate", model.hidden_size, inputs.size)
        found.append(
            Module("layer_inputs", rank.layers, (gate, Gemm("layer_out", inputs.size, model.hidden_size)))
        )
    if experts is None:
        return tuple(found)
    cut = 1 if expert_group > 1 else tensor_parallel
    copies = (experts.count + redundant) // expert_group if expert_group > 1 else experts.count
    found.append(Module("experts", rank.mixtures, routed_gemms(model, cut), copies))
    if experts.shared:
        found.append(Module("shared_experts", rank.mixtures, shared_gemms(model, tensor_parallel)))
    found.append(Module("router", rank.mixtures, router_gemms(model)))
    return tuple(found)


def router_gemms(model: Model) -> tuple[Gemm, ...]:
    """The router of a layer, and the projections into and out of the width in which its experts work."""
    experts = model.experts
    assert experts is not None
    router = Gemm("router", model.hidden_size, experts.count)
    if experts.latent_size is None:
        return (router,)
    return (
        router,
        Gemm("latent_in", model.hidden_size, experts.latent_size),
        Gemm("latent_out", experts.latent_size, model.hidden_size),
    )


def rank_parameters(model: Model, rank: PipelineRank, tensor_parallel: int = 1, expert_group: int = 1) -> int:
    """Weights of a rank's layers on one of ``tensor_parallel`` devices, without embeddings."""
    return round(
        sum(
            module.layers * module.copies * math.fsum(gemm.parameters for gemm in module.gemms)
            for module in rank_modules(model, rank, tensor_parallel, expert_group)
        )
    )


def block_parameters(model: Model, tensor_parallel: int = 1) -> int:
    """Weights of all layers on one of ``tensor_parallel`` devices, without embeddings."""
    return rank_parameters(model, whole(model), tensor_parallel)


def embedding_parameters(model: Model, tensor_parallel: int = 1, tables: int | None = None) -> int:
    """Weights of the token embedding and, where it is not tied, of the output head, on one device.

    ``tables`` counts them instead: a first or a last pipeline rank holds one of the two, tied or not. Embeddings
    that every layer has of its own belong to the first.
    """
    first = tables is None or tables > 0
    if tables is None:
        tables = 1 if model.tied_embeddings or model.kind == "encoder" else 2
    total = tables * model.vocab_size * model.hidden_size // tensor_parallel
    inputs = model.layer_inputs
    if inputs is not None and first:
        total += model.layers * inputs.size * (inputs.vocab_size + model.hidden_size) // tensor_parallel
    return total


def side_encoder_parameters(model: Model, tensor_parallel: int = 1) -> int:
    """Weights of the encoders of images and sounds on one device of the first pipeline rank."""
    return (
        round(math.fsum(side.parameters_b for side in model.side_encoders.values()) * 1e9) // tensor_parallel
    )


def _own_attention(model: Model) -> AttentionLayers:
    """The model's own attention as a kind of layers."""
    return AttentionLayers(
        kind="attention",
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        value_head_dim=model.value_head_dim,
        output_gate=model.output_gate,
    )


def _padded(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


def _mlp(model: Model, hidden: int, intermediate_size: int, tensor_parallel: int) -> tuple[Gemm, ...]:
    local = intermediate_size // tensor_parallel
    first = Gemm("gate_up", hidden, 2 * local) if model.mlp == "gated" else Gemm("up", hidden, local)
    return (first, Gemm("down", local, hidden))
