"""TensorRT-LLM's scheduling decisions: which requests have memory, which of them run now, and their chunks."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.llm.decided_steps import Prefill, Step
from hermes_flow.pools.llm.tensorrt_llm.block_pool import BlockPool
from hermes_flow.pools.llm.tensorrt_llm.capacity import Coming, guaranteed, most_utilized
from hermes_flow.pools.llm.tensorrt_llm.chunks import CHUNKING
from hermes_flow.pools.llm.tensorrt_llm.sequence import Sequence
from hermes_flow.program.pools import TensorRTSettings


class TensorRTScheduler:
    """The scheduler of one client. ``active`` requests, in order of arrival, are those it decides about."""

    cancels: ClassVar[bool] = True

    __slots__ = (
        "_computing",
        "_last",
        "_max_tokens",
        "_overlap",
        "_settings",
        "_unlisted",
        "_waited",
        "_waiting",
        "active",
        "context",
        "max_running",
        "pool",
    )

    def __init__(
        self,
        settings: TensorRTSettings,
        pool: BlockPool,
        max_running: int,
        max_tokens: int,
        *,
        overlap: bool,
    ) -> None:
        self._settings = settings
        self._overlap = overlap
        self._max_tokens = max_tokens
        self.pool = pool
        self.max_running = max_running
        self._waiting: deque[Sequence] = deque()
        self.active: list[Sequence] = []
        self._computing: dict[Sequence, None] = {}  # whose prompt is not yet known to be complete
        self._waited = 0  # steps that prompts have waited for a fuller one
        self.context = 0
        self._last: Step | None = None
        self._unlisted: list[
            Sequence
        ] = []  # paused by decisions that came out empty; the next step lists them

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""
        return not self._waiting and not self.active

    @property
    def running(self) -> list[Sequence]:
        """The sequences that generate."""
        return [one for one in self.active if one.generating]

    @property
    def peak_blocks(self) -> int:
        """The most blocks in use so far."""
        return self.pool.peak

    @property
    def kv_use(self) -> float:
        """The share of its blocks that sequences hold."""
        return 1.0 - self.pool.available / self.pool.blocks

    def enqueue(self, sequence: Sequence) -> None:
        """Take in a request that has arrived."""
        self._waiting.append(sequence)

    def rest(self) -> bool:
        """Note that no step runs. Raises HermesFlowError where requests are left: they would wait for ever.

        Prompts may wait for blocks that a prompt in the middle of its chunks computes, while that one is behind
        another that has no memory, which ends the list of those that may run.
        """
        if self.active:
            raise HermesFlowError(
                f"by the rules of TensorRT-LLM's scheduler {len(self.active)} requests would wait for each "
                "other for ever: some for blocks that another prompt computes, and that one behind a request without "
                f"memory; expected more {self._settings.key}.kv_blocks, or prefix_cache=false"
            )
        return False

    def prefilled(self, prefill: Prefill) -> None:
        """Let the blocks of a complete prompt be found."""
        sequence: Sequence = prefill.sequence
        self._computing.pop(sequence, None)
        if sequence.begun:  # else: paused since
            self.pool.publish(sequence, prefill.end)

    def ended(self, sequence: Sequence) -> None:
        """Let the blocks of a sequence be found, and give them back."""
        self._computing.pop(sequence, None)
        if sequence.begun:
            self.pool.publish(sequence, min(sequence.computed, sequence.length))
            self.pool.give_back(sequence)
        self.active.remove(sequence)

    def withdraw(self, sequence: Sequence) -> bool:
        """Remove a request that is not active; an active one is cancelled after the next result."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            return True
        return False

    def fresh(self) -> int:
        """Return the number of requests of which nothing is computed."""
        return len(self._waiting) + sum([not one.computed for one in self.active])

    def missing_tokens(self) -> int:
        """Return the tokens of prompts that no step has computed or computes."""
        return sum([one.length for one in self._waiting]) + sum(
            [one.length - one.computed for one in self.active if not one.generating]
        )

    def decide(self) -> Step | None:
        """Return the next step and take its memory; None if nothing can run now."""
        while self._waiting and len(self.active) < self.max_running:
            self.active.append(self._waiting.popleft())
        step, contexts = self.propose()
        if self._settings.wait_steps and contexts and step.decodes and self._await_more(contexts, step):
            contexts = []
        return self.take(step, contexts)

    def propose(self) -> tuple[Step, list[tuple[Sequence, int]]]:
        """Return the decodes of the next step, and its prompts with their tokens; requests may be paused for it."""
        step = Step([], [], 0)
        if not self.active:
            return step, []
        chosen = self._with_memory(step)
        return step, self._that_run(chosen, step)

    def must_run(self) -> bool:
        """Return whether the scheduler has requests of which one has to run: else a rank runs a dummy."""
        return bool(self.active)

    def put_off(self, step: Step) -> None:
        """Take note that a proposed step is not taken."""
        self._unlisted += step.retracted
        self._last = None

    def take(self, step: Step, contexts: list[tuple[Sequence, int]]) -> Step | None:
        """Take the memory of a proposed step and return it; None if it is empty."""
        for sequence, _ in contexts:
            if not sequence.begun:
                self.pool.claim(sequence)
        for sequence, tokens in contexts:
            self._compute(sequence, tokens, step)
        for sequence in step.decodes:
            step.context += sequence.computed
            self.pool.grow(sequence, 1)
        self._last = step if step.prefills or step.decodes else None
        if self._last is None:
            self._unlisted += step.retracted
        else:
            step.retracted[:0], self._unlisted = self._unlisted, []
            self.pool.note_peak()
            step.retractions = [one.retractions for one in step.decodes]
        return self._last

    def _with_memory(self, step: Step) -> list[Sequence]:
        """Return the requests that have memory, in the order in which they are tried; some may be paused for it."""
        active = [one for one in self.active if not self._completes(one)]
        coming = Coming(self.pool, self._computing)
        policy = self._settings.capacity
        if policy != "max_utilization":
            return guaranteed(active, self.pool, self.max_running, coming, static=policy == "static_batch")
        chosen, paused = most_utilized(active, self.pool, self.max_running, coming)
        for sequence in paused:
            self._computing.pop(sequence, None)
            sequence.retractions += 1
            sequence.in_flight = False
            step.retracted.append(sequence)
        return chosen

    def _completes(self, sequence: Sequence) -> bool:
        """Whether the token in flight is the last that a sequence may write."""
        return self._overlap and sequence.in_flight and sequence.out + 1 >= sequence.limit

    def _that_run(self, chosen: list[Sequence], step: Step) -> list[tuple[Sequence, int]]:
        """Put the decodes into the step, and return the prompts that run now with the tokens to compute of each."""
        left, unit = self._max_tokens, self._settings.chunk_unit
        contexts: list[Sequence] = []
        whole: list[int] = []
        for one in chosen:
            if len(step.decodes) + len(contexts) == self.max_running:
                break
            cost = 1 if one.generating else one.length - one.computed - self._spared(one)
            if (one.generating or unit is None) and cost > left:
                break
            if one.generating:
                step.decodes.append(one)
                left -= 1
                continue
            contexts.append(one)
            whole.append(cost)
            left -= cost if unit is None else 0
        if unit is None or sum(whole) <= left:
            return list(zip(contexts, whole, strict=True))
        spared = [self._spared(one) for one in contexts]
        missing = [cost + known for cost, known in zip(whole, spared, strict=True)]
        chunks = CHUNKING[self._settings.chunking](missing, spared, left, unit)
        return [
            (one, chunk - known if chunk == all_of_it else chunk)
            for one, chunk, known, all_of_it in zip(contexts, chunks, spared, missing, strict=True)
            if chunk
        ]

    def _await_more(self, contexts: list[tuple[Sequence, int]], step: Step) -> bool:
        """Return whether the prompts wait for a fuller step: too few tokens, and not too many steps waited."""
        settings = self._settings
        tokens = len(step.decodes) + sum([max(1, tokens) for _, tokens in contexts])
        if self._waited >= settings.wait_steps or tokens >= settings.wait_tokens:
            self._waited = 0
            return False
        self._waited += 1
        return True

    def _spared(self, sequence: Sequence) -> int:
        return self.pool.found(sequence) * self.pool.size

    def _compute(self, sequence: Sequence, tokens: int, step: Step) -> None:
        """Put so many tokens of a prompt into the step."""
        self.pool.fill(sequence)
        context = sequence.computed
        tokens = min(tokens, sequence.length - context)  # a first chunk that reuse has moved beyond the end
        last = context + tokens == sequence.length
        self.pool.grow(sequence, tokens)
        sequence.generating = last
        self._computing[sequence] = None
        step.prefills.append(Prefill(sequence, tokens, context, last))

    # A stretch of decode steps that all look alike

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps of the whole batch, for all that is known now.

        A request that arrives while a seat is free ends the stretch.
        """
        last, running = self._last, self.active
        if last is None or last.prefills or not running or len(last.decodes) != len(running):
            return 0
        if len(running) > min(self._max_tokens, self.max_running):
            return 0
        if self._waiting and len(running) < self.max_running:
            return 0
        flying = self._overlap
        steps = min([one.output - one.out - (one.in_flight and flying) for one in running]) - 1
        if flying:
            steps = min(steps, min([one.limit - one.out - one.in_flight for one in running]) - 1)
        if steps <= 0 or not all(one.generating and not one.finished for one in running):
            return 0
        self.context = sum([one.computed for one in running])
        return steps if self._settings.capacity != "max_utilization" else self._room(steps)

    def _room(self, steps: int) -> int:
        """Return for how many steps, at most ``steps``, every sequence has its block without a pause."""
        size, left = self.pool.size, self.pool.available
        crossing = [0] * size  # by how many tokens are left in the last block
        for one in self.active:
            crossing[(one.held * size - one.computed) % size] += 1
        room = 0
        while room < steps and left >= crossing[room % size]:
            left -= crossing[room % size]
            room += 1
        return room

    def admits(self) -> bool:
        """Whether the next decision tries a request that arrives now."""
        return len(self.active) < self.max_running

    def decode_equally(self, steps: int) -> None:
        """Make the ``steps`` decisions that ``equal_decodes`` has announced, and deliver their results."""
        for sequence in self.active:
            self.pool.grow(sequence, steps)
            sequence.out += steps
        self.context += steps * len(self.active)
        self.pool.note_peak()

    def last_decode(self, end_ps: int) -> Step:
        """Return the last step of a stretch, which ends at ``end_ps`` with its results not yet delivered."""
        decodes = list(self.active)
        step = Step([], decodes, self.context, [], [one.retractions for one in decodes], end_ps)
        self._last = step
        return step
