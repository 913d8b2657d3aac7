"""The naive gateway before one host: every instant is looked at, and every queue is sorted anew.

At an instant requests come first. Then tasks end one by one, and each end lets others in. Then those come again that
were turned away, those are turned away who have waited too long, and last somebody gives up. A task that has a core
keeps it to its end, whoever waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class NaiveGateway:
    """What the gateway lets in; ``key(request, tags)`` is the place in the queue of one that enters."""

    inside: int
    queued: int | None
    holds: bool = False
    sheds_last: bool = False
    times: int = 0
    backoff: int = 0
    waits: list[int] | None = None  # how long each waits at most, each time that it comes
    weights: list[float] | None = None  # of the tenants; None: the order is that of ``urgency``


@dataclass
class Naive:
    """The course of each request: when it was let in and when it ended, −1 for never, and how it ended."""

    admitted: list[int]
    finish: list[int]
    status: list[str]
    tries: list[int]
    order: list[int] = field(default_factory=list)  # in which requests were let in


def simulate(
    gateway: NaiveGateway,
    cores: int,
    arrivals: list[int],
    service: list[int],
    timeouts: list[int],
    urgency: Callable[[int], float],
    tenant: list[int],
    cost: list[int],
) -> Naive:
    """Run all requests to their ends."""
    count = len(arrivals)
    run = Naive([-1] * count, [-1] * count, ["" for _ in arrivals], [0] * count)
    queue: list[tuple[float, int, int]] = []  # (key, order of entering, request)
    outside: list[int] = []
    inside: set[int] = set()
    at_host: list[int] = []
    running: dict[int, int] = {}
    again: list[tuple[int, int]] = []
    tags = [0.0] * (max(tenant) + 1)
    virtual = 0.0
    entered = 0
    came = [-1] * count  # the last time that each came

    def enter(request: int) -> None:
        nonlocal entered
        entered += 1
        key = urgency(request)
        if gateway.weights is not None:
            who = tenant[request]
            key = tags[who] = max(virtual, tags[who]) + cost[request] / gateway.weights[who]
        queue.append((key, entered, request))

    def let_in(now: int) -> None:
        nonlocal virtual
        while True:
            room = len(inside) < gateway.inside
            while outside and (gateway.queued is None or len(queue) < gateway.queued or (room and not queue)):
                enter(outside.pop(0))
            if not room or not queue:
                return
            first = min(queue)
            queue.remove(first)
            virtual = first[0]
            inside.add(first[2])
            run.order.append(first[2])
            run.admitted[first[2]] = now
            at_host.append(first[2])
            begin(now)

    def begin(now: int) -> None:
        while at_host and len(running) < cores:
            request = at_host.pop(0)
            running[request] = now + service[request]

    def turn_away(request: int, now: int) -> None:
        if run.tries[request] > gateway.times:
            run.status[request] = "rejected"
        else:
            again.append((now + gateway.backoff * 2 ** (run.tries[request] - 1), request))

    def come(request: int, now: int) -> None:
        run.tries[request] += 1
        came[request] = now
        at_once = not queue and len(inside) < gateway.inside
        if gateway.queued is None or len(queue) < gateway.queued or at_once:
            enter(request)
            let_in(now)
        elif gateway.holds:
            outside.append(request)
        elif gateway.sheds_last and queue:
            enter(request)
            last = max(queue)
            queue.remove(last)
            turn_away(last[2], now)
        else:
            turn_away(request, now)

    waits = (gateway.times + 1) * max(gateway.waits or [0])
    away = gateway.backoff * 2**gateway.times * 2 + 2
    last = max(arrivals) + sum(service) + max(timeouts, default=0) + away + waits
    for now in range(last):
        for request, at in enumerate(arrivals):
            if at == now:
                come(request, now)
        for request in [one for one, end in running.items() if end == now]:
            del running[request]
            begin(now)
            if request in inside:
                inside.discard(request)
                run.finish[request], run.status[request] = now, "completed"
                let_in(now)
        begin(now)
        while True:
            due = sorted(entry for entry in again if entry[0] == now)
            tired = sorted(
                one
                for one in (*outside, *(entry[2] for entry in queue))
                if gateway.waits is not None and came[one] + gateway.waits[one] == now
            )
            if due:
                again.remove(due[0])
                if not run.status[due[0][1]]:
                    come(due[0][1], now)
            elif tired:
                queue[:] = [entry for entry in queue if entry[2] != tired[0]]
                outside[:] = [one for one in outside if one != tired[0]]
                turn_away(tired[0], now)
                let_in(now)
            else:
                break
        for request in sorted(
            (one for one in range(count) if timeouts[one] >= 0 and arrivals[one] + timeouts[one] == now),
        ):
            if run.status[request]:
                continue
            run.status[request] = "timed_out"
            waited = [entry for entry in queue if entry[2] == request]
            for entry in waited:
                queue.remove(entry)
            outside[:] = [one for one in outside if one != request]
            at_host[:] = [one for one in at_host if one != request]
            if request in inside:
                inside.discard(request)
            let_in(now)
    assert not queue
    assert not outside
    assert all(run.status)
    return run
