"""Requests that go no further, because a client refuses them or nobody waits, and those that begin anew."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.machine.placement import Placement
from hermes_flow.machine.transfers import Transfers
from hermes_flow.recording.recording import ENDED, FAILED


class FailedRequests:
    """The requests that have failed, and what happens to their tasks.

    ``reasons`` has the reason by request, ``statuses`` how it ended where it has not simply failed, and
    ``given_up_ns`` when all of its tasks were taken back. ``on_fail(request, now_ns)`` is called as a request fails,
    and returns those that fail with it.
    """

    def __init__(self, requests: int, placement: Placement, transfers: Transfers) -> None:
        self._requests = requests
        self._placement = placement
        self._transfers = transfers
        self.reasons: dict[int, str] = {}
        self.statuses: dict[int, int] = {}
        self.given_up_ns: dict[int, int] = {}
        self.on_fail: Callable[[int, int], list[int]] = lambda request, now_ns: []

    def refused(self) -> Callable[[int, int, str], None]:
        """Return the callback ``(task, now_ns, reason)`` for a task that a client refuses."""
        requests = self._requests

        def fail(task: int, now_ns: int, reason: str) -> None:
            self._fail(task % requests, now_ns, reason)

        return fail

    def _fail(self, request: int, now_ns: int, reason: str) -> None:
        """A request goes no further: of its other tasks those that were routed end, and no more are begun."""
        if request not in self.reasons:
            self._note(request, reason, FAILED)
            for op, clients in enumerate(self._placement.client):
                if clients[request] < 0:
                    self._transfers.skipped(op, request, now_ns)
            self._tell(request, now_ns, FAILED)

    def give_up(self, request: int, now_ns: int, reason: str, status: int = FAILED) -> None:
        """Let a request go no further, and take all of its tasks back from their clients, whatever they do.

        Transfers under way go on to their ends, and what they bring is dropped. Nothing happens if the request has
        failed before; the caller knows that it has not completed (``Coordinator.on_finish``), and every pool must
        notify. ``status`` is that of recording/recording.py.
        """
        if request in self.reasons:
            return
        self.given_up_ns[request] = now_ns
        self._drop_held(request)
        self._transfers.drop(request)
        self._note(request, reason, status)
        for op, chosen in enumerate(self._clients_of(request)):
            self._take_back(op, chosen, request, now_ns)
        self._tell(request, now_ns, status)

    def recall(self, request: int, now_ns: int) -> None:
        """Take all tasks of a request back from their clients; it has not failed, and may begin anew.

        ``Coordinator.forget`` follows.
        """
        self._drop_held(request)
        for op, chosen in enumerate(self._clients_of(request)):
            self._take_back(op, chosen, request, now_ns)
            self._transfers.again(op, request)

    def _clients_of(self, request: int) -> list[int]:
        return [clients[request] for clients in self._placement.client]

    def _drop_held(self, request: int) -> None:
        for pool in self._placement.pools:
            if pool.fleet is not None:
                pool.fleet.drop_held(request)

    def _take_back(self, op: int, chosen: int, request: int, now_ns: int) -> None:
        self._transfers.release_sender(op, request, now_ns)
        if chosen >= 0:
            self._placement.take_back(op, request, now_ns)
            self._transfers.forget_kv(op, request, now_ns)

    def _note(self, request: int, reason: str, status: int) -> None:
        self.reasons[request] = reason
        if status != FAILED:
            self.statuses[request] = status

    def _tell(self, request: int, now_ns: int, status: int) -> None:
        """Let those fail that fail with a request."""
        turn = "a rejected turn" if status == FAILED else f"a turn that {ENDED[status]}"
        for later in self.on_fail(request, now_ns):
            self.reasons[later] = f"after {turn} of the same session"
