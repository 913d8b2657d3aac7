"""Units: the column type that all modules share, and all conversions between units of keys and of the program.

Keys of a configuration have milliseconds, microseconds, gigabytes and teraflops; the program has whole nanoseconds
(picoseconds within an LLM step) and bytes. GB = 1e9 bytes.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

# The compiled core has the values of such constants in its code, and looks others up.
PS_PER_NS: Final = 1000
NS_PER_S: Final = 1_000_000_000
NEVER: Final = 1 << 100  # an instant after every other one, in nanoseconds or picoseconds

NS_PER_US = 1e3
NS_PER_MS = 1e6
PS_PER_US = 1e6
PS_PER_MS = 1e9
PS_PER_S = 1e12
S_PER_US = 1e-6
S_PER_NS = 1e-9
US_PER_MS = 1e3
US_PER_S = 1e6
MS_PER_S = 1e3
BYTES_PER_GB = 1e9
BYTES_PER_MB = 1e6
BYTES_PER_KIB = 1024.0
FLOPS_PER_TFLOPS = 1e12


def us_to_ns(us: float) -> int:
    """Return microseconds as whole nanoseconds, halves to the even one."""
    return round(us * NS_PER_US)


def ms_to_ns(ms: float) -> int:
    """Return milliseconds as whole nanoseconds, halves to the even one."""
    return round(ms * NS_PER_MS)


def us_to_ps(us: float) -> int:
    """Return microseconds as whole picoseconds, halves to the even one."""
    return round(us * PS_PER_US)


def gb_to_bytes(gb: float) -> float:
    """Return gigabytes (1e9) as bytes, and so GB/s as bytes per second."""
    return gb * BYTES_PER_GB


def bytes_to_gb(size: float) -> float:
    """Return bytes as gigabytes (1e9)."""
    return size / BYTES_PER_GB
