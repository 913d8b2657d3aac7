"""The measures of a pool's load that the policy ``target`` compares with its target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from hermes_flow.program.fleet import FleetView, ScaledPool
from hermes_flow.program.units import NS_PER_S

Metric: TypeAlias = Literal[
    "queued_per_client",
    "in_flight_per_client",
    "waiting_tokens_per_client",
    "arrivals_per_s_per_client",
    "kv_use",
]
METRICS: tuple[str, ...] = get_args(Metric)


def total(metric: Metric, pool: ScaledPool) -> Callable[[int], float]:
    """Return the function that sums a metric over the clients of a pool at an instant in nanoseconds."""
    view = pool.view
    totals: dict[str, Callable[[int], float]] = {
        "queued_per_client": view.queued,
        "in_flight_per_client": lambda now_ns: view.in_hand(),
        "waiting_tokens_per_client": view.waiting_tokens,
        "arrivals_per_s_per_client": _Arrivals(view, pool.interval_ns),
        "kv_use": lambda now_ns: view.kv_use(now_ns) * view.up(),
    }
    return totals[metric]


class _Arrivals:
    """The tasks per second that came to the pool since the last call, which is one interval ago."""

    def __init__(self, view: FleetView, interval_ns: int) -> None:
        self._view = view
        self._interval_ns = interval_ns
        self._before = 0

    def __call__(self, now_ns: int) -> float:
        before, self._before = self._before, self._view.arrived()
        return (self._before - before) * NS_PER_S / self._interval_ns
