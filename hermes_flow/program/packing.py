"""The contract of packing orders: the order in which an LLM client admits waiting sequences.

An order is a frozen dataclass whose fields are its settings: ``packing: {order: name, field: value}``. Each LLM
client calls ``key`` once when its scheduler first sees a task, and again each time the task returns to the queue
because it was preempted. The key stays as it is while the task waits, so it must not depend on how long that
takes: an order by age gives an instant, as ``priority`` does. The task with the lowest key is at the head of the
queue, and the batching policy admits from the head: where the head does not fit, those behind it wait too.

``WaitingTasks`` is all that an order may read, and it reads only the entries of the task that it is asked about.
"""

from __future__ import annotations

from typing import ClassVar, Protocol


class WaitingTasks(Protocol):
    """The facts about waiting tasks that a packing order may read, by task number; it changes none of them."""

    prompt: list[int]
    """Tokens of each task's prompt."""

    output: list[int]
    """True length of each task's answer in tokens, for orders marked ``oracle`` only: no engine knows it."""

    generated: list[int]
    """Tokens that each task had generated when it was preempted, or when its KV came; 0 for a new task."""

    kept: dict[int, int]
    """Computed tokens of tasks whose KV lies elsewhere (in host memory, or on another client), by task.

    A task that is not in it has computed nothing: it prefills ``prompt`` and ``generated``.
    """

    def priority_of(self, task: int) -> int:
        """Return the request's priority class, lower numbers more urgent; 0 where the workload has none."""


class PackingOrder(Protocol):
    """A way to sort the waiting queue. ``oracle`` orders read the true output length, which no real engine knows."""

    oracle: ClassVar[bool]

    def key(self, tasks: WaitingTasks, task: int, at_ps: int) -> int:
        """Return the task's place in the queue, lowest first.

        ``at_ps`` is when the scheduler first saw the task. Equal keys keep the order of arrival.
        """
