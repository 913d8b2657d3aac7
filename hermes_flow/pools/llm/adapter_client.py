"""An LLM client whose requests may have LoRA adapters: its steps load them and compute their matrices."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.llm.adapter_queue import AdapterQueue
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.scheduler import BatchingPolicy, Completed, Prefills
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec


class AdapterClient(LLMClient):
    """A client that holds a few adapters at once.

    A step in which a sequence is admitted whose adapter has no place on the GPUs takes the time to load it longer, as
    in vLLM, which loads before the forward pass. Every step takes the time of the matrices of its adapters.
    """

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
        """Take the arguments of ``LLMClient``, but for bounds on the next end: it is fired at each of its plans."""
        super().__init__(index, spec, tasks, policy, done, begun, notify=notify)
        queue = self.waiting
        assert isinstance(queue, AdapterQueue)
        self.slots = self.batch.adapters = queue.slots
        self.seen = queue.seen
        tasks.seen.append(queue.seen)
        self._plain_decode_ps = self._decode_ps
        self._tables: dict[int, list[int]] = {0: self._decode_ps}  # by adapters in use

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
