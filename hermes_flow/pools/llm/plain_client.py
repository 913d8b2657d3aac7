"""A client whose scheduler has nothing but the plain case to mind plans its steps in one loop.

Most simulations spend most of their time here. A plain client plans by chunked prefill, in order of arrival, and
counts its blocks or remembers prefixes. Then nearly all that a plan reads and changes are a few numbers, which one
loop keeps in local variables: it does what the loop of ``LLMClient``, the policy and the batch do call by call. What
is rare (blocks that run out, tasks that are taken back) is left to them. A test holds both to the same results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappush
from typing import Final

from mypy_extensions import i64

from hermes_flow.pools.llm.batching.chunk_steps import plan_chunks
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.decode_run import steps_begun
from hermes_flow.pools.llm.decoding_batch import ADMISSION_BITS
from hermes_flow.pools.llm.earliest_end import EarliestEnd
from hermes_flow.pools.llm.plain_ends import IN_PYTHON, blocks_begun, end_due, release
from hermes_flow.pools.llm.prefix_cache import BlockStore
from hermes_flow.pools.llm.promised_ends import PromisedEnds
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.step_log import pack_segment
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import ArrivalQueue
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import NEVER, PS_PER_NS

_DONE: Final = -1
# Where what is rare comes again and again, the loop is tried at growing distances.
_FIRST_PAUSE_PS, _LONGEST_PAUSE_PS = 10**9, 10**13
# Unpacking one tuple takes half the time of looking up what it has.
_Constants = tuple[
    tuple[deque[tuple[int, int]], ArrivalQueue, deque[tuple[int, list[int]]], bytearray],
    tuple[int, int, int, int],
    tuple[int, list[int], int, list[int]],
    tuple[list[int], int, list[int], list[int], list[int]],
    tuple[float, float, int, int],
    tuple[list[int], list[int], list[int]],
    tuple[list[int], list[int], dict[int, int], dict[int, int]],
    BlockStore | None,
]
# Times are native integers of 64 bits in the compiled core: a run of steps begins and ends before this (53 days).
_LATEST_PS: Final = 1 << 62
_NEAR_PS: Final = 1 << 61  # no run that begins before then ends later than the loop can hold
_NO_PS: Final = (1 << 63) - 1  # no arrival, or no plan, in the loop


def is_plain(spec: LLMClientSpec, tasks: LLMTasks, policy: BatchingPolicy) -> bool:
    """Return whether ``PlainClient`` can stand in for ``LLMClient``."""
    own_blocks = spec.sequence_blocks or spec.preemption == "none" or spec.offload
    moves = tasks.leaving or tasks.receives or tasks.images is not None or tasks.adapter
    cost = spec.cost
    rare = spec.speculation is not None or cost.replayed_ps or cost.attention_ranks > 1 or cost.scans
    ordered = spec.packing or spec.kv_layers or cost.tokens_per_decode > 1
    tokens = spec.kv_blocks * spec.block_size  # a run has fewer steps
    too_long = tokens * (max(cost.decode_ps) + cost.context_ps * tokens) >= _NEAR_PS
    return not (own_blocks or moves or rare or ordered or too_long) and policy.plan is plan_chunks


class PlainClient(LLMClient):
    """An ``LLMClient`` with a ``PlainBatch`` or ``CachingBatch``, and tasks in order of arrival; see ``is_plain``."""

    __slots__ = ("_constants",)

    def _use(self, cost: StepCost) -> None:
        """Let the steps to come cost that much; see ``StepLoop``."""
        super()._use(cost)
        self._constants: _Constants | None = None

    def _look_up(self) -> _Constants:
        """Return what the loop reads and what stays the same object from one call to the next."""
        batch, tasks, cost, waiting = self.batch, self.tasks, self.cost, self.waiting
        assert isinstance(waiting, ArrivalQueue)
        self._constants = constants = (
            (self.arriving, waiting, self._in_flight, self._log),
            (self.lookahead, self.max_num_batched_tokens, self.max_num_seqs, batch.block_size),
            (cost.prefill_launch_ps, cost.mixed_attention_ps, cost.mixed_context_ps, cost.first_chunk_ps),
            (self._attention_ps, self._context_ps, self._decode_ps, self._tokens_ps, self._sequences_ps),
            (self._pair_ps, self._half_length, self._past_ps, self._chunk_ps),
            (tasks.prompt, tasks.output, tasks.generated),
            (batch._boundaries, batch._ends, batch.running, batch.prefilling),
            # Its content is not in the numbers of the loop: what it holds is changed by its own methods.
            batch._store if isinstance(batch, CachingBatch) else None,
        )
        return constants

    @property
    def takes_known(self) -> bool:
        """Whether tasks may come ahead of their instants, which nobody who looks at loads expects."""
        return not self._notify and self._load is None

    @property
    def takes_promises(self) -> bool:
        """Whether ``promise`` may be called: nobody looks at the client but for answers that end."""
        return type(self._earliest) is EarliestEnd and self._load is None

    def promise(self, at_ns: Sequence[int]) -> None:
        """Take note that its tasks come one by one, none earlier than at its instant; see ``PoolClient``."""
        assert self._earliest is not None
        ingest_ns = self._inbox.ingest_ns
        self._earliest = PromisedEnds(self._earliest, [(at + ingest_ns) * PS_PER_NS for at in at_ns])

    def hand_on(self, take: Callable[[int, int], None]) -> None:
        """Hand answers on as soon as their ends are known; see ``PoolClient``."""
        assert isinstance(self._earliest, PromisedEnds)
        self._earliest.hand_on(take)

    def _advance(self, until_ps: int, *, planning: bool = True) -> None:
        """Handle all arrivals and plans before ``until_ps``; see ``LLMClient``."""
        if not planning or self._is_far():
            super()._advance(until_ps, planning=planning)
            return
        pause_ps = 1
        while True:
            plans = self._advance_plainly(until_ps if until_ps < _LATEST_PS else _LATEST_PS)
            if plans == _DONE:
                if until_ps > _LATEST_PS:
                    super()._advance(until_ps)
                return
            pause_ps = 1 if plans else min(max(2 * pause_ps, _FIRST_PAUSE_PS), _LONGEST_PAUSE_PS)
            rare_ps = self.plan_ps
            if self.arriving and self.arriving[0][0] < rare_ps:
                rare_ps = self.arriving[0][0]
            if rare_ps + pause_ps >= until_ps:
                super()._advance(until_ps)
                return
            super()._advance(rare_ps + pause_ps)

    def advance_to_end(self, now_ns: int) -> None:
        """Make all plans before ``now_ns``, and end a run that is over within this nanosecond; see ``LLMClient``."""
        until_ps = now_ns * PS_PER_NS
        if until_ps > _NEAR_PS or self._advance_plainly(until_ps) != _DONE:
            self._advance(until_ps)
        if self.run_steps and self.plan_ps < until_ps + PS_PER_NS:
            self._advance(until_ps + PS_PER_NS, planning=False)

    def _is_far(self) -> bool:
        """Return whether a time is beyond those that the loop can hold."""
        if self.arriving and self.arriving[-1][0] >= _LATEST_PS:
            return True
        return self.tail_ps >= _LATEST_PS or (self.plan_ps >= _LATEST_PS and self.plan_ps != NEVER)

    def _advance_plainly(self, until_ps: int) -> int:
        """Handle arrivals and plans before ``until_ps``, up to a plan in which something rare happens.

        Return 1 if a plan was made before that one, else 0, or _DONE where nothing is left to do.
        """
        batch, tasks = self.batch, self.tasks
        # What the loop does not know: whoever has more than this to mind goes on step by step.
        if self._single_steps or self._withdrawn or self._leaving or self._load is not None:
            return 0
        if batch.copy_ps or tasks.kept or tasks.since_ps or (tasks.preloaded and batch.import_ps):
            return 0
        if batch.entering or batch._entered or batch._early or self._watched is not None:
            return 0
        most_tokens: i64
        most_seats: i64
        size: i64
        (
            (inbox, waiting, in_flight, log),
            (lookahead, most_tokens, most_seats, size),
            (launch_ps, mixed_ps, mixed_context_ps, first_chunk_ps),
            (attention_ps, context_ps, decode_ps, tokens_ps, sequences_ps),
            (pair_ps, half_length, past_ps, chunk_ps),
            (prompt, output, generated),
            (boundaries, ends, running, prefilling),
            store,
        ) = self._constants or self._look_up()
        pack = pack_segment
        growth: i64 = self._growth_ps
        first: i64 = self._first_ps
        until: i64 = until_ps
        # What the loop changes are native integers in the compiled core, too. It is as fast without in Python.
        at: i64
        last: i64
        duration: i64
        end: i64
        steps: i64
        begun: i64
        left: i64
        gone: i64
        task: i64
        admission: i64
        computed: int
        chunk: int
        blocks: i64
        need: i64
        budget: i64
        seats: i64
        place: i64
        residue: i64
        answer: i64
        over: i64
        was: i64
        joined: i64
        tokens: i64
        prefills: i64
        pairs: i64 = 0  # twice the pairs of queries and keys of these plans
        plan_ps: i64 = self.plan_ps if self.plan_ps < _LATEST_PS else _NO_PS
        next_ps: i64 = inbox[0][0] if inbox else _NO_PS
        tail: i64 = self.tail_ps
        run: i64 = self.run_steps
        start: i64 = self.run_start_ps
        heeded = self._next_heeded
        iteration: i64 = batch.iteration
        decodes: i64 = batch.decodes
        context: i64 = batch.context
        free: i64 = batch.free
        taken: i64 = batch._taken
        least_free: i64 = batch.blocks - batch.peak
        backlog: i64 = batch.backlog
        admissions: i64 = batch._admissions
        now: i64 = batch.now_ps
        last_decode: i64 = batch.last_decode_ps
        earlier_decode: i64 = batch._earlier_decode_ps
        decode_planned: i64 = batch._decode_planned_ps
        next_end: i64 = ends[0] >> ADMISSION_BITS if ends else _NO_PS  # the last iteration of a sequence
        completed: list[tuple[int, int]] = []  # the prompts that are complete with a plan
        counts = store is None and not tasks.preloaded
        plans = 0
        while True:
            if next_ps <= plan_ps:
                if next_ps >= until:  # or there is none
                    plans = _DONE
                    break
                at = next_ps
                task = inbox[0][1]
                if task < 0:
                    break
                inbox.popleft()
                next_ps = inbox[0][0] if inbox else _NO_PS
                waiting.append(task)
                backlog += prompt[task]
                if plan_ps == _NO_PS:
                    if at > tail:
                        tail = at
                    plan_ps = tail
                elif run > 1 and not heeded and len(waiting) == 1:
                    steps = steps_begun(at - start, first, growth)
                    if lookahead or not steps:
                        steps += 1
                    if steps < run:
                        run = steps
                        last = first + growth * (steps - 1)
                        tail = start + (steps * (first + last) >> 1)
                        plan_ps = tail - last if lookahead else tail
                continue
            if plan_ps >= until:
                plans = _DONE
                break
            if run:  # what _close_run does
                log += pack(start, tail, run, decodes, context, 0, 0)
                if run > 1 and in_flight:  # what was in flight was delivered when the first step began
                    if not taken:
                        taken = 1
                        blocks = boundaries[iteration % size]
                        free -= blocks
                        if blocks and store is not None:
                            store.take(blocks)
                    if free < least_free:
                        least_free = free
                    while in_flight:
                        if store is None:
                            free = release(in_flight.popleft()[1], batch, free)
                        else:
                            batch.release(in_flight.popleft()[1])
                            free = batch.free
                if run > taken:
                    place, steps = (iteration + taken) % size, run - taken
                    blocks = 0
                    if steps >= size:
                        blocks = steps // size * decodes
                        steps %= size
                    if steps:
                        if IN_PYTHON:
                            blocks += sum(boundaries[place : place + steps])
                        else:
                            blocks += blocks_begun(boundaries, place, steps)
                    free -= blocks
                    if blocks and store is not None:
                        store.take(blocks)
                taken = 0
                iteration += run
                context += decodes * run
                decode_planned = now if run == 1 else -1
                earlier_decode, last_decode = last_decode, tail
                run = 0
                if free < least_free:
                    least_free = free
                if next_end < iteration:
                    answers = self.outbox.ends if self._notify else None
                    ended, gone = end_due(ends, iteration, running, tasks, boundaries, size, tail, answers)
                    next_end = ends[0] >> ADMISSION_BITS if ends else _NO_PS
                    if ended:
                        decodes -= len(ended)
                        context -= gone
                        in_flight.append((tail, ended))
            while in_flight and in_flight[0][0] <= plan_ps:
                if store is None:
                    free = release(in_flight.popleft()[1], batch, free)
                else:
                    batch.release(in_flight.popleft()[1])
                    free = batch.free
            now = plan_ps
            if waiting or prefilling:  # what plan_chunks does
                need = boundaries[iteration % size]
                if need > free:
                    break
                budget = most_tokens - decodes
                if prefilling:
                    admission, computed = next(iter(prefilling.items()))
                    task = running[admission]
                    chunk = prompt[task] + generated[task] - computed
                    if chunk > budget:
                        chunk = budget
                    blocks = -(-(computed + chunk) // size) - -(-computed // size)
                    if chunk <= 0 or blocks > free - (0 if taken else need):
                        break
                if decodes and not taken:
                    taken = 1
                    free -= need
                    if need and store is not None:
                        store.take(need)
                end, prefills = tail + launch_ps, 0  # so far, of a step that computes prompts
                if prefilling:
                    batch.backlog, batch.free = backlog, free
                    batch.take_chunk(admission, computed, chunk)
                    backlog, free = batch.backlog, batch.free
                    budget -= chunk
                    prefills = 1
                    pairs += chunk * (computed + computed + chunk)
                    end += past_ps * computed + chunk_ps * chunk
                    if pair_ps:
                        causal = chunk * (computed + 0.5 * chunk)
                        end += int(pair_ps * causal * (1.0 + half_length / (chunk + computed)) + 0.5)
                    if computed + chunk == prompt[task] + generated[task]:
                        del prefilling[admission]
                        completed.append((admission, task))
                    else:
                        prefilling[admission] = computed + chunk
                seats = most_seats - len(running)
                while waiting and seats > 0:  # what admit_waiting does
                    task, computed = waiting[0], 0
                    chunk = left = prompt[task] + generated[task]
                    if counts:
                        if -(-left // size) > free:
                            break
                    else:
                        found = batch.find(task)
                        computed = found[1]
                        if found[0] > free:
                            break
                        chunk = left = left - computed
                    if left > budget:
                        if budget <= 0:
                            break
                        chunk = budget
                    waiting.popleft()
                    if counts:
                        admissions += 1
                        running[admissions] = task
                        free -= -(-chunk // size)
                        backlog -= chunk
                        if tasks.start_ps[task] < 0:
                            tasks.start_ps[task] = tail
                    else:
                        batch._admissions, batch.backlog, batch.free = admissions, backlog, free
                        admissions = batch.admit(task, found, chunk, tail)
                        backlog, free = batch.backlog, batch.free
                        batch.begun.clear()
                    if chunk == left:
                        completed.append((admissions, task))
                    else:
                        prefilling[admissions] = computed + chunk
                    seats -= 1
                    budget -= chunk
                    prefills += 1
                    pairs += chunk * (computed + computed + chunk)
                    if not computed:
                        end += first_chunk_ps[chunk]
                        continue
                    end += past_ps * computed + chunk_ps * chunk
                    if pair_ps:
                        causal = chunk * (computed + 0.5 * chunk)
                        end += int(pair_ps * causal * (1.0 + half_length / (chunk + computed)) + 0.5)
                limit = 1 if in_flight else 0
            else:
                if free < decodes and free < boundaries[iteration % size]:
                    break
                limit = prefills = 0
            plans = 1
            if prefills:  # what commit_step does
                if decodes:
                    if mixed_ps:
                        end += mixed_ps[decodes] + mixed_context_ps * context
                    else:
                        end += attention_ps[decodes] + context_ps * context
                tokens = most_tokens - budget
                end += tokens_ps[tokens] + sequences_ps[decodes + prefills]
                was = decodes
                over = context
                ended = []
                if free < least_free:
                    least_free = free
                if decodes:
                    taken = 0
                    iteration += 1
                    context += decodes
                    decode_planned = now
                    earlier_decode, last_decode = last_decode, end
                    if next_end < iteration:
                        answers = self.outbox.ends if self._notify else None
                        ended, gone = end_due(ends, iteration, running, tasks, boundaries, size, end, answers)
                        next_end = ends[0] >> ADMISSION_BITS if ends else _NO_PS
                        decodes -= len(ended)
                        context -= gone
                joined = 0
                for seat, task in completed:
                    answer = output[task]
                    if generated[task] or answer == 1:
                        batch.iteration, batch.decodes, batch.context = iteration, decodes, context
                        if batch.join(seat, task, end):
                            joined += 1
                        else:
                            ended.append(seat)
                            if self._notify and (not tasks.waited or tasks.waited[task]):
                                self.outbox.ends.append((end, task))
                        decodes, context = batch.decodes, batch.context
                        next_end = ends[0] >> ADMISSION_BITS if ends else _NO_PS
                        continue
                    joined += 1
                    tasks.first_ps[task] = end
                    ending = iteration + answer - 2
                    tasks.last_iteration[task] = ending
                    if ending < next_end:
                        next_end = ending
                    residue = (ending + 2 - prompt[task] - answer) % size
                    boundaries[residue] += 1
                    boundaries[residue + size] += 1
                    decodes += 1
                    context += prompt[task]
                    heappush(ends, ending << ADMISSION_BITS | seat)
                completed = []
                if ended:
                    in_flight.append((end, ended))
                log += pack(tail, end, 1, was, over, tokens - was, joined)
                # The next plan is made at this instant, too: where nothing is in hand then, it is put off at once.
                idle = now == tail and not (decodes or waiting or prefilling or next_ps <= tail)
                plan_ps = tail if lookahead and not idle else end
                tail = end
            elif decodes:  # what commit_decodes does
                steps = 1 if limit else next_end - iteration + 1
                if steps > 1 and free < decodes * (steps // size + 1):
                    batch.free, batch.decodes, batch.iteration, batch._taken = free, decodes, iteration, taken
                    steps = batch.steps_with_blocks(steps)
                start = tail
                growth = context_ps * decodes
                first = decode_ps[decodes] + context_ps * context
                last = first + growth * (steps - 1)
                duration = steps * (first + last) >> 1
                heeded = False
                if next_ps < _NO_PS and steps > 1 and not waiting:
                    heeded = True
                    left = next_ps - start
                    if left < duration:
                        begun = steps_begun(left, first, growth)
                        if lookahead or not begun:
                            begun += 1
                        if begun < steps:
                            steps = begun
                            last = first + growth * (steps - 1)
                            duration = steps * (first + last) >> 1
                run = steps
                tail = start + duration
                plan_ps = tail - last if lookahead else tail
            else:
                plan_ps = tail if tail > plan_ps else _NO_PS
        self.plan_ps = NEVER if plan_ps == _NO_PS else plan_ps
        self.tail_ps, self.run_steps, self.run_start_ps = tail, run, start
        self._growth_ps, self._first_ps, self._next_heeded = growth, first, heeded
        self.twice_pairs += pairs
        batch.iteration, batch.decodes, batch.context, batch.free = iteration, decodes, context, free
        batch._taken, batch.peak, batch.backlog = taken, batch.blocks - least_free, backlog
        batch._admissions, batch.now_ps, batch.last_decode_ps = admissions, now, last_decode
        batch._earlier_decode_ps, batch._decode_planned_ps = earlier_decode, decode_planned
        return plans
