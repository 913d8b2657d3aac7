"""Remembers what was made while one configuration is compiled again and again with another value for one key.

Nearly all of such a configuration is the same from one time to the next. Outside of ``remembering`` all is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

# By what it is of, what a thing was made from, and the thing; None where nothing is remembered.
_remembered: ContextVar[dict[Any, tuple[Any, Any]] | None] = ContextVar("remembered", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Make what is asked for again from the same things once; nobody may change them or the result meanwhile."""
    before = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(before)


def remembered() -> dict[Any, tuple[Any, Any]] | None:
    """Return the things that are remembered now, which the caller may change; None outside of ``remembering``."""
    return _remembered.get()


def first_made(what: str, inputs: object, make: Callable[[], T]) -> T:
    """Return ``make()``, or the first thing called ``what`` that was made, if that was from equal ``inputs``.

    Only the first is kept, which is that of the configuration whose keys are given others values one by one.
    """
    things = _remembered.get()
    if things is None:
        return make()
    known = things.get(what)
    if known is None:
        known = things[what] = (inputs, make())
    return known[1] if known[0] == inputs else make()
