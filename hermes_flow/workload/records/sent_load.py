"""Says how a benchmark sent its requests: as recorded, by a process at a rate, or by a number of users."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.fields import number, whole
from hermes_flow.workload.records.record_format import Load, Row, closed_loop


def load_of(
    rate: Any, burstiness: Any, users: Any, requests: int, *, timed: bool
) -> tuple[Load | None, list[str]]:
    """Return the load of a run and notes, from its rate per second (inf: at once), burstiness and number of users.

    ``timed``: the file has the time of every request. Recorded times are replayed where a rate was set; without them
    the process is drawn again. Without a rate, users wait for answers, or all requests come at once; a rate that is
    a word, as SGLang's ``trace``, gives no load. Raises
    ValueError where a figure of the load is not positive.
    """
    per_second, most = (None if _endless(rate) else number(rate)), whole(users)
    if isinstance(rate, str) and per_second is None and not _endless(rate):
        return None, [
            f"workload.path: the benchmark sent its requests by {rate!r}, whose times it does not write"
        ]
    shape = None if _endless(burstiness) else number(burstiness)
    for name, value in (("request rate", per_second), ("burstiness", shape), ("number of users", most)):
        if value is not None and value <= 0:
            raise ValueError(f"the {name} is {value:g}; expected a number above 0")
    if per_second is None:
        if most is not None:
            return closed_loop(most), []
        return (None if timed else closed_loop(max(requests, 1))), []
    if most is not None:
        notes = [
            f"workload.path: the benchmark sent {per_second:g} requests per second, but had at most "
            f"{most} in flight; "
            "the limit is not replayed"
        ]
    else:
        notes = []
    if timed:
        return None, notes
    if _endless(burstiness):
        return Load("constant", per_second), notes
    if shape is None or shape == 1.0:
        return Load("poisson", per_second), notes
    return Load({"process": "gamma", "cv": 1.0 / math.sqrt(shape)}, per_second), notes


def _endless(value: Any) -> bool:
    return value in ("inf", math.inf)


def in_flight_note(rows: Sequence[Row]) -> list[str]:
    """Return a note where the requests in flight stay at one number, as in a closed loop."""
    timed = [row for row in rows if row.arrival_ns is not None and row.e2e_ns is not None]
    if len(timed) < len(rows):
        return []
    starts = sorted(row.arrival_ns or 0 for row in timed)
    ends = sorted((row.arrival_ns or 0) + (row.e2e_ns or 0) for row in timed)
    counts = [bisect_right(starts, start) - bisect_right(ends, start) for start in starts]
    most = max(counts, default=0)
    later = counts[most:]
    if most < 1 or len(rows) < 3 * most or sum(count == most for count in later) < 0.9 * len(later):
        return []
    return [
        f"workload.path: requests are replayed at their recorded times, but as many as {most} were "
        "always in flight, as "
        f"with users who wait; workload.arrivals={{process: closed_loop, concurrency: {most}}} replays them so"
    ]
