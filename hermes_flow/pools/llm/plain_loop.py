"""The loop of a plain client: it handles arrivals and plans without a call for each of them.

Most simulations spend most of their time here. It does what the loop of ``LLMClient``, the policy and the batch do
call by call, on numbers that it keeps in local variables. What is rare (blocks that run out, tasks that are taken
back) is left to them. A test holds both to the same results.
"""

from __future__ import annotations

from heapq import heappush
from typing import Final

from mypy_extensions import i64

from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.decode_run import steps_begun
from hermes_flow.pools.llm.decoding_batch import ADMISSION_BITS
from hermes_flow.pools.llm.plain_constants import PlainConstants, plain_constants
from hermes_flow.pools.llm.plain_ends import IN_PYTHON, blocks_begun, end_due, release
from hermes_flow.pools.llm.step_log import pack_segment
from hermes_flow.pools.llm.waiting import ArrivalQueue
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import NEVER

DONE: Final = -1  # the loop has handled all that it was asked for
# Times are native integers of 64 bits in the compiled core: a run of steps begins and ends before this (53 days).
LATEST_PS: Final = 1 << 62
NEAR_PS: Final = 1 << 61  # no run that begins before then ends later than the loop can hold
NO_PS: Final = (1 << 63) - 1  # no arrival, or no plan, in the loop


class PlainLoop(LLMClient):
    """The loop of a ``PlainClient``."""

    __slots__ = ("_constants",)

    def _use(self, cost: StepCost) -> None:
        """Let the steps to come cost that much; see ``StepLoop``."""
        super()._use(cost)
        self._constants: PlainConstants | None = None

    def _look_up(self) -> PlainConstants:
        """Return what the loop reads and what stays the same object from one call to the next."""
        waiting = self.waiting
        assert isinstance(waiting, ArrivalQueue)
        queues = (self.arriving, waiting, self._in_flight, self._log)
        limits = (self.lookahead, self.max_num_batched_tokens, self.max_num_seqs, self.batch.block_size)
        self._constants = constants = plain_constants(queues, limits, self.cost, self.tasks, self.batch)
        return constants

    def _minds_more(self) -> bool:
        """Return whether something is in hand that the loop does not know; the client then goes on step by step."""
        batch, tasks = self.batch, self.tasks
        if self._single_steps or self._withdrawn or self._leaving or self._load is not None:
            return True
        return bool(batch.copy_ps or tasks.kept or tasks.since_ps)

    def _advance_plainly(self, until_ps: int) -> int:
        """Handle arrivals and plans before ``until_ps``, up to a plan in which something rare happens.

        Return 1 if a plan was made before that one, else 0, or DONE where nothing is left to do.

        This stays one function: its parts read and change most of the numbers below, and calls that hand these over
        and back would take longer than what they do. It reads the client's numbers, turns the loop, and writes them
        back. Each turn is one arrival, or one plan at ``plan_ps`` for the steps that begin at ``tail``:

        1. An arrival comes first: it joins the queue, starts an idle client, and cuts a run of decodes in progress.
        2. A run of decodes is over: what its steps have taken and ended is booked.
        3. Sequences whose last step was over before the plan free their seats and blocks.
        4. The prompt in progress goes on, and waiting tasks are admitted.
        5. A step with prompts is committed: its time, the decodes that end with it, the prompts that join them.
        6. Or a run of decodes alone begins, up to the first end or the next arrival. Or the client is idle.

        Where something rare is due, ``break`` leaves the numbers as ``LLMClient`` has them there, which then goes on.
        """
        batch, tasks = self.batch, self.tasks
        if self._minds_more() or batch._early or self._watched is not None:
            return 0
        if (tasks.preloaded and batch.import_ps) or batch.entering or batch._entered:
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
        plan_ps: i64 = self.plan_ps if self.plan_ps < LATEST_PS else NO_PS
        next_ps: i64 = inbox[0][0] if inbox else NO_PS
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
        next_end: i64 = ends[0] >> ADMISSION_BITS if ends else NO_PS  # the last iteration of a sequence
        completed: list[tuple[int, int]] = []  # the prompts that are complete with a plan
        counts = store is None and not tasks.preloaded
        plans = 0
        while True:
            if next_ps <= plan_ps:  # 1. an arrival
                if next_ps >= until:  # or there is none
                    plans = DONE
                    break
                at = next_ps
                task = inbox[0][1]
                if task < 0:
                    break
                inbox.popleft()
                next_ps = inbox[0][0] if inbox else NO_PS
                waiting.append(task)
                backlog += prompt[task]
                if plan_ps == NO_PS:
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
                plans = DONE
                break
            if run:  # 2. a run is over: what _close_run does
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
                    next_end = ends[0] >> ADMISSION_BITS if ends else NO_PS
                    if ended:
                        decodes -= len(ended)
                        context -= gone
                        in_flight.append((tail, ended))
            while in_flight and in_flight[0][0] <= plan_ps:  # 3. seats and blocks of those that ended
                if store is None:
                    free = release(in_flight.popleft()[1], batch, free)
                else:
                    batch.release(in_flight.popleft()[1])
                    free = batch.free
            now = plan_ps
            if waiting or prefilling:  # 4. prompts: what plan_chunks does
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
            if prefills:  # 5. a step with prompts: what commit_step does
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
                        next_end = ends[0] >> ADMISSION_BITS if ends else NO_PS
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
                        next_end = ends[0] >> ADMISSION_BITS if ends else NO_PS
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
            elif decodes:  # 6. a run of decodes alone: what commit_decodes does
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
                if next_ps < NO_PS and steps > 1 and not waiting:
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
                plan_ps = tail if tail > plan_ps else NO_PS
        self.plan_ps = NEVER if plan_ps == NO_PS else plan_ps
        self.tail_ps, self.run_steps, self.run_start_ps = tail, run, start
        self._growth_ps, self._first_ps, self._next_heeded = growth, first, heeded
        self.twice_pairs += pairs
        batch.iteration, batch.decodes, batch.context, batch.free = iteration, decodes, context, free
        batch._taken, batch.peak, batch.backlog = taken, batch.blocks - least_free, backlog
        batch._admissions, batch.now_ps, batch.last_decode_ps = admissions, now, last_decode
        batch._earlier_decode_ps, batch._decode_planned_ps = earlier_decode, decode_planned
        return plans
