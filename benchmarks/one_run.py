"""One measurement in a process of its own: ``python -m benchmarks.one_run OVERRIDE…`` prints it as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def measure(overrides: list[str]) -> dict[str, Any]:
    """Compose, compile, simulate, build every table; return CPU seconds of each, and what was simulated."""
    import polars  # noqa: F401 - the price of the import is the process's, not that of the first table

    import hermes_flow as hf

    seconds: dict[str, float] = {}
    config = _timed(seconds, "compose_s", lambda: hf.compose(overrides))
    program = _timed(seconds, "compile_s", lambda: hf.compile(config))
    result = _timed(seconds, "simulate_s", lambda: hf.simulate(program))
    tables = ("requests", "stages", "clients", "summary")
    _timed(seconds, "tables_s", lambda: [getattr(result, table) for table in tables])
    return {
        "requests": result.summary["requests"]["submitted"],
        "completed": result.summary["requests"]["completed"],
        "events": result.summary["engine"]["events"],
        "steps": result.summary["engine"]["steps"],
        **seconds,
    }


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    started = time.process_time()
    value = work()
    seconds[name] = time.process_time() - started
    return value


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
