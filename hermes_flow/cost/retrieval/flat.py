"""The index ``flat``: exhaustive search that compares every query with every vector."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.quantities import Sequences, Vectors, Width
from hermes_flow.cost.retrieval.index import Parallel, index_variants, require_at_most, require_positive
from hermes_flow.cost.retrieval.index_operations import FLOAT_BYTES, Operator, Select, SharedScan


@index_variants.register("flat")
@dataclass(frozen=True, slots=True)
class Flat:
    """``vectors`` of ``dim`` fp32 coordinates, one after another: exact, 2·N·D operations a query."""

    vectors: Vectors
    dim: Width = 768
    neighbors: Sequences = 10
    """The number of nearest vectors that a query returns."""
    parallel: Parallel = "intra_query"
    """How the cores of a client share a batch of queries."""

    def check(self, key: str) -> None:
        """Raise ConfigError where a size is not one."""
        require_positive({"vectors": self.vectors, "dim": self.dim, "neighbors": self.neighbors}, key)
        require_at_most("neighbors", self.neighbors, self.vectors, "the vectors", key)

    @property
    def memory_bytes(self) -> float:
        """The vectors."""
        return FLOAT_BYTES * self.vectors * self.dim

    def operators(self) -> tuple[Operator, ...]:
        """Return the scan, and the choice of the nearest."""
        return (
            SharedScan("scan", self.vectors, self.dim),
            Select("select", self.vectors, self.neighbors),
        )
