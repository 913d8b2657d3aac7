"""Turns table rows into steps: repetitions become their median, and impossible rows are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hermes_flow.cost.fitted.steps import Floats, Ints, Mask, Steps
from hermes_flow.program.units import US_PER_MS

# Repetitions this far from their median, and larger steps this much faster than smaller ones, are errors.
_FACTOR = 2.0
# Of longer logs this many steps are fitted, of every shape as many as there are, or an equal share.
_MOST_STEPS = 4_000


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of numbers; ``row`` is the row of the table, and ``faults`` describes the rows that are left out."""

    columns: dict[str, Floats]
    row: Ints
    faults: dict[int, str]

    def __len__(self) -> int:
        return len(self.row)

    def where(self, mask: Mask) -> Rows:
        """Return the rows of the mask, with the same faults."""
        return Rows(
            {name: values[mask] for name, values in self.columns.items()}, self.row[mask], self.faults
        )

    def without(self, faults: dict[int, str]) -> Rows:
        """Return the rows except these, and note their faults."""
        self.faults.update(faults)
        return self.where(np.array([int(row) not in faults for row in self.row], dtype=np.bool_))


def as_shapes(rows: Rows) -> Steps:
    """Return the prefill and the decode steps of rows of shapes.

    A prefill step has ``batch`` whole prompts. A decode step has ``batch`` sequences over the mean context of an
    answer, prompt + output/2.
    """
    for time, names in (("prefill_us", ("prompt", "batch")), ("decode_us", ("prompt", "batch", "output"))):
        rows = rows.without(_conflicts(rows, names, time))
    rows = rows.without(_too_fast(rows))
    prefill = _medians(rows, ("prompt", "batch"), "prefill_us")
    decode = _medians(rows, ("prompt", "batch", "output"), "decode_us")
    made = [*_prefill_steps(*prefill), *_decode_steps(*decode)]
    return _steps(made)


def as_steps(rows: Rows) -> Steps:
    """Return the steps of a log; those within a factor of two in all sizes are of one shape."""
    columns = rows.columns
    none = {
        int(row): "neither prefill_tokens nor decodes; expected a step that computes something"
        for row in rows.row[(columns["prefill_tokens"] <= 0) & (columns["decodes"] <= 0)]
    }
    none |= {
        int(row): "the step ends before it starts; expected a positive time"
        for row in rows.row[columns["time_us"] <= 0]
    }
    rows = rows.without(none)
    exact = "prefill_pairs" in columns
    pairs: tuple[str, ...] = ("prefill_pairs",) if exact else ()
    names = ("prefill_tokens", "prefill_context", "prefills", "decodes", "decode_context", *pairs)
    rows = rows.without(_conflicts(rows, names, "time_us"))
    sizes, times = _medians(rows, names, "time_us")
    means, counts = _means(rows, names, "time_us")
    chosen, stand_for = _spread(sizes, counts)
    sizes, times = sizes[chosen], times[chosen]
    made = []
    for (tokens, past, prompts, decodes, context, *_), time in zip(
        sizes.tolist(), times.tolist(), strict=True
    ):
        parts = [f"{tokens:,.0f} tokens of prompts"] if tokens else []
        parts += [f"{decodes:,.0f} decodes over {context:,.0f}"] if decodes else []
        shape = (_octave(tokens), _octave(past), _octave(decodes), _octave(context))
        whole = max(prompts, 1.0) if tokens else 0.0
        made.append((tokens, past, whole, decodes, context, time, shape, ", ".join(parts)))
    found = replace(_steps(made), rows=stand_for, mean_us=means[chosen])
    return replace(found, exact_pairs=sizes[:, -1]) if exact else found


def _octave(size: float) -> int:
    return int(np.frexp(size + 1.0)[1]) - 1


def _spread(sizes: Floats, rows: Floats) -> tuple[Ints, Floats]:
    """Return which steps are fitted, and how many of the ``rows`` of the log each stands for.

    All are fitted, or of each shape as many as make about ``_MOST_STEPS`` in all.
    """
    if len(sizes) <= _MOST_STEPS:
        return np.arange(len(sizes)), rows
    _, which, counts = np.unique(
        np.frexp(sizes + 1.0)[1] - 1, axis=0, return_inverse=True, return_counts=True
    )
    share = 1
    while int(np.minimum(counts, share + 1).sum()) <= _MOST_STEPS:
        share += 1
    order = np.argsort(which.reshape(-1), kind="stable")
    starts = np.cumsum(counts) - counts
    chosen = [
        order[start + np.linspace(0, count - 1, min(count, share)).astype(np.int64)]
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
    ]
    kept = np.sort(np.concatenate(chosen))
    shape = which.reshape(-1)
    of_shape = np.bincount(shape, rows) / np.bincount(shape[kept], minlength=len(counts))
    return kept, of_shape[shape[kept]]


_Made = tuple[float, float, float, float, float, float, tuple[object, ...], str]


