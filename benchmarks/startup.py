"""Measures starting, the default job and short sweeps: ``python -m benchmarks.startup [--runs N]``.

CPU times are multiples of the time that the bare imports of Hydra, Polars and NumPy take, in turns with them in the
same run. Leaves with status 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import Ended, run_module, run_python

BARE = "import hydra, polars, numpy"
TINY = ("workload=synthetic", "workload.requests=20")
FEW, MANY = 5, 25
SHORT_SWEEP = 8
SWEEPS_IN_TURNS = 4

# DESIGN, section 11: the bound of each figure.
BOUNDS = {"help": 0.7, "default_job": 1.6, "job_overhead_s": 0.10, "joblib": 1.0}
MEANINGS = {
    "bare_s": f"`{BARE}`, CPU s",
    "help": "`hermes-flow --help`, multiples of these imports",
    "default_job": "the default job, multiples of these imports",
    "job_s": "a further tiny job of a multirun, CPU s",
    "own_s": "its simulation and the writing of its files alone, CPU s",
    "job_overhead_s": "a further job besides these, CPU s",
    "joblib": f"{SHORT_SWEEP} tiny jobs with `hydra/launcher=joblib`, wall time as a multiple of the basic launcher",
}


def main() -> int:
    """Measure, print a table, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes per figure")
    found = measure(parser.parse_args().runs)
    print("| what | bound | reached |\n| --- | ---: | ---: |")
    for name, meaning in MEANINGS.items():
        bound = BOUNDS.get(name)
        print(f"| {meaning} | {'–' if bound is None else f'≤ {bound:g}'} | {found[name]:.3f} |")
    return any(found[name] > bound for name, bound in BOUNDS.items())


def measure(runs: int) -> dict[str, float]:
    """Return the figures of ``MEANINGS``; all of them take turns, so that a drifting machine drifts for all."""
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run in range(runs):
            print(f"start-up, run {run + 1} of {runs}", file=sys.stderr, flush=True)
            for key, value in _once(folder).items():
                taken.setdefault(key, []).append(value)
    figures = {key: median(values) for key, values in taken.items()}
    bare, job = figures["bare_s"], figures["job_s"]
    return figures | {
        "help": figures["help_s"] / bare,
        "default_job": figures["default_job_s"] / bare,
        "job_overhead_s": job - figures["own_s"],
        "joblib": figures["joblib_wall_s"] / figures["basic_wall_s"],
    }


def _once(folder: Path) -> dict[str, float]:
    few, many = (_sweep(folder, jobs).cpu_s for jobs in (FEW, MANY))
    return {
        "bare_s": run_python("-c", BARE, folder=folder).cpu_s,
        "help_s": run_module("hermes_flow", "--help", folder=folder).cpu_s,
        "default_job_s": run_module("hermes_flow", folder=folder).cpu_s,
        "job_s": (many - few) / (MANY - FEW),
        "own_s": float(json.loads(run_module("benchmarks.startup", "--own", folder=folder).output)),
        **_launchers(folder),
    }


def _launchers(folder: Path) -> dict[str, float]:
    """Return the wall time of a short sweep by launcher: the least of several in turns, other work only adds."""
    pairs = [
        (
            _sweep(folder, SHORT_SWEEP).wall_s,
            _sweep(folder, SHORT_SWEEP, "hydra/launcher=joblib").wall_s,
        )
        for _ in range(SWEEPS_IN_TURNS)
    ]
    basic, joblib = zip(*pairs, strict=True)
    return {"basic_wall_s": min(basic), "joblib_wall_s": min(joblib)}


def _sweep(folder: Path, jobs: int, *more: str) -> Ended:
    return run_module("hermes_flow", "-m", *TINY, f"seed=range({jobs})", *more, folder=folder)


def own_s() -> float:
    """Return the CPU seconds in which a tiny job simulates and writes its files, after a first one."""
    import hermes_flow as hf

    def work(seed: int, folder: Path) -> float:
        program: Any = hf.compile(hf.compose([*TINY, f"seed={seed}"]))
        started = time.process_time()
        hf.simulate(program).write(folder / str(seed))
        return time.process_time() - started

    with tempfile.TemporaryDirectory() as name:
        return median([work(seed, Path(name)) for seed in range(6)][1:])


if __name__ == "__main__":
    if sys.argv[1:] == ["--own"]:
        print(own_s())
        sys.exit()
    sys.exit(main())
