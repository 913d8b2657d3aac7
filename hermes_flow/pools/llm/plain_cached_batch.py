"""Runs a batch with a prefix cache whose tasks have few blocks in common with each other.

Most blocks of a turn of an agent, or of a single question, are those of one chain or are asked for by nobody. Then
what a batch does for a task is a few calls, as which chain that is stands in a column. Tasks whose content is made of
several chains are left to ``CachingBatch``, as is what is rare; a test holds both to the same results.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from hermes_flow.pools.llm.blocks import NO_BLOCKS, Found
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.decoding_batch import DecodingBatch
from hermes_flow.pools.llm.lone_chains import SEVERAL, LoneChains
from hermes_flow.pools.llm.prefix_cache import Held
from hermes_flow.pools.llm.tasks import LLMTasks


@mypyc_attr(allow_interpreted_subclasses=True)
class PlainCachingBatch(CachingBatch):
    """A ``CachingBatch`` for tasks with known chains, none of whose KV comes from another client or goes to one.

    Where the tasks of a chain follow each other, a sequence that finds nothing holds ``NO_BLOCKS`` that have a name
    until it ends: nobody can ask for them earlier.
    """

    __slots__ = ("_first", "_limit", "_name_of", "_one_by_one")

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int, chains: LoneChains) -> None:
        super().__init__(tasks, blocks, block_size)
        self._first = chains.first
        self._limit = chains.limit
        self._one_by_one = chains.one_by_one
        self._name_of = chains.name

    def join_client_of(self, other: DecodingBatch) -> None:
        """Become another micro-batch of the same client; a sequence of one may end later than the other plans."""
        assert isinstance(other, PlainCachingBatch)
        super().join_client_of(other)
        self._one_by_one = other._one_by_one = bytearray(len(self._one_by_one))

    def find(self, task: int) -> Found:
        """Return the blocks that admitting a waiting task takes, and its cached blocks; see ``CachingBatch``."""
        tasks = self.tasks
        first = self._first[task]
        if first == SEVERAL or tasks.kept or tasks.preemptions:
            return super().find(task)
        size, prompt = self.block_size, tasks.prompt[task]
        length = prompt + tasks.generated[task]
        blocks = -(-length // size)
        loaded = tasks.preloaded.get(task, 0) if tasks.preloaded else 0
        if first < 0 or (chain := (first, self._name_of[task])) not in self._store.copies:
            return blocks, loaded, NO_BLOCKS
        full = min(self._limit[task], prompt, length - 1) // size
        hits, idle = self._store.hits_of(chain, full)
        computed = hits.blocks * size
        return blocks + idle - hits.blocks, computed if computed > loaded else loaded, hits

    def admit(self, task: int, found: Found, chunk: int, start_ps: int) -> int:
        """Give ``task`` a seat and the blocks of its first ``chunk`` tokens; see ``RunningBatch``."""
        tasks, first = self.tasks, self._first[task]
        preloaded = tasks.preloaded
        if first == SEVERAL or (preloaded and self.import_ps):
            return super().admit(task, found, chunk, start_ps)
        if preloaded and task in preloaded:
            del preloaded[task]  # once preempted, it is gone
        _, computed, held = found
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        if tasks.start_ps[task] < 0:
            tasks.start_ps[task] = start_ps
            self.begun.append(task)
            if computed:
                tasks.cached[task] = computed
        computed += chunk
        self.backlog -= computed
        if held is NO_BLOCKS and (first < 0 or self._one_by_one[task]):  # what _begin does
            store = self._store
            store.take(-(-computed // self.block_size))
            self.free = store.free
            self._named[admission] = held
        else:
            self._begin(admission, task, held, computed)
        return admission

    def take_chunk(self, admission: int, computed: int, chunk: int) -> None:
        """Take the blocks of the next ``chunk`` tokens of a prompt after ``computed`` ones."""
        task = self.running[admission]
        if self._first[task] == SEVERAL:
            super().take_chunk(admission, computed, chunk)
            return
        self._take(self.blocks_to_continue(computed, chunk))
        held = self._named[admission]
        if held is not NO_BLOCKS:
            self._name(task, held, computed + chunk)
        self.backlog -= chunk

    def release(self, admissions: list[int]) -> None:
        """Free seats and blocks of sequences that have ended, in the order in which their step was planned."""
        if self._padding:
            super().release(admissions)
            return
        running = self.running
        for admission in sorted(admissions) if len(admissions) > 1 else admissions:
            task = running.pop(admission, -1)
            if task >= 0:  # else: preempted while its last token was in flight
                self._free_ended(admission, task)

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        if self._first[task] == SEVERAL:
            super()._take_first(admission, task, found, chunk)
        else:
            self._begin(admission, task, found[2], found[1] + chunk)

    def _begin(self, admission: int, task: int, held: Held, computed: int) -> None:
        """Take the blocks of the first ``computed`` tokens of a sequence, of which it holds those that were found."""
        store = self._store
        if held is NO_BLOCKS and not (self._first[task] < 0 or self._one_by_one[task]):
            held = Held()
        if held.blocks:
            store.share(held)
        store.take(-(-computed // self.block_size) - held.blocks)
        self.free = store.free
        self._named[admission] = held
        if held is not NO_BLOCKS and self._limit[task] // self.block_size > held.blocks:
            self._name(task, held, computed)

    def _name(self, task: int, held: Held, computed: int) -> None:
        """Let the prompt's blocks that are full by now be found."""
        first = self._first[task]
        if first >= 0:
            last = min(self._limit[task], self.tasks.prompt[task], computed) // self.block_size
            if last > held.blocks:
                self._store.name(held, (first, self._name_of[task]), last)

    def _free_ended(self, admission: int, task: int) -> None:
        first = self._first[task]
        if first == SEVERAL:
            super()._free_ended(admission, task)
            return
        tasks, size, store, held = self.tasks, self.block_size, self._store, self._named.pop(admission)
        if self._prompts:
            self._prompts.pop(admission, None)  # it came back from host memory
        computed = tasks.prompt[task] + tasks.output[task] - 1
        full = computed // size
        limit = self._limit[task]
        last = full if limit >= computed else limit // size
        blank = -(-computed // size) - full
        if first < 0 or last <= held.blocks:
            store.release(held, full - held.blocks, blank)
        elif held is NO_BLOCKS:
            store.leave((first, self._name_of[task]), last, full - last, blank)
        else:
            store.name(held, (first, self._name_of[task]), last)
            store.release(held, full - last, blank)
        self.free = store.free

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        if self._named[admission] is NO_BLOCKS:
            self._named[admission] = Held()
        super()._free_preempted(admission, task, computed, known)
