"""Sizes the best designs of a plan with shorter and longer steps, and finds those that are as good as the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_flow.config.schema import Config
from hermes_flow.metrics.error_bars.bars import StepTimes, step_times
from hermes_flow.planning.designs import Clients
from hermes_flow.planning.kept import NOTHING_KEPT, Kept
from hermes_flow.planning.sizing import size

if TYPE_CHECKING:
    from hermes_flow.planning.plan import Design

_MOST_TIMES = 2  # a design that needs more clients than so many times those of the answer is not looked for


@dataclass(frozen=True, slots=True)
class Sizes:
    """The fewest clients with the shortest step times of the error bar and with the longest ones.

    None where no size meets the SLO then.
    """

    step_times: StepTimes
    low: Clients | None
    high: Clients | None


def with_sizes(config: Config, design: Design, kept: Kept = NOTHING_KEPT) -> Design:
    """Return the design with its sizes at both ends of its error bar, where it has one."""
    bar = step_times(design.summary or {})
    clients = design.sized.clients
    if bar is None or clients is None:
        return design
    most = _MOST_TIMES * clients.total + 1
    low, high = (size(config, design.family, most, factor, kept).clients for factor in (bar.low, bar.high))
    if low is None or low.total > clients.total:  # verdicts that alternate from size to size
        low = clients
    return replace(design, sizes=Sizes(bar, low, high))


def compared_with_the_best(ranked: Sequence[Design]) -> list[Design]:
    """Return the designs, each with whether its prices overlap with those of the best one.

    A design without a price is compared by accelerators, and only if the best one has no price either.
    """
    if not ranked or ranked[0].sizes is None:
        return list(ranked)
    best = ranked[0]
    most = _amount(best, best.sizes.high if best.sizes is not None else None)
    found = [best]
    for design in ranked[1:]:
        comparable = (design.usd_per_hour is None) == (best.usd_per_hour is None)
        if design.sizes is None or not comparable:
            found.append(design)
            continue
        least = _amount(design, design.sizes.low)
        found.append(replace(design, like_the_best=least <= most))
    return found


def _amount(design: Design, clients: Clients | None) -> float:
    """Return the price of so many clients, or their accelerators where there is no price; infinite for no size."""
    if clients is None:
        return math.inf
    price = design.price_of(clients)
    return float(design.devices_of(clients) or 0) if price is None else price
