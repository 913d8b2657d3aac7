"""Loads as routers know them that ask every so often: as they were at the last scrape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hermes_flow.coordinator.routing.policy import Choose, Load, Routable
from hermes_flow.engine.loop import NEVER


@dataclass(frozen=True, slots=True)
class SeenLoad:
    """What an LLM client had in hand at a scrape; the figures are those of ``Load``."""

    unfinished: int
    input_tokens: int
    kv_tokens: int
    backlog_tokens: int
    work_left_tokens: int
    finished: int
    finished_tokens: int


class Scrape:
    """An engine resource: at every multiple of ``period_ns`` it takes down the loads of a pool's clients.

    It sleeps while no client has an unfinished task, and is woken as one is routed. What nobody has ever asked for is
    not taken down; asked for the first time, when the first task of the pool is routed, a load is live. At one
    instant a scrape comes after all arrivals and deliveries: a task that is routed then sees the scrape before it.
    """

    __slots__ = (
        "_clients",
        "_loads",
        "_next_ns",
        "_outstanding",
        "_period_ns",
        "_queued",
        "clients",
        "on_wake",
    )

    def __init__(self, clients: Sequence[Routable], period_ns: int) -> None:
        self._clients = clients
        self._period_ns = period_ns
        self._next_ns = NEVER
        self._outstanding: list[int] | None = None
        self._queued: list[int] | None = None
        self._loads: list[SeenLoad] | None = None
        self.clients = [ScrapedClient(self, client, index) for index, client in enumerate(clients)]
        self.on_wake: Callable[[], None] = lambda: None

    def waking(self, choose: Choose) -> Choose:
        """Return the same choice, which also starts the scrapes anew."""

        def choose_and_wake(task: int, now_ns: int) -> int:
            chosen = choose(task, now_ns)
            if self._next_ns >= NEVER and self._asked:
                self._next_ns = -(-now_ns // self._period_ns) * self._period_ns
                self.on_wake()
            return chosen

        return choose_and_wake

    @property
    def _asked(self) -> bool:
        return any(seen is not None for seen in (self._outstanding, self._queued, self._loads))

    def next_ns(self) -> int:
        """Return the instant of the next scrape, or NEVER."""
        return self._next_ns

    def fire(self, now_ns: int) -> None:
        """Take down the loads; the last time if no client has anything left to do."""
        outstanding = self._read_outstanding(now_ns)
        if self._outstanding is not None:
            self._outstanding = outstanding
        if self._queued is not None:
            self._queued = self._read_queued(now_ns)
        if self._loads is not None:
            self._loads = self._read_loads(now_ns)
        self._next_ns = now_ns + self._period_ns if any(outstanding) else NEVER

    def settle(self, now_ns: int) -> None:
        """Nothing happens between scrapes."""

    def outstanding(self, now_ns: int) -> list[int]:
        """Return the unfinished tasks of each client at the last scrape."""
        if self._outstanding is None:
            self._outstanding = self._read_outstanding(now_ns)
        return self._outstanding

    def queued_tokens(self, now_ns: int) -> list[int]:
        """Return the known work of each client at the last scrape."""
        if self._queued is None:
            self._queued = self._read_queued(now_ns)
        return self._queued

    def loads(self, now_ns: int) -> list[SeenLoad]:
        """Return what each client had in hand at the last scrape."""
        if self._loads is None:
            self._loads = self._read_loads(now_ns)
        return self._loads

    def _read_outstanding(self, now_ns: int) -> list[int]:
        return [client.outstanding(now_ns) for client in self._clients]

    def _read_queued(self, now_ns: int) -> list[int]:
        return [client.queued_tokens(now_ns) for client in self._clients]

    def _read_loads(self, now_ns: int) -> list[SeenLoad]:
        return [_seen(client.load(now_ns)) for client in self._clients]


class ScrapedClient:
    """A client as a router sees it that scrapes; the instants it is asked at do not matter."""

    __slots__ = ("_client", "_index", "_scrape")

    def __init__(self, scrape: Scrape, client: Routable, index: int) -> None:
        self._scrape = scrape
        self._client = client
        self._index = index

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks that were unfinished at the last scrape."""
        return self._scrape.outstanding(now_ns)[self._index]

    def queued_tokens(self, now_ns: int) -> int:
        """Work known to be still processed at the last scrape."""
        return self._scrape.queued_tokens(now_ns)[self._index]

    def keep_load(self) -> None:
        """Keep the figures of ``load`` from now on."""
        self._client.keep_load()

    def load(self, now_ns: int) -> Load:
        """What it had in hand at the last scrape."""
        return self._scrape.loads(now_ns)[self._index]


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
