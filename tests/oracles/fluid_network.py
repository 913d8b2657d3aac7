"""Transfers as fluids through shared links, in exact fractions: every rate and every end, one event at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Transfer:
    """``size`` bytes, all sent from ``start_ns`` on over all ``links`` at once; no link comes twice."""

    start_ns: int
    size: int
    links: tuple[int, ...]


def fill_links(
    links_of: Mapping[int, Sequence[int]], capacity: Mapping[int, Fraction]
) -> dict[int, Fraction]:
    """Raise all rates together; whoever meets a full link stays where he is (max-min fairness)."""
    rates = {flow: Fraction(0) for flow in links_of}
    rising = set(links_of)
    while rising:
        rise = None
        for link, most in capacity.items():
            users = [flow for flow in links_of if link in links_of[flow]]
            risers = [flow for flow in users if flow in rising]
            if risers:
                room = (Fraction(most) - sum(rates[flow] for flow in users)) / len(risers)
                rise = room if rise is None else min(rise, room)
        assert rise is not None, "a flow without a link has no rate"
        for flow in rising:
            rates[flow] += rise
        for link, most in capacity.items():
            users = [flow for flow in links_of if link in links_of[flow]]
            if sum(rates[flow] for flow in users) == most:
                rising -= set(users)
    return rates


def simulate_fluid(
    transfers: Sequence[Transfer],
    capacity: Mapping[int, Fraction],
    changes: Sequence[tuple[int, int, Fraction]] = (),
) -> list[Fraction]:
    """Return when the last byte of each transfer has left, in ns; ``capacity`` is in bytes per ns.

    ``changes`` are (instant, link, its capacity from there on).
    """
    capacity = dict(capacity)
    to_come = sorted(changes, key=lambda change: change[0])
    ends: list[Fraction | None] = [None] * len(transfers)
    left = {number: Fraction(transfer.size) for number, transfer in enumerate(transfers)}
    now = Fraction(0)
    while left:
        open_now = {number: transfers[number].links for number in left if transfers[number].start_ns <= now}
        while to_come and to_come[0][0] <= now:
            _, link, capacity[link] = to_come.pop(0)
        rates = fill_links(open_now, capacity)
        events = [Fraction(transfers[number].start_ns) for number in left if number not in open_now]
        events += [now + left[number] / rates[number] for number in open_now if rates[number]]
        events += [Fraction(at) for at, _, _ in to_come[:1]]
        then = min(events)
        for number in open_now:
            left[number] -= rates[number] * (then - now)
            if left[number] == 0:
                ends[number] = then
                del left[number]
        now = then
    return [end for end in ends if end is not None]
