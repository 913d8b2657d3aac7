"""Sends Ctrl-C to commands at random moments: none shows a traceback, none loses a finished job.

A terminal sends the signal to every process of a command, ``kill -INT`` to one; half of the cases do each. A command
that had ended before its signal is no interrupt, and is not counted as one.
``python -m benchmarks.fuzz.interrupts [INTERRUPTS] [FIRST_SEED] [SECONDS] [FOLDER] [COMMANDS]`` prints the counts as
the table of docs/trust.md, also where its time is over first.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENDS_WITHIN_S = 60.0  # after the signal, on a busy machine
_SWEEP = ("-m", "pipeline=chat", "workload.requests=400", "workload.rate_per_s=2,4,6,8,10,12,14,16")
COMMANDS: dict[str, tuple[str, ...]] = {
    "simulate": ("workload.requests=3000", "hydra.run.dir=mine"),
    "sweep": (*_SWEEP, "hydra.sweep.dir=mine"),
    "joblib": (
        *("-m", "pipeline=chat", "workload.requests=4000", "workload.rate_per_s=2,4,6,8,10,12,14,16"),
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=mine"),
    ),
    "capacity": ("capacity", "workload.requests=500", "hydra.run.dir=mine"),
    "plan": ("plan", "workload.requests=60", "workload.rate_per_s=4", "hydra.run.dir=mine"),
}
_OURS = ("Traceback", "Exception ignored", "Fatal Python", "internal error", "KeyboardInterrupt", "Error:")


def interrupted(name: str, after_s: float, whole_group: bool, folder: Path) -> tuple[bool, str | None]:
    """Interrupt a command that long after its start.

    Returns whether it still ran, so that the signal reached it, and the promise that it broke, or None.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    process = _started(name, folder)
    time.sleep(after_s)
    if process.poll() is not None:
        process.communicate()
        return False, None
    with suppress(ProcessLookupError):
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    return True, _broken_by(name, process, folder)


def _broken_by(name: str, process: subprocess.Popen[str], folder: Path) -> str | None:
    """Wait for the end of an interrupted command, and return the promise that it broke, or None."""
    try:
        out, err = process.communicate(timeout=ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"did not end within {ENDS_WITHIN_S:g} s after the signal"
    begun = "hermes_flow" in err or "Traceback" not in err  # before that, Python itself shows where it was
    shown = [word for word in _OURS if begun and (word in err or word in out)]
    if shown:
        return f"shows {shown[0]!r}:\n{err[-1500:]}"
    if begun and process.returncode not in (0, 130, -signal.SIGINT):
        return f"ended with {process.returncode}: {err[-300:]}"
    left = _left_running(process.pid)
    if left:
        return f"left processes running: {left}"
    return _lost(name, folder / "mine", process.returncode)


def seconds_of(name: str, folder: Path) -> float:
    """Return how long the command takes without an interrupt."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    process = _started(name, folder)
    _, err = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}: {err}")
    return time.monotonic() - began


def main(
    interrupts: int = 100,
    first: int = 0,
    seconds: float = 1800.0,
    folder: str = "outputs/interrupts",
    names: str = "",
) -> int:
    """Send so many interrupts, or as many as time allows, to all commands in turn; print what broke and the counts.

    Returns 1 if a promise was broken.
    """
    began = time.monotonic()
    place = Path(folder)
    chosen = names.split(",") if names else list(COMMANDS)
    lasts = {name: seconds_of(name, place) for name in chosen}
    counts: Counter[tuple[str, str]] = Counter()
    seed = first
    while sum(counts[name, "sent"] for name in chosen) < interrupts and time.monotonic() - began < seconds:
        rng = random.Random(f"interrupt {seed}")
        name = chosen[seed % len(chosen)]
        after, whole_group = rng.uniform(0.0, lasts[name] * 1.05), rng.random() < 0.5
        sent, problem = interrupted(name, after, whole_group, place)
        counts[name, "sent" if sent else "too late"] += 1
        if problem is not None:
            counts[name, "broken"] += 1
            print(f"seed {seed}: {name} after {after:.3f} s, group {whole_group}: {problem}", flush=True)
        seed += 1
    print("| command | interrupts sent | ended before its signal | broke a promise |\n|---|---:|---:|---:|")
    columns = ("sent", "too late", "broken")
    for name in chosen:
        print(f"| {name} | " + " | ".join(str(counts[name, column]) for column in columns) + " |")
    whole = [sum(counts[name, column] for name in chosen) for column in columns]
    print("| all | " + " | ".join(map(str, whole)) + " |")
    print(f"seeds {first} to {seed - 1} in {time.monotonic() - began:,.0f} s")
    return 1 if whole[2] else 0


def _started(name: str, folder: Path) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a shell does."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "hermes_flow", *COMMANDS[name]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def _left_running(group: int) -> str:
    """Return the processes of a group that still run a while after its command has ended."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return ""
        time.sleep(0.1)
    return subprocess.run(
        ["ps", "-o", "pid,stat,args", "-g", str(group)], capture_output=True, text=True, check=False
    ).stdout


def _lost(name: str, result: Path, status: int) -> str | None:
    """Return what is missing in the folder of an interrupted command."""
    parts = [str(path) for path in result.rglob("*.part")] if result.is_dir() else []
    if parts:
        return f"left {parts[0]}"
    if name not in ("sweep", "joblib"):
        if status == 0 and not (result / "summary.json").is_file():
            return "ended with 0 and has no summary"
        return None
    import polars as pl

    ended = list(result.glob("*/job.json")) if result.is_dir() else []
    table = result / "sweep.parquet"
    if not ended and not table.is_file():
        return None
    if not table.is_file():
        return f"{len(ended)} jobs ended, and there is no sweep.parquet"
    done = pl.read_parquet(table).filter(pl.col("status") == "completed").height
    return None if done == len(ended) else f"{len(ended)} jobs ended, and the table has {done}"


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(*(int(each) for each in given[:3]), *given[3:]))
