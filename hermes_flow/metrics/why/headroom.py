"""Estimates how far the load of a run that meets its SLO can grow, and which bound fails first."""

from __future__ import annotations

import math
from typing import Any

from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.llm_model import LLMLoad, LLMState, state_of, with_limits
from hermes_flow.metrics.why.loads import Saturation, llm_load
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import log

_MOST = 64.0
_ROUNDS = 18
_FULL = 0.98  # of the work that a pool can do: beyond it the backlog grows


@dataclass(frozen=True, slots=True)
class Headroom:
    """The estimate: the load may grow to ``factor`` times what it is; then ``fails`` is missed first.

    ``fails`` is the name of a bound, or "backlog" where a pool has no more work to give; ``pool`` is that pool.
    """

    factor: float
    fails: str
    pool: str | None


def estimate_headroom(
    clients: Clients, bounds: dict[str, dict[str, Any]], saturations: dict[str, Saturation]
) -> Headroom | None:
    """Return the estimated headroom; None where answers set the pace of arrivals, or no pool's load is known.

    The measured value of every bound grows by the estimated growth of waits and steps.
    """
    works = {name: own.work for name, own in saturations.items() if own.work}
    if clients.recording.program.followed or not works:
        return None
    loads = [llm_load(clients, index) for index in range(len(clients.recording.program.pools))]
    known = [(load, state_of(load)) for load in loads if load is not None]
    pool = max(works, key=lambda name: works[name] or 0.0)
    most = min(_MOST, _FULL / (works[pool] or 1.0))
    if most <= 1:
        return Headroom(1.0, "backlog", pool)

    def missed(factor: float) -> str | None:
        grown = [(load, now, state_of(with_limits(load, rate=factor))) for load, now in known]
        return next((name for name, bound in bounds.items() if _value(name, bound, grown) > 1), None)

    if missed(most) is None:
        return Headroom(most, "backlog", pool)
    low, high = 1.0, most
    for _ in range(_ROUNDS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if missed(middle) is None else (low, middle)
    return Headroom(low, missed(high) or "backlog", None)


def _value(name: str, bound: dict[str, Any], grown: list[tuple[LLMLoad, LLMState, LLMState]]) -> float:
    """Return the estimated value of a bound as a share of its limit.

    ``grown`` has each pool's load, its state now and its state at the load that is asked for.
    """
    if not bound.get("limit_s") or bound.get("value_s") is None:
        return 0.0
    metric, percentile, _ = name.rsplit("_", 2)
    basic = metric.rpartition(".")[2] if metric.startswith(("pipelines.", "classes.")) else metric
    # The percentile of an exponential wait, as a multiple of its mean.
    tail = -float(log(max(1e-3, 1 - float(percentile[1:]) / 100)))
    value, limit = float(bound["value_s"]), float(bound["limit_s"])
    steps, added = 1.0, 0.0
    for load, now, then in grown:
        if load.output > 0:
            steps *= (then.decode_s + then.mixed_s) / max(now.decode_s + now.mixed_s, 1e-12)
        added += tail * (then.wait_s - now.wait_s) + then.prefill_s - now.prefill_s
    if basic in ("tpot", "itl"):
        return value * steps / limit
    if basic == "ttft":
        return (value + added) / limit
    return (value * (steps if basic == "e2e" else 1.0) + added) / limit
