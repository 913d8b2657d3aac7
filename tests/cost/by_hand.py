"""Single operators on one H100, from their definitions in microseconds: what the tests add up."""

from __future__ import annotations

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
