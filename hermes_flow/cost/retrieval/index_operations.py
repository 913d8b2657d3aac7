"""The operators of a vector search: the bytes and operations of each, and its time on a core.

``bytes`` and ``flops`` are of one query and of no host in particular; ``core_s`` is one query's time on one
core of a host, ``memory_bytes`` what a whole batch reads past its caches. Equations: docs/retrieval.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from hermes_flow.cost.retrieval.host import Host
from hermes_flow.program.same_bits import log
from hermes_flow.program.units import BYTES_PER_GB, S_PER_NS

FLOAT_BYTES = 4
SUB_CENTROIDS = 256  # what one byte of a product-quantization code names one of


class Operator(Protocol):
    """One part of a search; the parts of a query run one after another.

    ``calls``: whether it is a call of its own, with an overhead per batch. ``shared``: whether every query of a
    batch reads the same bytes.
    """

    calls: ClassVar[bool]
    shared: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name of the operator within the search."""

    @property
    def bytes(self) -> float:
        """Bytes one query reads."""

    @property
    def flops(self) -> float:
        """Floating-point operations of one query; look-ups count as one."""

    def core_s(self, host: Host, batch: int) -> float:
        """Return the seconds of one core for one query of a batch; raises ConfigError for a null figure."""

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return the bytes that the whole batch reads from memory."""


@dataclass(frozen=True, slots=True)
class SharedScan:
    """Distances to vectors that every query of the batch is compared with: all of a flat index, or centroids."""

    calls: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    name: str
    vectors: float
    dim: int

    @property
    def bytes(self) -> float:
        """All vectors, 4·N·D."""
        return FLOAT_BYTES * self.vectors * self.dim

    @property
    def flops(self) -> float:
        """A multiplication and an addition per coordinate, 2·N·D."""
        return 2.0 * self.vectors * self.dim

    def core_s(self, host: Host, batch: int) -> float:
        """Return the scan of every vector, or the query's part of one product of matrices."""
        candidates = self.vectors * host.efficiency.candidate_ns * S_PER_NS
        scan = host.scan_s(self.bytes, self.bytes)
        product = host.efficiency.product
        if product is None or not self._is_product(host, batch):
            return candidates + scan
        return candidates + scan / batch + self.flops / (product.gflops * BYTES_PER_GB)

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return the vectors once, or once per query; nothing where they stay in a cache."""
        together = host.efficiency.shared_reads or self._is_product(host, batch)
        return self.bytes * host.memory_share(self.bytes) * (1 if together else batch)

    def _is_product(self, host: Host, batch: int) -> bool:
        product = host.efficiency.product
        return product is not None and batch * self.dim >= product.from_batch_dim


@dataclass(frozen=True, slots=True)
class ListScan:
    """Distances to the vectors of the probed lists, of ``stored`` in all."""

    calls: ClassVar[bool] = True
    shared: ClassVar[bool] = False
    name: str
    lists: float
    vectors: float
    stored: float
    dim: int

    @property
    def bytes(self) -> float:
        """The vectors of the probed lists."""
        return FLOAT_BYTES * self.vectors * self.dim

    @property
    def flops(self) -> float:
        """A multiplication and an addition per coordinate."""
        return 2.0 * self.vectors * self.dim

    def core_s(self, host: Host, batch: int) -> float:
        """Return the lists' overhead and the scan of their vectors."""
        fit = host.efficiency
        overhead = self.lists * fit.list_ns + self.vectors * fit.candidate_ns
        return overhead * S_PER_NS + host.scan_s(self.bytes, self._footprint)

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return what is read past the caches: queries do not share lists."""
        return batch * self.bytes * host.memory_share(self._footprint)

    @property
    def _footprint(self) -> float:
        return FLOAT_BYTES * self.stored * self.dim


@dataclass(frozen=True, slots=True)
class TableBuild:
    """A query's products with every sub-centroid: the tables in which its codes are looked up."""

    calls: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    name: str
    dim: int

    @property
    def bytes(self) -> float:
        """The sub-centroids, 256·4·D."""
        return FLOAT_BYTES * SUB_CENTROIDS * self.dim

    @property
    def flops(self) -> float:
        """A multiplication and an addition for each of their coordinates."""
        return 2.0 * SUB_CENTROIDS * self.dim

    def core_s(self, host: Host, batch: int) -> float:
        """Return the time to compute the tables."""
        gflops = host.efficiency.table_gflops
        if gflops is None:
            return host.scan_s(self.bytes, self.bytes)
        return self.flops / (gflops * BYTES_PER_GB)

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return the sub-centroids once per query, or nothing where they stay in a cache."""
        return batch * self.bytes * host.memory_share(self.bytes)


@dataclass(frozen=True, slots=True)
class CodeScan:
    """Approximate distances to the codes of the probed lists, of ``stored`` codes in all."""

    calls: ClassVar[bool] = True
    shared: ClassVar[bool] = False
    name: str
    lists: float
    codes: float
    stored: float
    code_bytes: int

    @property
    def bytes(self) -> float:
        """The codes of the probed lists."""
        return self.codes * self.code_bytes

    @property
    def flops(self) -> float:
        """A look-up and an addition per code byte, counted as one."""
        return self.codes * self.code_bytes

    def core_s(self, host: Host, batch: int) -> float:
        """Return the lists' overhead, and a look-up per byte."""
        fit = host.efficiency
        overhead = self.lists * fit.list_ns + self.codes * fit.code_ns
        return overhead * S_PER_NS + host.code_s(self.bytes)

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return what is read past the caches: queries do not share lists."""
        return batch * self.bytes * host.memory_share(self.stored * self.code_bytes)


@dataclass(frozen=True, slots=True)
class Gather:
    """Distances to given vectors, anywhere among ``stored``."""

    calls: ClassVar[bool] = True
    shared: ClassVar[bool] = False
    name: str
    vectors: float
    stored: float
    dim: int

    @property
    def bytes(self) -> float:
        """The vectors, 4·k·D."""
        return FLOAT_BYTES * self.vectors * self.dim

    @property
    def flops(self) -> float:
        """A multiplication and an addition per coordinate."""
        return 2.0 * self.vectors * self.dim

    def core_s(self, host: Host, batch: int) -> float:
        """Return the time of vectors at random places, known from the start."""
        candidates = self.vectors * host.efficiency.candidate_ns * S_PER_NS
        return candidates + host.gather_s(self.vectors, self.bytes, FLOAT_BYTES * self.stored * self.dim)

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return what is read past the caches."""
        return batch * self.bytes * host.memory_share(FLOAT_BYTES * self.stored * self.dim)


