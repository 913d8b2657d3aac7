"""The energy of steps in joules, from the operations and bytes of the model and the power of the hardware.

While a device works it draws P = power_w · min(1, active + compute·u + memory·v), u the share of its peak rate and v
the share of its bandwidth that it uses. Over a step u and v are its operations and bytes over what the device could
do in that time, so a step takes active·power_w·seconds, and so many joules for each operation and each byte: how
long they take does not count, only the limit asks for it. It is kept term by term of the StepCost.

Counted are the products of the layers with their weights and activations, the output head, attention's products and
the KV that decodes read. What is sent between devices is not, nor copies to host memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import numpy as np

from hermes_flow.config.mixer_shape import scans
from hermes_flow.config.schema import EnergyFit, Experts, Hardware, ModelPrecision
from hermes_flow.config.shape import (
    BYTES,
    Gemm,
    Module,
    attention_layers,
    mixture_layers,
    pair_head_dim,
    rank_modules,
    routed_gemms,
    router_gemms,
    shared_gemms,
    whole,
)
from hermes_flow.cost.kv import own_kv_bytes_per_token
from hermes_flow.cost.model import Deployment
from hermes_flow.cost.operators import Floats
from hermes_flow.cost.precision import compute_precision, peak_tera
from hermes_flow.cost.redundant_experts import distinct_copies
from hermes_flow.cost.weights import Portion, portions, scale_bytes
from hermes_flow.cost.windows import decode_windows, other_attention, own_span
from hermes_flow.errors import ConfigError
from hermes_flow.program.power import BusyPower, StepEnergy
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import in_parts
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import FLOPS_PER_TFLOPS, gb_to_bytes

_S = 1e-12  # in a picosecond


def step_energy(
    deployment: Deployment, cost: StepCost, upstream: StepCost | None = None
) -> StepEnergy | None:
    """Return the energy of the steps that ``cost`` describes, or None if the hardware has no power figures.

    With pipeline parallelism ``cost`` is that of the last rank and ``upstream`` that of each one before it.
    """
    power = _Power.of(deployment)
    if power is None:
        return None
    pipeline_ranks = deployment.pipeline_parallel
    times = [(cost, 1)] if upstream is None else [(cost, 1), (upstream, pipeline_ranks - 1)]
    group = deployment.tensor_parallel * deployment.data_parallel
    rest = (1.0 - power.active) * power.watts  # what a device may draw on top
    ranks = cost.attention_ranks  # the tables are by the tokens and sequences of all of them
    tokens = np.arange(ranks * (len(cost.tokens_ps) - 1) + 1, dtype=np.float64)
    sequences = np.arange(ranks * (len(cost.decode_attention_ps) - 1) + 1, dtype=np.float64)
    work = _Work(deployment, power)
    decodes_j = work.head_rows(deployment.tokens_per_decode * sequences)
    if work.window_j:
        decodes_j = decodes_j + work.window_j * sequences
    context_j, pair_j, chunk_token_j = work.context_j, work.pair_j, 0.0
    draft = deployment.speculative.draft
    if draft is not None:
        passes = deployment.speculative.tokens
        drafting = replace(deployment, model=draft)
        other = _Work(drafting, _Power.of(drafting) or power)
        per_token = other.tokens(tokens)
        decodes_j = decodes_j + passes * (other.tokens(sequences) + other.head_rows(sequences))
        context_j += passes * other.context_j
        pair_j += other.pair_j
        marginal = float(per_token[-1] - per_token[1]) / max(1, len(tokens) - 2)
        chunk_token_j = min(marginal, rest * group * cost.prefill_token_ps * _S)
    attention_s = sum(count * each.context_ps for each, count in times) * _S
    pair_s = math.fsum(count * each.prefill_pair_ps for each, count in times) * _S
    limit = rest * group
    return StepEnergy(
        idle_w=power.idle * power.watts * group * pipeline_ranks,
        active_w=power.active * power.watts * group * pipeline_ranks,
        tokens_j=_table(np.minimum(work.tokens(tokens), limit * _tokens_s(times))),
        decodes_j=_table(np.minimum(decodes_j, limit * _decodes_s(times))),
        context_j=min(context_j, limit * attention_s) if attention_s else context_j,
        pair_j=min(pair_j, rest * deployment.tensor_parallel * pair_s) if pair_s else pair_j,
        chunk_token_j=chunk_token_j,
        tokens_per_decode=deployment.tokens_per_decode,
        standby_s=power.standby_s,
    )


def busy_power(hardware: Hardware, key: str, devices: int = 1, share: float = 1.0) -> BusyPower | None:
    """Return the power of a client other than an LLM client, or None if the hardware has no power figures.

    It has ``devices`` of the hardware, or a ``share`` of the cores of one; idle cores draw as much as the idle host.
    """
    fit, watts = _figures(hardware, key)
    if fit is None or watts is None:
        return None
    idle = devices * watts * fit.idle
    return BusyPower(idle, idle + (devices * watts - idle) * min(1.0, share))


def power_notes(hardware: Hardware, energy: StepEnergy | BusyPower | None) -> tuple[str, ...]:
    """Return the source of the power figures for people, or why there are none."""
    fit, watts = hardware.energy, hardware.power_w
    if energy is None or fit is None or watts is None:
        lacking = "power_w" if watts is None else "energy"
        if watts is not None and fit is not None:
            return ()
        return (f"power: not known; {hardware.name} has no figure of {lacking}",)
    text = f"power: {watts * fit.idle:,.0f} W of {watts:,g} W when idle"
    if isinstance(energy, StepEnergy) and fit.active is not None:
        text += f", from {watts * fit.active:,.0f} W when busy (per device)"
        if fit.standby_s:
            text += f", for another {fit.standby_s:g} s after it"
    return (f"{text}; {fit.source}",)


# The modules of mixture layers, whose rows and copies differ from those of the others.
_OF_MIXTURES = ("experts", "shared_experts", "router")


@dataclass(frozen=True, slots=True)
class _Power:
    """What the hardware draws, with nothing missing: watts of a device, fractions of it, joules per operation."""

    watts: float
    idle: float
    active: float
    standby_s: float
    operation_j: float  # of the layers, in their precision
    bf16_j: float  # of the output head and attention
    byte_j: float

    @classmethod
    def of(cls, deployment: Deployment) -> _Power | None:
        hardware = deployment.hardware
        fit, watts = _figures(hardware, f"{deployment.key}.hardware")
        peak = peak_tera(hardware, compute_precision(deployment.model.precision, hardware))
        bf16 = hardware.peak_tflops_bf16
        if fit is None or watts is None or peak is None or bf16 is None:
            return None
        if fit.active is None or fit.compute is None or fit.memory is None:
            return None
        compute = fit.compute * watts
        byte_j = fit.memory * watts / gb_to_bytes(hardware.bandwidth_gb_s)
        return cls(
            watts,
            fit.idle,
            fit.active,
            fit.standby_s,
            compute / (peak * FLOPS_PER_TFLOPS),
            compute / (bf16 * FLOPS_PER_TFLOPS),
            byte_j,
        )


def _figures(hardware: Hardware, key: str) -> tuple[EnergyFit | None, float | None]:
    """Return the power figures; raises ConfigError where they cannot be."""
    fit, watts = hardware.energy, hardware.power_w
    if fit is not None:
        for name, least, value in (("idle", 0.0, fit.idle), ("active", fit.idle, fit.active)):
            if value is not None and not least <= value <= 1.0:
                raise ConfigError(
                    f"{key}.energy.{name}",
                    f"{value:g} is not valid; expected a fraction of power_w from {least:g} to 1",
                )
    return fit, watts


class _Work:
    """The joules of one model's operations and bytes, on all ranks; tokens are spread evenly over these."""

    def __init__(self, deployment: Deployment, power: _Power) -> None:
        self.deployment = deployment
        self.model = model = deployment.model
        self.power = power
        self.tensor_parallel = tensor_parallel = deployment.tensor_parallel
        self.activations = BYTES[compute_precision(model.precision, deployment.hardware)]
        # A token of context is read once by each device of its rank, and takes two products with each head.
        layers = attention_layers(model)
        pair_flops = 4.0 * layers * model.heads * pair_head_dim(model)
        self.pair_j = pair_flops * power.bf16_j
        read = own_kv_bytes_per_token(model, tensor_parallel, model.layers)
        self.context_j = tensor_parallel * read * power.byte_j + self.pair_j
        # Layers that read a whole window of each sequence cost the same at any context.
        full = 1.0 - decode_windows(model, model.layers) / layers if layers else 1.0
        self.window_j = self.window_pairs_j = 0.0
        if full < 1.0:
            pairs_j = own_span(model) * (1.0 - full) * self.pair_j
            self.window_j = own_span(model) * (1.0 - full) * self.context_j - pairs_j
            self.window_pairs_j = pairs_j
            self.pair_j *= full
            self.context_j *= full
        for other in other_attention(model, tensor_parallel, model.layers):
            read_j = tensor_parallel * other.layers * other.bytes_per_token * power.byte_j
            one_j = tensor_parallel * other.layers * other.pair_flops * power.bf16_j
            if other.span is None:
                self.context_j += read_j + one_j
                self.pair_j += one_j
            else:
                self.window_j += other.span * read_j
                self.window_pairs_j += other.span * one_j
        moved, scanned, _ = scans(model, tensor_parallel, model.layers)
        self.window_j += tensor_parallel * moved * power.byte_j
        self.window_pairs_j += tensor_parallel * scanned * power.bf16_j

    def tokens(self, tokens: Floats) -> Floats:
        """Everything that is done for all scheduled tokens together, with the weights of the output head."""
        total = in_parts(self._tokens, tokens)
        total[0] = 0.0
        return total

    def _tokens(self, tokens: Floats) -> Floats:
        model, tensor_parallel, ranks = self.model, self.tensor_parallel, self.deployment.data_parallel
        rows = tokens / ranks
        one = 0.0 * rows
        for module in rank_modules(model, whole(model), tensor_parallel):
            if module.name not in _OF_MIXTURES and module.layers:
                one = one + self._module(module, rows)
        if model.experts is not None:
            one = one + mixture_layers(model) * self._mixture(model.experts, rows, tokens)
        one = one + self._head().parameters * BYTES["bf16"] * self.power.byte_j
        total: Floats = ranks * tensor_parallel * one
        if self.window_pairs_j:
            total += tokens * self.window_pairs_j
        return total

    def head_rows(self, rows: Floats) -> Floats:
        """The output head's operations."""
        result: Floats = self.tensor_parallel * 2.0 * rows * self._head().parameters * self.power.bf16_j
        return result

    def _head(self) -> Gemm:
        return Gemm("output_head", self.model.hidden_size, self.model.vocab_size // self.tensor_parallel)

    def _module(self, module: Module, rows: Floats, per: float = 1.0) -> Floats:
        """One module of all layers in the precision that it has there, divided by ``per``."""
        parts = [self._portions(module, gemm) for gemm in module.gemms]
        if all(part == parts[0] for part in parts):
            totals = [part.layers / per * self._products(module.gemms, rows, part) for part in parts[0]]
        else:
            totals = [
                part.layers / per * self._products((gemm,), rows, part)
                for gemm, several in zip(module.gemms, parts, strict=True)
                for part in several
            ]
        return sum(totals[1:], totals[0]) if totals else 0.0 * rows

    def _portions(self, module: Module, gemm: Gemm) -> tuple[Portion, ...]:
        return portions(self.model, module.name, gemm.name, module.layers, module.layers)

    def _products(
        self, gemms: tuple[Gemm, ...], rows: Floats, part: Portion, copies: Floats | float = 1.0
    ) -> Floats:
        power = self.power
        operation_j, activations = power.operation_j, self.activations
        if part.activations is not None:
            operation_j, activations = self._own(part)
        stored = BYTES[part.weights] + scale_bytes(self.model, part.weights)
        total = 0.0 * rows
        for gemm in gemms:
            moved = rows * (gemm.in_features * activations + gemm.out_features * BYTES["bf16"])
            moved = moved + copies * gemm.parameters * stored
            total += 2.0 * rows * gemm.parameters * operation_j + moved * power.byte_j
        return total

    def _own(self, part: Portion) -> tuple[float, float]:
        """Return the joules of an operation and the bytes of an activation in a precision of its own."""
        assert part.activations is not None
        hardware = self.deployment.hardware
        compute = compute_precision(
            ModelPrecision(weights=part.weights, activations=part.activations), hardware
        )
        peak, bf16 = peak_tera(hardware, compute), hardware.peak_tflops_bf16
        if peak is None or bf16 is None:
            return self.power.bf16_j, BYTES["bf16"]
        return self.power.bf16_j * bf16 / peak, BYTES[compute]

    def _mixture(self, experts: Experts, rows: Floats, tokens: Floats) -> Floats:
        """One layer's experts on one device; those held whole see the tokens of all ranks."""
        model, group = self.model, self.deployment.expert_group
        seen = tokens if group > 1 else rows
        redundant = self.deployment.redundant_experts
        distinct = distinct_copies(experts, redundant, seen) / group
        count = mixture_layers(model)
        routed = Module("experts", count, routed_gemms(model, self.tensor_parallel if group == 1 else 1))
        total = self._products(router_gemms(model), rows, Portion(1.0, model.precision.weights))
        for gemm in routed.gemms:
            for part in self._portions(routed, gemm):
                products = self._products((gemm,), seen * experts.per_token / group, part, distinct)
                total = total + part.layers / count * products
        if experts.shared:
            shared = Module("shared_experts", count, shared_gemms(model, self.tensor_parallel))
            total = total + self._module(shared, rows, per=count)
        return total


def _table(joules: Floats) -> array[float]:
    return array("d", joules.tobytes())


def _tokens_s(times: list[tuple[StepCost, int]]) -> Floats:
    """Seconds of a step by its tokens, with one sequence's output, of all pipeline ranks one after another."""
    first = times[0][0]
    total = np.zeros(first.attention_ranks * (len(first.tokens_ps) - 1) + 1)
    for cost, count in times:
        one = _of_fullest(np.array(cost.tokens_ps, dtype=np.float64) + cost.sequences_ps[1], cost)
        if cost.experts_ps:
            experts = np.array(cost.experts_ps, dtype=np.float64)
            if cost.launching_ps:
                hidden = _of_fullest(np.array(cost.launching_ps, dtype=np.float64), cost)
                experts = np.maximum(experts - hidden, 0.0)
            one += experts
        total += count * one
    return total * _S


def _decodes_s(times: list[tuple[StepCost, int]]) -> Floats:
    """Seconds by decoding sequences of what is done for each of them, without the first one's output."""
    first = times[0][0]
    total = np.zeros(first.attention_ranks * (len(first.decode_attention_ps) - 1) + 1)
    for cost, count in times:
        further = np.maximum(np.array(cost.sequences_ps, dtype=np.float64) - cost.sequences_ps[1], 0.0)
        total += count * _of_fullest(further + cost.decode_attention_ps, cost)
    return total * _S


def _of_fullest(by_rank: Floats, cost: StepCost) -> Floats:
    """Return by the number on all ranks what ``by_rank`` has for the most that one has, where they share evenly."""
    return np.concatenate((by_rank[:1], np.repeat(by_rank[1:], cost.attention_ranks)))
