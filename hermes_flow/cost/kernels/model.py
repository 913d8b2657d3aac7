"""The cost model ``kernels``: a step is the sum of measured operators and the engine's overheads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from hermes_flow.config.quantities import Factor, Microseconds, Milliseconds
from hermes_flow.config.schema import EagerSteps, Model, Sampler
from hermes_flow.config.shape import BYTES, dense_layers
from hermes_flow.cost.engine_overhead import (
    LaunchedLayers,
    launched_us,
    sampler_us,
    sampling_note,
    with_gaps_us,
)
from hermes_flow.cost.kernels.curve import Findings
from hermes_flow.cost.kernels.per_gpu import PerGPU
from hermes_flow.cost.kernels.per_layer import PerLayer
from hermes_flow.cost.kernels.reduce import decode_form, prefill_form
from hermes_flow.cost.kernels.source import Tables, table_files
from hermes_flow.cost.kernels.table import Floats, problem
from hermes_flow.cost.model import Deployment, Hop, cost_models
from hermes_flow.cost.operators import NORM_BYTES, all_reduce_s, with_wait
from hermes_flow.cost.torus import collective_gb_s
from hermes_flow.errors import ConfigError
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_US, S_PER_US, ms_to_ns

# Keys of a model whose layers are not in the tables.
_SHAPES = (
    "sparse_attention",
    "mixers",
    "mlps",
    "attention_layers",
    "mlp_layers",
    "value_head_dim",
    "output_gate",
    "layer_inputs",
)


@cost_models.register("kernels")
@dataclass(frozen=True, slots=True)
class Kernels:
    """Measured operator tables at ``path``, and the overheads of the engine.

    ``layer_us``, ``eager`` and ``sampler`` are charged where the tables lack norms, activations, the rotary embedding
    and drawing the next tokens. ``all_reduce_wait`` multiplies all-reduces of the tables, measured with ranks that
    never wait for each other; ``attention_skew`` multiplies decode attention, measured over equal contexts.
    """

    path: str
    format: Literal["auto", "gpu", "layers"] = "auto"
    """The format of the tables; ``auto`` finds it by the files."""
    strict: bool = False
    """True makes it an error to ask for a shape outside the table; false extrapolates and warns."""
    step_us: Microseconds = 0.0
    """The time that each step takes besides its kernels."""
    layer_us: Microseconds = 0.0
    sequence_us: Microseconds = 0.0
    """The time that each scheduled sequence adds to a step."""
    ingest_ms: Milliseconds = 0.0
    """The time between a request's arrival and the scheduler seeing it."""
    all_reduce_wait: Factor = 1.0
    attention_skew: Factor = 1.0
    eager: EagerSteps | None = None
    sampler: Sampler = field(default_factory=Sampler)

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the step tables; raises ConfigError for faults in the files, gaps, and ranges if ``strict``."""
        self._check(deployment)
        findings = Findings()
        tables = self._tables(deployment, findings)
        model = deployment.model
        tokens = np.arange(deployment.max_tokens + 1, dtype=np.float64)
        sequences = np.arange(deployment.max_sequences + 1, dtype=np.float64)
        token_wise = tables.tokens_us(tokens) + self.step_us
        token_wise += self._all_reduces_us(tables, deployment, tokens, findings)
        if not tables.complete:
            token_wise += model.layers * self.layer_us
            if self.eager is not None:
                dense = dense_layers(model)
                latent = 0.0 if model.latent_attention is None else model.layers
                layers = LaunchedLayers(dense, model.layers - dense, latent)
                most = deployment.max_sequences
                token_wise = with_gaps_us(token_wise, self.eager, model.layers, most)
                token_wise = launched_us(token_wise, self.eager, layers, most)
        per_sequence = tables.sequences_us(sequences) + self.sequence_us * sequences
        if not tables.complete:
            per_sequence += sampler_us(self.sampler, model, sequences)

        decode = decode_form(tables.decode_points())
        prefill = prefill_form(tables.prefill_points())
        base = decode.at(sequences, np.zeros_like(sequences)) * model.layers * self.attention_skew
        for table in (token_wise, per_sequence, base):
            table[0] = 0.0
        notes = [f"decode attention as a line: {decode.misfit}", f"prefill by its pairs: {prefill.misfit}"]
        mixed = tables.mixed_form(prefill) if isinstance(tables, PerLayer) else None
        beside: list[int] = []
        beside_context_ps = 0
        if mixed is not None:
            notes.append(f"decodes beside a prompt: {mixed.misfit}")
            scale = model.layers * self.attention_skew
            beside = _picoseconds(mixed.at(sequences, 0.0 * sequences) * scale)
            beside_context_ps = round(mixed.slope_us * scale * PS_PER_US)
        elif isinstance(tables, PerLayer) and (both := tables.mixed_misfit(decode, prefill)) is not None:
            notes.append(f"both in one step: {both}")
        if self.strict and findings.outside:
            where = "; ".join(f"{name}: {what}" for name, what in findings.outside.items())
            raise ConfigError("cost.strict", f"outside the tables of {self.path}: {where}")
        return StepCost(
            tokens_ps=_picoseconds(token_wise),
            sequences_ps=_picoseconds(per_sequence),
            decode_attention_ps=_picoseconds(base),
            context_ps=round(decode.slope_us * model.layers * self.attention_skew * PS_PER_US),
            prefill_launch_ps=round(prefill.launch_us * model.layers * PS_PER_US),
            prefill_pair_ps=prefill.pair_us * model.layers * PS_PER_US,
            prefill_half_length=prefill.half_length,
            prefill_context_ps=round(prefill.context_us * model.layers * PS_PER_US),
            ingest_ns=ms_to_ns(self.ingest_ms),
            provenance=self._provenance(findings, notes, model, tables.complete),
            mixed_attention_ps=beside,
            mixed_context_ps=beside_context_ps,
        )

    def hop(self, deployment: Deployment) -> Hop:
        """Raise ConfigError: no table has the transfers between pipeline ranks."""
        raise ConfigError(
            f"{deployment.key}.pipeline_parallel", "cost=kernels has no tables of it; expected 1"
        )

    def _check(self, deployment: Deployment) -> None:
        """Refuse what no table holds, by the key that asks for it."""
        encoder = ["model"] if deployment.part == "encoder" else []
        latent = [] if deployment.model.latent_attention is None else ["model.latent_attention"]
        precision = deployment.model.precision
        windows = [] if deployment.model.sliding_window is None else ["model.sliding_window"]
        kept = ["model.precision.unquantized"] if precision.unquantized else []
        kept += ["model.precision.unquantized_layers"] if precision.unquantized_layers else []
        kept += ["model.precision.modules"] if precision.modules else []
        experts = deployment.model.experts
        kept += ["model.experts.kernels"] if experts is not None and experts.kernels != "default" else []
        kept += [f"model.{name}" for name in _SHAPES if getattr(deployment.model, name)]
        for name in deployment.beyond_tensors() + encoder + latent + windows + kept:
            raise ConfigError(
                f"{deployment.key}.{name}", "cost=kernels has no tables of it; use cost=roofline"
            )

    def _tables(self, deployment: Deployment, findings: Findings) -> Tables:
        folder = Path(self.path)
        files = table_files(folder)
        form = self.format
        if form == "auto":
            form = "layers" if "dense" in files else "gpu"
            if form == "gpu" and "gemm" not in files:
                raise problem(folder, f"neither dense nor gemm tables (it has: {', '.join(files) or 'none'})")
        return (PerLayer if form == "layers" else PerGPU)(folder, deployment, findings)

    def _all_reduces_us(
        self, tables: Tables, deployment: Deployment, tokens: Floats, findings: Findings
    ) -> Floats:
        """Return the all-reduces of all layers: the tables', or the constants of the hardware's catalog entry."""
        tensor_parallel, model, hardware = deployment.tensor_parallel, deployment.model, deployment.hardware
        if tensor_parallel == 1:
            return 0.0 * tokens
        normed = NORM_BYTES / BYTES["bf16"] if model.norm_over_all_heads else 0.0
        one = tables.all_reduce_us(tokens * model.hidden_size)
        more: Floats | None = 0.0 * tokens
        if one is not None:
            one = self.all_reduce_wait * one
            if normed:
                more = tables.all_reduce_us(tokens * normed)
        else:
            known = {} if hardware.efficiency is None else hardware.efficiency.all_reduce
            link = collective_gb_s(hardware, tensor_parallel)
            if tensor_parallel not in known or link is None:
                raise ConfigError(
                    f"{deployment.key}.hardware.efficiency.all_reduce.{tensor_parallel}",
                    f"missing, and {self.path} has no table of all-reduces",
                )
            fit = known[tensor_parallel]
            size = tokens * model.hidden_size * BYTES["bf16"]
            one = with_wait(
                lambda each: all_reduce_s(fit, each, tensor_parallel, link), size, hardware.engine
            )
            one = one / S_PER_US
            if normed:
                more = all_reduce_s(fit, tokens * NORM_BYTES, tensor_parallel, link) / S_PER_US
            findings.remark(
                f"all-reduce from {hardware.name}'s figures: {fit.alpha_us:g} µs, {fit.fraction:g}"
            )
        assert more is not None
        total: Floats = model.layers * (2.0 * one + more)
        return total

    def _provenance(
        self, findings: Findings, notes: list[str], model: Model, complete: bool
    ) -> tuple[str, ...]:
        files = ", ".join(f"{name} ({rows:,} rows)" for name, rows in findings.files.items())
        outside = [
            f"outside the tables, extrapolated: {name}, {what}" for name, what in findings.outside.items()
        ]
        lacking = ""
        if not complete:
            floor = 0.0 if self.eager is None else self.eager.layer_us
            lacking = f"{self.layer_us:g} µs a layer, {floor:g} µs at least without CUDA graphs, "
            lacking += f"{sampling_note(model)}, "
        return (
            f"kernels: {self.path}: {files}; {findings.noisy:,} points slower than a larger one, lowered to it",
            *notes,
            *findings.remarks,
            *outside,
            f"engine: {self.step_us:g} µs a step, {lacking}{self.sequence_us:g} µs a sequence, "
            f"{self.ingest_ms:g} ms ingest; all-reduce × {self.all_reduce_wait:g}, decode attention × "
            f"{self.attention_skew:g}",
        )


def _picoseconds(us: Floats) -> list[int]:
    values: list[int] = np.rint(us * PS_PER_US).astype(np.int64).tolist()
    return values
