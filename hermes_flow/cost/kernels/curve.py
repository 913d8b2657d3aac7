"""Interpolates between measured points, and counts the requests for points outside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hermes_flow.cost.kernels.table import Floats, Table

_SLOWER = 1.02  # a row this much slower than a larger one is called noise


@dataclass(slots=True)
class Findings:
    """Notes from reading tables: rows read, rows out of order, gaps, look-ups outside the measured ranges."""

    rows: int = 0
    noisy: int = 0
    files: dict[str, int] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def read(self, table: Table) -> None:
        """Count a table's rows."""
        self.files[table.path.name] = self.files.get(table.path.name, 0) + len(table)
        self.rows += len(table)

    def check_range(self, name: str, queries: Floats, least: float, most: float) -> None:
        """Note how many queries are outside the measured range; per name, the widest range counts."""
        beyond = int(np.count_nonzero((queries > most) | (queries < least)))
        if beyond:
            self.outside[name] = (
                f"{beyond:,} of {len(queries):,} outside {least:,.0f} to {most:,.0f}, up to {queries.max():,.0f}"
            )

    def remark(self, text: str) -> None:
        """Note a remark once."""
        if text not in self.remarks:
            self.remarks.append(text)


@dataclass(frozen=True, slots=True)
class Curve:
    """A time over one size: piecewise linear through the measured points, never falling.

    A larger problem that ran faster bounds a smaller one from above (it could be padded), so each point is lowered
    to the fastest at its size or beyond: repeated timings of one kernel have a slow mode some 15 % up.
    """

    sizes: Floats
    times: Floats

    @classmethod
    def through(cls, sizes: Floats, times: Floats, findings: Findings) -> Curve:
        """Return the curve through points in any order; of several at one size the fastest counts."""
        order = np.lexsort((times, sizes))
        sizes, times = sizes[order], times[order]
        first = np.concatenate(([True], np.diff(sizes) > 0))
        sizes, times = sizes[first], times[first]
        lowest = np.minimum.accumulate(times[::-1])[::-1]
        findings.noisy += int(np.count_nonzero(times > _SLOWER * lowest))
        return cls(sizes, lowest)

    def at(self, queries: Floats) -> Floats:
        """Return the times at these sizes; beyond the ends the end segments go on, never below zero."""
        found: Floats = np.interp(queries, self.sizes, self.times)
        if len(self.sizes) > 1:
            found = np.where(queries > self.sizes[-1], self._beyond(queries), found)
        return found

    def _beyond(self, queries: Floats) -> Floats:
        (before, last), (slow, slowest) = self.sizes[-2:], self.times[-2:]
        line: Floats = slowest + (slowest - slow) / (last - before) * (queries - last)
        return line


def bracket(axis: Floats, value: float) -> tuple[tuple[float, float], ...]:
    """Return the measured values around ``value`` with their linear weights; beyond the ends, the end pair's."""
    exact = np.flatnonzero(axis == value)
    if len(exact) or len(axis) == 1:
        return ((float(axis[exact[0]] if len(exact) else axis[0]), 1.0),)
    right = int(np.clip(np.searchsorted(axis, value), 1, len(axis) - 1))
    low, high = float(axis[right - 1]), float(axis[right])
    share = (value - low) / (high - low)
    return ((low, 1.0 - share), (high, share))
