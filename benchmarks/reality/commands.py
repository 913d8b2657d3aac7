"""Writes the trace and the command of recorded runs: ``python -m benchmarks.reality.commands FOLDER --into DIR``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reality.recorded import (
    CONF,
    overrides_of,
    read_run,
    replay_of,
    runs_of,
    trace_of,
    workload_of,
)


def command_of(folder: Path, name: str, into: Path) -> list[str]:
    """Write the trace of a run to ``into``, and return the words of the command that repeats it step by step."""
    run = read_run(folder, name)
    path = into / f"{name}.trace.parquet"
    trace_of(run).write_parquet(path)
    asked = [*overrides_of(run), *workload_of(run, path), *replay_of(run), "output.steps=true"]
    return ["hermes-flow", "--config-dir", str(CONF), *asked, f"hydra.run.dir={into / name}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="*", help="names of runs; all of the folder without")
    parser.add_argument("--into", type=Path, required=True, help="where traces and results go")
    given = parser.parse_args(arguments)
    given.into.mkdir(parents=True, exist_ok=True)
    folder, into = given.folder.resolve(), given.into.resolve()
    for name in given.runs or runs_of(folder):
        print(shlex.join(command_of(folder, name, into)))


if __name__ == "__main__":
    main()
