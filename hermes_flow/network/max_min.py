"""Divides links among the transfers on them so that the smallest rate is as large as it can be (max-min fairness)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush


def max_min_rates(
    paths: Sequence[tuple[int, ...]], counts: Sequence[int], capacity: Mapping[int, int]
) -> list[int]:
    """Return the max-min fair rate of one transfer on each path, by progressive filling.

    ``counts[i]`` transfers share the links ``paths[i]``; all of them get the same rate. The link with the smallest
    fair share is filled first, the transfers on it are fixed, and so on. Rates have the unit of ``capacity`` and are
    rounded down to a whole number of it.
    """
    left: dict[int, int] = {}
    users: dict[int, int] = {}
    crossing: dict[int, list[int]] = {}
    for place, links in enumerate(paths):
        for link in links:
            if link not in left:
                left[link], users[link], crossing[link] = capacity[link], 0, []
            users[link] += counts[place]
            crossing[link].append(place)
    rates = [-1] * len(paths)
    unfixed = len(paths)
    shares = [(left[link] // users[link], link) for link in left]
    heapify(shares)
    while unfixed:
        share, bottleneck = heappop(shares)
        if not users[bottleneck]:
            continue
        # Shares grow only, so an outdated entry comes up too early and goes back with the present share.
        present = left[bottleneck] // users[bottleneck]
        if present > share:
            heappush(shares, (present, bottleneck))
            continue
        for place in crossing[bottleneck]:
            if rates[place] < 0:
                rates[place] = share
                unfixed -= 1
                for link in paths[place]:
                    left[link] -= share * counts[place]
                    users[link] -= counts[place]
    return rates
