"""Explains a missed bound: the causes of the time of late requests, and the resource behind them."""

from __future__ import annotations

import math
from typing import Any

from hermes_flow.metrics.latency import Latencies
from hermes_flow.metrics.objectives import attainment_limits, request_values
from hermes_flow.metrics.why.cause_times import cause_times
from hermes_flow.metrics.why.causes import Part
from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.reliefs import Relief, reliefs
from hermes_flow.metrics.why.windows import window_of
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import total
from hermes_flow.recording.recording import Recording


@dataclass(frozen=True, slots=True)
class Missed:
    """The explanation of one missed bound.

    ``metric`` is what it bounds, ``missing`` the number of late requests, ``seconds`` their time by part, and
    ``reliefs`` the resources in the order of the time that more of them would save.
    """

    bound: str
    metric: str
    missing: int
    seconds: dict[Part, float]
    reliefs: tuple[Relief, ...]

    @property
    def shares(self) -> dict[Part, float]:
        """The share of the late requests' time by part, the largest first."""
        total = math.fsum(self.seconds.values()) or 1.0
        ranked = sorted(self.seconds.items(), key=lambda entry: -entry[1])
        return {part: time / total for part, time in ranked if time > 0}


def explain_missed(
    recording: Recording, found: Latencies, bounds: dict[str, dict[str, Any]], clients: Clients
) -> Missed | None:
    """Return why the bound that is missed by most fails; None where all are met or no late request completed."""
    late = {name: _excess(bound) for name, bound in bounds.items() if not bound["met"]}
    for name in sorted(late, key=lambda name: -late[name]):
        metric, limit_s = _metric(recording, found, name, bounds[name])
        window = window_of(recording, found, metric, limit_s)
        if window is None:
            continue
        times = cause_times(recording, window, clients)
        seconds = {part: total(values) for part, values in times.items() if values.any()}
        return Missed(name, metric, window.missing, seconds, tuple(reliefs(clients, seconds)))
    return None


def _excess(bound: dict[str, Any]) -> float:
    """Return by which factor a bound is missed."""
    if "limit_share" in bound:
        return float(bound["limit_share"] / max(bound["value_share"] or 0.0, 1e-3))
    return float((bound["value_s"] or 0.0) / bound["limit_s"])


def _metric(recording: Recording, found: Latencies, name: str, bound: dict[str, Any]) -> tuple[str, float]:
    """Return the metric of a bound and its limit; of an attainment those that most requests miss."""
    slo = recording.program.slo
    limits = attainment_limits(slo, name)
    if not limits:
        return name.rsplit("_", 2)[0], bound["limit_s"]
    values = request_values(recording, found, slo)
    worst = max(limits, key=lambda metric: int((values[metric] > limits[metric]).sum()))
    return worst, limits[worst]
