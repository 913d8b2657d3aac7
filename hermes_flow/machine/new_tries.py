"""Takes a request back as its user gives up, and begins it anew as the user tries again.

A new try has the numbers of the one before it. So it waits until no client has work left of that one: an engine
finishes the step that it has planned, and a pass goes to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hermes_flow.pools.progress import NOTHING, Progress
from hermes_flow.pools.tasks import PoolTasks

if TYPE_CHECKING:
    from hermes_flow.machine.coordinator import Coordinator
    from hermes_flow.machine.lost_tasks import LostTasks


class NewTries:
    """The tries of requests on which their users gave up, and that may begin anew.

    ``lost_tokens`` and ``lost_ns`` are the tokens and the time that were spent on tries before the last one, and
    ``lost_answers`` the tokens of answers among them.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        tasks: Sequence[PoolTasks],
        lost: LostTasks | None,
    ) -> None:
        """``tasks``, by pool, may be filled later; ``lost`` is what repeats tasks of clients that fail."""
        self._coordinator = coordinator
        self._tasks = tasks
        self._lost = lost
        self._since_ns: dict[int, int] = {}  # request that was taken back → when
        self.lost_tokens: dict[int, int] = {}
        self.lost_answers: dict[int, int] = {}
        self.lost_ns: dict[int, int] = {}

    def take_back(self, request: int, now_ns: int) -> None:
        """Take all tasks of a request back from their clients."""
        self._since_ns.setdefault(request, now_ns)
        if self._lost is not None:
            self._lost.forget(request)
        self._coordinator.failures.recall(request, now_ns)

    def was_taken_back(self, request: int) -> bool:
        """Return whether a request was taken back and has not begun anew."""
        return request in self._since_ns

    def has_failed(self, request: int) -> bool:
        """Return whether a request has ended without an answer."""
        return request in self._coordinator.failures.reasons

    def free_ns(self, request: int, now_ns: int) -> int:
        """Return when no client may have work left of a request that was taken back; ``now_ns`` if none has."""
        at = now_ns
        for op, clients in enumerate(self._coordinator.client):
            chosen = clients[request]
            if chosen < 0:
                continue
            pool = self._coordinator.pools[self._coordinator.placement.pool_of(op)]
            left_ns = pool.clients[chosen].leaves_ns(pool.offsets[op] + request, now_ns)
            at = max(at, left_ns)
        return at

    def begin_anew(self, request: int) -> None:
        """Forget what was done for a request, and count it as lost."""
        coordinator = self._coordinator
        since_ns = self._since_ns.pop(request)
        tokens = answers = spent_ns = 0
        for op, clients in enumerate(coordinator.client):
            number = coordinator.placement.pool_of(op)
            tasks, task = self._tasks[number], coordinator.pools[number].offsets[op] + request
            # A task that was lost with its client, and would have gone on, may have been on none.
            done = NOTHING if clients[request] >= 0 else Progress(0, tasks.answered(task), -1)
            prompt, answer, own_ns = tasks.spent(task, done, since_ns)
            tokens, answers, spent_ns = tokens + prompt + answer, answers + answer, spent_ns + own_ns
            tasks.reset(task)
        coordinator.forget(request)
        self.lost_tokens[request] = self.lost_tokens.get(request, 0) + tokens
        self.lost_answers[request] = self.lost_answers.get(request, 0) + answers
        self.lost_ns[request] = self.lost_ns.get(request, 0) + spent_ns
