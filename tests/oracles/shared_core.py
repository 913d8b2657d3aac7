"""A naive simulator of one core that an engine and side tasks share, piece by piece, as a real one was run."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request: a task before the answer, its prompt and answer, and a task after it; times in ns."""

    arrival: int
    before: int
    prompt: int
    output: int
    after: int
    written: int = 0
    first: int = -1
    finish: int = -1
    starts: list[int] = field(default_factory=list)


def run_core(requests: list[Request], fixed_ns: int, token_ns: int) -> None:
    """Write down when each request has its first token and is over.

    Of the task that has been ready longest and the engine's next step, the one that can start earlier goes first; at
    equal starts the task does. A step takes all open requests: a token each, or the whole prompt.
    """
    clock, order = 0, 0
    tasks: list[tuple[int, int, str, Request]] = []
    coming: list[tuple[int, int, Request]] = []
    open_: list[Request] = []
    for request in requests:
        heapq.heappush(tasks, (request.arrival, order, "before", request))
        order += 1
    while tasks or coming or open_:
        task_start = max(clock, tasks[0][0]) if tasks else None
        step_start = clock if open_ else max(clock, coming[0][0]) if coming else None
        if task_start is not None and (step_start is None or task_start <= step_start):
            _, _, what, request = heapq.heappop(tasks)
            request.starts.append(task_start)
            clock = task_start + (request.before if what == "before" else request.after)
            if what == "before":
                heapq.heappush(coming, (clock, order, request))
                order += 1
            else:
                request.finish = clock
            continue
        assert step_start is not None
        while coming and coming[0][0] <= step_start:
            open_.append(heapq.heappop(coming)[2])
        tokens = sum(request.prompt if not request.written else 1 for request in open_)
        clock = step_start + fixed_ns + token_ns * tokens
        for request in list(open_):
            request.written += 1
            if request.written == 1:
                request.first = clock
            if request.written == request.output:
                open_.remove(request)
                heapq.heappush(tasks, (clock, order, "after", request))
                order += 1
