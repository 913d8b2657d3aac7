"""The tasks of an LLM pool as columns: their requests and their results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import numpy as np

from hermes_flow.pools.llm.encoder_cache import ImagesOfTasks
from hermes_flow.pools.llm.lone_chains import LoneChains
from hermes_flow.pools.llm.prefix_cache import Run
from hermes_flow.pools.progress import Progress
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.columns import Column, column, rows
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.program.work import Forward, Generate, Work
from hermes_flow.recording.recording import OpRecord

# (task, block size, prompt tokens) → keys of the prompt's first full blocks
BlockKeys: TypeAlias = Callable[[int, int, int], Sequence[Hashable]]
# (task, block size, prompt tokens) → the same blocks as runs of chains
BlockRuns: TypeAlias = Callable[[int, int, int], Sequence[Run]]
# (task, block size, prompt tokens, output tokens) → runs of the full blocks after those
AnswerRuns: TypeAlias = Callable[[int, int, int, int], Sequence[Run]]


class LLMTasks(PoolTasks):
    """The tasks of one LLM pool as columns indexed by task, shared by its clients; times in picoseconds."""

    __slots__ = (
        "_answer_runs",
        "_block_keys",
        "_block_runs",
        "_block_size",
        "_ignore_eos",
        "_limit",
        "_priority",
        "_runs",
        "_runs_of",
        "adapter",
        "adapter_load_ps",
        "asking",
        "awaited",
        "branches",
        "cached",
        "chains",
        "coming_blocks",
        "contexts",
        "cuts",
        "emits_first",
        "finish_ps",
        "first_ps",
        "forward_only",
        "generated",
        "goes_on",
        "images",
        "kept",
        "last_iteration",
        "leaving",
        "output",
        "preemptions",
        "preloaded",
        "prompt",
        "put_aside",
        "receives",
        "requests",
        "reserved",
        "seen",
        "since_ps",
        "start_ps",
        "tier_hits",
        "waited",
    )

    def __init__(
        self,
        prompt: list[int],
        output: list[int],
        priority: list[int] | None = None,
        block_keys: BlockKeys | None = None,
        block_runs: BlockRuns | None = None,
        answer_runs: AnswerRuns | None = None,
        block_size: int = 1,
        limit: list[int] | None = None,
        ignore_eos: list[int] | None = None,
    ) -> None:
        count = len(prompt)
        self.prompt = prompt
        self.output = output
        self.start_ps = column(count)
        self.first_ps = column(count)
        self.finish_ps = column(count)
        self.generated = [0] * count
        self.last_iteration = column(count)
        self.preemptions: dict[int, int] = {}
        self.cached: dict[int, int] = {}
        self.cuts: dict[
            int, tuple[int, int, int]
        ] = {}  # what was done of tasks that were taken back; see ``cut``
        self.leaving = bytearray()  # by task, 1 where another client awaits its KV; empty where none leaves
        self.awaited = b""  # the same before anything has left
        # By task, 1 where anybody waits for its end; empty where somebody does for all or none.
        self.waited = bytearray()
        self.receives = False  # KV comes from other clients
        self.forward_only = False  # all are forward passes over prompts, over with their first token
        self.asking: set[int] = set()  # tasks whose KV lies elsewhere until blocks are free here
        self.reserved: set[int] = set()  # tasks that have these blocks, and no seat yet
        self.branches: dict[
            int, tuple[int, ...]
        ] = {}  # op → others that receive the same prompt's KV, all by place
        self.requests = count  # of each op
        self.emits_first = False  # those whose KV comes from another client emit their first token here
        self.adapter: list[int] = []  # by task, -1 for none; empty where no client has adapters
        self.adapter_load_ps: dict[int, int] = {}  # task → the time to load its adapter as it was admitted
        self.seen: list[
            list[int]
        ] = []  # of each client with adapters, the tasks in the order in which it saw them
        self.images: ImagesOfTasks | None = None  # that the engine encodes; None: no task has any
        self.kept: dict[int, int] = {}  # waiting task → computed tokens that lie in host memory
        self.contexts: set[int] = set()  # those that asked for blocks before their context is read
        self.preloaded: dict[int, int] | None = (
            None  # task → computed tokens that were retrieved; None: of no pool
        )
        self.chains: LoneChains | None = None  # where no prompt shares blocks with other requests
        self.goes_on = (
            bytearray()
        )  # by task, 1 where a next turn of its request begins with it; empty: not asked
        # tier → task → tokens that were loaded from it before the task was scheduled for the first time
        self.tier_hits: dict[str, dict[int, int]] = {}
        self.put_aside: set[int] = set()  # with adapters, those that waited for a load
        self.since_ps: dict[int, int] = {}  # task that is not ready → since when it has its place in a queue
        self.coming_blocks: dict[int, list[Run]] = {}  # task → blocks that come from tiers of a lost client
        self._priority = priority
        self._limit = limit
        self._ignore_eos = ignore_eos
        self._block_keys = block_keys
        self._block_runs = block_runs
        self._answer_runs = answer_runs
        self._runs_of = (-1, 0)
        self._runs: Sequence[Run] = ()
        self._block_size = block_size  # for routing

    def record(self, first: int, count: int, client: Ints, ready_ns: Ints) -> OpRecord:
        """Return the times of first schedule, first and last token, and the reused tokens."""
        return OpRecord(
            client=client,
            ready_ns=ready_ns,
            start_ns=_nanoseconds(self.start_ps, first, count),
            finish_ns=_nanoseconds(self.finish_ps, first, count),
            first_ns=_nanoseconds(self.first_ps, first, count),
            preemptions=_per_request(self.preemptions, first, count),
            cached_tokens=_per_request(self.cached, first, count),
            adapter_load_ns=self._adapter_ns(self.adapter_load_ps, first, count),
            adapter_wait_ns=self._adapter_ns(self._passed_over_ps(), first, count),
            tier_hits={tier: _per_request(hits, first, count) for tier, hits in self.tier_hits.items()}
            if self.tier_hits
            else None,
        )

    def _adapter_ns(self, picoseconds: dict[int, int], first: int, count: int) -> Ints | None:
        return _per_request(picoseconds, first, count) // PS_PER_NS if self.adapter else None

    def _passed_over_ps(self) -> dict[int, int]:
        """Return for how long the places of adapters kept tasks waiting that would have had their turn."""
        if not self.adapter:
            return {}
        from hermes_flow.pools.llm.adapter_use import passed_over_ps

        found: dict[int, int] = {}
        aside = self.put_aside
        for seen in self.seen:
            tasks, waits = passed_over_ps([task for task in seen if task not in aside], self.start_ps)
            found.update(zip(tasks.tolist(), waits.tolist(), strict=True))
        return found

    def input_tokens(self, task: int) -> int:
        """Return the tokens of its prompt."""
        return self.prompt[task]

    def output_tokens(self, task: int) -> int:
        """Return the tokens of its answer."""
        return self.output[task]

    def cut(self, task: int) -> tuple[int, int, int] | None:
        """Return what was done of a task that was taken back; see ``PoolTasks``."""
        return self.cuts.get(task)

    def prefix_keys(self, task: int) -> Sequence[Hashable]:
        """Return the keys of its first full blocks; none without a prefix cache."""
        return self.block_keys(task, self._block_size)

    def begin_with(self, task: int, tokens: int) -> None:
        """Let a prompt begin with so many computed tokens, but for its last one."""
        assert self.preloaded is not None
        prompt = self.prompt[task]
        if prompt > 1:
            self.preloaded[task] = tokens if tokens < prompt else prompt - 1

    def count_waited(self) -> None:
        """Prepare for ``nobody_waits``."""
        if not self.waited:
            self.waited = bytearray(b"\1") * len(self.prompt)

    def nobody_waits(self, task: int) -> None:
        """Note that the end of a task need not be reported, unless somebody counts all of them."""
        if self.waited:
            self.waited[task] = 0

    def first_token_ps(self, task: int) -> int:
        """Return when a task has emitted its first token."""
        return self.first_ps[task]

    def reset(self, task: int) -> None:
        """Forget what a client has done for a task that is lost with it, and that begins anew."""
        self.start_ps[task] = self.first_ps[task] = self.finish_ps[task] = self.last_iteration[task] = -1
        self.generated[task] = 0
        for known in (self.preemptions, self.cached, self.kept, self.since_ps):
            known.pop(task, None)
        self.cuts.pop(task, None)
        for hits in self.tier_hits.values():
            hits.pop(task, None)
        if self.preloaded is not None:
            self.preloaded.pop(task, None)
        self.asking.discard(task)
        self.reserved.discard(task)
        self.adapter_load_ps.pop(task, None)
        for seen in self.seen:
            if task in seen:
                seen.remove(task)
        if self.leaving:
            self.leaving[task] = self.awaited[task]

    def answered(self, task: int) -> int:
        """Return the tokens of its answer with which a task goes on that was lost."""
        return self.generated[task]

    def go_on(self, task: int, answer: int) -> None:
        """Let a task of a lost client go on elsewhere with ``answer`` tokens of its answer, and none of its KV."""
        self.finish_ps[task] = self.last_iteration[task] = -1
        self.generated[task] = answer
        for known in (self.kept, self.since_ps):
            known.pop(task, None)
        if self.preloaded is not None:
            self.preloaded.pop(task, None)
        self.asking.discard(task)
        self.reserved.discard(task)

    def carry_over(self, task: int, tokens: int) -> None:
        """Note that the KV of the first ``tokens`` of a task that goes on elsewhere is there."""
        if self.preloaded is None:
            self.preloaded = {}
        self.preloaded[task] = min(tokens, self.prompt[task] + self.generated[task] - 1)

    def spent(self, task: int, done: Progress, now_ns: int) -> tuple[int, int, int]:
        """Return the tokens and the ns that were spent on a task which begins anew; see ``PoolTasks``."""
        start_ps, finish_ps = self.start_ps[task], self.finish_ps[task]
        if start_ps < 0 or start_ps > now_ns * PS_PER_NS:
            return 0, 0, 0
        prompt, answer, until_ps = done.prompt, done.answer, now_ns * PS_PER_NS
        if task in self.cuts:
            prompt, answer, until_ns = self.cuts[task]
            until_ps = until_ns * PS_PER_NS
        elif 0 <= finish_ps <= until_ps:
            prompt, answer, until_ps = self.prompt[task], self.output[task], finish_ps
        return max(0, prompt - self.cached.get(task, 0)), answer, (until_ps - start_ps) // PS_PER_NS

    def cut_short(self, task: int, done: Progress, now_ns: int) -> None:
        """Note how far a task was that fails with its client at ``now_ns``; a planned first token has not left."""
        if self.start_ps[task] >= 0:
            answer = done.answer if self.first_ps[task] < (now_ns + 1) * PS_PER_NS else 0
            self.cuts[task] = (done.prompt, answer, max(now_ns, self.start_ps[task] // PS_PER_NS))

    def renew(self, first: int, work: Work) -> None:
        """Let other requests take the numbers from ``first`` on, with their ``work``; the old tasks are over."""
        assert isinstance(work, Generate | Forward)
        prompt = work.prompt.tolist()
        count = len(prompt)
        self.prompt[first : first + count] = prompt
        self.output[first : first + count] = work.output.tolist()
        self.generated[first : first + count] = [0] * count
        for times in (self.start_ps, self.first_ps, self.finish_ps, self.last_iteration):
            times[first : first + count] = column(count)
        for known in (self.preemptions, self.cached):
            for task in [task for task in known if first <= task < first + count]:
                del known[task]

    def answer_ns(self, task: int) -> tuple[int, int]:
        """Return when an answer that is complete got its first and its last token."""
        return self.first_ps[task] // PS_PER_NS, self.finish_ps[task] // PS_PER_NS

    def ask(self, task: int) -> None:
        """Let a task wait for the blocks of its prompt, whose KV another client has or computes."""
        self.asking.add(task)
        if self.emits_first or task in self.contexts:
            self.kept[task] = self.prompt[task] - 1
        else:
            self.kept[task] = self.prompt[task]
            self.generated[task] = 1

    def branches_of(self, task: int) -> list[int]:
        """Return the other tasks of its request that receive the KV of the same prompt on the same client."""
        if not self.branches:
            return []
        place, request = divmod(task, self.requests)
        return [other * self.requests + request for other in self.branches.get(place, ())]

    def reserve(self, task: int) -> None:
        """Note that a task has its blocks; a pool that emits first tokens computes its prompt's last token."""
        self.asking.remove(task)
        self.reserved.add(task)
        if self.contexts and task in self.contexts:
            del self.kept[task]  # what is found is known when it is read
        elif self.emits_first:
            self.begin_with(task, self.kept.pop(task))

    def forget_kv(self, task: int) -> None:
        """Forget the computed tokens of a task that was taken back before it had a seat."""
        self.kept.pop(task, None)
        self.asking.discard(task)
        if self.preloaded:
            self.preloaded.pop(task, None)

    def take_over(self, task: int, first_token_ps: int) -> None:
        """Continue after the prefill's token, unless the pool emits first tokens."""
        if not self.emits_first:
            self.first_ps[task] = first_token_ps

    def priority_of(self, task: int) -> int:
        """The request's class, lower numbers more urgent; 0 where the workload has none."""
        return 0 if self._priority is None else self._priority[task]

    def limit_of(self, task: int) -> int:
        """The token limit of its answer; its length if the workload has no limit."""
        return self.output[task] if self._limit is None else max(self._limit[task], self.output[task])

    def ignores_eos(self, task: int) -> bool:
        """Whether its answer continues to its limit regardless of end-of-sequence tokens."""
        return self._ignore_eos is not None and bool(self._ignore_eos[task])

    def block_keys(self, task: int, block_size: int) -> Sequence[Hashable]:
        """The keys of the prompt's first full blocks, each standing for its content and all before it."""
        return () if self._block_keys is None else self._block_keys(task, block_size, self.prompt[task])

    def block_runs(self, task: int, block_size: int) -> Sequence[Run]:
        """The same blocks as runs of chains."""
        if self._block_runs is None:
            return ()
        if self._runs_of != (task, block_size):  # a plan asks about the same task several times
            self._runs_of = (task, block_size)
            self._runs = self._block_runs(task, block_size, self.prompt[task])
        return self._runs

    def answer_runs(self, task: int, block_size: int) -> Sequence[Run]:
        """The full blocks after the prompt's as runs of chains, if a later prompt may contain the answer.

        They reach to the answer's end: not for those who may not know its length.
        """
        if self._answer_runs is None:
            return ()
        return self._answer_runs(task, block_size, self.prompt[task], self.output[task])


def _per_request(by_task: dict[int, int], first: int, count: int) -> Ints:
    """Return the figures of tasks ``first`` … ``first + count − 1`` as a column; 0 where there is none."""
    column = np.zeros(count, dtype=np.int64)
    for task, value in by_task.items():
        if first <= task < first + count:
            column[task - first] = value
    return column


def _nanoseconds(picoseconds: Column, first: int, count: int) -> Ints:
    return np.floor_divide(rows(picoseconds, first, count), PS_PER_NS)
