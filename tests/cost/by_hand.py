"""Single operators on one H100, from their definitions in microseconds: what the tests add up.

``H100`` has the figures of an accelerator whose engine was not measured apart: 500 µs a step, 8 µs a sequence and a
quarter of the attention launches. test_engine.py is about what the catalog's H100 has instead.
"""

from __future__ import annotations

import dataclasses

from cost.catalog import hardware

from hermes_flow.config.schema import (
    AllReduceFit,
    DecodeAttentionFit,
    Efficiency,
    EngineOverhead,
    GemmFit,
    PrefillAttentionFit,
)

H100 = dataclasses.replace(
    hardware("h100_sxm"),
    efficiency=Efficiency(
        source="fit to measured operator tables",
        gemm={"bf16": GemmFit(0.81, 0.87, 3.8), "fp8": GemmFit(0.64, 0.79, 6.3, 0.26)},
        decode_attention={
            "bf16": DecodeAttentionFit(0.93, 11.5, 145.0),
            "fp8": DecodeAttentionFit(0.79, 13.3, 258.0),
        },
        prefill_attention=PrefillAttentionFit(0.65, 915.0, 12.7),
        all_reduce={2: AllReduceFit(4.3, 0.58), 4: AllReduceFit(4.7, 0.6), 8: AllReduceFit(5.4, 0.76)},
    ),
    engine=EngineOverhead("assumed", step_us=500.0, sequence_us=8.0, attention_launch=0.25, ingest_ms=8.0),
)

US = 1_000_000  # ps

COMPUTE = 989e12 * 0.81
MEMORY = 3350e9 * 0.87


def gemm_us(rows: float, ins: int, outs: int, matrices: float = 1.0, weight_bytes: float = 2.0) -> float:
    """One GEMM that computes in bf16."""
    flops = 2.0 * rows * ins * outs
    traffic = 2.0 * (rows * ins + rows * outs) + weight_bytes * matrices * ins * outs
    return max(flops / COMPUTE, traffic / MEMORY) * 1e6 + 3.8


def fp8_gemm_us(rows: float, ins: int, outs: int, matrices: float = 1.0) -> float:
    """One GEMM that computes in fp8, with the cast of its input."""
    compute = 2.0 * rows * ins * outs / (1979e12 * 0.64)
    traffic = (rows * ins + 2.0 * rows * outs + matrices * ins * outs) / (3350e9 * 0.79)
    cast = 3.0 * rows * ins / (3350e9 * 0.26)
    return (max(compute, traffic) + cast) * 1e6 + 6.3


def us(picoseconds: float) -> float:
    return picoseconds / US


def llama_layer_us(rows: float) -> float:
    """The products of one layer of Llama-3.1 8B."""
    return (
        gemm_us(rows, 4096, (32 + 2 * 8) * 128)  # query, key, value
        + gemm_us(rows, 4096, 4096)
        + gemm_us(rows, 4096, 2 * 14336)  # gate and up
        + gemm_us(rows, 14336, 4096)
    )
