"""The load of a client that decides its steps one by one, by which routers compare clients."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.llm.inbox import Inbox
from hermes_flow.pools.llm.tasks import LLMTasks


class CountedLoad:
    """The load figures of one client just before the instant of ``written`` and ``backlog``.

    A task counts from the moment it is routed until its last token is delivered. ``written(task)`` returns the tokens
    of its answer delivered so far, ``backlog()`` the tokens of prompts that no step has computed yet.
    """

    __slots__ = ("_backlog", "_inbox", "_tasks", "_written", "finished", "finished_tokens", "in_hand")

    def __init__(
        self, tasks: LLMTasks, inbox: Inbox, written: Callable[[int], int], backlog: Callable[[], int]
    ) -> None:
        self._tasks = tasks
        self._inbox = inbox
        self._written = written
        self._backlog = backlog
        self.in_hand: set[int] = set()
        self.finished = 0
        self.finished_tokens = 0

    @property
    def unfinished(self) -> int:
        """Number of tasks."""
        return len(self.in_hand)

    @property
    def input_tokens(self) -> int:
        """Tokens of their prompts."""
        return sum([self._tasks.prompt[task] for task in self.in_hand])

    @property
    def kv_tokens(self) -> int:
        """Tokens of their prompts and of their answers so far."""
        return self.input_tokens + sum([self._written(task) for task in self.in_hand])

    @property
    def backlog_tokens(self) -> int:
        """Tokens of prompts that no step has computed yet."""
        return self._backlog()

    @property
    def work_left_tokens(self) -> int:
        """The backlog and the tokens of answers still to come: for policies marked ``oracle`` only."""
        to_come = [self._tasks.output[task] - self._written(task) for task in self.in_hand]
        return sum(to_come) + self._backlog()

    def drop(self, task: int) -> None:
        """Take note that a task was taken back."""
        self.in_hand.discard(task)

    def end(self, task: int) -> None:
        """Take note that a task is over."""
        self.in_hand.discard(task)
        self.finished += 1
        self.finished_tokens += self._tasks.output[task]
