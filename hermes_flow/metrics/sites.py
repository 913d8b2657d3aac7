"""Figures of sites: what their users got, how many requests they served, and the price of moving data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.groups import Statistics, group_figures
from hermes_flow.program.same_bits import total
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    import polars as pl


def site_summary(
    recording: Recording, requests: pl.DataFrame, span_s: float, statistics: Statistics
) -> dict[str, Any]:
    """Return ``{"sites": {site: {…}}}``, empty without sites.

    Latencies and counts are of the users at a site. ``served`` counts the requests that the site served, wherever
    their users are; ``local_share`` is the share of its users' requests that it served itself, ``round_trip_s`` their
    mean way there and back, and ``transfer_usd`` what moving their prompts and answers cost. Where sites fail,
    ``site_changes`` counts how often their requests had to leave a site.
    """
    sites, travel = recording.program.sites, recording.travel
    if sites is None or travel is None:
        return {}
    found = group_figures(recording, requests, sites.user, sites.names, span_s, statistics)
    usd = sites.transfer_usd(travel.site) + travel.earlier_usd
    for site, figures in enumerate(found.values()):
        own = (sites.user == site) & (travel.site >= 0)
        count = int(own.sum())
        figures["served"] = int((travel.site == site).sum())
        figures["local_share"] = int((travel.site[own] == site).sum()) / count if count else None
        figures["round_trip_s"] = int(travel.both_ns[own].sum()) / NS_PER_S / count if count else None
        figures["transfer_usd"] = total(usd[own])
        if sites.moves:
            figures["site_changes"] = int(travel.moved[own].sum())
    return {"sites": found}


def transfer_usd(recording: Recording) -> float | None:
    """Return the price of moving all prompts and answers between sites; None without sites."""
    sites, travel = recording.program.sites, recording.travel
    if sites is None or travel is None:
        return None
    usd = sites.transfer_usd(travel.site) + travel.earlier_usd
    return total(usd)
