"""The naive reference of an autoscaled pool: it looks at every instant, and keeps whole lists of tasks.

How one client serves its tasks is not its business: ``serve`` tells, of the tasks that one client was given between
its start and its stop, when each starts and finishes. It is asked again whenever anything is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

# [(task, arrival)] in order of arrival → [(start, finish)]
Serve = Callable[[list[tuple[int, int]]], list[tuple[int, int]]]


class Answers:
    """The answers of tasks that go on elsewhere with what they have: ``had`` at (task, arrival at a client).

    ``emitted`` tells, of the tasks that one client was given, when each token of theirs leaves.
    """

    def __init__(self) -> None:
        self.had: dict[tuple[int, int], int] = {}
        self.begun: dict[int, int] = {}  # task → when it was scheduled for the first time
        self.emitted: Callable[[list[tuple[int, int]]], list[list[int]]] = lambda tasks: []
        self.lost: list[
            tuple[int, int, list[tuple[int, int]], int]
        ] = []  # (task, now, tasks of its client, had)


@dataclass(frozen=True)
class ScalingRule:
    """The rule ``target``, with its limits; times in nanoseconds."""

    metric: Literal["queued_per_client", "in_flight_per_client"]
    target: float
    tolerance: float
    initial: int
    least: int
    most: int
    interval: int
    startup: int
    cooldown: int
    most_up: int | None
    most_down: int | None
    routing: Literal["round_robin", "least_requests"]


@dataclass
class OracleClient:
    """One client: its state and its changes, and the tasks of its present life, with their arrivals there."""

    state: str
    changes: list[tuple[int, str]]
    tasks: list[tuple[int, int]] = field(default_factory=list)
    up_at: int = -1

    def turn(self, state: str, now: int) -> None:
        self.state = state
        self.changes.append((now, state))


class ScaledFleet:
    """Runs tasks that arrive at given instants through the clients of a fleet."""

    def __init__(
        self,
        rule: ScalingRule,
        serve: Serve,
        arrivals: list[int],
        failures: list[tuple[int, int, int]] | None = None,
        notice: int = 0,
        answers: Answers | None = None,
    ) -> None:
        """``failures`` are (instant, client, duration); lost tasks begin anew, in the order in which they came.

        With ``answers`` they go on from the tokens that they have.
        """
        self.answers = answers
        self.had: dict[int, int] = {}
        self.rule = rule
        self._serve = serve
        self._served: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = {}
        self.arrivals = arrivals
        states = ["up" if number < rule.initial else "off" for number in range(rule.most)]
        self.clients = [OracleClient(state, [(0, state)]) for state in states]
        self.client_of = [-1] * len(arrivals)
        self.times = [(-1, -1)] * len(arrivals)
        self.held: list[int] = []
        self.failures = sorted(failures or [])
        self.notice = notice
        self.leaving: dict[int, tuple[int, int]] = {}  # client → when it fails, and for how long
        self.retried: list[int] = []
        self.wanted = [(0, rule.initial)]
        self.last = -1  # the client that was chosen last
        self.now = 0
        self.next_tick = self.tick = rule.interval
        self.closings: list[tuple[int, int]] = []  # (instant, duration) of failures of the whole site
        self.closed_until = 0
        self.elsewhere: Callable[[int], bool] = lambda task: False
        self.changed: Callable[[], None] = lambda: None

    def serve(self, tasks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        key = tuple(tasks)
        if key not in self._served:
            self._served[key] = self._serve(tasks)
        return self._served[key]

    def run(self) -> None:
        coming = list(range(len(self.arrivals)))
        over = False
        while not (over and self.now == self.tick):
            self.tick = self.next_tick
            self.now = min([self.arrivals[task] for task in coming[:1]] + self.instants())
            while coming and self.arrivals[coming[0]] == self.now:
                self.receive(coming.pop(0))
            over = not coming and self.is_idle()
            self.step(over)
        self.end()

    def is_idle(self) -> bool:
        return not self.held and not any(self.in_hand(client) for client in self.clients)

    def instants(self) -> list[int]:
        """Return when something happens here without a task that arrives."""
        instants = [self.next_tick]
        instants += [client.up_at for client in self.clients if client.state in ("starting", "down")]
        instants += [
            self.empty_at(client)
            for number, client in enumerate(self.clients)
            if client.state == "draining" and (number not in self.leaving or self.in_hand(client))
        ]
        instants += [max(0, at - self.notice) for at, _, _ in self.failures[:1]]
        instants += [at for at, _ in self.leaving.values()]
        instants += [at for at, _ in self.closings[:1]]
        return instants + ([self.closed_until] if self.closed_until else [])

    def receive(self, task: int) -> None:
        """Route a task that is ready; without a client it goes elsewhere, or waits."""
        if self.up():
            self.route(task)
        elif not self.elsewhere(task):
            self.held.append(task)

    def step(self, over: bool) -> None:
        """Do what is due at this instant, after the tasks that arrive; ``over``: nothing is left to be done."""
        if over:
            self.failures = []
            self.closings = []
            self.closed_until = 0
            self.leaving = {}
        for client in self.clients:
            if client.state in ("starting", "down") and client.up_at == self.now:
                client.turn("up", self.now)
        lost = self.close() + self.fail()
        self.changed()
        self.release()
        for task in lost:
            self.retried.append(task)
            self.receive(task)
        for number, client in enumerate(self.clients):
            if client.state == "draining" and number not in self.leaving and not self.in_hand(client):
                self.stop(client)
        if self.now == self.next_tick:
            if not over and not self.closed_until:
                self.decide()
            self.next_tick += self.rule.interval
        self.release()

    def end(self) -> None:
        for client in sorted(self.clients, key=lambda client: client.up_at):
            if client.state in ("starting", "down"):
                client.turn("up", client.up_at)
            self.note(client)

    def is_open(self) -> bool:
        """Return whether a client takes tasks here, or is started where one waits."""
        return bool(self.up()) or (
            not self.closed_until
            and any(
                client.state in ("off", "starting")
                or (client.state == "draining" and number not in self.leaving)
                for number, client in enumerate(self.clients)
            )
        )

    def close(self) -> list[int]:
        """Let all clients be down as the site fails, those that are off stay off; return the tasks that are lost."""
        if self.closed_until == self.now:
            self.closed_until = 0
        if not self.closings or self.closings[0][0] > self.now:
            return []
        at, duration = self.closings.pop(0)
        self.closed_until = max(self.closed_until, at + duration)
        self.leaving = {}
        lost: list[int] = []
        for number, client in enumerate(self.clients):
            if client.state in ("up", "starting", "draining"):
                lost += self.lose(number, self.closed_until - self.now)
            elif client.state == "down":
                client.up_at = max(client.up_at, self.closed_until)
        return lost

    def release(self) -> None:
        while self.held and self.up():
            self.route(self.held.pop(0))

    def fail(self) -> list[int]:
        """Announce and carry out failures; return the tasks that are lost."""
        while self.failures and self.failures[0][0] - self.notice <= self.now:
            at, number, duration = self.failures.pop(0)
            client = self.clients[number]
            if client.state in ("off", "down") or number in self.leaving:
                continue
            self.leaving[number] = (max(self.now, at), duration)
            if client.state == "up" and at > self.now:
                client.turn("draining", self.now)
        lost: list[int] = []
        for number, (at, duration) in list(self.leaving.items()):
            if at > self.now:
                continue
            del self.leaving[number]
            lost += self.lose(number, duration)
        return lost

    def lose(self, number: int, duration: int) -> list[int]:
        """Let a client be down; return the tasks that it has."""
        client = self.clients[number]
        times = self.serve(client.tasks)
        gone = [task for (task, _), (_, finish) in zip(client.tasks, times, strict=True) if finish > self.now]
        self.note(client)
        if self.answers is not None:
            emitted = self.answers.emitted(client.tasks)
            for (task, at), tokens, (start, _) in zip(client.tasks, emitted, times, strict=True):
                if task in gone:
                    before = self.answers.had[task, at]
                    self.had[task] = before + sum(token <= self.now for token in tokens)
                    self.answers.lost.append((task, self.now, list(client.tasks), self.had[task]))
                    if self.had[task] and not before:
                        self.answers.begun[task] = start
        for task in gone:
            self.client_of[task], self.times[task] = -1, (-1, -1)
        client.tasks = []
        client.turn("down", self.now)
        client.up_at = self.now + duration
        return gone

    def up(self) -> list[int]:
        return [number for number, client in enumerate(self.clients) if client.state == "up"]

    def in_hand(self, client: OracleClient, *, at_arrival: bool = False) -> int:
        """Count the tasks that are not over; what ends at this instant is over, but not for a task that arrives."""
        return sum(
            finish >= self.now if at_arrival else finish > self.now for _, finish in self.serve(client.tasks)
        )

    def empty_at(self, client: OracleClient) -> int:
        return max(finish for _, finish in self.serve(client.tasks))

    def route(self, task: int) -> None:
        up = self.up()
        if self.rule.routing == "round_robin":
            chosen = next((number for number in up if number > self.last), up[0])
        else:
            loads = [self.in_hand(self.clients[number], at_arrival=True) for number in up]
            chosen = up[loads.index(min(loads))]
        self.last = chosen
        self.client_of[task] = chosen
        self.clients[chosen].tasks.append((task, self.now))
        if self.answers is not None:
            self.answers.had[task, self.now] = self.had.get(task, 0)

    def decide(self) -> None:
        rule, clients = self.rule, self.clients
        size = sum(client.state in ("up", "starting") for client in clients)
        total = len(self.held)
        for number in self.up():
            if rule.metric == "queued_per_client":
                total += sum(start >= self.now for start, _ in self.serve(clients[number].tasks))
            else:
                total += self.in_hand(clients[number])
        wanted = math.ceil(total / rule.target - 1e-9)
        if size and abs(total / rule.target / size - 1) <= rule.tolerance:
            wanted = size
        wanted = min(rule.most, max(rule.least, wanted))
        if self.held and not self.up():
            wanted = max(1, wanted)
        self.wanted.append((self.now, wanted))
        if wanted > size:
            self.start(wanted - size)
        else:
            down_to = max(number for at, number in self.wanted if at >= self.now - rule.cooldown)
            self.shrink(size - down_to)

    def start(self, count: int) -> None:
        if self.rule.most_up is not None:
            count = min(count, self.rule.most_up)
        for client in [client for client in self.clients if client.state == "off"][:count]:
            client.turn("starting", self.now)
            client.up_at = self.now + self.rule.startup
            if not self.rule.startup:
                client.turn("up", self.now)

    def shrink(self, count: int) -> None:
        if self.rule.most_down is not None:
            count = min(count, self.rule.most_down)
        for _ in range(max(0, count)):
            starting = [number for number, one in enumerate(self.clients) if one.state == "starting"]
            if starting:
                latest = max(starting, key=lambda number: (self.clients[number].up_at, number))
                self.clients[latest].turn("off", self.now)
                self.leaving.pop(latest, None)
                continue
            fewest = min(self.up(), key=lambda number: (self.in_hand(self.clients[number]), -number))
            client = self.clients[fewest]
            if self.in_hand(client):
                client.turn("draining", self.now)
            else:
                self.stop(client)

    def stop(self, client: OracleClient) -> None:
        self.leaving.pop(self.clients.index(client), None)
        self.note(client)
        client.tasks = []
        client.turn("off", self.now)

    def note(self, client: OracleClient) -> None:
        for (task, _), times in zip(client.tasks, self.serve(client.tasks), strict=True):
            if self.answers is not None:
                times = (self.answers.begun.get(task, times[0]), times[1])
            self.times[task] = times
