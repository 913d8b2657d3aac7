"""The ways of requests between their users and the sites that served them."""

from __future__ import annotations

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints


@dataclass(frozen=True, slots=True)
class Travel:
    """By request: the site that served it (−1: it never set out), and its ways there and back in nanoseconds."""

    site: Ints
    out_ns: Ints
    back_ns: Ints

    @property
    def both_ns(self) -> Ints:
        """The ways there and back together."""
        return self.out_ns + self.back_ns

    def part(self, first: int, last: int) -> Travel:
        """Return the requests ``first`` … ``last − 1``."""
        return Travel(self.site[first:last], self.out_ns[first:last], self.back_ns[first:last])
