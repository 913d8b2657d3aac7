"""The facts that a routing policy may read about the tasks of a pool."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import copy

from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints


class PoolFacts:
    """The facts of a pool's tasks by number; tasks are numbered op by op, with a row of all requests each."""

    __slots__ = ("_adapters", "_context_ns", "_count", "_sessions", "_tasks", "_transfer_ns")

    def __init__(self, requests: Requests, tasks: PoolTasks) -> None:
        self._count = len(requests)
        self._sessions: Ints | None = requests.session
        self._adapters: Ints | None = requests.adapter
        self._tasks = tasks
        self._transfer_ns: Callable[[int, int], int] | None = None
        self._context_ns: Callable[[int, int], int | None] | None = None

    def with_transfers(self, transfer_ns: Callable[[int, int], int]) -> PoolFacts:
        """Return the same facts of a pool to which KV moves: ``transfer_ns(task, client)`` says how long."""
        facts = copy(self)
        facts._transfer_ns = transfer_ns
        return facts

    def with_contexts(self, context_ns: Callable[[int, int], int | None]) -> PoolFacts:
        """Return the same facts of a pool with stores: ``context_ns(task, client)`` says how long they would read."""
        facts = copy(self)
        facts._context_ns = context_ns
        return facts

    @property
    def has_contexts(self) -> bool:
        """Whether stores can be asked for the contexts of tasks."""
        return self._context_ns is not None

    def input_tokens(self, task: int) -> int:
        """Tokens of its prompt; 0 where it has none."""
        return self._tasks.input_tokens(task)

    def output_tokens(self, task: int) -> int:
        """Tokens of its answer, for policies marked ``oracle`` only."""
        return self._tasks.output_tokens(task)

    def session(self, task: int) -> int:
        """The request's session, -1 where it has none."""
        return -1 if self._sessions is None else int(self._sessions[task % self._count])

    def adapter(self, task: int) -> int:
        """The adapter that the request asks for, -1 for none."""
        return -1 if self._adapters is None else int(self._adapters[task % self._count])

    def request(self, task: int) -> int:
        """The number of its request."""
        return task % self._count

    def prefix_keys(self, task: int) -> Sequence[Hashable]:
        """A key for each of the prompt's first full blocks that others may contain; equal keys are equal content."""
        return self._tasks.prefix_keys(task)

    def transfer_ns(self, task: int, client: int) -> int:
        """The time that the task's KV would take to a client over idle links; 0 if nothing moves."""
        return 0 if self._transfer_ns is None else self._transfer_ns(task, client)

    def context_ns(self, task: int, client: int) -> int | None:
        """The time in which a client's store would read the task's context; None if it does not have it."""
        return None if self._context_ns is None else self._context_ns(task, client)
