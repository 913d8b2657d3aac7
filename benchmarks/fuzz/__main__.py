"""Runs many random cases and prints what broke: ``python -m benchmarks.fuzz [CASES] [FIRST_SEED] [SECONDS]``."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from types import FrameType

from benchmarks.fuzz.case import case, smallest

_LIMIT_S = 30  # no case of a dozen requests takes longer


class _TooLong(BaseException):
    pass


def main(cases: int = 10_000, first: int = 0, seconds: float = 1800.0) -> int:
    """Run the cases and print the counts; return 1 if one broke a promise."""

    def alarm(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    signal.signal(signal.SIGALRM, alarm)
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(first, first + cases):
        if time.monotonic() - began > seconds:
            break
        signal.alarm(_LIMIT_S)
        try:
            outcome = case(seed)
            broken, overrides = outcome.broken, outcome.overrides
            counts["ran" if outcome.ran else "refused"] += 1
            if broken is not None:
                signal.alarm(4 * _LIMIT_S)
                overrides = smallest(overrides) if "workload=trace" not in overrides else overrides
        except _TooLong:
            broken, overrides = f"took more than {_LIMIT_S} s", ("?",)
        finally:
            signal.alarm(0)
        counts["cases"] += 1
        if broken is not None:
            counts["broken"] += 1
            print(f"seed {seed}: {broken}\n    {' '.join(repr(each) for each in overrides)}", flush=True)
    took = time.monotonic() - began
    print(
        f"{counts['cases']:,} cases in {took:,.0f} s: {counts['ran']:,} ran, {counts['refused']:,} were refused, "
    )
    print(f"{counts['broken']:,} broke a promise")
    return 1 if counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
