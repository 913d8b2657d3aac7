"""Engine settings of benchmark runs on GB300 with prefill and decode apart, from the recipes of these runs.

SGLang: github.com/ishandhanani/srt-slurm, recipes/gb300-fp4 and gb300-fp8 (February 2026). TensorRT-LLM in fp8:
NVIDIA/srt-slurm, recipes/trtllm/gb300-fp8. Those of TensorRT-LLM in fp4 are not at hand: those of GB200 stand in,
which is the same rack with other devices, and has as many tokens of a step in fp4 as GB300 has in fp8.
"""

from __future__ import annotations

from typing import Any

from benchmarks import silicon_apart_gb200
from benchmarks.silicon_apart_gb200 import LONG, MOST_HELD, SELDOM, Limits


def prefill_limits(row: dict[str, Any], clients: int, ranks: int, devices: int) -> Limits:
    """Return what the recipe tells the clients that prefill, each with so many ranks of attention."""
    long, fp8 = row["isl"] >= LONG, row["precision"] == "fp8"
    if row["backend"] == "trtllm":
        if not fp8:
            return silicon_apart_gb200.prefill_limits(row, clients, ranks, devices)
        return Limits(16384, 2, 0.1) if long else Limits(8192, 8, 0.1)
    if ranks > 1:  # its limits are of all ranks, and GB200's
        return silicon_apart_gb200.prefill_limits(row, clients, ranks, devices)
    if fp8:
        return Limits(32768 if long else 8192, 128, 0.95, MOST_HELD[long])
    return Limits(24576 if long else 8192, 512, 0.95, MOST_HELD[long])


def decode_limits(row: dict[str, Any], ranks: int, share: int, devices: int) -> Limits:
    """Return what the recipe tells the clients that decode, where ``share`` users come to a rank."""
    fp8 = row["precision"] == "fp8"
    if row["backend"] == "trtllm":
        return Limits(8192, max(1, share), 0.8 if ranks > 1 else 0.9)
    if ranks == 1:
        if fp8:
            return Limits(8192, max(share, 128), 0.85)
        return Limits(8192, max(share, 512), 0.95, interval=SELDOM)
    return Limits(8192, max(share, (45000 if fp8 else 67584) // ranks), 0.82 if fp8 else 0.83)
