"""Formats numbers for people: durations, counts, shares and money in a few characters."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN = "–"

# (least value shown in the unit, seconds per unit, name); just below 1 rounds up to 1.00 of the next unit
_UNITS = ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.9995, 1.0, "s"), (0.9995e-3, 1e-3, "ms"))


def digits(value: float | None) -> str:
    """Return a number in about three digits: 0.0120, 0.123, 1.23, 12.3, 1,234."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:#.3g}" if value else "0"


def duration(seconds: float | None) -> str:
    """Return a duration: 412 µs, 8.31 ms, 1.20 s, 5.20 min, 3.40 h."""
    if seconds is None:
        return UNKNOWN
    if seconds == 0:
        return "0 s"
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"{digits(seconds / unit)} {name}"
    return f"{digits(seconds / 1e-6)} µs"


def alike(seconds: Sequence[float | None]) -> list[str]:
    """Return durations for comparison, all in the unit of the first known one: 998 ms, 1,021 ms."""
    known = next((value for value in seconds if value), None)
    if known is None:
        return [duration(value) for value in seconds]
    unit, name = next(((size, name) for least, size, name in _UNITS if known >= least), (1e-6, "µs"))
    return [UNKNOWN if value is None else f"{digits(value / unit)} {name}" for value in seconds]


def percent(fraction: float | None) -> str:
    """Return a share: 0 %, <1 %, 42 %, 99.9 %, 100 %; only a full share is 100 %, and only none is 0 %."""
    if fraction is None:
        return UNKNOWN
    if 0 < fraction < 0.005:
        return "<1 %"
    if 0.99 <= fraction < 1:
        return f"{min(99.9, round(100 * fraction, 1)):.1f} %"
    return f"{100 * fraction:.0f} %"


def spare(headroom: float) -> str:
    """Return by which share a load may grow: +42 %, "none" where no larger one was found to be carried."""
    return f"+{percent(headroom)}" if headroom > 0 else "none"


def dollars(usd: float | None) -> str:
    """Return an amount of money: $0.0123, $4.20, $1,234."""
    if usd is None:
        return UNKNOWN
    if usd >= 1000:
        return f"${usd:,.0f}"
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.3g}"


def joules(energy_j: float) -> str:
    """Return an amount of energy: 12.3 J, 45.6 kJ, 1.23 kWh."""
    if energy_j >= 0.9995 * 3.6e6:
        return f"{digits(energy_j / 3.6e6)} kWh"
    return f"{digits(energy_j / 1e3)} kJ" if energy_j >= 999.5 else f"{digits(energy_j)} J"


def counted(count: int, noun: str) -> str:
    """Return "1 request", "1,234 requests"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """Return the text in at most ``width`` characters, without its middle if it is longer."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]
