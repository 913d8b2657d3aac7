"""Makes intervals from the errors of left-out runs that also hold for a model or a GPU that none of the runs had.

An interval has a centre and a half width. Both come from groups of runs that lie within each other: all runs of a
kind, then those of one engine and class, then those of one model on one GPU.

- The *size* of an error is its mean distance from the centre. The size of a group with ``n`` models (or GPUs, or
  runs: whatever was left out of it) counts ``n`` times, and that of the group around it once.
- The *centre* is 1 (measured = simulated), or the bias of all runs, or that of a narrower group. A bias counts as far
  as it is larger than the scatter of the models (or GPUs, or runs) around it (James and Stein). Which of these groups
  may have a bias is decided by leaving out: a narrower one has to make the left-out interval score 5 % smaller.
- The *half width* is the size times a factor, the same for all runs of a kind, with which four of five runs are
  within the intervals that were made without their model (or GPU, or without themselves).

All of it is done with logarithms of measured / simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SHARE = 0.8  # of the left-out runs that an interval covers
FEWEST_WITH_BIAS = 2  # models (or GPUs, or runs) from which a bias is taken
FEWEST_NAMED = 10  # runs of a group that an interval says it comes from
LARGEST_LEFT_OUT = 0.75  # of the runs; of a GPU that has more only a model, or a run, is left out at a time
WORTHWHILE = 0.95  # of the interval score, which a narrower bias must reach
_MISS = 2.0 / (1.0 - SHARE)  # of the interval score (Gneiting and Raftery, 2007)
_SD_OF_MEAN_SIZE = math.sqrt(math.pi / 2)  # of errors that scatter like a normal
_SMALLEST = 1e-3

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LeftOutError:
    """The error of one left-out run (measured / simulated).

    ``groups`` name the groups that it belongs to, the widest first, without the group of all runs. ``unit`` is what a
    prediction of this kind has not seen: the run, its model or its GPU. ``cell`` is left out where nearly
    all runs are of one unit.
    """

    error: float
    groups: tuple[str, ...]
    unit: str
    cell: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval of measured / simulated, and how many runs the narrowest of its groups with ten or more has."""

    low: float
    high: float
    runs: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How the intervals of one kind fit the runs that they were made without.

    ``covered`` is the share of the runs within their intervals, which are made without what was left out but for the
    common factor; for ``strictly`` the factor is made without it, too. ``half_width`` is the median of the intervals,
    and ``median_error`` that of the sizes of the errors, both as shares of the prediction.
    """

    runs: int
    covered: float
    strictly: float
    half_width: float
    median_error: float

    @property
    def ratio(self) -> float:
        """The median half width as a multiple of the median size of the errors."""
        return self.half_width / self.median_error


@dataclass(slots=True)
class _Made:
    """Centres, sizes and scores of all runs, each made without what was left out, with a bias to a certain depth."""

    centres: Floats
    sizes: Floats
    scores: Floats
    factor: float
    factors: Floats


class Intervals:
    """The intervals of one kind and metric."""

    def __init__(self, errors: Sequence[LeftOutError]) -> None:
        """Take all errors of a kind; each has the same number of groups."""
        self._errors = np.log([each.error for each in errors])
        self._names = [_codes(names) for names in zip(*(each.groups for each in errors), strict=True)]
        self._units = _codes([each.unit for each in errors])[1]
        self._alone = len(set(self._units)) == len(errors)
        cells, runs = _codes([each.cell for each in errors])[1], np.arange(len(errors))
        self._left = next(of for of in (self._units, cells, runs) if _largest(of) <= LARGEST_LEFT_OUT)

    def interval(self, groups: Sequence[str]) -> Bar:
        """Return the interval of a prediction, made of all errors.

        ``groups`` are those that it belongs to, the widest first; the narrowest may be left out.
        """
        codes = [names.get(name, -1) for (names, _), name in zip(self._names, groups, strict=False)]
        masks = self._within(np.ones(len(self._errors), bool), codes)
        centre, size = self._centres_and_sizes(masks)[self.depth]
        half = size * self._made[self.depth].factor
        runs = next(
            (int(mask.sum()) for mask in reversed(masks) if mask.sum() >= FEWEST_NAMED), len(self._errors)
        )
        return Bar(math.exp(centre - half), math.exp(centre + half), runs)

    def fit(self, depth: int | None = None) -> Fit:
        """Return how the intervals fit the runs that they were made without, with the best or a given depth."""
        made, errors = self._made[self.depth if depth is None else depth], np.exp(self._errors)
        half = made.sizes * made.factor
        widths = np.exp(made.centres + half) - np.exp(made.centres - half)
        return Fit(
            len(errors),
            float(np.mean(made.scores <= made.factor)),
            float(np.mean(made.scores <= made.factors)),
            float(np.median(widths)) / 2,
            float(np.median(np.abs(errors - 1.0))),
        )

    @cached_property
    def depth(self) -> int:
        """The number of groups that may have a bias, from none (0) over all runs (1) to the narrowest group."""
        best, lowest = 0, self._score(self._made[0])
        for depth in range(1, len(self._made)):
            score = self._score(self._made[depth])
            if score < WORTHWHILE * lowest:
                best, lowest = depth, score
        return best

    @cached_property
    def _made(self) -> list[_Made]:
        """The intervals of all runs for each depth."""
        depths = len(self._names) + 2
        centres, sizes = np.zeros((2, depths, len(self._errors)))
        known: dict[tuple[int, ...], list[tuple[float, float]]] = {}
        for run in range(len(self._errors)):
            codes = [int(of[run]) for _, of in self._names]
            key = int(self._left[run]), *codes
            if key not in known:
                masks = self._within(self._left != self._left[run], codes)
                known[key] = self._centres_and_sizes(masks)
            centres[:, run], sizes[:, run] = np.transpose(known[key])
        return [self._scored(*pair) for pair in zip(centres, sizes, strict=True)]

    def _scored(self, centres: Floats, sizes: Floats) -> _Made:
        scores = np.abs(self._errors - centres) / sizes
        factors = _without_each(scores) if self._alone else np.empty(len(scores))
        for unit in () if self._alone else np.unique(self._left):
            own = self._left == unit
            factors[own] = np.quantile(scores[~own], SHARE) if not own.all() else np.inf
        return _Made(centres, sizes, scores, float(np.quantile(scores, SHARE)), factors)

    def _score(self, made: _Made) -> float:
        """Return the mean interval score: the width, and ten times the distance by which an error lies outside."""
        half = made.sizes * made.factors
        outside = np.maximum(0.0, np.abs(self._errors - made.centres) - half)
        return float(np.mean(2 * half + _MISS * outside))

    def _within(self, mask: Mask, codes: Sequence[int]) -> list[Mask]:
        """Return the runs of each group, the widest first.

        Groups without any run are left out, and those that have all runs of the group around them.
        """
        masks = [mask]
        for (_, of), code in zip(self._names, codes, strict=False):
            inner = masks[-1] & (of == code)
            if not inner.any():
                break
            if inner.sum() < masks[-1].sum():
                masks.append(inner)
        return masks

    def _centres_and_sizes(self, masks: Sequence[Mask]) -> list[tuple[float, float]]:
        """Return the centre and the size of the narrowest of some groups, for each depth of a bias."""
        errors = [self._errors[mask] for mask in masks]
        parts = [self._parts(mask) for mask in masks]
        found, known = [], dict[float, float]()
        for centre in self._centres(masks):
            if centre not in known:
                known[centre] = _size(errors, parts, centre)
            found.append((centre, known[centre]))
        return found

    def _centres(self, masks: Sequence[Mask]) -> list[float]:
        """Return the bias of the narrowest of some groups, as far as it exceeds its scatter, for each depth."""
        centre, scatter = 0.0, None
        centres = [centre]
        for mask in masks:
            biases = self._biases(mask)
            if len(biases) < FEWEST_WITH_BIAS:
                break
            middle = float(np.median(biases))
            if scatter is None:
                scatter = _SD_OF_MEAN_SIZE * float(np.mean(np.abs(biases - middle)))
            apart = middle - centre
            if apart:
                centre += apart * max(0.0, 1.0 - scatter**2 / len(biases) / apart**2)
            centres.append(centre)
        return centres + [centre] * (len(self._names) + 2 - len(centres))

    def _biases(self, mask: Mask) -> Floats:
        """Return the median error of each unit."""
        errors = self._errors[mask]
        if self._alone:
            return errors
        units = self._units[mask]
        return np.array([np.median(errors[units == unit]) for unit in np.unique(units)])

    def _parts(self, mask: Mask) -> int:
        """Return how many parts of a group are left out, one after the other."""
        return int(mask.sum()) if self._alone else len(np.unique(self._left[mask]))


def _size(errors: Sequence[Floats], parts: Sequence[int], centre: float) -> float:
    """Return the size of errors in the narrowest of some groups, drawn towards those of the groups around it."""
    size = 0.0
    for index, (own, count) in enumerate(zip(errors, parts, strict=True)):
        mean = float(np.mean(np.abs(own - centre)))
        size = (count * mean + size) / (count + 1) if index else mean
    return max(size, _SMALLEST)


def _largest(codes: Codes) -> float:
    """Return the share of the most frequent code; nothing of a single run."""
    return float(np.bincount(codes).max()) / len(codes) if len(codes) > 1 else 0.0


def _without_each(scores: Floats) -> Floats:
    """Return the quantile of all other scores, for each of them."""
    ordered = np.sort(scores)
    ranks = np.argsort(np.argsort(scores))
    place = SHARE * (len(scores) - 2)
    below = int(place)

    def other(index: int) -> Floats:
        return ordered[index + (ranks <= index)]

    return other(below) + (place - below) * (other(min(below + 1, len(scores) - 2)) - other(below))


def _codes(names: Sequence[str]) -> tuple[dict[str, int], Codes]:
    """Return the number of each name, and the numbers of all."""
    known = {name: index for index, name in enumerate(sorted(set(names)))}
    return known, np.array([known[name] for name in names], np.int64)
