"""Plans the hours of a day one by one, and compares them with the design of the busiest hour all day."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError
from hermes_flow.planning.capacity import load_key
from hermes_flow.planning.keys import with_value
from hermes_flow.planning.plan import Plan
from hermes_flow.planning.plan_table import overrides_of

if TYPE_CHECKING:
    import polars as pl

IGNORED = (
    "each hour is planned alone: switching from one design to the next, with its starts of clients and its requests "
    "under way, is ignored"
)


@dataclass(frozen=True, slots=True)
class DayPlan:
    """The plan of a day: the rate of every hour in requests per second, and the plan of each different rate.

    A day that was stopped has no plan of some rates.
    """

    rates_per_s: tuple[float, ...]
    plans: dict[float, Plan]

    @property
    def peak(self) -> Plan:
        """The plan of the busiest hour."""
        return self.plans[max(self.rates_per_s)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the plans of the hours say was left out, with the rates, and what every day ignores."""
        found: dict[str, list[float]] = {}
        for rate, plan in self.plans.items():
            for note in plan.notes:
                found.setdefault(note, []).append(rate)
        texts = (
            note if len(rates) == len(self.plans) else f"at {_listed(rates)} requests/s: {note}"
            for note, rates in found.items()
        )
        return (*texts, IGNORED)

    @property
    def usd(self) -> float | None:
        """The price of all hours, each with its own cheapest design; None where an hour has none with a price."""
        prices = [self._price(rate) for rate in self.rates_per_s]
        return None if None in prices else math.fsum(price for price in prices if price is not None)

    @property
    def usd_at_peak(self) -> float | None:
        """The price of all hours with the design of the busiest one."""
        price = self._price(max(self.rates_per_s))
        return None if price is None else price * len(self.rates_per_s)

    def summary(self) -> dict[str, Any]:
        """Return the figures as they stand under ``day`` in the summary."""
        return {
            "hours": len(self.rates_per_s),
            "usd": self.usd,
            "usd_at_peak": self.usd_at_peak,
            "notes": list(self.notes),
        }

    def frame(self) -> pl.DataFrame:
        """Return one row per hour: its rate, and the cheapest design that meets the SLO (null if there is none)."""
        import polars as pl

        rows = []
        for hour, rate in enumerate(self.rates_per_s):
            best = self.plans[rate].best
            clients = None if best is None else best.sized.clients
            rows.append(
                {
                    "hour": hour,
                    "rate_per_s": rate,
                    "hardware": None if best is None else best.family.hardware_name,
                    "layout": None if best is None else best.family.layout,
                    "tensor_parallel": None if best is None else best.family.tensor_parallel,
                    "clients": None if clients is None else clients.total,
                    "accelerators": None if best is None else best.accelerators,
                    "usd_per_hour": self._price(rate),
                    "overrides": None if best is None else overrides_of(best),
                }
            )
        schema = {"hour": pl.Int64, "rate_per_s": pl.Float64, "hardware": pl.String, "layout": pl.String}
        schema |= dict.fromkeys(("tensor_parallel", "clients", "accelerators"), pl.Int64)
        return pl.DataFrame(rows, schema={**schema, "usd_per_hour": pl.Float64, "overrides": pl.String})

    def _price(self, rate: float) -> float | None:
        best = self.plans[rate].best if rate in self.plans else None
        return None if best is None else best.usd_per_hour


def _listed(rates: Sequence[float]) -> str:
    texts = [f"{rate:g}" for rate in rates]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def plan_day(config: Config, rates_per_s: Sequence[float], plan_at: Callable[[Config], Plan]) -> DayPlan:
    """Return the plan of every hour of a day; ``plan_at`` plans one rate, as ``hf.plan`` does.

    Equal rates are planned once, the busiest first. Raises ConfigError where the workload has no rate of its own.
    """
    if load_key(config) != "workload.rate_per_s":
        raise ConfigError("task.hours", "needs a workload with workload.rate_per_s, which each hour sets")
    rates = tuple(float(rate) for rate in rates_per_s)
    plans = {
        rate: plan_at(with_value(config, "workload.rate_per_s", rate))
        for rate in sorted(set(rates), reverse=True)
    }
    return DayPlan(rates, plans)
