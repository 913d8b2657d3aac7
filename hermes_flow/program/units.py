"""Units of time and the column type that every other module shares."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

PS_PER_NS = 1000
NS_PER_S = 1_000_000_000
NEVER = 1 << 100  # an instant after every other one, in nanoseconds or picoseconds
