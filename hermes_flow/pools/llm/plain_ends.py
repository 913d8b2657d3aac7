"""Lets sequences end on a plain client, and frees their seats and blocks, once for each of them."""

from __future__ import annotations

from collections import deque
from heapq import heappop
from typing import Final

from mypy_extensions import i64

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.decoding_batch import ADMISSION_BITS, ADMISSION_MASK
from hermes_flow.pools.llm.tasks import LLMTasks

IN_PYTHON: Final = __file__.endswith(".py")  # and not compiled


def blocks_begun(boundaries: list[int], place: i64, steps: i64) -> i64:
    """Return how many blocks are begun in ``steps`` iterations from the residue ``place`` on.

    In the compiled core this takes a fifth of the time of the sum of a slice, which is what Python does fastest.
    """
    blocks: i64 = 0
    for residue in range(place, place + steps):
        blocks += boundaries[residue]
    return blocks


def release(admissions: list[int], batch: RunningBatch, free: i64) -> i64:
    """Free seats and blocks, which are only counted, of sequences that have ended; return how many are free then."""
    running, tasks = batch.running, batch.tasks
    size: i64 = batch.block_size
    task: i64
    prompt, output = tasks.prompt, tasks.output
    for admission in admissions:
        task = running.pop(admission, -1)
        if task >= 0:  # else: preempted while its last token was in flight
            free += (prompt[task] + output[task] - 2) // size + 1
    return free


def end_due(
    ends: list[int],
    iteration: i64,
    running: dict[int, int],
    tasks: LLMTasks,
    boundaries: list[int],
    size: i64,
    end_ps: int,
    answers: deque[tuple[int, int]] | None,
) -> tuple[list[int], i64]:
    """Let the sequences end whose last iteration is over; return them, and the sum of their contexts.

    The answers that anybody waits for are added to ``answers``, if anybody waits for any.
    """
    ended: list[int] = []
    gone: i64 = 0
    task: i64
    total: i64
    residue: i64
    last: i64
    prompt, output, finish_ps, waited = tasks.prompt, tasks.output, tasks.finish_ps, tasks.waited
    while ends:
        last = ends[0] >> ADMISSION_BITS
        if last >= iteration:
            break
        admission = heappop(ends) & ADMISSION_MASK
        task = running.get(admission, -1)
        if task >= 0:  # else: preempted since
            total = prompt[task] + output[task]
            residue = (iteration + 1 - total) % size
            boundaries[residue] -= 1
            boundaries[residue + size] -= 1
            gone += total - 1
            finish_ps[task] = end_ps
            ended.append(admission)
            if answers is not None and (not waited or waited[task]):
                answers.append((end_ps, task))
    return ended, gone
