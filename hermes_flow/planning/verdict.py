"""Judges one simulation: whether it meets its SLO and sustains its load."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.machine.wiring import run
from hermes_flow.metrics.answer_times import answers
from hermes_flow.metrics.bottleneck import backlog_growth
from hermes_flow.metrics.latency import latencies
from hermes_flow.metrics.objectives import bound_name, bound_results
from hermes_flow.program.program import Program
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.recording import Recording

CANNOT_RUN = "cannot run"  # in place of the bounds that fail
_LOOKS = 24  # how often a run is looked at while requests arrive
_LATER = np.iinfo(np.int64).max // 4  # the finish of a request that is not over: after every arrival


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one simulation for a design at one load.

    ``met`` tells whether every bound of the SLO is met, ``failing`` names the bounds that are not. ``sustained``
    tells whether the number of requests in flight stopped growing before the last arrival; None where the run was
    stopped before that is known. ``bounds`` are those of the summary, empty for a run that was stopped early.
    ``share`` is the part of the requests that had arrived when the run ended, ``cpu_s`` the CPU seconds it took,
    ``rate_per_s`` the mean rate of arrivals.
    """

    met: bool
    sustained: bool | None
    failing: tuple[str, ...]
    bounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    share: float = 1.0
    cpu_s: float = 0.0
    requests: int = 0
    rate_per_s: float | None = None

    @property
    def can_run(self) -> bool:
        """Whether there was a simulation; a value at which the design cannot run is no miss of a bound."""
        return self.failing != (CANNOT_RUN,)


def judge(program: Program, *, early: bool = True) -> Verdict:
    """Simulate ``program`` and return its verdict; with ``early``, stop once a bound is certain to be missed."""
    return _simulate(program, _stop_when_missed(program) if early and _can_stop(program) else None)


def judge_backlog(program: Program) -> bool:
    """Return whether the load of ``program`` is sustained; the run ends with its last arrival."""

    def at_last_arrival(snapshot: Callable[[], Recording], now_ns: int) -> bool:
        return now_ns >= last_ns

    if not _can_stop(program) or program.followed:
        return backlog_growth(run(program)) is None
    last_ns = int(program.requests.arrival_ns.max(initial=0))
    return backlog_growth(_unfinished_later(run(program, watch=at_last_arrival))) is None


def _simulate(program: Program, watch: Callable[[Callable[[], Recording], int], bool] | None) -> Verdict:
    before = time.process_time()
    stopped: list[tuple[tuple[str, ...], int]] = []

    def look(snapshot: Callable[[], Recording], now_ns: int) -> bool:
        assert watch is not None
        if watch(snapshot, now_ns):
            stopped.append((_certainly_missed(snapshot(), now_ns), now_ns))
            return True
        return False

    count = len(program.requests)
    every = max(32, count // _LOOKS)
    recording = run(program, watch=None if watch is None else look, every=every)
    cpu_s = time.process_time() - before
    rate = _rate(program)
    if stopped:
        failing, now_ns = stopped[0]
        arrived = int((recording.arrival_ns <= now_ns).sum())
        sustained = None
        if arrived == count and not program.followed:
            sustained = backlog_growth(_unfinished_later(recording)) is None
        return Verdict(False, sustained, failing, {}, arrived / count, cpu_s, count, rate)
    bounds = bound_results(recording, latencies(recording))
    failing = tuple(name for name, bound in bounds.items() if not bound["met"])
    sustained = backlog_growth(recording) is None
    return Verdict(not failing, sustained, failing, bounds, 1.0, cpu_s, count, rate)


def _rate(program: Program) -> float | None:
    """Return the mean rate of arrivals in requests a second; None where answers set the pace."""
    requests = program.requests
    if requests.wait_for_answers or len(requests) < 2:
        return None
    span_ns = int(requests.arrival_ns[-1] - requests.arrival_ns[0])
    return (len(requests) - 1) * NS_PER_S / span_ns if span_ns else None


def _can_stop(program: Program) -> bool:
    """Return whether it is known before the end which ops a request takes: no load decides."""
    return not program.load_routes


def _stop_when_missed(program: Program) -> Callable[[Callable[[], Recording], int], bool]:
    def missed(snapshot: Callable[[], Recording], now_ns: int) -> bool:
        return bool(_certainly_missed(snapshot(), now_ns))

    return missed


def _certainly_missed(snapshot: Recording, now_ns: int) -> tuple[str, ...]:
    """Return the bounds that the finished run is certain to miss, by what has happened until ``now_ns``.

    A request's latency is at least what it is so far. Of n requests that complete, the percentile p (interpolated
    linearly) lies above a limit for certain once n − ⌊(n − 1)·p/100⌋ of them are above it.
    """
    program = snapshot.program
    at_least = _latencies_so_far(snapshot, now_ns)
    completed = int((snapshot.status == 0).sum())
    missed = []
    for metric, limits in program.slo.bounds.items():
        values = at_least.get(metric)
        if values is None or not completed:
            continue
        for percentile, limit_s in sorted(limits.items()):
            above = int((values > limit_s).sum())
            if above >= completed - math.floor((completed - 1) * percentile / 100 + 1e-9):
                missed.append(bound_name(metric, percentile))
    return tuple(missed)


def _latencies_so_far(snapshot: Recording, now_ns: int) -> dict[str, NDArray[np.float64]]:
    """Return a lower bound of each latency of the requests that have arrived; 0 where nothing is known."""
    program, answer = snapshot.program, answers(snapshot)
    here = (snapshot.status == 0) & (snapshot.arrival_ns <= now_ns)
    if program.requests.wait_for_answers:  # later arrivals are not known yet: they are -1
        here &= snapshot.arrival_ns >= 0
    waited_s = np.where(here, now_ns - snapshot.arrival_ns, 0) / NS_PER_S
    emitted, ended = here & (answer.first_ns >= 0), here & (answer.finish_ns >= 0)
    found = {
        "ttft": np.where(emitted, (answer.first_ns - snapshot.arrival_ns) / NS_PER_S, waited_s),
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


def _unfinished_later(snapshot: Recording) -> Recording:
    """Return the snapshot with every request that is not over finished after every arrival."""
    from dataclasses import replace

    unfinished = np.zeros(len(snapshot.arrival_ns), dtype=np.bool_)
    for op, record in zip(snapshot.program.ops, snapshot.ops, strict=True):
        taken = True if op.taken is None else op.taken
        unfinished |= taken & (record.finish_ns < 0)
    finish = np.where(unfinished & (snapshot.status == 0), _LATER, snapshot.finish_ns)
    return replace(snapshot, finish_ns=finish)
