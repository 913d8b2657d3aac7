"""Side stages that really compute: encoders with random weights (torch), a search (faiss), a tool (numpy)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch

EMBED = {"hidden": 512, "layers": 8}
GUARD = {"hidden": 384, "layers": 6}
_DIMENSIONS, _VECTORS, _CLUSTERS = 512, 100_000, 300


def encoder(hidden: int, layers: int, vocab: int = 32_000) -> Callable[[list[int]], Any]:
    """Return ``run(ids)``, the mean of the last layer of an encoder with random weights."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        hidden, hidden // 64, 4 * hidden, activation="gelu", batch_first=True
    )
    body = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()
    table = torch.nn.Embedding(vocab, hidden)

    @torch.inference_mode()
    def run(ids: list[int]) -> Any:
        return body(table(torch.tensor([ids]))).mean(1)[0].numpy()

    return run


def index() -> Any:
    """Return a flat index over clustered random vectors."""
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((_CLUSTERS, _DIMENSIONS), dtype=np.float32)
    made = faiss.IndexFlatL2(_DIMENSIONS)
    for _ in range(_VECTORS // 20_000):
        near = centers[rng.integers(0, _CLUSTERS, 20_000)]
        made.add(near + 0.5 * rng.standard_normal((20_000, _DIMENSIONS), dtype=np.float32))
    return made


def search(made: Any, vector: Any, neighbors: int = 10) -> Any:
    return made.search(vector[None].astype(np.float32), neighbors)[1][0]


class Tool:
    """So many ``rounds`` of a product of two matrices of 320 × 320, each followed by a sort."""

    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self.left = rng.standard_normal((320, 320)) / 18
        self.right = rng.standard_normal((320, 320))

    def __call__(self, rounds: int) -> float:
        x = self.right
        for _ in range(rounds):
            x = np.sort(self.left @ x, axis=0)
        return float(x.sum())
