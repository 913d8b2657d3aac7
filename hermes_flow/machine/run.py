"""Runs a Program on its machine and returns its recording."""

from __future__ import annotations

import gc
import struct
import time
from collections.abc import Callable

from hermes_flow.config.plugin_faults import plugin_fault
from hermes_flow.errors import HermesFlowError
from hermes_flow.machine.arrivals import KnownArrivals
from hermes_flow.machine.engine import ARRIVALS_PER_SETTLE
from hermes_flow.machine.host_ahead import host_ahead
from hermes_flow.machine.wiring import Machine
from hermes_flow.program.freed_memory import MANY_REQUESTS, give_back
from hermes_flow.program.program import Program
from hermes_flow.recording.check_times import check_times
from hermes_flow.recording.recording import Recording

Progress = Callable[[int], None]
Watch = Callable[[Callable[[], Recording], int], bool]


def run(
    program: Program,
    progress: Progress | None = None,
    watch: Watch | None = None,
    every: int = ARRIVALS_PER_SETTLE,
) -> Recording:
    """Simulate ``program`` to its end; ``progress`` is called with the simulated nanoseconds now and then.

    ``watch(snapshot, now_ns)`` is called after every ``every`` arrivals and after the last one; ``snapshot()`` gives
    a Recording of what has happened so far, without clients and links, in which -1 stands for what has not. The run
    ends early where ``watch`` returns True, and what is returned is then such a snapshot.
    """
    if program.stream_requests is not None:
        return _run_windowed(program, progress, watch)
    wall, cpu = time.perf_counter(), time.process_time()
    collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, and a run keeps millions of small objects alive
    try:
        ahead = host_ahead(program) if watch is None else None
        machine = Machine(program, ahead)
        stopped = False

        def look(now_ns: int) -> bool:
            nonlocal stopped
            assert watch is not None
            stopped = watch(machine.snapshot, now_ns)
            return stopped

        if isinstance(machine.source, KnownArrivals):
            every = 1  # each stands for many
        machine.engine.run(progress, None if watch is None else look, every)
        if stopped:
            return machine.snapshot()
        if not machine.complete_host():
            machine = Machine(program)
            machine.engine.run(progress)
        recording = machine.record(time.perf_counter() - wall, time.process_time() - cpu)
        if len(program.requests) >= MANY_REQUESTS:
            del machine  # its parts refer to each other, and would stay while the tables are built
            gc.collect()
            give_back(len(program.requests))
        return check_times(recording)
    except (struct.error, OverflowError) as error:
        if plugin_fault(error) is not None:
            raise
        raise HermesFlowError(
            "the run goes past 106 days of simulated time, where its clock (64 bits of picoseconds) ends; "
            "expected a shorter load, as with workload.requests, or a part of a trace (workload.start and "
            "workload.duration)"
        ) from None
    finally:
        if collecting:
            gc.enable()


def _run_windowed(program: Program, progress: Progress | None, watch: Watch | None) -> Recording:
    """Simulate a program in windows; raises HermesFlowError where somebody watches the whole run."""
    from hermes_flow.machine.windowed import run_windowed

    if watch is not None:
        raise HermesFlowError(
            f"output.stream_requests: {program.stream_requests}, but a search looks at runs before their end; "
            "expected null"
        )
    return check_times(run_windowed(program, progress))
