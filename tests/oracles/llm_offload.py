"""The naive LLM client with tiers of memory below its prefix cache: every block is an entry of a list.

Tiers. Each tier is a list of keys, the least recently used first, and holds at most so many. A key is in at most one
tier. To *put* a key: it leaves the tier that has it, and becomes the last entry of the first tier; while a tier has
too many, its first entry becomes the last one of the next tier, and what leaves the last tier is lost.

Writing. With "evicted" a keyed block that is taken from the free queue is put, under its key. With "computed" nothing
is put then. Instead, as the full blocks of a prompt that other prompts may contain are scheduled, all of these of the
sequence so far are put, the last first, if some of them are new. As a sequence ends, its other full blocks are put,
and as it is preempted, or ends after it was, all its full blocks with known content, again the last first.

Loading. Where the turn of a waiting request comes in a plan (a seat, budget and the blocks of its whole present
sequence are there), and tiers hold the keys that follow its hits, up to the first that no tier holds, the request is
put aside: these keys are put, the last first, hits are shared and blocks taken for the rest. It is in no queue until
its load is over. Then its blocks are keyed, it goes before all others, behind those loaded before it, and it is
not looked up again. If one of the keys is being loaded for another request, it takes
nothing, and comes back to the head of the queue as that load is over (the last such load, of the one that began first
among equals), to be looked up again. Those that wait for one load come back the last first, so that each goes before
the next.
With prefetching the same happens as a request comes, before the scheduler sees it, if the free blocks suffice and
none of the keys is being loaded. As the load is over, no earlier than the scheduler would have seen the request, it
takes its place by the instants at which the scheduler saw, or would have seen, requests.

Times. A load that begins reads from each tier, one after the other, and crosses the link, one after the other. A key
that is put and was not in the first tier is written to it. One that becomes the last of the next tier is read from
the one and written to the other. Each takes its turn on these tiers, from the instant at which it happens on.

Tool gaps. With ``gap`` other than "cache" the end of a turn whose request has a next turn is special: its *known*
blocks are the full ones that other prompts may contain, or all its full blocks if it was preempted. "keep" and "ttl"
release the others, and hold the known ones until the next turn has shared what it finds (and taken its first blocks),
or "ttl" for its time after the end of the turn. "offload" puts the known ones, the last first, before the turn
releases its blocks, "drop" does not; both then make blank those of them that nobody uses. Held blocks give way, those
of the earliest turn first, to a running sequence that lacks blocks, and to a waiting one where nothing runs and
nothing is loading; loaded requests give theirs back before.

Giving back. Where blocks are missing (for a running sequence, or for the request whose turn it is), the loaded
request whose load ended last, but not that request itself, releases its blocks and is looked up anew. It goes to the
head of the queue, unless it has a place in the order of arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from oracles.llm_adapters import AdapterScheduler
from oracles.llm_prefix_cache import Block, BlockPool
from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import OraclePolicy, OracleRequest, Plan, Sequence
from oracles.stepped_client import SteppedClient

from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS

REMINDER = Sequence(-1, OracleRequest(0, 1, 1))  # stands for the end of the time of held blocks


@dataclass
class KeyTiers:
    """Tiers as lists of keys."""

    capacities: list[int]
    tiers: list[list[Hashable]] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    demoted: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    moved: Callable[[int], None] = lambda level: None  # one block is written to a tier, or read to move on

    def __post_init__(self) -> None:
        self.tiers = [[] for _ in self.capacities]
        self.written, self.read, self.demoted, self.dropped = ([0] * len(self.tiers) for _ in range(4))

    def place(self, key: Hashable) -> int | None:
        return next((place for place, keys in enumerate(self.tiers) if key in keys), None)

    def put(self, key: Hashable) -> None:
        place = self.place(key)
        if place is not None:
            self.tiers[place].remove(key)
        self.tiers[0].append(key)
        if place != 0:
            self.written[0] += 1
            self.moved(0)
        for level, capacity in enumerate(self.capacities):
            while len(self.tiers[level]) > capacity:
                gone = self.tiers[level].pop(0)
                if level + 1 < len(self.tiers):
                    self.tiers[level + 1].append(gone)
                    self.written[level + 1] += 1
                    self.demoted[level] += 1
                    self.moved(level)
                    self.moved(level + 1)
                else:
                    self.dropped[level] += 1
        held = [key for keys in self.tiers for key in keys]
        assert len(held) == len(set(held)), "a block is in two places"

    def put_row(self, keys: list[Hashable]) -> None:
        for key in reversed(keys):
            self.put(key)


class WritingPool(BlockPool):
    """Blocks whose content goes to the tiers as they are taken."""

    def __init__(self, count: int, tiers: KeyTiers, writes_evicted: bool) -> None:
        super().__init__(count)
        self.tiers, self.writes_evicted = tiers, writes_evicted

    def take(self, count: int) -> list[Block]:
        for block in self.free[:count]:
            if block.key is not None and self.writes_evicted:
                self.tiers.put(block.key)
        return super().take(count)


class OffloadingScheduler(StepScheduler):
    """The scheduler of a client with tiers."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy) -> None:
        super().__init__(spec, policy)
        assert spec.offload is not None
        self.offload = spec.offload
        self.tiers = KeyTiers([spec.offload.blocks_in(tier) for tier in spec.offload.tiers])
        self.tiers.moved = self._move
        self.pool: WritingPool = WritingPool(spec.kv_blocks, self.tiers, not spec.offload.writes_computed)
        self.tier_free_ps = [0] * len(spec.offload.tiers)
        self.link_free_ps = 0
        self.now_ps = 0
        self.front: list[Sequence] = []  # they came back from a load, and have its blocks
        self.loading: list[tuple[Sequence, list[Hashable], int]] = []  # who, its keys, when it is over
        self.loaded: list[Sequence] = []  # they have blocks and wait, in the order in which their loads ended
        self.aside: list[tuple[Sequence, int, Sequence | None]] = []  # who comes back when, or after whom
        self.waiting_for_others = 0
        self.named: dict[int, int] = {}  # blocks of a running sequence that were written, or found
        self.tier_hits: dict[int, Counter[int]] = {}
        self.peak = 0
        self.goes_on = 0  # the first so many requests have a next turn: the request so many numbers after
        self.pins: list[tuple[int, list[Block], int]] = []  # request, its blocks, until when
        self.pinned_until: list[int] = []  # collected by the client

    @property
    def idle(self) -> bool:
        return super().idle and not self.front and not self.loading

    # Loads.

    def beyond(self, sequence: Sequence, hits: list[Block]) -> list[Hashable]:
        keys: list[Hashable] = []
        for block in range(len(hits), (sequence.length - 1) // self.spec.block_size):
            if self.tiers.place(sequence.block_key(block)) is None:
                break
            keys.append(sequence.block_key(block))
        return keys

    def other_load(self, keys: list[Hashable]) -> Sequence | None:
        loads = [(over, who) for who, theirs, over in self.loading if set(theirs) & set(keys)]
        return next((who for over, who in loads if over == max(loads, key=lambda load: load[0])[0]), None)

    def begin_load(self, sequence: Sequence, hits: list[Block], keys: list[Hashable], seen_ps: int) -> int:
        places = [self.tiers.place(key) for key in keys]
        counts = [places.count(level) for level in range(len(self.tier_free_ps))]
        for level, count in enumerate(counts):
            self.tiers.read[level] += count
        self.tiers.put_row(keys)
        self.pool.share(hits)
        sequence.blocks = [*hits, *self.pool.take(len(keys))]
        over_ps = max(self._load_ps(counts), seen_ps)
        self.loading.append((sequence, keys, over_ps))
        if sequence.start_ps < 0:
            self.tier_hits[sequence.index] = Counter(dict(enumerate(counts)))
        self.peak = max(self.peak, self.pool.used)
        self.unpin(sequence.index)
        return over_ps

    def unpin(self, index: int) -> None:
        request = index % self.goes_on if self.goes_on else None
        for pin in [pin for pin in self.pins if pin[0] == request]:
            self.pins.remove(pin)
            self.pool.release(pin[1])

    def expire(self, now_ps: int) -> None:
        for pin in [pin for pin in self.pins if pin[2] <= now_ps]:
            self.pins.remove(pin)
            self.pool.release(pin[1])

    def deliver(self, plan: Plan, now_ps: int) -> None:
        self.now_ps = now_ps
        super().deliver(plan, now_ps)

    def _move(self, level: int) -> None:
        takes = max(1, round(self.offload.block_bytes / self.offload.tiers[level].bytes_per_ns * PS_PER_NS))
        self.tier_free_ps[level] = max(self.now_ps, self.tier_free_ps[level]) + takes

    def _load_ps(self, counts: list[int]) -> int:
        size = self.offload.block_bytes
        over_ps = 0
        first_bytes = []
        for level, count in enumerate(counts):
            if count:
                tier = self.offload.tiers[level]
                before_ns, streamed = tier.read_parts(count * size)
                takes = before_ns * PS_PER_NS + round(streamed / tier.bytes_per_ns * PS_PER_NS)
                begin = max(self.now_ps + tier.lookup_ns * PS_PER_NS, self.tier_free_ps[level])
                self.tier_free_ps[level] = begin + takes
                over_ps = max(over_ps, begin + takes)
                late_ns = 0 if count * size <= tier.buffer_bytes else tier.latency_ns
                first_bytes.append(self.now_ps + (tier.lookup_ns + late_ns) * PS_PER_NS)
        crosses = max(1, round(sum(counts) * size / self.offload.link_bytes_per_ns * PS_PER_NS))
        self.link_free_ps = max(min(first_bytes), self.link_free_ps) + crosses
        return max(over_ps, self.link_free_ps)

    def end_load(self, sequence: Sequence) -> bool:
        mine = [entry for entry in self.loading if entry[0] is sequence]
        if mine:
            self.loading.remove(mine[0])
            self.loaded.append(sequence)
            for number, block in enumerate(sequence.blocks):
                if block.key is None:
                    self.pool.remember(block, sequence.block_key(number))
            if self.offload.writes_computed:
                self.tiers.put_row([sequence.block_key(number) for number in range(len(sequence.blocks))])
        return bool(mine)

    def _give_back(self, but: Sequence, runs: bool = False) -> bool:
        others = [sequence for sequence in self.loaded if sequence is not but]
        if not others:
            if not self.pins or not (runs or not (self.running or self.loading)):
                return False
            self.pool.release(self.pins.pop(0)[1])
            return True
        self.loaded.remove(others[-1])
        self.pool.release(others[-1].blocks)
        others[-1].blocks = []
        if others[-1] in self.front:
            self.front.remove(others[-1])
            self.queue.put_back(others[-1])
        if others[-1].start_ps < 0:
            del self.tier_hits[others[-1].index]
        return True

    def _turn(self, sequence: Sequence, budget: int) -> list[Block] | str:
        """Return the blocks that a request begins with, "stop" where it cannot be admitted, or "aside"."""
        if len(self.running) == self.spec.max_num_seqs:
            return "stop"
        while True:
            loaded = sequence in self.loaded
            hits = sequence.blocks if loaded else self._hits(sequence)
            unused = sum(block.users == 0 for block in hits)
            if self._blocks_for(sequence.length) - len(hits) + unused <= len(self.pool.free):
                break
            if budget <= 0 or not self._give_back(sequence):
                return "stop"
        keys = [] if loaded or budget <= 0 else self.beyond(sequence, hits)
        if not keys:
            return hits
        self._leave_queue(sequence)
        other = self.other_load(keys)
        if other is not None:
            self.waiting_for_others += 1
            self.aside.append((sequence, 0, other))
        else:
            self.aside.append((sequence, self.begin_load(sequence, hits, keys, 0), None))
        return "aside"

    def _leave_queue(self, sequence: Sequence) -> None:
        (self.front if sequence in self.front else self.queue).remove(sequence)

    # Planning.

    def _in_order(self) -> list[Sequence]:
        return self.front + self.queue.in_order()

    def plan(self) -> Plan:
        plan = super().plan()
        self.peak = max(self.peak, self.pool.used)
        return plan

    def _plan_chunked(self, plan: Plan) -> None:
        budget = self.spec.max_num_batched_tokens
        for sequence in list(self.running):
            if budget == 0:
                break
            if sequence not in self.running or sequence.last_token_in_flight:
                continue
            chunk = min(self._at_most(sequence.length - sequence.computed), budget)
            taken = chunk if sequence.prefilling else self.decode_tokens
            if self._make_room(sequence, chunk, plan):
                self._schedule(sequence, chunk, plan)
                budget -= taken
        if plan.preempted:
            return
        for sequence in self._in_order():
            hits = self._turn(sequence, budget)
            if hits == "aside":
                continue
            if isinstance(hits, str) or budget == 0:
                break
            self._admit(sequence, hits, plan)
            chunk = min(self._at_most(sequence.length - sequence.computed), budget)
            self._schedule(sequence, chunk, plan)
            budget -= chunk

    def _admit_whole_prompts(self, plan: Plan, budget: int) -> None:
        for sequence in self._in_order():
            hits = self._turn(sequence, budget)
            if hits == "aside":
                continue
            if isinstance(hits, str):
                break
            prompt = sequence.length - len(hits) * self.spec.block_size
            lone = prompt > self.spec.max_num_batched_tokens and not plan.prefills
            if not (prompt <= budget or lone):
                break
            self._admit(sequence, hits, plan)
            self._schedule(sequence, prompt, plan)
            budget -= prompt

    def _admit(self, sequence: Sequence, hits: list[Block], plan: Plan) -> None:
        self._leave_queue(sequence)
        self.running.append(sequence)
        if sequence in self.loaded:
            self.loaded.remove(sequence)
        else:
            self.pool.share(hits)
            sequence.blocks = list(hits)
        sequence.computed = len(hits) * self.spec.block_size
        if sequence.start_ps < 0:
            sequence.cached_tokens = sequence.computed
        sequence.prefilling = True
        self.named[sequence.index] = len(hits)

    def _schedule(self, sequence: Sequence, chunk: int, plan: Plan) -> None:
        prefilling = sequence.prefilling
        super()._schedule(sequence, chunk, plan)
        if prefilling:
            self.unpin(sequence.index)
        if prefilling and self.offload.writes_computed:
            named = min(sequence.computed // self.spec.block_size, len(sequence.request.block_keys))
            if named > self.named[sequence.index]:
                self.named[sequence.index] = named
                self.tiers.put_row([sequence.block_key(number) for number in range(named)])

    def _make_room(self, sequence: Sequence, chunk: int, plan: Plan) -> bool:
        while self._blocks_for(sequence.computed + chunk) - len(sequence.blocks) > len(self.pool.free):
            if not self._give_back(sequence, runs=True):
                break
        return super()._make_room(sequence, chunk, plan)

    def _release(self, sequence: Sequence) -> None:
        full = sum(block.key is not None for block in sequence.blocks)
        keys = [sequence.block_key(number) for number in range(full)]
        over = sequence.finish_ps >= 0 and bool(sequence.blocks)
        ends_turn = over and self.offload.gap != "cache" and sequence.index < self.goes_on
        known = full if sequence.preemptions else min(full, len(sequence.request.block_keys))
        writes = sequence.blocks and self.offload.writes_computed
        named = self.named.pop(sequence.index) if sequence.blocks else 0
        if writes and full > named and (sequence.preemptions or not over):
            self.tiers.put_row(keys)
        if ends_turn and self.offload.gap == "offload":
            self.tiers.put_row(keys[:known])
        if writes and full > named and over and not sequence.preemptions:
            self.tiers.put_row(keys[named:])
        if not ends_turn:
            super()._release(sequence)
        elif self.offload.gap in ("keep", "ttl"):
            until_ps = sequence.finish_ps + self.offload.ttl_ps
            self.pins.append((sequence.index, sequence.blocks[:known], until_ps))
            self.pinned_until.append(until_ps)
            self.pool.release(sequence.blocks[known:])
            sequence.blocks = []
        else:
            blocks = sequence.blocks[:known]
            super()._release(sequence)
            self._blank([block for block in blocks if block.users == 0])

    def _blank(self, blocks: list[Block]) -> None:
        """Let free blocks be the next to be taken."""
        for block in blocks:
            self.pool.free.remove(block)
            self.pool.holders[block.key].remove(block)
            if not self.pool.holders[block.key]:
                del self.pool.holders[block.key]
            block.key = None
        self.pool.free = blocks + self.pool.free

    def _check(self, plan: Plan) -> None:
        assert len(self.running) <= self.spec.max_num_seqs
        loading = [sequence for sequence, _, _ in self.loading]
        holding = [*self.running, *loading, *self.loaded]
        users = Counter(block for sequence in holding for block in sequence.blocks)
        users.update(block for _, blocks, _ in self.pins for block in blocks)
        assert all(block.users == count for block, count in users.items())
        assert len(users) + len(self.pool.free) == self.spec.kv_blocks
        for sequence in self.running:
            assert len(sequence.blocks) == self._blocks_for(sequence.computed)
        for keys, capacity in zip(self.tiers.tiers, self.tiers.capacities, strict=True):
            assert len(keys) <= capacity


class OffloadingAdapterScheduler(AdapterScheduler, OffloadingScheduler):
    """The scheduler of a client with tiers and LoRA adapters: who has no place for its adapter loads nothing yet."""

    def _in_order(self) -> Iterator[Sequence]:  # type: ignore[override]
        return AdapterScheduler._in_order(self)


class SteppedOffloadingClient(SteppedClient):
    """The naive client with tiers, driven from outside."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy, requests: list[OracleRequest]) -> None:
        super().__init__(spec, policy, requests)
        kind = OffloadingScheduler if spec.adapters is None else OffloadingAdapterScheduler
        self.scheduler: OffloadingScheduler = kind(spec, policy)
        self.offload: OffloadSpec = self.scheduler.offload
        self.visible_ps: dict[int, int] = {}
        self.prefetched: set[int] = set()

    def submit(self, index: int, now_ns: int) -> None:
        sequence, scheduler = self.sequences[index], self.scheduler
        sequence.arrival_ns = now_ns
        self.visible_ps[index] = visible_ps = (now_ns + self.spec.cost.ingest_ns) * PS_PER_NS
        if self.offload.prefetch:
            scheduler.now_ps = now_ns * PS_PER_NS
            hits = scheduler._hits(sequence)
            unused = sum(block.users == 0 for block in hits)
            needed = scheduler._blocks_for(sequence.length) - len(hits) + unused
            keys = scheduler.beyond(sequence, hits) if needed <= len(scheduler.pool.free) else []
            if keys and scheduler.other_load(keys) is None:
                over_ps = scheduler.begin_load(sequence, hits, keys, visible_ps)
                self.prefetched.add(index)
                self._arrive(over_ps, sequence, True)
                return
        self._arrive(visible_ps, sequence, False)

    def _take_in(self, at_ps: int, sequence: Sequence, with_kv: bool) -> None:
        scheduler = self.scheduler
        scheduler.now_ps = at_ps
        if sequence is REMINDER:
            scheduler.expire(at_ps)
        elif not with_kv:
            scheduler.queue.arrive(sequence)
        else:
            if not scheduler.end_load(sequence):
                scheduler.queue.put_back(sequence)
            elif sequence.index in self.prefetched:
                self.prefetched.remove(sequence.index)
                self._enter_in_place(sequence)
            else:
                scheduler.front.append(sequence)
        if self._end_ps is None:
            self._wake(at_ps)

    def _enter_in_place(self, sequence: Sequence) -> None:
        queue = self.scheduler.queue
        queue.arrive(sequence)
        members = queue.members
        place = members.index(sequence)
        while place and self.visible_ps[members[place - 1].index] > self.visible_ps[sequence.index]:
            members[place - 1], members[place] = members[place], members[place - 1]
            place -= 1

    def _remind(self) -> None:
        for until_ps in self.scheduler.pinned_until:
            if until_ps < NEVER:
                self._arrive(until_ps, REMINDER, False)
        self.scheduler.pinned_until.clear()

    def _ask(self, now_ps: int) -> Plan:
        self._remind()
        self.scheduler.now_ps = now_ps
        plan = super()._ask(now_ps)
        for sequence, over_ps, other in self.scheduler.aside:
            if other is None:
                self._arrive(over_ps, sequence, True)
            else:
                (place,) = [at for at, entry in enumerate(self._arriving) if entry[1] is other]
                self._arriving.insert(place + 1, (self._arriving[place][0], sequence, True))
        self.scheduler.aside.clear()
        return plan
