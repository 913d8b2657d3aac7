"""Builds indexes of synthetic vectors with faiss, and times their searches.

Searches run on one core and are timed by the CPU time of their thread, which other work on the machine disturbs
little; the least of several passes counts. Queries differ from search to search: what one finds in the caches is
what others left there.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval_cases import Case

Floats = NDArray[np.float32]

LATENT = 16  # dimensions that the vectors really vary in; embeddings of text have few as well
CLUSTER = 400  # vectors that share a centre
QUERIES = 4096
PASSES = 20
PASS_S = 0.01

Search = Callable[[int], None]


def measured(cases: Iterable[Case]) -> Iterator[Case]:
    """Yield every case with its ``seconds`` and, of each query, its ``scored`` vectors."""
    faiss = importlib.import_module("faiss")
    for geometry, group in groupby(cases, key=lambda case: case.geometry):
        name = ", ".join(str(size) for size in geometry if size)
        print(f"measuring {name}", file=sys.stderr, flush=True)
        subject = _Subject(faiss, *geometry)
        for case in group:
            yield subject.measure(case)


class _Subject:
    """One index, and the queries it is asked."""

    def __init__(
        self, faiss: Any, kind: str, vectors: int, dim: int, centroids: int, code_bytes: int, links: int
    ) -> None:
        self.faiss = faiss
        self.kind = kind
        self.vectors = vectors
        self.rng = np.random.default_rng([vectors, dim, centroids, code_bytes, links])
        draw = _Mixture(self.rng, max(16, vectors // CLUSTER), dim)
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        data = draw(vectors)
        if kind == "hnsw":
            self.index = faiss.IndexHNSWFlat(dim, links, faiss.METRIC_INNER_PRODUCT)
        elif kind in ("ivf_flat", "ivf_pq"):
            self.index = self._inverted(data, dim, centroids, code_bytes)
        else:
            self.index = faiss.IndexFlatIP(dim)
        self.index.add(data)
        self.queries = draw(QUERIES)

    def _inverted(self, data: Floats, dim: int, centroids: int, code_bytes: int) -> Any:
        """Return an empty index whose centroids are vectors of the data: good enough to take time as real ones."""
        faiss = self.faiss
        self.quantizer = faiss.IndexFlatIP(dim)
        self.quantizer.add(data[self.rng.choice(len(data), centroids, replace=False)])
        metric = faiss.METRIC_INNER_PRODUCT
        if not code_bytes:
            return faiss.IndexIVFFlat(self.quantizer, dim, centroids, metric)
        index = faiss.IndexIVFPQ(self.quantizer, dim, centroids, code_bytes, 8, metric)
        index.pq.cp.niter = 2
        index.train(data[: 40 * 256])
        return index

    def measure(self, case: Case) -> Case:
        """Return the case with what it took and did."""
        self.faiss.omp_set_num_threads(1)
        search = self._search(case)
        search(0)
        counts = self.faiss.cvar.hnsw_stats if case.index == "hnsw" else self.faiss.cvar.indexIVF_stats
        counts.reset()
        searches, seconds = _timed(search)
        scored = float(counts.ndis) / (searches * case.batch)
        if case.index in ("flat", "rerank"):
            scored = float(case.effort or case.vectors)
        return replace(case, scored=scored, seconds=seconds)

    def _search(self, case: Case) -> Search:
        """Return the search of the n-th batch of queries."""
        if case.index == "rerank":
            return self._subset_search(case)
        if case.index == "hnsw":
            self.index.hnsw.efSearch = case.effort
        elif case.index != "flat":
            self.index.nprobe = case.effort
        batches = _batches(self.queries, case.batch)
        return lambda n: self.index.search(batches[n % len(batches)], case.neighbors)

    def _subset_search(self, case: Case) -> Search:
        """Return distances to given vectors, anywhere in the index."""
        pointer = self.faiss.swig_ptr
        batches = _batches(self.queries, case.batch)
        subsets = [
            self.rng.integers(0, self.vectors, (case.batch, case.effort))
            for _ in range(max(8, 200_000 // (case.batch * case.effort)))
        ]
        distances = np.empty((case.batch, case.effort), dtype=np.float32)

        def search(n: int) -> None:
            queries, subset = batches[n % len(batches)], subsets[n % len(subsets)]
            self.index.compute_distance_subset(
                case.batch, pointer(queries), case.effort, pointer(distances), pointer(subset)
            )

        return search


class _Mixture:
    """Draws unit vectors around centres that lie, as the vectors, near a subspace of few dimensions."""

    def __init__(self, rng: np.random.Generator, centres: int, dim: int) -> None:
        self.rng = rng
        self.plane = rng.standard_normal((LATENT, dim), dtype=np.float32) / np.float32(np.sqrt(LATENT))
        self.centres = rng.standard_normal((centres, LATENT), dtype=np.float32)

    def __call__(self, count: int) -> Floats:
        chosen = self.rng.integers(0, len(self.centres), count)
        latent = self.centres[chosen] + self.rng.standard_normal((count, LATENT), dtype=np.float32)
        found = latent @ self.plane
        found += 0.1 * self.rng.standard_normal(found.shape, dtype=np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found.astype(np.float32, copy=False)


def _batches(queries: Floats, batch: int) -> list[Floats]:
    return [
        np.ascontiguousarray(queries[at : at + batch]) for at in range(0, len(queries) - batch + 1, batch)
    ]


def _timed(search: Search) -> tuple[int, float]:
    """Return how many searches were made, and the mean CPU seconds of one in the fastest pass."""
    made, least = 0, math.inf
    for _ in range(PASSES):
        first, passed = made, 0.0
        start = time.thread_time()
        while passed < PASS_S:
            search(made)
            made += 1
            passed = time.thread_time() - start
        least = min(least, passed / (made - first))
    return made, least
