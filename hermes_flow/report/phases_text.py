"""The table of a load's phases, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hermes_flow.metrics.number_text import digits, dollars, duration, percent

_SHOWN = 12
_COLUMNS = ("rate/s", "requests", "TTFT p99", "TPOT p99", "E2E p99", "in SLO", "$/M")

Paint = Callable[[str, str], str]


def phases_table(phases: Mapping[str, Mapping[str, Any]], paint: Paint) -> list[str]:
    """Return the lines of the table, at most 80 columns wide; none where the load has no phases.

    ``$/M`` is the price of a million output tokens. A "!" marks a phase that misses a bound of the SLO.
    """
    if not phases:
        return []
    lines = [paint(f"{'phase':<14}" + "".join(f"{name:>9}" for name in _COLUMNS), "heading")]
    for number, figures in list(phases.items())[:_SHOWN]:
        attainment, missed = figures["slo"]["attainment"], figures["slo"]["met"] is False
        price = figures["cost"]["usd_per_million_output_tokens"]
        cells = (
            digits(figures["rate_per_s"]),
            f"{figures['requests']['submitted']:,}",
            *(duration(figures[name]["p99"]) for name in ("ttft_s", "tpot_s", "e2e_s")),
            percent(attainment) + ("!" if missed else ""),
            dollars(price),
        )
        span = f"{number}  {_seconds(figures['begin_s'])}–{_seconds(figures['end_s'])} s"
        line = f"{span:<14}" + "".join(f"{cell:>9}" for cell in cells)
        lines.append(paint(line, "bad" if missed else ""))
    if len(phases) > _SHOWN:
        lines.append(f"and {len(phases) - _SHOWN} more phases; phases.parquet has all of them")
    return lines


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
