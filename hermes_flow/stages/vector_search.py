"""The stage ``vector_search`` finds the nearest vectors of an index to the query's vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from hermes_flow.cost.passes import Site, search_pass
from hermes_flow.cost.retrieval import Index, index_variants, parse_index
from hermes_flow.cost.retrieval.index_operations import FLOAT_BYTES
from hermes_flow.cost.retrieval.inverted_lists import ID_BYTES
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost
from hermes_flow.stages.kind import BYTES_PER_TOKEN, Receiver, RequestSizes, stage_kinds
from hermes_flow.stages.rerank import Rerank

DEFAULT_INDEX = "ivf_pq"


@stage_kinds.register("vector_search")
@dataclass(frozen=True, slots=True)
class VectorSearch:
    """A search whose keys are those of its ``index``; the default index is IVF-PQ."""

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "batched"
    index: Index

    @classmethod
    def from_config(cls, given: Mapping[str, Any], key: str) -> VectorSearch:
        """Return the stage that the keys below ``key`` describe; raises ConfigError."""
        return cls(parse_index({index_variants.tag: DEFAULT_INDEX, **given}, key))

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return no tokens: a search has vectors."""
        return np.zeros_like(sizes.input_tokens)

    def sends(self, to: Receiver, tokens: Ints) -> Ints | None:
        """Return the bytes of the found documents, for a stage that ranks them.

        A cross-encoder reads the texts of the documents. Without one it is their numbers and distances, and the stage
        that ranks reads vectors on its own machine.
        """
        if not isinstance(to.params, Rerank):
            return None
        document = to.params.tokens_per_document * BYTES_PER_TOKEN
        return np.full_like(
            tokens, to.params.documents * (document if to.options.model else ID_BYTES + FLOAT_BYTES)
        )

    def passes(self, site: Site) -> PassCost:
        """Return the searches of so many queries at once."""
        return search_pass(
            site, self.index, f"searching {index_variants.describe(self.index).partition(' ')[0]}"
        )
