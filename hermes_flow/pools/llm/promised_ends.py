"""Delivers the answers of an LLM client that knows before which instants no task comes.

Where the tasks of a client are known before they come, though not when exactly, nothing changes what happens until
the next of them can be seen. So the client is advanced up to there as each task comes, and its ends are known before
their instants. It need not be advanced at each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from hermes_flow.errors import InternalError
from hermes_flow.pools.llm.earliest_end import EarliestEnd
from hermes_flow.pools.outbox import due
from hermes_flow.program.units import NEVER, PS_PER_NS


class PromisedEnds(EarliestEnd):
    """The resource that delivers the answers of one client whose tasks come no earlier than promised."""

    __slots__ = ("_advanced_ps", "_coming", "_take", "_until_ps")

    def __init__(self, ends: EarliestEnd, coming_ps: Iterable[int]) -> None:
        """Stand in for ``ends``, before the first task comes.

        The scheduler sees each task no earlier than at one of ``coming_ps``, which are in order of time.
        """
        super().__init__(ends._client, ends._steps, ends._done)
        self._coming: Iterator[int] = iter(coming_ps)
        self._until_ps = next(self._coming, NEVER)  # before which the scheduler sees no further task
        self._advanced_ps = 0
        self._take: Callable[[int, int], None] | None = None

    def hand_on(self, take: Callable[[int, int], None]) -> None:
        """Call ``take(task, end_ns)`` as soon as the end of an answer is known, and nothing at that instant."""
        self._take = take

    def submitted(self, task: int, now_ps: int) -> int:
        """Note a task that comes at ``now_ps``; return the instant before which no answer leaves.

        Raises InternalError where it comes earlier than promised.
        """
        client = self._client
        if client.arriving[-1][0] < self._until_ps:
            raise InternalError("a task came to an LLM client before the instant that was promised to it")
        waited = client.tasks.waited
        if not waited or waited[task]:
            self._in_hand += 1
        self._until_ps = until_ps = next(self._coming, NEVER)
        if until_ps < now_ps:
            until_ps = now_ps
        client.advance(until_ps)
        self._advanced_ps = until_ps
        ends = client.outbox.ends
        if ends and self._take is not None:
            self._hand_on_all(self._take)
        bound_ps = ends[0][0] if ends else self._bound_ps(now_ps)
        self._next_ns = bound_ps // PS_PER_NS
        return self._next_ns

    def fire(self, now_ns: int) -> int:
        """Deliver the answers that leave within this nanosecond; return the next instant at which one may leave."""
        if now_ns < self._next_ns:  # a task that came has made the ends later that were to come
            return self._next_ns
        client = self._client
        self._next_ns = NEVER
        over_ps = (now_ns + 1) * PS_PER_NS
        if self._advanced_ps < over_ps:
            client.advance_to_end(now_ns)
        ends = client.outbox.ends
        if ends and self._take is not None:
            self._hand_on_all(self._take)
        elif ends and ends[0][0] < over_ps:
            for task in due(ends, now_ns):
                self._in_hand -= 1
                self._done(task, now_ns)
        bound_ps = ends[0][0] if ends else self._bound_ps(now_ns * PS_PER_NS)
        if bound_ps < NEVER:
            bound_ns = bound_ps // PS_PER_NS
            if bound_ns <= now_ns:
                bound_ns = now_ns + 1
            if bound_ns < self._next_ns:
                self._next_ns = bound_ns
        return self._next_ns

    def _hand_on_all(self, take: Callable[[int, int], None]) -> None:
        """Hand on all answers whose ends are known."""
        for end_ps, task in self._client.outbox.ends:
            self._in_hand -= 1
            take(task, end_ps // PS_PER_NS)
        self._client.outbox.ends.clear()
