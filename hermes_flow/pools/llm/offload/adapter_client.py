"""A client with tiers of memory whose requests may have LoRA adapters.

A request is looked up in the tiers when its adapter has a place, as it has its turn only then.
"""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.llm.adapter_steps import AdapterSteps
from hermes_flow.pools.llm.blocks import Found
from hermes_flow.pools.llm.offload.client import OffloadingClient
from hermes_flow.pools.llm.scheduler import BatchingPolicy, Completed, Prefills
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec


class OffloadingAdapterClient(OffloadingClient):
    """An engine with tiers below its prefix cache that holds a few adapters at once, as ``AdapterClient`` does."""

    __slots__ = ("adapters",)

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        policy: BatchingPolicy,
        done: Callable[[int, int], None],
        begun: Callable[[int, int], None] = lambda task, now_ns: None,
        *,
        notify: bool,
    ) -> None:
        super().__init__(index, spec, tasks, policy, done, begun, notify=notify)
        self.adapters = AdapterSteps(self.waiting, tasks, self._decode_ps)
        self.batch.adapters = self.adapters.slots

    def load_first(self, task: int, found: Found) -> bool:
        """Take a task aside whose blocks are loaded; how long its adapter keeps it waiting is not counted then."""
        goes = super().load_first(task, found)
        if goes:
            self.tasks.put_aside.add(task)
        return goes

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step; see ``LLMClient``."""
        self.batch.copy_ps += self.adapters.extra_ps(prefills, decodes * self.tokens_per_decode)
        super().commit_step(prefills, decodes, completed)

    def commit_decodes(self, limit: int) -> None:
        """Plan a run of decodes; see ``LLMClient``."""
        self._decode_ps = self.adapters.decode_ps()
        super().commit_decodes(limit)
