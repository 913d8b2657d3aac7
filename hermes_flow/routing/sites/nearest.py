"""The site policy ``nearest`` sends every request to the site with the shortest round trip."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.program.sites import ChooseSite, SiteView
from hermes_flow.routing.sites import site_policies


@site_policies.register("nearest")
@dataclass(frozen=True, slots=True)
class Nearest:
    """Chooses the site with the shortest round trip, whatever its load; the first of equals."""

    def start(self, view: SiteView) -> ChooseSite:
        """Return the choice of the nearest site."""
        return lambda request, now_ns: min(view.open, key=lambda site: view.round_trip_s(request, site))
