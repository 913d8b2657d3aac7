"""An LLM client whose requests may have LoRA adapters: its steps load them and compute their matrices."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.llm.adapter_steps import AdapterSteps
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.scheduler import BatchingPolicy, Completed, Prefills
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec


class AdapterClient(LLMClient):
    """A client that holds a few adapters at once.

    A step in which a sequence is admitted whose adapter has no place on the GPUs takes the time to load it longer, as
    in vLLM, which loads before the forward pass. Every step takes the time of the matrices of its adapters.
    """

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
        """Take the arguments of ``LLMClient``, but for bounds on the next end: it is fired at each of its plans."""
        super().__init__(index, spec, tasks, policy, done, begun, notify=notify)
        self.adapters = AdapterSteps(self.waiting, tasks, self._decode_ps)
        self.batch.adapters = self.adapters.slots

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step; see ``LLMClient``."""
        self.batch.copy_ps += self.adapters.extra_ps(prefills, decodes * self.tokens_per_decode)
        super().commit_step(prefills, decodes, completed)

    def commit_decodes(self, limit: int) -> None:
        """Plan a run of decodes; see ``LLMClient``."""
        self._decode_ps = self.adapters.decode_ps()
        super().commit_decodes(limit)
