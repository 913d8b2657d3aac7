"""A limit per minute as a token bucket, exact to the nanosecond."""

from __future__ import annotations

from hermes_flow.program.units import NS_PER_S

MINUTE_NS = 60 * NS_PER_S


class TokenBucket:
    """Holds up to ``per_minute`` units, is full at time 0, and is refilled evenly with ``per_minute`` units a minute.

    So a burst of a whole minute's units may be taken at once after a pause, and in the long run no more than the
    limit. Levels are whole numbers of 1/60,000,000,000 of a unit: a nanosecond refills ``per_minute`` of them.
    """

    __slots__ = ("_level", "_most", "_rate", "_since_ns")

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute
        self._most = per_minute * MINUTE_NS
        self._level = self._most
        self._since_ns = 0

    def holds_ns(self, units: int, from_ns: int) -> int:
        """Return the first nanosecond from ``from_ns`` on with ``units`` (at most ``per_minute``) in the bucket."""
        missing = units * MINUTE_NS - self._level_at(from_ns)
        return from_ns if missing <= 0 else from_ns - (-missing // self._rate)

    def take(self, units: int, now_ns: int) -> None:
        """Take ``units`` from the bucket, which must hold them. Later calls use times from ``now_ns`` on."""
        self._level = self._level_at(now_ns) - units * MINUTE_NS
        self._since_ns = now_ns

    def state(self) -> tuple[int, int]:
        """Return what ``restore`` needs to undo all that is taken later."""
        return self._level, self._since_ns

    def restore(self, state: tuple[int, int]) -> None:
        """Undo all that was taken since ``state`` was asked for."""
        self._level, self._since_ns = state

    def _level_at(self, now_ns: int) -> int:
        return min(self._most, self._level + self._rate * (now_ns - self._since_ns))
