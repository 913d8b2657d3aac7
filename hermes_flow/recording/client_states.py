"""The states of a client that comes and goes, and how long it was in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

from hermes_flow.program.fleet import State

States: TypeAlias = Sequence[tuple[int, State]]
"""Changes of state in order of time: the instant in nanoseconds, and the state from then on."""

# A client that is down draws nothing, and is paid for, as its machine is still rented; one that is taken is not.
PAID: frozenset[State] = frozenset({"starting", "up", "draining", "down"})
POWERED: frozenset[State] = frozenset({"starting", "up", "draining"})
STARTING: frozenset[State] = frozenset({"starting"})
FAILED_STATES: frozenset[State] = frozenset({"down", "taken"})
SERVING: frozenset[State] = frozenset({"up", "draining"})


def stretches(states: States, end_ns: int, among: Collection[State]) -> list[tuple[int, int]]:
    """Return the stretches of time until ``end_ns`` in which a client is in one of the states ``among``, joined.

    A client without changes is up all the time.
    """
    changes: States = states or ((0, "up"),)
    found: list[tuple[int, int]] = []
    ends = [*(at for at, _ in changes[1:]), end_ns]
    for (at, state), until in zip(changes, ends, strict=True):
        begin, end = min(at, end_ns), min(until, end_ns)
        if state not in among or end <= begin:
            continue
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def time_in(states: States, end_ns: int, among: Collection[State]) -> int:
    """Return the nanoseconds until ``end_ns`` in which a client is in one of the states ``among``."""
    return sum(end - begin for begin, end in stretches(states, end_ns, among))
