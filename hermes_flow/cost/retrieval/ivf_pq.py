"""The index ``ivf_pq``: inverted lists of product-quantized codes, for billions of vectors."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Sequences, Vectors, Width
from hermes_flow.cost.retrieval.index import Parallel, index_variants, require_positive
from hermes_flow.cost.retrieval.index_operations import (
    FLOAT_BYTES,
    SUB_CENTROIDS,
    CodeScan,
    Operator,
    Select,
    SharedScan,
    TableBuild,
)
from hermes_flow.cost.retrieval.inverted_lists import ID_BYTES, check_lists, scanned_vectors, stored_vectors
from hermes_flow.errors import ConfigError


@index_variants.register("ivf_pq")
@dataclass(frozen=True, slots=True)
class IvfPq:
    """Codes of ``code_bytes`` in ``centroids`` lists, of which a query reads ``probes``.

    Each byte of a code stands for ``dim / code_bytes`` coordinates. Tables are built once per query (inner
    product). ``vectors_per_probe``: the mean size of a probed list; null: of all lists.
    """

    centroids: Vectors
    probes: Vectors
    vectors: Vectors | None = None
    """The number of vectors in the index."""
    vectors_per_probe: Vectors | None = None
    dim: Width = 768
    """The dimensions of one vector."""
    code_bytes: Width = 96
    neighbors: Sequences = 10
    """The number of nearest vectors that a query returns."""
    parallel: Parallel = "intra_query"
    """How the cores of a client share a batch of queries."""

    def check(self, key: str) -> None:
        """Raise ConfigError where the sizes do not describe lists of codes."""
        require_positive({"dim": self.dim, "code_bytes": self.code_bytes, "neighbors": self.neighbors}, key)
        check_lists(self.vectors, self.centroids, self.probes, self.vectors_per_probe, key)
        if self.dim % self.code_bytes:
            raise ConfigError(
                child(key, "code_bytes"),
                f"{self.code_bytes} is not valid; expected a divisor of dim, {self.dim}",
            )

    @property
    def memory_bytes(self) -> float:
        """Centroids, sub-centroids, codes and the vectors' numbers."""
        stored = stored_vectors(self.vectors, self.centroids, self.vectors_per_probe)
        return (
            FLOAT_BYTES * self.dim * (self.centroids + SUB_CENTROIDS) + (self.code_bytes + ID_BYTES) * stored
        )

    def operators(self) -> tuple[Operator, ...]:
        """Return the search of the centroids, the tables, and the scan of the probed lists."""
        stored = stored_vectors(self.vectors, self.centroids, self.vectors_per_probe)
        scanned = scanned_vectors(self.vectors, self.centroids, self.probes, self.vectors_per_probe)
        return (
            SharedScan("centroids", self.centroids, self.dim),
            Select("choose_lists", self.centroids, self.probes),
            TableBuild("tables", self.dim),
            CodeScan("codes", self.probes, scanned, stored, self.code_bytes),
            Select("select", scanned, self.neighbors),
        )
