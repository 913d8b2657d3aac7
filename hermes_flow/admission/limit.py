"""The policy ``limit`` lets requests in by arrival, by priority or by deadline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hermes_flow.admission.gate import Gate
from hermes_flow.admission.registry import admission_policies
from hermes_flow.errors import ConfigError
from hermes_flow.program.requests import Requests
from hermes_flow.program.sorted_requests import SortedRequests


@admission_policies.register("limit")
@dataclass(frozen=True, slots=True)
class Limit(Gate):
    """Lets those in first that came first, that are the most urgent, or that time out first."""

    order: Literal["arrival", "priority", "deadline"] = "arrival"
    """Who is let in first: by ``arrival``, by ``priority`` (the lowest number first), or who times out first."""

    def start(self, requests: Requests) -> WaitingInOrder:
        """Return an empty queue."""
        if self.order == "priority" and requests.priority is None:
            raise ConfigError(
                "order", "no request has a priority; give workload.classes one, or the trace a column"
            )
        if self.order == "deadline" and requests.timeout_ns is None:
            raise ConfigError("order", "no request times out; set workload.timeout_s, or that of a class")
        return WaitingInOrder(self.order, requests)


class WaitingInOrder:
    """The queue of a ``limit``."""

    __slots__ = ("_fixed", "_timeout_ns", "_waiting")

    def __init__(self, order: str, requests: Requests) -> None:
        self._waiting = SortedRequests()
        self._fixed = None
        self._timeout_ns = None
        if order == "priority":
            assert requests.priority is not None
            self._fixed = requests.priority.tolist()
        elif order == "deadline":
            assert requests.timeout_ns is not None
            self._timeout_ns = requests.timeout_ns.tolist()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, request: int, came_ns: int) -> None:
        """Add a request."""
        key = 0.0
        if self._fixed is not None:
            key = self._fixed[request]
        elif self._timeout_ns is not None:
            timeout_ns = self._timeout_ns[request]
            key = came_ns + timeout_ns if timeout_ns >= 0 else float("inf")
        self._waiting.add(request, key)

    def take(self) -> int:
        """Remove and return the first one."""
        return self._waiting.take()[0]

    def last(self) -> int:
        """Return the last one."""
        return self._waiting.last()

    def remove(self, request: int) -> None:
        """Remove a request that nobody waits for any more."""
        self._waiting.remove(request)
