"""What leaves an LLM client, apart from what it plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_flow.clients.llm import LLMClient


class Deliveries:
    """The tasks of an LLM client on their way out: an engine resource of its own.

    At any instant all deliveries come before all plans, so that what follows from a delivery at once, on the same
    client or another, is there when they plan.
    """

    __slots__ = ("_client", "_done")

    def __init__(self, client: LLMClient, done: Callable[[int, int], None]) -> None:
        self._client = client
        self._done = done

    def next_ns(self) -> int:
        """Return when the next task is delivered, or a decode run is over that may end some."""
        return self._client.next_delivery_ns()

    def fire(self, now_ns: int) -> None:
        """Hand over the tasks delivered within this nanosecond."""
        for task in self._client.deliver(now_ns):
            self._done(task, now_ns)

    def settle(self, now_ns: int) -> None:
        """Nothing happens between deliveries."""
