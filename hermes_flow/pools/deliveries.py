"""Delivers finished tasks and tokens of an LLM client, independently of its planning."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

from hermes_flow.pools.outbox import due

Marked: TypeAlias = "deque[tuple[int, tuple[int, int]]]"  # (written at ps, (task, token))


class DeliveringClient(Protocol):
    """The interface of a client to the deliveries of its tasks."""

    def next_delivery_ns(self) -> int:
        """Return when the next task is delivered or announced, or when a decode run that may end tasks is over."""

    def announce(self, now_ns: int) -> list[int]:
        """Return the tasks whose first layer of KV is computed within this nanosecond."""

    def deliver(self, now_ns: int) -> list[int]:
        """Return the tasks delivered within this nanosecond."""


class Deliveries:
    """The resource that hands over what leaves an LLM client: tasks, first layers of KV, and watched tokens.

    At any instant all deliveries come before all plans, so that what follows from a delivery at once, on the same
    client or another, is there when they plan.
    """

    __slots__ = ("_begun", "_client", "_done", "_watched", "_written", "fixed")

    def __init__(
        self,
        client: DeliveringClient,
        done: Callable[[int, int], None],
        begun: Callable[[int, int], None],
        *,
        fixed: bool = False,
    ) -> None:
        """``fixed``: what is to be delivered is never postponed once it is known."""
        self.fixed = fixed
        self._client = client
        self._done = done
        self._begun = begun
        self._watched: Marked | None = None
        self._written: Callable[[int, int, int], None] = lambda task, token, now_ns: None

    def watch(self, watched: Marked, written: Callable[[int, int, int], None]) -> None:
        """Call ``written(task, token, now_ns)`` for what comes into ``watched``, after the tasks that end then."""
        self._watched = watched
        self._written = written

    def next_ns(self) -> int:
        """Return when the next task is delivered, or when a decode run that may end tasks is over."""
        return self._client.next_delivery_ns()

    def fire(self, now_ns: int) -> int:
        """Hand over the tasks delivered within this nanosecond; return when the next one is delivered."""
        for task in self._client.announce(now_ns):
            self._begun(task, now_ns)
        for task in self._client.deliver(now_ns):
            self._done(task, now_ns)
        if self._watched:
            for task, token in due(self._watched, now_ns):
                self._written(task, token, now_ns)
        return self._client.next_delivery_ns()

    def settle(self, now_ns: int) -> None:
        """Nothing happens between deliveries."""
