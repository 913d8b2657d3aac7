"""The registry of packing orders, and what one must offer."""

from __future__ import annotations

from typing import ClassVar, Protocol

from hermes_flow.clients.tasks import LLMTasks
from hermes_flow.config.registry import Registry


class PackingOrder(Protocol):
    """Sorts the waiting queue. ``oracle`` orders read the true output length, which no real engine knows."""

    oracle: ClassVar[bool]

    def key(self, tasks: LLMTasks, task: int, at_ps: int) -> int:
        """Return the task's place, lowest first.

        ``at_ps`` is when the scheduler first saw the task. Equal keys keep the order of arrival.
        """


packing_orders: Registry[PackingOrder] = Registry("packing order", tag="order", package=__package__)
