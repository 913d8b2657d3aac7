"""The part of a run's page about clients that start, stop, fail or are slow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hermes_flow.metrics.number_text import counted, digits, dollars, duration, percent
from hermes_flow.metrics.run_files import RunFiles
from hermes_flow.report.charts.fleet import clients_by_state
from hermes_flow.report.pages import template as html

_HEADS = ["pool", "clients, mean", "least to most", "hours paid for", "price", "starts", "stops"]


def fleet_part(run: RunFiles) -> Iterator[str]:
    """Yield the table and the charts of pools whose clients come and go; nothing where there are none."""
    fleets: dict[str, dict[str, Any]] = run.summary.get("fleet", {})
    if not fleets:
        return
    yield html.heading("The fleet", "fleet")
    yield html.table(_HEADS, [_row(name, fleet) for name, fleet in fleets.items()])
    for name, fleet in fleets.items():
        if "failures" in fleet:
            yield html.paragraph(_failures(name, fleet), "soft")
    if run.fleet is None or run.fleet.is_empty():
        return
    caption = (
        "How many clients of the pool are in each state. Starting and draining clients are paid for, too."
    )
    yield html.side_by_side(
        html.chart(
            f"Clients of {name}", caption, clients_by_state(run.fleet.filter(run.fleet["pool"] == name))
        )
        for name in fleets
    )


def _row(name: str, fleet: dict[str, Any]) -> list[str]:
    clients = fleet["clients"]
    return [
        name,
        digits(clients["mean"]),
        f"{clients['least']} to {clients['most']}",
        digits(fleet["client_hours"]),
        "unpriced" if fleet["usd"] is None else dollars(fleet["usd"]),
        f"{fleet['starts']:,}",
        f"{fleet['stops']:,}",
    ]


def _failures(name: str, fleet: dict[str, Any]) -> str:
    text = f"Clients of {name} failed {counted(fleet['failures'], 'time')}"
    if fleet["availability"] is not None:
        text += f" and were available {percent(fleet['availability'])} of the time"
    text += f"; {counted(fleet['retried_requests'], 'request')} began anew"
    if fleet["retried_e2e_s"]["p99"] is not None:
        text += f", with an E2E p99 of {duration(fleet['retried_e2e_s']['p99'])}"
    if fleet["slow_hours"]:
        text += f". They were slow for {duration(3600 * fleet['slow_hours'])} in all"
    return text + "."
