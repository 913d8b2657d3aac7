"""The ways of requests between their users and the sites that served them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Travel:
    """By request: the site that served it (−1: it never set out), and its ways there and back in nanoseconds.

    ``before_ns`` is the time from its arrival until it set out for that site, which is 0 unless it had set out
    before. ``moved`` counts the sites that it had to leave, and ``earlier_usd`` is the price of its earlier ways.
    """

    site: Ints
    out_ns: Ints
    back_ns: Ints
    before_ns: Ints
    moved: Ints
    earlier_usd: Floats

    @property
    def both_ns(self) -> Ints:
        """The ways there and back together."""
        return self.out_ns + self.back_ns

    def part(self, first: int, last: int) -> Travel:
        """Return the requests ``first`` … ``last − 1``."""
        rows = slice(first, last)
        return Travel(
            self.site[rows],
            self.out_ns[rows],
            self.back_ns[rows],
            self.before_ns[rows],
            self.moved[rows],
            self.earlier_usd[rows],
        )
