"""The scaling policy ``foresight`` knows when requests will arrive; it is an oracle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.quantities import PositiveSeconds, RatePerSecond
from hermes_flow.program.fleet import ScaledPool, Wanted
from hermes_flow.program.units import NS_PER_S
from hermes_flow.scaling.policy import scaling_policies

_ROUNDING = 1e-9


@scaling_policies.register("foresight")
@dataclass(frozen=True, slots=True)
class Foresight:
    """Wants clients for the requests that arrive in the next windows, of which each client serves ``requests_per_s``.

    It looks as far ahead as a client takes to start, and one window more, and counts the requests of each window of
    ``window_s`` seconds (null: the interval). The fullest window decides. This is the bound for every policy that
    predicts the load.
    """

    requests_per_s: RatePerSecond
    window_s: PositiveSeconds | None = None
    oracle: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"arrivals"})

    def start(self, pool: ScaledPool) -> Wanted:
        """Return the function that counts the requests to come."""
        view = pool.view
        window_ns = pool.interval_ns if self.window_s is None else max(1, round(self.window_s * NS_PER_S))
        windows = -(-pool.startup_ns // window_ns) + 1
        per_window = self.requests_per_s * window_ns / NS_PER_S

        def wanted(now_ns: int) -> int:
            counts = [
                view.arrivals(now_ns + place * window_ns, now_ns + (place + 1) * window_ns)
                for place in range(windows)
            ]
            return math.ceil(max(counts) / per_window - _ROUNDING)

        return wanted
