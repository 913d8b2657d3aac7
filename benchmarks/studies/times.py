"""Writes times for tables, with three digits."""

from __future__ import annotations


def ms(time_s: float) -> str:
    """Return a time of less than a second in milliseconds, another one in seconds."""
    return f"{1e3 * time_s:,.3g} ms" if time_s < 1 else seconds(time_s)


def seconds(time_s: float) -> str:
    """Return a time in seconds."""
    return f"{time_s:,.0f} s" if time_s >= 100 else f"{time_s:.3g} s"
