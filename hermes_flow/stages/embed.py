"""The stage ``embed`` runs an encoder over the query and gives the vector to search with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from hermes_flow.config.quantities import PositiveTokens
from hermes_flow.cost.passes import Site, encoder_pass
from hermes_flow.cost.retrieval.index_operations import FLOAT_BYTES
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost
from hermes_flow.stages.kind import Receiver, RequestSizes, Role, stage_kinds
from hermes_flow.stages.query import check_query, query_tokens
from hermes_flow.stages.vector_search import VectorSearch


@stage_kinds.register("embed")
@dataclass(frozen=True, slots=True)
class Embed:
    """The query has the request's input tokens, or ``query_tokens``: a number, or a distribution.

    What exceeds the encoder's context is cut off.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "batched"
    role: ClassVar[Role] = "encode"
    query_tokens: dict[str, Any] | PositiveTokens | None = None

    def __post_init__(self) -> None:
        check_query(self.query_tokens)

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the query's tokens."""
        return query_tokens(self.query_tokens, sizes)

    def sends(self, to: Receiver, tokens: Ints) -> Ints | None:
        """Return the bytes of the query's vector, for a search: fp32 coordinates."""
        if not isinstance(to.params, VectorSearch):
            return None
        return np.full_like(tokens, FLOAT_BYTES * to.params.index.dim)

    def passes(self, site: Site) -> PassCost:
        """Return the encoder's forward passes."""
        return encoder_pass(site, "embedding")
