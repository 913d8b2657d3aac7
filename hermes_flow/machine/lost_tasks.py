"""The tasks of a client that fails begin anew on another client, go on there, or their requests fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hermes_flow.machine.carried_kv import CarriedKV, Send
from hermes_flow.machine.client_slot import ClientSlot
from hermes_flow.machine.kept_tiers import KeptTiers
from hermes_flow.pools.progress import NOTHING, Progress
from hermes_flow.pools.tasks import PoolTasks

if TYPE_CHECKING:
    from hermes_flow.machine.coordinator import Coordinator


class LostTasks:
    """Begins lost tasks anew, from the prompt, or lets them go on from the tokens that they have written.

    A task that continues from KV of another pool needs that KV again, so its prefill is repeated; only the lost task
    follows from the repetition. ``retried`` counts, by request, the tasks that began anew or went on elsewhere, and
    ``migrated`` the latter alone; ``carried`` has what KV of them has arrived elsewhere;
    ``lost_tokens`` and ``lost_ns`` are the tokens and the time that were spent on them in vain, ``lost_answers`` the
    tokens of answers among them.
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
        self.migrated: dict[int, int] = {}
        self.carried: CarriedKV | None = None
        self.kept: KeptTiers | None = None
        self.lost_tokens: dict[int, int] = {}
        self.lost_answers: dict[int, int] = {}
        self.lost_ns: dict[int, int] = {}

    def connect(self, send: Send) -> None:
        """Set what moves KV between clients."""
        for mover in (self.carried, self.kept):
            if mover is not None:
                mover.send = send

    def give_up(self, op: int, request: int, now_ns: int, reason: str) -> None:
        """Let the request of a lost task fail."""
        tasks, task = self._tasks[self._coordinator.placement.pool_of(op)], self._task(op, request)
        tasks.cut_short(task, self._progress(op, request), now_ns)
        self._coordinator.failures.give_up(request, now_ns, reason)

    def retry(
        self, op: int, request: int, now_ns: int, most: int, going_on: dict[int, int] | None = None
    ) -> bool:
        """Begin a lost task anew, and first the prefill whose KV it needs; return False after ``most`` times.

        With ``going_on``, that of the slots of its pool, a task that has written tokens goes on from them.
        """
        coordinator = self._coordinator
        if request in coordinator.failures.reasons:
            return True
        lost = self._lost[op, request] = self._lost.get((op, request), 0) + 1
        if lost > most:
            return False
        self.retried[request] = self.retried.get(request, 0) + 1
        source = coordinator.transfers.kv_source[op]
        failed = self._failed(op, request)
        if self.kept is not None:
            self.kept.forget(op, request)
        if going_on is not None:
            done = self._progress(op, request)
            if self._task(op, request) in going_on:  # it has not come to its client yet
                tasks, task = self._tasks[coordinator.placement.pool_of(op)], self._task(op, request)
                done = Progress(0, tasks.answered(task), going_on[task])
            on_its_way = source is not None and coordinator.transfers.delivered_ns[op][request] < 0
            if done.answer and not on_its_way:
                self._go_on(op, request, done, going_on, now_ns)
                return True
        self._reset(op, request, now_ns)
        if source is None:
            self._take_back_receivers(op, request, now_ns)
            if not self._brings(op, request, failed, now_ns):
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

    def forget(self, request: int) -> None:
        """Forget the repetitions of a request that is taken back, and what it would go on from."""
        coordinator = self._coordinator
        for op in range(len(coordinator.client)):
            task = self._task(op, request)
            for slot in coordinator.pools[coordinator.placement.pool_of(op)].clients:
                if isinstance(slot, ClientSlot):
                    slot.going_on.pop(task, None)
            if self.kept is not None:
                self.kept.forget(op, request)
            if self.carried is not None:
                self.carried.take(op, request)
        for repeated in [repeated for repeated in self._again if repeated[1] == request]:
            del self._again[repeated]

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

    def _go_on(self, op: int, request: int, done: Progress, going_on: dict[int, int], now_ns: int) -> None:
        """Let a lost task go on from its answer so far on another client, which computes the KV of it anew."""
        coordinator = self._coordinator
        tasks, task = self._tasks[coordinator.placement.pool_of(op)], self._task(op, request)
        self.migrated[request] = self.migrated.get(request, 0) + 1
        failed = self._failed(op, request)
        found = None if self.carried is None else self.carried.take(op, request)
        prompt, answer, _ = tasks.spent(task, done, now_ns)
        again = prompt + answer - done.answer - (0 if found is None else found[1])
        self._note(request, max(0, again), 0, 0)
        tasks.go_on(task, done.answer)
        going_on[task] = done.last_ps
        coordinator.going_on.add((op, request))
        coordinator.client[op][request] = -1
        if found is not None:
            tasks.carry_over(task, found[1])
            coordinator.placement.place_on(found[0], op, request, now_ns)
        elif coordinator.transfers.kv_source[op] is None and self._brings(op, request, failed, now_ns):
            return
        coordinator.restart(op, request, now_ns)

    def _task(self, op: int, request: int) -> int:
        return self._coordinator.pools[self._coordinator.placement.pool_of(op)].offsets[op] + request

    def _progress(self, op: int, request: int) -> Progress:
        """Return how far a task was on the client that has failed with it; nothing where that client goes on."""
        slot = self._failed(op, request)
        return NOTHING if slot is None else slot.progress(self._task(op, request))

    def _failed(self, op: int, request: int) -> ClientSlot | None:
        """Return the place of a task's client that has failed; None where it goes on."""
        pool = self._coordinator.pools[self._coordinator.placement.pool_of(op)]
        chosen = self._coordinator.client[op][request]
        slot = pool.clients[chosen] if chosen >= 0 else None
        return slot if isinstance(slot, ClientSlot) and not slot.running else None

    def _brings(self, op: int, request: int, failed: ClientSlot | None, now_ns: int) -> bool:
        """Let blocks of a lost task come from the tiers of its client; return whether it waits for any."""
        return failed is not None and self.kept is not None and self.kept.bring(op, request, failed, now_ns)

    def _note(self, request: int, prompt: int, answer: int, spent_ns: int) -> None:
        self.lost_tokens[request] = self.lost_tokens.get(request, 0) + prompt + answer
        self.lost_answers[request] = self.lost_answers.get(request, 0) + answer
        self.lost_ns[request] = self.lost_ns.get(request, 0) + spent_ns

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
            tasks, task = self._tasks[coordinator.placement.pool_of(op)], self._task(op, request)
            self._note(request, *tasks.spent(task, self._progress(op, request), now_ns))
            coordinator.placement.take_back(op, request, now_ns)
        coordinator.transfers.release_sender(op, request, now_ns)
        coordinator.transfers.forget_kv(op, request, now_ns)
        pool = coordinator.placement.pool_of(op)
        fleet = coordinator.pools[pool].fleet
        if fleet is not None:
            fleet.drop_held(request, op)  # it waits until its KV is there anew
        coordinator.client[op][request] = -1
        coordinator.going_on.discard((op, request))
        self._tasks[pool].reset(coordinator.pools[pool].offsets[op] + request)
        coordinator.transfers.again(op, request)
