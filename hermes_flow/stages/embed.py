"""Embed: an encoder's forward pass over the query, which gives the vector to search with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from hermes_flow.cost.passes import Site, encoder_pass
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost
from hermes_flow.stages.kind import RequestSizes, stage_kinds
from hermes_flow.stages.query import check_query, query_tokens


@stage_kinds.register("embed")
@dataclass(frozen=True, slots=True)
class Embed:
    """The query has the request's input tokens, or ``query_tokens``: a number, or a distribution.

    What exceeds the encoder's context is cut off.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "batched"
    query_tokens: dict[str, Any] | int | None = None

    def __post_init__(self) -> None:
        check_query(self.query_tokens)

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the query's tokens."""
        return query_tokens(self.query_tokens, sizes)

    def passes(self, site: Site) -> PassCost:
        """Return the encoder's forward passes."""
        return encoder_pass(site, "embedding")
