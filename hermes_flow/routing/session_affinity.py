"""The policy ``session_affinity`` keeps a session on the client where it began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hermes_flow.program.routing import Choose, Need, RoutedPool, RoutingPolicy
from hermes_flow.routing.policy import needs_of, routing_policies, start
from hermes_flow.routing.scoring import Scorer


@routing_policies.register("session_affinity")
@dataclass(frozen=True, slots=True)
class SessionAffinity:
    """Sends a session's first task by the policy ``first``, and all later ones to the same client.

    A request without a session is a session of its own: the turns of an agent stay on one client. A session whose
    client has stopped or failed begins anew where ``first`` sends its next task.
    """

    remembers: ClassVar[bool] = True
    first: dict[str, Any] | str = "least_requests"

    def __post_init__(self) -> None:
        self._policy()

    @property
    def oracle(self) -> bool:
        """Whether the policy ``first`` is an oracle."""
        return self._policy().oracle

    @property
    def needs(self) -> frozenset[Need]:
        """The needs of ``first``."""
        return needs_of(self._policy())

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score the session's client 0 and the others 1; all 0 for a new session."""
        return _Homes(pool)

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client on which a session began."""
        first = start(self._policy(), pool)
        homes = _Homes(pool)

        def choose(task: int, now_ns: int) -> int:
            home = homes.of(task)
            if home is None:
                home = first(task, now_ns)
                homes.routed(task, home)
            return home

        return choose

    def _policy(self) -> RoutingPolicy:
        return routing_policies.parse(self.first, "first")


class _Homes:
    """Which client each session is on."""

    def __init__(self, pool: RoutedPool) -> None:
        self._session = pool.facts.session
        self._request = pool.facts.request
        self._clients = len(pool.clients)
        homes: dict[int, int] = pool.remembered("session_affinity", dict)
        self._home = homes  # session → number of its client
        self._numbers = pool.numbers
        self._place = None if pool.numbers is None else {number: at for at, number in enumerate(pool.numbers)}
        if self._place is not None:
            for session in [session for session, number in homes.items() if number not in self._place]:
                del homes[session]

    def of(self, task: int) -> int | None:
        """Return the client that the task's session is on, if it has one."""
        home = self._home.get(self._key(task))
        return home if home is None or self._place is None else self._place[home]

    def scores(self, task: int, now_ns: int) -> Sequence[float]:
        """Return 0 for the session's client and 1 for the others."""
        home = self.of(task)
        return [0 if home is None or client == home else 1 for client in range(self._clients)]

    def routed(self, task: int, client: int) -> None:
        """The task's session is on that client from now on."""
        self._home[self._key(task)] = client if self._numbers is None else self._numbers[client]

    def _key(self, task: int) -> int:
        """Return the session's number, or a negative one for the request itself."""
        session = self._session(task)
        return session if session >= 0 else -1 - self._request(task)
