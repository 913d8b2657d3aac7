"""The time of a router of experts whose product is computed in fp32, as some engines do for an exact choice."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.model import RouterPrecision
from hermes_flow.config.schema import Hardware
from hermes_flow.program.units import S_PER_US

Floats = NDArray[np.float64]

# source: PyTorch's products in CUDA graphs on a GB200, hidden size 6,144 and 256 experts (vllm-project/vllm, pull
# request 47973). Up to 1,024 rows there is less than one tile for each multiprocessor, so that the time follows the
# depth of the sum and hardly depends on the accelerator or the number of experts
_ROWS = (1.0, 16.0, 32.0, 128.0, 256.0, 512.0, 1024.0)
_MEASURED_US = {
    "fp32": (7.52, 22.3, 63.2, 69.3, 77.8, 96.8, 111.0),
    "tf32": (10.9, 12.2, 19.9, 20.2, 22.6, 25.8, 32.8),
}
_MEASURED_DEPTH = 6144.0
_CAST_BYTES = 2.0 + 4.0 + 4.0  # the hidden state is read in bf16, written in fp32 and read again


def wide_peak(precision: RouterPrecision, hardware: Hardware) -> float | None:
    """Return the hardware's peak of such a product in 10¹² operations/s, or None where it has none.

    Tensor cores compute tf32 at half the rate of bf16.
    """
    if precision == "tf32" and hardware.peak_tflops_bf16 is not None:
        return hardware.peak_tflops_bf16 / 2.0
    return hardware.peak_tflops_fp32


def wide_router_s(
    hidden_size: int,
    experts: int,
    rows: Floats,
    precision: Literal["fp32", "tf32"],
    rate: float,
    bandwidth: float,
) -> Floats:
    """Return the seconds of one router product of ``rows`` × ``hidden_size`` by ``experts``, with its casts.

    ``rate`` is what products of this precision reach with many rows (operations/s), ``bandwidth`` what they read
    (bytes/s).
    """
    shallow_us = np.interp(rows, _ROWS, _MEASURED_US[precision]) * hidden_size / _MEASURED_DEPTH
    flops = 2.0 * rows * hidden_size * experts
    cast_s = _CAST_BYTES * rows * hidden_size / bandwidth
    seconds: Floats = np.where(rows > 0, np.maximum(shallow_us * S_PER_US, flops / rate) + cast_s, 0.0)
    return seconds
