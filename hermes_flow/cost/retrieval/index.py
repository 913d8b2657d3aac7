"""The interface and the registry of vector indexes, and checks of their sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from hermes_flow.config.convert import child
from hermes_flow.config.registry import Registry
from hermes_flow.cost.retrieval.index_operations import Operator
from hermes_flow.errors import ConfigError

Parallel = Literal["intra_query", "inter_query"]


class Index(Protocol):
    """The interface of a vector index.

    ``parallel``: all cores work on one query after another (``intra_query``), or each on queries of its own
    (``inter_query``).
    """

    @property
    def dim(self) -> int:
        """Coordinates of a vector."""

    @property
    def neighbors(self) -> int:
        """The number of nearest vectors that a query asks for."""

    @property
    def parallel(self) -> Parallel:
        """The way in which cores share the work."""

    def check(self, key: str) -> None:
        """Raise ConfigError, below ``key``, where the sizes do not describe an index."""

    @property
    def memory_bytes(self) -> float:
        """The bytes of the index in the host's memory."""

    def operators(self) -> tuple[Operator, ...]:
        """Return the operators of one query, in order."""


index_variants: Registry[Index] = Registry("vector index", tag="index", package=__package__)


def parse_index(value: Any, key: str) -> Index:
    """Return the checked index that ``value``, a mapping with ``index: name``, describes."""
    index = index_variants.parse(value, key)
    index.check(key)
    return index


def require_positive(sizes: Mapping[str, float | None], key: str) -> None:
    """Raise ConfigError at the first of ``sizes``, by name, that is given and not greater than 0."""
    for name, size in sizes.items():
        if size is not None and not (math.isfinite(size) and size > 0):
            raise ConfigError(child(key, name), f"{size:g} is not valid; expected a number greater than 0")


def require_at_most(name: str, size: float, bound: float, what: str, key: str) -> None:
    """Raise ConfigError where ``size`` is above ``bound``, which is ``what``."""
    if size > bound:
        raise ConfigError(child(key, name), f"{size:g} is more than {what}, {bound:g}")
