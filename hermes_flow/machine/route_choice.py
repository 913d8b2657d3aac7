"""Chooses the outcome of a route by the loads of its pools, once for each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hermes_flow.machine.engine import Engine
from hermes_flow.program.ops import LoadRoute

Load = Callable[[int], int]  # now_ns → what a client has in hand


class LoadChoice:
    """One route's outcomes by request. The loads of its pools are set before the run."""

    __slots__ = ("_chosen", "_engine", "_loads", "_route")

    def __init__(self, route: LoadRoute, requests: int, engine: Engine) -> None:
        self._route = route
        self._engine = engine
        self._chosen = [-1] * requests
        self._loads: list[Sequence[Load]] = []

    def attach(self, loads: list[Sequence[Load]]) -> None:
        """Set the loads of the clients of each outcome's pool, the last outcome's left out."""
        self._loads = loads

    def forget(self, request: int) -> None:
        """Let the outcome of a request that begins anew be decided again."""
        self._chosen[request] = -1

    def takers(self, taken: list[bool] | None, outcome: int) -> TakenByLoad:
        """Return which requests take an op of one outcome, of those in ``taken`` (None: all)."""
        return TakenByLoad(taken, self, outcome)

    def outcome(self, request: int) -> int:
        """Return the request's outcome, decided by the loads at the first call."""
        chosen = self._chosen[request]
        if chosen < 0:
            now_ns = self._engine.now_ns
            chosen = len(self._route.limits)
            for place, (limit, clients) in enumerate(zip(self._route.limits, self._loads, strict=True)):
                if sum([load(now_ns) for load in clients]) < limit * len(clients):
                    chosen = place
                    break
            self._chosen[request] = chosen
        return chosen


class TakenByLoad:
    """The requests that take an op of one outcome, as booleans; some are not decided yet."""

    __slots__ = ("_choice", "_outcome", "_taken")

    def __init__(self, taken: list[bool] | None, choice: LoadChoice, outcome: int) -> None:
        self._taken = taken
        self._choice = choice
        self._outcome = outcome

    def __getitem__(self, request: int) -> bool:
        if self._taken is not None and not self._taken[request]:
            return False
        return self._choice.outcome(request) == self._outcome
