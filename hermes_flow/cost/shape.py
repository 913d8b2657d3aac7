"""What a transformer holds and reads: weights and KV bytes, from its published shape."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.schema import Model

BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}


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


def local_kv_heads(model: Model, devices: int) -> int:
    """KV heads on one of ``devices`` tensor-parallel devices; heads are replicated if too few."""
    return max(1, model.kv_heads // devices)


def attention_gemms(model: Model, devices: int) -> tuple[Gemm, ...]:
    """Projections of one attention layer on one tensor-parallel device."""
    heads = model.heads // devices
    latent = model.latent_attention
    if latent is None:
        qkv = (heads + 2 * local_kv_heads(model, devices)) * model.head_dim
        return (
            Gemm("qkv", model.hidden_size, qkv),
            Gemm("attention_out", heads * model.head_dim, model.hidden_size),
        )
    query = heads * (latent.nope_head_dim + latent.rope_head_dim)
    return (
        Gemm("query_down", model.hidden_size, latent.q_lora_rank),
        Gemm("query_up", latent.q_lora_rank, query),
        Gemm("kv_down", model.hidden_size, latent.kv_lora_rank + latent.rope_head_dim),
        Gemm("kv_up", latent.kv_lora_rank, heads * (latent.nope_head_dim + latent.v_head_dim)),
        Gemm("attention_out", heads * latent.v_head_dim, model.hidden_size),
    )


def mlp_gemms(model: Model, intermediate_size: int, devices: int) -> tuple[Gemm, ...]:
    """The MLP's matrices on one tensor-parallel device; a gated MLP fuses gate and up."""
    local = intermediate_size // devices
    first = Gemm("gate_up", model.hidden_size, 2 * local) if model.mlp == "gated" else None
    return (first or Gemm("up", model.hidden_size, local), Gemm("down", local, model.hidden_size))


@dataclass(frozen=True, slots=True)
class Stage:
    """The layers of one pipeline stage, ``dense`` of them with a dense MLP."""

    layers: int
    dense: int

    @property
    def mixtures(self) -> int:
        """Layers with a mixture of experts."""
        return self.layers - self.dense


def pipeline_stages(model: Model, count: int) -> tuple[Stage, ...]:
    """Cut the layers into ``count`` stages; those left over go one each to the stages before the last, last first.

    So does vLLM (``get_pp_indices``), whose last stage has the output head to do as well.
    """
    least, left = divmod(model.layers, count)
    sizes = [least + (2 <= count - index <= left + 1) for index in range(count)]
    dense = dense_layers(model)
    stages, first = [], 0
    for size in sizes:
        stages.append(Stage(size, min(size, max(0, dense - first))))
        first += size
    return tuple(stages)


def dense_layers(model: Model) -> int:
    """Number of layers with a dense MLP."""
    return model.layers if model.experts is None else model.experts.dense_layers


def whole(model: Model) -> Stage:
    """All layers, as one stage."""
    (stage,) = pipeline_stages(model, 1)
    return stage


def stage_parameters(model: Model, stage: Stage, devices: int = 1, expert_group: int = 1) -> int:
    """Weights of a stage's layers on one of ``devices`` tensor-parallel devices, without embeddings.

    With an ``expert_group`` of several devices each of them holds its share of the routed experts whole; shared
    experts are cut like the rest.
    """
    attention = sum(gemm.parameters for gemm in attention_gemms(model, devices))
    total = stage.layers * attention
    mlp = sum(gemm.parameters for gemm in mlp_gemms(model, model.intermediate_size, devices))
    total += stage.dense * mlp
    experts = model.experts
    if experts is not None:
        cut = sum(gemm.parameters for gemm in mlp_gemms(model, experts.intermediate_size, devices))
        routed = experts.count * cut
        if expert_group > 1:
            one = sum(gemm.parameters for gemm in mlp_gemms(model, experts.intermediate_size, 1))
            routed = experts.count // expert_group * one
        router = model.hidden_size * experts.count
        total += stage.mixtures * (routed + experts.shared * cut + router)
    return total


def block_parameters(model: Model, devices: int = 1) -> int:
    """Weights of all layers on one of ``devices`` tensor-parallel devices, without embeddings."""
    return stage_parameters(model, whole(model), devices)


def embedding_parameters(model: Model, devices: int = 1, tables: int | None = None) -> int:
    """Weights of the token embedding and, where it is not tied, of the output head, on one device.

    ``tables`` counts them instead: a first or a last pipeline stage holds one of the two, tied or not.
    """
    if tables is None:
        tables = 1 if model.tied_embeddings or model.kind == "encoder" else 2
    return tables * model.vocab_size * model.hidden_size // devices


def weight_bytes(model: Model, devices: int = 1) -> float:
    """Bytes of weights on one device; embeddings and output head stay bf16 when layers are quantized."""
    layers = block_parameters(model, devices) * BYTES[model.precision.weights]
    return layers + embedding_parameters(model, devices) * BYTES["bf16"]


def kv_bytes_per_token(model: Model, devices: int = 1, layers: int | None = None) -> float:
    """KV-cache bytes of one token on one device, of all layers or of so many.

    A latent cache is not split by devices.
    """
    size = BYTES[model.precision.kv_cache]
    count = model.layers if layers is None else layers
    latent = model.latent_attention
    if latent is not None:
        return count * (latent.kv_lora_rank + latent.rope_head_dim) * size
    return count * 2 * local_kv_heads(model, devices) * model.head_dim * size
