"""The sizes of a transformer: bytes of weights and KV, from its published shape."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.schema import Model

# mxfp4: 4 bits and one byte of scale per 32 weights (OCP microscaling formats 1.0); nvfp4: one byte per 16 (NVIDIA).
BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5, "mxfp4": 0.53125, "nvfp4": 0.5625}


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


def local_kv_heads(model: Model, tensor_parallel: int) -> int:
    """KV heads on one of ``tensor_parallel`` devices; heads are replicated if too few."""
    return max(1, model.kv_heads // tensor_parallel)


def attention_gemms(model: Model, tensor_parallel: int) -> tuple[Gemm, ...]:
    """Projections of one attention layer on one tensor-parallel device."""
    heads = model.heads // tensor_parallel
    latent = model.latent_attention
    if latent is None:
        qkv = (heads + 2 * local_kv_heads(model, tensor_parallel)) * model.head_dim
        return (
            Gemm("qkv", model.hidden_size, qkv),
            Gemm("attention_out", heads * model.head_dim, model.hidden_size),
        )
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


def mlp_gemms(model: Model, intermediate_size: int, tensor_parallel: int) -> tuple[Gemm, ...]:
    """The MLP's matrices on one tensor-parallel device; a gated MLP fuses gate and up."""
    local = intermediate_size // tensor_parallel
    first = Gemm("gate_up", model.hidden_size, 2 * local) if model.mlp == "gated" else None
    return (first or Gemm("up", model.hidden_size, local), Gemm("down", local, model.hidden_size))


@dataclass(frozen=True, slots=True)
class PipelineRank:
    """The layers of one rank of pipeline parallelism, ``dense`` of them with a dense MLP."""

    layers: int
    dense: int

    @property
    def mixtures(self) -> int:
        """Layers with a mixture of experts."""
        return self.layers - self.dense


def pipeline_ranks(model: Model, count: int) -> tuple[PipelineRank, ...]:
    """Cut the layers into ``count`` ranks; those left over go one each to the ranks before the last, last first.

    So does vLLM (``get_pp_indices``), whose last rank has the output head to do as well.
    """
    least, left = divmod(model.layers, count)
    sizes = [least + (2 <= count - index <= left + 1) for index in range(count)]
    dense = dense_layers(model)
    ranks, first = [], 0
    for size in sizes:
        ranks.append(PipelineRank(size, min(size, max(0, dense - first))))
        first += size
    return tuple(ranks)


def dense_layers(model: Model) -> int:
    """Number of layers with a dense MLP."""
    return model.layers if model.experts is None else model.experts.dense_layers


def whole(model: Model) -> PipelineRank:
    """All layers, as one rank."""
    (rank,) = pipeline_ranks(model, 1)
    return rank


def rank_parameters(model: Model, rank: PipelineRank, tensor_parallel: int = 1, expert_group: int = 1) -> int:
    """Weights of a rank's layers on one of ``tensor_parallel`` devices, without embeddings.

    With an ``expert_group`` of several devices each of them holds its share of the routed experts whole; shared
    experts are cut like the rest.
    """
    attention = sum(gemm.parameters for gemm in attention_gemms(model, tensor_parallel))
    total = rank.layers * attention
    mlp = sum(gemm.parameters for gemm in mlp_gemms(model, model.intermediate_size, tensor_parallel))
    total += rank.dense * mlp
    experts = model.experts
    if experts is not None:
        cut = sum(gemm.parameters for gemm in mlp_gemms(model, experts.intermediate_size, tensor_parallel))
        routed = experts.count * cut
        if expert_group > 1:
            one = sum(gemm.parameters for gemm in mlp_gemms(model, experts.intermediate_size, 1))
            routed = experts.count // expert_group * one
        router = model.hidden_size * experts.count
        total += rank.mixtures * (routed + experts.shared * cut + router)
    return total


def unquantized_layers(model: Model, layers: int, module: str) -> float:
    """Return in how many of a rank's ``layers`` a module (``attention``, ``mlp``, ``shared_experts``) stays bf16.

    Single layers that stay bf16 are spread evenly over the ranks.
    """
    precision = model.precision
    if module in precision.unquantized:
        return layers
    return 0 if module == "shared_experts" else precision.unquantized_layers * layers / model.layers


def rank_weight_bytes(
    model: Model, rank: PipelineRank, tensor_parallel: int = 1, expert_group: int = 1
) -> float:
    """Bytes of a rank's layers on one device, without embeddings: modules that are not quantized have bf16's."""
    size = BYTES[model.precision.weights]
    total = rank_parameters(model, rank, tensor_parallel, expert_group) * size
    wider = BYTES["bf16"] - size
    attention = unquantized_layers(model, rank.layers, "attention")
    if attention and wider:
        total += attention * sum(gemm.parameters for gemm in attention_gemms(model, tensor_parallel)) * wider
    dense = min(rank.dense, unquantized_layers(model, rank.layers, "mlp"))
    if dense and wider:
        mlp = mlp_gemms(model, model.intermediate_size, tensor_parallel)
        total += dense * sum(gemm.parameters for gemm in mlp) * wider
    experts = model.experts
    if experts is not None and "shared_experts" in model.precision.unquantized:
        shared = mlp_gemms(model, experts.shared * experts.intermediate_size, tensor_parallel)
        total += rank.mixtures * sum(gemm.parameters for gemm in shared) * wider
    return total


def block_parameters(model: Model, tensor_parallel: int = 1) -> int:
    """Weights of all layers on one of ``tensor_parallel`` devices, without embeddings."""
    return rank_parameters(model, whole(model), tensor_parallel)


def embedding_parameters(model: Model, tensor_parallel: int = 1, tables: int | None = None) -> int:
    """Weights of the token embedding and, where it is not tied, of the output head, on one device.

    ``tables`` counts them instead: a first or a last pipeline rank holds one of the two, tied or not.
    """
    if tables is None:
        tables = 1 if model.tied_embeddings or model.kind == "encoder" else 2
    return tables * model.vocab_size * model.hidden_size // tensor_parallel


def weight_bytes(model: Model, tensor_parallel: int = 1) -> float:
    """Bytes of weights on one device; embeddings and output head stay bf16 when layers are quantized."""
    layers = rank_weight_bytes(model, whole(model), tensor_parallel)
    return layers + embedding_parameters(model, tensor_parallel) * BYTES["bf16"]


def kv_bytes_per_token(model: Model, tensor_parallel: int = 1, layers: int | None = None) -> float:
    """KV-cache bytes of one token on one device, of all layers or of so many.

    A latent cache is not split by devices.
    """
    size = BYTES[model.precision.kv_cache]
    count = model.layers if layers is None else layers
    latent = model.latent_attention
    if latent is not None:
        return count * (latent.kv_lora_rank + latent.rope_head_dim) * size
    return count * 2 * local_kv_heads(model, tensor_parallel) * model.head_dim * size


def windowed_layers(model: Model, layers: int | None = None) -> float:
    """Return how many layers look back over a window only, of all or of a rank's ``layers``, with its even share."""
    window = model.sliding_window
    if window is None or window.tokens >= model.max_context:
        return 0
    return window.layers if layers is None else window.layers * layers / model.layers


def windowed_kv_bytes_per_token(model: Model, tensor_parallel: int = 1, layers: int | None = None) -> float:
    """KV-cache bytes of one token on one device in the layers with a window, within ``kv_bytes_per_token``."""
    count = model.layers if layers is None else layers
    return kv_bytes_per_token(model, tensor_parallel, layers) * windowed_layers(model, layers) / count
