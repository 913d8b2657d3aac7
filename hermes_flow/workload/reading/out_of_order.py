"""Says which rows of a trace are not in order of arrival; they are sorted, which a wrong date would hide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hermes_flow.program.units import NS_PER_S, Ints


def out_of_order_note(
    path: Path, arrival_ns: Ints, place: Callable[[int], tuple[int | None, str]]
) -> str | None:
    """Return a note where rows arrive before one above them, None where all are in order.

    ``arrival_ns`` is negative where a row waits for an answer and has no arrival of its own. ``place`` returns the
    line of a row in the file, and what names the row where it has no line.
    """
    own = np.flatnonzero(arrival_ns >= 0)
    arrivals = arrival_ns[own]
    back_ns = np.maximum.accumulate(arrivals) - arrivals if len(own) else arrivals
    late = np.flatnonzero(back_ns)
    if not len(late):
        return None
    line, words = place(int(own[late[0]]))
    first = words.removesuffix(": ") if line is None else f"line {line}"
    back_s = back_ns.max() / NS_PER_S
    far = f"{back_s:,.0f}" if back_s >= 100 else f"{back_s:.3g}"
    return (
        f"{path}: {len(late):,} of {len(own):,} rows arrive before a row above them, the first of them in {first}, "
        f"and by up to {far} s; all rows are sorted by arrival"
    )
