"""Shows a progress bar on standard error, for runs of more than a second in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from hermes_flow.program.program import Program
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import NS_PER_S, Ints

_DELAY_S = 1.0
_FORMAT = "simulated {percentage:3.0f} % |{bar}| {n:,.0f} of {total:,.0f} s, {remaining} left"


@contextmanager
def progress_bar(program: Program) -> Iterator[Callable[[int], None] | None]:
    """Yield a callback for the simulated nanoseconds, or None without a terminal."""
    span = int(_earliest_ns(program.requests).max(initial=0))
    if not sys.stderr.isatty() or span <= 0:
        yield None
        return
    from tqdm import tqdm

    total = span / NS_PER_S
    with tqdm(total=total, delay=_DELAY_S, leave=False, dynamic_ncols=True, bar_format=_FORMAT) as bar:

        def advance(now_ns: int) -> None:
            bar.update(min(now_ns / NS_PER_S, total) - bar.n)

        yield advance


@contextmanager
def probe_counter(what: str = "simulations") -> Iterator[Callable[[object], None] | None]:
    """Yield a callback for each finished item of ``what`` in a search, or None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(delay=_DELAY_S, leave=False, dynamic_ncols=True, bar_format=f"{{n:.0f}} {what}") as bar:
        yield lambda probe: bar.update()


def _earliest_ns(requests: Requests) -> Ints:
    """When each request can arrive at the earliest: later turns of a session after all its think times."""
    if requests.previous is None or requests.think_ns is None:
        return requests.arrival_ns
    thought = np.cumsum(requests.think_ns)
    first = np.maximum.accumulate(np.where(requests.previous < 0, np.arange(len(requests)), 0))
    earliest: Ints = requests.arrival_ns + thought - thought[first]
    return earliest
