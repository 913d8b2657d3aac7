"""The scaling policy ``slo`` adds clients while too few requests keep the limits of the SLO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.quantities import Count, PositiveSeconds, PositiveShare
from hermes_flow.errors import ConfigError
from hermes_flow.program.fleet import ScaledPool, Wanted
from hermes_flow.program.units import NS_PER_S
from hermes_flow.scaling.policy import scaling_policies


@scaling_policies.register("slo")
@dataclass(frozen=True, slots=True)
class SLOAttainment:
    """Looks at the requests that ended within the last ``window_s`` seconds.

    Where fewer than the share ``attainment`` of them kept the limits of the SLO, it wants ``step`` clients more.
    Where at least the share ``relax`` did, it wants ``step`` fewer. Where no request ended, the number stays. The
    limits are the loosest bounds of the SLO on TTFT, TPOT and E2E, and those of ``slo.within``.
    """

    attainment: PositiveShare = 0.95
    relax: PositiveShare = 1.0
    window_s: PositiveSeconds = 60.0
    step: Count = 1
    oracle: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"slo"})

    def __post_init__(self) -> None:
        if self.relax < self.attainment:
            raise ConfigError(
                "relax",
                f"{self.relax:g} is below attainment ({self.attainment:g}); expected at least as much",
            )

    def start(self, pool: ScaledPool) -> Wanted:
        """Return the function that compares the attained share."""
        view, window_ns = pool.view, round(self.window_s * NS_PER_S)

        def wanted(now_ns: int) -> int:
            size = view.size()
            ended, kept = view.attained(now_ns - window_ns)
            if not ended:
                return size
            share = kept / ended
            if share < self.attainment:
                return size + self.step
            return max(0, size - self.step) if share >= self.relax else size

        return wanted
