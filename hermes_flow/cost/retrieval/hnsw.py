"""The index ``hnsw``: a graph of near neighbours that a query walks greedily."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Sequences, Vectors, Width
from hermes_flow.cost.retrieval.index import Parallel, index_variants, require_at_most, require_positive
from hermes_flow.cost.retrieval.index_operations import FLOAT_BYTES, Operator, Select, Walk
from hermes_flow.errors import ConfigError
from hermes_flow.program.same_bits import log, power

# Vectors compared with = SCALE · ef_search^EF · links^LINKS · ln(vectors)^VECTORS: least squares of the logarithms
# of what faiss counted in graphs of 10 to 100 thousand synthetic vectors (docs/retrieval.md).
_SCALE, _EF, _LINKS, _VECTORS = 0.0217, 0.69, 0.585, 2.574
_MOST_VECTORS = 1e6


@index_variants.register("hnsw")
@dataclass(frozen=True, slots=True)
class Hnsw:
    """``vectors`` of ``dim`` fp32 coordinates, each with 2·``links`` neighbours on the lowest layer.

    ``distances``: vectors that a query is compared with, which depends on the data; null estimates it. A step
    of a walk depends on those before, so that cores rarely share a query.
    """

    vectors: Vectors
    links: Sequences = 32
    ef_search: Sequences = 64
    """The number of candidates that a search keeps."""
    distances: Vectors | None = None
    dim: Width = 768
    neighbors: Sequences = 10
    """The number of nearest vectors that a query returns."""
    parallel: Parallel = "inter_query"
    """How the cores of a client share a batch of queries."""

    def check(self, key: str) -> None:
        """Raise ConfigError where the sizes do not describe a graph."""
        sizes = {"vectors": self.vectors, "links": self.links, "ef_search": self.ef_search}
        require_positive({**sizes, "distances": self.distances}, key)
        require_positive({"dim": self.dim, "neighbors": self.neighbors}, key)
        require_at_most("neighbors", self.neighbors, self.vectors, "the vectors", key)
        if self.distances is None and self.vectors > _MOST_VECTORS:
            raise ConfigError(
                child(key, "distances"),
                f"missing; it can be estimated for up to {_MOST_VECTORS:,.0f} vectors, expected a count for more",
            )

    @property
    def memory_bytes(self) -> float:
        """Vectors and the links of the lowest layer."""
        return self.vectors * FLOAT_BYTES * (self.dim + 2 * self.links)

    def operators(self) -> tuple[Operator, ...]:
        """Return the walk, and the queue of the best so far that it keeps."""
        kept = max(self.ef_search, self.neighbors)
        links = 2.0 * self.links * kept
        return (
            Walk("walk", self.compared, links, self.vectors, self.dim),
            Select("queue", self.compared, kept),
        )

    @property
    def compared(self) -> float:
        """Vectors that a query is compared with."""
        if self.distances is not None:
            return self.distances
        kept = max(self.ef_search, self.neighbors)
        sizes = (kept, self.links, max(1.0, float(log(self.vectors))))
        each = power(sizes, (_EF, _LINKS, _VECTORS)).tolist()
        estimate: float = _SCALE * each[0] * each[1] * each[2]
        return min(self.vectors, estimate)
