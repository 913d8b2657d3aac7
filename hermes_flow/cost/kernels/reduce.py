"""Reduces attention tables to formulas: decode affine in all context, prefill by query-key pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hermes_flow.cost.kernels.table import Floats
from hermes_flow.cost.triangular import least_squares
from hermes_flow.program.same_bits import mean, total

# Half lengths tried: from none (the rate of pairs is constant) to beyond any that was found on a GPU.
_HALF_LENGTHS = (0, 50, 100, 150, *range(200, 1000, 100), *range(1000, 3001, 200))


@dataclass(frozen=True, slots=True)
class DecodePoints:
    """Attention of one layer over ``sequences`` decoding sequences with ``context`` tokens each."""

    sequences: Floats
    context: Floats
    time_us: Floats


@dataclass(frozen=True, slots=True)
class PrefillPoints:
    """Attention of one layer over a prefill of ``chunk`` tokens after ``past`` computed ones."""

    chunk: Floats
    past: Floats
    time_us: Floats


@dataclass(frozen=True, slots=True)
class Misfit:
    """How far a reduced form is from the table it stands for, relative: the mean and the worst point."""

    points: int
    mean: float
    worst: float

    @classmethod
    def of(cls, found: Floats, measured: Floats) -> Misfit:
        """Compare the form's values with the measured ones."""
        errors = np.abs(found / measured - 1.0)
        return cls(len(measured), mean(errors), float(errors.max()))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % off on average, at most {100 * self.worst:.0f} %, of {self.points:,} points"


@dataclass(frozen=True, slots=True)
class DecodeForm:
    """One layer: base(sequences) + slope_us · (tokens of context of all sequences), base piecewise linear."""

    sequences: Floats
    base_us: Floats
    slope_us: float
    misfit: Misfit

    def at(self, sequences: Floats, total_context: Floats) -> Floats:
        """Return microseconds; no sequences take none."""
        known = np.concatenate(([0.0], self.sequences))
        base: Floats = np.interp(sequences, known, np.concatenate(([0.0], self.base_us)))
        if len(self.sequences) > 1:
            last = self.sequences[-1]
            rise = (self.base_us[-1] - self.base_us[-2]) / (last - self.sequences[-2])
            base = np.where(sequences > last, self.base_us[-1] + max(0.0, rise) * (sequences - last), base)
        return base + self.slope_us * total_context


@dataclass(frozen=True, slots=True)
class PrefillForm:
    """One layer: launch + pair · chunk·(past + chunk/2) · (1 + half/(chunk + past)) + context · past."""

    launch_us: float
    pair_us: float
    half_length: float
    context_us: float
    misfit: Misfit

    def at(self, chunk: Floats, past: Floats) -> Floats:
        """Return microseconds."""
        pairs = chunk * (past + 0.5 * chunk) * (1.0 + self.half_length / (chunk + past))
        found: Floats = self.launch_us + self.pair_us * pairs + self.context_us * past
        return found


def decode_form(points: DecodePoints, beside_us: Floats | float = 0.0) -> DecodeForm:
    """Return the form with the least squared relative error: a base for each number of sequences, one slope.

    A batch of unlike contexts counts with the sum of its contexts, as a uniform batch of that sum. Of each time,
    ``beside_us`` is work of another kind that the form does not have.
    """
    numbers = np.unique(points.sequences)
    total = points.sequences * points.context
    columns = [(points.sequences == number).astype(np.float64) for number in numbers]
    weights = _fit([*columns, total], points.time_us - beside_us, scale=points.time_us)
    bases, slope = weights[:-1], float(weights[-1])
    form = DecodeForm(numbers, bases, slope, Misfit(0, 0.0, 0.0))
    return replace(form, misfit=Misfit.of(form.at(points.sequences, total) + beside_us, points.time_us))


def prefill_form(points: PrefillPoints) -> PrefillForm:
    """Return the form with the least squared error over time, the best of the half lengths tried.

    Relative to the root of the time: a long chunk's error weighs more than a short one's, as it does in a step.
    """
    chunk, past, measured = points.chunk, points.past, points.time_us
    best: tuple[float, PrefillForm] | None = None
    for half in _HALF_LENGTHS:
        pairs = chunk * (past + 0.5 * chunk) * (1.0 + half / (chunk + past))
        columns = [np.ones_like(chunk), pairs, *([past] if past.any() else [])]
        launch, pair, *rest = _fit(columns, measured, scale=np.sqrt(measured)).tolist()
        form = PrefillForm(launch, pair, float(half), rest[0] if rest else 0.0, Misfit(0, 0.0, 0.0))
        found = form.at(chunk, past)
        error = total(np.square(found - measured) / measured)
        if best is None or error < best[0]:
            best = (error, replace(form, misfit=Misfit.of(found, measured)))
    assert best is not None
    return best[1]


def _fit(columns: list[Floats], measured: Floats, scale: Floats) -> Floats:
    """Return weights ≥ 0 of the columns with the least squared error over ``scale``; a negative one is left out."""
    matrix = np.stack(columns, axis=1) / scale[:, None]
    kept = list(range(len(columns)))
    weights = np.zeros(len(columns))
    while kept:
        found = _least_squares(matrix[:, kept], measured / scale)
        if found.min() >= 0.0:
            weights[kept] = found
            break
        kept.pop(int(np.argmin(found)))
    return weights


def _least_squares(matrix: Floats, target: Floats) -> Floats:
    """Return the weights with the least squared error; where many fit as well, the smallest of them, by BLAS."""
    found = least_squares(matrix, target)
    if found is None:
        found = np.asarray(np.linalg.lstsq(matrix, target, rcond=None)[0], dtype=np.float64)
    return found
