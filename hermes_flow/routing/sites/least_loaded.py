"""The site policy ``least_loaded`` sends every request to the site with the fewest requests per client."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.program.sites import ChooseSite, SiteView
from hermes_flow.routing.sites import site_policies


@site_policies.register("least_loaded")
@dataclass(frozen=True, slots=True)
class LeastLoaded:
    """Chooses the site with the fewest requests in hand per client, and of equals the nearest."""

    def start(self, view: SiteView) -> ChooseSite:
        """Return the choice of the least loaded site."""
        return lambda request, now_ns: min(
            view.open, key=lambda site: (view.per_client(site), view.round_trip_s(request, site))
        )
