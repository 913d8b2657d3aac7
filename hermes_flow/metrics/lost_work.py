"""The energy of clients all of whose tasks were lost with them, and began anew elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.same_bits import known_total

Floats = NDArray[np.float64]


def share_lost_work(columns: Sequence[Floats], work_j: float) -> bool:
    """Add ``work_j`` to the joules of a pool's tasks in proportion; return False where these have none.

    A ``column`` has the joules of an op by request, NaN where nobody took it.
    """
    known = math.fsum(known_total(column) for column in columns)
    if known <= 0.0:
        return False
    for column in columns:
        column *= 1.0 + work_j / known
    return True