def _prefill_steps(sizes: Floats, times: Floats) -> Iterator[_Made]:
    for (prompt, batch), time in zip(sizes.tolist(), times.tolist(), strict=True):
        label = f"{batch:,.0f} × {prompt:,.0f} tokens"
        yield prompt * batch, 0.0, batch, 0.0, 0.0, time, ("prefill", prompt, batch), label


def _decode_steps(sizes: Floats, times: Floats) -> Iterator[_Made]:
    for (prompt, batch, output), time in zip(sizes.tolist(), times.tolist(), strict=True):
        context = batch * (prompt + 0.5 * output)
        label = f"{batch:,.0f} × {prompt:,.0f} + {output:,.0f} tokens"
        yield 0.0, 0.0, 0.0, batch, context, time, ("decode", prompt, batch, output), label


def _steps(made: Sequence[_Made]) -> Steps:
    numbers = np.array([entry[:6] for entry in made], dtype=np.float64).reshape(-1, 6)
    known = {shape: index for index, shape in enumerate(dict.fromkeys(entry[6] for entry in made))}
    shape = np.array([known[entry[6]] for entry in made], dtype=np.int64)
    tokens, past, prompts, decodes, context, times = numbers.T
    return Steps(tokens, past, prompts, decodes, context, times, shape, tuple(entry[7] for entry in made))


@dataclass(frozen=True, slots=True)
class _Groups:
    """Timed rows by their sizes: group g has the rows order[starts[g]:starts[g + 1]], and the sizes sizes[g]."""

    sizes: Floats
    order: Ints
    starts: Ints

    @classmethod
    def of(cls, rows: Rows, names: Sequence[str], time: str) -> _Groups:
        timed = np.flatnonzero(np.isfinite(rows.columns[time]))
        sizes = np.stack([rows.columns[name][timed] for name in names], axis=1)
        if not len(timed):
            return cls(sizes, timed, np.zeros(1, dtype=np.int64))
        distinct, which = np.unique(sizes, axis=0, return_inverse=True)
        order = np.argsort(which.reshape(-1), kind="stable")
        starts = np.searchsorted(which.reshape(-1)[order], np.arange(len(distinct) + 1))
        return cls(distinct, timed[order], starts)

    def repeated(self) -> Iterator[tuple[int, Ints]]:
        """Yield each group that has several rows."""
        for group in np.flatnonzero(np.diff(self.starts) > 1).tolist():
            yield group, self.order[self.starts[group] : self.starts[group + 1]]


def _medians(rows: Rows, names: Sequence[str], time: str) -> tuple[Floats, Floats]:
    groups, values = _Groups.of(rows, names, time), rows.columns[time]
    found = values[groups.order[groups.starts[:-1]]] if len(groups.order) else np.zeros(0)
    for group, own in groups.repeated():
        found[group] = np.median(values[own])
    return groups.sizes, found


def _means(rows: Rows, names: Sequence[str], time: str) -> tuple[Floats, Floats]:
    """Return the mean time of the rows of each size, and how many they are."""
    groups, values = _Groups.of(rows, names, time), rows.columns[time]
    counts = np.diff(groups.starts)
    if not len(groups.order):
        return np.zeros(0), np.zeros(0)
    sums = np.bincount(np.repeat(np.arange(len(counts)), counts), values[groups.order])  # in order
    return sums / counts, counts.astype(np.float64)


def _conflicts(rows: Rows, names: Sequence[str], time: str) -> dict[int, str]:
    """Return the repetitions that contradict the others of their sizes; of only two, both."""
    values, faults = rows.columns[time], {}
    for _, own in _Groups.of(rows, names, time).repeated():
        middle = float(np.median(values[own]))
        far = own[(values[own] > _FACTOR * middle) | (values[own] < middle / _FACTOR)]
        if len(own) == 2 and values[own].max() > _FACTOR * values[own].min():
            far = own
        for index in far.tolist():
            faults[int(rows.row[index])] = (
                f"{_ms(values[index])}, while the median of {len(own)} rows of the same sizes is {_ms(middle)}; "
                f"expected times within a factor of {_FACTOR:g}"
            )
    return faults


def _too_fast(rows: Rows) -> dict[int, str]:
    """Return the rows of prefills that took less than half of what a smaller one took: they did not all run."""
    sizes, times = _medians(rows, ("prompt", "batch"), "prefill_us")
    faults: dict[int, str] = {}
    for (prompt, batch), time in zip(sizes.tolist(), times.tolist(), strict=True):
        smaller = (sizes[:, 0] <= prompt) & (sizes[:, 1] <= batch)
        slowest = float(times[smaller].max())
        if time * _FACTOR < slowest:
            index = int(np.flatnonzero(smaller & (times == slowest))[0])
            what = (
                f"{batch:,.0f} × {prompt:,.0f} tokens prefilled in {_ms(time)}, though {sizes[index, 1]:,.0f} × "
                f"{sizes[index, 0]:,.0f} took {_ms(slowest)}; expected no less than half of that"
            )
            own = (rows.columns["prompt"] == prompt) & (rows.columns["batch"] == batch)
            faults |= {int(row): what for row in rows.row[own]}
    return faults


def _ms(time_us: float) -> str:
    return f"{time_us / US_PER_MS:,.4g} ms"
