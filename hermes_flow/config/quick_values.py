"""Takes the plain values that are valid as they are, which are most of a configuration, in a short way.

``convert`` asks here first. A value that is not taken goes the long way, which converts it or says what is wrong.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any

from hermes_flow.config.quantities import Range

OTHER: Any = object()  # what is returned for a value that is not taken

Take = Callable[[Any], Any]

_NUMBERS = (float, int)
_FINITE = Range(-1e300, 1e300)  # larger numbers go the long way


def take(kind: Any) -> Take:
    """Return a function that returns a valid value of the type ``kind``, and ``OTHER`` for any other value."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: OTHER if type(value) is str and value == "???" else value
    if kind is bool:
        return lambda value: value if value is True or value is False else OTHER
    if kind is int:
        return lambda value: value if type(value) is int else OTHER
    if kind is float:
        return _number(float, _FINITE)
    if kind is str:
        return _text
    if origin is typing.Annotated and isinstance(arguments[1], Range):
        return _number(arguments[0], arguments[1])
    if origin is typing.Literal:
        return _option(arguments)
    if origin in (types.UnionType, typing.Union):
        return _optional(arguments)
    return _none


def _number(kind: type, limits: Range) -> Take:
    low, high, holds = limits.low, limits.high, limits.holds
    simple = not (limits.or_zero or limits.above or limits.below)
    if kind is float:
        if simple:
            return lambda value: float(value) if type(value) in _NUMBERS and low <= value <= high else OTHER
        return lambda value: float(value) if type(value) in _NUMBERS and holds(value) else OTHER
    if simple:
        return lambda value: value if type(value) is int and low <= value <= high else OTHER
    return lambda value: value if type(value) is int and holds(value) else OTHER


def _text(value: Any) -> Any:
    if type(value) is str and value != "???" and value.isprintable() and value and not value.isspace():
        return value
    return OTHER


def _none(value: Any) -> Any:
    return OTHER


def _option(options: tuple[Any, ...]) -> Take:
    known = {option: option for option in options if type(option) is str}
    return lambda value: known.get(value, OTHER) if type(value) is str else OTHER


def _optional(members: tuple[Any, ...]) -> Take:
    """Return the function of a type that may be null; where it may be several others, the first one counts."""
    others = [member for member in members if member is not type(None)]
    first = take(others[0])
    if len(others) == len(members):
        return first
    return lambda value: None if value is None else first(value)
