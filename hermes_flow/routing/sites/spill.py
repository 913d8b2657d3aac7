"""The site policy ``spill`` keeps requests near their users as long as the site there has room."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.quantities import Factor
from hermes_flow.program.sites import ChooseSite, SiteView
from hermes_flow.routing.sites import site_policies


@site_policies.register("spill")
@dataclass(frozen=True, slots=True)
class Spill:
    """Chooses the nearest site with fewer than ``most_per_client`` requests in hand per client.

    Where all have as many, it chooses the one with the fewest, and of equals the nearest.
    """

    most_per_client: Factor = 32.0

    def start(self, view: SiteView) -> ChooseSite:
        """Return the choice of the nearest site with room."""

        def choose(request: int, now_ns: int) -> int:
            room = [site for site in view.open if view.per_client(site) < self.most_per_client]
            if room:
                return min(room, key=lambda site: view.round_trip_s(request, site))
            return min(view.open, key=lambda site: (view.per_client(site), view.round_trip_s(request, site)))

        return choose
