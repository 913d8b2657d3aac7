"""What vector search reaches on one core of a CPU: the keys of a hardware entry's ``retrieval`` block.

Every figure is of one core. A figure of 0 leaves its term out; null is unknown, and a search that needs it
says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """How fast one core reads what lies in this level: a cache of ``fits_mb``, or memory (null).

    ``scan_gb_s``: rows one after another, distances included. A row at an address that nothing announced
    takes ``random_ns`` and its bytes at ``random_gb_s`` (null: at ``scan_gb_s``).
    """

    scan_gb_s: float
    fits_mb: float | None = None
    random_ns: float | None = None
    random_gb_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProductFit:
    """A batch of ``from_batch_dim`` (queries · dimensions) or more is one matrix product, at ``gflops``."""

    from_batch_dim: float
    gflops: float


@dataclass(frozen=True, slots=True)
class RetrievalEfficiency:
    """The constants of the search equations (docs/retrieval.md), with where they were measured.

    ``levels`` from the nearest cache to memory. ``shared_reads``: the queries of a batch pass over vectors
    that all of them compare with together, so that these are read from memory once per batch. Codes are
    looked up in tables of 1 KB per code byte: those within ``table_cache_kb`` at ``code_gb_s``, the rest at
    ``code_spilled_gb_s``. ``table_gflops`` null: tables are built as fast as vectors are scanned.
    ``bandwidth_fraction`` of the memory bandwidth is what all cores together reach.
    """

    source: str
    levels: dict[str, MemoryLevel]
    code_gb_s: float | None = None
    code_spilled_gb_s: float | None = None
    table_cache_kb: float | None = None
    table_gflops: float | None = None
    candidate_ns: float = 0.0
    heap_ns: float = 0.0
    list_ns: float = 0.0
    link_ns: float = 0.0
    query_us: float = 0.0
    call_us: float = 0.0
    sync_us: float = 0.0
    shared_reads: bool = False
    product: ProductFit | None = None
    bandwidth_fraction: float = 1.0
