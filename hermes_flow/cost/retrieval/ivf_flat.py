"""The index ``ivf_flat``: inverted lists of whole vectors."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.quantities import Sequences, Vectors, Width
from hermes_flow.cost.retrieval.index import Parallel, index_variants, require_positive
from hermes_flow.cost.retrieval.index_operations import FLOAT_BYTES, ListScan, Operator, Select, SharedScan
from hermes_flow.cost.retrieval.inverted_lists import ID_BYTES, check_lists, scanned_vectors, stored_vectors


@index_variants.register("ivf_flat")
@dataclass(frozen=True, slots=True)
class IvfFlat:
    """``vectors`` of ``dim`` fp32 coordinates in ``centroids`` lists, of which a query reads ``probes``.

    ``vectors_per_probe``: the mean size of a probed list; null: of all lists. Crowded lists are probed more.
    """

    centroids: Vectors
    probes: Vectors
    vectors: Vectors | None = None
    vectors_per_probe: Vectors | None = None
    dim: Width = 768
    neighbors: Sequences = 10
    """The number of nearest vectors that a query returns."""
    parallel: Parallel = "intra_query"
    """How the cores of a client share a batch of queries."""

    def check(self, key: str) -> None:
        """Raise ConfigError where the sizes do not describe lists."""
        require_positive({"dim": self.dim, "neighbors": self.neighbors}, key)
        check_lists(self.vectors, self.centroids, self.probes, self.vectors_per_probe, key)

    @property
    def memory_bytes(self) -> float:
        """Centroids, vectors and their numbers."""
        stored = stored_vectors(self.vectors, self.centroids, self.vectors_per_probe)
        return FLOAT_BYTES * self.dim * (self.centroids + stored) + ID_BYTES * stored

    def operators(self) -> tuple[Operator, ...]:
        """Return the search of the centroids and that of the probed lists."""
        stored = stored_vectors(self.vectors, self.centroids, self.vectors_per_probe)
        scanned = scanned_vectors(self.vectors, self.centroids, self.probes, self.vectors_per_probe)
        return (
            SharedScan("centroids", self.centroids, self.dim),
            Select("choose_lists", self.centroids, self.probes),
            ListScan("lists", self.probes, scanned, stored, self.dim),
            Select("select", scanned, self.neighbors),
        )
