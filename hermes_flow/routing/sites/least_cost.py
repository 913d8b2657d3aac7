"""The site policy ``least_cost`` weighs the price of moving data against the time of the user."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.quantities import USD, Seconds
from hermes_flow.program.sites import ChooseSite, SiteView
from hermes_flow.routing.sites import site_policies


@site_policies.register("least_cost")
@dataclass(frozen=True, slots=True)
class LeastCost:
    """Chooses the lowest sum of the price of moving the prompt and the price of the user's time; the first of equals.

    A second of the user is worth ``usd_per_s``. The time is the round trip, and ``wait_s`` for each request in hand
    per client.
    """

    usd_per_s: USD = 0.001
    wait_s: Seconds = 0.05

    def start(self, view: SiteView) -> ChooseSite:
        """Return the choice of the cheapest site."""

        def usd(request: int, site: int) -> float:
            seconds = view.round_trip_s(request, site) + self.wait_s * view.per_client(site)
            return view.prompt_usd(request, site) + self.usd_per_s * seconds

        return lambda request, now_ns: min(view.open, key=lambda site: usd(request, site))
