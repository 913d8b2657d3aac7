"""SGLang's scheduler on a client that only decodes, and to which the KV of prompts is sent.

source: SGLang, python/sglang/srt/disaggregation/decode.py (2026). A request goes through three queues: it asks for
memory (prealloc queue), its KV is on the way (transfer queue), and it waits for a seat (waiting queue). Memory for
its prompt is given only if so many tokens stay free for every request on the client (num_reserved_decode_tokens), and
if the largest running request could still write its whole answer with the memory of the others. A request that is
retracted keeps its KV in host memory and asks before all others; the copies take no time here.
"""

from __future__ import annotations

from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.llm.decided_steps import Step
from hermes_flow.pools.llm.sglang.admission import MOST_RESERVED
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.program.pools import SGLangSettings

_FEW = 32  # running requests up to which there are rows for twice as many more that do not run


class DecodeScheduler(SGLangScheduler):
    """``asking`` have no memory, ``coming`` have it and wait for their KV, ``waiting`` wait for a seat.

    ``granted`` and ``joined`` are those that got memory, or their first token, in the last decision.
    """

    __slots__ = ("_here", "_left", "_reserved", "_rows", "asking", "coming", "granted", "joined", "retracted")

    def __init__(self, settings: SGLangSettings, pool: TokenPool, max_running: int, *, overlap: bool) -> None:
        super().__init__(settings, pool, max_running, overlap=overlap)
        self._reserved = settings.reserved_decode_tokens
        self._rows = 3 * max_running if max_running <= _FEW else max_running  # that nobody has
        self.asking: list[Sequence] = []
        self.coming: list[Sequence] = []
        self.retracted: list[Sequence] = []
        self.granted: list[Sequence] = []
        self.joined: list[Sequence] = []
        self._left = False  # somebody who was over has left in the last decision
        self._here: set[Sequence] = set()  # of those that are coming, whose KV is here

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""
        return not (self.asking or self.coming or self.retracted) and super().idle

    def enqueue(self, sequence: Sequence) -> None:
        """Take in a request that asks for the memory of its prompt."""
        self.asking.append(sequence)

    def arrived(self, sequence: Sequence) -> None:
        """Take note that the KV of a request is here."""
        self._here.add(sequence)

    def ended(self, sequence: Sequence) -> None:
        """Free the memory and the row of a sequence whose last token is delivered."""
        super().ended(sequence)
        self._rows += 1

    def withdraw(self, sequence: Sequence) -> bool:
        """Remove a request that does not run; one that runs is made to end with its next token."""
        for queue in (self.asking, self.retracted):
            if sequence in queue:
                queue.remove(sequence)
                return True
        for queue in (self.coming, self.waiting):
            if sequence in queue:
                queue.remove(sequence)
                self._here.discard(sequence)
                self.pool.give_back(sequence)
                self._rows += 1
                return True
        return super().withdraw(sequence)

    def fresh(self) -> int:
        """Return the number of requests that have not begun to decode."""
        return len(self.asking) + len(self.coming) + sum([not one.out for one in self.waiting])

    def missing_tokens(self) -> int:
        """Return one for each request that has not begun: its prompt is computed elsewhere."""
        return self.fresh()

    def decide(self) -> Step | None:
        """Return the next step and take its memory; None if nothing can run now."""
        self.granted, self.joined = [], []
        self._resume()
        if not self.retracted:
            self._give_memory()
            self.waiting += [one for one in self.coming if one in self._here]
            self.coming = [one for one in self.coming if one not in self._here]
            self._here.clear()
        self._join()
        kept = [one for one in self.running if not one.finished]
        self._left = len(kept) < len(self.running)
        self.running = kept
        step = self._last = self._decode_step()
        if self.pool.free < 0:
            raise HermesFlowError(
                "by the rules of SGLang's scheduler a decode client would abort a request: it runs alone, and others "
                f"whose KV has come hold the memory for its answer; expected more {self._settings.key}.kv_blocks or "
                "num_reserved_decode_tokens"
            )
        self.pool.note_peak()
        if step is not None:
            step.retractions = [one.retractions for one in step.decodes]
        return step

    def rest(self) -> bool:
        """Return whether to decide again at once: somebody has left after the seats were given."""
        super().rest()
        return self._left

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps of the whole batch; see ``StepScheduler``."""
        if self.asking or self.retracted or self.waiting or self._here:
            return 0
        return super().equal_decodes()

    def admits(self) -> bool:
        """Return whether the next decision tries a request that arrives now: it may get memory."""
        return True

    def _put_back(self, sequence: Sequence) -> None:
        self.retracted.append(sequence)
        self._rows += 1

    def _resume(self) -> None:
        """Give memory to requests that were retracted, in order, while there is room for further tokens of each."""
        room, resumed = self._room_for(0, 0, 0), []
        for sequence in self.retracted:
            need = _filled(sequence) + self._reserved
            if self._rows <= 0 or need > room:
                break
            self._take(sequence)
            room -= need
            resumed.append(sequence)
        del self.retracted[: len(resumed)]
        self.waiting += resumed

    def _give_memory(self) -> None:
        """Give memory to requests that ask, in order, while there is room for further tokens of each."""
        held = sum([one.length for one in self.running])
        largest = max([min(one.limit, MOST_RESERVED) + one.prompt for one in self.running], default=held)
        room = self._room_for(0, largest, held)
        for sequence in self.asking:
            need = _filled(sequence) + self._reserved
            alone = sequence.prompt + min(sequence.limit, MOST_RESERVED) - held
            if self._rows <= 0 or max(need, alone) > room:
                break
            self._take(sequence)
            self.granted.append(sequence)
            room = self._room_for(len(self.granted), largest, held)
        del self.asking[: len(self.granted)]
        self.coming += self.granted

    def _room_for(self, more: int, largest: int, held: int) -> int:
        """Return the free tokens that may be given away, with ``more`` requests that have got memory just now."""
        active = len(self.running) + len(self.coming) + len(self.waiting) + more
        return self.pool.free - max(self._reserved * active, largest - held)

    def _take(self, sequence: Sequence) -> None:
        self.pool.grow(sequence, _filled(sequence))
        self._rows -= 1

    def _join(self) -> None:
        """Let those whose KV is here run, while seats last; a new one has its first token."""
        joining = self.waiting[: max(0, self.max_running - len(self.running))]
        del self.waiting[: len(joining)]
        for sequence in joining:
            if not sequence.out:
                sequence.out = 1
                self.joined.append(sequence)
        self.running += joining


def _filled(sequence: Sequence) -> int:
    """Return the tokens whose KV a request brings."""
    return sequence.prompt + max(sequence.out - 1, 0)
