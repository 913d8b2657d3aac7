"""The time that LoRA adapters add to the steps of an LLM client."""

from __future__ import annotations

from hermes_flow.pools.llm.adapter_queue import AdapterQueue
from hermes_flow.pools.llm.scheduler import Prefills
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import WaitingQueue


class AdapterSteps:
    """The adapters in use on one client, and the tables of its decode steps by how many these are.

    ``decode_ps`` is the time of a step without adapters, in picoseconds, by its decodes. ``seen`` are the tasks that
    the queue has seen.
    """

    __slots__ = ("_plain_ps", "_tables", "seen", "slots")

    def __init__(self, queue: WaitingQueue, tasks: LLMTasks, decode_ps: list[int]) -> None:
        assert isinstance(queue, AdapterQueue)
        self.slots = queue.slots
        self.seen = queue.seen
        tasks.seen.append(queue.seen)
        self._plain_ps = decode_ps
        self._tables: dict[int, list[int]] = {0: decode_ps}  # by adapters in use

    def extra_ps(self, prefills: Prefills, decode_tokens: int) -> int:
        """Return what the matrices of adapters add to a step of these prefill chunks and tokens of decodes."""
        return self.slots.extra_ps(decode_tokens + sum([chunk for chunk, _ in prefills]))

    def decode_ps(self) -> list[int]:
        """Return the times of decode steps with the adapters that are in use now."""
        used = len(self.slots.users)
        table = self._tables.get(used)
        if table is None:
            extra = self.slots.extra_ps
            table = self._tables[used] = [own + extra(count) for count, own in enumerate(self._plain_ps)]
        return table
