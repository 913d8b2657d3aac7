"""The clients of one pool over the run: which are off, start, take tasks, drain or are down, as a resource.

At one instant clients that have started or are repaired come first, then failures. Then the tasks that wait or were
lost are routed, clients that have drained stop, and the policy decides. All of it comes after the deliveries of that
instant, and before the plans of clients.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

from hermes_flow.machine.attainment import Attainment
from hermes_flow.machine.client_slot import ClientSlot
from hermes_flow.machine.outages import Outages
from hermes_flow.machine.paces import Paces
from hermes_flow.machine.router_fleet import RouterFleet
from hermes_flow.program.fleet import Autoscaling, Failing, ScaledPool, State, Wanted
from hermes_flow.program.units import NEVER


class PoolFleet:
    """The states of the clients of one pool, and the decisions of its autoscaling.

    ``first`` is the number of its first client among those of the router. ``states`` has the changes of each client.
    ``is_over`` tells whether nothing but fleets is left to fire, and no task waits for a client; decisions end then.
    ``changed(now_ns)`` is called as clients that are up have changed. ``lose(op, request, client, now_ns)`` is called
    for each task of a client that fails, and ``leave(client, tasks, now_ns)`` as the notice of a client begins, with
    its number at the router and its tasks (op, request).
    """

    __slots__ = (
        "_arrival_ns",
        "_attainment",
        "_closed_until_ns",
        "_due",
        "_emptied_ns",
        "_failing",
        "_first",
        "_leaving",
        "_lost",
        "_next_ns",
        "_outages",
        "_paces",
        "_policy",
        "_slots",
        "_state",
        "_tasks",
        "_wanted",
        "_warned",
        "changed",
        "failures",
        "is_over",
        "leave",
        "lose",
        "lost",
        "on_wake",
        "scaling",
        "states",
    )

    def __init__(
        self,
        slots: Sequence[ClientSlot],
        first: int,
        tasks: RouterFleet,
        scaling: Autoscaling | None,
        arrival_ns: Sequence[int],
        attainment: Attainment | None,
        outages: Outages | None = None,
        failing: Failing | None = None,
    ) -> None:
        """``outages`` and ``failing`` are given where clients fail, ``scaling`` where a policy decides."""
        self._slots = slots
        self._first = first
        self._tasks = tasks
        self._arrival_ns = arrival_ns
        self._attainment = attainment
        self._due: dict[int, int] = {}  # client → when it takes tasks
        self._emptied_ns = NEVER  # when a client that drains had nothing in hand any more
        self._leaving: dict[int, tuple[int, int | None]] = {}  # client → when it fails, and for how long
        self._outages = outages
        self._failing = failing
        self._closed_until_ns = 0  # its site is down until then
        self._paces = Paces(() if failing is None else failing.paces, len(slots))
        self._wanted: deque[tuple[int, int]] = deque()  # decisions of the cool-down
        self._next_ns = NEVER
        self.scaling = scaling
        self.failures = [0] * len(slots)
        self._lost: list[tuple[int, int, int]] = []  # (op, request, client) of tasks to be handled
        self._warned: list[int] = []  # clients whose notice has begun, to be handled
        self.lost = 0  # tasks that failed clients had
        self._state: list[State] = ["up" if slot.running else "off" for slot in slots]
        self.states: list[list[tuple[int, State]]] = [[(0, state)] for state in self._state]
        self.changed: Callable[[int], None] = lambda now_ns: None
        self.lose: Callable[[int, int, int, int], None] = lambda op, request, client, now_ns: None
        self.leave: Callable[[int, list[tuple[int, int]], int], None] = lambda client, tasks, now_ns: None
        self.is_over: Callable[[], bool] = lambda: False
        self.on_wake: Callable[[], None] = lambda: None
        self._policy: Wanted = lambda now_ns: 0
        if scaling is not None:
            self._wanted.append((0, scaling.initial))
            self._next_ns = scaling.interval_ns
            self._policy = scaling.policy.start(ScaledPool(self, scaling.interval_ns, scaling.startup_ns))

    # An engine resource.

    def next_ns(self) -> int:
        """Return when the next client is up, a client has drained, or the policy decides."""
        at = min(
            [self._next_ns, self._emptied_ns, *self._due.values(), *(at for at, _ in self._leaving.values())]
        )
        if self._outages is None:
            return at
        at = min(at, self._outages.next_ns(), self._paces.next_ns())
        return self._closed_until_ns if 0 < self._closed_until_ns < at else at

    def fire(self, now_ns: int) -> int:
        """Change the states that are due, and let the policy decide."""
        if self.is_over():
            self._outages, self._next_ns, self._closed_until_ns = None, NEVER, 0
            self._leaving.clear()
        changed = self._finish_starts(now_ns)
        if self._outages is not None:
            self._change_paces(now_ns)
            changed |= self._close_or_open(self._outages, now_ns)
            changed |= self._announce_failures(self._outages, now_ns)
        changed |= self._fail_clients(now_ns)
        if changed:
            self.changed(now_ns)
        warned, self._warned = self._warned, []
        for client in warned:
            self.leave(self._first + client, self._tasks.of(self._first + client), now_ns)
        lost, self._lost = self._lost, []
        for op, request, client in lost:  # after the router knows who is up
            self.lose(op, request, client, now_ns)
        self._finish_drains(now_ns)
        if self._next_ns <= now_ns and self.scaling is not None:
            self._next_ns = now_ns + self.scaling.interval_ns
            if not self._closed_until_ns and self._decide(self.scaling, now_ns):
                self.changed(now_ns)
        return self.next_ns()

    def settle(self, now_ns: int) -> None:
        """Do nothing: states change only at the instants that ``next_ns`` returns."""

    def emptied(self, client: int, now_ns: int) -> None:
        """Note that a client has nothing in hand; if it drains, it stops at this instant."""
        if self._state[client] == "draining":
            self._emptied_ns = now_ns
            self.on_wake()

    def numbers_up(self) -> list[int]:
        """Return the clients that take tasks, by their numbers at the router."""
        return [self._first + client for client, state in enumerate(self._state) if state == "up"]

    def may_open(self) -> bool:
        """Return whether a client that is not up may take tasks again."""
        if self._closed_until_ns == NEVER:
            return False
        if self._due or any(for_ns is not None for _, for_ns in self._leaving.values()):
            return True
        return self.scaling is not None and any(state in ("off", "draining") for state in self._state)

    def will_start(self) -> bool:
        """Return whether the policy starts a client where a task waits for one."""
        if self.scaling is None or self._closed_until_ns:
            return False
        return any(
            state in ("off", "starting") or (state == "draining" and client not in self._leaving)
            for client, state in enumerate(self._state)
        )

    # What the policy may read (program/fleet.py).

    def size(self) -> int:
        """Return the number of clients that are up or start."""
        return sum([state in ("up", "starting") for state in self._state])

    def up(self) -> int:
        """Return the number of clients that take tasks."""
        return self._state.count("up")

    def queued(self, now_ns: int) -> int:
        """Return the tasks that wait in the queues of clients that are up, and for a client of the pool."""
        return sum([slot.queue_length(now_ns) for slot in self._taking()]) + len(self._tasks.held)

    def in_hand(self) -> int:
        """Return the tasks that clients that are up have in hand, and those that wait for a client."""
        hands = self._tasks.in_hand
        own = [len(hands[self._first + client]) for client, state in enumerate(self._state) if state == "up"]
        return sum(own) + len(self._tasks.held)

    def waiting_tokens(self, now_ns: int) -> int:
        """Return the known work of the clients that are up."""
        return sum([slot.queued_tokens(now_ns) for slot in self._taking()])

    def kv_use(self, now_ns: int) -> float:
        """Return the mean share of KV blocks in use on the clients that are up; 0 where none is."""
        shares = [slot.kv_use(now_ns) for slot in self._taking()]
        return math.fsum(shares) / len(shares) if shares else 0.0

    def arrived(self) -> int:
        """Return the tasks that came to the router of the pool so far."""
        return self._tasks.came

    def attained(self, since_ns: int) -> tuple[int, int]:
        """Return the requests that ended after ``since_ns``, and how many of them kept the limits of the SLO."""
        assert self._attainment is not None, "checked by the compiler"
        return self._attainment.since(since_ns)

    def arrivals(self, first_ns: int, last_ns: int) -> int:
        """Return the requests that arrive from ``first_ns`` until before ``last_ns``."""
        return bisect_left(self._arrival_ns, last_ns) - bisect_left(self._arrival_ns, first_ns)

    # Changes of state.

    def _taking(self) -> list[ClientSlot]:
        return [slot for slot, state in zip(self._slots, self._state, strict=True) if state == "up"]

    def _set(self, client: int, state: State, now_ns: int) -> None:
        self._state[client] = state
        self.states[client].append((now_ns, state))

    def _finish_starts(self, now_ns: int) -> bool:
        """Let the clients whose start-up is over take tasks."""
        started = [client for client, at in self._due.items() if at <= now_ns]
        for client in started:
            del self._due[client]
            self._slots[client].start(now_ns)
            if self._paces.factor[client] != 1.0:
                self._slots[client].set_pace(self._paces.factor[client], now_ns)
            self._set(client, "up", now_ns)
            if self._outages is not None:
                self._outages.came_up(client, now_ns)
        return bool(started)

    def _change_paces(self, now_ns: int) -> None:
        """Let the clients that are here be as fast as they are from now on."""
        for client in self._paces.due(now_ns):
            if self._slots[client].running:
                self._slots[client].set_pace(self._paces.factor[client], now_ns)

    def _close_or_open(self, outages: Outages, now_ns: int) -> bool:
        """Let all clients be down as their site fails; return whether the site has failed, or is back."""
        changed = 0 < self._closed_until_ns <= now_ns
        if changed:
            self._closed_until_ns = 0
        failed = outages.site_failure(now_ns)
        if failed is None:
            return changed
        until_ns = self._closed_until_ns = max(self._closed_until_ns, failed)
        self._leaving.clear()
        for client, state in enumerate(self._state):
            if state in ("up", "starting", "draining"):
                self._fail(client, None if until_ns == NEVER else until_ns - now_ns, now_ns)
            elif until_ns == NEVER:
                self._due.pop(client, None)
            elif client in self._due:
                self._due[client] = max(self._due[client], until_ns)
        return True

    def _announce_failures(self, outages: Outages, now_ns: int) -> bool:
        """Begin the notice of clients that fail; return whether those that are up have changed."""
        changed = False
        for client, at_ns, for_ns in outages.due(now_ns):
            state = self._state[client]
            if state in ("off", "down", "taken") or client in self._leaving:
                continue  # nothing is there that could fail
            self._leaving[client] = (at_ns, for_ns)
            changed |= bool(self._tasks.held)  # what waits for it to come back may go to another site
            if state == "up" and at_ns > now_ns:
                self._set(client, "draining", now_ns)
                self._warned.append(client)
                changed = True
        return changed

    def _fail_clients(self, now_ns: int) -> bool:
        """Let the clients fail whose notice is over; return whether those that are up have changed."""
        failing = [client for client, (at, _) in self._leaving.items() if at <= now_ns]
        changed = False
        for client in failing:
            _, for_ns = self._leaving.pop(client)
            changed |= self._state[client] == "up" or bool(self._tasks.held)
            self._fail(client, for_ns, now_ns)
        return changed

    def _fail(self, client: int, for_ns: int | None, now_ns: int) -> None:
        """Let a client be down, and what it has be lost."""
        assert self._failing is not None
        self._due.pop(client, None)
        if self._outages is not None:
            self._outages.stopped(client)
        if self._slots[client].running:
            self._slots[client].stop(now_ns)
        self._set(client, "down" if self._failing.paid else "taken", now_ns)
        self.failures[client] += 1
        if for_ns is not None:
            self._due[client] = now_ns + for_ns
        lost = self._tasks.lose(self._first + client)
        self.lost += len(lost)
        self._lost += [(op, request, client) for op, request in lost]

    def _finish_drains(self, now_ns: int) -> None:
        """Stop the clients that have drained."""
        self._emptied_ns = NEVER
        for client, state in enumerate(self._state):
            empty = not self._tasks.in_hand[self._first + client]
            if state == "draining" and empty and client not in self._leaving:
                self._stop(client, now_ns)

    def _stop(self, client: int, now_ns: int) -> None:
        self._slots[client].stop(now_ns)
        if self._outages is not None:
            self._outages.stopped(client)
        self._leaving.pop(client, None)
        self._set(client, "off", now_ns)

    def _decide(self, scaling: Autoscaling, now_ns: int) -> bool:
        """Ask the policy, and start or stop clients; return whether those that are up have changed."""
        size = self.size()
        wanted = min(max(self._policy(now_ns), scaling.least), scaling.most)
        if (
            self._tasks.held and not self.up()
        ):  # whatever the policy reads, a client must come that serves them
            wanted = max(wanted, 1)
        history = self._wanted
        history.append((now_ns, wanted))
        while history[0][0] < now_ns - scaling.cooldown_ns:
            history.popleft()
        if wanted > size:
            return self._start_clients(scaling, wanted - size, now_ns)
        spare = size - max(number for _, number in history)
        return self._stop_clients(scaling, spare, now_ns) if spare > 0 else False

    def _start_clients(self, scaling: Autoscaling, count: int, now_ns: int) -> bool:
        """Start so many of the clients that are off, those of the lowest numbers first."""
        if scaling.most_up is not None:
            count = min(count, scaling.most_up)
        starting = [client for client, state in enumerate(self._state) if state == "off"][:count]
        for client in starting:
            self._due[client] = now_ns + scaling.startup_ns
            self._set(client, "starting", now_ns)
        return self._finish_starts(now_ns)

    def _stop_clients(self, scaling: Autoscaling, count: int, now_ns: int) -> bool:
        """Stop so many clients: those that start, the last first, and then those that have the fewest tasks."""
        if scaling.most_down is not None:
            count = min(count, scaling.most_down)
        starting = [client for client in self._due if self._state[client] == "starting"]
        for client in sorted(starting, key=lambda client: (-self._due[client], -client))[:count]:
            del self._due[client]
            self._leaving.pop(client, None)
            self._set(client, "off", now_ns)
            count -= 1
        hands = self._tasks.in_hand
        up = [client for client, state in enumerate(self._state) if state == "up"]
        up.sort(key=lambda client: (len(hands[self._first + client]), -client))
        for client in up[:count]:
            if hands[self._first + client]:
                self._set(client, "draining", now_ns)
            else:
                self._stop(client, now_ns)
        return bool(up[:count])
