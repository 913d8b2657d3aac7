"""Reads the column ``stages`` of a trace, which lists sizes and times of single stages of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_flow.program.stage_sizes import UNKNOWN, Listing, StageSizes
from hermes_flow.program.units import NS_PER_US, Ints
from hermes_flow.workload.traces.cells import INT64_MAX, text_of

if TYPE_CHECKING:
    import polars as pl

_NUMBERS = {"instance": 0, "input_tokens": UNKNOWN, "output_tokens": UNKNOWN}  # and what a missing one means
_KEYS = ("stage", *_NUMBERS, "duration_us")
_SHOWN = 60
_EXPECTED = 'a list of stages such as [{"stage": "decode", "output_tokens": 44}]'


@dataclass(frozen=True, slots=True)
class StageLists:
    """Lists of {stage, instance, input_tokens, output_tokens, duration_us}; text has them as JSON.

    They are read as their lengths.
    """

    expected: str = _EXPECTED

    def read(self, cells: pl.Series) -> pl.Series:
        """Return how many stages each list has."""
        import polars as pl

        lengths = [None if isinstance(found, str) else len(found) for found in map(_entries, _values(cells))]
        return pl.Series(cells.name, lengths, dtype=pl.Int64)

    def problem(self, cells: pl.Series) -> str:
        """Return what is wrong with the list in the first cell."""
        found = _entries(_values(cells)[0])
        return found if isinstance(found, str) else f"expected {self.expected}"

    def sizes(self, cells: pl.Series, rows: Ints, listing: Listing) -> StageSizes:
        """Return the entries of valid cells, one request for each; ``rows`` are those of the file."""
        names: dict[str, int] = {}
        table: list[tuple[int, ...]] = []
        for request, cell in enumerate(_values(cells)):
            found = _entries(cell)
            assert not isinstance(found, str)
            for entry in found:
                number = names.setdefault(entry["stage"], len(names))
                numbers = [_number(entry, key) for key in _NUMBERS]
                table.append((request, number, *numbers, _duration_ns(entry)))
        columns = np.array(table, dtype=np.int64).reshape(len(table), 6)
        return StageSizes(
            names=tuple(names),
            request=columns[:, 0],
            stage=columns[:, 1],
            instance=columns[:, 2],
            input_tokens=columns[:, 3],
            output_tokens=columns[:, 4],
            duration_ns=columns[:, 5],
            rows=rows,
            listing=listing,
        )


def _values(cells: pl.Series) -> list[Any]:
    if cells.dtype.is_nested() or cells.dtype.is_(_object_type()):
        return cells.to_list()
    return text_of(cells).to_list()


def _object_type() -> Any:
    import polars as pl

    return pl.Object


def _entries(cell: Any) -> list[dict[str, Any]] | str:
    """Return the entries of a cell without keys that have no value, or what is wrong with it."""
    if cell is None:
        return []
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return f"is {cell[:_SHOWN]!r}; expected {_EXPECTED}"
    if not isinstance(cell, list):
        return f"is {str(cell)[:_SHOWN]}; expected {_EXPECTED}"
    entries: list[dict[str, Any]] = []
    seen: set[tuple[str, int]] = set()
    for place, given in enumerate(cell):
        if not isinstance(given, Mapping):
            return f"[{place}] is {str(given)[:_SHOWN]}; expected a mapping with the key 'stage'"
        entry = {key: value for key, value in given.items() if value is not None}
        problem = _problem(entry)
        if problem:
            return f"[{place}]{problem}"
        one = (entry["stage"], _number(entry, "instance"))
        if one in seen:
            return f"[{place}] lists instance {one[1]} of stage {one[0]!r} a second time"
        seen.add(one)
        entries.append(entry)
    return entries


def _problem(entry: Mapping[str, Any]) -> str:
    for key in entry:
        if key not in _KEYS:
            return f" has the unknown key {str(key)[:_SHOWN]!r}; expected {', '.join(_KEYS)}"
    if not isinstance(entry.get("stage"), str) or not entry["stage"]:
        return f".stage is {entry.get('stage')!r}; expected the name of a stage"
    for key in _NUMBERS:
        value = entry.get(key, 0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < INT64_MAX or value != int(value):
            limit = _limit(value, INT64_MAX) if number else ""
            return f".{key} is {value!r}; expected a whole number, 0 or more{limit}"
    value = entry.get("duration_us", 0)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < INT64_MAX / NS_PER_US:
        limit = _limit(value, INT64_MAX // int(NS_PER_US)) if number else ""
        return f".duration_us is {value!r}; expected a time in microseconds, 0 or more{limit}"
    return ""


def _limit(value: float, most: int) -> str:
    """Return the upper limit for a message about a number that reaches it."""
    return f" and less than {most:,}" if value >= most else ""


def _number(entry: Mapping[str, Any], key: str) -> int:
    return int(entry.get(key, _NUMBERS[key]))


def _duration_ns(entry: Mapping[str, Any]) -> int:
    value = entry.get("duration_us")
    return UNKNOWN if value is None else round(value * NS_PER_US)
