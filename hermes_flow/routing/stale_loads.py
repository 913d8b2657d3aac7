"""Loads as routers see them that read metrics periodically: the values of the last scrape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.routing import Choose, Load, LoadKeeper, Routable
from hermes_flow.program.units import NEVER


@dataclass(frozen=True, slots=True)
class SeenLoad:
    """The load of an LLM client at a scrape, with the figures of ``Load``."""

    unfinished: int
    input_tokens: int
    kv_tokens: int
    backlog_tokens: int
    work_left_tokens: int
    finished: int
    finished_tokens: int


_NOTHING = SeenLoad(0, 0, 0, 0, 0, 0, 0)


class Scrape:
    """An engine resource that records the loads of a pool's clients at every multiple of ``period_ns``.

    It sleeps while no client has an unfinished task, and is woken as one comes. Only what somebody asks for is taken
    down, from then on; before the first scrape all loads are 0. At one instant a scrape comes after all arrivals and
    deliveries: a task that is routed then sees the scrape before it.
    """

    fixed: ClassVar[bool] = True
    __slots__ = (
        "_clients",
        "_next_ns",
        "_period_ns",
        "clients",
        "keepers",
        "loads",
        "on_wake",
        "outstanding",
        "queued",
    )

    def __init__(self, clients: Sequence[Routable], period_ns: int) -> None:
        self._clients = clients
        self._period_ns = period_ns
        self._next_ns = NEVER
        self.outstanding: list[int] | None = None
        self.queued: list[int] | None = None
        self.loads: list[SeenLoad] | None = None
        self.keepers: dict[int, LoadKeeper] = {}  # a policy may ask for the loads of a part of the pool only
        self.clients = [ScrapedClient(self, client, index) for index, client in enumerate(clients)]
        self.on_wake: Callable[[], None] = lambda: None

    def waking(self, choose: Choose) -> Choose:
        """Return the same choice, which also wakes the scrape."""

        def choose_and_wake(task: int, now_ns: int) -> int:
            chosen = choose(task, now_ns)
            self.wake(now_ns)
            return chosen

        return choose_and_wake

    def wake(self, now_ns: int) -> None:
        """Scrape from now on, because a task comes to one of the clients."""
        asked = (self.outstanding, self.queued, self.loads)
        if self._next_ns >= NEVER and any(seen is not None for seen in asked):
            self._next_ns = -(-now_ns // self._period_ns) * self._period_ns
            self.on_wake()

    def next_ns(self) -> int:
        """Return the instant of the next scrape, or NEVER."""
        return self._next_ns

    def fire(self, now_ns: int) -> int:
        """Record the loads; stop if no client has unfinished tasks. Return the instant of the next scrape."""
        outstanding = [client.outstanding(now_ns) for client in self._clients]
        if self.outstanding is not None:
            self.outstanding = outstanding
        if self.queued is not None:
            self.queued = [client.queued_tokens(now_ns) for client in self._clients]
        if self.loads is not None:
            for index, client in self.keepers.items():
                self.loads[index] = _seen(client.load(now_ns))
        self._next_ns = now_ns + self._period_ns if any(outstanding) else NEVER
        return self._next_ns

    def settle(self, now_ns: int) -> None:
        """Do nothing: the loads change only at scrapes."""


class ScrapedClient:
    """A client as a router with periodic scrapes sees it, at any instant.

    What is asked for is known when the function that answers is taken, which policies do before the run.
    """

    __slots__ = ("_client", "_index", "_scrape")

    def __init__(self, scrape: Scrape, client: Routable, index: int) -> None:
        self._scrape = scrape
        self._client = client
        self._index = index

    @property
    def outstanding(self) -> Callable[[int], int]:
        """Number of tasks that were unfinished at the last scrape."""
        if self._scrape.outstanding is None:
            self._scrape.outstanding = [0] * len(self._scrape.clients)
        return self._outstanding

    @property
    def queued_tokens(self) -> Callable[[int], int]:
        """The known remaining work at the last scrape."""
        if self._scrape.queued is None:
            self._scrape.queued = [0] * len(self._scrape.clients)
        return self._queued_tokens

    def keep_load(self) -> None:
        """Keep the figures of ``load`` from now on."""
        assert isinstance(self._client, LoadKeeper)
        self._client.keep_load()
        self._scrape.keepers[self._index] = self._client
        if self._scrape.loads is None:
            self._scrape.loads = [_NOTHING] * len(self._scrape.clients)

    def load(self, now_ns: int) -> Load:
        """The load at the last scrape."""
        assert self._scrape.loads is not None
        return self._scrape.loads[self._index]

    def _outstanding(self, now_ns: int) -> int:
        assert self._scrape.outstanding is not None
        return self._scrape.outstanding[self._index]

    def _queued_tokens(self, now_ns: int) -> int:
        assert self._scrape.queued is not None
        return self._scrape.queued[self._index]


def _seen(load: Load) -> SeenLoad:
    return SeenLoad(
        unfinished=load.unfinished,
        input_tokens=load.input_tokens,
        kv_tokens=load.kv_tokens,
        backlog_tokens=load.backlog_tokens,
        work_left_tokens=load.work_left_tokens,
        finished=load.finished,
        finished_tokens=load.finished_tokens,
    )
