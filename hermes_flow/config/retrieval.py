"""The keys for measurements of vector search on one CPU core (the hardware's ``retrieval`` block).

Every figure is of one core. A figure of 0 leaves its term out; null is unknown, and a search that needs it
says so.
"""

from __future__ import annotations

from hermes_flow.config.quantities import (
    MB,
    GBPerSecond,
    Giga,
    Microseconds,
    Nanoseconds,
    PositiveShare,
    Vectors,
)
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """How fast one core compares a query with vectors of this level: a cache of ``fits_mb``, or memory (null).

    ``scan_gb_s``: of vectors one after another. ``gather_gb_s`` and ``gather_ns`` each: of vectors at given places,
    anywhere. ``walk_ns``: what a vector adds to a scan when its place is known only from those before it.
    """

    scan_gb_s: GBPerSecond
    fits_mb: MB | None = None
    gather_gb_s: GBPerSecond | None = None
    gather_ns: Nanoseconds = 0.0
    walk_ns: Nanoseconds | None = None


@dataclass(frozen=True, slots=True)
class ProductFit:
    """A batch of ``from_batch_dim`` (queries · dimensions) or more is one matrix product, at ``gflops``."""

    from_batch_dim: Vectors
    gflops: Giga


@dataclass(frozen=True, slots=True)
class RetrievalEfficiency:
    """The constants of the search equations (docs/retrieval.md), with where they were measured.

    ``levels`` from the nearest cache to memory. Per vector compared: ``candidate_ns``; per level of the heap of
    the best: ``heap_ns``. Of codes: ``code_gb_s`` and ``code_ns`` each, ``table_gflops`` for their tables (null:
    as a scan). Per probed list: ``list_ns``; per link of a graph: ``link_ns``; per query and per batch:
    ``query_us``, ``call_us``; per core that joins in: ``sync_us``. ``shared_reads``: the queries of a batch read
    vectors that all are compared with once. ``bandwidth_fraction`` of the memory's is what all cores reach.
    """

    source: str
    """Where the figures come from."""
    levels: dict[str, MemoryLevel]
    code_gb_s: GBPerSecond | None = None
    code_ns: Nanoseconds = 0.0
    table_gflops: Giga | None = None
    candidate_ns: Nanoseconds = 0.0
    heap_ns: Nanoseconds = 0.0
    list_ns: Nanoseconds = 0.0
    link_ns: Nanoseconds = 0.0
    query_us: Microseconds = 0.0
    call_us: Microseconds = 0.0
    sync_us: Microseconds = 0.0
    shared_reads: bool = False
    product: ProductFit | None = None
    """When a batch of queries is compared as one matrix product, and how fast; null for never."""
    bandwidth_fraction: PositiveShare = 1.0
