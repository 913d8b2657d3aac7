"""A progress bar on standard error, for runs of more than a second in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hermes_flow.compiler.program import NS_PER_S, Program

_DELAY_S = 1.0
_FORMAT = "simulated {percentage:3.0f} % |{bar}| {n:,.0f} of {total:,.0f} s, {remaining} left"


@contextmanager
def progress_bar(program: Program) -> Iterator[Callable[[int], None] | None]:
    """Yield a callback that takes the simulated nanoseconds, or None where nobody would see a bar."""
    span = int(program.requests.arrival_ns[-1]) if len(program.requests) else 0
    if not sys.stderr.isatty() or span <= 0:
        yield None
        return
    from tqdm import tqdm

    total = span / NS_PER_S
    with tqdm(total=total, delay=_DELAY_S, leave=False, dynamic_ncols=True, bar_format=_FORMAT) as bar:

        def advance(now_ns: int) -> None:
            bar.update(min(now_ns / NS_PER_S, total) - bar.n)

        yield advance
