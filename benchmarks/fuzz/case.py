"""Draws the case of a seed: overrides, features together, a trace, own files, a command, or two related runs."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.fuzz.commands import command_line
from benchmarks.fuzz.entries import entry_of_ones_own
from benchmarks.fuzz.features import features
from benchmarks.fuzz.model_files import model_file
from benchmarks.fuzz.outcome import Outcome, Try, attempt
from benchmarks.fuzz.overrides import command
from benchmarks.fuzz.relations import relation
from benchmarks.fuzz.traces import random_trace

SHARES: dict[str, float] = {
    "overrides": 0.32,
    "features": 0.15,
    "trace": 0.15,
    "entry": 0.12,
    "model file": 0.06,
    "command": 0.08,
    "relation": 0.12,
}


def drawn(seed: int, kind: str | None = None) -> Try:
    """Return the case of a seed, of a random kind unless one is given."""
    rng = random.Random(f"fuzz {seed}")
    chosen = rng.choices(list(SHARES), list(SHARES.values()))[0]
    return _MAKE[kind or chosen](rng)


def case(seed: int, kind: str | None = None) -> Outcome:
    """Run the case of a seed."""
    return drawn(seed, kind).outcome()


def _overrides(rng: random.Random) -> Try:
    return Try("overrides", tuple(command(rng)), attempt)


def _trace(rng: random.Random) -> Try:
    trace = random_trace(rng)
    extra = rng.choice(
        (
            *([], [], ["workload.limit=3"], ["pipeline=llm"], ["cluster.pools.llm.prefix_cache=true"]),
            *(["workload.start=1"], ["workload.duration=2"], ["workload.arrivals=poisson"]),
            *(["workload.rate_scale=3"], ["pipeline=chat", "cluster=disaggregated"]),
        )
    )

    def run(lines: tuple[str, ...]) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            path = trace.write(Path(folder), lines)
            given = ["workload=trace", f"workload.path={path}", *extra]
            return attempt(given, names=path.name, shown=[path.suffix, *extra, *lines])

    return Try("trace", trace.parts, run)


_MAKE: dict[str, Callable[[random.Random], Try]] = {
    "overrides": _overrides,
    "features": features,
    "trace": _trace,
    "entry": entry_of_ones_own,
    "model file": model_file,
    "command": command_line,
    "relation": relation,
}
