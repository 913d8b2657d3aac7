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


def dense_layers(model: Model) -> int:
    """Number of layers with a dense MLP."""
    return model.layers if model.experts is None else model.experts.dense_layers


def block_parameters(model: Model, devices: int = 1) -> int:
    """Weights of all layers on one of ``devices`` tensor-parallel devices, without embeddings."""
    attention = sum(gemm.parameters for gemm in attention_gemms(model, devices))
    total = model.layers * attention
    mlp = sum(gemm.parameters for gemm in mlp_gemms(model, model.intermediate_size, devices))
    total += dense_layers(model) * mlp
    experts = model.experts
    if experts is not None:
        expert = sum(gemm.parameters for gemm in mlp_gemms(model, experts.intermediate_size, devices))
        router = model.hidden_size * experts.count
        total += (model.layers - experts.dense_layers) * ((experts.count + experts.shared) * expert + router)
    return total


def embedding_parameters(model: Model, devices: int = 1) -> int:
    """Weights of the token embedding and, where it is not tied, of the output head, on one device."""
    tables = 1 if model.tied_embeddings or model.kind == "encoder" else 2
    return tables * model.vocab_size * model.hidden_size // devices


def weight_bytes(model: Model, devices: int = 1) -> float:
    """Bytes of weights on one device; embeddings and output head stay bf16 when layers are quantized."""
    layers = block_parameters(model, devices) * BYTES[model.precision.weights]
    return layers + embedding_parameters(model, devices) * BYTES["bf16"]


def kv_bytes_per_token(model: Model, devices: int = 1) -> float:
    """KV-cache bytes of one token, all layers, on one device; a latent cache is not split by devices."""
    size = BYTES[model.precision.kv_cache]
    latent = model.latent_attention
    if latent is not None:
        return model.layers * (latent.kv_lora_rank + latent.rope_head_dim) * size
    return model.layers * 2 * local_kv_heads(model, devices) * model.head_dim * size
