"""An engine that takes turns with side tasks on its device: it plans a step only when the device is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hermes_flow.pools.shared_device import SharedDevice

if TYPE_CHECKING:
    from hermes_flow.pools.llm.client import LLMClient


class PlanInTurn:
    """A batching policy that waits for its turn on ``device``, and then plans as ``policy`` does.

    Policies that plan gangs cannot wait so: a gang is no single step.
    """

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = True  # if its policy's are

    def __init__(self, policy: Any, device: SharedDevice) -> None:
        self._device = device
        self._plan = policy.plan

    def plan(self, client: Any) -> bool:
        """Plan the next step if the device is free; else return False, and the client plans when it is."""
        engine: LLMClient = client
        turn_ps = self._device.turn_ps(engine.plan_ps)
        engine.tail_ps = max(engine.tail_ps, turn_ps)
        if turn_ps > engine.plan_ps:
            return False
        planned: bool = self._plan(client)
        if planned:
            self._device.hold(engine.tail_ps)
        return planned
