"""A graph of near neighbours that a query walks greedily (hierarchical navigable small world)."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.cost.retrieval.index import Parallel, index_variants, require_at_most, require_positive
from hermes_flow.cost.retrieval.operators import FLOAT_BYTES, Operator, RowGather, Select


@index_variants.register("hnsw")
@dataclass(frozen=True, slots=True)
class Hnsw:
    """``vectors`` of ``dim`` fp32 coordinates, each with 2·``links`` neighbours on the lowest layer.

    ``distances``: vectors that a query is compared with, a property of the data; null estimates it. A walk is
    one after another: cores never share a query.
    """

    vectors: float
    links: int = 32
    ef_search: int = 64
    distances: float | None = None
    dim: int = 768
    neighbors: int = 10
    parallel: Parallel = "inter_query"

    def check(self, key: str) -> None:
        """Raise ConfigError where the sizes do not describe a graph."""
        sizes = {"vectors": self.vectors, "links": self.links, "ef_search": self.ef_search}
        require_positive({**sizes, "distances": self.distances}, key)
        require_positive({"dim": self.dim, "neighbors": self.neighbors}, key)
        require_at_most("neighbors", self.neighbors, self.vectors, "the vectors", key)

    @property
    def memory_bytes(self) -> float:
        """Vectors and the links of the lowest layer."""
        return self.vectors * FLOAT_BYTES * (self.dim + 2 * self.links)

    def operators(self) -> tuple[Operator, ...]:
        """Return the walk, and the queue of the best so far that it keeps."""
        kept = max(self.ef_search, self.neighbors)
        links = 2.0 * self.links * kept
        return (
            RowGather("walk", self.compared, self.vectors, self.dim, links),
            Select("queue", self.compared, kept),
        )

    @property
    def compared(self) -> float:
        """Vectors that a query is compared with."""
        return self.distances if self.distances is not None else 0.0
