"""Reads operator tables per GPU (AIConfigurator's form): matrix products, attention, experts, collectives.

Products are measured on a grid of shapes and rows, attention by heads, batch and length, experts per shape. Times
are milliseconds. Several files or kernels of one operator compete: the fastest at a point counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hermes_flow.config.model import Experts
from hermes_flow.config.shape import Gemm, attention_gemms, dense_layers, local_kv_heads, mlp_gemms
from hermes_flow.cost.expert_routing import distinct_experts
from hermes_flow.cost.kernels.curve import Curve, Findings, bracket
from hermes_flow.cost.kernels.heads import measured_heads
from hermes_flow.cost.kernels.reduce import DecodePoints, PrefillPoints
from hermes_flow.cost.kernels.source import USEFUL, table_files, useful
from hermes_flow.cost.kernels.table import Floats, Table, problem, read_table
from hermes_flow.cost.model import Deployment
from hermes_flow.cost.router import wide_peak, wide_router_s
from hermes_flow.program.units import FLOPS_PER_TFLOPS, S_PER_US, US_PER_MS, gb_to_bytes

_DTYPES = {"bf16": ("bfloat16",), "fp8": ("fp8", "fp8_block")}
_GEMM_DTYPE = {"bf16": "bfloat16", "fp8": "fp8"}


class PerGPU:
    """One GPU's operator tables, looked up for a deployment."""

    complete = False

    def __init__(self, folder: Path, deployment: Deployment, findings: Findings) -> None:
        self.folder = folder
        self.deployment = deployment
        self.model = deployment.model
        self.tensor_parallel = deployment.tensor_parallel
        self.findings = findings
        self.files = table_files(folder)
        self.products: dict[str, Table] = {}

    def tokens_us(self, tokens: Floats) -> Floats:
        """Return the projections, MLPs and experts of all layers."""
        model, precision = self.model, self.model.precision.weights
        gemms = list(attention_gemms(model, self.tensor_parallel))
        total = model.layers * sum(
            (self._product_us(gemm, tokens, precision) for gemm in gemms), 0.0 * tokens
        )
        dense = dense_layers(model)
        if dense:
            mlp = mlp_gemms(model, model.intermediate_size, self.tensor_parallel)
            total += dense * sum((self._product_us(gemm, tokens, precision) for gemm in mlp), 0.0 * tokens)
        if model.experts is not None:
            total += (model.layers - dense) * self._experts_us(tokens)
        return total

    def sequences_us(self, sequences: Floats) -> Floats:
        """Return the output head."""
        head = Gemm("output_head", self.model.hidden_size, self.model.vocab_size // self.tensor_parallel)
        return self._product_us(head, sequences, "bf16")

    def decode_points(self) -> DecodePoints:
        """Return decode attention of the model's heads, with contexts and batches that a client can have."""
        table = self._read("generation_attention", (*_ATTENTION, "batch_size", "step"), ("kv_cache_dtype",))
        table, scale = measured_heads(self._attention(table), self._heads(), self.findings, split=True)
        sequences = table.numbers["batch_size"] / scale
        context = table.numbers["step"] + 1.0
        mask = useful(sequences, context, self.deployment)
        if not mask.any():
            raise problem(table.path, f"no decode attention {USEFUL}")
        return DecodePoints(sequences[mask], context[mask], table.time_us[mask])

    def prefill_points(self) -> PrefillPoints:
        """Return attention of single prompts without computed context."""
        numbers = (*_ATTENTION, "batch_size", "isl", "step")
        table = self._attention(self._read("context_attention", numbers, ("kv_cache_dtype",)))
        table = table.where((table.numbers["batch_size"] == 1) & (table.numbers["isl"] > 1))
        table, scale = measured_heads(table, self._heads(), self.findings, split=False)
        return PrefillPoints(table.numbers["isl"], table.numbers["step"], table.time_us * scale)

    def all_reduce_us(self, elements: Floats) -> Floats | None:
        """Return the all-reduce under CUDA graphs of vLLM's own kernel, else that of NCCL."""
        for kind, size_of in (
            ("custom_allreduce", ("backend", "vllm_graph")),
            ("nccl", ("nccl_dtype", "half")),
        ):
            if kind not in self.files:
                continue
            table = self._read(kind, ("num_gpus", "message_size"), ("op_name", size_of[0]))
            mask = (table.words["op_name"] == "all_reduce") & (table.words[size_of[0]] == size_of[1])
            table = table.where(mask & (table.numbers["num_gpus"] == self.tensor_parallel))
            if len(table):
                curve = Curve.through(table.numbers["message_size"], table.time_us, self.findings)
                name = f"all-reduce of {self.tensor_parallel}, numbers"
                self.findings.check_range(name, elements[1:], 0.0, float(curve.sizes[-1]))
                return curve.at(elements)
        return None

    def _read(self, kind: str, numbers: tuple[str, ...], words: tuple[str, ...]) -> Table:
        """Return all files of a kind as one table."""
        if kind not in self.files:
            have = ", ".join(self.files) or "no tables"
            raise problem(self.folder, f"no table of {kind} (it has: {have})")
        parts = []
        for path in self.files[kind]:
            optional = {"window_size": 0.0} if "attention" in kind else {}
            part = read_table(path, numbers, words, time="latency", us=US_PER_MS, optional=optional)
            self.findings.read(part)
            parts.append(part)
        return joined(parts)

    def _heads(self) -> tuple[int, int, int]:
        model = self.model
        return (
            model.heads // self.tensor_parallel,
            local_kv_heads(model, self.tensor_parallel),
            model.head_dim,
        )

    def _attention(self, table: Table) -> Table:
        """Return the rows of full attention over this model's KV precision."""
        precision = self.model.precision.kv_cache
        if precision not in _GEMM_DTYPE:
            raise problem(table.path, f"no attention over a KV cache in {precision}")
        same = table.words["kv_cache_dtype"] == _GEMM_DTYPE[precision]
        return table.where(same & (table.numbers["window_size"] == 0))

    def _product_us(self, gemm: Gemm, rows: Floats, precision: str) -> Floats:
        """Return rows × in × out, bilinear between the measured shapes (a product's time is nearly so)."""
        table = self._products(precision)
        outs, ins = table.numbers["n"], table.numbers["k"]
        total = 0.0 * rows
        most = np.inf
        for out, out_share in bracket(np.unique(outs), gemm.out_features):
            for wide, in_share in bracket(np.unique(ins), gemm.in_features):
                curve, scale = self._shape(table, out, wide)
                total = total + out_share * in_share * scale * curve.at(rows)
                most = min(most, float(curve.sizes[-1]))
        self.findings.check_range(f"rows of {gemm.name}", rows[1:], 0.0, most)
        self.findings.check_range(
            f"width of {gemm.name}", np.array([float(gemm.out_features)]), 0.0, outs.max()
        )
        self.findings.check_range(
            f"depth of {gemm.name}", np.array([float(gemm.in_features)]), 0.0, ins.max()
        )
        return np.maximum(total, 0.0)

    def _shape(self, table: Table, out: float, wide: float) -> tuple[Curve, float]:
        """Return one shape's curve over the rows; a gap in the grid is filled in proportion from a neighbour."""
        outs, ins = table.numbers["n"], table.numbers["k"]
        scale = 1.0
        if not ((outs == out) & (ins == wide)).any():
            near = ins[outs == out]
            other = float(near[np.argmin(np.maximum(near / wide, wide / near))])
            self.findings.remark(
                f"no product of width {out:,.0f} and depth {wide:,.0f}: as depth {other:,.0f}"
            )
            scale, wide = wide / other, other
        rows = table.where((outs == out) & (ins == wide))
        return Curve.through(rows.numbers["m"], rows.time_us, self.findings), scale

    def _products(self, precision: str) -> Table:
        if precision not in self.products:
            if precision not in _DTYPES:
                raise problem(self.folder, f"no products of {precision} weights (only {', '.join(_DTYPES)})")
            table = self._read("gemm", ("m", "n", "k"), ("gemm_dtype",))
            table = table.where(np.isin(table.words["gemm_dtype"], _DTYPES[precision]))
            if not len(table):
                raise problem(self.files["gemm"][0], f"no products with gemm_dtype {_DTYPES[precision][0]}")
            self._check_unit(table, precision)
            self.products[precision] = table
        return self.products[precision]

    def _check_unit(self, table: Table, precision: str) -> None:
        """Refuse times that no unit of milliseconds explains: the largest product beyond or far below the peak."""
        hardware = self.deployment.hardware
        peak = hardware.peak_tflops_fp8 if precision == "fp8" else hardware.peak_tflops_bf16
        if peak is None:
            return
        numbers = table.numbers
        work = 2.0 * numbers["m"] * numbers["n"] * numbers["k"]
        largest = int(np.argmax(work))
        reached = work[largest] / (table.time_us[largest] * S_PER_US) / (peak * FLOPS_PER_TFLOPS)
        if not 0.01 < reached < 1.5:
            raise problem(
                table.place(largest),
                f"latency {table.time_us[largest] / US_PER_MS:g} would be {reached:.3g} times the peak of "
                f"{hardware.name}; expected milliseconds, of that GPU",
            )

    def _experts_us(self, tokens: Floats) -> Floats:
        """Return one layer of experts; the table must have its very shape."""
        model, experts = self.model, self.model.experts
        assert experts is not None
        sizes = {
            "hidden_size": model.hidden_size,
            "inter_size": experts.intermediate_size,
            "topk": experts.per_token,
            "num_experts": experts.count,
            "moe_tp_size": self.tensor_parallel,
            "moe_ep_size": 1,
        }
        table = self._read("moe", ("num_tokens", *sizes), ("moe_dtype", "distribution"))
        mask = np.isin(table.words["moe_dtype"], _DTYPES.get(model.precision.weights, ()))
        for name, size in sizes.items():
            mask &= table.numbers[name] == size
        if not mask.any():
            shape = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise problem(self.folder, f"no experts in {model.precision.weights} with {shape}")
        table = table.where(mask)
        even = table.words["distribution"] == "balanced"
        table = table.where(even) if even.any() else table
        curve = Curve.through(table.numbers["num_tokens"], table.time_us, self.findings)
        self.findings.check_range("tokens of experts", tokens[1:], 0.0, float(curve.sizes[-1]))
        total = curve.at(tokens)
        if even.any():
            # Evenly spread, few tokens draw all the experts they can; drawn at random they draw fewer, whose
            # weights take as long as those of the tokens that would draw so many evenly.
            enough = experts.count / experts.per_token
            drawn = distinct_experts(experts, tokens)
            beyond = total - curve.at(np.array([enough]))[0]
            total = curve.at(drawn / experts.per_token) + np.where(tokens > enough, beyond, 0.0)
        router = Gemm("router", model.hidden_size, experts.count)
        total = total + self._router_us(experts, router, tokens)
        if experts.shared:
            shared = mlp_gemms(model, experts.shared * experts.intermediate_size, self.tensor_parallel)
            total += sum(
                (self._product_us(gemm, tokens, model.precision.weights) for gemm in shared), 0.0 * tokens
            )
        return total

    def _router_us(self, experts: Experts, router: Gemm, tokens: Floats) -> Floats:
        """The product that chooses the experts; tables have it in bf16 only."""
        hardware, precision = self.deployment.hardware, experts.router_precision
        peak = wide_peak(precision, hardware)
        if precision == "bf16" or peak is None:
            return self._product_us(router, tokens, "bf16")
        rate, bandwidth = peak * FLOPS_PER_TFLOPS, gb_to_bytes(hardware.bandwidth_gb_s)
        shape = (router.in_features, router.out_features)
        return wide_router_s(*shape, tokens, precision, rate, bandwidth) / S_PER_US


_ATTENTION = ("num_heads", "num_key_value_heads", "head_dim")


def joined(parts: list[Table]) -> Table:
    """Return the rows of all parts; places name the first file only where there is but one."""
    if len(parts) == 1:
        return parts[0]
    return Table(
        parts[0].path.parent,
        {name: np.concatenate([part.numbers[name] for part in parts]) for name in parts[0].numbers},
        {name: np.concatenate([part.words[name] for part in parts]) for name in parts[0].words},
        np.concatenate([part.rows for part in parts]),
    )
