"""Gives memory that was freed back to the system, where the C library would keep it for later."""

from __future__ import annotations

# A run of so many requests frees 25 MB and more at a time; memory of shorter ones is better used again.
MANY_REQUESTS = 250_000


def give_back(requests: int) -> None:
    """Give freed memory back after a run, or a table, of so many requests; of few it is not worth the time.

    The C library keeps freed blocks below 32 MB, and Polars, which has an allocator of its own, cannot use them: a
    tenth of the peak of long runs. Only the C library of GNU has a call for it; elsewhere nothing happens.
    """
    if requests < MANY_REQUESTS:
        return
    import ctypes
    import sys

    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
