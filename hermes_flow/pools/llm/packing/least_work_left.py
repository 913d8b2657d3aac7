"""The packing order ``least_work_left``: it reads true lengths, as a bound for real schedulers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.pools.llm.packing.order import packing_orders
from hermes_flow.program.packing import WaitingTasks


@packing_orders.register("least_work_left")
@dataclass(frozen=True, slots=True)
class LeastWorkLeft:
    """Sorts by tokens to prefill and to generate; an oracle, since it reads true output lengths."""

    oracle: ClassVar[bool] = True

    def key(self, tasks: WaitingTasks, task: int, at_ps: int) -> int:
        """Return the tokens left: those to prefill and those to generate."""
        return tasks.prompt[task] + tasks.output[task] - tasks.kept.get(task, 0)
