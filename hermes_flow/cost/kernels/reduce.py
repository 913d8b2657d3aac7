"""Reducing attention tables to the step object's forms: decode affine in all context, prefill by query-key pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.cost.kernels.table import Floats

# Half lengths tried: from none (the pair rate is constant) to four times any that was found on a GPU.
_HALF_LENGTHS = (0, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1400, 1700, 2000, 2500, 3000)


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
        return cls(len(measured), float(errors.mean()), float(errors.max()))

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


def decode_form(points: DecodePoints) -> DecodeForm:
    """Return the form with the least squared relative error: a base for each number of sequences, one slope.

    A batch of unlike contexts counts with the sum of its contexts, as a uniform batch of that sum.
    """
    numbers = np.unique(points.sequences)
    total = points.sequences * points.context
    columns = [(points.sequences == number).astype(np.float64) for number in numbers]
    weights = _relative_fit([*columns, total], points.time_us)
    bases, slope = weights[:-1], float(weights[-1])
    form = DecodeForm(numbers, bases, slope, Misfit(0, 0.0, 0.0))
    return DecodeForm(numbers, bases, slope, Misfit.of(form.at(points.sequences, total), points.time_us))


def prefill_form(points: PrefillPoints) -> PrefillForm:
    """Return the form with the least mean relative error over the half lengths tried."""
    chunk, past = points.chunk, points.past
    best: PrefillForm | None = None
    for half in _HALF_LENGTHS:
        pairs = chunk * (past + 0.5 * chunk) * (1.0 + half / (chunk + past))
        columns = [np.ones_like(chunk), pairs, *([past] if past.any() else [])]
        weights = _relative_fit(columns, points.time_us)
        context = float(weights[2]) if len(weights) > 2 else 0.0
        form = PrefillForm(float(weights[0]), float(weights[1]), float(half), context, Misfit(0, 0.0, 0.0))
        misfit = Misfit.of(form.at(chunk, past), points.time_us)
        if best is None or misfit.mean < best.misfit.mean:
            best = PrefillForm(form.launch_us, form.pair_us, form.half_length, context, misfit)
    assert best is not None
    return best


def _relative_fit(columns: list[Floats], measured: Floats) -> Floats:
    """Return weights ≥ 0 of the columns with the least squared relative error; a negative one is left out."""
    matrix = np.stack(columns, axis=1) / measured[:, None]
    kept = list(range(len(columns)))
    weights = np.zeros(len(columns))
    while kept:
        found = np.linalg.lstsq(matrix[:, kept], np.ones(len(measured)), rcond=None)[0]
        if found.min() >= 0.0:
            weights[kept] = found
            break
        kept.pop(int(np.argmin(found)))
    return weights
