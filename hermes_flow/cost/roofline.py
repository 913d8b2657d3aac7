"""The roofline: per operator max(compute, memory) + launch, with efficiencies fitted per hardware.

Forms and constants: see the hardware's ``efficiency`` (fitted to measured operator tables) and ``engine``
(what the serving engine adds). A step is the sum of its operators:

- token-wise: every weight matrix of every layer over all scheduled tokens, the all-reduces of tensor
  parallelism, and the engine's time per step;
- per sequence: the output head, and the engine's time per scheduled sequence;
- decode attention, affine in the context; prefill attention, per query-key pair.

Norms, activations and the sampler are not modelled apart; they are part of what the engine adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.program import StepCost
from hermes_flow.config.schema import Efficiency
from hermes_flow.cost.model import Deployment, cost_models
from hermes_flow.cost.shape import (
    BYTES,
    Gemm,
    attention_gemms,
    dense_layers,
    kv_bytes_per_token,
    mlp_gemms,
)
from hermes_flow.errors import ConfigError

Floats = NDArray[np.float64]
K = TypeVar("K")
V = TypeVar("V")

_PS = 1e12
_US = 1e-6


@cost_models.register("roofline")
@dataclass(frozen=True, slots=True)
class Roofline:
    """``unmeasured`` stands in for the efficiencies of hardware whose catalog entry has none."""

    unmeasured: Efficiency

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the step tables of this deployment; raises ConfigError where a figure is missing."""
        return _Lowering(deployment, self.unmeasured).step_cost()


