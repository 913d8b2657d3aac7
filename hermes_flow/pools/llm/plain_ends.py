"""Lets sequences end on a plain client, and frees their seats and blocks, once for each of them."""

from __future__ import annotations

from collections import deque
from heapq import heappop

from hermes_flow.pools.llm.batch import ADMISSION_BITS, ADMISSION_MASK, RunningBatch
from hermes_flow.pools.llm.tasks import LLMTasks


def release(admissions: list[int], batch: RunningBatch, counts: bool, free: int) -> int:
    """Free seats and blocks of sequences that have ended; return how many blocks are free then."""
    if not counts:
        batch.release(admissions)
        return batch.free
    running, size, tasks = batch.running, batch.block_size, batch.tasks
    for admission in admissions:
        task = running.pop(admission, -1)
        if task >= 0:  # else: preempted while its last token was in flight
            free += (tasks.prompt[task] + tasks.output[task] - 2) // size + 1
    return free


def hand_over(
    answers: deque[tuple[int, int]], end_ps: int, ended: list[int], running: dict[int, int], waited: bytes
) -> None:
    """Let the answers leave that anybody waits for."""
    for admission in ended:
        task = running[admission]
        if not waited or waited[task]:
            answers.append((end_ps, task))


def end_due(
    ends: list[int],
    iteration: int,
    running: dict[int, int],
    tasks: LLMTasks,
    boundaries: list[int],
    size: int,
    end_ps: int,
) -> tuple[list[int], int]:
    """Let the sequences end whose last iteration is over; return them, and the sum of their contexts."""
    ended: list[int] = []
    gone = 0
    over = iteration << ADMISSION_BITS
    while ends and ends[0] < over:
        admission = heappop(ends) & ADMISSION_MASK
        task = running.get(admission, -1)
        if task >= 0:  # else: preempted since
            total = tasks.prompt[task] + tasks.output[task]
            residue = (iteration + 1 - total) % size
            boundaries[residue] -= 1
            boundaries[residue + size] -= 1
            gone += total - 1
            tasks.finish_ps[task] = end_ps
            ended.append(admission)
    return ended, gone
