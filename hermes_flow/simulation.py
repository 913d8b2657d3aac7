"""Simulates a Program and returns its Result."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.machine.run import run
from hermes_flow.metrics.result import Result
from hermes_flow.program.program import Program


def simulate(program: Program, progress: Callable[[int], None] | None = None) -> Result:
    """Run ``program`` to its end and return what happened.

    ``progress``, if given, is called now and then with the simulated nanoseconds so far.
    """
    return Result(run(program, progress))
