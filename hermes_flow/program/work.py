"""The work that an op asks of its client."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.program.step_cost import StepCost


@dataclass(frozen=True, slots=True)
class PassCost:
    """How long one pass over a batch takes on a batched client, and what it reads of the host's memory.

    Either by the number of tasks (``ns`` and ``bytes``, from 0 on), or a forward pass (``step``) over the tokens of
    all tasks, ``sequences`` of equal length each.
    """

    ns: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    step: StepCost | None = None
    sequences: int = 1
    provenance: tuple[str, ...] = ()
