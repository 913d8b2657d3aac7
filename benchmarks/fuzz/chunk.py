"""Runs the cases of some seeds, each within a limit of time, and makes those that broke a promise small."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from types import FrameType

from benchmarks.fuzz.case import drawn

_LIMIT_S = 20  # of CPU; no case of some dozen requests takes longer
_WALL_S = 300

Counts = Counter[tuple[str, str]]


class _TooLong(BaseException):
    pass


def run_chunk(first: int, end: int, deadline: float) -> tuple[Counts, list[str]]:
    """Run the cases of some seeds; return the counts by kind, and a text for each broken promise."""

    def alarm(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    signal.signal(signal.SIGALRM, alarm)
    signal.signal(signal.SIGVTALRM, alarm)
    counts: Counts = Counter()
    texts = []
    for seed in range(first, end):
        if time.time() > deadline:
            break
        case = drawn(seed)
        parts, broken = case.parts, None
        _limit(_LIMIT_S)
        try:
            outcome = case.outcome()
            broken, parts = outcome.broken, outcome.overrides
            counts[case.kind, "ran" if outcome.ran else "refused"] += 1
            if broken is not None:
                _limit(4 * _LIMIT_S)
                again = case.run(case.smallest())
                broken, parts = again.broken or broken, again.overrides
        except _TooLong:
            broken = broken or f"took more than {_LIMIT_S} s of CPU"
        finally:
            _limit(0)
        counts[case.kind, "cases"] += 1
        if broken is not None:
            counts[case.kind, "broken"] += 1
            texts.append(f"seed {seed}, {case.kind}: {broken}\n    {' '.join(repr(each) for each in parts)}")
    return counts, texts


def _limit(seconds: int) -> None:
    """Raise an alarm after so many seconds of CPU, or many more of waiting; 0 takes it back."""
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    signal.alarm(_WALL_S if seconds else 0)


if __name__ == "__main__":
    found, broken = run_chunk(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    print(json.dumps({"counts": [[*key, count] for key, count in found.items()], "texts": broken}))
