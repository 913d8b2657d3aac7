"""The packing order ``shortest_prompt``: the shortest prompt first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.pools.llm.packing.order import packing_orders
from hermes_flow.program.packing import WaitingTasks


@packing_orders.register("shortest_prompt")
@dataclass(frozen=True, slots=True)
class ShortestPrompt:
    """Sorts by tokens to compute: the prompt, and tokens generated before a preemption by recompute."""

    oracle: ClassVar[bool] = False

    def key(self, tasks: WaitingTasks, task: int, at_ps: int) -> int:
        """Return the tokens to prefill."""
        return tasks.prompt[task] + tasks.generated[task] - tasks.kept.get(task, 0)
