"""Values that are taken in the short way are those, and equal to those, that the long way of conversion gives."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from hermes_flow.config import convert
from hermes_flow.config.physical_values import out_of_range
from hermes_flow.config.quantities import Range
from hermes_flow.config.quick_values import OTHER, take
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 64, 10**6, 10**18, 10**400, -(10**400)),
    *(0.0, -0.0, 0.5, 1.0, 2.5, -1e9, 1e299, math.inf, -math.inf, math.nan),
    *("", " ", "\t", "a", "bf16", "???", "fcfs", "\x07", "1", "true", [], [1], ["a"], {}, {"a": 1}),
]


def below(kind: Any, seen: set[int]) -> Iterator[Any]:
    """Yield a type and the types of everything within it."""
    if id(kind) in seen:
        return
    seen.add(id(kind))
    yield kind
    inner = typing.get_args(kind) if typing.get_origin(kind) not in (typing.Literal, None) else ()
    if dataclasses.is_dataclass(kind):
        inner = tuple(convert.field_types(kind).values())
    for member in inner:
        if not isinstance(member, (Range, type(...))):
            yield from below(member, seen)


KINDS = [kind for kind in below(Config, set()) if not dataclasses.is_dataclass(kind)]


def edges(kind: Any) -> list[float]:
    """Return numbers at the ends of the ranges of a type, and just beyond them."""
    ranges = [each for each in below_ranges(kind) if isinstance(each, Range)]
    ends = [end for limits in ranges for end in (limits.low, limits.high)]
    near = [math.nextafter(end, side) for end in ends for side in (-math.inf, math.inf)]
    return [*ends, *near, *(int(end) + step for end in ends for step in (-1, 0, 1))]


def below_ranges(kind: Any) -> Iterator[Any]:
    for member in typing.get_args(kind):
        yield member
        yield from below_ranges(member)


def slowly(kind: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the converted value, or ``OTHER`` where it is refused, with no value taken in the short way."""
    with monkeypatch.context() as patch:
        patch.setattr(convert, "_taking", lambda kind: lambda value: OTHER)
        try:
            return convert.convert_value(kind, value, "key.name")
        except ConfigError:
            return OTHER


def test_the_types_of_the_schema_are_found() -> None:
    assert len(KINDS) > 60
    assert sum(take(kind)(1) is not OTHER for kind in KINDS) > 20
    assert sum(take(kind)("fcfs") is not OTHER for kind in KINDS) > 2


def test_the_short_way_takes_what_the_long_way_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        for value in [*VALUES, *edges(kind)]:
            taken = take(kind)(value)
            if taken is not OTHER:
                expected = slowly(kind, value, monkeypatch)
                assert (type(taken), repr(taken)) == (type(expected), repr(expected)), kind


def test_numbers_of_both_types_and_null_are_taken() -> None:
    share = typing.Annotated[float, Range(0, 1, above=True)]
    assert [take(share | None)(value) for value in (None, 1, 0.5)] == [None, 1.0, 0.5]  # type: ignore[operator]
    assert type(take(share)(1)) is float
    below_ten = typing.Annotated[int, Range(0, 10, below=True)]
    assert [take(below_ten)(value) for value in (0, 9, 10, 9.0)] == [0, 9, OTHER, OTHER]
    assert [take(share)(value) is OTHER for value in (0, 0.0, 1.1, math.nan, True, "1")] == [True] * 6


def test_a_number_of_two_ranges_is_held_to_both() -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Thing:
        count: typing.Annotated[int, Range(0, 100)] | typing.Annotated[float, Range(0, 1)] = 0

    assert out_of_range(Thing(1)) == []
    (problem,) = out_of_range(Thing(7))
    assert "from 0 to 1" in problem
