"""SGLang's scheduling decisions: the content of the next step, and the effects of its results.

Prefills go first: a decode step runs only if no prompt can be admitted, or along with one (mixed chunks). Under
overlap a step is decided while the one before it runs, so that the results of that one are not known yet.
"""

from __future__ import annotations

from typing import ClassVar

from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.llm.decided_steps import Prefill, Step
from hermes_flow.pools.llm.sglang.admission import MOST_RESERVED, Admission, Verdict
from hermes_flow.pools.llm.sglang.radix_tree import Node
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.pools.llm.sglang.waiting_order import WaitingOrder
from hermes_flow.program.pools import SGLangSettings

_RETRACT_STEPS = 20  # tokens that each request has room for after a retraction
_DECAY_STEPS = 600


class SGLangScheduler:
    """The scheduler of one client. ``waiting`` and ``running`` are in the engine's order."""

    cancels: ClassVar[bool] = False

    __slots__ = (
        "_decay",
        "_full",
        "_last",
        "_least_ratio",
        "_order",
        "_overlap",
        "_ratio",
        "_settings",
        "chunked",
        "context",
        "first_ratio",
        "max_running",
        "pool",
        "running",
        "waiting",
    )

    def __init__(self, settings: SGLangSettings, pool: TokenPool, max_running: int, *, overlap: bool) -> None:
        self._settings = settings
        self._overlap = overlap
        self._order = WaitingOrder(longest_prefix=settings.longest_prefix)
        self.pool = pool
        self.max_running = max_running
        self.first_ratio = min(0.7 * settings.schedule_conservativeness, 1.0)
        self._least_ratio = min(0.14 * self.first_ratio, 1.0)
        self._decay = (self.first_ratio - self._least_ratio) / _DECAY_STEPS
        self._ratio = self.first_ratio  # of its remaining limit, what a running request is expected to write
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._full = False  # memory ran out: nobody is tried until somebody leaves
        self.chunked: Sequence | None = None  # whose prompt is partly computed
        self.context = 0  # computed tokens of the running sequences, as ``equal_decodes`` has found them
        self._last: Step | None = None

    @property
    def _out_of_memory(self) -> str:
        return (
            "by the rules of SGLang's scheduler a request would be aborted: it runs alone, and what others hold "
            f"leaves no memory for its next token; expected more {self._settings.key}.kv_blocks"
        )

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""
        return not self.waiting and not self.running and self.chunked is None

    @property
    def peak_blocks(self) -> int:
        """The most pages in use so far."""
        return self.pool.peak // self.pool.page

    @property
    def kv_use(self) -> float:
        """The share of its tokens that sequences hold."""
        return 1.0 - self.pool.room / self.pool.capacity

    def enqueue(self, sequence: Sequence) -> None:
        """Take in a request that has arrived."""
        self.waiting.append(sequence)

    def prefilled(self, prefill: Prefill) -> None:
        """Give a complete prompt to the tree."""
        self.pool.publish(prefill.sequence, prefill.end)

    def ended(self, sequence: Sequence) -> None:
        """Give what a sequence has computed to the tree, and free the rest."""
        self.pool.publish(sequence, min(sequence.computed, sequence.length))
        self.pool.give_back(sequence)

    def withdraw(self, sequence: Sequence) -> bool:
        """Remove a request that waits; one that runs is made to end with its next token, as SGLang aborts it."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return True
        sequence.output = min(sequence.output, sequence.out + 1)
        return False

    def fresh(self) -> int:
        """Return the number of requests of which nothing is computed."""
        return sum([not one.computed for one in self.waiting])

    def missing_tokens(self) -> int:
        """Return the tokens of prompts that no step has computed or computes."""
        missing = sum([max(0, one.length - one.computed) for one in self.waiting])
        chunked = self.chunked
        return missing if chunked is None else missing + chunked.length - chunked.computed

    def prompts_ran(self) -> bool:
        """Return whether the step that was decided last has prompts."""
        return self._last is not None and bool(self._last.prefills)

    def rest(self) -> bool:
        """Note that no step runs; with nothing to do, the share of reserved answers begins anew."""
        if self.idle:
            self._ratio = self.first_ratio
        return False

    def decide(self) -> Step | None:
        """Return the next step and take its memory; None if nothing can run now.

        Raises HermesFlowError where there is too little of it, as nothing is left that could be retracted.
        """
        if self.chunked is not None:
            self.pool.publish(self.chunked, self.chunked.computed, whole=False)
        self._merge_last()
        kept = [one for one in self.running if not one.finished]
        if len(kept) < len(self.running):
            self._full = False
            self.running = kept
        step = self._prefill_step() or self._decode_step()
        self._last = step
        if self.pool.free < 0:
            raise HermesFlowError(self._out_of_memory)
        if step is not None:
            self.pool.note_peak()
            step.retractions = [one.retractions for one in step.decodes]
        return step

    def _merge_last(self) -> None:
        """Let the sequences of the last prefill or mixed step decode from now on."""
        last = self._last
        if last is None or not last.prefills:
            return
        everyone = [*(prefill.sequence for prefill in last.prefills), *last.decodes]
        rest = [one for one in everyone if not one.finished and one is not self.chunked]
        if len(rest) < len(everyone) or (rest and not self.running):
            self._full = False
        self.running += rest

    # Prefill steps

    def _prefill_step(self) -> Step | None:
        if not self.running:
            self._full = False
        if (self._full or not self.waiting) and self.chunked is None:
            return None
        seats = self._seats()
        if seats <= 0 and self.chunked is None:
            self._full = True
            return None
        self._begin_admission()
        self._order.sort(self.waiting, self.pool)
        settings = self._settings
        admission = Admission(
            self.pool,
            self.running,
            self._ratio,
            max_prefill_tokens=settings.max_prefill_tokens,
            chunk=settings.chunked_prefill_size,
            mixed=len(self.running) if settings.mixed_chunk else 0,
        )
        whole: list[bool] = []
        if self.chunked is not None:
            whole.append(self._go_on(admission, self.chunked))
        self._admit(admission, seats, whole)
        if not admission.picked:
            return None
        step = self._launch(admission, whole)
        if settings.mixed_chunk and self.running:
            self._join_decodes(step)
        return step

    def _begin_admission(self) -> None:
        """Take note that waiting requests are about to be tried."""

    def _seats(self) -> int:
        """Return how many prompts may be picked, with the one that goes on."""
        return self.max_running - len(self.running)

    def _go_on(self, admission: Admission, chunked: Sequence) -> bool:
        """Pick the next part of the prompt that was cut before; return whether it is the last."""
        missing = chunked.length - chunked.computed
        part = admission.next_chunk(missing)
        last = part == missing
        admission.pick(chunked, part, min(chunked.limit, MOST_RESERVED) if last else 0)
        if last:
            self.chunked = None
        return last

    def _admit(self, admission: Admission, seats: int, whole: list[bool]) -> None:
        """Pick waiting prompts in order while seats, budgets and memory last."""
        pool, verdict = self.pool, admission.verdict()
        gone = 0
        held_back: list[Sequence] = []
        waiting = self.waiting
        if verdict == "stop":
            return
        for sequence in waiting:
            if len(admission.picked) >= seats:
                self._full = True
            if self._full:
                break
            if self._held_back(sequence):
                held_back.append(sequence)
                continue
            node, prefix = pool.match(sequence, sequence.length - 1)
            if pool.tree is not None:
                pool.tree.hold(node)
            part, node, prefix = self._part(admission, sequence, node, prefix)
            if isinstance(part, str):
                if pool.tree is not None:
                    pool.tree.release(node)
                verdict = part
            else:
                sequence.node, sequence.protected, sequence.computed = node, prefix, prefix
                last = part == sequence.length - prefix
                admission.pick(sequence, part, min(sequence.limit, MOST_RESERVED) if last else 0)
                if not last:
                    self.chunked = sequence
                whole.append(last)
                gone += 1
                verdict = admission.verdict()
            if verdict == "memory":
                self._full = bool(admission.picked) or bool(self.running)
            if verdict != "go":
                break
        waiting[: gone + len(held_back)] = held_back

    def _held_back(self, sequence: Sequence) -> bool:
        """Whether a waiting request is passed over; others behind it are tried."""
        return False

    def _part(
        self, admission: Admission, sequence: Sequence, node: Node | None, prefix: int
    ) -> tuple[int | Verdict, Node | None, int]:
        """Return the next part of a prompt or why it has none, and the held end and the length of what is known."""
        return admission.part(sequence, prefix), node, prefix

    def _launch(self, admission: Admission, whole: list[bool]) -> Step:
        """Take the memory of the picked parts."""
        pool, picked = self.pool, admission.picked
        total = sum([part for _, part in picked])
        pool.evict_until(total if pool.page == 1 else total + pool.page * len(picked))
        prefills = []
        for (sequence, part), last in zip(picked, whole, strict=True):
            prefills.append(Prefill(sequence, part, sequence.computed, last))
            pool.grow(sequence, part)
        return Step(prefills, [], 0)

    def _join_decodes(self, step: Step) -> None:
        """Let the running sequences decode along with the prompts, if all of them fit."""
        self._leave_by_length()
        if self.running and self.pool.fits(self.running):
            self._decode_all(step)
            self.running = []

    # Decode steps

    def _decode_step(self) -> Step | None:
        if not self.running:
            return None
        before = len(self.running)
        left = self._leave_by_length()
        if not self.running:
            self._full = False
            return None
        self._before_decode()
        step = Step([], [], 0)
        if self.pool.fits(self.running):
            self._ratio = max(self._ratio - self._decay, self._least_ratio)
        elif left:
            self._full = False
            return None
        else:
            self._retract(step)
        if len(self.running) < before:
            self._full = False
        self._decode_all(step)
        return step

    def _leave_by_length(self) -> bool:
        """Under overlap, drop those whose token in flight is the last that they may write; say whether any were."""
        if not self._overlap:
            return False
        rest = [one for one in self.running if not (one.in_flight and one.out + 1 >= one.limit)]
        if len(rest) == len(self.running):
            return False
        self._full = False
        self.running = rest
        return True

    def _decode_all(self, step: Step) -> None:
        """Give each running sequence memory for one token, and put it into the step."""
        pool = self.pool
        pool.evict_until(pool.page * len(self.running))
        context = 0
        for sequence in self.running:
            context += sequence.computed
            pool.grow(sequence, 1)
        step.decodes = list(self.running)
        step.context = context

    def _retract(self, step: Step) -> None:
        """Throw running sequences out until the rest fits: first those with the fewest tokens written."""
        pool = self.pool
        kept = sorted(self.running, key=lambda one: (-one.out, one.prompt))
        while len(kept) > 1 and (not step.retracted or not pool.fits(kept)):
            sequence = kept.pop()
            pool.give_back(sequence)
            sequence.retractions += 1
            sequence.in_flight = False
            self._put_back(sequence)
            step.retracted.append(sequence)
            pool.evict_until(_RETRACT_STEPS * len(kept))
        self.running = kept
        written = sum([one.out for one in kept]) + _RETRACT_STEPS * len(kept)
        self._ratio = min(1.0, written / (sum([one.limit for one in kept]) + 1))

    def _before_decode(self) -> None:
        """Take note that the memory for a step of decodes alone is about to be looked for."""

    def _put_back(self, sequence: Sequence) -> None:
        """Let a sequence that was thrown out wait again."""
        self.waiting.append(sequence)

    # A stretch of decode steps that all look alike

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps of the whole batch, for all that is known now.

        Nobody can be admitted or is half admitted, nobody ends, and memory is free without evicting. A request that
        arrives and can be tried ends the stretch. 0 where the next decision is of another kind, or may be.
        """
        last = self._last
        if self.chunked is not None or last is None or last.prefills or not self.running:
            return 0
        if self.waiting and not self._full:
            return 0
        steps = min([one.output - one.out - (one.in_flight and self._overlap) for one in self.running]) - 1
        if self._overlap:
            limit = min([one.limit - one.out - one.in_flight for one in self.running]) - 1
            steps = min(steps, limit)
        if steps <= 0 or any(one.finished for one in self.running):
            return 0
        pool, batch = self.pool, len(self.running)
        self.context = sum([one.computed for one in self.running])
        if pool.page == 1:
            return max(0, min(steps, pool.free // batch))
        crossing = [0] * pool.page  # by how many tokens are left in the last page
        for one in self.running:
            crossing[-one.computed % pool.page] += 1
        free, room = pool.free, 0
        while room < steps and free >= pool.page * batch:
            free -= pool.page * crossing[room % pool.page]
            room += 1
        return room

    def admits(self) -> bool:
        """Whether the next decision tries a request that arrives now."""
        return not self._full

    def decode_equally(self, steps: int) -> None:
        """Make the ``steps`` decisions that ``equal_decodes`` has announced, and deliver their results.

        Under overlap the results are those of the steps one before.
        """
        pool = self.pool
        for sequence in self.running:
            pool.grow(sequence, steps)
            sequence.out += steps
        for _ in range(steps):
            self._ratio = max(self._ratio - self._decay, self._least_ratio)
        self.context += steps * len(self.running)
        pool.note_peak()

    def last_decode(self, end_ps: int) -> Step:
        """Return the last step of a stretch, which ends at ``end_ps`` with its results not yet delivered."""
        decodes = list(self.running)
        step = Step([], decodes, self.context, [], [one.retractions for one in decodes], end_ps)
        self._last = step
        return step
