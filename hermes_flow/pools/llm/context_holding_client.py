"""An LLM client whose prompts get their blocks before their contexts are read, as with a KV connector of vLLM.

A prompt takes its place in the queue and asks for the blocks of all its tokens. It gets them in its turn, and leaves
the queue without a seat while its context is read and moved. It then returns to the head of the queue.
"""

from __future__ import annotations

from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.program.units import PS_PER_NS


class ContextHoldingClient(LLMClient):
    """One client. Prompts without a context to be read are submitted as to every other client."""

    __slots__ = ()

    def ask_for_context(self, task: int, now_ns: int) -> int:
        """Queue a task whose context is not read yet; ``Calls.granted`` follows, and then ``submit``."""
        self._advance(now_ns * PS_PER_NS)
        self._asks += 1
        self._next_heeded = False  # it may come before a context that is noticed later
        self.tasks.contexts.add(task)
        self._inbox.ask(task, now_ns)
        return self.next_ns()

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now, or whose context has come; see ``PoolClient``."""
        if task in self.tasks.reserved:
            return self.bring(task, now_ns)
        return super().submit(task, now_ns)