class _Lowering:
    def __init__(self, deployment: Deployment, unmeasured: Efficiency) -> None:
        self.deployment = deployment
        self.model = deployment.model
        self.hardware = deployment.hardware
        self.devices = deployment.tensor_parallel
        self.key = f"{deployment.key}.hardware"
        self.measured = self.hardware.efficiency is not None
        self.efficiency = self.hardware.efficiency or unmeasured
        self.bandwidth = self.hardware.bandwidth_gb_s * 1e9
        engine = self.hardware.engine
        if engine is None:
            raise ConfigError(f"{self.key}.engine", "null; the roofline needs the engine's overheads here")
        self.engine = engine

    def step_cost(self) -> StepCost:
        """Return all terms as picosecond tables."""
        deployment = self.deployment
        model = self.model
        tokens = np.arange(deployment.max_tokens + 1, dtype=np.float64)
        token_wise = self._layers(tokens) + self.engine.step_us * _US
        token_wise[0] = 0.0
        sequences = np.arange(deployment.max_sequences + 1, dtype=np.float64)
        head = Gemm("output_head", model.hidden_size, model.vocab_size // self.devices)
        per_sequence = self._gemm(head, sequences, "bf16") + sequences * self.engine.sequence_us * _US
        per_sequence[0] = 0.0

        decode = self._fit("decode_attention", self.efficiency.decode_attention, model.precision.kv_cache)
        prefill = self.efficiency.prefill_attention
        hidden = self.engine.attention_launch
        context_s = kv_bytes_per_token(model, self.devices) / (self.bandwidth * decode.memory)
        decode_attention = sequences * decode.extra_tokens * context_s
        decode_attention += model.layers * decode.launch_us * _US * hidden
        decode_attention[0] = 0.0
        pair_flops = 4.0 * model.layers * (model.heads // self.devices) * self._head_dim()
        return StepCost(
            tokens_ps=_picoseconds(token_wise),
            sequences_ps=_picoseconds(per_sequence),
            decode_attention_ps=_picoseconds(decode_attention),
            context_ps=round(context_s * _PS),
            prefill_launch_ps=round(model.layers * prefill.launch_us * _US * hidden * _PS),
            prefill_pair_ps=pair_flops / (self._peak("bf16") * prefill.compute) * _PS,
            prefill_half_length=prefill.half_length,
            ingest_ns=round(self.engine.ingest_ms * 1e6),
            provenance=self._provenance(),
        )

    def _layers(self, tokens: Floats) -> Floats:
        model = self.model
        precision = model.precision.weights
        layer = sum(
            (self._gemm(g, tokens, precision) for g in attention_gemms(model, self.devices)), 0.0 * tokens
        )
        total = model.layers * layer
        dense = dense_layers(model)
        if dense:
            gemms = mlp_gemms(model, model.intermediate_size, self.devices)
            total += dense * sum((self._gemm(g, tokens, precision) for g in gemms), 0.0 * tokens)
        if model.experts is not None:
            total += (model.layers - dense) * self._experts(tokens)
        if self.devices > 1:
            total += 2 * model.layers * self._all_reduce(tokens)
        return total

    def _experts(self, tokens: Floats) -> Floats:
        """One mixture-of-experts layer: the router, the experts drawn by all tokens, the shared experts.

        Under uniform routing t tokens draw E·(1 − (1 − k/E)^t) distinct experts on average, whose weights
        are read once each.
        """
        model = self.model
        experts = model.experts
        assert experts is not None
        precision = model.precision.weights
        total = self._gemm(Gemm("router", model.hidden_size, experts.count), tokens, "bf16")
        missed = np.full_like(tokens, 1.0 - experts.per_token / experts.count)
        missed[0] = 1.0
        distinct = experts.count * (1.0 - np.cumprod(missed, dtype=np.float64))
        for gemm in mlp_gemms(model, experts.intermediate_size, self.devices):
            total += self._gemm(gemm, tokens * experts.per_token, precision, copies=distinct)
        if experts.shared:
            shared = mlp_gemms(model, experts.shared * experts.intermediate_size, self.devices)
            total += sum((self._gemm(gemm, tokens, precision) for gemm in shared), 0.0 * tokens)
        return total

    def _gemm(self, gemm: Gemm, rows: Floats, precision: str, copies: Floats | float = 1.0) -> Floats:
        """Seconds of rows × in × out; ``copies`` weight matrices are read, the rows spread over them.

        Weights narrower than the activations (int8, int4) save bytes only: they are widened in the kernel.
        """
        compute = precision if precision == "fp8" else "bf16"
        fit = self._fit("gemm", self.efficiency.gemm, compute)
        flops = 2.0 * rows * gemm.parameters
        activations = rows * (gemm.in_features * BYTES[compute] + gemm.out_features * BYTES["bf16"])
        traffic = activations + copies * gemm.parameters * BYTES[precision]
        seconds = np.maximum(
            flops / (self._peak(compute) * fit.compute), traffic / (self.bandwidth * fit.memory)
        )
        if fit.quantize is not None:
            seconds += 3.0 * rows * gemm.in_features / (self.bandwidth * fit.quantize)
        result: Floats = seconds + fit.launch_us * _US
        return result

    def _all_reduce(self, tokens: Floats) -> Floats:
        """Seconds of one all-reduce of the hidden state within the node."""
        fit = self._fit("all_reduce", self.efficiency.all_reduce, self.devices)
        link = self.hardware.scale_up_gb_s
        if link is None:
            raise ConfigError(f"{self.key}.scale_up_gb_s", "null; tensor parallelism needs it")
        size = tokens * self.model.hidden_size * BYTES["bf16"]
        share = 2.0 * (self.devices - 1) / self.devices
        result: Floats = fit.alpha_us * _US + share * size / (fit.fraction * link * 1e9)
        return result

    def _head_dim(self) -> float:
        """Mean of the head sizes of the two products, query·key and weights·value."""
        latent = self.model.latent_attention
        if latent is None:
            return self.model.head_dim
        return 0.5 * (latent.nope_head_dim + latent.rope_head_dim + latent.v_head_dim)

    def _peak(self, precision: str) -> float:
        hardware = self.hardware
        peak = hardware.peak_tflops_fp8 if precision == "fp8" else hardware.peak_tflops_bf16
        if peak is None:
            raise ConfigError(
                f"{self.key}.peak_tflops_{precision}", f"null; {hardware.name} has no such figure"
            )
        return peak * 1e12

    def _fit(self, name: str, fits: Mapping[K, V], which: K) -> V:
        if which not in fits:
            have = ", ".join(str(entry) for entry in fits) or "none"
            raise ConfigError(
                f"{self.key}.efficiency.{name}.{which}",
                f"missing; {self.hardware.name} has no measured figures for it (it has: {have})",
            )
        return fits[which]

    def _provenance(self) -> tuple[str, ...]:
        engine = self.engine
        kernels = self.efficiency.source
        if not self.measured:
            kernels = f"{self.hardware.name} is not measured; {kernels}"
        return (
            f"roofline, kernels: {kernels}",
            f"engine: {engine.step_us:g} µs a step, {engine.sequence_us:g} µs a sequence, "
            f"{engine.attention_launch:g} of the attention launches, {engine.ingest_ms:g} ms ingest; "
            f"{engine.source}",
        )


def _picoseconds(seconds: Floats) -> list[int]:
    values: list[int] = np.rint(seconds * _PS).astype(np.int64).tolist()
    return values
