"""The packing order ``priority``: priority classes with ageing, so that no class starves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.quantities import Seconds
from hermes_flow.pools.llm.packing.order import packing_orders
from hermes_flow.program.packing import WaitingTasks
from hermes_flow.program.units import PS_PER_S


@packing_orders.register("priority")
@dataclass(frozen=True, slots=True)
class Priority:
    """Sorts by the requests' ``priority``, the lowest number first; ``age_s`` of waiting make up for one class."""

    oracle: ClassVar[bool] = False
    age_s: Seconds = 10.0

    def key(self, tasks: WaitingTasks, task: int, at_ps: int) -> int:
        """Return the instant at which a task of class 0 would have the same place."""
        return at_ps + round(tasks.priority_of(task) * self.age_s * PS_PER_S)
