"""A naive token bucket: a call may begin when no stretch of time since an earlier call has had too much.

A bucket that is full at first, holds a minute's limit and is refilled evenly lets through exactly those calls that
keep, for every earlier call j, the units of calls j … i at or below the limit plus what is refilled since j began.
No level is tracked; every call looks at all before it, in exact fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

MINUTE_NS = 60_000_000_000


def earliest_ns(begun: Sequence[tuple[int, int]], units: int, per_minute: int | None, from_ns: int) -> int:
    """Return when a call of so many units may begin, from ``from_ns`` on; ``begun`` are (start, units) before it."""
    if per_minute is None:
        return from_ns
    at, total = from_ns, units
    for start, taken in reversed(begun):
        total += taken
        at = max(at, start + math.ceil(Fraction((total - per_minute) * MINUTE_NS, per_minute)))
    return at


def starts_ns(
    ready_ns: Sequence[int],
    tokens: Sequence[int],
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    rejects: bool,
) -> list[int | None]:
    """Return when each call begins, in the order in which they come; None where it is rejected."""
    calls: list[tuple[int, int]] = []
    spent: list[tuple[int, int]] = []
    starts: list[int | None] = []
    for ready, size in zip(ready_ns, tokens, strict=True):
        from_ns = max(ready, calls[-1][0]) if calls else ready
        at = max(
            earliest_ns(calls, 1, requests_per_minute, from_ns),
            earliest_ns(spent, size, tokens_per_minute, from_ns),
        )
        if rejects and at > ready:
            starts.append(None)
            continue
        calls.append((at, 1))
        spent.append((at, size))
        starts.append(at)
    return starts
