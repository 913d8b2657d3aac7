"""The phases of a staged load, as a program has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the load: from ``begin_ns`` to ``end_ns``, requests were sent at ``rate_per_s``."""

    begin_ns: int
    end_ns: int
    rate_per_s: float


def phase_of(arrival_ns: Ints, phases: Sequence[Phase]) -> Ints:
    """Return the number of each request's phase, from 0: that in which it arrives.

    An arrival at the very end of a phase is its own. What arrives after the last phase, as later turns of a session
    do, belongs to the last one.
    """
    ends = np.array([phase.end_ns for phase in phases], np.int64)
    found: Ints = np.searchsorted(ends, arrival_ns, side="left")
    return np.minimum(found, len(phases) - 1)
