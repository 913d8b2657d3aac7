"""The interface of packing orders: the order in which an LLM client admits waiting sequences."""

from __future__ import annotations

from typing import ClassVar, Protocol


class WaitingTasks(Protocol):
    """The facts about waiting tasks that a packing order may read, by task number."""

    prompt: list[int]
    """Tokens of each task's prompt."""

    output: list[int]
    """Tokens of each task's answer, for orders marked ``oracle`` only."""

    generated: list[int]
    """Tokens that each task has generated so far."""

    kept: dict[int, int]
    """Computed tokens of preempted tasks whose KV lies in host memory, by task."""

    def priority_of(self, task: int) -> int:
        """Return the request's class; 0, the most urgent, where the workload has none."""


class PackingOrder(Protocol):
    """A way to sort the waiting queue. ``oracle`` orders read the true output length, which no real engine knows."""

    oracle: ClassVar[bool]

    def key(self, tasks: WaitingTasks, task: int, at_ps: int) -> int:
        """Return the task's place in the queue, lowest first.

        ``at_ps`` is when the scheduler first saw the task. Equal keys keep the order of arrival.
        """
