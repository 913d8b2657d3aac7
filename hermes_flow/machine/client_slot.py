"""The place of a client that stops and starts again: each time with an empty cache and no tasks.

The rest of the machine holds the slot. The client behind it is another object after each start, and what all of them
did is recorded as one client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hermes_flow.pools.client import Bring, Connect, PoolClient
from hermes_flow.pools.progress import Progress
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER


class ClientSlot(PoolClient):
    """A client that others hold while it is off, and while it is replaced by a new one.

    ``renew`` returns a new client; without ``running`` the slot is empty at first. ``stopped`` are the clients that
    have stopped, each with the instant. ``going_on`` may be shared with other slots.
    """

    __slots__ = (
        "_deliveries",
        "_keeps_load",
        "_plans",
        "_renew",
        "_renewed",
        "_running",
        "_setting",
        "client",
        "going_on",
        "index",
        "stopped",
    )

    def __init__(self, client: PoolClient, renew: Callable[[], PoolClient], *, running: bool) -> None:
        self.index = client.index
        self.client = client
        self.going_on: dict[
            int, int
        ] = {}  # task that goes on from another client → when it got its last token
        self._renew = renew
        self._running = running
        self._setting: list[Callable[[PoolClient], None]] = []
        self._keeps_load = False
        self._deliveries = _SlotResource(self, plans=False)
        self._plans = None if client.plans is None else _SlotResource(self, plans=True)
        self._renewed: tuple[Callable[[], None], ...] = ()
        self.stopped: list[tuple[PoolClient, int]] = []

    @property
    def running(self) -> bool:
        """Whether there is a client that works."""
        return self._running

    def stop(self, now_ns: int) -> None:
        """Let the client end; it has nothing in hand, or what it has is lost."""
        self.client.stop(now_ns)
        self.stopped.append((self.client, now_ns))
        self._running = False
        self._wake()

    def start(self, now_ns: int) -> None:
        """Put a new client in the place of the one that has stopped."""
        before, self.client = self.client, self._renew()
        if self.stopped:
            self.client.inherit(before, now_ns)
        self._running = True
        for setting in self._setting:
            setting(self.client)
        self._wake()

    def set_pace(self, factor: float, now_ns: int) -> None:
        """Let each step that the client plans from now on take ``factor`` times its time."""
        self.client.set_pace(factor, now_ns)
        self._wake()

    def on_renewed(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set what to call as a client stops or starts."""
        self._renewed = (deliveries, plans)

    def _wake(self) -> None:
        for renewed in self._renewed:
            renewed()

    def _set(self, setting: Callable[[PoolClient], None]) -> None:
        """Set something of the client, and of all that follow it."""
        self._setting.append(setting)
        setting(self.client)

    # The interface of a client: what it does, the client behind it does.

    @property
    def deliveries(self) -> Resource:
        """The deliveries of the client that is here."""
        return self._deliveries

    @property
    def plans(self) -> Resource | None:
        """The plans of the client that is here."""
        return self._plans

    def on_change(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set what to call as the next instant of deliveries or plans may have changed."""
        self._set(lambda client: client.on_change(deliveries, plans))

    def connect(self, connect: Connect) -> None:
        """Connect the client to the memories that it reads."""
        self._set(lambda client: client.connect(connect))

    def watch(self, tokens: Mapping[int, list[int]], written: Callable[[int, int, int], None]) -> None:
        """Let the client tell when it generates certain tokens."""
        self._set(lambda client: client.watch(tokens, written))
        self._plans = None if self.client.plans is None else _SlotResource(self, plans=True)

    def submit(self, task: int, now_ns: int) -> int | None:
        """Queue a task that is ready now."""
        if self.going_on and task in self.going_on:
            return self.client.resume(task, self.going_on.pop(task), now_ns)
        return self.client.submit(task, now_ns)

    def progress(self, task: int) -> Progress:
        """Return how far a task was that the client had as it stopped, which was here last."""
        return self.client.progress(task)

    def withdraw(self, task: int, now_ns: int) -> int | None:
        """Take back a task of the client that is here."""
        return self.client.withdraw(task, now_ns) if self._running else NEVER

    def leaves_ns(self, task: int, now_ns: int) -> int:
        """Return when no work may be left of a task that was taken back."""
        return self.client.leaves_ns(task, now_ns) if self._running else now_ns

    def ask(self, task: int, now_ns: int) -> int | None:
        """Queue a task whose KV lies on another client."""
        return self.client.ask(task, now_ns)

    def bring(self, task: int, now_ns: int) -> int | None:
        """Note that the KV of a task is here."""
        return self.client.bring(task, now_ns)

    def let_go(self, task: int, now_ns: int) -> int | None:
        """Free the KV of a prompt, which is gone with the client where it is off."""
        return self.client.let_go(task, now_ns) if self._running else NEVER

    def hold(self, task: int, now_ns: int) -> None:
        """Let a task whose context is looked up take its place in the queue."""
        self.client.hold(task, now_ns)

    def await_data(self, task: int) -> None:
        """Take note of a task whose data is on the way."""
        self.client.await_data(task)

    def keep(self, task: int, now_ns: int, bring: Bring | None = None) -> None:
        """Keep the context of a finished retrieval."""
        self.client.keep(task, now_ns, bring)

    def outstanding(self, now_ns: int) -> int:
        """Return the number of tasks submitted and not finished; 0 while it is off."""
        return self.client.outstanding(now_ns) if self._running else 0

    def queued_tokens(self, now_ns: int) -> int:
        """Return the known remaining work; 0 while it is off."""
        return self.client.queued_tokens(now_ns) if self._running else 0

    def queue_length(self, now_ns: int) -> int:
        """Return the tasks that wait in its queue; 0 while it is off."""
        return self.client.queue_length(now_ns) if self._running else 0

    def kv_use(self, now_ns: int) -> float:
        """Return the share of its KV blocks in use; 0 while it is off."""
        return self.client.kv_use(now_ns) if self._running else 0.0

    def keep_load(self) -> None:
        """Keep the figures of ``load`` from now on."""
        if not self._keeps_load:
            self._keeps_load = True
            self._set(lambda client: _any(client).keep_load())

    def load(self, now_ns: int) -> Any:
        """Return the load of the client that is here."""
        return _any(self.client).load(now_ns)


class _SlotResource:
    """One of the two resources of the client in a slot; it never fires while the slot is empty."""

    __slots__ = ("_plans", "_slot", "fixed")

    def __init__(self, slot: ClientSlot, *, plans: bool) -> None:
        self._slot = slot
        self._plans = plans
        self.fixed = False  # a client that stops gives up its events

    def next_ns(self) -> int:
        """Return the next instant of the resource."""
        return self._resource().next_ns() if self._slot.running else NEVER

    def fire(self, now_ns: int) -> int | None:
        """Do everything that is due."""
        following = self._resource().fire(now_ns)
        return following if self._slot.running else NEVER

    def settle(self, now_ns: int) -> None:
        """Bring the client's state up to, but not including, ``now_ns``."""
        if self._slot.running:
            self._resource().settle(now_ns)

    def _resource(self) -> Resource:
        client = self._slot.client
        if not self._plans:
            return client.deliveries
        assert client.plans is not None
        return client.plans


def _any(client: Any) -> Any:
    return client
