"""When the clients of one pool fail, and for how long they are down: at given times, and at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.program.fleet import Failing, SiteFailing
from hermes_flow.program.units import NEVER
from hermes_flow.workload.streams import stream


class Outages:
    """The failures of a pool's clients to come.

    Random ones of a client follow from a stream of its own: how long it is up, then how long it is down. The time
    that it is up begins when it takes tasks; a client that stops before that time is over does not fail. A site
    fails with all clients there, whatever they do: its random times are the same for every pool.
    """

    def __init__(
        self, failing: Failing, pool: str, seed: int, clients: Sequence[bool], first: int = 0
    ) -> None:
        """``clients`` tells of each client whether it is up at first; ``first`` is its number in the pool."""
        self._failing = failing
        self._site = None if failing.site is None else SiteOutages(failing.site, seed)
        self._given = list(failing.outages)[::-1]  # the next one last
        self._random: dict[int, int] = {}  # client → when it fails
        self._streams: list[np.random.Generator] = []
        if failing.mean_up_ns is not None:
            self._streams = [
                stream(seed, f"failures:{pool}:{first + number}") for number in range(len(clients))
            ]
        for client, is_up in enumerate(clients):
            if is_up:
                self.came_up(client, 0)

    def next_ns(self) -> int:
        """Return when the next client fails, or its notice begins."""
        given = self._given[-1].at_ns - self._failing.notice_ns if self._given else NEVER
        at_ns = max(0, min([given, *self._random.values()]))
        return at_ns if self._site is None else min(at_ns, self._site.at_ns)

    def site_failure(self, now_ns: int) -> int | None:
        """Return until when the site of the clients is down, if it fails now; ``NEVER``: it does not come back."""
        return None if self._site is None else self._site.due(now_ns)

    def due(self, now_ns: int) -> list[tuple[int, int, int | None]]:
        """Return the failures whose notice begins by now: the client, when it fails, for how long (None: ever)."""
        found: list[tuple[int, int, int | None]] = []
        notice_ns = self._failing.notice_ns
        while self._given and self._given[-1].at_ns - notice_ns <= now_ns:
            outage = self._given.pop()
            found.append((outage.client, max(now_ns, outage.at_ns), outage.for_ns))
        for client in [client for client, at in self._random.items() if at <= now_ns]:
            del self._random[client]
            assert self._failing.mean_down_ns is not None
            down_ns = max(1, round(self._streams[client].exponential(self._failing.mean_down_ns)))
            found.append((client, now_ns + notice_ns, down_ns))
        return found

    def came_up(self, client: int, now_ns: int) -> None:
        """Draw when a client that takes tasks from now on fails."""
        if self._failing.mean_up_ns is not None:
            self._random[client] = now_ns + max(
                1, round(self._streams[client].exponential(self._failing.mean_up_ns))
            )

    def stopped(self, client: int) -> None:
        """Forget when a client would have failed that has stopped."""
        self._random.pop(client, None)


class SiteOutages:
    """The failures of one site to come; ``at_ns`` is when it fails next. A failure while it is down adds nothing."""

    def __init__(self, failing: SiteFailing, seed: int) -> None:
        self._failing = failing
        self._given = list(failing.outages)[::-1]  # the next one last
        self._stream = stream(seed, f"failures of site:{failing.name}")
        self._random_ns = NEVER
        self._draw(0)

    @property
    def at_ns(self) -> int:
        """When the site fails next."""
        given_ns = self._given[-1][0] if self._given else NEVER
        return min(given_ns, self._random_ns)

    def due(self, now_ns: int) -> int | None:
        """Return until when the site is down that fails by now; None: it does not fail."""
        until_ns: int | None = None
        while self._given and self._given[-1][0] <= now_ns:
            at_ns, for_ns = self._given.pop()
            until_ns = max(until_ns or 0, NEVER if for_ns is None else at_ns + for_ns)
        if self._random_ns <= now_ns:
            assert self._failing.mean_down_ns is not None
            down_ns = max(1, round(self._stream.exponential(self._failing.mean_down_ns)))
            until_ns = max(until_ns or 0, now_ns + down_ns)
            self._draw(now_ns + down_ns)
        return until_ns

    def _draw(self, from_ns: int) -> None:
        """Draw when the site fails at random, which is up from an instant on."""
        if self._failing.mean_up_ns is not None:
            self._random_ns = from_ns + max(1, round(self._stream.exponential(self._failing.mean_up_ns)))
