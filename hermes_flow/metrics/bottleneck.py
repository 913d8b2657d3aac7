"""Finds the bottleneck of a run, its cause, and whether the system keeps up with its load.

This is a heuristic for the first sentence of a report, not a proof. The docstrings below give its two rules.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hermes_flow.program.held_contexts import holding_readers
from hermes_flow.recording.recording import Recording

_FEWEST_ARRIVALS = 20
_OUTSIDE = ("gateway", "round_trip", "earlier_tries")  # parts of a request's time that are in no stage
_HARDLY = 0.05  # below this share of a stage's time, waiting is called negligible


def find_limits(
    recording: Recording,
    stages: dict[str, dict[str, float | None]],
    pool_of: dict[str, str],
    path: dict[str, Any],
) -> dict[str, Any]:
    """Return ``{pool, stage, share_of_e2e, cause, saturated, text}`` of a run.

    The limiting stage has the largest share of the critical paths, and so of the mean end-to-end latency; ``cause``
    is "queueing" if its tasks on average wait longer than they are served, else "service". ``stages`` and ``path``
    are the sections of the summary with these names, and ``pool_of`` gives the pool of each stage. If no request
    completed, all values except ``saturated`` and ``text`` are None.
    """
    if path["mean"] is None:
        nothing = dict.fromkeys(("pool", "stage", "share_of_e2e", "cause"))
        text = "No request completed, so no stage limits the run."
        return {**nothing, "saturated": False, "text": text}
    stage, share, slowest = path["mean"]["stage"], path["mean"]["share"], path["p99"]
    held = path["mean"]["shares"].get("gateway", 0.0)
    away = path["mean"]["shares"].get("round_trip", 0.0)
    if stage in _OUTSIDE:
        shares = {name: part for name, part in path["mean"]["shares"].items() if name not in _OUTSIDE}
        stage = max(shares, key=lambda name: shares[name])
        share = shares[stage]
    queue_s, service_s = stages[stage]["queue_mean_s"] or 0.0, stages[stage]["service_mean_s"] or 0.0
    cause = "queueing" if queue_s > service_s else "service"
    waiting = queue_s / (queue_s + service_s) if queue_s + service_s else 0.0
    pool = pool_of[stage]
    text = f"Bottleneck: {stage} on pool {pool} takes {_percent(share)} of the end-to-end time"
    text += (
        "; requests hardly queue for it."
        if waiting < _HARDLY
        else f"; {_percent(waiting)} of that is queueing{_for_blocks(recording, stage)}."
    )
    if held > share:
        text = f"Requests wait at the gateway for {_percent(held)} of the end-to-end time. {text}"
    if away > share:
        text = f"Requests are between users and sites for {_percent(away)} of the end-to-end time. {text}"
    if slowest is not None and slowest["stage"] not in (stage, *_OUTSIDE):
        share_of_slowest = _percent(slowest["share"])
        text += f" In the slowest 1 % of requests {slowest['stage']} takes the most time, {share_of_slowest}."
    backlog = backlog_growth(recording)
    if backlog is not None:
        early, late = backlog
        text += (
            f" The requests in flight rose from {early:,.0f} to {late:,.0f} while requests arrived:"
            " the load exceeds the capacity, or the run is too short to settle."
        )
    return {
        "pool": pool,
        "stage": stage,
        "share_of_e2e": share,
        "cause": cause,
        "saturated": backlog is not None,
        "text": text,
    }


def _for_blocks(recording: Recording, stage: str) -> str:
    """Return what a retrieval queues for where prompts get their blocks before it; empty for other stages."""
    program = recording.program
    readers = [
        program.ops[reader].pool
        for number, op in enumerate(program.ops)
        if stage in op.stages
        for reader in holding_readers(program, number)
    ]
    return f" for blocks on pool {program.pools[readers[0]].name}" if readers else ""


def backlog_growth(recording: Recording) -> tuple[float, float] | None:
    """Return the mean number of requests in flight in the second and the last fifth of arrivals, if it grew.

    Growth counts when it exceeds two standard deviations of what chance gives a system loaded to exactly
    its capacity: over m Poisson arrivals, arrivals minus completions wander by about √m. Of sessions only the
    first requests count as arrivals, which come whatever the system does; the later ones are in flight all the
    same. None where it did not grow so much, with fewer than 20 arrivals completed, and in closed loops, whose
    arrivals all wait for completions.
    """
    requests = recording.program.requests
    if requests.concurrency is not None:
        return None
    completed = recording.status == 0
    opening = completed if requests.previous is None else completed & (requests.previous < 0)
    arrival_ns = np.sort(recording.arrival_ns[opening])
    count = len(arrival_ns)
    if count < _FEWEST_ARRIVALS:
        return None
    later_ns = np.sort(recording.arrival_ns[completed & ~opening])
    finish_ns = np.sort(recording.finish_ns[completed])

    def in_flight(first: int, last: int) -> float:
        """Return the mean number of requests in flight at some of the arrivals."""
        at_ns = arrival_ns[first:last]
        found = np.arange(first + 1, last + 1)
        found += np.searchsorted(later_ns, at_ns, side="right")
        found -= np.searchsorted(finish_ns, at_ns, side="right")
        return int(found.sum()) / len(found)

    fifth = count // 5
    early, late = in_flight(fifth, 2 * fifth), in_flight(count - fifth, count)
    if late - early <= 2 * math.sqrt(count - 2 * fifth):
        return None
    return early, late


def _percent(fraction: float) -> str:
    """Return a share in whole percent, with a decimal where rounding would make all of nearly all."""
    return f"{100 * fraction:.1f} %" if 0.99 < fraction < 0.9995 else f"{100 * fraction:.0f} %"
