"""Lets retrievals wait until prompts have blocks for the contexts that are read for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from hermes_flow.machine.engine import Engine
from hermes_flow.machine.placement import Placement
from hermes_flow.machine.pool_clients import ContextHolder
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program

if TYPE_CHECKING:
    from hermes_flow.machine.route_choice import TakenByLoad


class HeldContexts:
    """By retrieval, the ``prefills`` on clients that hold blocks for contexts, and the grants that are missing.

    ``taken`` tells by op which requests take it, None for all.
    """

    __slots__ = ("_engine", "_missing", "_placement", "_source", "_taken", "_tokens", "prefills")

    def __init__(
        self,
        program: Program,
        engine: Engine,
        placement: Placement,
        taken: Sequence[list[bool] | TakenByLoad | None],
    ) -> None:
        self._engine = engine
        self._placement = placement
        self._taken = taken
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

    def ask(self, op: int, request: int, now_ns: int) -> bool:
        """Let prompts ask for blocks before a retrieval reads their contexts; return whether it waits for any."""
        if op not in self.prefills or not self._tokens[op][request]:
            return False  # there is nothing to read
        placement, asked = self._placement, 0
        for prefill in self.prefills[op]:
            taken = self._taken[prefill]
            if placement.client[prefill][request] < 0 and (taken is None or taken[request]):
                pool = placement.pools[placement.pool_of(prefill)]
                chosen = placement.place(prefill, request, now_ns)
                client = cast(ContextHolder, pool.clients[chosen])
                at_ns = client.ask_for_context(pool.offsets[prefill] + request, now_ns)
                self._engine.wake(pool.ranks[chosen], at_ns)
                asked += 1
        if asked:
            self._missing[op, request] = asked
        return asked > 0

    def granted(self, prefill: int, request: int) -> int | None:
        """Note that a prompt has its blocks; return the retrieval if no other prompt of it waits."""
        retrieval = self._source[prefill]
        left = self._missing.pop((retrieval, request)) - 1
        if left:
            self._missing[retrieval, request] = left
            return None
        return retrieval
