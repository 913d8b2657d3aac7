"""Compares the figures of jobs of a sweep that differ in one key alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hermes_flow.program.same_bits import exp, log

if TYPE_CHECKING:
    import polars as pl

_STEPS = 8  # of one key; with more values the first and the last are compared


@dataclass(frozen=True, slots=True)
class Effect:
    """The step of ``key`` from one value to another.

    ``pairs`` counts the pairs of jobs that differ in nothing else, and ``ratios`` has for each figure the geometric
    mean of the ratio of the later value to the earlier one; None where it is not defined.
    """

    key: str
    before: Any
    after: Any
    pairs: int
    ratios: dict[str, float | None]


def varying_keys(frame: pl.DataFrame) -> list[str]:
    """Return the overrides of a sweep's table that differ between its jobs."""
    keys = frame.columns[1 : frame.columns.index("status")]
    return [key for key in keys if frame[key].n_unique() > 1]


def effects(frame: pl.DataFrame, figures: Sequence[str]) -> list[Effect]:
    """Return the steps of all keys that vary, in the order of their values (numbers by size).

    A step without a single pair of jobs that differ in this key alone is left out, as in sweeps whose keys change
    together.
    """
    import polars as pl

    keys = varying_keys(frame)
    done = frame.filter(pl.col("status") == "completed")
    rows = done.select(*keys, *figures).to_dicts()
    found = []
    for key in keys:
        others = [other for other in keys if other != key]
        groups: dict[Any, dict[tuple[Any, ...], dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row[key], {})[tuple(row[other] for other in others)] = row
        for before, after in _steps(list(groups)):
            shared = [place for place in groups[before] if place in groups[after]]
            if not shared:
                continue
            pairs = [(groups[before][place], groups[after][place]) for place in shared]
            ratios = {name: _mean_ratio([(old[name], new[name]) for old, new in pairs]) for name in figures}
            found.append(Effect(key, before, after, len(pairs), ratios))
    return found


def _steps(values: list[Any]) -> list[tuple[Any, Any]]:
    if all(isinstance(value, int | float) for value in values):
        values = sorted(values)
    if len(values) > _STEPS:
        return [(values[0], values[-1])]
    return list(pairwise(values))


def _mean_ratio(pairs: Sequence[tuple[Any, Any]]) -> float | None:
    logarithms = [
        float(log(new / old)) for old, new in pairs if old is not None and new is not None and old > 0 < new
    ]
    return float(exp(math.fsum(logarithms) / len(logarithms))) if logarithms else None
