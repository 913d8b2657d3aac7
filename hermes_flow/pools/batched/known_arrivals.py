"""Serves tasks whose arrivals are all known on one batched client, without events, as ``BatchedClient`` does.

A task that is alone on the client from its arrival to the end of its last stage there takes the known times of passes
of one task. Wherever two tasks meet, the client itself serves them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.program.units import NEVER


def serve_known(
    client: BatchedClient,
    tasks: BatchedTasks,
    firsts: Sequence[int],
    arrivals: Sequence[int],
    order: Sequence[int],
    *,
    after_ends: bool,
) -> tuple[list[list[int]], list[int]]:
    """Serve each request ``order[i]``, which comes at ``arrivals[i]``, in stages one after the other.

    ``firsts`` are the numbers of each stage's first task. Where ``after_ends``, a request comes after the end of a
    pass of the same nanosecond, else before it. Return when the tasks of each stage end, by request (−1 where there
    is none), and the requests in the order in which they leave the client. The client must begin its passes at once,
    and serve nobody else.
    """
    count, last = len(arrivals), len(firsts) - 1
    ends = [[-1] * tasks.count for _ in firsts]
    left: list[int] = []
    starts, finishes, pass_ns = tasks.start_ns, tasks.finish_ns, tasks.pass_ns
    comes = [*arrivals, NEVER]
    alone_ns = served = 0
    place = 0
    while place < count:
        request, now = order[place], comes[place]
        durations = [pass_ns([first + request]) for first in firsts]
        if now + sum(durations) < comes[place + 1]:
            for first, of_stage, duration in zip(firsts, ends, durations, strict=True):
                starts[first + request] = now
                now += duration
                finishes[first + request] = of_stage[request] = now
            alone_ns += sum(durations)
            served += 1
            left.append(request)
            place += 1
            continue
        client.submit(firsts[0] + request, now)
        place += 1
        while (end := client.next_delivery_ns()) < NEVER:
            now = comes[place]
            if now < end or (now == end and not after_ends):
                client.submit(firsts[0] + order[place], now)
                place += 1
                continue
            for task in client.end_pass(end):
                stage = next(at for at, first in enumerate(firsts) if 0 <= task - first < tasks.count)
                request = task - firsts[stage]
                ends[stage][request] = end
                if stage < last:
                    client.submit(firsts[stage + 1] + request, end)
                else:
                    left.append(request)
    client.busy_ns += alone_ns
    client.steps += served * len(firsts)
    client.served += served * len(firsts)
    return ends, left
