"""The packing order ``fcfs``: first come, first served."""

from __future__ import annotations

from typing import ClassVar

from hermes_flow.pools.llm.packing.order import packing_orders
from hermes_flow.program.packing import WaitingTasks
from hermes_flow.program.quick_dataclass import dataclass


@packing_orders.register("fcfs")
@dataclass(frozen=True, slots=True)
class FirstComeFirstServed:
    """Sorts by arrival; a preempted sequence returns to the head."""

    oracle: ClassVar[bool] = False

    def key(self, tasks: WaitingTasks, task: int, at_ps: int) -> int:
        """Return the instant of arrival."""
        return at_ps
