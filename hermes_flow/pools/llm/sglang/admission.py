"""Admits prompts into a prefill step as SGLang does, within the budgets of the step."""

from __future__ import annotations

from typing import Literal

from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.token_pool import TokenPool

MOST_RESERVED = 4096  # tokens of an answer that are reserved at most

Verdict = Literal["go", "stop", "memory"]


class Admission:
    """The budgets of one prefill step, and the prompts picked for it.

    ``tokens`` and ``chunk`` (None: prompts are not cut) are what is left of the budgets. ``reserved`` is the memory
    that the step and all future tokens of its requests and of the running ones are counted with, ``taken`` what the
    step alone takes.
    """

    __slots__ = ("_pool", "_ratio", "_running", "_states", "chunk", "picked", "reserved", "taken", "tokens")

    def __init__(
        self,
        pool: TokenPool,
        running: list[Sequence],
        ratio: float,
        *,
        max_prefill_tokens: int,
        chunk: int | None,
        mixed: int,
    ) -> None:
        self._pool, self._running, self._ratio = pool, running, ratio
        self.tokens = max_prefill_tokens - mixed
        self.chunk = None if chunk is None else chunk - mixed
        self.taken = mixed
        self.reserved: float = mixed
        for one in running:
            self.reserved += min(one.limit - one.out, MOST_RESERVED) * (1.0 if one.ignore_eos else ratio)
        self.picked: list[tuple[Sequence, int]] = []
        self._states: list[tuple[float, int]] | None = None

    def verdict(self) -> Verdict:
        """Return whether a further prompt may be picked."""
        room = self._pool.room
        if room - self.reserved <= 0 or room - self.taken <= 0:
            return "memory"
        if self.tokens <= 0 or (self.chunk is not None and self.chunk <= 0):
            return "stop"
        return "go"

    def pick(self, sequence: Sequence, part: int, future: int) -> None:
        """Pick ``part`` tokens of a prompt, after which ``future`` tokens of its answer are reserved."""
        size = self._pool.up(part)
        self.reserved += size + self._pool.page + future
        self.taken += size + self._pool.page
        self.tokens -= size
        if self.chunk is not None:
            self.chunk -= size
        self.picked.append((sequence, part))

    def next_chunk(self, missing: int) -> int:
        """Return how much of a prompt that was cut before goes on now."""
        assert self.chunk is not None
        most = min(self.chunk, int(self._pool.room - self.reserved))
        return min(missing, most if most > 0 else self.chunk)

    def part(self, sequence: Sequence, prefix: int, in_host: int = 0) -> int | Verdict:
        """Return how many tokens after a known ``prefix`` can be picked, or the reason why none can.

        Where ``in_host`` of them may be loaded, the caller asks again with ``cut`` when they are.
        """
        if self._pool.tree is not None or not sequence.ignore_eos:
            return self._part_by_reserve(sequence, prefix, in_host)
        return self._part_by_look_ahead(sequence)

    def _part_by_reserve(self, sequence: Sequence, prefix: int, in_host: int) -> int | Verdict:
        pool, left = self._pool, sequence.length - prefix
        need = left + min(sequence.limit - sequence.out, MOST_RESERVED) + pool.page
        if need >= pool.room - self.reserved:
            return "memory"
        if in_host and self.chunk is not None:
            return left
        return self.cut(left - in_host, prefix)

    def cut(self, left: int, prefix: int) -> int | Verdict:
        """Return how many of ``left`` tokens behind a ``prefix`` go into the step, which has memory for them."""
        pool = self._pool
        if self.chunk is None:
            return "stop" if self.picked and pool.up(left) >= self.tokens else left
        if pool.up(left) <= self.chunk:
            return left
        part = pool.down(prefix + pool.down(self.chunk)) - prefix
        return part if part > 0 else "stop"

    def _part_by_look_ahead(self, sequence: Sequence) -> int | Verdict:
        """Answers of known length: simulate how memory frees up as the running ones end, the shortest first."""
        pool, left = self._pool, sequence.length
        room = pool.room
        if pool.up(left) + pool.page > min(room - self.taken, room - self.reserved):
            return "memory"
        states = self._with_state(sequence)
        free = room - self.taken - pool.up(left) - pool.page
        count = len(states)
        for place, (tokens, held) in enumerate(states):
            if free - tokens * (count - place) <= count - place:
                return "memory"
            free += held
        if self.chunk is None or left <= self.chunk:
            return left
        return self.chunk if self.chunk > 0 else "stop"

    def _with_state(self, sequence: Sequence) -> list[tuple[float, int]]:
        """Return (tokens still to come, tokens held) of all, this sequence included, the first to end first.

        A later candidate is put before the first that takes as long, or, as the engine does it, before the last.
        """
        if self._states is None:
            everyone = [sequence, *self._running, *(one for one, _ in self.picked)]
            known = [self._state(one) for one in everyone]
            self._states = sorted([state for state in known if state[0] > 0], key=lambda state: state[0])
            return self._states
        state = self._state(sequence)
        if state[0] > 0:
            later = [place for place, (tokens, _) in enumerate(self._states) if tokens >= state[0]]
            self._states.insert(later[0] if later else max(0, len(self._states) - 1), state)
        return self._states

    def _state(self, sequence: Sequence) -> tuple[float, int]:
        limit = sequence.limit * (1.0 if sequence.ignore_eos else self._ratio)
        return limit - sequence.out, sequence.length
