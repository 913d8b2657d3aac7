"""The packing order ``earliest_deadline``: deadlines follow from the priority class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hermes_flow.config.quantities import PositiveMilliseconds, Priority
from hermes_flow.pools.llm.packing.order import packing_orders
from hermes_flow.program.packing import WaitingTasks
from hermes_flow.program.units import PS_PER_MS


@packing_orders.register("earliest_deadline")
@dataclass(frozen=True, slots=True)
class EarliestDeadline:
    """Sorts by arrival plus the TTFT bound of the request's ``priority`` class.

    ``deadline_ms`` maps a class to its bound; a class that it does not name has the largest of them. With one
    bound for all (the SLO's, where the mapping is empty) the order is that of arrival, also for preempted
    sequences.
    """

    oracle: ClassVar[bool] = False
    deadline_ms: dict[Priority, PositiveMilliseconds] = field(default_factory=dict)

    def key(self, tasks: WaitingTasks, task: int, at_ps: int) -> int:
        """Return the deadline in picoseconds."""
        bounds = self.deadline_ms
        if not bounds:
            return at_ps
        bound = bounds.get(tasks.priority_of(task), max(bounds.values()))
        return at_ps + round(bound * PS_PER_MS)
