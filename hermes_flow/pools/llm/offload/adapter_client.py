"""A client with tiers of memory whose requests may have LoRA adapters.

A request is looked up in the tiers when its adapter has a place, as it has its turn only then.
"""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.llm.adapter_queue import AdapterQueue
from hermes_flow.pools.llm.blocks import Found
from hermes_flow.pools.llm.offload.client import OffloadingClient
from hermes_flow.pools.llm.scheduler import BatchingPolicy, Completed, Prefills
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec


class OffloadingAdapterClient(OffloadingClient):
    """An engine with tiers below its prefix cache that holds a few adapters at once, as ``AdapterClient`` does."""

    __slots__ = ("_plain_decode_ps", "_tables", "seen", "slots")

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
        queue = self.waiting
        assert isinstance(queue, AdapterQueue)
        self.slots = self.batch.adapters = queue.slots
        self.seen = queue.seen
        tasks.seen.append(queue.seen)
        self._plain_decode_ps = self._decode_ps
        self._tables: dict[int, list[int]] = {0: self._decode_ps}  # by adapters in use

    def load_first(self, task: int, found: Found) -> bool:
        """Take a task aside whose blocks are loaded; how long its adapter keeps it waiting is not counted then."""
        goes = super().load_first(task, found)
        if goes:
            self.tasks.put_aside.add(task)
        return goes

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step; see ``LLMClient``."""
        tokens = decodes * self.tokens_per_decode + sum([chunk for chunk, _ in prefills])
        self.batch.copy_ps += self.slots.extra_ps(tokens)
        super().commit_step(prefills, decodes, completed)

    def commit_decodes(self, limit: int) -> None:
        """Plan a run of decodes; see ``LLMClient``."""
        used = len(self.slots.users)
        table = self._tables.get(used)
        if table is None:
            extra = self.slots.extra_ps
            table = [own + extra(count) for count, own in enumerate(self._plain_decode_ps)]
            self._tables[used] = table
        self._decode_ps = table
        super().commit_decodes(limit)
