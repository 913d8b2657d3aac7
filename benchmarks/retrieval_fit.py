"""Fits a host's constants to measured searches, and tells by how much each kind of index is off.

Relative errors count (logarithms of predicted over measured), those beyond 15 % only in proportion, so that a
disturbed measurement does not bend the rest. Constants stay near where they start unless measurements move them;
how much of the last-level cache one core gets of it is one of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.retrieval_cases import Case
from hermes_flow.config.retrieval import MemoryLevel, ProductFit, RetrievalEfficiency
from hermes_flow.cost.retrieval import Host, Index, VectorRerank, parse_index, seconds

Floats = NDArray[np.float64]
Constants = Mapping[str, float]
Residuals = Callable[[Floats], Floats]

LEVELS = ("l2", "tlb", "l3", "dram")
# Where the search for constants starts: rough figures of a server core with AVX-512.
START = {
    "l2.scan_gb_s": 70.0,
    "tlb.scan_gb_s": 60.0,
    "l3.scan_gb_s": 45.0,
    "dram.scan_gb_s": 24.0,
    "l2.gather_gb_s": 60.0,
    "tlb.gather_gb_s": 28.0,
    "l3.gather_gb_s": 20.0,
    "dram.gather_gb_s": 8.0,
    "l3.gather_ns": 20.0,
    "dram.gather_ns": 30.0,
    "l2.walk_ns": 5.0,
    "tlb.walk_ns": 20.0,
    "l3.walk_ns": 50.0,
    "dram.walk_ns": 120.0,
    "code_gb_s": 2.3,
    "code_ns": 3.0,
    "table_gflops": 25.0,
    "candidate_ns": 0.6,
    "heap_ns": 8.0,
    "list_ns": 300.0,
    "link_ns": 1.0,
    "query_us": 0.3,
    "call_us": 4.0,
    "product_gflops": 100.0,
}
SYNC_US = 1.0  # not measured: what RAGO's published model has for each core of a split query

FROM_BATCH_DIM = 128_000  # faiss::distance_compute_blas_threshold
ROBUST = 0.15
NEAR_START = 0.02


@dataclass(frozen=True, slots=True)
class Caches:
    """Megabytes of a core's own second-level cache, and of the last level, of which others take their part.

    ``tlb_mb`` is how much memory a core's second-level TLB has the addresses of.
    """

    l2_mb: float
    tlb_mb: float
    l3_mb: float


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of one kind of index: their mean, the worst, and which share of searches is ``within`` 20 %."""

    index: str
    split: str
    searches: int
    mean: float
    within: float
    worst: float


def index_of(case: Case) -> Index:
    """Return the searched index as the cost model has it, with as many vectors compared as there were."""
    sizes: dict[str, float | str] = {"dim": case.dim, "neighbors": case.neighbors, "parallel": "inter_query"}
    if case.index == "rerank":
        return VectorRerank(case.effort, case.vectors, case.dim, neighbors=0)
    if case.index == "hnsw":
        sizes |= {"links": case.links, "ef_search": case.effort, "distances": case.scored}
    elif case.index != "flat":
        sizes |= {"centroids": case.centroids, "probes": case.effort}
        sizes["vectors_per_probe"] = case.scored / case.effort
    if case.index == "ivf_pq":
        sizes["code_bytes"] = case.code_bytes
    return parse_index({"index": case.index, "vectors": case.vectors, **sizes}, "case")


def fit(cases: Sequence[Case], caches: Caches, source: str) -> RetrievalEfficiency:
    """Return the constants that suit ``cases`` best."""
    fitted = {**START, "l3.fits_mb": caches.l3_mb}
    searches = [(index_of(case), case) for case in cases]
    measured = np.log([case.seconds for case in cases])

    def residuals(logs: Floats) -> Floats:
        host = _host(efficiency(dict(zip(fitted, np.exp(logs), strict=True)), caches, source))
        predicted = [seconds(index, case.batch, host) for index, case in searches]
        return np.asarray(np.log(predicted) - measured, dtype=np.float64)

    start = np.log(list(fitted.values()))
    found = [
        float(f"{constant:.3g}") for constant in np.exp(_least_squares(residuals, start, _weights(cases)))
    ]
    return efficiency(dict(zip(fitted, found, strict=True)), caches, source)


def errors(cases: Sequence[Case], fitted: RetrievalEfficiency) -> list[Errors]:
    """Return the errors of every kind of index and split."""
    host = _host(fitted)
    found: dict[tuple[str, str], list[float]] = {}
    for case in cases:
        off = seconds(index_of(case), case.batch, host) / case.seconds - 1.0
        found.setdefault((case.index, case.split), []).append(abs(off))
    return [
        Errors(
            index, split, len(off), sum(off) / len(off), sum(one <= 0.2 for one in off) / len(off), max(off)
        )
        for (index, split), off in sorted(found.items())
    ]


def efficiency(constants: Constants, caches: Caches, source: str) -> RetrievalEfficiency:
    """Return named constants as a hardware entry has them."""
    left: dict[str, Any] = {**constants, "l2.fits_mb": caches.l2_mb, "tlb.fits_mb": caches.tlb_mb}
    keys = [field.name for field in fields(MemoryLevel)]
    levels = {
        level: MemoryLevel(**{key: left.pop(f"{level}.{key}") for key in keys if f"{level}.{key}" in left})
        for level in LEVELS
    }
    product = ProductFit(FROM_BATCH_DIM, left.pop("product_gflops"))
    return RetrievalEfficiency(source=source, levels=levels, product=product, sync_us=SYNC_US, **left)


def _host(fitted: RetrievalEfficiency) -> Host:
    """Return a host of one core, which never waits for the bandwidth of all."""
    return Host("retrieval", 1, math.inf, fitted)


def _weights(cases: Sequence[Case]) -> Floats:
    """Return weights, 1 on average, by which every index counts the same, however often it is searched."""
    searches = Counter(case.geometry for case in cases)
    each = len(cases) / len(searches)
    return np.array([each / searches[case.geometry] for case in cases])


def _least_squares(residuals: Residuals, start: Floats, counts: Floats) -> Floats:
    """Return where the robust sum of squares is least (SciPy's trust regions)."""

    def moved_too(logs: Floats) -> Floats:
        return np.concatenate([residuals(logs), np.sqrt(NEAR_START) * (logs - start)])

    def loss(squares: Floats) -> Floats:
        """Huber's loss of the searches, as often as each counts, and its derivatives; the squares of the rest."""
        beyond = np.maximum(squares[: len(counts)], 1.0)
        huber = np.where(squares[: len(counts)] <= 1.0, squares[: len(counts)], 2.0 * np.sqrt(beyond) - 1.0)
        slope = beyond**-0.5
        bend = np.where(beyond > 1.0, -0.5 * beyond**-1.5, 0.0)
        rest = squares[len(counts) :]
        searches = counts * np.stack([huber, slope, bend])
        return np.hstack([searches, np.stack([rest, np.ones_like(rest), np.zeros_like(rest)])])

    found = least_squares(
        moved_too,
        start,
        jac="3-point",
        diff_step=3e-4,  # predictions have kinks, which small steps may miss
        x_scale="jac",
        loss=loss,
        f_scale=ROBUST,
        ftol=1e-7,
    )
    at: Floats = found.x
    return at
