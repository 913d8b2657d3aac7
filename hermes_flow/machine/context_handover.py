"""Passes contexts from a retrieval to the prefill that uses them, and back to the store at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.engine import Engine
from hermes_flow.pools.client import Bring, PoolClient
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.program import Program

Called = Callable[[int, int], None]  # (task, now_ns)
# A prefill: the requests that take it, what tells its tasks of computed tokens, its first task, and what follows.
_Reader = tuple[NDArray[np.bool_] | None, Called, int, Called | None]
Carry = Callable[
    [int, int, int, Callable[[int], None], int], None
]  # (sender, receiver, bytes, over(now_ns), now_ns)


class Contexts:
    """The retrievals whose contexts ops load, and the ops at whose end a context can be kept.

    That is the decode where a request takes one on a pool of its own, else the prefill. Tasks and clients are by
    pool, and may be filled later. ``carry`` moves bytes between clients, numbered over all pools; without it all
    stand on one machine.
    """

    carry: Carry | None = None
    engine: Engine | None = None  # where contexts may be kept at once that meet nobody on their way

    def __init__(
        self,
        program: Program,
        coordinator: Coordinator,
        tasks: Sequence[PoolTasks],
        clients: Sequence[Sequence[PoolClient]],
    ) -> None:
        self._program = program
        self._coordinator = coordinator
        self._tasks = tasks
        self._clients = clients
        self._loads: dict[int, list[int]] = {}  # retrieval → prefills
        self._keeps: dict[int, int] = {}  # op whose end may finish a context → retrieval
        self._decodes: dict[int, int] = {}  # prefill → its decode on a pool of its own
        self._waits_alone: set[int] = set()  # ops whose end nobody but a store may wait for
        self._let_go: dict[
            int, int
        ] = {}  # prefill → op whose end a store does not wait for if it has the context
        for number, op in enumerate(program.ops):
            if op.context is not None:
                self._loads.setdefault(op.context.source, []).append(number)
                if self._is_kept(op.context.source):
                    self._keeps[number] = op.context.source
            elif op.kv is not None and op.kv.source in self._keeps:
                self._keeps[number] = self._keeps[op.kv.source]
                self._decodes[op.kv.source] = number

    def watches(self, ops: Sequence[int]) -> bool:
        """Return whether a context can be kept at the end of any of these ops."""
        return any(number in self._keeps for number in ops)

    def waits_alone(self, ops: Iterable[int]) -> None:
        """Note that nobody but a store waits for the end of these ops."""
        self._waits_alone.update(ops)

    def prepare(self) -> None:
        """Find the ops that need not be reported where a store has the context for good; all pools are built."""
        for prefill, retrieval in self._keeps.items():
            if prefill in self._decodes.values():
                continue
            last = self._decodes.get(prefill, prefill)
            stores = self._clients[self._program.ops[retrieval].pool]
            if last in self._waits_alone and all(store.keeps_for_good for store in stores):
                self._let_go[prefill] = last
                self._tasks[self._program.ops[last].pool].count_waited()

    def following(self, index: int, ops: Sequence[int], done: Called) -> Called:
        """Return the callback for the end of tasks of pool ``index``, which serves ``ops``."""
        if any(number in self._loads for number in ops):
            return self._loading(index, ops, done)
        return self._keeping(ops, done) if self.watches(ops) else done

    def _is_kept(self, number: int) -> bool:
        op = self._program.ops[number]
        writes = getattr(self._program.pools[op.pool].client, "write_back", True)
        return writes and isinstance(op.work, KVLookup) and op.work.key is not None

    def _loading(self, index: int, ops: Sequence[int], done: Called) -> Called:
        """A retrieval is over: the prefill after it finds so many tokens computed, never the prompt's last."""
        count = len(self._program.requests)
        readers: list[list[_Reader]] = []  # by place among ops, once all pools are there

        def retrieved(task: int, now_ns: int) -> None:
            loaded = self._tasks[index].context_tokens(task)
            if loaded:
                if not readers:
                    readers.extend([self._readers(number) for number in ops])
                place, request = divmod(task, count)
                for taken, begin_with, first, forget in readers[place]:
                    if taken is not None and not taken[request]:
                        continue
                    begin_with(first + request, loaded)
                    if forget is not None:
                        forget(request, task)
            done(task, now_ns)

        return retrieved

    def _readers(self, retrieval: int) -> list[_Reader]:
        """Return the prefills that load the contexts of a retrieval."""
        found: list[_Reader] = []
        for number in self._loads.get(retrieval, ()):
            op = self._program.ops[number]
            first = self._coordinator.pools[op.pool].offsets[number]
            forget = self._forgetting(number, retrieval) if number in self._let_go else None
            found.append((op.taken, self._tasks[op.pool].begin_with, first, forget))
        return found

    def _forgetting(self, prefill: int, retrieval: int) -> Called:
        """Return what lets nobody wait for a request's end whose store has its context, and will always have it.

        It is called with the request and the retrieval's task.
        """
        last, ops = self._let_go[prefill], self._program.ops
        stores, chosen = self._clients[ops[retrieval].pool], self._coordinator.client[retrieval]
        pool, taken = ops[last].pool, ops[last].taken
        nobody_waits, first = self._tasks[pool].nobody_waits, self._coordinator.pools[pool].offsets[last]

        def forget(request: int, task: int) -> None:
            if stores[chosen[request]].has_kept(task) and (taken is None or taken[request]):
                nobody_waits(first + request)

        return forget

    def _keeping(self, ops: Sequence[int], done: Called) -> Called:
        count = len(self._program.requests)

        def finished(task: int, now_ns: int) -> None:
            place, request = divmod(task, count)
            self._keep(ops[place], request, now_ns)
            done(task, now_ns)

        return finished

    def _takes(self, number: int, request: int) -> bool:
        taken = self._program.ops[number].taken
        return taken is None or bool(taken[request])

    def _keep(self, number: int, request: int, now_ns: int) -> None:
        """Let the store that was asked for a context keep it, if all of its KV is computed and the answer written."""
        retrieval = self._keeps.get(number)
        if retrieval is None:
            return
        decode = self._decodes.get(number)
        if decode is not None and self._takes(decode, request):
            return
        asked = self._coordinator.client[retrieval][request]
        if asked < 0:
            return
        pool = self._program.ops[retrieval].pool
        task = self._coordinator.pools[pool].offsets[retrieval] + request
        bring = None if self.carry is None else self._way(number, request, pool, asked)
        store, engine = self._clients[pool][asked], self.engine
        if engine is None or number not in self._waits_alone or not self._ends_last(number, request):
            store.keep(task, now_ns, bring)
        else:  # nothing else follows, here or on any client
            engine.look_ahead()
            store.keep(task, now_ns, bring)
            engine.quiet_ns = -1

    def _ends_last(self, number: int, request: int) -> bool:
        """Return whether the client of a request's op, which ends now, has no other tasks that anybody waits for."""
        sender = self._coordinator.client[number][request]
        return self._clients[self._program.ops[number].pool][sender].none_awaited

    def _way(self, number: int, request: int, pool: int, store: int) -> Bring:
        """Return what brings bytes to a store from the client that has ended a request's op."""
        assert self.carry is not None
        pools, sender = self._coordinator.pools, self._coordinator.client[number][request]
        here = pools[self._program.ops[number].pool].first_number + sender
        return partial(self.carry, here, pools[pool].first_number + store)
