"""Where the mean end-to-end time of a run goes: seconds of a request by stage and cause, from its summary alone."""

from __future__ import annotations

import math
from typing import Any

CAUSES = ("queue", "transfer", "service")


def stage_times(summary: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Return, by stage and cause, the mean seconds of a request on its critical path.

    They add up to the mean E2E. The share of a stage on the critical paths is exact; where stages run side by side,
    its division into queue, transfer and service is that of all of its tasks. Empty if no request completed.
    """
    path, mean = summary["critical_path"]["mean"], summary["e2e_s"]["mean"]
    if path is None or mean is None:
        return {}
    times = {}
    for stage, figures in summary["stages"].items():
        total = figures["mean_s"] or 0.0
        queue, service = figures["queue_mean_s"] or 0.0, figures["service_mean_s"] or 0.0
        transfer = total - queue - service
        parts = (queue, transfer if transfer > 1e-9 * total else 0.0, service)
        whole = math.fsum(parts)
        on_path = path["shares"].get(stage, 0.0) * mean
        for cause, part in zip(CAUSES, parts, strict=True):
            times[stage, cause] = on_path * part / whole if whole else 0.0
    return times
