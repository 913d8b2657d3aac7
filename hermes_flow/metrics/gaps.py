"""Weighted distributions of time gaps that are never expanded, with their exact mean and quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import total
from hermes_flow.program.units import Ints

Floats = NDArray[np.float64]
_PER_DOUBLING = 12  # bits: so many buckets lie between a value and its double
_BUCKETS = 64 << _PER_DOUBLING  # up to the largest integer of 64 bits


@dataclass(frozen=True, slots=True)
class Gaps:
    """A weighted distribution of integers: row r has first + i·step for i < count, each ``weight`` times.

    ``step`` is at least 1 where ``count`` is above 1. Picoseconds. Where ``single`` is true, every row is one value:
    its step and its count are 1.
    """

    first: Ints
    step: Ints
    count: Ints
    weight: Ints
    single: bool = False

    @property
    def total(self) -> int:
        """The number of gaps."""
        return int((self.count * self.weight).sum())

    @property
    def last(self) -> Ints:
        """The largest gap of each row."""
        return self.first if self.single else self.first + self.step * (self.count - 1)

    def rows(self, chosen: NDArray[np.intp]) -> Gaps:
        """Return some of the rows."""
        first, weight = self.first[chosen], self.weight[chosen]
        return Gaps(first, self.step[chosen], self.count[chosen], weight, self.single)

    def mean(self) -> float:
        """The weighted mean; NaN without gaps."""
        found = mean_and_quantiles(lambda: (Tally((self,)),), ())
        return math.nan if found is None else found[0]

    def quantiles(self, levels: Sequence[float]) -> list[int] | None:
        """The smallest gap g such that at least ``level`` (0 … 1) of all gaps are ≤ g, for each level.

        None without gaps.
        """
        found = mean_and_quantiles(lambda: (Tally((self,)),), levels)
        return None if found is None else found[1]


def single_gaps(gaps: Ints, weight: Ints) -> Gaps:
    """Return a distribution with the weight of each gap; what weighs nothing is left out."""
    some = weight > 0
    if not some.all():
        gaps, weight = gaps[some], weight[some]
    one = np.broadcast_to(np.int64(1), gaps.shape)
    return Gaps(gaps, one, one, weight, single=True)


def joined(parts: Sequence[Gaps]) -> Gaps:
    """Return several distributions as one, row after row."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        none = np.zeros(0, np.int64)
        return Gaps(none, none, none, none)
    return Gaps(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.step for part in parts]),
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.weight for part in parts]),
        all(part.single for part in parts),
    )


class Tally:
    """Rows of gaps with what their mean and their quantiles need: sums, and histograms of their first and last gaps.

    All is worked out part by part, as parts are small enough for the caches of a processor. The histograms hold
    zeros outside of the buckets from ``lowest`` to ``highest``, which are never read and take no memory.
    """

    def __init__(self, parts: Sequence[Gaps]) -> None:
        self.total, self.lowest, self.highest = 0, _BUCKETS, 0
        self.began, self.over = np.zeros(_BUCKETS), np.zeros(_BUCKETS)
        self._singles = _Places([part for part in parts if part.single])
        self._runs = _Places([part for part in parts if not part.single])
        sums, at = np.empty(sum(len(part.first) for part in parts)), 0
        for part in parts:
            first = centre = part.first.astype(np.float64)
            weight = (part.weight if part.single else part.count * part.weight).astype(np.float64)
            begins = ends = _bucket(first)
            if not part.single:
                centre = first + 0.5 * (part.step * (part.count - 1))
                ends = _bucket(part.last.astype(np.float64))
            np.add.at(self.began, begins, weight)
            np.add.at(self.over, ends, weight)
            self.total += int(weight.sum())
            if len(first):
                self.lowest = min(self.lowest, int(begins.min()))
                self.highest = max(self.highest, int(ends.max()))
            np.multiply(centre, weight, out=sums[at : at + len(first)])
            at += len(first)
            (self._singles if part.single else self._runs).take(begins, ends)
        self.weighted = total(sums)

    def within(self, lowest: int, highest: int) -> Gaps:
        """Return the rows that may have gaps in these buckets."""
        return joined([*self._singles.within(lowest, highest), *self._runs.within(lowest, highest)])


