"""The interface of both table formats to the cost model: the times of one client's operators, in µs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hermes_flow.cost.kernels.reduce import DecodePoints, PrefillPoints
from hermes_flow.cost.kernels.table import Floats, problem
from hermes_flow.cost.kv import kv_bytes_per_token
from hermes_flow.cost.model import Deployment
from hermes_flow.program.units import gb_to_bytes

# Contexts beyond these say little about the steps of a client, and would weigh as much.
_LEAST_CONTEXT, _MOST_CONTEXT = 128, 16_384
USEFUL = "with contexts of 128 to 16,384 tokens that fit the GPU"


class Tables(Protocol):
    """A folder of measurements, asked for one tensor-parallel device of one deployment."""

    complete: bool  # norms, activations, rotary embedding and sampling were measured too

    def tokens_us(self, tokens: Floats) -> Floats:
        """Return all layers' token-wise work, without attention and collectives."""

    def sequences_us(self, sequences: Floats) -> Floats:
        """Return what is done per sequence at the end of a step."""

    def decode_points(self) -> DecodePoints:
        """Return one layer's decode attention where it was measured."""

    def prefill_points(self) -> PrefillPoints:
        """Return one layer's prefill attention where it was measured."""

    def all_reduce_us(self, elements: Floats) -> Floats | None:
        """Return one all-reduce of so many bf16 numbers, or None where the folder has none."""


def useful(sequences: Floats, context: Floats, deployment: Deployment) -> NDArray[np.bool_]:
    """Tell which points of decode attention can be steps of the client: KV within the GPU, batches not far above."""
    most = gb_to_bytes(deployment.hardware.memory_gb) / kv_bytes_per_token(
        deployment.model, deployment.tensor_parallel
    )
    mask: NDArray[np.bool_] = (context >= _LEAST_CONTEXT) & (context <= _MOST_CONTEXT) & (sequences >= 1)
    return mask & (sequences * context <= most) & (sequences < 2 * deployment.max_sequences)


def table_files(folder: Path) -> dict[str, list[Path]]:
    """Return the folder's CSV and Parquet files by what they hold: the end of their name.

    ``vllm0.24.0__gemm_perf.parquet`` and ``gemm.csv`` both hold ``gemm``. Raises ConfigError without a folder.
    """
    if not folder.is_dir():
        raise problem(folder, "no such folder")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".csv", ".parquet"):
            found.setdefault(path.stem.rsplit("__", 1)[-1].removesuffix("_perf"), []).append(path)
    return found
