"""Runs a batch whose prompts may continue in tiers of memory, from where blocks are loaded before they are used.

A request whose blocks are loaded holds them, and those of the prefix that the devices have, without a seat. Its other
blocks are taken as it is scheduled. Where they are missed by others, requests that are loaded and still wait give
their blocks back; these can then be found like any other until they are evicted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from mypy_extensions import mypyc_attr

from hermes_flow.pools.llm.blocks import Found
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.offload.store import OffloadingStore
from hermes_flow.pools.llm.offload.tiers import Part, Tiers
from hermes_flow.pools.llm.prefix_cache import Held
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.offload import OffloadSpec


class Load:
    """The blocks of a request that is not scheduled: ``held`` can be found, ``coming`` more are being loaded.

    ``parts`` are the blocks of the tiers, and ``over_ps`` is when they are here.
    """

    __slots__ = ("coming", "held", "over_ps", "parts")

    def __init__(self, held: Held, coming: int, parts: Sequence[Part], over_ps: int) -> None:
        self.held = held
        self.coming = coming
        self.parts = parts
        self.over_ps = over_ps


@mypyc_attr(allow_interpreted_subclasses=True)
class OffloadingBatch(CachingBatch):
    """A batch with a prefix cache and ``tiers`` below it, whose blocks come over ``links``.

    ``on_loaded`` is called as a load is over, ``on_given_up`` as a request that goes before others has to give its
    blocks back.
    """

    __slots__ = ("_loaded", "_loading", "links", "names", "on_given_up", "on_loaded", "tiers")

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int, spec: OffloadSpec) -> None:
        super().__init__(tasks, blocks, block_size)
        self.tiers = Tiers(spec)
        self.links = LoadLinks(spec)
        self.names = [tier.name for tier in spec.tiers]
        self._store = OffloadingStore(blocks, self.tiers, writes_computed=spec.writes_computed)
        self.on_loaded: Callable[[int], None] = lambda at_ps: None
        self.on_given_up: Callable[[int], None] = lambda task: None
        self._loading: dict[int, Load] = {}  # by task
        self._loaded: dict[int, Load] = {}  # by task that waits, in the order in which their loads ended

    # Loads.

    def beyond(self, task: int, found: Found) -> list[Part]:
        """Return the blocks of a waiting task that the tiers have, after those that were found."""
        if task in self._loaded:
            return []
        tasks = self.tasks
        limit = (tasks.prompt[task] + tasks.generated[task] - 1) // self.block_size
        blocks = found[2].blocks
        if blocks >= limit:
            return []
        return self.tiers.find(self._runs(task), blocks, limit)

    def loaded_by(self, parts: Sequence[Part]) -> int | None:
        """Return the task whose load brings some of these blocks, the last one to end; None if there is none."""
        wanted: dict[Hashable, list[tuple[int, int]]] = {}
        for _, chain, first, last in parts:
            wanted.setdefault(chain, []).append((first, last))
        by, over_ps = None, 0
        for task, load in self._loading.items():
            for _, chain, first, last in load.parts:
                if any(first < end and begin < last for begin, end in wanted.get(chain, ())):
                    if load.over_ps > over_ps:
                        by, over_ps = task, load.over_ps
                    break
        return by

    def over_ps(self, task: int) -> int:
        """Return when the load of a task is over."""
        return self._loading[task].over_ps

    def begin_load(
        self, task: int, found: Found, parts: Sequence[Part], now_ps: int, seen_ps: int = 0
    ) -> int:
        """Take blocks for what the tiers have of a waiting task, and load it.

        Return when the scheduler sees that it is over, no earlier than ``seen_ps``.
        """
        _, _, held = found
        counts = self.tiers.load(parts)
        self._store.share(held)
        self._take(sum(counts))
        self.note_peak()
        over_ps = max(self.links.load(now_ps, counts), seen_ps)
        self._loading[task] = Load(held, sum(counts), parts, over_ps)
        self.tasks.reserved.add(task)
        if self.tasks.start_ps[task] < 0:
            for name, count in zip(self.names, counts, strict=True):
                if count:
                    self.tasks.tier_hits.setdefault(name, {})[task] = count * self.block_size
        return over_ps

    def fill(self, task: int) -> None:
        """Let the loaded blocks of a task be found; there are none where it only waited for another one's load."""
        self.backlog += self.tasks.generated[task]
        load = self._loading.pop(task, None)
        if load is None:
            self.tasks.reserved.discard(task)
            return
        self._loaded[task] = load
        self._store.remember(load.held, self._runs(task), load.held.blocks + load.coming)
        load.coming = 0
        if task in self.tasks.since_ps:  # its load began as it came, and it takes its place in the queue
            self.tasks.reserved.discard(task)
        self.on_loaded(load.over_ps)

    def reclaim(self, task: int) -> bool:
        """Free the blocks of the request whose load ended last, but for ``task``; return False if there is none."""
        for other in reversed(self._loaded):
            if other != task:
                self._give_up(other)
                if other in self.tasks.reserved:
                    self.tasks.reserved.remove(other)
                    self.on_given_up(other)
                return True
        return False

    def _give_up(self, task: int) -> None:
        """Free the blocks of a task that loads or has loaded."""
        load = self._loaded.pop(task, None) or self._loading.pop(task)
        self._store.release(load.held, unnamed=0, blank=load.coming)
        self.free = self._store.free
        if self.tasks.start_ps[task] < 0:
            for hits in self.tasks.tier_hits.values():
                hits.pop(task, None)

    # What differs from other batches.

    def find(self, task: int) -> Found:
        """Return the blocks that admitting a waiting task takes, and its cached or loaded blocks."""
        load = self._loaded.get(task)
        if load is None:
            return super().find(task)
        held = load.held
        length = self.tasks.prompt[task] + self.tasks.generated[task]
        return self._blocks_for(task, length) - held.blocks, held.blocks * self.block_size, held

    def take_or_preempt(self, preempted: list[int]) -> None:
        """Take the blocks of the next iteration, first from requests that wait with loaded blocks."""
        while self.needed_blocks() > self.free and self.reclaim(-1):
            pass
        super().take_or_preempt(preempted)

    def unreserve(self, task: int) -> None:
        """Free the blocks of a task that was taken back while it waited for a load, or after it."""
        if task in self._loaded or task in self._loading:
            self._give_up(task)
        self.tasks.reserved.discard(task)

    def withdraw_waiting(self, task: int) -> None:
        """Forget a waiting task that was taken back, and free the blocks that were loaded for it."""
        super().withdraw_waiting(task)
        self.unreserve(task)

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        self.tasks.reserved.discard(task)
        load = self._loaded.pop(task, None)
        if load is None:
            super()._take_first(admission, task, found, chunk)
            return
        computed = found[1] + chunk
        self._take(self._blocks_for(task, computed) - load.held.blocks)
        self._named[admission] = load.held
        self._prompts[admission] = self.tasks.block_runs(task, self.block_size)
        self._remember_prompt(admission, computed)

    def _free_ended(self, admission: int, task: int) -> None:
        if task in self.tasks.preemptions:  # the tiers may have blocks of its own
            computed = self.tasks.prompt[task] + self.tasks.output[task] - 1
            self._store.remember(self._named[admission], self._all_runs(task), computed // self.block_size)
        super()._free_ended(admission, task)
