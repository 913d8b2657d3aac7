"""Finds the bounds that a run is certain to miss while it still runs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.answer_times import answers
from hermes_flow.metrics.objectives import attainments, bound_name, own_requests
from hermes_flow.program.program import Program
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.recording import Recording

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def certainly_missed(snapshot: Recording, now_ns: int) -> tuple[str, ...]:
    """Return the bounds that the finished run is certain to miss, by what has happened until ``now_ns``.

    A request's latency is at least what it is so far. Of n requests that complete, the percentile p (interpolated
    linearly) lies above a limit for certain once n − ⌊(n − 1)·p/100⌋ of them are above it. Where requests can fail
    later, as many of those above the limit may do so as the bound allows, and no longer count then. An attainment is
    missed once more requests than it allows are above one of its limits.
    """
    program = snapshot.program
    at_least = _latencies_so_far(snapshot, now_ns)
    alive = snapshot.status == 0
    missed = []
    for metric, limits in program.slo.bounds.items():
        values = _values_of(at_least, metric)
        own = own_requests(snapshot, metric)
        total, completed = int(own.sum()), int((own & alive).sum())
        if values is None or not completed:
            continue
        for percentile, limit_s in sorted(limits.items()):
            above = int((own & alive & (values > limit_s)).sum())
            if _can_fail(program):
                may_fail = math.floor(total * (100 - percentile) / 100 + 1e-9) - (total - completed)
                above -= max(0, may_fail)
                counted = completed - max(0, may_fail)
            else:
                counted = completed
            if counted > 0 and above >= counted - math.floor((counted - 1) * percentile / 100 + 1e-9):
                missed.append(bound_name(metric, percentile))
    for name, wanted in attainments(program.slo).items():
        own = own_requests(snapshot, name)
        missing = ~alive
        for metric, limit_s in wanted.limits.items():
            values = _values_of(at_least, metric)
            if values is not None:
                missing = missing | (values > limit_s)
        count = int(own.sum())
        if count and 1.0 - int((own & missing).sum()) / count < wanted.share - 1e-9:
            missed.append(name)
    return tuple(missed)


def _can_fail(program: Program) -> bool:
    """Return whether a request that has arrived may end without its answer."""
    elastic = any(pool.fleet is not None for pool in program.pools)
    return program.followed or elastic


def _values_of(at_least: dict[str, Floats], metric: str) -> Floats | None:
    """Return the latencies that a metric is about; None where they are known at the end only.

    A metric of a pipeline, or of a class, has the name of its latency last.
    """
    area, _, _ = metric.partition(".")
    return at_least.get(metric.rpartition(".")[2] if area in ("pipelines", "classes") else metric)


def _latencies_so_far(snapshot: Recording, now_ns: int) -> dict[str, Floats]:
    """Return a lower bound of each latency of the requests that have arrived; 0 where nothing is known."""
    program, answer = snapshot.program, answers(snapshot)
    here = (snapshot.status == 0) & (snapshot.arrival_ns <= now_ns)
    if program.requests.wait_for_answers:  # later arrivals are not known yet: they are -1
        here &= snapshot.arrival_ns >= 0
    waited_s = np.where(here, now_ns - snapshot.arrival_ns, 0) / NS_PER_S
    emitted, ended = here & (answer.first_ns >= 0), here & (answer.finish_ns >= 0)
    found = {
        "ttft": np.where(
            _answered(program),
            np.where(emitted, (answer.first_ns - snapshot.arrival_ns) / NS_PER_S, waited_s),
            0.0,
        ),
        "e2e": np.where(ended, (answer.finish_ns - snapshot.arrival_ns) / NS_PER_S, waited_s),
    }
    if not program.answers:
        del found["ttft"]
    if len(program.answers) == 1:
        until = np.where(ended, answer.finish_ns, np.maximum(now_ns, answer.first_ns))
        gaps = np.maximum(answer.output_tokens - 1, 1) * float(NS_PER_S)
        several = emitted & (answer.output_tokens > 1)
        found["tpot"] = np.where(several, (until - answer.first_ns) / gaps, 0.0)
    return found


def _answered(program: Program) -> Mask:
    """Return which requests take an op that writes an answer; the others have no TTFT."""
    found = np.zeros(len(program.requests), np.bool_)
    for index in program.answers:
        taken = program.ops[index].taken
        found |= True if taken is None else taken
    return found