@dataclass(frozen=True, slots=True)
class Walk:
    """Distances to vectors among ``stored`` that a graph leads to, and its ``links`` there, most met before."""

    calls: ClassVar[bool] = True
    shared: ClassVar[bool] = False
    name: str
    vectors: float
    links: float
    stored: float
    dim: int

    @property
    def bytes(self) -> float:
        """The vectors, and 4 bytes a link."""
        return FLOAT_BYTES * (self.vectors * self.dim + self.links)

    @property
    def flops(self) -> float:
        """A multiplication and an addition per coordinate."""
        return 2.0 * self.vectors * self.dim

    def core_s(self, host: Host, batch: int) -> float:
        """Return the time of vectors whose places are not known before, and of the links."""
        fit = host.efficiency
        overhead = self.vectors * fit.candidate_ns + self.links * fit.link_ns
        row = FLOAT_BYTES * self.dim
        return overhead * S_PER_NS + host.walk_s(self.vectors, self.vectors * row, self.stored * row)

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return what is read past the caches."""
        return batch * self.bytes * host.memory_share(FLOAT_BYTES * self.stored * self.dim)


@dataclass(frozen=True, slots=True)
class Select:
    """Keeps the ``kept`` best of ``candidates`` in a heap.

    In random order, the i-th candidate is among the best so far with probability kept/i: the heap changes
    kept·(1 + ln(candidates/kept)) times, and each change walks log2(kept) levels.
    """

    calls: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    name: str
    candidates: float
    kept: float

    @property
    def bytes(self) -> float:
        """Nothing that is not in the nearest cache."""
        return 0.0

    @property
    def flops(self) -> float:
        """None; comparisons are not counted."""
        return 0.0

    @property
    def steps(self) -> float:
        """Levels of the heap that are walked."""
        kept = min(self.kept, self.candidates)
        if not kept:
            return 0.0
        return kept * (1.0 + float(log(self.candidates / kept))) * max(1.0, float(log(kept)) / math.log(2.0))

    def core_s(self, host: Host, batch: int) -> float:
        """Return the time of the heap."""
        return self.steps * host.efficiency.heap_ns * S_PER_NS

    def memory_bytes(self, host: Host, batch: int) -> float:
        """Return nothing."""
        return 0.0
