"""The step tables of the roofline: the times of one rank by number of tokens and of sequences, and of attention."""

from __future__ import annotations

import math

import numpy as np

from hermes_flow.config.mixer_shape import delta_scans, mixer_gemms, scans
from hermes_flow.config.schema import Efficiency, EngineOverhead, Experts, GemmFit, ModelPrecision, Precision
from hermes_flow.config.shape import (
    BYTES,
    Gemm,
    PipelineRank,
    attention_gemms,
    attention_layers,
    indexer_gemms,
    layer_parts,
    mlp_gemms,
    other_mlp_gemms,
    pipeline_ranks,
    rank_modules,
    routed_gemms,
    router_gemms,
    share_of,
    shared_gemms,
    whole,
)
from hermes_flow.cost.delta_rule import convolution_s, scan_costs, state_s
from hermes_flow.cost.elementwise import check_gaps, elementwise_s
from hermes_flow.cost.engine_overhead import launching_in, sampler_us
from hermes_flow.cost.expert_exchange import gathered_s, sent_s
from hermes_flow.cost.expert_routing import on_fullest_device
from hermes_flow.cost.kv import own_kv_bytes_per_token
from hermes_flow.cost.launches import launched_s, with_launches_of_experts
from hermes_flow.cost.model import Deployment
from hermes_flow.cost.operators import NORM_BYTES, Floats, Operators, with_wait
from hermes_flow.cost.precision import KERNELS_FOR, compute_precision, measured_as
from hermes_flow.cost.prompt_attention import PromptAttention
from hermes_flow.cost.roofline_notes import NO_ENGINE, provenance
from hermes_flow.cost.router import wide_peak, wide_router_s
from hermes_flow.cost.tiled_decodes import tiled_s
from hermes_flow.cost.weights import Portion, own_precision, portions, scale_bytes
from hermes_flow.cost.windows import decode_windows, other_attention, own_span
from hermes_flow.errors import ConfigError
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import FLOPS_PER_TFLOPS, PS_PER_S, S_PER_US, ms_to_ns


