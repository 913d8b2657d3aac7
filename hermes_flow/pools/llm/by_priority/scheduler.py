"""vLLM's scheduling decisions under its policy ``priority``, sequence by sequence.

source: vLLM V1, ``schedule`` of vllm/v1/core/sched/scheduler.py and ``PriorityRequestQueue`` of request_queue.py
(2026). Its pass over the running sequences goes by place in a list from which it throws sequences out, and is
followed here to the letter: whoever is thrown out from before the present place without having been scheduled
(its last token is in flight) lets the pass leave out one sequence for this step.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import ClassVar

from hermes_flow.pools.llm.by_priority.blocks import Blocks
from hermes_flow.pools.llm.by_priority.sequence import Sequence
from hermes_flow.pools.llm.decided_steps import Prefill, Step


class PriorityScheduler:
    """The scheduler of one client.

    ``running`` is in order of admission. A request has at most ``longest`` tokens in a step; 0 is no such limit.
    """

    cancels: ClassVar[bool] = True

    __slots__ = (
        "_blocks",
        "_last",
        "_longest",
        "_max_tokens",
        "_over",
        "_overlap",
        "_preempted",
        "_seats",
        "_unlisted",
        "_waiting",
        "context",
        "running",
    )

    def __init__(self, blocks: Blocks, seats: int, max_tokens: int, longest: int, *, overlap: bool) -> None:
        self._blocks = blocks
        self._seats = seats
        self._max_tokens = max_tokens
        self._longest = longest or max_tokens
        self._overlap = overlap
        self._waiting: list[tuple[int, int, int, Sequence]] = []  # heap: class, arrival, task
        self.running: list[Sequence] = []
        self.context = 0
        self._over: set[Sequence] = (
            set()
        )  # whose last token is delivered, and that still hold seats and blocks
        self._preempted: list[Sequence] = []  # by the last decision
        self._unlisted: list[Sequence] = []  # by decisions that came out empty; the next step lists them
        self._last: Step | None = None

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""
        return not self._waiting and not self.running

    @property
    def peak_blocks(self) -> int:
        """The most blocks in use so far."""
        return self._blocks.peak

    @property
    def kv_use(self) -> float:
        """The share of its blocks that sequences hold."""
        return 1.0 - self._blocks.free / self._blocks.count

    def enqueue(self, sequence: Sequence) -> None:
        """Take in a request that has arrived, or that was thrown out."""
        heappush(self._waiting, (*sequence.urgency, sequence.task, sequence))

    def rest(self) -> bool:
        """Return whether to decide again at once: somebody was thrown out, and those that run may go on."""
        return bool(self._preempted)

    def prefilled(self, prefill: Prefill) -> None:
        """Do nothing: blocks of prompts can be found from the decision on that computes them."""

    def ended(self, sequence: Sequence) -> None:
        """Note that the last token of a sequence is delivered; its seat and blocks are free at the next decision."""
        if sequence.held:
            self._over.add(sequence)
        else:  # it was thrown out while that token was in flight
            self._leave_queue(sequence)

    def withdraw(self, sequence: Sequence) -> bool:
        """Remove a request that nobody waits for; one that runs leaves its seat and blocks at once."""
        if sequence.held:
            self.running.remove(sequence)
            self._blocks.free_preempted(sequence)
        else:
            self._leave_queue(sequence)
        return True

    def fresh(self) -> int:
        """Return the number of requests of which nothing is computed."""
        return len(self._waiting)

    def missing_tokens(self) -> int:
        """Return the tokens of prompts that no step has computed or computes."""
        waiting = sum([one.whole for *_, one in self._waiting])
        return waiting + sum([one.whole - one.computed for one in self.running if one.prefilling])

    def decide(self) -> Step | None:
        """Return the next step and take its memory; None if nothing can run now."""
        self._free_ended()
        self._preempted = []
        scheduled: dict[Sequence, int] = {}
        budget = self._schedule_running(scheduled)
        if not self._preempted:
            self._admit(scheduled, budget)
        self._blocks.note_peak()
        self._last = None
        if not scheduled:
            self._unlisted += self._preempted
            return None
        step = self._last = self._step(scheduled)
        step.retracted, self._unlisted = self._unlisted + self._preempted, []
        return step

    def _schedule_running(self, scheduled: dict[Sequence, int]) -> int:
        """Give running sequences their tokens of this step, in order; return the budget that is left."""
        running, budget, place = self.running, self._max_tokens, 0
        while place < len(running) and budget > 0:
            one = running[place]
            if one.expected >= one.output:  # its last token is in flight
                place += 1
                continue
            tokens = min(one.whole - one.computed, self._longest, budget)
            while not self._blocks.extend(one, tokens):
                victim = max(running, key=lambda each: each.urgency)
                running.remove(victim)
                if victim in scheduled:
                    budget += scheduled.pop(victim)
                    place -= 1
                self._throw_out(victim)
                if victim is one:  # nobody behind it has a turn in this step
                    return budget
            scheduled[one] = tokens
            budget -= tokens
            place += 1
        return budget

    def _throw_out(self, victim: Sequence) -> None:
        self._blocks.free_preempted(victim)
        victim.computed = 0
        victim.prefilling = False
        victim.preempted = True
        self._preempted.append(victim)
        self.enqueue(victim)

    def _admit(self, scheduled: dict[Sequence, int], budget: int) -> None:
        """Admit the most urgent waiting requests while seats, budget and blocks last."""
        blocks, waiting = self._blocks, self._waiting
        while waiting and budget > 0 and len(self.running) < self._seats:
            one = waiting[0][-1]
            needed, hits = blocks.find(one)
            if needed > blocks.free:
                break
            heappop(waiting)
            blocks.admit(one, hits)
            one.prefilling = True
            tokens = min(one.whole - one.computed, self._longest, budget)
            blocks.extend(one, tokens)
            self.running.append(one)
            scheduled[one] = tokens
            budget -= tokens

    def _step(self, scheduled: dict[Sequence, int]) -> Step:
        """Return the step of these sequences, whose tokens count as computed from now on."""
        step = Step([], [], 0)
        for one, tokens in scheduled.items():
            last = one.computed + tokens == one.whole
            if one.prefilling:
                step.prefills.append(Prefill(one, tokens, one.computed, last))
                one.prefilling = not last
            else:
                step.decodes.append(one)
                step.context += one.computed
            one.computed += tokens
            one.expected += last
        step.retractions = [0] * len(step.decodes)
        return step

    def _free_ended(self) -> None:
        if self._over:
            for sequence in self.running:
                if sequence in self._over:
                    self._blocks.free_ended(sequence)
            self.running = [one for one in self.running if one not in self._over]
            self._over.clear()

    def _leave_queue(self, sequence: Sequence) -> None:
        self._waiting = [entry for entry in self._waiting if entry[-1] is not sequence]
        heapify(self._waiting)

    # A stretch of decode steps that all look alike

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps of the whole batch, for all that is known now.

        Nobody can be admitted, nobody ends, and every sequence has its blocks. A request that arrives and can be
        tried ends the stretch.
        """
        self._free_ended()
        last, running = self._last, self.running
        if last is None or last.prefills or not running or len(last.decodes) != len(running):
            return 0
        if any(one.prefilling or one.expected - one.out != self._overlap for one in running):
            return 0
        if self._waiting and self.admits():
            needed, _ = self._blocks.find(self._waiting[0][-1])
            if needed <= self._blocks.free:
                return 0
        self.context = sum([one.computed for one in running])
        return self._room(min([one.output - one.expected for one in running]) - 1)

    def _room(self, steps: int) -> int:
        """Return for how many steps, at most ``steps``, free blocks suffice."""
        size, left = self._blocks.size, self._blocks.free
        crossing = [0] * size  # by how many tokens are left in the last block
        for one in self.running:
            crossing[-one.computed % size] += 1
        room = 0
        while room < steps and left >= crossing[room % size]:
            left -= crossing[room % size]
            room += 1
        return room

    def admits(self) -> bool:
        """Return whether the next decision tries a request that arrives now."""
        return len(self.running) < min(self._seats, self._max_tokens)

    def decode_equally(self, steps: int) -> None:
        """Make the ``steps`` decisions that ``equal_decodes`` has announced, and deliver their results."""
        for one in self.running:
            self._blocks.extend(one, steps)
            one.computed += steps
            one.out += steps
            one.expected += steps
        self.context += steps * len(self.running)
        self._blocks.note_peak()

    def last_decode(self, end_ps: int) -> Step:
        """Return the last step of a stretch, which ends at ``end_ps`` with its results not yet delivered."""
        decodes = list(self.running)
        step = self._last = Step([], decodes, self.context, [], [0] * len(decodes), end_ps)
        return step
