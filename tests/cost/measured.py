"""Small tables of operators by hand, in both forms, whose every time follows from a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cost.catalog import hardware, model

from hermes_flow.config.schema import Experts, Hardware, Model
from hermes_flow.cost import cost_models
from hermes_flow.cost.model import Deployment
from hermes_flow.program.step_cost import StepCost

H100 = hardware("h100_sxm")
SMALL = dataclasses.replace(
    model("llama3_8b"),
    name="small",
    layers=2,
    hidden_size=1024,
    heads=8,
    kv_heads=4,
    head_dim=128,
    intermediate_size=1024,
    vocab_size=4096,
)
MIXTURE = dataclasses.replace(SMALL, experts=Experts(count=8, per_token=2, intermediate_size=1024))
DENSE = {"embedding": 3, "final_layernorm": 2, "layernorm": 2, "qkv_proj": 5, "rotary_emb": 1, "o_proj": 4}
MLP = {"gate_up_proj": 6, "act_fn": 1, "down_proj": 5}


def product_us(rows: float, out: int, wide: int) -> float:
    """A matrix product: 4 µs and 500 TFLOP/s."""
    return 4.0 + 2.0 * rows * out * wide / 500e6


def decode_us(sequences: float, context: float) -> float:
    """Decode attention of a layer: 10 µs, half a µs a sequence, 2 ns a token of context."""
    return 10.0 + 0.5 * sequences + 0.002 * sequences * context


def prefill_us(chunk: float, past: float = 0.0) -> float:
    """Prefill attention of a layer: 8 µs and 10 ps a pair, of which the rate is half at 500 tokens."""
    return 8.0 + 1e-5 * chunk * (past + 0.5 * chunk) * (1.0 + 500.0 / (chunk + past))


def write(path: Path, header: str, rows: Iterable[tuple[Any, ...]]) -> None:
    lines = [header, *(",".join(str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def gemm_rows(
    time_us: Callable[[float, int, int], float] = product_us, dtype: str = "bfloat16"
) -> list[tuple[Any, ...]]:
    grid = [(m, n, k) for m in (1, 64, 512) for n in (1024, 2048, 4096) for k in (512, 1024, 2048)]
    return [(dtype, m, n, k, time_us(m, n, k) / 1000) for m, n, k in grid]


def write_gpu(folder: Path, heads: int = 8, kv_heads: int = 4) -> Path:
    """Tables per GPU and operator."""
    write(folder / "x1__gemm_perf.csv", "gemm_dtype,m,n,k,latency", gemm_rows())
    shape = f"{heads},{kv_heads},128,bfloat16"
    columns = "num_heads,num_key_value_heads,head_dim,kv_cache_dtype,batch_size,step"
    write(
        folder / "x1__generation_attention_perf.csv",
        f"{columns},latency",
        [(shape, n, c - 1, decode_us(n, c) / 1000) for n in (1, 4, 16, 64) for c in (128, 512, 2048, 8192)],
    )
    write(
        folder / "x1__context_attention_perf.csv",
        f"{columns},isl,latency",
        [(shape, 1, 0, c, prefill_us(c) / 1000) for c in (1, 64, 256, 1024, 4096)],
    )
    return folder


def write_layers(folder: Path) -> Path:
    """Tables per model and layer: each layer's weight in DENSE and MLP, times 0.3 µs and 0.01 µs a token."""
    layers = DENSE | MLP
    write(
        folder / "dense.csv",
        "layer,tokens,time_us",
        [(name, t, weight * (0.3 + 0.01 * t)) for name, weight in layers.items() for t in (1, 64, 512)],
    )
    write(
        folder / "per_sequence.csv",
        "layer,sequences,time_us",
        [(name, n, 20 + n) for name in ("lm_head", "sampler") for n in (1, 8, 64)],
    )
    rows = [(0, 0, n, c, decode_us(n, c)) for n in (1, 4, 16, 64) for c in (128, 512, 2048, 8192)]
    rows += [
        (chunk, past, 0, 0, prefill_us(chunk, past)) for chunk in (16, 128, 512) for past in (0, 256, 1024)
    ]
    rows += [(128, 256, n, 512, prefill_us(128, 256) + decode_us(n, 512)) for n in (4, 16)]
    write(folder / "attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", rows)
    return folder


def kernels(
    folder: Path,
    shape: Model = SMALL,
    machine: Hardware = H100,
    devices: int = 1,
    max_tokens: int = 512,
    max_sequences: int = 64,
    place: dict[str, Any] | None = None,
    **figures: Any,
) -> StepCost:
    deployment = Deployment(
        "cluster.pools.llm", shape, machine, devices, max_tokens, max_sequences, **(place or {})
    )
    return cost_models.parse({"kind": "kernels", "path": str(folder), **figures}, "cost").lower(deployment)
