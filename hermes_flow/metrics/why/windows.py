"""The requests that a bound is about, and the part of their time that counts for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.latency import Latencies
from hermes_flow.metrics.objectives import request_values
from hermes_flow.program.program import SLOBounds
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import Recording

_MOST_REQUESTS = 2000


@dataclass(frozen=True, slots=True)
class Window:
    """Requests, by index, and from when to when the time of each counts, in nanoseconds.

    With ``stage`` only the time in that stage counts. ``missing`` is the number of requests beyond the limit, of
    which the window may hold an even sample. ``late`` tells whether they are all requests (False) or only those.
    """

    rows: Ints
    begin_ns: Ints
    end_ns: Ints
    missing: int
    stage: str | None = None


def window_of(recording: Recording, found: Latencies, metric: str, limit_s: float) -> Window | None:
    """Return the requests beyond a limit and the time that counts; None where there are none.

    Gaps between tokens belong to no single request: all requests with a decode count for them.
    """
    basic = metric.rpartition(".")[2] if metric.startswith(("pipelines.", "classes.")) else metric
    values = request_values(recording, found, SLOBounds("", {metric: {}}))
    if basic == "itl":
        late = ~np.isnan(found.tpot_s)
    elif metric in values:
        late = values[metric] > limit_s
    else:
        return None
    rows = np.flatnonzero(late & (recording.status == 0))
    missing = len(rows)
    if not missing:
        return None
    if missing > _MOST_REQUESTS:
        rows = rows[np.linspace(0, missing - 1, _MOST_REQUESTS).astype(np.int64)]
    begin, end = recording.arrival_ns[rows], recording.finish_ns[rows]
    if basic == "ttft":
        end = found.answer.first_ns[rows]
    elif basic in ("tpot", "itl"):
        begin, end = found.answer.first_ns[rows], found.answer.finish_ns[rows]
    stage = metric.partition(".")[2] if metric.startswith("stages.") else None
    return Window(rows, begin, end, missing, stage)


def late_mask(window: Window, count: int) -> NDArray[np.bool_]:
    """Return the requests of a window as a mask over all ``count`` requests."""
    mask = np.zeros(count, np.bool_)
    mask[window.rows] = True
    return mask
