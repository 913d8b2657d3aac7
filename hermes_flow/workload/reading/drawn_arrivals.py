"""Gives the rows of a trace arrivals of a process, where the file gives only the lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import Ints
from hermes_flow.workload.arrivals import Load, parse_arrivals
from hermes_flow.workload.streams import stream


@dataclass(frozen=True, slots=True)
class DrawnArrivals:
    """Arrivals of rows in the order of the file; ``rows`` of them arrive before the process ends."""

    arrival_ns: Ints
    concurrency: int | None
    think_ns: Ints | None


def drawn_arrivals(
    process: dict[str, Any] | str, rate_per_s: float | None, workload: TraceWorkload, before: Ints
) -> DrawnArrivals:
    """Draw an arrival for every row that waits for no other (``before`` is -1), in the order of the file.

    A process that ends early leaves the last rows out: the columns are as long as the rows that arrive. Raises
    ConfigError where turns wait for answers in a closed loop.
    """
    opening = np.flatnonzero(before < 0)
    load = Load(len(opening), rate_per_s, workload.rate_scale)
    drawn = parse_arrivals(process, "workload.arrivals").arrivals(load, stream(workload.seed, "arrivals"))
    arrival_ns = np.zeros(len(before), dtype=np.int64)
    if drawn.concurrency is not None:
        if len(opening) < len(before):
            problem = "a closed loop; the file has turns that wait for answers, which takes an open process"
            raise ConfigError("workload.arrivals", problem)
        return DrawnArrivals(arrival_ns, drawn.concurrency, drawn.think_ns)
    count = len(drawn.arrival_ns)
    arrival_ns[opening[:count]] = drawn.arrival_ns
    rows = len(before) if count == len(opening) else int(opening[count])
    return DrawnArrivals(arrival_ns[:rows], None, None)
