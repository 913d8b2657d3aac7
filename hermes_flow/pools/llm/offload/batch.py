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
from hermes_flow.program.units import NEVER, PS_PER_NS


class DecodeRun:
    """Decode steps that were decided together: the first at ``planned_ps``, each other as its client plans them.

    Step k begins ``first_ps``·k + ``growth_ps``·k·(k−1)/2 after ``start_ps``. It is planned as it begins, or with
    look-ahead as the step before it does.
    """

    __slots__ = ("_first_planned_ps", "_first_ps", "_growth_ps", "_iteration", "_lookahead", "_start_ps")

    def __init__(
        self, iteration: int, planned_ps: int, start_ps: int, first_ps: int, growth_ps: int, lookahead: int
    ) -> None:
        self._iteration = iteration
        self._first_planned_ps = planned_ps
        self._start_ps = start_ps
        self._first_ps = first_ps
        self._growth_ps = growth_ps
        self._lookahead = lookahead

    def planned_ps(self, iteration: int) -> int:
        """Return when an iteration of the run is planned."""
        place = iteration - self._iteration
        if place <= 0:
            return self._first_planned_ps
        step = place - 1 if self._lookahead else place
        return self._start_ps + self._first_ps * step + self._growth_ps * (step * (step - 1) // 2)


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


class Pin:
    """The blocks of a turn that has ended, held until ``until_ps``."""

    __slots__ = ("held", "until_ps")

    def __init__(self, held: Held, until_ps: int) -> None:
        self.held = held
        self.until_ps = until_ps


@mypyc_attr(allow_interpreted_subclasses=True)
class OffloadingBatch(CachingBatch):
    """A batch with a prefix cache and ``tiers`` below it, whose blocks come over ``links``.

    ``on_loaded`` is called as a load is over, ``on_given_up`` as a request that goes before others has to give its
    blocks back, and ``on_pinned`` as the blocks of a turn are held until some instant. Such blocks were ``pinned`` so
    often; those of ``expired`` ones were held for their time, and ``unpinned_early`` ones gave way to others.
    """

    __slots__ = (
        "_block_bytes",
        "_gap",
        "_loaded",
        "_loading",
        "_pins",
        "_run",
        "_survives",
        "_ttl_ps",
        "expired",
        "links",
        "names",
        "on_given_up",
        "on_loaded",
        "on_pinned",
        "pinned",
        "store",
        "tiers",
        "unpinned_early",
    )

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int, spec: OffloadSpec) -> None:
        super().__init__(tasks, blocks, block_size)
        self.links = LoadLinks(spec)
        self.tiers = Tiers(spec, self.links)
        self._survives, self._block_bytes = spec.survives, spec.block_bytes
        self._run: DecodeRun | None = None
        self.names = [tier.name for tier in spec.tiers]
        self._store = self.store = OffloadingStore(blocks, self.tiers, writes_computed=spec.writes_computed)
        self.on_loaded: Callable[[int], None] = lambda at_ps: None
        self.on_given_up: Callable[[int], None] = lambda task: None
        self.on_pinned: Callable[[int], None] = lambda until_ps: None
        self._gap, self._ttl_ps = spec.gap, spec.ttl_ps
        self._pins: dict[int, list[Pin]] = {}  # by request, in the order in which their turns ended
        self.pinned = self.expired = self.unpinned_early = 0
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

    def is_loading(self, task: int) -> bool:
        """Return whether blocks of a task are on the way."""
        return task in self._loading

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
        self.tiers.now_ps = now_ps
        counts = self.tiers.load(parts)
        self._store.share(held)
        self._take(sum(counts))
        self.note_peak()
        if self._pins:
            self._unpin(task % self.tasks.requests)
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
        self.on_loaded(load.over_ps)
        self.tiers.now_ps = load.over_ps
        self._loaded[task] = load
        self._store.remember(load.held, self._runs(task), load.held.blocks + load.coming)
        load.coming = 0
        if task in self.tasks.since_ps:  # its load began as it came, and it takes its place in the queue
            self.tasks.reserved.discard(task)

    def reclaim(self, task: int) -> bool:
        """Free the blocks of the request whose load ended last, but for ``task``; return False if there is none.

        Blocks that are held for a next turn give way, those of the earliest turn first, to a running sequence
        (``task`` −1), and where nothing runs and nothing is loaded.
        """
        for other in reversed(self._loaded):
            if other != task:
                self._give_up(other)
                if other in self.tasks.reserved:
                    self.tasks.reserved.remove(other)
                    self.on_given_up(other)
                return True
        if self._pins and (task < 0 or not (self.running or self._loading)):
            self.unpinned_early += 1
            self._unpin(next(iter(self._pins)))
            return True
        return False

    def expire(self, now_ps: int) -> None:
        """Let go of the blocks of turns that were held for their time by ``now_ps``."""
        for request in [one for one, pins in self._pins.items() if pins[-1].until_ps <= now_ps]:
            self.expired += 1
            self._unpin(request)

    def _unpin(self, request: int) -> None:
        """Let go of the blocks that are held for the next turn of a request, if there are any."""
        for pin in self._pins.pop(request, ()):
            self._store.release(pin.held, unnamed=0, blank=0)
        self.free = self._store.free

    def _give_up(self, task: int) -> None:
        """Free the blocks of a task that loads or has loaded."""
        load = self._loaded.pop(task, None) or self._loading.pop(task)
        self._store.release(load.held, unnamed=0, blank=load.coming)
        self.free = self._store.free
        if self.tasks.start_ps[task] < 0:
            for hits in self.tasks.tier_hits.values():
                hits.pop(task, None)

    # What survives a failure.

    def read_kept(self, task: int, now_ps: int) -> tuple[int, int] | None:
        """Read the first blocks of a task's prompt from tiers that survive; return their bytes and the ns of the end.

        None where there are none. The blocks stay, and those who take them know which they are.
        """
        runs = self.tasks.block_runs(task, self.block_size)
        parts = self.tiers.find(runs, 0, (self.tasks.prompt[task] - 1) // self.block_size)
        counts = [0] * len(self.tiers.lru)
        kept: list[Part] = []
        for part in parts:
            if not self._survives[part[0]]:
                break
            kept.append(part)
            counts[part[0]] += part[3] - part[2]
        if not kept:
            return None
        self.tasks.coming_blocks[task] = [(chain, first, last) for _, chain, first, last in kept]
        over_ps = self.links.read(now_ps, counts)
        return sum(counts) * self._block_bytes, -(-over_ps // PS_PER_NS)

    def take_kept(self, task: int, now_ps: int) -> None:
        """Put blocks that came from the tiers of a lost client into the first tier, the last of them first."""
        self.tiers.now_ps = now_ps
        self.tiers.loading = True
        for chain, first, last in reversed(self.tasks.coming_blocks.pop(task, [])):
            self.tiers.put(chain, first, last)
        self.tiers.loading = False

    def inherit(self, before: OffloadingBatch, now_ps: int) -> None:
        """Take over the blocks of a client that has failed, in tiers that survive it."""
        for place, survives in enumerate(self._survives):
            if survives:
                self.tiers.lru[place] = before.tiers.lru[place]

    # The instants of what is written.

    def at(self, now_ps: int) -> None:
        """Let what is written from now on be written at ``now_ps``."""
        self.tiers.now_ps = now_ps

    def release(self, admissions: list[int]) -> None:
        """Free seats and blocks of sequences whose last token has been delivered; see ``RunningBatch``."""
        self.tiers.now_ps = max(self.tiers.now_ps, self.now_ps)
        super().release(admissions)

    def begin_run(self, run: DecodeRun | None) -> None:
        """Let the iterations from the next one on be planned as those of a run; None: each is planned by itself."""
        self._run = run

    def _take_run(self, iteration: int, steps: int, early: int) -> None:
        run = self._run
        if run is None or not self.tiers.lru:
            super()._take_run(iteration, steps, early)
            return
        for number in range(iteration, iteration + steps):
            self.tiers.now_ps = run.planned_ps(number)
            super()._take_run(number, 1, early)
            early = 0

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
            if self._pins:
                self._unpin(task % self.tasks.requests)
            return
        computed = found[1] + chunk
        self._take(self._blocks_for(task, computed) - load.held.blocks)
        self._named[admission] = load.held
        self._prompts[admission] = self.tasks.block_runs(task, self.block_size)
        self._remember_prompt(admission, computed)

    def _free_ended(self, admission: int, task: int) -> None:
        computed = self.tasks.prompt[task] + self.tasks.output[task] - 1
        if task in self.tasks.preemptions:  # the tiers may have blocks of its own
            self._store.remember(self._named[admission], self._all_runs(task), computed // self.block_size)
        if self._gap == "cache" or not self.tasks.goes_on[task]:
            super()._free_ended(admission, task)
        else:
            self._end_turn(admission, task, computed)

    def _end_turn(self, admission: int, task: int, computed: int) -> None:
        """Do with the blocks of a turn what the policy for tool gaps says; blocks that nobody asks for are freed."""
        named, runs = self._named.pop(admission), self._prompts.pop(admission)
        full = computed // self.block_size
        answer = self.tasks.answer_runs(task, self.block_size)
        if answer:
            self._store.remember(named, self._with_answer(task, runs, answer), full)
        blank = self._blocks_for(task, computed) - full
        if self._gap in ("keep", "ttl"):
            self._store.release(Held(), unnamed=full - named.blocks, blank=blank)
            self._pin(task, named)
        else:
            if self._gap == "offload":
                self.store.offload(named)
            self._store.release(named, unnamed=full - named.blocks, blank=blank)
            self.store.drop(named)
        self.free = self._store.free

    def _pin(self, task: int, held: Held) -> None:
        """Hold the blocks of a turn until the next one of its request, or for the given time."""
        until_ps = min(NEVER, self.tasks.finish_ps[task] + self._ttl_ps)
        self._pins.setdefault(task % self.tasks.requests, []).append(Pin(held, until_ps))
        self.pinned += 1
        if until_ps < NEVER:
            self.on_pinned(until_ps)
