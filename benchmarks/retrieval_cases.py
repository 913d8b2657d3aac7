"""Which vector searches are measured: those that constants are fitted to, and others held out.

The two differ in every size that defines an index (vectors, dimensions, lists, bytes of a code, links), and
mostly in how it is searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

Kind = Literal["flat", "ivf_flat", "ivf_pq", "hnsw", "rerank"]

FIT, HELD_OUT = "fit", "held_out"

MOST_COORDINATES = 8e7  # a longer search is only a repetition of shorter ones, and takes minutes in all


@dataclass(frozen=True, slots=True)
class Case:
    """One search that is measured; a size that its kind does not have is 0.

    ``effort`` is how far it looks: lists probed (ivf), ``ef_search`` (hnsw), documents (rerank). ``scored`` is
    how many vectors each query was compared with; of IVF, without the centroids.
    """

    split: str
    index: Kind
    vectors: int
    dim: int
    centroids: int = 0
    code_bytes: int = 0
    links: int = 0
    effort: int = 0
    neighbors: int = 10
    batch: int = 1
    scored: float = 0.0
    seconds: float = 0.0

    @property
    def geometry(self) -> tuple[Kind, int, int, int, int, int]:
        """What an index is built from."""
        return self.index, self.vectors, self.dim, self.centroids, self.code_bytes, self.links

    @property
    def coordinates(self) -> float:
        """Coordinates of vectors that the batch is compared with, where it scans: how long it takes, roughly."""
        probed = self.effort / self.centroids if self.centroids else 1.0
        scans = self.index in ("flat", "ivf_flat", "ivf_pq")
        return self.batch * self.vectors * probed * (self.code_bytes or self.dim) if scans else 0.0


@dataclass(frozen=True, slots=True)
class _Grid:
    """Searches of some indexes: every effort with every batch, and a few more."""

    split: str
    index: Kind
    sizes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    efforts: tuple[int, ...]
    batches: tuple[int, ...]
    more_neighbors: int


_VECTORS = ("vectors", "dim")
_LISTS = ("vectors", "dim", "centroids")
_CODES = ("vectors", "dim", "centroids", "code_bytes")
_LINKS = ("vectors", "dim", "links")

_FLAT = (
    *((1_000, 64), (10_000, 64), (100_000, 64), (400_000, 64), (100_000, 128)),
    *(
        (3_000, 256),
        (40_000, 256),
        (100_000, 256),
        (1_000, 768),
        (10_000, 768),
        (100_000, 768),
        (150_000, 192),
    ),
)
_FLAT_HELD_OUT = ((2_000, 96), (20_000, 96), (600_000, 96), (5_000, 384), (50_000, 384), (60_000, 512))
_IVF = (
    *((200_000, 64, 512), (100_000, 128, 1024), (300_000, 128, 600), (200_000, 256, 256)),
    *((60_000, 512, 300), (100_000, 768, 128)),
)
_IVF_HELD_OUT = ((150_000, 96, 300), (400_000, 192, 700), (80_000, 384, 400))
_PQ = (
    *((200_000, 64, 512, 8), (600_000, 64, 1024, 16), (300_000, 128, 1024, 16), (200_000, 128, 256, 64)),
    *((100_000, 256, 128, 32), (50_000, 768, 256, 96)),
)
_PQ_HELD_OUT = (
    (300_000, 96, 600, 12),
    (150_000, 192, 400, 24),
    (80_000, 384, 200, 48),
    (40_000, 512, 300, 64),
)
_HNSW = ((10_000, 64, 16), (80_000, 64, 16), (50_000, 128, 32), (15_000, 768, 16), (100_000, 128, 8))
_HNSW_HELD_OUT = ((20_000, 256, 24), (30_000, 384, 16), (80_000, 96, 12))
_RERANK = (
    *((20_000, 64), (1_000_000, 64), (60_000, 96), (200_000, 192), (100_000, 256), (100_000, 320)),
    *((10_000, 768), (200_000, 768)),
)
_RERANK_HELD_OUT = ((50_000, 128), (400_000, 128), (100_000, 384), (100_000, 512))

_GRIDS = (
    _Grid(FIT, "flat", _FLAT, _VECTORS, (0,), (1, 8, 64), 100),
    _Grid(HELD_OUT, "flat", _FLAT_HELD_OUT, _VECTORS, (0,), (1, 4, 32), 50),
    _Grid(FIT, "ivf_flat", _IVF, _LISTS, (1, 8, 32, 128), (1, 16, 64), 100),
    _Grid(HELD_OUT, "ivf_flat", _IVF_HELD_OUT, _LISTS, (2, 16, 64, 100), (1, 4, 32), 50),
    _Grid(FIT, "ivf_pq", _PQ, _CODES, (1, 8, 32, 128), (1, 16, 64), 100),
    _Grid(HELD_OUT, "ivf_pq", _PQ_HELD_OUT, _CODES, (2, 16, 64, 100), (1, 4, 32), 50),
    _Grid(FIT, "hnsw", _HNSW, _LINKS, (16, 64, 256), (1, 16, 64), 10),
    _Grid(HELD_OUT, "hnsw", _HNSW_HELD_OUT, _LINKS, (24, 48, 128), (1, 4, 32), 10),
    _Grid(FIT, "rerank", _RERANK, _VECTORS, (20, 200), (1, 16, 64), 10),
    _Grid(HELD_OUT, "rerank", _RERANK_HELD_OUT, _VECTORS, (50, 100), (1, 4, 32), 10),
)

# Batches that are compared as one matrix product, from 128,000 queries · dimensions.
_PRODUCTS = (
    *(Case(FIT, "flat", 20_000, 768, batch=batch) for batch in (256, 512)),
    Case(FIT, "flat", 100_000, 256, batch=1024),
    *(Case(HELD_OUT, "flat", vectors, 384, batch=512) for vectors in (10_000, 50_000)),
)


def cases() -> list[Case]:
    """Return every search to measure, those of an index together."""
    found = [case for grid in _GRIDS for case in _searches(grid) if case.coordinates <= MOST_COORDINATES]
    return sorted([*found, *_PRODUCTS], key=lambda case: case.geometry)


def _searches(grid: _Grid) -> Iterator[Case]:
    for sizes in grid.sizes:
        index = Case(grid.split, grid.index, **dict(zip(grid.names, sizes, strict=True)))
        for effort, batch in product(grid.efforts, grid.batches):
            if effort <= index.centroids or not index.centroids:
                yield replace(index, effort=effort, batch=batch)
        if grid.more_neighbors != index.neighbors:
            effort = grid.efforts[len(grid.efforts) // 2]
            yield replace(index, effort=effort, batch=grid.batches[1], neighbors=grid.more_neighbors)
