"""Notes which retrievals wait until prompts have blocks for the contexts that are read for them."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program


class HeldContexts:
    """By retrieval, the ``prefills`` on clients that hold blocks for contexts, and the grants that are missing."""

    __slots__ = ("_missing", "_source", "_tokens", "prefills")

    def __init__(self, program: Program) -> None:
        self.prefills: dict[int, list[int]] = {}
        self._source: dict[int, int] = {}
        self._tokens: dict[int, list[int]] = {}  # retrieval → by request, the tokens that it looks up
        self._missing: dict[tuple[int, int], int] = {}
        for number, op in enumerate(program.ops):
            client = program.pools[op.pool].client
            if op.context is None or not isinstance(client, LLMClientSpec) or not client.holds_contexts:
                continue
            retrieval = op.context.source
            lookup = program.ops[retrieval].work
            assert isinstance(lookup, KVLookup)
            self._tokens[retrieval] = lookup.tokens.tolist()
            self.prefills.setdefault(retrieval, []).append(number)
            self._source[number] = retrieval

    def concerns(self, op: int) -> bool:
        """Return whether an op is such a retrieval or such a prefill."""
        return op in self.prefills or op in self._source

    def readers(self, op: int, request: int) -> Sequence[int]:
        """Return the prefills for which an op looks up a context of a request; none where that is empty."""
        return self.prefills[op] if op in self.prefills and self._tokens[op][request] else ()

    def asked(self, op: int, request: int, prompts: int) -> None:
        """Note that so many prompts have asked for blocks, for which a retrieval waits."""
        if prompts:
            self._missing[op, request] = prompts

    def granted(self, prefill: int, request: int) -> int | None:
        """Note that a prompt has its blocks; return the retrieval if no other prompt of it waits."""
        retrieval = self._source[prefill]
        left = self._missing.pop((retrieval, request)) - 1
        if left:
            self._missing[retrieval, request] = left
            return None
        return retrieval
