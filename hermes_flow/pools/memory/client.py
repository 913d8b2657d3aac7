"""A KV store: it looks up contexts tier by tier, reads what it finds, and keeps computed contexts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import accumulate
from typing import ClassVar, NoReturn

from hermes_flow.pools.client import Bring, Connect, Passing, PoolClient
from hermes_flow.pools.memory.tasks import MemoryTasks
from hermes_flow.pools.memory.tiered_store import Tier, TieredStore
from hermes_flow.program.kv_store import KVLookup, MemoryClientSpec
from hermes_flow.program.units import NEVER

MISS = -1


class TierTotals:
    """The use of a tier by one client: hits, bytes read for them, bytes written."""

    __slots__ = ("hits", "read", "written")

    def __init__(self) -> None:
        self.hits = 0.0
        self.read = 0
        self.written = 0


class MemoryClient(PoolClient):
    """One store. Its retrievals run in parallel, and share each tier's bandwidth with all readers.

    Lookups follow each other from the first tier on, then the context is read from the tier that has it. ``send_out``
    moves bytes out of a tier, ``send_in`` into it: ``(tier, bytes, called as that is over, now_ns)``.
    """

    fixed: ClassVar[bool] = True
    __slots__ = (
        "_abandoned",
        "_busy_since_ns",
        "_done",
        "_lookups_ns",
        "_passing",
        "_passing_in",
        "_queued_tokens",
        "_rates",
        "_readable",
        "_spec",
        "_store",
        "_tasks",
        "_under_way",
        "_waiting",
        "_writing",
        "busy_ns",
        "index",
        "misses",
        "send_in",
        "send_out",
        "served",
        "totals",
    )

    def __init__(
        self,
        index: int,
        spec: MemoryClientSpec,
        tasks: MemoryTasks,
        store: TieredStore,
        rates: Sequence[float],
        done: Callable[[int, int], None],
    ) -> None:
        """Create a store; ``rates`` are the bytes a ns at which a lone read of each tier streams."""
        self.index = index
        self.served = 0
        self.busy_ns = 0
        self.misses = 0.0
        self.totals = [TierTotals() for _ in range(len(spec.tiers) + (spec.remote is not None))]
        self.send_out: Callable[[int, int, Callable[[int], None], int], None] = _not_connected
        self.send_in: Callable[[int, int, Callable[[int], None], int], None] = _not_connected
        self._spec = spec
        self._readable = (*spec.tiers, spec.remote.tier) if spec.remote else spec.tiers
        self._rates = rates
        self._tasks = tasks
        self._store = store
        # By tier, the time to look into it and all before it; at last, that of a miss.
        self._lookups_ns = list(accumulate(tier.lookup_ns for tier in self._readable))
        self._lookups_ns.append(self._lookups_ns[-1])
        self._done = done
        self._passing: list[Passing] = []  # by tier; empty where nobody looks ahead
        self._passing_in: Passing | None = None  # into the first tier
        # (looked up and first byte there at, order, task, tier, bytes to stream)
        self._waiting: list[tuple[int, int, int, int, int]] = []
        self._abandoned: set[int] = set()  # tasks under way that were taken back
        self._under_way = 0
        self._busy_since_ns = 0
        self._queued_tokens = 0
        self._writing: dict[int, int] = {}  # context → tokens that are being written

    @property
    def deliveries(self) -> MemoryClient:
        """The client itself: it delivers retrievals when they end, and makes no other decisions."""
        return self

    def connect(self, connect: Connect) -> None:
        """Connect the client to its tiers, over the links of the devices if they count."""
        spec, index = self._spec, self.index
        places = [*(spec.reads(tier, index) for tier in spec.tiers), *spec.remote_reads(index)]
        reads = [connect(place) for place in places]
        writes = [connect(spec.writes(tier, index)) for tier in spec.tiers]
        self.send_out = lambda tier, size, over, now_ns: reads[tier](size, over, now_ns)
        self.send_in = lambda tier, size, over, now_ns: writes[tier](size, over, now_ns)

    @property
    def looks_ahead(self) -> bool:
        """Whether contexts that nobody else can delay are read at once."""
        return bool(self._passing)

    def look_ahead(self, connect: Callable[[tuple[int, ...]], Passing]) -> None:
        """Set what reads contexts at once that nobody else can delay."""
        spec, index = self._spec, self.index
        places = [*(spec.reads(tier, index) for tier in spec.tiers), *spec.remote_reads(index)]
        self._passing = [connect(place) for place in places]
        self._passing_in = connect(spec.writes(spec.tiers[0], index))

    def submit(self, task: int, now_ns: int) -> int:
        """Look up a context, and decide now from which tiers it is read; return when the next lookup is over."""
        tasks = self._tasks
        self.served += 1
        tasks.start_ns[task] = now_ns
        delay_ns, tier, streamed = self._decide(task)
        level = min(tier, len(self._rates) - 1)
        tasks.alone_ns[task] = delay_ns + (round(streamed / self._rates[level]) if streamed else 0)
        begin_ns = now_ns + delay_ns
        if streamed and self._passing and not self._abandoned:
            end_ns = self._passing[tier](streamed, begin_ns)
            if end_ns >= 0:  # what ``_end`` does
                if tier:  # else: it was found there just now
                    self._put(task, tier)
                if not self._under_way:
                    self.busy_ns += end_ns - now_ns
                tasks.finish_ns[task] = end_ns
                self._done(task, end_ns)
                return self._waiting[0][0] if self._waiting else NEVER
        if not self._under_way:
            self._busy_since_ns = now_ns
        self._under_way += 1
        self._queued_tokens += tasks.wanted[task]
        heappush(self._waiting, (begin_ns, self.served, task, tier, streamed))
        return self._waiting[0][0]

    def withdraw(self, task: int, now_ns: int) -> int:
        """Take back a retrieval: what is looked up and read goes on, and nobody is told of its end."""
        if self._tasks.start_ns[task] >= 0 and self._tasks.finish_ns[task] < 0:
            self._abandoned.add(task)
            self._queued_tokens -= self._tasks.wanted[task]
        return self.next_ns()

    def next_ns(self) -> int:
        """Return when the next lookup is over."""
        return self._waiting[0][0] if self._waiting else NEVER

    def fire(self, now_ns: int) -> int:
        """End the lookups that are due, and start to read the found contexts."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ns:
            _, _, task, tier, streamed = heappop(waiting)
            if streamed:
                self.send_out(tier, streamed, partial(self._end, task, tier), now_ns)
            else:
                self._end(task, tier, now_ns)
        return waiting[0][0] if waiting else NEVER

    def settle(self, now_ns: int) -> None:
        """Do nothing: the client changes only at the instants that ``next_ns`` returns."""

    def keep(self, task: int, now_ns: int, bring: Bring | None = None) -> None:
        """Keep the context of a finished request's task; it can be found when the write ends.

        What a tier has already, or is being written, is not written again. ``bring`` moves the rest to the store.
        """
        tasks, store = self._tasks, self._store
        key, tokens = tasks.value("key", task), tasks.value("kept_tokens", task)
        if max(store.kept(key), self._writing.get(key, 0)) >= tokens:
            return
        self._writing[key] = tokens
        size = tasks.value("kept_bytes", task)
        new = size - store.kept_first(key)
        self.totals[0].written += new
        write = partial(self._write, new, partial(self._written, key, tokens, size))
        if bring is None:
            write(now_ns)
        else:
            bring(new, write, now_ns)

    @property
    def keeps_for_good(self) -> bool:
        """Whether the first tier has room for all contexts, none of which ever grows."""
        size = self._tasks.lasting_bytes()
        return size is not None and self._spec.tiers[0].capacity_bytes >= size

    def has_kept(self, task: int) -> bool:
        """Return whether the first tier has all of a context."""
        held = self._store.tiers[0].contexts.get(self._tasks.keys[task])
        return held is not None and held[0] >= self._tasks.kept_tokens[task]

    # What routing may ask.

    def context_ns(self, task: int) -> int | None:
        """Return the time to find and read a context if nobody else reads; None if no tier has it.

        It does not count as a use of the context.
        """
        key, before_ns = self._tasks.value("key", task), 0
        for tier, spec in zip(self._store.tiers, self._spec.tiers, strict=True):
            before_ns += spec.lookup_ns
            held = tier.contexts.get(key)
            if held is not None:
                return before_ns + spec.read_ns(min(held[1], self._tasks.value("bytes", task)))
        remote = self._spec.remote
        size = None if remote is None else self._store.remote_bytes(key)
        if remote is None or size is None:
            return None
        read_ns = remote.tier.read_ns(min(size, self._tasks.value("bytes", task)))
        return before_ns + remote.tier.lookup_ns + read_ns

    def outstanding(self, now_ns: int) -> int:
        """Number of retrievals under way."""
        return self._under_way - len(self._abandoned)

    def queued_tokens(self, now_ns: int) -> int:
        """Tokens of the contexts that are looked up or read."""
        return self._queued_tokens

    def keep_load(self) -> None:
        """Do nothing: the client runs no sequences, and the compiler refuses policies that read them."""

    def load(self, now_ns: int) -> NoReturn:
        """Raise RuntimeError: the client runs no sequences."""
        raise RuntimeError("a memory client runs no sequences")

    def tiers(self) -> tuple[Tier, ...]:
        """The tiers that it reads, with their content."""
        return self._store.tiers

    def _decide(self, task: int) -> tuple[int, int, int]:
        """Return the ns before anything streams, the tier (−1: none) and the bytes to stream."""
        tasks, tiers = self._tasks, self._readable
        wanted, size = tasks.wanted[task], tasks.wanted_bytes[task]
        if not wanted:
            return 0, MISS, 0
        if tasks.all_named or tasks.lookup(task).key is not None:
            tier, held, held_bytes = self._store.find(tasks.keys[task])
            loaded = wanted
            if held < wanted:
                loaded, size = held, held_bytes
            delay_ns = self._lookups_ns[tier if tier < len(tiers) else len(tiers) - 1]
        elif (lookup := tasks.lookup(task)).expected_ns is not None:
            return self._expect(task, lookup, size)
        else:
            tier, loaded = tasks.value("tier", task), wanted
            delay_ns = tiers[tier].lookup_ns if tier != MISS else 0
        if tier == MISS:
            self.misses += 1
            return delay_ns, MISS, 0
        tasks.loaded[task], tasks.read[task] = loaded, size
        level = min(tier, len(self.totals) - 1)  # all other stores are counted together
        totals = self.totals[level]
        totals.hits += 1
        totals.read += size
        if not self._spec.contention:
            return delay_ns + tiers[level].read_ns(size), tier, 0
        before_ns, streamed = tiers[level].read_parts(size)
        return delay_ns + before_ns, tier, streamed

    def _expect(self, task: int, lookup: KVLookup, size: int) -> tuple[int, int, int]:
        """A retrieval of which only the expectation is known: no memory is read, none is shared."""
        tasks = self._tasks
        tasks.loaded[task] = tasks.value("expected_tokens", task)
        tasks.read[task] = round(math.fsum(lookup.shares) * size)
        for totals, share in zip(self.totals, lookup.shares, strict=True):
            totals.hits += share
            totals.read += round(share * size)
        self.misses += 1.0 - math.fsum(lookup.shares)
        return tasks.value("expected_ns", task), MISS, 0

    def _end(self, task: int, tier: int, now_ns: int) -> None:
        """A retrieval is over; what was found under a key goes up to the first tier."""
        tasks = self._tasks
        if tier != MISS:
            self._put(task, tier)
        self._under_way -= 1
        if not self._under_way:
            self.busy_ns += now_ns - self._busy_since_ns
        if task in self._abandoned:
            self._abandoned.remove(task)
            return
        self._queued_tokens -= tasks.wanted[task]
        tasks.finish_ns[task] = now_ns
        self._done(task, now_ns)

    def _put(self, task: int, tier: int) -> None:
        """Put what was found under a key into the first tier, as the context used last.

        What another store has comes to that tier only if the store keeps what its clients have computed, too.
        """
        tasks, spec = self._tasks, self._spec
        own = spec.write_back or tier < len(spec.tiers)
        if own and tasks.lookup(task).key is not None:
            self._store.put(tasks.keys[task], tasks.loaded[task], tasks.read[task])

    def _write(self, size: int, over: Callable[[int], None], now_ns: int) -> None:
        """Move bytes into the first tier: at once where they meet nobody, and nothing else happens meanwhile."""
        at_ns = -1 if self._passing_in is None else self._passing_in(size, now_ns)
        if at_ns >= 0:
            over(at_ns)
        else:
            self.send_in(0, size, over, now_ns)

    def _written(self, key: int, tokens: int, size: int, now_ns: int) -> None:
        if self._writing.get(key) == tokens:
            del self._writing[key]
        self._store.put(key, tokens, size)


def _not_connected(tier: int, size: int, over: Callable[[int], None], now_ns: int) -> None:
    raise RuntimeError("the simulation connects a memory client to its tiers")
