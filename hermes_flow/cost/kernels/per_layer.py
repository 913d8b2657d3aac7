"""Reads layer tables per model (LLMServingSim's form): dense, per_sequence, attention and moe, in µs.

They are of one model on one of so many tensor-parallel devices, timed layer by layer, norms and sampling included,
collectives not.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from hermes_flow.config.shape import BYTES, attention_gemms, dense_layers, mlp_gemms
from hermes_flow.cost.kernels.curve import Curve, Findings, bracket
from hermes_flow.cost.kernels.reduce import (
    DecodeForm,
    DecodePoints,
    Misfit,
    PrefillForm,
    PrefillPoints,
    decode_form,
)
from hermes_flow.cost.kernels.source import USEFUL, table_files, useful
from hermes_flow.cost.kernels.table import Floats, Table, problem, read_table
from hermes_flow.cost.model import Deployment
from hermes_flow.program.same_bits import power
from hermes_flow.program.units import US_PER_S, gb_to_bytes

_ONCE = ("embedding", "final_layernorm")
_EACH_LAYER = {"layernorm": 2, "qkv_proj": 1, "qk_norm": 1, "rotary_emb": 1, "o_proj": 1}
_DENSE_MLP = ("gate_up_proj", "act_fn", "down_proj")
_MAY_LACK = ("qk_norm",)
# Chunks and contexts of serving: decodes are fitted beside these, not beside the few tokens of a prefix hit.
_SERVED_CHUNK, _SERVED_PAST = 64, 2048


class PerLayer:
    """One model's layer tables."""

    complete = True

    def __init__(self, folder: Path, deployment: Deployment, findings: Findings) -> None:
        self.folder = folder
        self.deployment = deployment
        self.model = deployment.model
        self.findings = findings
        self.files = table_files(folder)
        self.attention = self._read("attention", ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode"))

    def tokens_us(self, tokens: Floats) -> Floats:
        """Return embedding, all layers and the last norm."""
        model, mlps = self.model, dense_layers(self.model)
        table = self._read("dense", ("tokens",), ("layer",))
        counts = dict.fromkeys(_ONCE, 1) | {name: model.layers * times for name, times in _EACH_LAYER.items()}
        counts |= dict.fromkeys(_DENSE_MLP, mlps)
        curves = self._curves(table, "tokens", tuple(counts), (*_MAY_LACK, *(() if mlps else _DENSE_MLP)))
        self._check_unit(table, curves)
        total = 0.0 * tokens
        for name, curve in curves.items():
            self.findings.check_range(f"tokens of {name}", tokens[1:], 0.0, float(curve.sizes[-1]))
            total = total + counts[name] * curve.at(tokens)
        if model.experts is not None:
            total += (model.layers - mlps) * self._experts_us(tokens)
        return total

    def sequences_us(self, sequences: Floats) -> Floats:
        """Return output head and sampler."""
        table = self._read("per_sequence", ("sequences",), ("layer",))
        total = 0.0 * sequences
        for name, curve in self._curves(table, "sequences", ("lm_head", "sampler"), ()).items():
            self.findings.check_range(f"sequences of {name}", sequences[1:], 0.0, float(curve.sizes[-1]))
            total = total + curve.at(sequences)
        return total

    def decode_points(self) -> DecodePoints:
        """Return the rows without a prefill."""
        numbers = self.attention.numbers
        sequences, context = numbers["n_decode"], numbers["kv_decode"]
        mask = (numbers["prefill_chunk"] == 0) & useful(sequences, context, self.deployment)
        if not mask.any():
            raise problem(self.attention.path, f"no rows of decodes alone {USEFUL}")
        return DecodePoints(sequences[mask], context[mask], self.attention.time_us[mask])

    def prefill_points(self) -> PrefillPoints:
        """Return the rows without decodes."""
        numbers = self.attention.numbers
        mask = (numbers["n_decode"] == 0) & (numbers["prefill_chunk"] > 0)
        if not mask.any():
            raise problem(self.attention.path, "no rows of a prefill alone")
        return PrefillPoints(
            numbers["prefill_chunk"][mask], numbers["kv_prefill"][mask], self.attention.time_us[mask]
        )

    def mixed_form(self, prefill: PrefillForm) -> DecodeForm | None:
        """Return decode attention beside a prefill: what rows with both take longer than the prefill alone.

        None where no number of sequences was measured with several contexts: that tells no slope.
        """
        numbers = self.attention.numbers
        sequences, context = numbers["n_decode"], numbers["kv_decode"]
        chunk, past = numbers["prefill_chunk"], numbers["kv_prefill"]
        mask = (sequences > 0) & (chunk >= _SERVED_CHUNK) & (past <= _SERVED_PAST)
        mask &= useful(sequences, context, self.deployment)
        pairs = np.unique(np.stack([sequences[mask], context[mask]], axis=1), axis=0)
        if len(pairs) <= len(np.unique(pairs[:, 0])):
            return None
        points = DecodePoints(sequences[mask], context[mask], self.attention.time_us[mask])
        return decode_form(points, beside_us=prefill.at(chunk[mask], past[mask]))

    def mixed_misfit(self, decode: DecodeForm, prefill: PrefillForm) -> Misfit | None:
        """Compare rows with both a prefill and decodes with the sum of the two forms."""
        numbers = self.attention.numbers
        mask = (numbers["n_decode"] > 0) & (numbers["prefill_chunk"] > 0)
        if not mask.any():
            return None
        chunk, past = numbers["prefill_chunk"][mask], numbers["kv_prefill"][mask]
        sequences, context = numbers["n_decode"][mask], numbers["kv_decode"][mask]
        both = prefill.at(chunk, past) + decode.at(sequences, sequences * context)
        return Misfit.of(both, self.attention.time_us[mask])

    def all_reduce_us(self, elements: Floats) -> Floats | None:
        """Return None: these tables hold no collectives."""
        return None

    def _read(self, kind: str, numbers: tuple[str, ...], words: tuple[str, ...] = ()) -> Table:
        if kind not in self.files:
            have = ", ".join(self.files) or "no tables"
            raise problem(self.folder, f"no table of {kind} (it has: {have})")
        table = read_table(self.files[kind][0], numbers, words)
        self.findings.read(table)
        return table

    def _curves(
        self, table: Table, size: str, known: tuple[str, ...], may_lack: tuple[str, ...]
    ) -> dict[str, Curve]:
        """Return each layer's curve; raises ConfigError for layers that are unknown or missing."""
        layers = table.words["layer"]
        for row, name in enumerate(layers):
            if name not in known:
                raise problem(table.place(row), f"unknown layer {str(name)!r}; known: {', '.join(known)}")
        missing = [name for name in known if name not in layers and name not in may_lack]
        if missing:
            raise problem(table.path, f"lacks the layer {missing[0]!r}")
        curves = {}
        for name in known:
            rows = table.where(layers == name)
            if len(rows):
                curves[name] = Curve.through(rows.numbers[size], rows.time_us, self.findings)
        return curves

    def _check_unit(self, table: Table, curves: dict[str, Curve]) -> None:
        """Refuse layers that read their weights much faster, or slower, than this model and GPU would.

        Catches other units, and tables of another model or of another number of devices.
        """
        model, tensor_parallel = self.model, self.deployment.tensor_parallel
        gemms = list(attention_gemms(model, tensor_parallel))
        names = ["qkv_proj", "o_proj"]
        if "gate_up_proj" in curves:
            gemms += mlp_gemms(model, model.intermediate_size, tensor_parallel)
            names += ["gate_up_proj", "down_proj"]
        size = sum(gemm.parameters for gemm in gemms) * BYTES.get(model.precision.weights, 2.0)
        measured = math.fsum(float(curves[name].times[0]) for name in names if name in curves)
        least = size / gb_to_bytes(self.deployment.hardware.bandwidth_gb_s) * US_PER_S
        if not 0.7 < measured / least < 20.0:
            raise problem(
                table.path,
                f"a layer's weights take {measured:,.0f} µs, {least:,.0f} at the bandwidth of "
                f"{self.deployment.hardware.name}; expected µs, of {model.name} on one of {tensor_parallel} devices",
            )

    def _experts_us(self, tokens: Floats) -> Floats:
        """Return one layer of experts: linear in tokens and in the distinct experts they draw."""
        experts = self.model.experts
        assert experts is not None
        table = self._read("moe", ("tokens", "activated_experts"))
        sizes, drawn = table.numbers["tokens"], table.numbers["activated_experts"]
        expected = experts.count * (1.0 - power(1.0 - experts.per_token / experts.count, tokens))
        axis = np.unique(sizes)
        rows = {size: self._by_experts(table.where(sizes == size)) for size in axis.tolist()}
        self.findings.check_range("tokens of experts", tokens[1:], 0.0, float(axis[-1]))
        self.findings.check_range("activated experts", expected[1:], 0.0, float(drawn.max()))
        total = np.zeros_like(tokens)
        for index, (count, wanted) in enumerate(zip(tokens.tolist(), expected.tolist(), strict=True)):
            total[index] = math.fsum(
                share * float(rows[size].at(np.array([wanted]))[0]) for size, share in bracket(axis, count)
            )
        return total

    def _by_experts(self, table: Table) -> Curve:
        return Curve.through(table.numbers["activated_experts"], table.time_us, self.findings)
