"""Finds an instant before which no forward pass leaves an LLM client, as ``EarliestEnd`` does where some decode.

Steps follow each other, and a pass is over with the step that completes its prompt. So what is planned leaves first,
then whoever came first, and a task that comes makes no other one earlier. It may make others later: then the client
need not be advanced at the instant that was found before it came.
"""

from __future__ import annotations

from hermes_flow.pools.llm.earliest_end import EarliestEnd
from hermes_flow.pools.outbox import due
from hermes_flow.program.units import NEVER, PS_PER_NS


class ForwardEnds(EarliestEnd):
    """The resource that delivers the forward passes of one client; see ``EarliestEnd``."""

    __slots__ = ()

    def known(self) -> None:
        """Take note of tasks that are known to come later."""
        self._next_ns = min(self._next_ns, self._bound_ps(0) // PS_PER_NS)

    def submitted(self, task: int, now_ps: int) -> int:
        """Note a task that comes at ``now_ps``; return the instant before which no pass leaves."""
        client = self._client
        waited, arriving = client.tasks.waited, client.arriving
        if self._next_ns >= NEVER and len(arriving) == 1 and not waited:  # what _bound_ps finds for it alone
            at, last = arriving[0]
            if last == task:  # else it was in the queue before it was ready
                if at < client.tail_ps:
                    at = client.tail_ps
                self._unsure = False
                self._next_ns = next_ns = (at + self._pass_ps(task)) // PS_PER_NS
                return next_ns
        if now_ps < self._next_ns * PS_PER_NS:
            self._unsure = True
        if waited and not waited[task]:
            return self._next_ns
        begin = client.tail_ps
        if now_ps > begin:
            begin = now_ps
        if begin < self._next_ns * PS_PER_NS:
            earliest = self._bound_ps(now_ps) // PS_PER_NS
            if earliest < self._next_ns:
                self._next_ns = earliest
        return self._next_ns

    def fire(self, now_ns: int) -> int:
        """Deliver the passes that leave within this nanosecond; return the next instant at which one may leave."""
        client = self._client
        ends = client.outbox.ends
        if self._unsure and not ends:
            bound_ns = self._bound_ps(now_ns * PS_PER_NS) // PS_PER_NS
            if bound_ns > now_ns:
                self._next_ns = bound_ns
                return bound_ns
        self._next_ns = NEVER
        client.advance_to_end(now_ns)
        if ends and ends[0][0] < (now_ns + 1) * PS_PER_NS:
            done, unfinished = self._done, self._unfinished
            for task in [ends.popleft()[1]] if len(ends) == 1 else due(ends, now_ns):
                if unfinished is not None:
                    unfinished.end(self._place, now_ns)
                done(task, now_ns)
        if not (ends or client.arriving or client.waiting or client.batch.prefilling):
            self._unsure = False
            return self._next_ns
        bound_ns = self._bound_ps(now_ns * PS_PER_NS) // PS_PER_NS
        if bound_ns <= now_ns:
            bound_ns = now_ns + 1
        if bound_ns < self._next_ns:
            self._next_ns = bound_ns
        return self._next_ns

    def _bound_ps(self, now_ps: int) -> int:
        """Return an instant before which no pass leaves that has not been delivered.

        The first in hand begins when the step in progress is over. Whoever is seen later is not in its step.
        """
        self._unsure = False
        client = self._client
        ends = client.outbox.ends
        if ends:
            return ends[0][0]
        waited, tail = client.tasks.waited, client.tail_ps
        first = end = -1  # of the step of the first in hand
        if client.batch.prefilling:
            return tail + self._steps.any_ps
        for task in client.waiting:
            if not waited or waited[task]:
                return tail + self._answer_ps(task)
            if end < 0:
                first, end = tail, tail + self._answer_ps(task)
        for at, task in client.arriving:
            if task < 0:
                continue
            begin = at if at > tail else tail
            if end < 0:
                first, end = begin, begin + self._pass_ps(task)
                if not waited or waited[task]:
                    return end
            elif not waited or waited[task]:
                if begin > first and begin < end and not client._leaving:  # else one that leaves makes room
                    begin = end
                return begin + self._pass_ps(task)
        return NEVER * PS_PER_NS

    def _pass_ps(self, task: int) -> int:
        """Return the least time of the pass of a task that has not begun."""
        prompt = self._client.tasks.prompt[task]
        prompt_ps = self._steps.prompt_ps
        return prompt_ps[prompt] if prompt < len(prompt_ps) else self._steps.any_ps
