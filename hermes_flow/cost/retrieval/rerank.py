"""Reranking by vectors: found documents are ordered by the exact distances of their vectors."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.cost.retrieval.index import Parallel, require_at_most, require_positive
from hermes_flow.cost.retrieval.index_operations import FLOAT_BYTES, Gather, Operator, Select


@dataclass(frozen=True, slots=True)
class VectorRerank:
    """Distances to ``documents`` vectors of ``dim`` fp32 coordinates, anywhere among ``vectors``.

    The best ``neighbors`` are kept; 0: all, in no order.
    """

    documents: int
    vectors: float
    dim: int = 768
    neighbors: int = 10
    parallel: Parallel = "inter_query"

    def check(self, key: str) -> None:
        """Raise ConfigError where a size is not one."""
        require_positive({"documents": self.documents, "vectors": self.vectors, "dim": self.dim}, key)
        require_at_most("neighbors", self.neighbors, self.documents, "the documents", key)
        require_at_most("documents", self.documents, self.vectors, "the vectors", key)

    @property
    def memory_bytes(self) -> float:
        """The vectors."""
        return FLOAT_BYTES * self.vectors * self.dim

    def operators(self) -> tuple[Operator, ...]:
        """Return the reading of the documents' vectors, k·D·4 bytes, and their order."""
        return (
            Gather("documents", self.documents, self.vectors, self.dim),
            Select("select", self.documents, self.neighbors),
        )