class _Places:
    """The buckets of the first and of the last gap of every row, of several parts one after the other."""

    def __init__(self, parts: Sequence[Gaps]) -> None:
        self._parts, self._stops = parts, np.cumsum([len(part.first) for part in parts])
        rows = int(self._stops[-1]) if parts else 0
        self._begins = np.empty(rows, np.int32)
        self._ends = self._begins if all(part.single for part in parts) else np.empty(rows, np.int32)
        self._taken = 0

    def take(self, begins: NDArray[np.intp], ends: NDArray[np.intp]) -> None:
        """Note the rows of the next part."""
        own = slice(self._taken, self._taken + len(begins))
        self._begins[own] = begins
        self._ends[own] = ends
        self._taken = own.stop

    def within(self, lowest: int, highest: int) -> list[Gaps]:
        """Return the rows that may have gaps in these buckets, by part."""
        chosen = np.flatnonzero((self._begins <= highest) & (self._ends >= lowest))
        cuts = np.searchsorted(chosen, self._stops)
        found, before, at = [], 0, 0
        for part, cut, stop in zip(self._parts, cuts.tolist(), self._stops.tolist(), strict=True):
            if cut > at:
                found.append(part.rows(chosen[at:cut] - before))
            at, before = cut, stop
        return found


def mean_and_quantiles(
    tallies: Callable[[], Iterable[Tally]], levels: Sequence[float]
) -> tuple[float, list[int]] | None:
    """Return the mean and the quantiles of all gaps in ``tallies``, which is read twice; None without gaps.

    A histogram over rows brackets each quantile, bisection over the rows in the bracket finds it.
    """
    total, weighted, began, over = 0, 0.0, np.zeros(_BUCKETS), np.zeros(_BUCKETS)
    first, last = _BUCKETS, 0
    for own in tallies():
        total += own.total
        weighted += own.weighted
        used = slice(own.lowest, own.highest + 1)
        began[used] += own.began[used]
        over[used] += own.over[used]
        first, last = min(first, own.lowest), max(last, own.highest)
    if not total:
        return None
    started, ended = (np.cumsum(weights[first : last + 1]) for weights in (began, over))
    targets = [max(1, math.ceil(round(level * total, 6))) for level in levels]
    found_in = [(np.searchsorted(started, target), np.searchsorted(ended, target)) for target in targets]
    brackets = [(first + int(lowest), first + int(highest)) for lowest, highest in found_in]
    near: list[list[Gaps]] = [[] for _ in levels]
    for own in tallies():
        for found, bracket in zip(near, brackets, strict=True):
            found.append(own.within(*bracket))
    quantiles = [
        _smallest_reaching(target - (int(ended[lowest - 1]) if lowest else 0), joined(found))
        for target, (lowest, _), found in zip(targets, found_in, near, strict=True)
    ]
    return weighted / total, quantiles


def _bucket(values: Floats) -> NDArray[np.intp]:
    """Return histogram buckets that grow with the value, each 1/4096 of it wide.

    The leading bits of a floating-point number are its exponent and the head of its mantissa.
    """
    one = np.float64(1).view(np.int64)
    buckets: NDArray[np.intp] = np.maximum(values, 1.0).view(np.int64)
    buckets -= one
    buckets >>= 52 - _PER_DOUBLING
    return buckets


def _smallest_reaching(target: int, rows: Gaps) -> int:
    """Return the smallest value with ``target`` weight at or below it; decided rows leave on the way."""
    low, high = int(rows.first.min()), int(rows.last.max())
    while low < high:
        middle = (low + high) // 2
        reached = np.clip((middle - rows.first) // rows.step + 1, 0, rows.count)
        if int((reached * rows.weight).sum()) >= target:
            high = middle
            keep = rows.first <= high
        else:
            low = middle + 1
            keep = rows.last >= low
            target -= int((rows.count * rows.weight)[~keep].sum())
        rows = rows.rows(np.flatnonzero(keep))
    return low
