"""The tasks of a client that fails begin anew on another client, or their requests fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hermes_flow.pools.client import PoolTasks

if TYPE_CHECKING:
    from hermes_flow.machine.coordinator import Coordinator


class LostTasks:
    """Begins lost tasks anew, from the prompt.

    A task that continues from KV of another pool needs that KV again, so its prefill is repeated; only the lost task
    follows from the repetition. ``retried`` counts, by request, the tasks that began anew.
    """

    def __init__(
        self, coordinator: Coordinator, tasks: Sequence[PoolTasks], receivers: Sequence[Sequence[int]]
    ) -> None:
        """``receivers`` are, by op, the ops to which its KV goes."""
        self._coordinator = coordinator
        self._tasks = tasks
        self._receivers = receivers
        self._again: dict[tuple[int, int], list[int]] = {}  # (op, request) → what follows from its repetition
        self._lost: dict[tuple[int, int], int] = {}  # (op, request) → how often it was lost
        self.retried: dict[int, int] = {}

    def give_up(self, op: int, request: int, now_ns: int, reason: str) -> None:
        """Let the request of a lost task fail."""
        self._coordinator.give_up(request, now_ns, reason)

    def retry(self, op: int, request: int, now_ns: int, most: int) -> bool:
        """Begin a lost task anew, and first the prefill whose KV it needs; return False after ``most`` times."""
        coordinator = self._coordinator
        if request in coordinator.failures:
            return True
        lost = self._lost[op, request] = self._lost.get((op, request), 0) + 1
        if lost > most:
            return False
        self.retried[request] = self.retried.get(request, 0) + 1
        source = coordinator.transfers.kv_source[op]
        self._reset(op, request, now_ns)
        if source is None:
            self._take_back_receivers(op, request, now_ns)
            coordinator.restart(op, request, now_ns)
        elif (
            coordinator.ready_ns[op][request] >= 0
        ):  # else its prefill is not over, and will send all KV anew
            following = self._again.get((source, request))
            if following is not None:
                if op not in following:
                    following.append(op)
                return True
            self._again[source, request] = [op]
            self._reset(source, request, now_ns)
            coordinator.restart(source, request, now_ns)
        return True

    def following(self, ops: list[int], done: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """Return the callback for the end of tasks of a pool that serves ``ops``; lost tasks follow repetitions."""
        coordinator, requests = self._coordinator, self._coordinator.requests

        def finished(task: int, now_ns: int) -> None:
            place, request = divmod(task, requests)
            following = self._again.pop((ops[place], request), None) if self._again else None
            if following is None:
                done(task, now_ns)
                return
            for op in following:
                coordinator.ready_ns[op][request] = now_ns
                coordinator.restart(op, request, now_ns)

        return finished

    def _take_back_receivers(self, op: int, request: int, now_ns: int) -> None:
        """Take tasks back that wait for KV of which the first layers have left a lost prefill."""
        coordinator = self._coordinator
        for later in self._receivers[op]:
            if coordinator.client[later][request] >= 0:
                self._reset(later, request, now_ns)

    def _reset(self, op: int, request: int, now_ns: int) -> None:
        """Take a task back from the client that waits for its KV, if one does, and forget what was done for it."""
        coordinator = self._coordinator
        if coordinator.client[op][request] >= 0:
            coordinator.take_back(op, request, now_ns)
        coordinator.transfers.release_sender(op, request, now_ns)
        coordinator.transfers.forget_kv(op, request, now_ns)
        pool = coordinator.pool_of(op)
        fleet = coordinator.pools[pool].fleet
        if fleet is not None:
            fleet.drop_held(request, op)  # it waits until its KV is there anew
        coordinator.client[op][request] = -1
        self._tasks[pool].reset(coordinator.pools[pool].offsets[op] + request)
        coordinator.transfers.again(op, request)