class RooflineTables:
    """One rank's tables: all tensor-parallel devices of it do the same at the same time."""

    def __init__(self, deployment: Deployment, unmeasured: Efficiency) -> None:
        self.deployment = deployment
        self.model = deployment.model
        self.hardware = deployment.hardware
        self.tensor_parallel = deployment.tensor_parallel
        self.operators = Operators(self.hardware, unmeasured, f"{deployment.key}.hardware", self.model)
        engine = self.hardware.engine
        if engine is None and deployment.part == "encoder":
            engine = NO_ENGINE
        if engine is None:
            raise ConfigError(
                f"{self.operators.key}.engine", "null; the roofline needs the engine's overheads here"
            )
        check_gaps(engine, f"{self.operators.key}.engine")
        self.engine: EngineOverhead = launching_in(engine, self.hardware.launching)
        self.small_launches = engine.layer_us is None  # else they are a part of it
        ranks = pipeline_ranks(self.model, deployment.pipeline_parallel)
        rank = ranks[-1]
        self.layers, self.dense, self.mixtures = rank.layers, float(rank.dense), float(rank.mixtures)
        if deployment.part == "upstream":
            # One for all of them: the longest paces the pipeline, with their mean share of dense layers.
            before = ranks[:-1]
            self.layers = max(rank.layers for rank in before)
            everything = sum(rank.layers for rank in before)
            self.dense = self.layers * math.fsum(rank.dense for rank in before) / everything
            self.mixtures = self.layers * math.fsum(rank.mixtures for rank in before) / everything
        self.parts = layer_parts(self.model, PipelineRank(self.layers, self.dense, self.mixtures))
        self.attends = attention_layers(self.model, self.layers)
        self.others = other_attention(self.model, self.tensor_parallel, self.layers)
        self.delta_rule = self.operators.efficiency.delta_rule
        self.stateful = scans(self.model, self.tensor_parallel, self.layers)[2]
        self.moved, self.scanned, _ = scans(
            self.model, self.tensor_parallel, self.layers, delta_rule=self.delta_rule is None
        )
        self.deltas = delta_scans(self.model, self.tensor_parallel, self.layers)
        self.weights = self.model.precision.weights
        self.compute = compute_precision(self.model.precision, self.hardware)
        self.windowed = decode_windows(self.model, self.layers)
        self.full_layers = self.attends - self.windowed if self.windowed else self.attends
        self.prompt_attention = PromptAttention(
            self.model, self.tensor_parallel, self.operators, self.full_layers, self.windowed, self.others
        )
        self.beside = math.fsum(other.layers for other in self.others) + self.stateful
        self.counts = {module.name: module.layers for module in rank_modules(self.model, whole(self.model))}
        # With several ranks the experts see the tokens of all; else they are a part of the rank's own tables.
        self.experts_apart = deployment.expert_group > 1 and deployment.data_parallel > 1
        self.engine = with_launches_of_experts(self)

    def step_cost(self) -> StepCost:
        """Return all terms as picosecond tables."""
        deployment, engine = self.deployment, self.engine
        tokens = np.arange(deployment.max_tokens + 1, dtype=np.float64)
        kernels = token_wise = self._layers(tokens)
        idle = 0.0 * tokens
        if deployment.part in ("upstream", "last") and engine.eager is not None:
            token_wise, idle = launched_s(self, engine.eager, kernels)
        if deployment.part in ("last", "encoder"):
            token_wise = token_wise + engine.step_us * S_PER_US
        token_wise[0] = 0.0
        sequences = np.arange(deployment.max_sequences + 1, dtype=np.float64)
        width = deployment.tokens_per_decode
        attention, context_s = self._decode_attention(sequences)
        beside, beside_context_s = tiled_s(self, sequences, attention, context_s)
        if width > 1:  # for the kernel, tokens that are verified are a short prompt
            attention, context_s = beside, beside_context_s
        per_sequence = 0.0 * sequences
        if deployment.part not in ("upstream", "encoder"):
            per_sequence = self._next_tokens(sequences)
            if width > 1:
                attention += self._next_tokens(width * sequences) - per_sequence
        if deployment.part in ("last", "encoder"):
            per_sequence = per_sequence + sequences * engine.sequence_us * S_PER_US
        per_sequence[0] = attention[0] = beside[0] = 0.0
        mixed = beside_context_s > context_s or bool((beside > attention).any())
        prefill = self.operators.efficiency.prefill_attention
        scans_of_prompts = () if self.delta_rule is None else scan_costs(self.delta_rule, self.deltas)
        hidden = engine.attention_launch
        return StepCost(
            tokens_ps=_picoseconds(token_wise),
            sequences_ps=_picoseconds(per_sequence),
            decode_attention_ps=_picoseconds(attention),
            context_ps=round(context_s * PS_PER_S),
            prefill_launch_ps=round(
                (self.attends + self.beside) * prefill.launch_us * S_PER_US * hidden * PS_PER_S
            ),
            prefill_pair_ps=self.prompt_attention.pair_s() * PS_PER_S,
            prefill_half_length=prefill.half_length,
            ingest_ns=ms_to_ns(engine.ingest_ms) if deployment.part == "last" else 0,
            provenance=provenance(self),
            tokens_per_decode=deployment.tokens_per_decode,
            experts_ps=self._experts_table() if self.experts_apart else [],
            scans=scans_of_prompts,
            # The time is there once: where experts have a table of their own they run in it, and scans do not
            launching_ps=_picoseconds(idle) if self.experts_apart and engine.eager is not None else [],
            idle_ps=_picoseconds(idle) if scans_of_prompts and not self.experts_apart else [],
            mixed_attention_ps=_picoseconds(beside) if mixed else [],
            mixed_context_ps=round(beside_context_s * PS_PER_S) if mixed else 0,
        )

    def _decode_attention(self, sequences: Floats) -> tuple[Floats, float]:
        """Seconds by number of decoding sequences, and per token of their context.

        Several tokens of one sequence that are verified together read its KV once.
        """
        model, operators = self.model, self.operators
        kv_cache, fits = model.precision.kv_cache, operators.efficiency.decode_attention
        decode = operators.fit("decode_attention", fits, measured_as(kv_cache, fits))
        size = own_kv_bytes_per_token(model, self.tensor_parallel, self.layers)
        context_s = max(size / (operators.bandwidth * decode.memory), self._latent_s())
        seconds = sequences * decode.extra_tokens * context_s
        if self.windowed:
            windowed_s = context_s * self.windowed / self.attends
            context_s -= windowed_s
            read_s = own_span(model) * windowed_s
            if model.sparse_attention is not None:  # the products of its pairs are counted by token
                width = self.deployment.tokens_per_decode
                read_s = max(
                    0.0, read_s - width * own_span(model) * self.prompt_attention.own_window_pair_s()
                )
            seconds += sequences * read_s
        for other in self.others:
            each_s = other.layers * other.bytes_per_token / (operators.bandwidth * decode.memory)
            seconds += sequences * decode.extra_tokens * each_s
            if other.span is None:
                context_s += each_s
            else:
                seconds += sequences * other.span * each_s
        if self.moved:
            seconds += sequences * self.moved / (operators.bandwidth * decode.memory)
        if self.delta_rule is not None:
            seconds += sequences * state_s(self.delta_rule, self.deltas, operators.bandwidth)
        seconds += (self.attends + self.beside) * decode.launch_us * S_PER_US * self.engine.attention_launch
        return seconds, context_s

    def _latent_s(self) -> float:
        """Seconds of the products of all heads with a token of latent KV in all layers; 0 where they never limit."""
        model, operators = self.model, self.operators
        latent, kv_cache = model.latent_attention, model.precision.kv_cache
        share = operators.efficiency.latent_decode.get(kv_cache)
        if latent is None or share is None:
            return 0.0
        heads = self.deployment.tokens_per_decode * (model.heads // self.tensor_parallel)
        flops = 2.0 * self.attends * heads * (2 * latent.kv_lora_rank + latent.rope_head_dim)
        seconds: float = flops / (operators.peak("bf16") * share)
        return seconds

    def _next_tokens(self, rows: Floats) -> Floats:
        """Output head, and the sampler of the model that answers."""
        model, sampler = self.model, self.engine.sampler
        head = Gemm("output_head", model.hidden_size, model.vocab_size // self.tensor_parallel)
        own = own_precision(model, "output_head")
        part = Portion(1.0, "bf16", "bf16") if own is None else Portion(1.0, own.weights, own.activations)
        seconds = self.operators.gemm(head, rows, part.weights, self.compute_of(part))
        if sampler is not None and self.deployment.part == "last":
            seconds = seconds + sampler_us(sampler, model, rows) * S_PER_US
        return seconds

    def _layers(self, tokens: Floats) -> Floats:
        model = self.model
        total = self._module("attention", self.attends, attention_gemms(model, self.tensor_parallel), tokens)
        if self.windowed or any(other.span is not None for other in self.others):
            total += tokens * self.prompt_attention.windows_s()
        total += self._mixers(tokens)
        total += elementwise_s(self, tokens)
        if self.dense:
            mlp = mlp_gemms(model, model.intermediate_size, self.tensor_parallel)
            total += self._module("mlp", self.dense, mlp, tokens)
        if model.experts is not None:
            total += self.mixtures * (
                self._mixture(model.experts, tokens) + self.engine.experts_us * S_PER_US
            )
        if self.tensor_parallel > 1:
            size = tokens * model.hidden_size * BYTES["bf16"]
            nodes = self.deployment.across(self.tensor_parallel)

            def reduce(bytes_each: Floats) -> Floats:
                return self.operators.all_reduce(bytes_each, self.tensor_parallel, nodes)

            total += self.parts * with_wait(reduce, size, self.engine)
            if model.norm_over_all_heads:  # devices do not drift further apart because they meet once more
                total += self.attends * reduce(tokens * NORM_BYTES)
        return total

    def _mixers(self, tokens: Floats) -> Floats:
        """The layers that differ from the model's own: their matrices, and the scans over their states."""
        model, devices = self.model, self.tensor_parallel
        total = 0.0 * tokens
        for name, mixer in model.mixers.items():
            layers = share_of(model, mixer.layers, self.layers)
            total += self._module(name, layers, mixer_gemms(mixer, model, devices), tokens)
        if model.sparse_attention is not None:
            layers = share_of(model, round(self.counts["indexer"]), self.layers)
            total += self._module("indexer", layers, indexer_gemms(model), tokens)
            total += layers * self.operators.efficiency.index_us * S_PER_US
        for name, other in model.mlps.items():
            layers = share_of(model, other.layers, self.layers)
            gemms = other_mlp_gemms(model, other.intermediate_size, devices)
            total += self._module(name, layers, gemms, tokens)
        if self.scanned:
            total += tokens * self.scanned / (self.operators.peak("bf16") * self.operators.efficiency.scan)
        if self.delta_rule is not None:
            total += tokens * convolution_s(self.delta_rule, self.deltas, self.operators.bandwidth)
        if model.layer_inputs is not None:
            size = model.layer_inputs.size
            for gemm in (
                Gemm("layer_gate", model.hidden_size, size),
                Gemm("layer_out", size, model.hidden_size),
                Gemm("layer_inputs", model.hidden_size, size // devices),
            ):
                total += self.layers * self.operators.gemm(gemm, tokens, "bf16", "bf16")
        return total

    def _module(
        self,
        name: str,
        layers: float,
        gemms: tuple[Gemm, ...],
        tokens: Floats,
        *,
        per: float = 1.0,
        launched: bool = True,
    ) -> Floats:
        """All tokens through one module of ``layers`` in the precision that it has there, divided by ``per``."""
        parts = [self.portions(name, gemm, layers) for gemm in gemms]
        if all(part == parts[0] for part in parts):
            totals = [part.layers / per * self._products(gemms, tokens, part, launched) for part in parts[0]]
        else:
            totals = [
                part.layers / per * self._products((gemm,), tokens, part, launched)
                for gemm, several in zip(gemms, parts, strict=True)
                for part in several
            ]
        return sum(totals[1:], totals[0]) if totals else 0.0 * tokens

    def portions(self, module: str, gemm: Gemm, layers: float) -> tuple[Portion, ...]:
        """Return the precision of one matrix in ``layers`` of the rank's."""
        return portions(self.model, module, gemm.name, layers, self.counts.get(module, layers))

    def compute_of(self, part: Portion) -> Precision:
        """The precision in which the products of a matrix are computed."""
        if part.activations is None:
            return self.compute
        own = ModelPrecision(weights=part.weights, activations=part.activations)
        return compute_precision(own, self.hardware)

    def _products(self, gemms: tuple[Gemm, ...], tokens: Floats, part: Portion, launched: bool) -> Floats:
        """All tokens through each of these matrices of one layer."""
        gemm, compute = self.operators.gemm, self.compute_of(part)
        scales, fit = scale_bytes(self.model, part.weights), self.block_fit(part.weights, compute)
        products = (
            gemm(each, tokens, part.weights, compute, launched=launched, scale_bytes=scales, fit=fit)
            for each in gemms
        )
        return sum(products, 0.0 * tokens)

    def block_fit(self, weights: Precision, compute: Precision) -> GemmFit | None:
        """Return the fit of products in fp8 that is scaled in blocks; None where that of the precision holds."""
        if not self.model.precision.fp8_blocks or (weights, compute) != ("fp8", "fp8"):
            return None
        return self.operators.efficiency.gemm.get("fp8_block")

    def _mixture(self, experts: Experts, tokens: Floats) -> Floats:
        """What one mixture layer does with the rank's own tokens: router, exchange, routed and shared experts."""
        model, launched = self.model, self.small_launches
        router, *latent = router_gemms(model)
        total = self._router(experts, router, tokens, launched)
        for gemm in latent:
            total += self.operators.gemm(gemm, tokens, "bf16", "bf16", launched=launched)
        if self.experts_apart and not self.deployment.gathers:
            total += sent_s(self, experts, tokens)
        elif not self.experts_apart:
            for product in self._routed(experts, tokens):
                total += product
        if experts.shared:
            shared = shared_gemms(model, self.tensor_parallel)
            total += self._mean("shared_experts", shared, tokens, launched)
        return total

    def _router(self, experts: Experts, router: Gemm, tokens: Floats, launched: bool) -> Floats:
        """The product that chooses the experts of one layer; in bf16 also where the hardware has no peak for fp32."""
        operators, precision = self.operators, experts.router_precision
        peak = wide_peak(precision, self.hardware)
        if precision == "bf16" or peak is None:
            return operators.gemm(router, tokens, "bf16", "bf16", launched=launched)
        fit = operators.fit("gemm", operators.efficiency.gemm, "bf16")
        reached, bandwidth = peak * FLOPS_PER_TFLOPS * fit.compute, operators.bandwidth * fit.memory
        return wide_router_s(router.in_features, router.out_features, tokens, precision, reached, bandwidth)

    def _mean(self, name: str, gemms: tuple[Gemm, ...], tokens: Floats, launched: bool) -> Floats:
        """All tokens through a module of one mixture layer, on average over those of the rank."""
        if not self.mixtures:
            return 0.0 * tokens
        return self._module(name, self.mixtures, gemms, tokens, per=self.mixtures, launched=launched)

    def _routed(self, experts: Experts, tokens: Floats) -> list[Floats]:
        """The routed experts of one layer on one device, over ``tokens`` of all ranks that share them.

        Where a token chooses expert i with probability q_i, t tokens draw Σ (1 − (1 − q_i)^t) distinct experts on
        average, whose weights are read once each; under uniform routing q is k/E. Of experts held whole, the device
        with the most counts. Where nothing is exchanged, it has the rows of all devices before the first product.
        """
        group = self.deployment.expert_group
        rows, distinct = on_fullest_device(experts, tokens, group, self.deployment.redundant_experts)
        gemms = routed_gemms(self.model, self.tensor_parallel if group == 1 else 1)
        found = []
        elsewhere = 0.0 if self.experts_apart else tokens * experts.per_token - rows
        for gemm in gemms:
            for part in self.portions("experts", gemm, self.mixtures):
                compute = self.compute_of(part)
                scales = scale_bytes(self.model, part.weights)
                self._check_kernels(experts, part.weights, compute)
                fit = self.operators.experts_fit(part.weights, compute, experts.kernels)
                others = elsewhere if gemm is gemms[0] else 0.0
                product = self.operators.gemm(
                    gemm, rows, part.weights, compute, distinct, scale_bytes=scales, fit=fit, elsewhere=others
                )
                found.append(part.layers / self.mixtures * product)
        return found

    def _check_kernels(self, experts: Experts, weights: Precision, compute: Precision) -> None:
        """Raise ConfigError where the kernels of experts are not for such weights."""
        modelled = KERNELS_FOR.get(experts.kernels, (weights, compute))
        if (weights, compute) != modelled:
            raise ConfigError(
                f"{self.deployment.key}.model.experts.kernels",
                f"{experts.kernels} is modelled for experts in {modelled[0]} computed in {modelled[1]}; those of "
                f"{self.model.name} are in {weights}, computed in {compute}: expected default",
            )

    def _experts_table(self) -> list[int]:
        """Return the time of the routed experts by the tokens of all ranks, which all devices may gather before."""
        experts, deployment = self.model.experts, self.deployment
        tokens = np.arange(deployment.max_tokens * deployment.data_parallel + 1, dtype=np.float64)
        assert experts is not None
        table = self.mixtures * sum(self._routed(experts, tokens), 0.0 * tokens)
        if deployment.gathers:
            table += self.mixtures * gathered_s(self, tokens)
        table[0] = 0.0
        return _picoseconds(table)


def _picoseconds(seconds: Floats) -> list[int]:
    values: list[int] = np.rint(seconds * PS_PER_S).astype(np.int64).tolist()
    return values
