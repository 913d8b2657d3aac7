"""A plain client whose tasks are forward passes over prompts, as those of guards, never decodes.

Then a plan is nothing but prompts, a task is over with the step that completes its prompt, and of all that the loop
of ``PlainClient`` keeps up to date a third is left. Tests hold both, and ``LLMClient``, to the same results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from mypy_extensions import i64

from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.earliest_end import ShortestSteps
from hermes_flow.pools.llm.forward_ends import ForwardEnds
from hermes_flow.pools.llm.plain_client import PlainClient
from hermes_flow.pools.llm.plain_loop import DONE, LATEST_PS, NEAR_PS, NO_PS
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.step_log import pack_segment
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import ArrivalQueue
from hermes_flow.program.columns import Column
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import NEVER, PS_PER_NS

_PassConstants = tuple[
    tuple[
        deque[tuple[int, int]],
        ArrivalQueue,
        deque[tuple[int, list[int]]],
        bytearray,
        dict[int, int],
        dict[int, int],
    ],
    tuple[int, int, int, int],
    tuple[int, list[int], list[int], list[int]],
    tuple[list[int], Column, Column, Column, Column],
]


class ForwardClient(PlainClient):
    """A ``PlainClient`` for tasks that are forward passes (``LLMTasks.forward_only``)."""

    __slots__ = ("_amid_known", "_caches", "_pass_constants")

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
        shortest: ShortestSteps | None = None,
    ) -> None:
        """See ``LLMClient``."""
        super().__init__(index, spec, tasks, policy, done, begun, notify=notify, shortest=shortest)
        self._amid_known = False  # tasks are queued that come later
        self._caches = isinstance(self.batch, CachingBatch)
        if self._earliest is not None and shortest is not None:
            self._earliest = ForwardEnds(self, shortest, done)

    def _use(self, cost: StepCost) -> None:
        """Let the steps to come cost that much; see ``StepLoop``."""
        super()._use(cost)
        self._pass_constants: _PassConstants | None = None

    def _look_up_passes(self) -> _PassConstants:
        """Return what the loop reads and what stays the same object; see ``PlainClient``."""
        batch, tasks, cost, waiting = self.batch, self.tasks, self.cost, self.waiting
        assert isinstance(waiting, ArrivalQueue)
        self._pass_constants = constants = (
            (self.arriving, waiting, self._in_flight, self._log, batch.running, batch.prefilling),
            (self.lookahead, self.max_num_batched_tokens, self.max_num_seqs, batch.block_size),
            (cost.prefill_launch_ps, self._tokens_ps, self._sequences_ps, cost.first_chunk_ps),
            (tasks.prompt, tasks.start_ps, tasks.first_ps, tasks.finish_ps, tasks.last_iteration),
        )
        return constants

    @property
    def takes_known_amid(self) -> bool:
        """Whether tasks may come ahead of their instants: nobody looks at loads, or at more than passes that end."""
        return type(self._earliest) is ForwardEnds and self._load is None

    def submit_known(self, tasks: list[int], at_ns: list[int]) -> None:
        """Queue tasks that will be ready at these instants; see ``PoolClient``."""
        queue, first_ps = self.arriving, (at_ns[0] + self._inbox.ingest_ns) * PS_PER_NS
        later: list[tuple[int, int]] = []  # answers whose ends were known first
        while queue and queue[-1][0] >= first_ps:
            later.append(queue.pop())
        known = len(queue)
        self._inbox.submit_known(tasks, at_ns)
        if later:
            coming = [queue.pop() for _ in range(len(queue) - known)]
            queue.extend(sorted([*coming[::-1], *later[::-1]], key=lambda entry: entry[0]))
        if type(self._earliest) is ForwardEnds:
            self._amid_known = True
            self._earliest.known()

    def earliest_ns(self, tasks: Sequence[int], at_ns: Sequence[int]) -> list[int]:
        """Return the instants before which known tasks do not leave; see ``PoolClient``."""
        ends, ingest_ns = self._earliest, self._inbox.ingest_ns
        assert isinstance(ends, ForwardEnds)
        found: list[int] = []
        latest = 0  # whoever comes first leaves first
        for task, at in zip(tasks, at_ns, strict=True):
            earliest = ((at + ingest_ns) * PS_PER_NS + ends._pass_ps(task)) // PS_PER_NS
            if earliest > latest:
                latest = earliest
            found.append(latest)
        return found

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; the scheduler sees it after the engine's ingest time."""
        if self._amid_known:
            self._inbox.submit_amid(task, now_ns)
        else:
            self._inbox.submit(task, now_ns)
        earliest = self._earliest
        return self.next_ns() if earliest is None else earliest.submitted(task, now_ns * PS_PER_NS)

    def submit_ahead(self, task: int, at_ns: int, senders: Sequence[int], first: int) -> int:
        """Queue a task that will be ready at ``at_ns``; see ``PoolClient``."""
        self._inbox.submit_amid(task, at_ns, senders, first)
        ends = self._earliest
        assert ends is not None
        return ends.submitted(task, at_ns * PS_PER_NS)

    def advance_to_end(self, now_ns: int) -> None:
        """Make all plans before ``now_ns``; no run of decodes can be over."""
        until_ps = now_ns * PS_PER_NS
        if until_ps > NEAR_PS or self._advance_plainly(until_ps) != DONE:
            self._advance(until_ps)

    def _advance_plainly(self, until_ps: int) -> int:
        """Handle arrivals and plans before ``until_ps``; see ``PlainLoop``, which says why this is one function."""
        batch, tasks = self.batch, self.tasks
        if tasks.preloaded or self._caches:
            return super()._advance_plainly(until_ps)
        if self._minds_more():
            return 0
        most_tokens: i64
        most_seats: i64
        size: i64
        (
            (inbox, waiting, in_flight, log, running, prefilling),
            (lookahead, most_tokens, most_seats, size),
            (launch_ps, tokens_ps, sequences_ps, first_chunk_ps),
            (prompt, starts, firsts, finishes, lasts),
        ) = self._pass_constants or self._look_up_passes()
        pack, notify, waited = pack_segment, self._notify, tasks.waited
        until: i64 = until_ps
        # What the loop changes are native integers in the compiled core, as in PlainClient.
        end: i64
        task: i64
        admission: i64
        computed: int
        chunk: int
        blocks: i64
        budget: i64
        seats: i64
        chunks: i64
        sequences: i64
        pairs: i64 = 0  # twice the pairs of queries and keys of these plans
        plan_ps: i64 = self.plan_ps if self.plan_ps < LATEST_PS else NO_PS
        next_ps: i64 = inbox[0][0] if inbox else NO_PS
        tail: i64 = self.tail_ps
        free: i64 = batch.free
        least_free: i64 = batch.blocks - batch.peak
        backlog: i64 = batch.backlog
        admissions: i64 = batch._admissions
        now: i64 = batch.now_ps
        plans = 0
        while True:
            if next_ps <= plan_ps:
                if next_ps >= until:  # or there is none
                    plans = DONE
                    break
                came = inbox.popleft()
                task = came[1]
                if task < 0:
                    inbox.appendleft(came)
                    break
                waiting.append(task)
                backlog += prompt[task]
                if plan_ps == NO_PS:
                    if next_ps > tail:
                        tail = next_ps
                    plan_ps = tail
                next_ps = inbox[0][0] if inbox else NO_PS
                continue
            if plan_ps >= until:
                plans = DONE
                break
            while in_flight and in_flight[0][0] <= plan_ps:
                for admission in in_flight.popleft()[1]:
                    task = running.pop(admission, -1)
                    if task >= 0:  # else: preempted since
                        free += (prompt[task] - 1) // size + 1
            now = plan_ps
            if not (waiting or prefilling):
                plans = 1
                plan_ps = tail if tail > plan_ps else NO_PS
                continue
            end = tail
            sequences = -admissions
            ended: list[int] = []
            budget = most_tokens
            if prefilling:
                admission, computed = next(iter(prefilling.items()))
                task = running[admission]
                chunk = prompt[task] - computed
                if chunk > budget:
                    chunk = budget
                blocks = -(-(computed + chunk) // size) - -(-computed // size)
                if blocks > free:
                    break
                free -= blocks
                budget -= chunk
                if computed + chunk == prompt[task]:
                    del prefilling[admission]
                    ended.append(admission)
                else:
                    prefilling[admission] = computed + chunk
                sequences += 1
                pairs += chunk * (computed + computed + chunk)
                end += self.cost.prefill_ps(chunk, computed)
            seats = most_seats - len(running) + admissions  # the last admission that has one
            while waiting and admissions < seats and budget > 0:
                task = waiting[0]
                chunk = prompt[task]
                blocks = -(-chunk // size)
                if blocks > free:
                    break
                waiting.popleft()
                admissions += 1
                running[admissions] = task
                if chunk <= budget:
                    ended.append(admissions)
                else:
                    chunk = budget
                    prefilling[admissions] = chunk
                    blocks = -(-chunk // size)
                free -= blocks
                budget -= chunk
                if starts[task] < 0:
                    starts[task] = tail
                pairs += chunk * chunk
                end += first_chunk_ps[chunk]
            plans = 1
            sequences += admissions
            if not sequences:
                plan_ps = tail if tail > plan_ps else NO_PS
                continue
            chunks = most_tokens - budget
            backlog -= chunks
            end += launch_ps + tokens_ps[chunks] + sequences_ps[sequences]
            if free < least_free:
                least_free = free
            if ended:
                in_flight.append((end, ended))
                for admission in ended:
                    task = running[admission]
                    firsts[task] = finishes[task] = end
                    lasts[task] = batch.iteration - 1
                    if notify and (not waited or waited[task]):
                        self.outbox.ends.append((end, task))
            log += pack(tail, end, 1, 0, 0, chunks, 0)
            # The next plan is made at this instant, too: where nothing is in hand then, it is put off at once.
            if lookahead and (now != tail or waiting or prefilling or next_ps <= tail):
                plan_ps = tail
            else:
                plan_ps = end
            tail = end
        self.plan_ps = NEVER if plan_ps == NO_PS else plan_ps
        self.tail_ps = tail
        self.twice_pairs += pairs
        batch.free, batch.peak, batch.backlog = free, batch.blocks - least_free, backlog
        batch._admissions, batch.now_ps = admissions, now
        return plans
