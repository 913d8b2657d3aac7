"""The naive reference simulator of a sequential client: some cores, one first-come-first-served queue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FifoResult:
    """When each task started on a core and when it finished, in the order the tasks were given."""

    start_ns: list[int]
    finish_ns: list[int]


def simulate_fifo_cores(cores: int, arrival_ns: list[int], service_ns: list[int]) -> FifoResult:
    """Run every task on one of ``cores`` cores, in order of arrival, ties in order of their index.

    The clock goes from event to event; at each, what ends leaves its core, what arrives joins the queue, and
    the queue's head starts as long as a core is free.
    """
    tasks = range(len(arrival_ns))
    arriving = sorted(tasks, key=lambda task: (arrival_ns[task], task))
    queue: list[int] = []
    running: list[int] = []
    start_ns = [-1 for _ in tasks]
    finish_ns = [-1 for _ in tasks]
    while arriving or running:
        now = min([arrival_ns[task] for task in arriving] + [finish_ns[task] for task in running])
        for task in list(running):
            if finish_ns[task] == now:
                running.remove(task)
        while arriving and arrival_ns[arriving[0]] == now:
            queue.append(arriving.pop(0))
        while queue and len(running) < cores:
            task = queue.pop(0)
            start_ns[task] = now
            finish_ns[task] = now + service_ns[task]
            running.append(task)
    assert not queue
    return FifoResult(start_ns, finish_ns)
