"""One measurement in a process of its own: ``python -m benchmarks.one_run OVERRIDE…`` prints it as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hermes_flow.config.schema import Config
    from hermes_flow.metrics.result import Result


def measure(overrides: list[str]) -> dict[str, Any]:
    """Compose, compile, simulate, build every table; return CPU seconds of each, and what was simulated.

    The tables of a streamed run are written, as they are never whole in memory.

    The first ten requests are simulated before: what is imported and set up at first use counts to the process
    as a whole, and not to its first figure.
    """
    import hermes_flow as hf

    seconds: dict[str, float] = {}
    config = _timed(seconds, "compose_s", lambda: hf.compose(overrides))
    _tables(hf.simulate(hf.compile(_first_requests(config))))
    program = _timed(seconds, "compile_s", lambda: hf.compile(config))
    result = _timed(seconds, "simulate_s", lambda: hf.simulate(program))
    _timed(seconds, "tables_s", lambda: _tables(result))
    return {
        "requests": result.summary["requests"]["submitted"],
        "completed": result.summary["requests"]["completed"],
        "events": result.summary["engine"]["events"],
        "steps": result.summary["engine"]["steps"],
        **seconds,
    }


def _first_requests(config: Config) -> Config:
    workload = config.workload
    key = {"trace": "limit", "sessions": "sessions"}.get(workload.kind, "requests")
    return replace(config, workload=replace(workload, **{key: 10}))


def _tables(result: Result) -> None:
    if result.program.stream_requests is not None:
        with TemporaryDirectory() as folder:
            result.write(folder)
        return
    for table in ("requests", "stages", "clients", "summary"):
        getattr(result, table)


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    started = time.process_time()
    value = work()
    seconds[name] = time.process_time() - started
    return value


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
