"""The interface between the engine and whatever can be busy until a known time."""

from __future__ import annotations

from typing import Protocol


class Resource(Protocol):
    """Anything that is busy until a known time.

    A resource with a class attribute ``fixed = True`` promises that an event, once it is known, is never postponed or
    given up; another event may still come before it. The engine then need not re-key it.
    """

    def next_ns(self) -> int:
        """Return the next instant at which this resource does something that others wait for, or NEVER."""

    def fire(self, now_ns: int) -> int | None:
        """Do everything due at ``now_ns``; return the next instant as ``next_ns`` does. None lets the engine ask."""

    def settle(self, now_ns: int) -> None:
        """Bring the internal state up to, but not including, ``now_ns``."""
