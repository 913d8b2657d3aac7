"""The vectors that a query reads from inverted lists, for an index with known list sizes."""

from __future__ import annotations

from hermes_flow.cost.retrieval.index import require_at_most, require_positive
from hermes_flow.errors import ConfigError

ID_BYTES = 8  # the number of a vector, kept beside it in its list


def stored_vectors(vectors: float | None, centroids: float, per_probe: float | None) -> float:
    """Return the vectors of all lists."""
    return vectors if vectors is not None else centroids * (per_probe or 0.0)


def scanned_vectors(vectors: float | None, centroids: float, probes: float, per_probe: float | None) -> float:
    """Return the vectors of the probed lists."""
    return probes * (per_probe if per_probe is not None else (vectors or 0.0) / centroids)


def check_lists(
    vectors: float | None, centroids: float, probes: float, per_probe: float | None, key: str
) -> None:
    """Raise ConfigError unless the lists' sizes are known and as many as are probed exist."""
    sizes = {"centroids": centroids, "probes": probes, "vectors": vectors, "vectors_per_probe": per_probe}
    require_positive(sizes, key)
    require_at_most("probes", probes, centroids, "the centroids", key)
    if vectors is None and per_probe is None:
        raise ConfigError(key, "has neither vectors nor vectors_per_probe; expected at least one of them")
    if vectors is not None and per_probe is not None:
        require_at_most(
            "vectors_per_probe", probes * per_probe, vectors, "all vectors, with so many probes", key
        )
