"""Finds the critical path of each request, and how much time each stage takes on it.

The path goes back from the op that finished last to the one that it waited for, and so on to the arrival. So its
parts add up to the end-to-end latency, also where stages run side by side. Of an op with a token of whose answer the
next one on the path begins, only what comes before that token is on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.rows import pieces
from hermes_flow.program.ops import Op
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import OpRecord, Recording

Mask = NDArray[np.bool_]
_KINDS = ("queue", "transfer", "service")


@dataclass(frozen=True, slots=True)
class Parts:
    """The part of one stage in the critical paths, a row per request, in nanoseconds; 0 if it is not on the path."""

    queue_ns: Ints
    transfer_ns: Ints
    service_ns: Ints

    @property
    def total_ns(self) -> Ints:
        """The total of all parts."""
        return self.queue_ns + self.transfer_ns + self.service_ns


def critical_path(recording: Recording) -> dict[str, Parts]:
    """Return every stage's part of the critical paths, in the order of the pipeline."""
    ops = recording.program.ops
    on_path, until_ns = ops_on_path(recording)
    parts: dict[str, Parts] = {}
    if recording.admitted_ns is not None:
        done, none = recording.status == 0, np.zeros(len(recording.status), dtype=np.int64)
        waited = recording.admitted_ns - recording.arrival_ns
        if recording.travel is not None:  # the gateway stands at the site
            waited = waited - recording.travel.out_ns - recording.travel.before_ns
        parts["gateway"] = Parts(np.where(done, waited, 0), none, none)
    if recording.travel is not None:
        done, none = recording.status == 0, np.zeros(len(recording.status), dtype=np.int64)
        parts["round_trip"] = Parts(none, np.where(done, recording.travel.both_ns, 0), none)
        if recording.travel.before_ns.any():
            parts["earlier_tries"] = Parts(np.where(done, recording.travel.before_ns, 0), none, none)
    for op, record, here, until in zip(ops, recording.ops, on_path, until_ns, strict=True):
        own = here & (record.client >= 0) & (recording.status == 0)
        if until is not None:
            record = replace(record, finish_ns=np.minimum(record.finish_ns, until))
        for stage, part in _stages(op, record, own):
            before = parts.get(stage)
            parts[stage] = part if before is None else _sum(before, part)
    return parts


def path_figures(recording: Recording) -> dict[str, Any]:
    """Return what dominates the mean and the slowest requests (at or beyond the P99 of E2E), as shares of their time.

    Each has the ``stage`` with the largest ``share``, the shares of queueing, transfer and service, and all
    ``shares`` by stage; None where no request completed.
    """
    completed = recording.status == 0
    if not completed.any():
        return {"mean": None, "p99": None}
    limit_ns = np.percentile((recording.finish_ns - recording.arrival_ns)[completed], 99)
    mean, slowest = _Totals(), _Totals()
    for _, piece in pieces(recording):
        done = piece.status == 0
        slow = done & (piece.finish_ns - piece.arrival_ns >= limit_ns)
        parts = critical_path(piece)
        mean.add(parts, done)
        slowest.add(parts, slow)
    return {"mean": mean.dominating(), "p99": slowest.dominating()}


class _Totals:
    """The nanoseconds of each stage on the critical paths of some requests, by queue, transfer and service."""

    def __init__(self) -> None:
        self._by_stage: dict[str, list[int]] = {}

    def add(self, parts: Mapping[str, Parts], chosen: Mask) -> None:
        """Add the parts of the chosen requests."""
        for stage, part in parts.items():
            own = self._by_stage.setdefault(stage, [0] * len(_KINDS))
            for place, column in enumerate((part.queue_ns, part.transfer_ns, part.service_ns)):
                own[place] += int(column[chosen].sum())

    def dominating(self) -> dict[str, Any] | None:
        """Return the stage with the largest share, and all shares; None where no time was taken."""
        return _dominating(self._by_stage)


def _dominating(by_stage: Mapping[str, list[int]]) -> dict[str, Any] | None:
    totals = {stage: sum(own) for stage, own in by_stage.items()}
    total = sum(totals.values())
    if not total:
        return None
    stage = max(totals, key=lambda name: totals[name])
    kinds = {kind: sum(own[place] for own in by_stage.values()) / total for place, kind in enumerate(_KINDS)}
    return {
        "stage": stage,
        "share": totals[stage] / total,
        **{f"{kind}_share": share for kind, share in kinds.items()},
        "shares": {name: time / total for name, time in totals.items()},
    }


def ops_on_path(recording: Recording) -> tuple[list[Mask], list[Ints | None]]:
    """Return for each op which requests have it on their path, and until when (None: its end)."""
    ops, count = recording.program.ops, len(recording.program.requests)
    ends: list[Ints] = []
    for op, record in zip(ops, recording.ops, strict=True):
        before = np.maximum.reduce([ends[index] for index in op.after]) if op.after else recording.arrival_ns
        ends.append(np.where(record.client >= 0, record.finish_ns, before))
    on_path = [np.zeros(count, dtype=np.bool_) for _ in ops]
    until: list[Ints | None] = [None] * len(ops)
    followed = {before for op in ops for before in op.after if op.at_token is None}
    _choose([index for index in range(len(ops)) if index not in followed], ends, on_path, None)
    for index in reversed(range(len(ops))):
        op, record = ops[index], recording.ops[index]
        _choose(list(op.after), ends, on_path, on_path[index])
        if op.at_token is not None:
            begins = np.where(on_path[index] & (record.client >= 0), record.ready_ns, np.iinfo(np.int64).max)
            for before in op.after:
                earlier = until[before]
                until[before] = begins if earlier is None else np.minimum(earlier, begins)
    return on_path, until


def _choose(among: list[int], ends: list[Ints], on_path: list[Mask], where: Mask | None) -> None:
    """Put the op that ended last on the path, the first of equals."""
    if not among:
        return
    last = np.argmax(np.stack([ends[index] for index in among]), axis=0) if len(among) > 1 else None
    for place, index in enumerate(among):
        chosen = np.ones(len(ends[index]), dtype=np.bool_) if last is None else last == place
        on_path[index] |= chosen if where is None else chosen & where


def _stages(op: Op, record: OpRecord, own: Mask) -> list[tuple[str, Parts]]:
    """Return an op's part by stage: a fused prefill and decode come apart at the first token."""
    zero = np.zeros(len(own), dtype=np.int64)
    transfer = zero if record.transfer_ns is None else np.where(own, record.transfer_ns, 0)
    queue = np.where(own, record.start_ns - record.ready_ns, 0) - transfer
    if op.comes_apart and record.first_ns is not None:
        first = Parts(queue, transfer, np.where(own, record.first_ns - record.start_ns, 0))
        return [
            (op.stages[0], first),
            (op.stages[1], Parts(zero, zero, np.where(own, record.finish_ns - record.first_ns, 0))),
        ]
    return [
        ("+".join(op.stages), Parts(queue, transfer, np.where(own, record.finish_ns - record.start_ns, 0)))
    ]


def _sum(one: Parts, other: Parts) -> Parts:
    return Parts(
        one.queue_ns + other.queue_ns, one.transfer_ns + other.transfer_ns, one.service_ns + other.service_ns
    )
