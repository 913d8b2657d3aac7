"""Hands contexts on: from a retrieval to the prefill that begins with it, and when all is said, back to be kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hermes_flow.machine.build import AnyClient, AnyTasks
from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.memory.client import MemoryClient, MemoryTasks
from hermes_flow.program.kv_store import MemoryClientSpec
from hermes_flow.program.program import Program

Called = Callable[[int, int], None]  # (task, now_ns)


class Contexts:
    """Which op loads what which retrieval has found, and whose end lets a context be kept.

    That is the decode where a request takes one on a pool of its own, else the prefill. Tasks and clients are by
    pool, and may be filled later.
    """

    def __init__(
        self,
        program: Program,
        coordinator: Coordinator,
        tasks: Sequence[AnyTasks],
        clients: Sequence[Sequence[AnyClient]],
    ) -> None:
        self._program = program
        self._coordinator = coordinator
        self._tasks = tasks
        self._clients = clients
        self._loads: dict[int, list[int]] = {}  # retrieval → prefills
        self._keeps: dict[int, int] = {}  # op whose end may finish a context → retrieval
        self._decodes: dict[int, int] = {}  # prefill → its decode on a pool of its own
        for number, op in enumerate(program.ops):
            if op.context_from is not None:
                self._loads.setdefault(op.context_from, []).append(number)
                if self._is_kept(op.context_from):
                    self._keeps[number] = op.context_from
            elif op.kv_from in self._keeps:
                self._keeps[number] = self._keeps[op.kv_from]
                self._decodes[op.kv_from] = number

    def watches(self, ops: Sequence[int]) -> bool:
        """Whether the end of any of these ops lets a context be kept."""
        return any(number in self._keeps for number in ops)

    def following(self, index: int, ops: Sequence[int], done: Called) -> Called:
        """Return what is to be called as a task of pool ``index`` ends, which serves ``ops``: ``done``, or more."""
        if isinstance(self._program.pools[index].client, MemoryClientSpec):
            return self._loading(ops, done)
        return self._keeping(ops, done) if self.watches(ops) else done

    def _is_kept(self, number: int) -> bool:
        op = self._program.ops[number]
        client = self._program.pools[op.pool].client
        assert isinstance(client, MemoryClientSpec)
        return client.write_back and op.lookup is not None and op.lookup.key is not None

    def _loading(self, ops: Sequence[int], done: Called) -> Called:
        """A retrieval is over: the prefill after it finds so many tokens computed, never the prompt's last."""
        count = len(self._program.requests)

        def retrieved(task: int, now_ns: int) -> None:
            place, request = divmod(task, count)
            tasks = self._tasks[self._program.ops[ops[place]].pool]
            assert isinstance(tasks, MemoryTasks)
            loaded = tasks.loaded[task]
            for number in self._loads.get(ops[place], ()) if loaded else ():
                if not self._takes(number, request):
                    continue
                pool = self._program.ops[number].pool
                own = self._tasks[pool]
                assert isinstance(own, LLMTasks)
                assert own.preloaded is not None
                prefill = self._coordinator.pools[pool].offsets[number] + request
                if own.prompt[prefill] > 1:
                    own.preloaded[prefill] = min(loaded, own.prompt[prefill] - 1)
            done(task, now_ns)

        return retrieved

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
        client = self._clients[pool][asked]
        assert isinstance(client, MemoryClient)
        client.write(self._coordinator.pools[pool].offsets[retrieval] + request, now_ns)
