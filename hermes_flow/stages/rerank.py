"""The stage ``rerank`` sorts found documents; the best ones are added to the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from hermes_flow.config.quantities import PositiveTokens, Sequences, Tokens, Vectors, Width
from hermes_flow.cost.passes import Site, encoder_pass, search_pass
from hermes_flow.cost.retrieval.inverted_lists import stored_vectors
from hermes_flow.cost.retrieval.rerank import VectorRerank
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost
from hermes_flow.stages.kind import BYTES_PER_TOKEN, Receiver, RequestSizes, stage_kinds
from hermes_flow.stages.query import check_query, query_tokens


@stage_kinds.register("rerank")
@dataclass(frozen=True, slots=True)
class Rerank:
    """Ranks ``documents`` of ``tokens_per_document`` tokens and adds the ``keep`` best (null: all) to the prompt.

    Without a ``model`` by the exact distances of their vectors: ``dim`` fp32 coordinates each, anywhere among
    ``vectors`` (null: those of the index that was searched before). With one by a cross-encoder: a forward pass over
    the query's tokens (as for embed) and the document's, for each document.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "batched"
    documents: Sequences
    tokens_per_document: Tokens
    keep: Tokens | None = None
    query_tokens: dict[str, Any] | PositiveTokens | None = None
    """The length of the query: a number, or a length distribution. Null is the prompt."""
    vectors: Vectors | None = None
    dim: Width | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep > self.documents:
            raise ConfigError("keep", f"{self.keep} is above the number of documents, {self.documents}")
        check_query(self.query_tokens)

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the tokens that a cross-encoder reads: the query's and a document's, for each document."""
        return self.documents * (query_tokens(self.query_tokens, sizes) + self.tokens_per_document)

    def adds(self, sizes: RequestSizes) -> Ints:
        """Return the tokens of the documents that are kept."""
        return np.full_like(sizes.input_tokens, self._kept * self.tokens_per_document)

    def sends(self, to: Receiver, tokens: Ints) -> Ints | None:
        """Return the bytes of the texts of the documents that are kept, for the prefill that reads them."""
        if to.role != "prompt":
            return None
        return np.full_like(tokens, self._kept * self.tokens_per_document * BYTES_PER_TOKEN)

    def passes(self, site: Site) -> PassCost:
        """Return the passes of the cross-encoder, or the comparisons of vectors."""
        if site.model is not None:
            return encoder_pass(site, "reranking", sequences=self.documents)
        searched = site.searched
        vectors = self.vectors
        if vectors is None:
            if searched is None:
                raise ConfigError("vectors", "null, and no vector_search comes before it")
            vectors = stored_vectors(
                getattr(searched, "vectors", None),
                getattr(searched, "centroids", 0.0),
                getattr(searched, "vectors_per_probe", None),
            )
        dim = self.dim or (768 if searched is None else searched.dim)
        index = VectorRerank(self.documents, vectors, dim=dim, neighbors=max(1, self._kept))
        index.check("")
        return search_pass(site, index, "reranking by vectors")

    @property
    def _kept(self) -> int:
        return self.documents if self.keep is None else self.keep
