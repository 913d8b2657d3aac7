"""Counts, as requests end, how many of them kept the limits of the SLO: for policies that scale by it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.program import Program
from hermes_flow.program.units import NS_PER_S


class Attainment:
    """The requests that have ended, each with whether it kept the limits on TTFT, TPOT and E2E.

    ``arrival_ns`` may be filled as requests arrive. A request that failed did not keep them.
    """

    def __init__(
        self,
        program: Program,
        coordinator: Coordinator,
        tasks: Sequence[PoolTasks],
        arrival_ns: Sequence[int],
    ) -> None:
        self._program = program
        self._coordinator = coordinator
        self._tasks = tasks
        self._arrival_ns = arrival_ns
        self._limits = program.slo.request_limits()
        self._ended: deque[tuple[int, bool]] = deque()
        self._kept = 0

    def finished(self, request: int, now_ns: int, back_ns: int) -> None:
        """Take note of a request that is complete; its tokens take ``back_ns`` to its user."""
        values = self._values(request, now_ns, back_ns)
        self._note(now_ns, all(value <= self._limits[name] for name, value in values))

    def failed(self, now_ns: int) -> None:
        """Take note of a request that failed."""
        self._note(now_ns, False)

    def since(self, instant_ns: int) -> tuple[int, int]:
        """Return the requests that ended after an instant, and how many kept the limits; instants never go back."""
        ended = self._ended
        while ended and ended[0][0] <= instant_ns:
            self._kept -= ended.popleft()[1]
        return len(ended), self._kept

    def _note(self, now_ns: int, kept: bool) -> None:
        self._ended.append((now_ns, kept))
        self._kept += kept

    def _values(self, request: int, now_ns: int, back_ns: int) -> list[tuple[str, float]]:
        """Return the latencies of a request that are limited, in seconds."""
        arrival_ns = self._arrival_ns[request] - back_ns
        values = {"e2e": (now_ns - arrival_ns) / NS_PER_S}
        answer = self._answer(request)
        if answer is not None:
            first_ns, last_ns, tokens = answer
            values["ttft"] = (first_ns - arrival_ns) / NS_PER_S
            if tokens > 1:
                values["tpot"] = (last_ns - first_ns) / (tokens - 1) / NS_PER_S
        return [(name, value) for name, value in values.items() if name in self._limits]

    def _answer(self, request: int) -> tuple[int, int, int] | None:
        """Return when the answer that the user reads got its first and its last token, and how many it has."""
        ops, client = self._program.ops, self._coordinator.client
        for number in reversed(self._program.answers):
            op, work = ops[number], ops[number].llm
            assert work is not None
            tokens = int(work.output[request])
            if client[number][request] >= 0:
                return (*self._answer_ns(number, request), tokens)
            source = -1 if op.kv is None else op.kv.source
            if source >= 0 and client[source][request] >= 0:  # the prefill's token was the only one
                first_ns, _ = self._answer_ns(source, request)
                return first_ns, first_ns, 1
        return None

    def _answer_ns(self, op: int, request: int) -> tuple[int, int]:
        pool = self._program.ops[op].pool
        return self._tasks[pool].answer_ns(self._coordinator.pools[pool].offsets[op] + request)
