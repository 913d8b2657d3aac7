"""The part of a run's page about traffic classes, tenants, sites, adapters, the gateway, and work in vain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hermes_flow.metrics.number_text import digits, duration, percent
from hermes_flow.report.operations_text import operations_lines
from hermes_flow.report.pages import template as html
from hermes_flow.report.pages.template import Cell

_HEADS = ["", "completed", "failed", "TTFT p50", "TTFT p99", "E2E p99", "within the SLO", ""]


def operations_part(summary: dict[str, Any]) -> Iterator[str]:
    """Yield a table of classes and tenants, and the sentences about the gateway; nothing where there are none."""
    groups = [
        (f"{word} {name}", own)
        for section, word in (("classes", "class"), ("tenants", "tenant"), ("sites", "site"))
        for name, own in summary.get(section, {}).items()
    ]
    texts = [
        text if label in ("gateway", "in vain", "fairness") else f"{label}: {text}"
        for label, text in operations_lines(summary)
        if label.startswith(("gateway", "in vain", "fairness", "adapters "))
    ]
    texts += [
        f"users at {name}: {percent(own['local_share'])} served there, {own['served']:,} requests served in all, "
        f"round trip {duration(own['round_trip_s'])}"
        for name, own in summary.get("sites", {}).items()
        if own["round_trip_s"] is not None
    ]
    if not groups and not texts:
        return
    yield html.heading(_title(summary), "operations")
    if groups:
        yield html.table(_HEADS, [_row(label, own) for label, own in groups])
    for text in texts:
        yield html.paragraph(f"{text[0].upper()}{text[1:]}.", "soft")


def _title(summary: dict[str, Any]) -> str:
    """Return the title of the part, which names sites and adapters where there are any."""
    more = [word for key, word in (("sites", "Sites"), ("adapters", "Adapters")) if key in summary]
    return " and ".join(more) if more and "classes" not in summary else "Classes, tenants and the gateway"


def _row(label: str, own: dict[str, Any]) -> list[Cell | str]:
    requests, slo = own["requests"], own["slo"]
    met = slo.get("met")
    verdict: Cell | str = "" if met is None else Cell("met", "good") if met else Cell("missed", "bad")
    return [
        label,
        f"{requests['completed']:,}",
        f"{requests['failed']:,}",
        duration(own["ttft_s"]["p50"]),
        duration(own["ttft_s"]["p99"]),
        duration(own["e2e_s"]["p99"]),
        percent(slo["attainment"]) if slo["attainment"] is not None else digits(None),
        verdict,
    ]
