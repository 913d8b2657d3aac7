"""Judges one simulation: whether it meets its SLO and sustains its load."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hermes_flow.machine.run import run
from hermes_flow.metrics.bottleneck import backlog_growth
from hermes_flow.metrics.latency import latencies
from hermes_flow.metrics.objectives import bound_results
from hermes_flow.planning.certain_misses import certainly_missed
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
            stopped.append((certainly_missed(snapshot(), now_ns), now_ns))
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
        return bool(certainly_missed(snapshot(), now_ns))

    return missed


def _unfinished_later(snapshot: Recording) -> Recording:
    """Return the snapshot with every request that is not over finished after every arrival."""
    from dataclasses import replace

    unfinished = np.zeros(len(snapshot.arrival_ns), dtype=np.bool_)
    for op, record in zip(snapshot.program.ops, snapshot.ops, strict=True):
        taken = True if op.taken is None else op.taken
        unfinished |= taken & (record.finish_ns < 0)
    finish = np.where(unfinished & (snapshot.status == 0), _LATER, snapshot.finish_ns)
    return replace(snapshot, finish_ns=finish)
